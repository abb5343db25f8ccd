//! Texts of statements: they come from whoever talks to Postgres.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::postgres::sql::{Extent, Reading, Strings, normalise, statements};

fuzz_target!(|input: &[u8]| {
    let Some((choice, text)) = input.split_first() else {
        return;
    };
    let reading = Reading {
        extent: if choice & 1 == 0 {
            Extent::Whole
        } else {
            Extent::Cut
        },
        strings: match choice >> 1 & 3 {
            0 => Strings::Conforming,
            1 => Strings::Escaping,
            _ => Strings::Unknown,
        },
    };
    let mut end = 0;
    for range in statements(text, reading.strings) {
        assert!(
            range.start >= end && range.end > range.start,
            "statements follow one another"
        );
        end = range.end;
        let normal = normalise(&text[range], reading);
        let whole = Reading {
            extent: Extent::Whole,
            ..reading
        };
        if reading.extent == Extent::Whole {
            let again = normalise(normal.text.as_bytes(), whole);
            assert_eq!(
                again.fingerprint, normal.fingerprint,
                "a normal form is its own"
            );
        }
    }
    assert!(end <= text.len());
});
