//! What the child may use.

use std::time::Duration;

/// Bounds of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory of its own, in bytes. Files that it maps are not in it: those pages the kernel takes back.
    pub(super) data: u64,
    /// Address space beside that, in bytes: no longer file is read.
    pub(super) files: u64,
    /// Processor time of one question, in seconds. Not time by the clock: the service has a tenth of a
    /// processor.
    pub(super) seconds: u64,
    /// Processor time of all files of one owner in one batch.
    pub(super) owner: Duration,
}

impl Limits {
    /// Of what a user waits for. libLLVM with its debug information (1.5 GB) is beyond the memory,
    /// what a distribution ships beside it is not.
    pub(crate) const VERB: Self = Self {
        data: 512 << 20,
        files: 8 << 30,
        seconds: 20,
        owner: Duration::from_secs(80),
    };
    /// Of the service, whose unit gives 384 MiB to all of it.
    pub(crate) const SERVICE: Self = Self {
        data: 160 << 20,
        files: 8 << 30,
        seconds: 3,
        owner: Duration::from_secs(6),
    };

    /// Processor time of one question.
    pub(super) fn processor_time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// As words of a command line.
    pub(super) fn to_words(self) -> [String; 3] {
        [self.data, self.files, self.seconds].map(|number| number.to_string())
    }

    /// Out of those.
    pub(super) fn from_words(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            data: number()?,
            files: number()?,
            seconds: number()?,
            owner: Duration::ZERO,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    /// The child has the limits that were passed, and none of its own.
    #[test]
    fn limits_pass_the_command_line() {
        let words = Limits::SERVICE.to_words();
        let read = Limits::from_words(words.into_iter()).unwrap();
        assert_eq!((read.data, read.seconds), (160 << 20, 3));
        assert_eq!(Limits::from_words(["1".to_owned()].into_iter()), None);
    }
}
