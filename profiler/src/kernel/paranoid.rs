//! `kernel.perf_event_paranoid`, as far as it takes perf events from whoever has `CAP_PERFMON`.

use std::fs;

/// The level from which on the kernels of Debian, Ubuntu and Android refuse perf events to whoever lacks
/// `CAP_SYS_ADMIN`. Linux's own know no level above 2, and take a higher one for it.
pub const PARANOID_MIN: i64 = 3;

/// The level now; `None` where it cannot be read.
pub fn perf_event_paranoid() -> Option<i64> {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    text.trim().parse().ok()
}

/// What mends it where that level refuses. The level is the whole machine's, so that it is for whoever owns it to choose.
pub fn paranoid_remedy(level: i64) -> String {
    format!(
        "kernel.perf_event_paranoid is {level}, at which this kernel lets only CAP_SYS_ADMIN open perf events: \
         sudo sysctl kernel.perf_event_paranoid=2 (to keep it: /usr/share/doc/profiler/examples/perf-events.conf), or \
         run as root, or give profiler.service CAP_SYS_ADMIN (sys-admin.conf beside that file)"
    )
}
