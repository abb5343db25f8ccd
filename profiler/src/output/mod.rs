//! Every output format, each a function from a [`Profile`] to bytes.
//!
//! One file a format; what several of them say of the recording is said once, in [`account`] and
//! `provenance`. Nothing here does I/O: the caller writes the bytes, whole or not at all. How
//! stacks were taken, and how names were found, is not known here either.

pub mod account;
pub(crate) mod columns;
pub(crate) mod csv;
#[cfg(test)]
pub(crate) mod example;
pub(crate) mod figures;
mod firefox;
mod flamegraph;
pub mod folded;
pub(crate) mod frame_class;
mod json;
pub(crate) mod pprof;
pub(crate) mod provenance;
mod speedscope;
pub mod top;

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    str::FromStr,
};

use clap::ValueEnum;
use flate2::{Compression, write::GzEncoder};

use crate::profile::Profile;

/// A format that a profile can be written in.
///
/// A file's suffix names its format ([`Format::from_path`]). Plain `.json` means speedscope; the
/// profiler's own `json` has no suffix of its own and is asked for by name (`-f json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// Flamegraph, an SVG that zooms and searches in any browser.
    Svg,
    /// Folded stacks, one line each: `frame;frame;leaf count`.
    Folded,
    /// Gzipped protocol buffer for `go tool pprof`, Pyroscope, Parca and others.
    Pprof,
    /// For <https://www.speedscope.app>.
    Speedscope,
    /// For <https://profiler.firefox.com>.
    Firefox,
    /// Everything that is known, in the profiler's own documented JSON.
    Json,
}

impl Format {
    /// The format that a file's suffix names, if it names one.
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        SUFFIXES
            .iter()
            .find(|(suffix, _)| name.ends_with(suffix))
            .map(|(_, format)| *format)
    }

    /// The suffix of a file that the profiler names itself, dot included.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Svg => ".svg",
            Self::Folded => ".folded",
            Self::Pprof => ".pb.gz",
            Self::Speedscope => ".speedscope.json",
            Self::Firefox => ".firefox.json",
            Self::Json => ".json",
        }
    }

    /// The name that `-f` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Pprof => "pprof",
            Self::Speedscope => "speedscope",
            Self::Firefox => "firefox",
            Self::Json => "json",
        }
    }
}

/// Suffixes, the longer before those that they end with.
const SUFFIXES: [(&str, Format); 11] = [
    (".svg", Format::Svg),
    (".folded", Format::Folded),
    (".collapsed", Format::Folded),
    (".txt", Format::Folded),
    (".pb.gz", Format::Pprof),
    (".pprof", Format::Pprof),
    (".pb", Format::Pprof),
    (".firefox.json", Format::Firefox),
    (".firefox.json.gz", Format::Firefox),
    (".speedscope.json", Format::Speedscope),
    (".json", Format::Speedscope),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No format has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no output format is called `{}`", crate::printable::printable(.0))]
pub struct UnknownFormat(String);

impl UnknownFormat {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let names: Vec<&str> = Format::value_variants()
            .iter()
            .map(|format| format.name())
            .collect();
        Some(format!("one of {}", names.join(", ")))
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let mut formats = Self::value_variants().iter();
        formats
            .find(|format| format.name() == name)
            .copied()
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// Choices that are the reader's, not the recording's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether threads are told apart.
    pub threads: Threads,
    /// How finely Python code is told apart in folded stacks and flamegraphs.
    pub lines: Lines,
    /// Whether JSON for the Firefox Profiler is compressed; the other formats are as they are.
    pub packing: Packing,
}

impl Options {
    /// The choices that a file's suffix implies.
    pub fn for_path(path: &Path) -> Self {
        let packed = path
            .extension()
            .is_some_and(|suffix| suffix.eq_ignore_ascii_case("gz"));
        let packing = if packed {
            Packing::Gzip
        } else {
            Packing::Plain
        };
        Self {
            packing,
            ..Self::default()
        }
    }
}

/// Whether the threads of a process are told apart in folded stacks and flamegraphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Threads {
    /// One tower for each process.
    #[default]
    Merge,
    /// The thread's name is the second frame.
    Split,
}

