//! What targets begin with that read text or small messages: files of this checkout, and of this
//! very process.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::shell::root;

/// A pprof profile: a sample of one frame, with the names of everything.
const PPROF: &[u8] =
    b"\x0a\x04\x08\x01\x10\x02\x12\x06\x0a\x01\x01\x12\x01\x0a\x22\x08\x08\x01\x22\x04\x08\x01\x10\
    \x03\x2a\x04\x08\x01\x10\x03\x32\x00\x32\x07samples\x32\x05count\x32\x04main";
/// Code: `test %edi,%edi; je L; xor %eax,%eax; ret; nop; L: mov $1,%eax; ret`.
const CODE: &[u8] = b"\0\x85\xff\x74\x04\x31\xc0\xc3\x90\xb8\xc3\0\0\0\xc3";
/// The same as a function of that name, behind two symbols.
const SYMBOLS: &[u8] =
    b"\x01\0\0\x0e\0\x06\0\0\0\0\x85\xff\x74\x04\x31\xc0\xc3\x90\xb8\xc3\0\0\0\xc3";
const PERF_MAP: &[u8] =
    b"\x10\x10\0\0\0\0\0\x001000 100 LazyCompile:~a app.js:1\n1080 20 b\n0x2000 0x10 c d\n";
const REQUESTS: [&[u8]; 3] = [
    b"localhost:7979\nsince=5m&until=&comm=post*&pid=1%2C2&mode=off-cpu",
    b"[::1]:80\nsince=2026-01-01+00%3A00&unit=app.service",
    b"127.0.0.1",
];

const ANSWERS: [&[u8]; 3] = [
    br#"{"Links":{"build_id":[1,2],"debug_link":[97]}}"#,
    br#"{"PerfMap":{"names":["a",null],"malformed":1,"beyond":0}}"#,
    br#"{"Names":{"is_elf":true,"debug":"Own","is_debug_unusable":false,"uncopied":false,"named":["Nothing",{"Function":9},
        {"Section":".plt"},{"Symbol":[{"name":"f","file":"a.c","line":3}]}]}}"#,
];

/// Go's table of two functions, behind where their code begins.
const GO_TABLE: &str = "\
    0000001000000000f1ffffff0000010802000000000000000200000000000000000000100000000048000000000000006700\
    0000000000006f000000000000007c000000000000009900000000000000006d61696e2e6d61696e006d61696e2e6c656166\
    006d61696e2e6c617374000000000005000000612e676f006c6561662e676f00000208020801100016080d08101000000802\
    08011000020430182f04000000000014000000200000005c0000003000000000000000010000000000000000000000160000\
    0001000000080000000300000000000000090000000000000400000000000000000f000000ffffffffffffffffffffffff04\
    0000002000000015000000000000000000000016000000010000000800000000000000000000000900000000000000";

/// A target and its first inputs.
type Seeds = (&'static str, Vec<Vec<u8>>);

/// Those of each such target.
pub(super) fn texts() -> Result<Vec<Seeds>> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let ours = |path: &str| read(&root().join(path));
    let window = |choice: u8, name: &str| -> Result<Vec<u8>> {
        let json = ours(&format!("profiler/tests/window-{name}.json"))?;
        Ok([&[choice], json.as_slice()].concat())
    };
    let mut recordings = vec![PPROF.to_vec()];
    for entry in fs::read_dir(root().join("flamegraphs"))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|suffix| suffix == "folded") {
            recordings.push(read(&path)?);
        }
    }
    Ok(vec![
        ("recording", recordings),
        (
            "window",
            vec![
                window(0, "queries")?,
                window(1, "tcp")?,
                window(2, "syscalls")?,
            ],
        ),
        ("maps", vec![read(Path::new("/proc/self/maps"))?]),
        ("sockets", vec![list(72 + 240), list(16 + 12)]),
        (
            "configuration",
            vec![uncommented(&ours("profiler/packaging/profiler.toml")?)],
        ),
        ("request", REQUESTS.map(<[u8]>::to_vec).to_vec()),
        ("returns", vec![CODE.to_vec()]),
        ("symbols", vec![SYMBOLS.to_vec()]),
        ("perf_map", vec![PERF_MAP.to_vec()]),
        ("answer", ANSWERS.map(<[u8]>::to_vec).to_vec()),
        ("go_table", vec![bytes_of(GO_TABLE)]),
    ])
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().as_chunks::<2>().0.iter();
    let byte = |digits: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    digits.filter_map(byte).collect()
}

/// Two messages about sockets, without anything in them, and the end.
fn list(bytes: u16) -> Vec<u8> {
    let header = |length: u16, kind: u16| {
        let [low, high] = (16 + length).to_ne_bytes();
        let [kind_low, kind_high] = kind.to_ne_bytes();
        [[low, high, 0, 0, kind_low, kind_high, 2, 0], [0; 8]].concat()
    };
    let one = [header(bytes, 20), vec![0; usize::from(bytes)]].concat();
    [one.clone(), one, header(0, 3)].concat()
}

/// The example of a configuration, with everything that it only names.
fn uncommented(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| {
        let bare = line.strip_prefix("#: ");
        bare.unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}
