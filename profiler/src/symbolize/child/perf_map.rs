//! Perf maps: the text file in which a runtime tells the names of the code it made, one line each:
//! `START SIZE NAME`, both numbers hexadecimal (tools/perf/Documentation/jit-interface.txt of the
//! kernel). Tolerant: the file is written while we read, by somebody else.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
};

use super::readable::FromStart;
use crate::symbolize::wire::JitNames;

/// How much of a file is read: V8 writes about 1 MB an hour.
const BYTES_MAX: u64 = 32 << 20;
/// Most lines of a file.
const LINES_MAX: usize = 1 << 20;
/// Memory of all maps that are kept.
const KEPT_MAX: usize = 64 << 20;

/// A file and the state of it that was read.
type Version = (u64, u64, u64, (i64, i64));

/// The maps that were read last, as long as they do not change.
#[derive(Default)]
pub(super) struct PerfMaps {
    kept: VecDeque<(Version, PerfMap)>,
}

impl PerfMaps {
    /// A name for each address.
    pub(super) fn names(&mut self, file: &OwnedFd, addresses: &[u64]) -> io::Result<JitNames> {
        let metadata = File::from(file.try_clone()?).metadata()?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        let version = (metadata.dev(), metadata.ino(), metadata.size(), changed);
        let known = self.kept.iter().position(|(known, _)| *known == version);
        let map = if let Some((_, map)) = known.and_then(|index| self.kept.remove(index)) {
            map
        } else {
            let same_file = |known: &Version| (known.0, known.1) == (version.0, version.1);
            self.kept.retain(|(known, _)| !same_file(known));
            let length = usize::try_from(BYTES_MAX.min(version.2)).unwrap_or(KEPT_MAX);
            self.make_room(length);
            let mut text = Vec::with_capacity(length);
            // What could be read before an error is used.
            let _ = FromStart::of(file)?.take(BYTES_MAX).read_to_end(&mut text);
            PerfMap::parse(text)
        };
        let answer = JitNames {
            names: map.find_all(addresses),
            malformed: map.malformed,
            beyond: map.left_out + version.2.saturating_sub(BYTES_MAX),
        };
        self.make_room(map.memory());
        self.kept.push_back((version, map));
        Ok(answer)
    }

    /// Forgets the maps that were not asked for the longest.
    fn make_room(&mut self, memory: usize) {
        let kept = |maps: &VecDeque<(Version, PerfMap)>| -> usize {
            maps.iter().map(|(_, map)| map.memory()).sum()
        };
        while !self.kept.is_empty() && kept(&self.kept) + memory > KEPT_MAX {
            self.kept.pop_front();
        }
    }
}

/// A map as it was written, and where its lines are: 16 bytes a line beside its text.
#[derive(Debug, Default)]
pub(crate) struct PerfMap {
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Lines that could not be read.
    malformed: u64,
    /// Bytes in lines beyond the bound.
    left_out: u64,
}

#[derive(Debug)]
struct Entry {
    start: u64,
    length: u32,
    /// Where the name begins in the text.
    name: u32,
}

impl PerfMap {
    /// Reads the whole text. A last line without an end may be half-written and is left out.
    pub(crate) fn parse(text: Vec<u8>) -> Self {
        let mut map = Self::default();
        let mut at = 0;
        while let Some(length) = text[at..].iter().position(|&byte| byte == b'\n') {
            if map.entries.len() >= LINES_MAX {
                map.left_out = (text.len() - at) as u64;
                break;
            }
            let line = &text[at..at + length];
            match entry(line, at) {
                Some(entry) => map.entries.push(entry),
                None if line.is_empty() => {}
                None => map.malformed += 1,
            }
            at += length + 1;
        }
        map.text = text;
        map.text.truncate(at);
        map.text.shrink_to_fit();
        map.entries.shrink_to_fit();
        map
    }

    /// The names of the code at addresses, which are in ascending order: of the entries that hold one, the last
    /// written, as runtimes use memory again.
    pub(crate) fn find_all(&self, addresses: &[u64]) -> Vec<Option<String>> {
        let mut found = vec![None; addresses.len()];
        for entry in &self.entries {
            let first = addresses.partition_point(|&address| address < entry.start);
            let held = addresses[first..]
                .iter()
                .take_while(|&&address| address - entry.start < u64::from(entry.length));
            let end = first + held.count();
            found[first..end].fill(Some(entry.name));
        }
        found
            .into_iter()
            .map(|name| Some(self.name(name?)))
            .collect()
    }

    fn name(&self, at: u32) -> String {
        let text = usize::try_from(at).ok().and_then(|at| self.text.get(at..));
        let line = text.unwrap_or_default().split(|&byte| byte == b'\n').next();
        String::from_utf8_lossy(line.unwrap_or_default())
            .trim()
            .to_owned()
    }

