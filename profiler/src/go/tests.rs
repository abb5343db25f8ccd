//! A table that is made here, as Go's linker makes it.

use proptest::prelude::*;

use super::{Place, Table, fuzzing, inlined::places};

const TEXT: u64 = 0x40_1000;

/// What stands where in a table under construction.
struct Parts {
    names: Vec<u8>,
    files: Vec<u8>,
    values: Vec<u8>,
}

impl Parts {
    /// A table of values: each with how many bytes of code it holds for.
    fn values(&mut self, steps: &[(i32, u8)]) -> u32 {
        let offset = u32::try_from(self.values.len()).unwrap();
        let mut last = -1;
        for &(value, length) in steps {
            let by = value - last;
            self.values
                .push(u8::try_from((by << 1) ^ (by >> 31)).unwrap());
            self.values.push(length);
            last = value;
        }
        self.values.push(0);
        offset
    }
}

/// `main.main` of 32 bytes, of which `main.leaf` is inlined into bytes 8 to 15 by the call at byte 4; then
/// `main.last` of 16 bytes. And what functions' data are offsets of.
fn small(is_new: bool) -> (Vec<u8>, Vec<u8>) {
    let mut parts = Parts {
        names: b"\0main.main\0main.leaf\0main.last\0".to_vec(),
        files: b"a.go\0leaf.go\0".to_vec(),
        values: vec![0],
    };
    let files = parts.values(&[(0, 8), (1, 8), (0, 16)]);
    let lines = parts.values(&[(10, 8), (3, 8), (11, 16)]);
    let tree = parts.values(&[(-1, 8), (0, 8), (-1, 16)]);
    let record = |entry: u32, name: u32, further: &[u32], data: &[u32]| {
        let mut words = vec![entry, name, 0, 0, 0, files, lines];
        words.extend([u32::try_from(further.len()).unwrap(), 0]);
        words.extend(is_new.then_some(9));
        words.push(u32::try_from(data.len()).unwrap() << 24);
        words.extend(further);
        words.extend(data);
        words
    };
    let main = record(0, 1, &[0, 0, tree], &[u32::MAX, u32::MAX, u32::MAX, 4]);
    let last = record(32, 21, &[], &[]);
    let list = 5 * 4;
    let second = list + u32::try_from(main.len() * 4).unwrap();
    let functions = [&[0, list, 32, second, 48][..], &main, &last].concat();
    let functions: Vec<u8> = functions
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let units: Vec<u8> = [0_u32, 5]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let mut table = vec![
        if is_new { 0xf1 } else { 0xf0 },
        0xff,
        0xff,
        0xff,
        0,
        0,
        1,
        8,
    ];
    let mut at = 72;
    let bodies = [
        &parts.names,
        &units,
        &parts.files,
        &parts.values,
        &functions,
    ];
    let mut words = vec![2, 2, TEXT];
    for body in &bodies {
        words.push(at);
        at += body.len() as u64;
    }
    table.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    for body in bodies {
        table.extend(body);
    }
    let mut entry = if is_new {
        vec![0, 11, 4, 1]
    } else {
        vec![0xffff, 0, 3, 11, 4]
    };
    entry.insert(0, 0_u32);
    (
        table,
        entry.iter().flat_map(|word| word.to_le_bytes()).collect(),
    )
}

/// Functions, lines and what is inlined, in both kinds of tables.
#[test]
fn names_lines_and_inlined_calls_are_found() {
    let place = |name, file, line| Place {
        name,
        line: Some((file, line)),
    };
    for is_new in [false, true] {
        let (bytes, data) = small(is_new);
        let table = Table::parse(&bytes, TEXT).unwrap();
        let at = |address: u64| places(&table, &data, TEXT + address);
        assert_eq!(at(0), [place("main.main", "a.go", 10)]);
        assert_eq!(
            at(9),
            [
                place("main.leaf", "leaf.go", 3),
                place("main.main", "a.go", 10)
            ]
        );
        assert_eq!(at(31), [place("main.main", "a.go", 11)]);
        assert_eq!(at(33)[0].name, "main.last");
        assert!(at(48).is_empty() && places(&table, &data, TEXT - 1).is_empty());
        // Without their data nothing is known to be inlined.
        assert_eq!(places(&table, &[], TEXT + 9)[0].name, "main.main");
    }
}

/// A function that ends before it begins is none: the others stay.
#[test]
fn functions_have_their_ends_behind_their_beginnings() {
    let (mut bytes, _) = small(true);
    let of = |bytes: &[u8]| {
        let table = Table::parse(bytes, TEXT).unwrap();
        table
            .functions()
            .map(|function| function.range)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&bytes), [TEXT..TEXT + 32, TEXT + 32..TEXT + 48]);
    let end = bytes
        .windows(4)
        .rposition(|word| word == 48_u32.to_le_bytes())
        .unwrap();
    bytes[end] = 16;
    let first = TEXT..TEXT + 32;
    assert_eq!(of(&bytes), std::slice::from_ref(&first));
}

proptest! {
    /// Whatever byte is another one: an answer, and an end.
    #[test]
    fn other_bytes_are_read_to_an_end(
        is_new: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        text: u64,
    ) {
        let (mut bytes, data) = small(is_new);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        fuzzing::names(&bytes, text, &data);
        fuzzing::names(&bytes, TEXT, &bytes);
    }
}
