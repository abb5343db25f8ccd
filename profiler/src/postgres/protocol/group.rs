//! Which messages belong to a call: Parse, Bind and Describe that travel with its Execute.

use super::{chunk::Stamp, fields::Name, message::Message, queue::Parsed};

/// Most statements that are parsed and portals that are bound, but not executed, within a pipeline. Calls of older
/// ones count from a later message.
const WAITING_MAX: usize = 16;

/// Messages that wait for their Execute.
#[derive(Debug, Default)]
pub(super) struct Groups {
    parsed: Vec<Parse>,
    bound: Vec<(Name, Group)>,
}

/// Messages of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) begin: Stamp,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Parse {
    name: Name,
    /// Number of the request.
    number: u64,
    group: Group,
}

impl Groups {
    pub(super) fn parse(&mut self, name: &Name, number: u64, message: &Message<'_>) {
        if self.parsed.len() >= WAITING_MAX {
            self.parsed.remove(0);
        }
        self.parsed.push(Parse {
            name: name.clone(),
            number,
            group: Group::of(message),
        });
    }

    pub(super) fn describe_statement(&mut self, name: &Name, message: &Message<'_>) {
        let mut parsed = self.parsed.iter_mut().rev();
        if let Some(parse) = parsed.find(|parse| parse.name == *name) {
            parse.group.bytes += message.bytes;
        }
    }

    /// A Bind begins its call, unless the Parse of its statement does: one whose answer the client has not
    /// awaited, so that its number is not below `answered`.
    pub(super) fn bind(
        &mut self,
        portal: &Name,
        statement: &Name,
        answered: u64,
        message: &Message<'_>,
    ) -> Parsed {
        let along = |parse: &Parse| parse.name == *statement && parse.number >= answered;
        let at = self.parsed.iter().rposition(along);
        let parse = at.map(|at| self.parsed.swap_remove(at));
        let mut group = Group::of(message);
        if let Some(parse) = &parse {
            group.begin = parse.group.begin;
            group.bytes += parse.group.bytes;
        }
        self.take(portal);
        if self.bound.len() >= WAITING_MAX {
            self.bound.remove(0);
        }
        self.bound.push((portal.clone(), group));
        match parse {
            Some(_) => Parsed::Along,
            None => Parsed::Before,
        }
    }

    pub(super) fn describe_portal(&mut self, portal: &Name, message: &Message<'_>) {
        if let Some((_, group)) = self.bound.iter_mut().find(|(name, _)| name == portal) {
            group.bytes += message.bytes;
        }
    }

    pub(super) fn execute(&mut self, portal: &Name, message: &Message<'_>) -> Group {
        let mut group = Group::of(message);
        if let Some(bound) = self.take(portal) {
            group.begin = bound.begin;
            group.bytes += bound.bytes;
        }
        group
    }

    pub(super) fn clear(&mut self) {
        self.parsed.clear();
        self.bound.clear();
    }

    fn take(&mut self, portal: &Name) -> Option<Group> {
        let at = self.bound.iter().position(|(name, _)| name == portal)?;
        Some(self.bound.swap_remove(at).1)
    }
}

impl Group {
    fn of(message: &Message<'_>) -> Self {
        Self {
            begin: message.begin,
            bytes: message.bytes,
        }
    }
}
