//! What the server still owes answers to, in the order of the requests.

use std::collections::VecDeque;

use super::{
    chunk::{Side, Stamp},
    event::{Cause, Session, Statement, StatementId},
    fields::Name,
};

/// Most requests without an answer: a client that pipelines without reading has 40,000 in the buffers of a unix socket.
/// So many take 12 MB.
pub(super) const REQUESTS_MAX: usize = 100_000;
/// Requests for which room is kept while there are none.
const ROOM_KEPT: usize = 64;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) what: What,
    /// First byte; of an Execute, of the messages that prepare it and travel with it.
    pub(super) begin: Stamp,
    /// Last byte.
    pub(super) end: Stamp,
    /// Bytes of all these messages.
    pub(super) bytes: u64,
}

/// What is asked for.
#[derive(Debug)]
pub(super) enum What {
    Startup(Box<Session>),
    Simple(Box<[StatementId]>),
    Parse {
        name: Name,
        statement: Statement,
    },
    Bind {
        portal: Name,
        statement: Name,
        parse: Parsed,
    },
    Describe(Subject),
    Execute(Name),
    Close(Subject),
    Function(u32),
    Sync,
    /// The end of COPY data that was sent before the server asked for it; it has no answer.
    CopyDone,
}

/// Whether a Bind's statement was prepared for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// In the same breath: that is part of its call.
    Along,
    /// Earlier.
    Before,
}

/// What Describe and Close are about.
#[derive(Debug)]
pub(super) enum Subject {
    Statement(Name),
    Portal(Name),
}

impl Request {
    /// When it began, ns: the server cannot begin before it has the last byte.
    pub(super) fn start_ns(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.begin.time_ns,
            Side::Server => self.end.time_ns,
        }
    }
}

impl What {
    /// It is answered by a `ReadyForQuery`.
    pub(super) fn is_ready_due(&self) -> bool {
        matches!(
            self,
            Self::Startup(_) | Self::Simple(_) | Self::Function(_) | Self::Sync
        )
    }
}

/// Requests without an answer, and how many there have been.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: VecDeque<Request>,
    answered: u64,
}

impl Queue {
    pub(super) fn push(&mut self, request: Request) -> Result<(), Cause> {
        if self.requests.len() >= REQUESTS_MAX {
            return Err(Cause::TooMany);
        }
        self.requests.push_back(request);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.answered += 1;
        if self.requests.is_empty() && self.requests.capacity() > ROOM_KEPT {
            self.requests.shrink_to(ROOM_KEPT);
        }
        Some(request)
    }

    /// The request that was the first is so again.
    pub(super) fn put_back(&mut self, request: Request) {
        self.requests.push_front(request);
        self.answered -= 1;
    }

    /// What has no answer is over once its turn comes.
    pub(super) fn turn(&mut self) {
        while let Some(What::CopyDone) = self.requests.front().map(|head| &head.what) {
            self.pop();
        }
    }

    pub(super) fn head(&mut self) -> Option<&mut Request> {
        self.requests.front_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter()
    }

    /// Number of the next request: those from `answered` on have no answer yet.
    pub(super) fn number(&self) -> u64 {
        self.answered + self.requests.len() as u64
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.requests.capacity()
    }

    /// The server has begun to take COPY data for the first request. Each Sync that was sent ahead of the data's
    /// end means nothing to it. Whether the end was sent already.
    pub(super) fn copy_in(&mut self) -> CopyIn {
        while let Some(next) = self.requests.get(1) {
            let is_end = match next.what {
                What::Sync => false,
                What::CopyDone => true,
                _ => break,
            };
            self.requests.remove(1);
            self.answered += 1;
            if is_end {
                return CopyIn::None;
            }
        }
        CopyIn::Active
    }
}

/// Whether the server takes COPY data from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CopyIn {
    #[default]
    None,
    Active,
}
