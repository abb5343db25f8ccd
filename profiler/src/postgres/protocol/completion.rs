//! Ends calls: puts together what is known of the one at hand when the last byte of its answer has come.

use std::mem;

use super::{
    calls::Ended,
    chunk::Stamp,
    event::{Call, Copied, CopyDirection, Counted, Event, Outcome, Rows, Statement},
    exchange::{Context, Exchange, Preparing},
    queue::{Request, What},
    statements::Statements,
};

impl Exchange {
    /// The call at hand ended well.
    pub(super) fn finish<S>(
        &mut self,
        statement: Statement,
        rows: Option<u64>,
        end: Stamp,
        context: &mut Context<'_, S>,
    ) {
        let Some(mut ended) = self.at_hand(statement) else {
            return;
        };
        ended.call.rows.tag = rows;
        let is_partial = ended.call.fetches > 1 || rows.is_none();
        if ended.call.rows.counted == Counted::Tag && is_partial {
            ended.call.rows.counted = Counted::AtLeast;
        }
        self.end_call(ended, end, context.events);
    }

    /// Tells a call that has ended, as far as it is trusted.
    pub(super) fn end_call(&mut self, mut ended: Ended, end: Stamp, events: &mut Vec<Event>) {
        if !self.trust.is_earned() {
            ended.call.outcome = Outcome::Unseen;
        }
        self.calls.finish(ended, end, events);
    }

    /// The call at hand and what is known of its earlier fetches. Its progress begins anew.
    pub(super) fn at_hand(&mut self, statement: Statement) -> Option<Ended> {
        let progress = mem::take(&mut self.progress);
        let head = self.queue.head()?;
        let portal = match &head.what {
            What::Execute(portal) => Some(portal),
            _ => None,
        };
        let earlier = portal.and_then(|portal| self.portals.resume(portal));
        let bound = |preparing: &Preparing| preparing.portal.as_ref() == portal;
        let bound = portal.and_then(|_| self.preparing.iter().rposition(bound));
        let preparing = bound.map(|at| self.preparing.swap_remove(at));
        let sent_bytes = if progress.index == 0 { head.bytes } else { 0 };
        let start_ns = head.start_ns(self.side);
        let tid = head.begin.tid;
        let mut call = earlier.map_or_else(
            || Call {
                index: u32::try_from(progress.index).unwrap_or(u32::MAX),
                ..Call::new(statement, tid, start_ns)
            },
            |earlier| *earlier,
        );
        let before_ns = call.latency_ns.take().unwrap_or_default();
        call.end_ns = None;
        call.fetches += 1;
        call.sent_bytes += sent_bytes;
        call.received_bytes += progress.bytes;
        let mut first_row_ns = progress.first_row_ns;
        if let Some(preparing) = preparing {
            call.received_bytes += preparing.bytes;
            first_row_ns = preparing.described_ns.or(first_row_ns);
        }
        call.first_row_ns = call.first_row_ns.or(first_row_ns);
        call.rows.returned += progress.rows;
        if progress.counted != Counted::Messages {
            call.rows.counted = progress.counted;
        }
        call.copy = progress.copy.map(|direction| Copied {
            direction,
            bytes: match direction {
                CopyDirection::In => mem::take(&mut self.copied_in),
                CopyDirection::Out => progress.copied_out,
            },
        });
        Some(Ended {
            call,
            start_ns,
            before_ns,
        })
    }

    /// A portal may have more rows: the call goes on with its next Execute.
    pub(super) fn suspend<S: Statements>(&mut self, end: Stamp, context: &mut Context<'_, S>) {
        let statement = self.run(self.statement(), context.statements);
        let Some(mut ended) = self.at_hand(statement) else {
            return;
        };
        if !self.trust.is_earned() {
            ended.call.outcome = Outcome::Unseen;
        }
        let call = self.calls.pause(ended, end, context.events);
        if let Some(Request {
            what: What::Execute(portal),
            ..
        }) = self.queue.pop()
        {
            self.portals.suspend(portal, Box::new(call), context.events);
        }
    }
}

impl Call {
    pub(super) fn new(statement: Statement, tid: u32, start_ns: u64) -> Self {
        Self {
            statement,
            index: 0,
            tid,
            start_ns,
            service_ns: start_ns,
            first_row_ns: None,
            end_ns: None,
            ready_ns: None,
            latency_ns: None,
            sharing: 1,
            fetches: 0,
            rows: Rows::default(),
            sent_bytes: 0,
            received_bytes: 0,
            copy: None,
            outcome: Outcome::Completed,
            transaction: None,
        }
    }
}
