//! Conversations without damage: all are told as their calls.

use super::{
    super::{Event, Side},
    extended::extended,
    queries::queries,
    wire::Talk,
};

/// A conversation by name, with what is told of it.
pub(super) type Case = (&'static str, Talk, &'static [&'static str]);

/// Every conversation is told as its calls, on both sides.
#[test]
fn conversations_are_told() {
    for (name, talk, calls) in queries().into_iter().chain(extended()) {
        for side in [Side::Client, Side::Server] {
            let told = talk.run(side);
            assert_eq!(told.lines(), calls, "{name}");
            let lost = told
                .events
                .iter()
                .any(|event| matches!(event, Event::Lost(_)));
            assert!(!lost, "{name}: {:?}", told.events);
        }
    }
}
