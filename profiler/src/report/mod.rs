//! Recordings read back: folded stacks and pprof files become a [`Profile`] again, and several
//! profiles become one.
//!
//! Bytes come from anywhere, so nothing in them is trusted: whatever cannot be understood is counted
//! in the account's notes, and a file that is neither format is an error. Files are opened by the
//! caller. Formats that are only for looking at (SVG, speedscope, Firefox, JSON) are not read.

#[cfg(test)]
mod bounds;
mod builder;
mod convert;
mod folded;
mod history;
mod merge;
mod pprof;
mod processes;
mod provenance;

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

pub use self::{
    convert::{Report, Source, run},
    history::History,
    merge::merge,
    processes::Wanted,
};
use crate::{profile::Profile, store::WINDOW_BYTES_MAX};

/// Most bytes that a file may have, compressed or not.
pub const BYTES_MAX: u64 = 256 << 20;

/// What a compressed file may always unpack to. Beyond it, it must have [`PACKED_MIN`] of that itself: recordings
/// are packed to a twentieth at best, bombs to a thousandth.
const UNPACKED_LEAST: u64 = 64 << 20;
/// See [`UNPACKED_LEAST`].
const PACKED_MIN: u64 = 128;

/// Most memory that what is read may take: this and [`WEIGHT_EACH`] for each byte, but no more than [`WEIGHT_MAX`].
const WEIGHT_LEAST: usize = 256 << 20;
/// See [`WEIGHT_LEAST`].
const WEIGHT_EACH: usize = 10;
/// See [`WEIGHT_LEAST`].
const WEIGHT_MAX: usize = 2 << 30;

/// Most bytes of a name in a file; longer ones are cut.
const TEXT_MAX: usize = 64 << 10;

/// Most samples that a file may hold: the largest count that JSON and JavaScript keep exact. It
/// leaves room to add up 2,000 files.
pub(crate) const SAMPLES_MAX: u64 = 1 << 53;

/// Note: a line of folded stacks that could not be read.
pub(crate) const MALFORMED_LINE: &str = "malformed line in a file read";
/// Note: a pprof sample that could not be read.
pub(crate) const MALFORMED_SAMPLE: &str = "malformed sample in a file read";
/// Note: a file's account and its samples do not add up.
pub(crate) const CONTRADICTION: &str = "account of a file read contradicts its samples";
/// Note: a name that was too long, and cut.
pub(crate) const LONG_TEXT: &str = "name of a file read that was too long";
/// Note: what a file noted in too many or too long words.
pub(crate) const FOREIGN_NOTE: &str = "note of a file read that was too long";
/// Note: files without an account, merged with files that have one.
pub(crate) const NO_ACCOUNT: &str = "file read without an account";
/// Note: files at different rates were merged, so that one sample no longer stands for one time.
pub(crate) const DIFFERENT_RATES: &str = "file merged with others of a different rate or event";

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It holds more than [`BYTES_MAX`].
    #[error("the recording is larger than {} MiB", .limit >> 20)]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It unpacks to so much more than it is that it is no recording.
    #[error("the recording unpacks to more than {} MiB, from {} kB", .limit >> 20, .packed / 1000)]
    Bomb {
        /// The limit in bytes.
        limit: u64,
        /// Its own size.
        packed: u64,
    },
    /// It holds more of something than any recording.
    #[error("the recording has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// It would take too much memory.
    #[error("the recording would take more than {} MiB of memory", .limit >> 20)]
    TooHeavy {
        /// The limit in bytes.
        limit: usize,
    },
    /// It is compressed, and the compressed data is broken.
    #[error("the recording is compressed and damaged: {0}")]
    Damaged(io::Error),
    /// It is neither folded stacks nor a pprof profile.
    #[error("the file is neither folded stacks nor a pprof profile")]
    NotARecording,
    /// It holds nothing.
    #[error("the file is empty")]
    Empty,
}

impl ReadError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } | Self::TooMany { .. } | Self::TooHeavy { .. } => {
                Some("split the recording, or record for a shorter time".to_owned())
            }
            Self::Bomb { .. } => Some("unpack it first if you trust it (gzip -d)".to_owned()),
            Self::Damaged(_) => Some("copy the file again; it may have been cut off".to_owned()),
            Self::NotARecording => Some(
                "record with `-f folded` or `-f pprof`; the other formats are not read back"
                    .to_owned(),
            ),
            Self::Empty => None,
        }
    }
}

/// The profile in a file's bytes: folded stacks or pprof, either of them gzipped or not.
pub fn read(bytes: &[u8]) -> Result<Profile, ReadError> {
    read_bounded(bytes, BYTES_MAX)
}

