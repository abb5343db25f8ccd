//! Root directories of processes, one descriptor for all that share one.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Weak},
};

use crate::foreign::Root;

/// Most that are kept open: containers, and services with a mount namespace of their own. Files of further ones have
/// the host's debug information only.
const ROOTS_MAX: usize = 256;

/// Mount namespace, and the root's device and inode number.
type Key = (PathBuf, (u64, u64));

/// Those in use.
#[derive(Debug, Default)]
pub(super) struct Roots(HashMap<Key, Weak<Root>>);

impl Roots {
    /// That of a process; `None` if it is gone or may not be looked at.
    pub(super) fn of(&mut self, pid: u32) -> Option<Arc<Root>> {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
        let root = Root::of(pid).ok()?;
        let key = (namespace, root.device_and_inode()?);
        if let Some(known) = self.0.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        self.0.retain(|_, root| root.strong_count() > 0);
        if self.0.len() >= ROOTS_MAX {
            return None;
        }
        let root = Arc::new(root);
        self.0.insert(key, Arc::downgrade(&root));
        Some(root)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Roots;

    /// Processes with one root share a descriptor, which is closed when nobody has it any more.
    #[test]
    fn roots_are_shared() {
        let mut roots = Roots::default();
        let own = roots.of(std::process::id()).unwrap();
        assert!(Arc::ptr_eq(&own, &roots.of(std::process::id()).unwrap()));
        assert!(roots.of(u32::MAX).is_none());
        drop(own);
        assert!(roots.0.values().all(|root| root.strong_count() == 0));
    }
}
