//! The kernel's list of sockets, with names that targets choose.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::sockets;

fuzz_target!(|datagram: &[u8]| {
    let (tcp, unix) = sockets(datagram);
    assert!(
        tcp <= unix,
        "a message that is long enough for one is so for the other"
    );
    assert!(unix * 32 <= datagram.len());
});
