//! `profiler syscalls --since`: what the daemon has kept of system calls, as one table.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use profiler_common::syscalls::wanted;

use super::{
    Form, SortBy, csv,
    descriptors::Files,
    json,
    report::{self, Named, Report, Selection},
    table,
    window::{Sum, Window},
};
use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
    store::{self, Capability, Span, Who},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct History {
    /// The state directory.
    pub state: PathBuf,
    /// Which time.
    pub span: Span,
    /// Whose.
    pub who: Who,
    /// Order of the rows.
    pub sort: SortBy,
    /// Most rows.
    pub limit: Option<usize>,
    /// As what it is shown.
    pub form: Form,
    /// Where to.
    pub destination: Destination,
}

/// Adds up the windows, writes them, and says how to exit.
pub fn tell(history: &History) -> Result<Exit, Error> {
    let artifact = Artifact::open(&history.destination)?;
    // Nobody says to stop.
    let sum = sum(&history.state, history.span, &history.who, &mut || true)?.unwrap_or_default();
    let report = report(sum, history.sort, history.limit);
    let text = match history.form {
        Form::Table => table::render(&report),
        Form::Json => json::render(&report)?,
        Form::Csv => csv::render(&report),
    };
    artifact.write(text.as_bytes())?;
    Ok(Exit::Done)
}

/// What is shown of windows.
pub(super) fn report(sum: Sum, sort: SortBy, limit: Option<usize>) -> Report {
    let titles: Vec<&str> = sum.titles.iter().map(String::as_str).collect();
    let selection = Selection {
        wanted: wanted::CALLS,
        sort,
        limit,
    };
    let named = Named {
        threads: &BTreeMap::new(),
        files: &Files::default(),
    };
    let (rows, more) = report::rows(&sum.tally, selection, &named);
    Report {
        title: titles.join("; "),
        duration: sum.duration,
        wanted: wanted::CALLS,
        rows,
        more,
        total: report::total(&sum.tally),
        errors: report::errors(&sum.errors),
        account: Some(sum.account),
    }
}

/// Adds up the windows of a span, as long as the caller says to go on; `None` where that was not long enough.
pub(super) fn sum(
    state: &Path,
    span: Span,
    who: &Who,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Sum>, Error> {
    let mut sum = Sum::default();
    let add = |bytes: &[u8]| {
        Window::read(bytes)
            .map(|window| sum.add(window, who))
            .is_ok()
    };
    let notes = store::each(state, Capability::Syscalls, span, go_on, add)?;
    sum.finish();
    Ok(notes.map(|notes| {
        sum.account.notes.extend(notes);
        sum
    }))
}