    fn memory(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

/// What a line says; `at` is where it begins.
fn entry(line: &[u8], at: usize) -> Option<Entry> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let number = |word: &[u8]| {
        let digits = std::str::from_utf8(word).ok()?;
        u64::from_str_radix(digits.trim_start_matches("0x"), 16).ok()
    };
    let start = number(words.next()?)?;
    let length = number(words.next()?)?;
    start.checked_add(length)?;
    let name = words.next()?;
    // By what it is shown as: blanks that are no ASCII count, too.
    let is_empty = String::from_utf8_lossy(name).trim().is_empty();
    let before = line.len() - name.len();
    (!is_empty).then_some(Entry {
        start,
        length: u32::try_from(length).unwrap_or(u32::MAX),
        name: u32::try_from(at + before).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd};

    use proptest::prelude::*;

    use super::{BYTES_MAX, KEPT_MAX, LINES_MAX, PerfMap, PerfMaps};

    fn find(map: &PerfMap, address: u64) -> Option<String> {
        map.find_all(&[address]).remove(0)
    }

    /// The last line written for an address holds; names may contain blanks.
    #[test]
    fn later_lines_override() {
        let text = b"1000 100 LazyCompile:~a app.js:1\n1080 20 b\n0x2000 0x10 c\n1000 100 d e\r\nnonsense\n4000 10 \x0b\n\n3000 10 half";
        let map = PerfMap::parse(text.to_vec());
        let names = map.find_all(&[0xfff, 0x1000, 0x1090, 0x1100, 0x200f, 0x3000]);
        let (older, newer) = (Some("c".to_owned()), Some("d e".to_owned()));
        assert_eq!(names, [None, newer.clone(), newer, None, older, None]);
        assert_eq!(map.malformed, 2);
    }

    /// A map of the shortest lines takes no more than three times the bytes that are read of it, and what is not
    /// read is counted.
    #[test]
    fn memory_is_bounded() {
        let line = b"1 1 a\n";
        let read = usize::try_from(BYTES_MAX).unwrap();
        let text = line.repeat(read / line.len());
        let length = text.len();
        let map = PerfMap::parse(text);
        assert!(map.memory() <= 3 * read, "{}", map.memory());
        let left_out = length - LINES_MAX * line.len();
        assert_eq!(usize::try_from(map.left_out), Ok(left_out));
        assert_eq!(find(&map, 1).as_deref(), Some("a"));
    }

    /// A file is read once as long as it does not change, its names change with it, and not all that were read are
    /// kept.
    #[test]
    fn unchanged_maps_are_kept() {
        let mut maps = PerfMaps::default();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"1000 10 one\n").unwrap();
        let descriptor = OwnedFd::from(file.try_clone().unwrap());
        let name =
            |maps: &mut PerfMaps| maps.names(&descriptor, &[0x1008]).unwrap().names.remove(0);
        assert_eq!(name(&mut maps).as_deref(), Some("one"));
        // Only a map that is kept has this.
        maps.kept[0].1.malformed = 77;
        let again = maps.names(&descriptor, &[0x1008]).unwrap();
        assert_eq!((again.malformed, maps.kept.len()), (77, 1));
        file.write_all(b"1000 10 two\n").unwrap();
        assert_eq!(name(&mut maps).as_deref(), Some("two"));
        assert_eq!(maps.kept.len(), 1);
        for _ in 0..3 {
            let mut long = tempfile::tempfile().unwrap();
            long.write_all(&vec![b'\n'; KEPT_MAX / 3]).unwrap();
            maps.names(&OwnedFd::from(long), &[]).unwrap();
        }
        let kept: usize = maps.kept.iter().map(|(_, map)| map.memory()).sum();
        assert!(kept <= KEPT_MAX && !maps.kept.is_empty(), "{kept}");
    }

    proptest! {
        /// No bytes make the parser panic.
        #[test]
        fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..400), address: u64) {
            find(&PerfMap::parse(text), address);
        }

        /// Whatever is written over what, every address has the last name written for it: compared
        /// with a plain array.
        #[test]
        fn agrees_with_a_plain_array(entries in proptest::collection::vec((0_usize..200, 0_usize..60), 0..60)) {
            let mut names = vec![None; 260];
            let mut lines = Vec::new();
            for (order, (start, length)) in entries.into_iter().enumerate() {
                lines.push(format!("{start:x} {length:x} f{order}\n"));
                names[start..start + length].fill(Some(format!("f{order}")));
            }
            let map = PerfMap::parse(lines.concat().into_bytes());
            let addresses: Vec<u64> = (0..260).collect();
            prop_assert_eq!(map.find_all(&addresses), names);
        }

        /// Lines as runtimes write them are all found.
        #[test]
        fn every_entry_is_found(starts in proptest::collection::btree_set(1_u64..1000, 1..40)) {
            let lines: Vec<String> = starts.iter().map(|start| format!("{:x} 10 f{start}\n", start * 16)).collect();
            let map = PerfMap::parse(lines.concat().into_bytes());
            for start in starts {
                prop_assert_eq!(find(&map, start * 16 + 15), Some(format!("f{start}")));
            }
        }
    }
}
