//! Sockets of which it is not known what they speak: what they carried last, and when it is time to give them up. Pure.

use std::{collections::VecDeque, mem};

use profiler_common::wire::{SENT, WireHeader, passing::ONE_WAY};

use super::{
    conversation::Passing,
    protocol::{Flow, Recognition, recognise},
    transfer::Transfer,
};

/// Transfers that are kept: the end of an answer that was under way, and the request behind it.
const KEPT: usize = 3;
/// Times that the other end has its turn until a socket that shows nothing of Postgres is given up. One that only sends
/// or only receives may be within one long answer.
const TURNS_MAX: u32 = 8;
/// Transfers of one turn from which on their bytes are not copied any more.
const RUN_MAX: u32 = 64;
/// Bytes that are passed over until that is said again: positions of TCP wrap.
const PASSED_BYTES: u64 = 1 << 30;
/// How long a socket that was given up has to be silent to be looked at again, ns. Each time twice as long.
const QUIET_NS: u64 = 1_000_000_000;
/// Most doublings: some four minutes.
const DOUBLINGS_MAX: u32 = 8;

/// A socket that has shown nothing so far.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    waiting: VecDeque<Transfer>,
    turns: u32,
    /// Transfers of the turn at hand.
    run: u32,
    /// How often it was given up before.
    tries: u32,
}

/// What a transfer showed.
pub(super) struct Shown {
    pub(super) recognition: Recognition,
    /// What the kernel side should know of bytes that need not be copied.
    pub(super) passing: Option<Passing>,
}

impl Undecided {
    /// One that was given up so often.
    pub(super) fn again(tries: u32) -> Self {
        Self {
            tries,
            ..Self::default()
        }
    }

    /// Takes what it carried.
    pub(super) fn take(&mut self, transfer: Transfer) -> Shown {
        let is_turn = (self.waiting.back()).is_some_and(|last| last.flow() != transfer.flow());
        let was_passed = self.run >= RUN_MAX;
        if is_turn {
            self.turns += 1;
            self.run = 0;
        }
        self.run += 1;
        let passing = match (was_passed && is_turn, self.run % RUN_MAX) {
            (true, _) => Some(passing(&transfer.header, false)),
            (_, 0) => Some(passing(&transfer.header, true)),
            _ => None,
        };
        if self.waiting.len() >= KEPT {
            self.waiting.pop_front();
        }
        self.waiting.push_back(transfer);
        let buffers: Vec<(Flow, &[u8])> = (self.waiting.iter())
            .map(|one| (one.flow(), one.head()))
            .collect();
        let recognition = match recognise(&buffers) {
            Recognition::Undecided if self.turns >= TURNS_MAX => Recognition::Other,
            recognition => recognition,
        };
        Shown {
            recognition,
            passing,
        }
    }

    /// What is to be heard now that it is known.
    pub(super) fn heard(&mut self) -> Vec<Transfer> {
        mem::take(&mut self.waiting).into()
    }

    /// It is not given up for now.
    pub(super) fn keep(&mut self) {
        self.turns = 0;
    }

    /// It is given up for the first time, the second, …
    pub(super) fn tries(&self) -> u32 {
        self.tries + 1
    }
}

/// How long a socket has to be silent that was given up so often, ns.
pub(super) fn quiet_ns(tries: u32) -> u64 {
    QUIET_NS << tries.saturating_sub(1).min(DOUBLINGS_MAX)
}

/// Of what goes the way of a transfer nothing is copied from now on, or all is again.
fn passing(header: &WireHeader, is_passed: bool) -> Passing {
    let end = header.position.wrapping_add(header.length);
    let until = is_passed.then(|| end.wrapping_add(PASSED_BYTES));
    Passing {
        why: ONE_WAY,
        socket: (header.socket, header.inode),
        until: if header.direction == SENT {
            [until, None]
        } else {
            [None, until]
        },
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::wire::{RECEIVED, SENT, WireHeader};

    use super::{
        KEPT, ONE_WAY, Passing, RUN_MAX, Recognition, TURNS_MAX, Transfer, Undecided, quiet_ns,
    };
    use crate::postgres::{encrypted::tests::header, protocol::Side};

    fn transfer(direction: u8, bytes: &[u8]) -> Transfer {
        let header = WireHeader {
            head: u32::try_from(bytes.len()).unwrap(),
            direction,
            length: bytes.len() as u64,
            ..header(5, 3, 4, 0)
        };
        Transfer {
            header,
            bytes: bytes.to_vec(),
        }
    }

    /// The request behind a long answer is recognised, with the end of that one; what passes until then is bounded.
    #[test]
    fn long_answers_are_waited_for() {
        let mut socket = Undecided::default();
        let mut passings = 0;
        for _ in 0..10 * RUN_MAX {
            let shown = socket.take(transfer(RECEIVED, b"within a row"));
            assert_eq!(shown.recognition, Recognition::Undecided);
            passings += u32::from(shown.passing.is_some());
        }
        assert_eq!(passings, 10);
        let shown = socket.take(transfer(SENT, b"Q\0\0\0\x0dSELECT 1\0"));
        assert_eq!(shown.recognition, Recognition::Postgres(Side::Client));
        let clear = Passing {
            socket: (5, 3),
            until: [None; 2],
            why: ONE_WAY,
        };
        assert_eq!(
            shown.passing.map(|passing| passing.until),
            Some(clear.until)
        );
        assert_eq!(socket.heard().len(), KEPT);
    }

    /// What talks in turns and shows nothing is given up, each time for longer.
    #[test]
    fn others_are_given_up() {
        let mut socket = Undecided::again(2);
        let other = |turn: u32| {
            let (direction, bytes) =
                [(SENT, &b"GET /"[..]), (RECEIVED, b"200 OK")][turn as usize % 2];
            transfer(direction, bytes)
        };
        for turn in 0..TURNS_MAX {
            assert_eq!(socket.take(other(turn)).recognition, Recognition::Undecided);
        }
        assert_eq!(
            socket.take(other(TURNS_MAX)).recognition,
            Recognition::Other
        );
        assert_eq!(socket.tries(), 3);
        assert!(quiet_ns(3) == 4 * quiet_ns(1) && quiet_ns(30) == quiet_ns(40));
    }
}
