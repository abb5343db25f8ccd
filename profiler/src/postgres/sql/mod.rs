//! The texts of statements: where one ends, what is left of it without its values, which one it is, what it does.
//!
//! `lexer` cuts a text into tokens as the server's own lexer does (`quotes` finds the ends of strings and comments),
//! `split` finds the statements of a simple Query, `normal` gives one without its literals, comments and long lists
//! (`clauses`, `lists`, `writer`), `shorten` takes lists out of one that is still coming, `interner` remembers it under a number, and shows of it what `withheld` leaves as long
//! as the server has not taken it; `temporaries` are names to be replaced before. Nothing here parses SQL or reports an error:
//! a text may be cut, hostile or plainly wrong, and always has a normal form. The lexer is ours because sqlparser's
//! tokenizer refuses or takes apart legal text (`@-5`, `U&'..' UESCAPE '!'`, `0b101`) and takes seven times as long.
//! Pure.

mod clauses;
mod command;
#[cfg(test)]
mod examples;
mod fingerprint;
#[cfg(test)]
mod groups;
mod interner;
mod lexer;
mod lists;
mod normal;
mod part;
#[cfg(test)]
mod properties;
mod quotes;
mod shorten;
mod split;
mod summary;
mod temporaries;
mod withheld;
mod writer;

pub(crate) use command::Command;
pub use fingerprint::Fingerprint;
pub(crate) use interner::{Interned, Interner, Kept, Standing, StatementId, Unanswered};
pub use normal::{Normal, normalise};
pub(crate) use part::part;
pub(crate) use shorten::shortened;
pub use split::statements;
pub(crate) use summary::summary;
pub(crate) use temporaries::Temporaries;
pub(crate) use withheld::are_alike;

/// How a text is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    /// How much of it is there.
    pub extent: Extent,
    /// What a backslash means in it.
    pub strings: Strings,
}

/// How much of a text is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All of it.
    #[default]
    Whole,
    /// Its beginning.
    Cut,
}

/// What the session's `standard_conforming_strings` is, as `ParameterStatus` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strings {
    /// On: a backslash in a plain string is a character like others.
    Conforming,
    /// Off: a backslash takes the next character with it, as in `E'..'`.
    Escaping,
    /// Not known. In most strings both readings agree; where they do not, either may end the string where the other
    /// one goes on, so that all the rest of the text is taken for the string. Only `ESCAPE '\'` is read as conforming.
    #[default]
    Unknown,
}