/// The profile in a window's bytes, which are fewer than those of a file may be.
pub(crate) fn read_window(bytes: &[u8]) -> Result<Profile, ReadError> {
    read_bounded(bytes, WINDOW_BYTES_MAX)
}

fn read_bounded(bytes: &[u8], limit: u64) -> Result<Profile, ReadError> {
    if bytes.is_empty() {
        return Err(ReadError::Empty);
    }
    let length = bytes.len() as u64;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let honest = UNPACKED_LEAST.max(length.saturating_mul(PACKED_MIN));
        return match inflate(bytes, limit.min(honest)) {
            Err(ReadError::TooLarge { .. }) if honest < limit => Err(ReadError::Bomb {
                limit: honest,
                packed: length,
            }),
            plain => read_plain(&plain?),
        };
    }
    if length > limit {
        return Err(ReadError::TooLarge { limit });
    }
    read_plain(bytes)
}

/// Unpacks gzip, up to so many bytes.
pub(crate) fn inflate(bytes: &[u8], limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut plain = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(limit.saturating_add(1));
    reader.read_to_end(&mut plain).map_err(ReadError::Damaged)?;
    if plain.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit });
    }
    Ok(plain)
}

/// Text has no zero byte; a pprof profile always does, in the empty string that its table begins
/// with.
fn read_plain(bytes: &[u8]) -> Result<Profile, ReadError> {
    let weight = bytes
        .len()
        .saturating_mul(WEIGHT_EACH)
        .saturating_add(WEIGHT_LEAST);
    let weight_max = weight.min(WEIGHT_MAX);
    if bytes.contains(&0) {
        pprof::read(bytes, weight_max)
    } else {
        folded::read(&String::from_utf8_lossy(bytes), weight_max)
    }
}

/// A name of a file, cut where it is too long.
fn shorter(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_MAX))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::{any, prop, proptest};

    use super::{BYTES_MAX, ReadError, read, read_bounded};
    use crate::output::{Format, Options, example, folded, render};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Both formats, compressed or not, are told apart by their bytes.
    #[test]
    fn formats_are_told_apart() {
        let profile = example::profile();
        let lines = folded::lines(&profile, &Options::default());
        let text = render(&profile, Format::Folded, &Options::default()).unwrap();
        let packed = render(&profile, Format::Pprof, &Options::default()).unwrap();
        let message = super::inflate(&packed, BYTES_MAX).unwrap();
        for file in [text.clone(), gzip(&text), packed, message] {
            let read = read(&file).unwrap();
            assert_eq!(folded::lines(&read, &Options::default()), lines);
            assert_eq!(read.meta.title, "worker (pid 4711)");
        }
    }

    /// What is not a recording is refused under its name.
    #[test]
    fn other_files_are_refused() {
        let svg = render(&example::profile(), Format::Svg, &Options::default()).unwrap();
        let json = render(&example::profile(), Format::Json, &Options::default()).unwrap();
        let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        for file in [svg, json, elf, b"hello\nworld\n".to_vec(), vec![0; 64]] {
            assert!(matches!(read(&file), Err(ReadError::NotARecording)));
        }
        assert!(matches!(read(b""), Err(ReadError::Empty)));
        let mut cut = gzip(&[b'a'; 4096]);
        cut.truncate(cut.len() / 2);
        assert!(matches!(read(&cut), Err(ReadError::Damaged(_))));
    }

    /// A small file that inflates beyond the limit is refused before it fills the memory.
    #[test]
    fn inflated_size_is_bounded() {
        let bomb = gzip(&vec![b'a'; 1 << 20]);
        assert!(bomb.len() < 1 << 12);
        let refused = read_bounded(&bomb, 1 << 16);
        assert!(matches!(
            refused,
            Err(ReadError::TooLarge { limit: 0x1_0000 })
        ));
        assert!(matches!(
            read_bounded(&[b'a'; 100], 99),
            Err(ReadError::TooLarge { limit: 99 })
        ));
    }

    proptest! {
        /// Arbitrary bytes are read or refused, never a panic.
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read(&gzip(&bytes));
        }

        /// A damaged pprof file neither, and what is read of it can be written in every format.
        #[test]
        fn damaged_profiles_never_panic(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let packed = render(&example::profile(), Format::Pprof, &Options::default()).unwrap();
            let mut message = super::inflate(&packed, BYTES_MAX).unwrap();
            let place = place.index(message.len());
            message[place] = byte;
            if let Ok(profile) = read(&message) {
                for format in [Format::Folded, Format::Pprof, Format::Speedscope, Format::Firefox, Format::Json] {
                    render(&profile, format, &Options::default()).unwrap();
                }
                let _ = crate::output::top::functions(&profile);
                let _ = render(&profile, Format::Svg, &Options::default());
            }
        }
    }
}
