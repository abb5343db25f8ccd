//! Recordings read back: pprof and folded stacks, compressed or not, from any profiler.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::{
    output::{Format, Options, render},
    report::{merge, read},
};

/// The most that a profile holds.
const SAMPLES_MAX: u64 = 1 << 53;

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = read(bytes) else {
        return;
    };
    let total = profile.total();
    assert!(total <= SAMPLES_MAX);
    let twice = merge(vec![profile.clone(), profile.clone()]);
    assert_eq!(twice.total(), 2 * total);
    // What was read can be written and read again.
    let options = Options::default();
    for format in [Format::Pprof, Format::Folded] {
        let written = render(&profile, format, &options);
        let again = written.ok().and_then(|written| read(&written).ok());
        if total > 0 && format == Format::Pprof {
            assert_eq!(again.map(|again| again.total()), Some(total));
        }
    }
});
