//! Whole ELF files, as a process may have mapped them, for those who look for names, for OpenSSL
//! and for Python in them.

#![no_main]

use std::{
    cell::RefCell,
    fs::File,
    io::{Seek, Write},
};

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing;

thread_local! {
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    fuzzing::tls_functions(bytes);
    fuzzing::python_image(bytes, "libpython3.11.so.1.0");
    FILE.with_borrow_mut(|kept| {
        if kept.is_none() {
            *kept = profiler_fuzz::memory_file().ok();
        }
        let Some(file) = kept else {
            return;
        };
        let is_written = file.set_len(0).and_then(|()| file.rewind());
        if is_written.and_then(|()| file.write_all(bytes)).is_err() {
            return;
        }
        let offset = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
        for offset in [offset, 0x1000] {
            if let Ok(file) = file.try_clone() {
                fuzzing::elf(file, offset);
            }
        }
        let name = file.try_clone().ok().and_then(fuzzing::debug_link);
        if let Some(name) = name {
            assert!(!name.as_encoded_bytes().contains(&b'/') && name != ".." && name != ".");
        }
    });
});
