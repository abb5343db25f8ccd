//! Finds a cgroup of the unified hierarchy (v2) by path or by the name of a systemd unit, in the form
//! in which the kernel side compares it: an id and a depth.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use crate::printable::{printable, shown};

/// Folders that a search for a unit may look at; a big host has a few thousand cgroups.
const FOLDERS_MAX: usize = 100_000;
/// What a unit's name ends in where the user did not say.
const UNIT_SUFFIXES: [&str; 3] = ["service", "scope", "slice"];

/// A cgroup as `bpf_get_current_ancestor_cgroup_id` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Inode number of its directory.
    pub id: u64,
    /// Its depth below the root, which is 0.
    pub level: u32,
}

impl Cgroup {
    /// Whether it is the cgroup at a path from the root, or one above it.
    pub(crate) fn holds(&self, path: &str) -> bool {
        mount_point().is_ok_and(|root| self.holds_below(&root, path))
    }

    fn holds_below(&self, root: &Path, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let level = usize::try_from(self.level).unwrap_or(usize::MAX);
        let Some(parts) = parts.get(..level) else {
            return false;
        };
        let directory: PathBuf = [root]
            .into_iter()
            .chain(parts.iter().map(Path::new))
            .collect();
        fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == self.id)
    }
}

/// Why there is no such cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The unified hierarchy is not mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    NotMounted,
    /// Nothing at that path.
    #[error("no cgroup at {}: {source}", shown(path))]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else at that path.
    #[error("{} is not in the cgroup v2 hierarchy at {}", shown(path), shown(root))]
    Elsewhere {
        /// As typed.
        path: PathBuf,
        /// Where the hierarchy is.
        root: PathBuf,
    },
    /// No cgroup of that name.
    #[error("no cgroup of a unit called `{}`", printable(name))]
    NoUnit {
        /// As typed.
        name: String,
    },
    /// Several cgroups of that name.
    #[error("several units are called `{}`: {}", printable(name), list(paths))]
    Ambiguous {
        /// As typed.
        name: String,
        /// Where they are.
        paths: Vec<PathBuf>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| shown(path)).collect();
    paths.join(", ")
}

impl CgroupError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotMounted => {
                "mount it (mount -t cgroup2 none /sys/fs/cgroup), or name processes with -p or --comm"
            }
            Self::NotFound { .. } => "see /proc/PID/cgroup for a process's path, after the `0::`",
            Self::Elsewhere { .. } => {
                "only cgroups of version 2 can be recorded; `profiler doctor` shows where they are"
            }
            Self::NoUnit { .. } => {
                "is it running? `systemctl status NAME` tells; `systemd-cgls` lists all"
            }
            Self::Ambiguous { .. } => "choose one with --cgroup PATH",
        };
        Some(hint.to_owned())
    }
}

/// Where the unified hierarchy is mounted.
pub fn mount_point() -> Result<PathBuf, CgroupError> {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    let mounts = mounts.map_err(|_| CgroupError::NotMounted)?;
    let unified = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
    unified
        .map(|mount| mount.mount_point)
        .ok_or(CgroupError::NotMounted)
}

/// Whether the processes of a cgroup, by its path from the root, are frozen.
pub(crate) fn is_frozen(path: &str) -> bool {
    let Ok(root) = mount_point() else {
        return false;
    };
    let events = root
        .join(path.trim_start_matches('/'))
        .join("cgroup.events");
    let events = fs::read_to_string(events).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}

/// A cgroup by its path: absolute, or below the root of the hierarchy with or without a slash.
pub fn resolve(path: &Path) -> Result<Cgroup, CgroupError> {
    resolve_below(&mount_point()?, path)
}

fn resolve_below(root: &Path, path: &Path) -> Result<Cgroup, CgroupError> {
    let full = if path.starts_with(root) {
        path.to_owned()
    } else {
        root.join(path.strip_prefix("/").unwrap_or(path))
    };
    let full = match full.canonicalize() {
        Ok(full) => full,
        Err(_) if path.is_absolute() && path.exists() => {
            return Err(CgroupError::Elsewhere {
                path: path.to_owned(),
                root: root.to_owned(),
            });
        }
        Err(source) => return Err(CgroupError::NotFound { path: full, source }),
    };
    let Ok(below) = full.strip_prefix(root) else {
        return Err(CgroupError::Elsewhere {
            path: path.to_owned(),
            root: root.to_owned(),
        });
    };
    let metadata = fs::metadata(&full);
    let id = metadata
        .map_err(|source| CgroupError::NotFound {
            path: full.clone(),
            source,
        })?
        .ino();
    let level = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    Ok(Cgroup { id, level })
}

/// The cgroup of a systemd unit: a directory of the unit's name, anywhere in the hierarchy.
pub fn unit(name: &str) -> Result<Cgroup, CgroupError> {
    unit_below(&mount_point()?, name)
}

