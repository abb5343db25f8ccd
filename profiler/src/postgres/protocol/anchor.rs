//! Finds a boundary of messages in the middle of what a server sends: a `ReadyForQuery` that ends a chunk. The client has
//! nothing under way then, so that its next byte begins a message too.

use super::{
    event::TransactionState,
    fields::{CommandTag, command_tag},
};

/// `ReadyForQuery` without its state.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];
/// Longest `CommandComplete` that is looked for: the longest tag is some 30 bytes.
const COMMAND_MAX: usize = 64;

/// Looks for a `ReadyForQuery`, which may come in pieces. Nothing is copied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Anchor {
    /// Bytes of it that were the last ones.
    matched: usize,
}

impl Anchor {
    /// Takes bytes; the state of a `ReadyForQuery` that they end with.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<TransactionState> {
        // Only the last ones matter.
        let last = bytes.len().saturating_sub(READY.len() + 1);
        if last > 0 {
            self.matched = 0;
        }
        let mut state = None;
        for &byte in &bytes[last..] {
            state = None;
            self.matched = match READY.get(self.matched) {
                Some(next) if *next == byte => self.matched + 1,
                Some(_) => usize::from(byte == READY[0]),
                None => {
                    state = TransactionState::read(&[byte]);
                    usize::from(byte == READY[0])
                }
            };
        }
        state
    }

    /// Bytes are missing here.
    pub(super) fn interrupt(&mut self) {
        self.matched = 0;
    }
}

/// The `CommandComplete` right before the `ReadyForQuery` that bytes end with.
pub(super) fn command_before(bytes: &[u8]) -> Option<CommandTag<'_>> {
    let before = &bytes[..bytes.len().checked_sub(READY.len() + 1)?];
    let body = before.strip_suffix(b"\0")?;
    // The tag itself has no zero byte, its length has three.
    let tag_bytes = body
        .iter()
        .rev()
        .take(COMMAND_MAX)
        .take_while(|byte| **byte >= b' ')
        .count();
    (1..=tag_bytes).find_map(|count| {
        let at = body.len() - count;
        let (header, tag) = (&before[..at], &before[at..]);
        let length = u32::try_from(tag.len() + 4).ok()?.to_be_bytes();
        let begins = header.strip_suffix(&length[..])?.ends_with(b"C");
        begins.then(|| command_tag(tag)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::{Anchor, command_before};
    use crate::postgres::protocol::event::TransactionState;

    /// A `ReadyForQuery` is found at the end of bytes however they are cut, and nowhere else.
    #[test]
    fn ready_is_found_at_the_end() {
        let stream = b"ZZ\0\0Z\0\0\0\x05Z\0\0\0\x05T";
        for cut in 0..stream.len() {
            let (first, second) = stream.split_at(cut);
            let mut anchor = Anchor::default();
            assert_eq!(anchor.take(first), None);
            assert_eq!(anchor.take(second), Some(TransactionState::Open), "{cut}");
            assert_eq!(anchor.take(b"x"), None);
        }
        let mut anchor = Anchor::default();
        assert_eq!(anchor.take(b"Z\0\0\0\x05"), None);
        anchor.interrupt();
        assert_eq!(anchor.take(b"I"), None);
    }

    /// The command before it is found if it is whole.
    #[test]
    fn commands_are_found() {
        let rows = |bytes: &[u8]| command_before(bytes).map(|tag| tag.rows);
        let end = b"rowC\0\0\0\x0dSELECT 7\0Z\0\0\0\x05I";
        assert_eq!(rows(end), Some(Some(7)));
        assert_eq!(rows(&end[3..]), Some(Some(7)));
        assert_eq!(rows(&end[4..]), None);
        assert_eq!(rows(b"rowC\0\0\0\x0cSELECT 7\0Z\0\0\0\x05I"), None);
        assert_eq!(rows(b"Z\0\0\0\x05I"), None);
    }
}
