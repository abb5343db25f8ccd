//! Portals by name: which statement each was bound to, and the call that is suspended in it.

use super::{
    event::{Call, Event, Outcome, Statement},
    fields::Name,
    gap::unsee,
};

/// Most portals that are remembered; with more, all of them are forgotten.
pub(super) const PORTALS_MAX: usize = 1_000;

/// A portal.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) statement: Statement,
    pub(super) suspended: Option<Box<Call>>,
}

/// Portals of a connection; mostly there is one.
#[derive(Debug, Default)]
pub(super) struct Portals {
    named: Vec<(Name, Portal)>,
}

impl Portals {
    pub(super) fn bind(&mut self, name: Name, statement: Statement, events: &mut Vec<Event>) {
        self.close(&name, events);
        if self.named.len() >= PORTALS_MAX {
            self.clear(events);
        }
        let portal = Portal {
            statement,
            suspended: None,
        };
        self.named.push((name, portal));
    }

    /// What a portal was bound to.
    pub(super) fn statement(&self, name: &[u8]) -> Statement {
        self.find(name)
            .map_or(Statement::Unknown, |at| self.named[at].1.statement.clone())
    }

    /// The call that is suspended in a portal goes on.
    pub(super) fn resume(&mut self, name: &[u8]) -> Option<Box<Call>> {
        let at = self.find(name)?;
        self.named[at].1.suspended.take()
    }

    /// A call's rows come in several fetches.
    pub(super) fn suspend(&mut self, name: Name, call: Box<Call>, events: &mut Vec<Event>) {
        let at = self.find(&name).unwrap_or_else(|| {
            self.bind(name, call.statement.clone(), events);
            self.named.len() - 1
        });
        self.named[at].1.suspended = Some(call);
    }

    pub(super) fn close(&mut self, name: &[u8], events: &mut Vec<Event>) {
        if let Some(at) = self.find(name) {
            give_up(self.named.swap_remove(at).1, events);
        }
    }

    pub(super) fn clear(&mut self, events: &mut Vec<Event>) {
        self.named
            .drain(..)
            .for_each(|(_, portal)| give_up(portal, events));
    }

    /// What becomes of them is not seen. How many calls that ends.
    pub(super) fn lose(&mut self, events: &mut Vec<Event>) -> u64 {
        let suspended = self.named.drain(..);
        let suspended = suspended.filter_map(|(_, portal)| portal.suspended);
        let before = events.len();
        events.extend(suspended.map(|mut call| {
            unsee(&mut call);
            Event::Call(*call)
        }));
        (events.len() - before) as u64
    }

    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.named.iter().position(|(known, _)| **known == *name)
    }
}

fn give_up(portal: Portal, events: &mut Vec<Event>) {
    if let Some(mut call) = portal.suspended {
        if call.outcome == Outcome::Completed {
            call.outcome = Outcome::Suspended;
        }
        events.push(Event::Call(*call));
    }
}
