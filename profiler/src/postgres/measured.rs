//! What a window measured of each statement, as metrics want it: plain numbers. Pure.

use std::collections::BTreeMap;

use super::{
    figures::Figures,
    latencies::Latencies,
    protocol::{Side, SqlState},
    sql::Fingerprint,
};

/// A statement, seen at one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured<'a> {
    pub(crate) side: Side,
    /// Unless its text was not seen, or it found no room of its own.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Its normal form, likewise.
    pub(crate) text: Option<&'a str>,
    pub(super) figures: &'a Figures,
}

impl Measured<'_> {
    /// Calls, however they ended.
    pub(crate) fn calls(&self) -> u64 {
        self.figures.all_calls()
    }

    /// Rows returned or affected.
    pub(crate) fn rows(&self) -> u64 {
        self.figures.rows
    }

    /// Time of the calls whose end was seen, ns.
    pub(crate) fn total_ns(&self) -> u64 {
        self.figures.total_ns
    }

    /// Errors by their code, of calls and of preparing.
    pub(crate) fn errors(&self) -> BTreeMap<SqlState, u64> {
        self.figures.all_errors()
    }

    /// Of the calls whose own latency is known, failed ones among them.
    pub(crate) fn latencies(&self) -> Latencies {
        self.figures.known_latencies()
    }

    /// Of these, the ones that failed, by the code of the error.
    pub(crate) fn failed(&self) -> &BTreeMap<SqlState, Latencies> {
        &self.figures.failed_in
    }

    /// The database, where all calls were of one.
    pub(crate) fn database(&self) -> Option<&str> {
        let databases = &self.figures.seen.databases;
        let first = databases.first().map(AsRef::as_ref);
        first.filter(|_| databases.len() == 1)
    }
}
