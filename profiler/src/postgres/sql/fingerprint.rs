//! Which statement a normal form is. The hash is fixed for good, and takes tokens as `normal` shows them: so that a
//! normal form read again is the same statement.

use std::{fmt, hash::Hasher};

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

/// Which statement it is, whatever its values: FNV-1a of 64 bits (draft-eastlake-fnv) over the tokens of the normal
/// form, each followed by a byte 0. Words count in lower case, each parameter as `$`, blanks and the mark of a
/// shortened list not at all. The same in every version and on every machine, so that it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Takes the tokens of a normal form.
#[derive(Default)]
pub(super) struct Fingerprinter(FnvHasher);

impl Fingerprinter {
    pub(super) fn word(&mut self, word: &str) {
        for byte in word.bytes() {
            self.0.write(&[byte.to_ascii_lowercase()]);
        }
        self.0.write(&[0]);
    }

    pub(super) fn token(&mut self, token: &str) {
        self.0.write(token.as_bytes());
        self.0.write(&[0]);
    }

    pub(super) fn finish(&self) -> Fingerprint {
        Fingerprint(self.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, Fingerprinter};

    /// The hash is FNV-1a: its published value for "foobar", of which the first byte of the rest is taken back.
    #[test]
    fn hash_is_the_published_one() {
        let mut fingerprinter = Fingerprinter::default();
        fingerprinter.token("foobar");
        // One more byte 0 is one more multiplication by the prime.
        let foobar = 0x8594_4171_f739_67e8_u64;
        let expected = foobar.wrapping_mul(0x0100_0000_01b3);
        assert_eq!(fingerprinter.finish(), Fingerprint(expected));
        assert_eq!(Fingerprint(0xabc).to_string(), "0000000000000abc");
    }
}
