//! Perf maps: the text file in which a runtime tells the names of the code it made, one line each:
//! `START SIZE NAME`, both numbers hexadecimal (tools/perf/Documentation/jit-interface.txt of the
//! kernel). Pure and tolerant: the file is written while we read, by somebody else.

use std::{collections::BTreeMap, rc::Rc};

/// Longest file that is read: V8 writes about 1 MB an hour.
pub(super) const BYTES_MAX: u64 = 256 << 20;

/// Names by address.
#[derive(Debug, Default)]
pub(crate) struct PerfMap {
    /// By start, without overlaps: what is written later is what holds now, as runtimes reuse memory.
    entries: BTreeMap<u64, Entry>,
    /// Lines that could not be read.
    pub(super) malformed: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    end: u64,
    name: Rc<str>,
}

impl PerfMap {
    /// Reads the whole text. A last line without an end may be half-written and is left out.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        let mut map = Self::default();
        let lines = text[..whole].split(|&byte| byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            match entry(line) {
                Some((start, entry)) => map.insert(start, entry),
                None => map.malformed += 1,
            }
        }
        map
    }

    /// The name of the code at an address: of the entries that hold it, the last written.
    pub(crate) fn find(&self, address: u64) -> Option<&str> {
        let (_, entry) = self.entries.range(..=address).next_back()?;
        (address < entry.end).then_some(&entry.name)
    }

    /// Adds an entry in the place of what it covers of older ones; the rest of those stays.
    fn insert(&mut self, start: u64, new: Entry) {
        if start >= new.end {
            return;
        }
        if let Some((_, old)) = self.entries.range_mut(..start).next_back()
            && old.end > start
        {
            let behind = old.clone();
            old.end = start;
            if behind.end > new.end {
                self.entries.insert(new.end, behind);
            }
        }
        while let Some((&covered, _)) = self.entries.range(start..new.end).next() {
            if let Some(old) = self.entries.remove(&covered)
                && old.end > new.end
            {
                self.entries.insert(new.end, old);
            }
        }
        self.entries.insert(start, new);
    }
}

fn entry(line: &[u8]) -> Option<(u64, Entry)> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end_matches('\r').splitn(3, ' ');
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let start = number(words.next()?)?;
    let end = start.checked_add(number(words.next()?)?)?;
    let name = Rc::from(words.next()?.trim());
    let entry = Entry { end, name };
    (!entry.name.is_empty()).then_some((start, entry))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::PerfMap;

    /// The last line written for an address holds; names may contain blanks.
    #[test]
    fn later_lines_override() {
        let map = PerfMap::parse(b"1000 100 LazyCompile:~a app.js:1\n1080 20 b\n0x2000 0x10 c\n1000 100 d e\nnonsense\n3000 10 half");
        assert_eq!(
            (map.find(0x1000), map.find(0x1090), map.find(0x200f)),
            (Some("d e"), Some("d e"), Some("c"))
        );
        assert_eq!(
            (map.find(0x1100), map.find(0x3000), map.malformed),
            (None, None, 1)
        );
    }

    proptest! {
        /// No bytes make the parser panic.
        #[test]
        fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..400), address: u64) {
            PerfMap::parse(&text).find(address);
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
            let map = PerfMap::parse(lines.concat().as_bytes());
            for (address, name) in (0_u64..).zip(&names) {
                prop_assert_eq!(map.find(address), name.as_deref());
            }
        }

        /// Lines as runtimes write them are all found.
        #[test]
        fn every_entry_is_found(starts in proptest::collection::btree_set(1_u64..1000, 1..40)) {
            let lines: Vec<String> = starts.iter().map(|start| format!("{:x} 10 f{start}\n", start * 16)).collect();
            let text = lines.concat();
            let map = PerfMap::parse(text.as_bytes());
            for start in starts {
                let name = format!("f{start}");
                prop_assert_eq!(map.find(start * 16 + 15), Some(name.as_str()));
            }
        }
    }
}
