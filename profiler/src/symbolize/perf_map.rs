//! Perf maps: the text file in which a runtime tells the names of the code it made, one line each:
//! `START SIZE NAME`, both numbers hexadecimal (tools/perf/Documentation/jit-interface.txt of the
//! kernel). Pure and tolerant: the file is written while we read, by somebody else.

/// Longest file that is read: V8 writes about 1 MB an hour.
pub(super) const BYTES_MAX: u64 = 256 << 20;

/// Names by address.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    /// By start; of entries with the same start the last written.
    entries: Vec<Entry>,
    /// Lines that could not be read.
    pub(super) malformed: u64,
}

#[derive(Debug)]
struct Entry {
    start: u64,
    end: u64,
    /// Position in the file: what is written later is what holds now, as runtimes reuse memory.
    order: usize,
    name: String,
}

impl PerfMap {
    /// Reads the whole text. A last line without an end may be half-written and is left out.
    pub(super) fn parse(text: &[u8]) -> Self {
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        let mut map = Self::default();
        for (order, line) in text[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match entry(line, order) {
                Some(entry) => map.entries.push(entry),
                None => map.malformed += 1,
            }
        }
        map.entries.sort_by_key(|entry| (entry.start, entry.order));
        map
    }

    /// The name of the code at an address: of the entries that hold it, the last written.
    pub(super) fn find(&self, address: u64) -> Option<&str> {
        let after = self.entries.partition_point(|entry| entry.start <= address);
        // Entries are short and rarely overlap: a few steps back find every one that matters.
        let nearby = self.entries[..after].iter().rev().take(64);
        let holding = nearby.filter(|entry| address < entry.end);
        holding
            .max_by_key(|entry| entry.order)
            .map(|entry| entry.name.as_str())
    }
}

fn entry(line: &[u8], order: usize) -> Option<Entry> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end_matches('\r').splitn(3, ' ');
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let start = number(words.next()?)?;
    let size = number(words.next()?)?;
    let name = words.next()?.trim();
    let entry = Entry {
        start,
        end: start.checked_add(size)?,
        order,
        name: name.to_owned(),
    };
    (!name.is_empty()).then_some(entry)
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
