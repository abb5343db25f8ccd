//! ELF files that are in order but for what their symbols say, and for their code: with OpenSSL's
//! functions and Python's. Five bytes a symbol: which, at which offset, how long; a zero length
//! ends them. The rest is code.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing;
use profiler_fuzz::{Machine, Part, build};

const NAMES: [&str; 12] = [
    "SSL_read",
    "SSL_read_ex",
    "SSL_write",
    "SSL_write_ex",
    "SSL_write_ex2",
    "SSL_free",
    "_PyRuntime",
    "_PyEval_EvalFrameDefault",
    "_PyEval_EvalFrameDefault.cold",
    "Py_Version",
    "_TAIL_CALL_LOAD",
    "_Py_NegativeRefcount",
];
const SYMBOLS_MAX: usize = 32;
/// Where `build` puts the first section.
const ADDRESS: u64 = 0x1000_0000;

fuzz_target!(|bytes: &[u8]| {
    let mut names = vec![0];
    let mut table = vec![0; 24];
    let mut rest = bytes;
    for _ in 0..SYMBOLS_MAX {
        let Some((&[which, a, b, c, d], behind)) = rest.split_first_chunk() else {
            break;
        };
        rest = behind;
        if [c, d] == [0, 0] {
            break;
        }
        let name = NAMES[usize::from(which) % NAMES.len()];
        let place = u32::try_from(names.len()).unwrap_or(0);
        names.extend(name.bytes().chain([0]));
        table.extend(place.to_le_bytes());
        // A function of this file, unless an odd one.
        table.extend([0x12, 0]);
        table.extend(if which > 240 { [0xf1, 0xff] } else { [1, 0] });
        let offset = u64::from(u16::from_le_bytes([a, b]));
        let address = match which {
            // Behind the ends of the address space.
            200..=220 => u64::MAX - offset,
            _ => ADDRESS + offset,
        };
        table.extend(address.to_le_bytes());
        let size = u64::from(u16::from_le_bytes([c, d]));
        let size = if which > 230 { u64::MAX - size } else { size };
        table.extend(size.to_le_bytes());
    }
    let parts = [
        Part::data(".text", rest),
        Part {
            name: ".dynsym",
            kind: 11,
            link: 3,
            entry: 24,
            bytes: &table,
        },
        Part {
            name: ".dynstr",
            kind: 3,
            link: 0,
            entry: 0,
            bytes: &names,
        },
        Part::data(".rodata", rest),
    ];
    let file = build(Machine::X86_64, &parts);
    fuzzing::tls_functions(&file);
    fuzzing::python_image(&file, "uwsgi");
});
