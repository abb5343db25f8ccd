//! The configuration of the daemon.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::configuration;

fuzz_target!(|text: &str| {
    configuration(text);
});
