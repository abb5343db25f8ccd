//! Libraries whose sections become far more than they are, or claim to.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use object::{Object, ObjectSection};

use crate::bench::Bench;

/// More than the child may have, in the service or beside it.
const BOMB: u64 = 3 << 30;

/// A library with a function `spin_NAME` and an empty section of this name.
pub(crate) fn library(bench: &Bench, name: &str, section: &str) -> PathBuf {
    let source = format!(
        r#"
        #include <stdint.h>
        static volatile uint64_t sink;
        void spin_{name}(void) {{ for (int i = 0; i < 300000; i++) sink += i; }}
        __asm__(".pushsection {section},\"\",@progbits\n.zero 16\n.popsection");
        "#
    );
    let options = ["-shared", "-fPIC", "-g0", "-nostdlib"];
    bench.compile(&format!("{name}.so"), &source, &options)
}

/// Puts other contents in the place of a section, at the end of the file.
fn replace_section(library: &Path, section: &str, body: &[u8], is_compressed: bool) {
    const COMPRESSED: u64 = 0x800;
    let mut bytes = fs::read(library).expect("it is there");
    let object = object::File::parse(bytes.as_slice()).expect("an ELF file");
    let index = object
        .section_by_name(section)
        .expect("it has one")
        .index()
        .0;
    let word = |bytes: &[u8], at: usize| {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let headers = usize::try_from(word(&bytes, 0x28)).expect("small");
    let header = headers + 64 * index;
    let begin = bytes.len().next_multiple_of(8);
    bytes.resize(begin, 0);
    bytes.extend_from_slice(body);
    let flags = word(&bytes, header + 8) | if is_compressed { COMPRESSED } else { 0 };
    for (at, value) in [(8, flags), (24, begin as u64), (32, body.len() as u64)] {
        bytes[header + at..header + at + 8].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(library, bytes).expect("it can be written");
}

/// A compressed section as ELF has it.
fn compressed(kind: u32, claimed: u64, stream: &[u8]) -> Vec<u8> {
    let mut body = kind.to_le_bytes().to_vec();
    body.extend(0_u32.to_le_bytes());
    body.extend(claimed.to_le_bytes());
    body.extend(1_u64.to_le_bytes());
    body.extend_from_slice(stream);
    body
}

/// So many zeros as zlib has them: flushed pieces of equal contents are equal from the second one on.
fn zlib_zeros(bytes: u64) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let mut piece = || {
        encoder.write_all(&vec![0; PIECE]).expect("memory");
        encoder.flush().expect("memory");
        std::mem::take(encoder.get_mut())
    };
    let (first, _, third) = (piece(), piece(), piece());
    let more = usize::try_from(bytes).expect("64 bits") / PIECE;
    [first, third.repeat(more)].concat()
}

/// So many zeros as zstd has them: blocks of one byte that is repeated.
fn zstd_zeros(bytes: u64) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    let mut stream = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let blocks = bytes / u64::from(BLOCK);
    for block in 0..blocks {
        let is_last = u32::from(block + 1 == blocks);
        let header = BLOCK << 3 | 1 << 1 | is_last;
        stream.extend_from_slice(&header.to_le_bytes()[..3]);
        stream.push(0);
    }
    stream
}

/// So many zeros as xz has them.
fn xz_zeros(bytes: u64) -> Vec<u8> {
    let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
    let piece = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        encoder.write_all(&piece).expect("memory");
    }
    encoder.finish().expect("memory")
}

/// Every kind of bomb; with it, whether its function's name can be read nevertheless.
pub(crate) fn bombs(bench: &Bench) -> Vec<(PathBuf, bool)> {
    const CLAIM: u64 = 200_000_000_000;
    const ZLIB: u32 = 1;
    const ZSTD: u32 = 2;
    let small = zlib_zeros(0);
    let in_debug_info = [
        ("claim_zlib", compressed(ZLIB, CLAIM, &small)),
        ("claim_zstd", compressed(ZSTD, CLAIM, &zstd_zeros(1 << 17))),
        ("real_zlib", compressed(ZLIB, 16, &zlib_zeros(BOMB))),
        ("real_zstd", compressed(ZSTD, 16, &zstd_zeros(BOMB))),
    ];
    let mut made = Vec::new();
    for (name, body) in in_debug_info {
        let path = library(bench, name, ".debug_info");
        replace_section(&path, ".debug_info", &body, true);
        made.push((path, true));
    }
    let path = library(bench, "debugdata", ".gnu_debugdata");
    let strip = Command::new("strip").arg(&path).status();
    assert!(strip.expect("strip runs").success());
    replace_section(&path, ".gnu_debugdata", &xz_zeros(600 << 20), false);
    made.push((path, false));
    made
}