/// How finely Python code is told apart in folded stacks and flamegraphs; the other formats have both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lines {
    /// By function, with the line that it begins at
    #[default]
    Function,
    /// By the line that runs
    Line,
}

/// Whether a text format is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    #[default]
    Plain,
    /// gzip.
    Gzip,
}

/// Why a profile could not be turned into a format.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A flamegraph of nothing.
    #[error("the profile holds no samples, there is nothing to draw")]
    NoSamples,
    /// The flamegraph renderer refused the stacks.
    #[error("the flamegraph could not be drawn: {0}")]
    Flamegraph(io::Error),
    /// The renderer's SVG is not built as it was when the legend was written for it.
    #[error("the flamegraph lacks {0}, the legend cannot be placed")]
    Legend(&'static str),
    /// A value that JSON cannot hold.
    #[error("the profile could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The compressor failed.
    #[error("the output could not be compressed: {0}")]
    Compress(io::Error),
}

impl OutputError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSamples => Some("record for longer, or while the target is busy".to_owned()),
            Self::Flamegraph(_) | Self::Legend(_) => {
                Some("write another format, such as `-f folded`".to_owned())
            }
            Self::Json(_) | Self::Compress(_) => None,
        }
    }
}

/// The profile in a format, as the bytes of a whole file.
pub fn render(
    profile: &Profile,
    format: Format,
    options: &Options,
) -> Result<Vec<u8>, OutputError> {
    match format {
        Format::Svg => flamegraph::render(profile, *options),
        Format::Folded => Ok(folded::render(profile, *options)),
        Format::Pprof => pprof::render(profile),
        Format::Speedscope => speedscope::render(profile),
        Format::Firefox => pack(firefox::render(profile)?, options.packing),
        Format::Json => json::render(profile),
    }
}

fn pack(bytes: Vec<u8>, packing: Packing) -> Result<Vec<u8>, OutputError> {
    match packing {
        Packing::Plain => Ok(bytes),
        Packing::Gzip => gzip(&bytes),
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>, OutputError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).map_err(OutputError::Compress)?;
    encoder.finish().map_err(OutputError::Compress)
}

#[cfg(test)]
mod tests {
    use super::{Format, Options, Packing, ValueEnum};
    use std::path::Path;

    /// Every suffix of the manual, in any case, and nothing else.
    #[test]
    fn suffixes_name_formats() {
        let of = |name: &str| Format::from_path(Path::new(name));
        assert_eq!(of("a/b.svg"), Some(Format::Svg));
        assert_eq!(of("B.SVG"), Some(Format::Svg));
        assert_eq!(of("b.folded"), Some(Format::Folded));
        assert_eq!(of("b.collapsed"), Some(Format::Folded));
        assert_eq!(of("b.txt"), Some(Format::Folded));
        assert_eq!(of("b.pb.gz"), Some(Format::Pprof));
        assert_eq!(of("b.pprof"), Some(Format::Pprof));
        assert_eq!(of("b.pb"), Some(Format::Pprof));
        assert_eq!(of("b.speedscope.json"), Some(Format::Speedscope));
        assert_eq!(of("b.firefox.json"), Some(Format::Firefox));
        assert_eq!(of("b.firefox.json.gz"), Some(Format::Firefox));
        assert_eq!(of("b.json"), Some(Format::Speedscope));
        assert_eq!(of("b.png"), None);
        assert_eq!(of("svg"), None);
        assert_eq!(of("/"), None);
    }

    /// A file that the profiler names itself is read back as what it is, but for `json`.
    #[test]
    fn own_suffixes_are_recognised() {
        for format in Format::value_variants() {
            let named = Format::from_path(Path::new(&format!("profile{}", format.suffix())));
            let expected = if *format == Format::Json {
                Format::Speedscope
            } else {
                *format
            };
            assert_eq!(named, Some(expected));
            assert_eq!(format.name().parse(), Ok(*format));
        }
        assert!("png".parse::<Format>().is_err());
    }

    /// Only a suffix that says gzip asks for it.
    #[test]
    fn gz_suffix_asks_for_compression() {
        assert_eq!(
            Options::for_path(Path::new("a.firefox.json.gz")).packing,
            Packing::Gzip
        );
        assert_eq!(
            Options::for_path(Path::new("a.firefox.json")).packing,
            Packing::Plain
        );
    }
}
