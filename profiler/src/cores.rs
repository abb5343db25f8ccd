//! No core dumps: what a recording or the daemon holds of other users' processes stays in memory.

use std::sync::OnceLock;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// From now on this process is never dumped, whatever ends it. A handler of dumps gets none either,
/// which the limit alone would not see to.
pub fn forbid() {
    // Neither can fail: the soft limit may always be lowered. If one did, the other would still
    // hold.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let before = BEFORE.get_or_init(|| getrlimit(Resource::Core));
    let none = Rlimit {
        current: Some(0),
        ..*before
    };
    let _ = setrlimit(Resource::Core, none);
}

/// Gives a child the limit that this process was started with. To be called between fork and exec:
/// dumps of another program are its user's affair.
pub(crate) fn restore() {
    if let Some(before) = BEFORE.get() {
        let _ = setrlimit(Resource::Core, *before);
    }
}