fn unit_below(root: &Path, name: &str) -> Result<Cgroup, CgroupError> {
    let has_suffix = UNIT_SUFFIXES
        .iter()
        .any(|suffix| name.ends_with(&format!(".{suffix}")));
    let wanted: Vec<String> = if has_suffix {
        vec![name.to_owned()]
    } else {
        UNIT_SUFFIXES
            .iter()
            .map(|suffix| format!("{name}.{suffix}"))
            .collect()
    };
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        looked_at += 1;
        if looked_at > FOLDERS_MAX {
            break;
        }
        // A cgroup that is removed meanwhile is none that is looked for.
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if wanted.iter().any(|name| entry.file_name() == name.as_str()) {
                found.push(entry.path());
            }
            folders.push(entry.path());
        }
    }
    match found.as_slice() {
        [] => Err(CgroupError::NoUnit {
            name: name.to_owned(),
        }),
        [path] => resolve_below(root, path),
        _ => Err(CgroupError::Ambiguous {
            name: name.to_owned(),
            paths: found,
        }),
    }
}

/// A cgroup's path however it was typed, as `/proc/PID/cgroup` has it: from the root of the hierarchy.
pub fn from_root(typed: &str) -> String {
    let below = typed.strip_prefix("/sys/fs/cgroup").unwrap_or(typed);
    format!("/{}", below.trim_matches('/'))
}

/// Whether a cgroup, by its path from the root of the hierarchy, is that of a systemd unit or below it.
pub fn is_in_unit(path: &str, unit: &str) -> bool {
    let is_unit = |part: &str| {
        part == unit
            || part.strip_prefix(unit).is_some_and(|rest| {
                rest.strip_prefix('.')
                    .is_some_and(|suffix| UNIT_SUFFIXES.contains(&suffix))
            })
    };
    path.split('/').any(is_unit)
}

/// Whether a cgroup is this one or below it, both by their paths from the root.
pub fn is_below(path: &str, cgroup: &str) -> bool {
    let cgroup = cgroup.trim_end_matches('/');
    let rest = path.strip_prefix(cgroup);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use super::{CgroupError, is_below, is_in_unit, resolve_below, unit_below};

    /// A hierarchy of plain folders, which look the same from here.
    fn hierarchy() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "system.slice/nginx.service/worker",
            "user.slice/a/app.scope",
            "user.slice/b/app.scope",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        root
    }

    /// A unit is a whole part of a path; a cgroup is not one that its name only begins with.
    #[test]
    fn paths_are_matched_by_parts() {
        let path = "/system.slice/nginx.service/worker";
        assert!(is_in_unit(path, "nginx") && is_in_unit(path, "nginx.service"));
        assert!(is_in_unit(path, "system.slice") && is_in_unit(path, "system"));
        assert!(!is_in_unit(path, "ngin") && !is_in_unit(path, "nginx.scope"));
        assert!(!is_in_unit("/system.slice/nginx.service.d", "nginx"));
        assert!(is_below(path, "/system.slice/nginx.service") && is_below(path, "/"));
        assert!(is_below(path, "/system.slice/") && !is_below(path, "/system.slice/nginx"));
    }

    /// Every way to write a path means the same cgroup, with its depth.
    #[test]
    fn paths_below_the_root() {
        let root = hierarchy();
        let full = root.path().join("system.slice/nginx.service");
        let inode = fs::metadata(&full).unwrap().ino();
        for path in [
            "system.slice/nginx.service",
            "/system.slice/nginx.service",
            full.to_str().unwrap(),
        ] {
            let cgroup = resolve_below(root.path(), Path::new(path)).unwrap();
            assert_eq!((cgroup.id, cgroup.level), (inode, 2), "{path}");
            let holds = |path| cgroup.holds_below(root.path(), path);
            assert!(holds("/system.slice/nginx.service/worker"));
            assert!(holds("/system.slice/nginx.service"));
            assert!(!holds("/system.slice") && !holds("/user.slice/a/app.scope"));
        }
        assert!(matches!(
            resolve_below(root.path(), Path::new("nothing")),
            Err(CgroupError::NotFound { .. })
        ));
        assert!(matches!(
            resolve_below(root.path(), Path::new("../..")),
            Err(CgroupError::Elsewhere { .. })
        ));
    }

    /// A unit is found by its name with or without its suffix; two of one name are not guessed at.
    #[test]
    fn units_by_name() {
        let root = hierarchy();
        let nginx = unit_below(root.path(), "nginx").unwrap();
        assert_eq!(unit_below(root.path(), "nginx.service").unwrap(), nginx);
        assert!(
            matches!(unit_below(root.path(), "app"), Err(CgroupError::Ambiguous { paths, .. }) if paths.len() == 2)
        );
        assert!(matches!(
            unit_below(root.path(), "worker"),
            Err(CgroupError::NoUnit { .. })
        ));
    }
}
