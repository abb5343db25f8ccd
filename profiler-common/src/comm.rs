//! Matching of task names against a glob, in a form that a BPF program can run.
//!
//! The pattern is compiled in user space into positions and bit masks and matched by simulating its
//! automaton in one word (bit-parallel "shift-and": Baeza-Yates and Gonnet, CACM 1992): no
//! backtracking, a fixed number of steps. What a byte does is looked up in a table ([`Step`]) there: comparing it
//! with each position would be a branch each, whose paths no verifier can walk one by one.

use crate::limits::COMM_LEN;

/// A compiled glob of up to 15 literal positions; `*` matches any run, `?` any one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct CommGlob {
    /// The byte wanted at each position.
    pub literal: [u8; COMM_LEN],
    /// Bit i: position i matches any byte.
    pub any: u16,
    /// Bit i: a `*` stands before position i.
    pub star: u16,
    /// Number of positions.
    pub len: u16,
    /// Explicit padding, zero.
    pub padding: u16,
}

const _: () = assert!(size_of::<CommGlob>() == 24 && align_of::<CommGlob>() == 2);

/// A pattern with more literal positions than a task name has bytes: it could never match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternTooLong;

impl CommGlob {
    /// Matches the empty name only.
    pub const EMPTY: Self = Self {
        literal: [0; COMM_LEN],
        any: 0,
        star: 0,
        len: 0,
        padding: 0,
    };

    /// Compiles `pattern`.
    ///
    /// # Errors
    /// [`PatternTooLong`] if the pattern wants more than 15 bytes beside its stars.
    pub fn compile(pattern: &[u8]) -> Result<Self, PatternTooLong> {
        let mut glob = Self::EMPTY;
        for &byte in pattern {
            if byte == b'*' {
                glob.star |= 1 << glob.len;
                continue;
            }
            if glob.len as usize == COMM_LEN - 1 {
                return Err(PatternTooLong);
            }
            if byte == b'?' {
                glob.any |= 1 << glob.len;
            } else {
                glob.literal[glob.len as usize] = byte;
            }
            glob.len += 1;
        }
        Ok(glob)
    }

    /// What a byte of a name does.
    #[must_use]
    pub fn step(&self, byte: u8) -> Step {
        let mut step = Step::NONE;
        if byte == 0 {
            step.ends = 1 << self.len;
            return step;
        }
        step.stays = self.star;
        step.goes = self.any;
        for (position, &wanted) in self.literal.iter().enumerate() {
            step.goes |= u16::from(wanted == byte) << position;
        }
        step
    }

    /// Whether the zero-terminated `comm` matches.
    #[must_use]
    pub fn matches(&self, comm: &[u8; COMM_LEN]) -> bool {
        is_match(comm, |byte| self.step(byte))
    }

    /// Whether a name matches, as far as the kernel keeps names.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        let mut comm = [0; COMM_LEN];
        let bytes = name.bytes().take(COMM_LEN - 1);
        comm.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        self.matches(&comm)
    }
}

/// What a byte of a name does to the states of a pattern's automaton: bit i of them says that the bytes before can be
/// matched by the first i positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Step {
    /// States that go on to the next position.
    pub goes: u16,
    /// States that stay.
    pub stays: u16,
    /// States in which the name matches if it ends here.
    pub ends: u16,
    /// Explicit padding, zero.
    pub padding: u16,
}

impl Step {
    /// Ends every state.
    pub const NONE: Self = Self {
        goes: 0,
        stays: 0,
        ends: 0,
        padding: 0,
    };
}

/// Whether the zero-terminated `comm` matches the pattern of these steps.
#[inline(always)]
#[must_use]
#[expect(
    clippy::inline_always,
    reason = "compiled into BPF, where a call costs the verifier"
)]
pub fn is_match(comm: &[u8; COMM_LEN], step: impl Fn(u8) -> Step) -> bool {
    let mut state = 1_u16;
    let mut matched = 0_u16;
    for &byte in comm {
        let step = step(byte);
        matched |= state & step.ends;
        state = ((state & step.goes) << 1) | (state & step.stays);
    }
    matched != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{COMM_LEN, CommGlob, PatternTooLong};

    fn comm(name: &str) -> [u8; COMM_LEN] {
        let mut comm = [0; COMM_LEN];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        comm
    }

    fn matches(pattern: &str, name: &str) -> bool {
        CommGlob::compile(pattern.as_bytes())
            .unwrap()
            .matches(&comm(name))
    }

    /// The textbook recursive definition, as the oracle.
    fn reference(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                reference(rest, name) || (!name.is_empty() && reference(pattern, &name[1..]))
            }
            (Some((b'?', rest)), Some((_, tail))) => reference(rest, tail),
            (Some((wanted, rest)), Some((byte, tail))) => wanted == byte && reference(rest, tail),
            _ => false,
        }
    }

    /// The forms a user types.
    #[test]
    fn matches_what_a_shell_would() {
        assert!(matches("postgres", "postgres"));
        assert!(!matches("postgres", "postgres2"));
        assert!(!matches("postgres", "postgre"));
        assert!(matches("post*", "postgres"));
        assert!(matches("*gres", "postgres"));
        assert!(matches("p*g*s", "postgres"));
        assert!(matches("python3.?", "python3.9"));
        assert!(matches("*", ""));
        assert!(matches("123456789012345", "123456789012345"));
        assert_eq!(CommGlob::compile(b"1234567890123456"), Err(PatternTooLong));
    }

    proptest! {
        /// The automaton agrees with the recursive definition.
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,10}", name in "[abc]{0,15}") {
            prop_assert_eq!(matches(&pattern, &name), reference(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
