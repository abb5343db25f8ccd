//! Portals by name: which statement each was bound to, and the call that is suspended in it.

use rustc_hash::FxHashMap;

use super::{
    event::{Call, Event, Outcome, Statement},
    fields::Name,
};

/// Most portals that are remembered; with more, all of them are forgotten.
pub(super) const PORTALS_MAX: usize = 1_000;

/// A portal.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) statement: Statement,
    pub(super) suspended: Option<Box<Call>>,
}

/// Portals of a connection.
#[derive(Debug, Default)]
pub(super) struct Portals {
    by_name: FxHashMap<Name, Portal>,
}

impl Portals {
    pub(super) fn bind(&mut self, name: Name, statement: Statement, events: &mut Vec<Event>) {
        if self.by_name.len() >= PORTALS_MAX {
            self.clear(events);
        }
        let portal = Portal {
            statement,
            suspended: None,
        };
        if let Some(before) = self.by_name.insert(name, portal) {
            give_up(before, events);
        }
    }

    /// What a portal was bound to.
    pub(super) fn statement(&self, name: &Name) -> Statement {
        let portal = self.by_name.get(name);
        portal.map_or(Statement::Unknown, |portal| portal.statement.clone())
    }

    /// The call that is suspended in a portal goes on, or is told.
    pub(super) fn resume(&mut self, name: &Name) -> Option<Box<Call>> {
        self.by_name.get_mut(name)?.suspended.take()
    }

    /// A call's rows come in several fetches.
    pub(super) fn suspend(&mut self, name: Name, call: Box<Call>) {
        let statement = call.statement.clone();
        let portal = self.by_name.entry(name).or_insert(Portal {
            statement,
            suspended: None,
        });
        portal.suspended = Some(call);
    }

    pub(super) fn close(&mut self, name: &[u8], events: &mut Vec<Event>) {
        if let Some(portal) = self.by_name.remove(name) {
            give_up(portal, events);
        }
    }

    pub(super) fn clear(&mut self, events: &mut Vec<Event>) {
        self.by_name
            .drain()
            .for_each(|(_, portal)| give_up(portal, events));
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
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
