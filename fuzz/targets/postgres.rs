//! Streams of Postgres's protocol, cut into system calls by the first bytes of the input: they come from both ends of
//! foreign connections.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use profiler::postgres::protocol::{
    Chunk, Connection, Deed, Direction, Ending, Event, Outcome, Part, Side, StatementId,
    Statements, Text, TransactionState,
};

/// Bytes that a connection may hold however it is treated.
const MEMORY_MAX: usize = 24 << 20;

struct Numbers(u64);

impl Statements for Numbers {
    fn simple(&mut self, text: Text<'_>, ids: &mut Vec<StatementId>) {
        for _ in 0..text.bytes.iter().filter(|byte| **byte == b';').count() {
            ids.push(StatementId(self.0));
        }
    }

    fn prepared(&mut self, _: Text<'_>) -> StatementId {
        self.0 = self.0.wrapping_add(1);
        StatementId(self.0)
    }

    fn deed(&mut self, id: StatementId) -> Option<Arc<Deed>> {
        let name = Arc::from([(id.0 >> 4) as u8 & 3]);
        Some(Arc::new(match id.0 & 15 {
            0 => Deed::Prepares { name },
            1 => Deed::Executes { name },
            2 => Deed::Deallocates { name },
            3 => Deed::Declares {
                name,
                is_held: id.0 & 64 == 0,
            },
            4 => Deed::Fetches { name },
            5 => Deed::Moves { name },
            6 => Deed::Closes { name },
            7 => Deed::ClosesAll,
            _ => return None,
        }))
    }

    fn part(&mut self, id: StatementId, _: Part) -> Option<StatementId> {
        Some(id)
    }

    fn parameter(&mut self, _: &[u8], _: &[u8]) {}

    fn accepted(&mut self, id: StatementId, _: bool) {
        assert!(id.0 <= self.0, "what is accepted was sent");
    }

    fn answered(&mut self) {}
}

fuzz_target!(|input: &[u8]| {
    let mut numbers = Numbers(0);
    let side = if input.first().is_some_and(|byte| byte & 1 == 1) {
        Side::Client
    } else {
        Side::Server
    };
    let mut connection = Connection::new(side);
    // What is known of one that was there before.
    match input.first().map(|byte| byte >> 1 & 3) {
        Some(1) => connection.begin_between(None, 0),
        Some(2) => connection.begin_between(Some(TransactionState::Open), 0),
        Some(3) => connection.begin_within(StatementId(0), 0),
        _ => {}
    }
    let mut events = Vec::new();
    let mut positions = [1_u64 << 32; 2];
    let mut rest = input.get(1..).unwrap_or_default();
    let mut time_ns = 1;
    // Each call: which way and what is odd about it, how long, the bytes.
    while let Some((&[how, low, high], bytes)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([low, high])).min(bytes.len());
        let (bytes, behind) = bytes.split_at(length);
        rest = behind;
        let way = usize::from(how & 1);
        let hole = if how & 2 == 0 { 0 } else { u64::from(how >> 3) };
        if how & 4 != 0 {
            positions[way] += u64::from(how >> 3);
        }
        let (head, tail) = bytes.split_at(if hole > 0 { length / 2 } else { length });
        let chunk = Chunk {
            direction: if way == 0 {
                Direction::Frontend
            } else {
                Direction::Backend
            },
            position: positions[way],
            length: length as u64 + hole,
            head,
            tail,
            entry_ns: time_ns,
            exit_ns: time_ns + 10,
            tid: 1,
        };
        positions[way] += chunk.length;
        time_ns += 20;
        connection.take(&chunk, &mut numbers, &mut events);
        assert!(connection.memory() < MEMORY_MAX, "memory is bounded");
    }
    connection.end(Ending::Closed, time_ns, &mut events);
    for event in &events {
        if let Event::Call(call) = event {
            let latency_ns = call.latency_ns.unwrap_or(0);
            assert!(
                latency_ns <= time_ns,
                "no call lasts longer than its connection"
            );
            assert!(
                call.latency_ns.is_none()
                    || matches!(
                        call.outcome,
                        Outcome::Completed | Outcome::Suspended | Outcome::Failed(_)
                    ),
                "only what ended in sight has a latency"
            );
        }
    }
});
