//! What a browser sends: the `Host` header and what follows the question mark, a line each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::{host, query_string};

fuzz_target!(|text: &str| {
    let (name, query) = text.split_once('\n').unwrap_or((text, ""));
    query_string(query);
    if host(name) {
        // By another reading of the same: nothing stands behind the name but a port.
        let behind = match name.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(_, behind)| behind),
            None => name.find(':').map_or("", |at| &name[at..]),
        };
        let port = behind.strip_prefix(':').unwrap_or(behind);
        assert!(
            port.bytes().all(|byte| byte.is_ascii_digit()),
            "`{name}` is taken for this machine"
        );
    }
});
