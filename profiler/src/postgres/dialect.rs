//! How the texts of a connection are to be read, and which of them await an answer: between one connection's protocol
//! and the texts of all. Pure.
//!
//! Encoding and `standard_conforming_strings` are what the server reported last. Of a connection that was there before
//! the recording they are read from its backend's memory; where that cannot be, and behind what may have changed them,
//! a text is read so that it is right whatever they are, and withheld where that cannot be told.

use std::{borrow::Cow, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    encoding::{Encoding, is_clear},
    protocol::{Deed, Extent, Part, StatementId, Statements, Text},
    sql::{Strings, Temporaries, Unanswered},
    texts::{Taken, Texts},
};

/// Texts without an answer that are held; there are as many statements.
const HELD_MAX: usize = 10_000;
/// Texts that are held on, as a server took them or others.
const LIKELY_MAX: usize = 64;

/// What a server reads texts by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Of the client.
    pub(super) encoding: Option<Encoding>,
    pub(super) strings: Strings,
    /// Texts from before that may have been read by others, ns.
    pub(super) since_ns: u64,
}

/// What is known of a connection's texts.
#[derive(Debug, Default)]
pub(super) struct Dialect {
    pub(super) parameters: Parameters,
    /// Texts that the server has not answered, and whether it took them or others.
    held: FxHashMap<StatementId, (Arc<Unanswered>, bool)>,
    temporaries: Temporaries,
}

/// A text in UTF-8.
#[derive(Debug, PartialEq, Eq)]
struct Read<'a> {
    text: Cow<'a, [u8]>,
    strings: Strings,
    /// Where its values are is known.
    is_clear: bool,
}

impl Dialect {
    fn read<'a>(&self, text: Text<'a>, time_ns: u64) -> Read<'a> {
        let Parameters {
            encoding,
            strings,
            since_ns,
        } = self.parameters;
        let is_settled = text.is_settled && time_ns >= since_ns;
        let strings = if is_settled {
            strings
        } else {
            Strings::Unknown
        };
        let is_known = encoding.is_some() && is_settled;
        Read {
            text: encoding.unwrap_or(Encoding::Extended).decode(text.bytes),
            strings,
            is_clear: is_known || is_clear(text.bytes, strings),
        }
    }

    fn hold(&mut self, id: StatementId, unanswered: Option<Arc<Unanswered>>) {
        if let Some(unanswered) = unanswered
            && self.held.len() < HELD_MAX
        {
            self.held.entry(id).or_insert((unanswered, false));
        }
    }
}

/// What a connection says, at a time.
pub(super) struct Speech<'a> {
    pub(super) texts: &'a mut Texts,
    pub(super) dialect: &'a mut Dialect,
    pub(super) time_ns: u64,
}

impl Statements for Speech<'_> {
    fn simple(&mut self, text: Text<'_>, ids: &mut Vec<StatementId>) {
        self.look_for_end(text);
        let Read {
            text: read,
            strings,
            is_clear,
        } = self.dialect.read(text, self.time_ns);
        for (piece, extent) in Texts::pieces(&read, text.extent, strings) {
            ids.push(self.intern(piece, (extent, strings), is_clear));
        }
    }

    fn prepared(&mut self, text: Text<'_>) -> StatementId {
        self.look_for_end(text);
        let read = self.dialect.read(text, self.time_ns);
        self.intern(&read.text, (text.extent, read.strings), read.is_clear)
    }

    fn deed(&mut self, id: StatementId) -> Option<Arc<Deed>> {
        self.texts.deed(id)
    }

    fn part(&mut self, id: StatementId, part: Part) -> Option<StatementId> {
        self.texts.part(id, part)
    }

    fn parameter(&mut self, name: &[u8], value: &[u8]) {
        let parameters = &mut self.dialect.parameters;
        match name {
            b"client_encoding" => parameters.encoding = Encoding::named(value),
            b"standard_conforming_strings" => {
                parameters.strings = match value {
                    b"on" => Strings::Conforming,
                    b"off" => Strings::Escaping,
                    _ => Strings::Unknown,
                };
            }
            _ => {}
        }
    }

    fn accepted(&mut self, id: StatementId, is_certain: bool) {
        if is_certain {
            self.texts.accept(id);
            self.dialect.held.remove(&id);
        } else if let Some((_, is_likely)) = self.dialect.held.get_mut(&id) {
            // What is prepared is not sent again: later calls may show what this one does not.
            *is_likely = true;
        }
    }

    fn answered(&mut self) {
        let held = &mut self.dialect.held;
        held.retain(|_, (_, is_likely)| *is_likely);
        if held.len() > LIKELY_MAX {
            held.clear();
        }
    }
}

impl Speech<'_> {
    fn look_for_end(&mut self, text: Text<'_>) {
        if text.extent == Extent::Cut {
            self.texts.met_cut();
        }
    }

    fn intern(
        &mut self,
        text: &[u8],
        (extent, strings): (Extent, Strings),
        is_clear: bool,
    ) -> StatementId {
        if !is_clear {
            return self.texts.intern_unclear(text, extent, strings);
        }
        let text = self.dialect.temporaries.replace(text, strings);
        let Taken {
            id,
            unanswered,
            temporary,
        } = self.texts.intern(&text, extent, strings);
        self.dialect.hold(id, unanswered);
        if let Some(name) = temporary {
            self.dialect.temporaries.add(name);
        }
        id
    }
}
