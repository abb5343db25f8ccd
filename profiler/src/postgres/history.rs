//! `profiler queries --since`: what the daemon has kept of queries, as one table.

use std::path::{Path, PathBuf};

use super::{
    Form, Selection, csv, json,
    report::{self, Report},
    table,
    window::{Sum, Window},
};
use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
    store::{self, Capability, Span},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct History {
    /// The state directory.
    pub state: PathBuf,
    /// Which time.
    pub span: Span,
    /// Which rows.
    pub selection: Selection,
    /// As what it is shown.
    pub form: Form,
    /// Where to.
    pub destination: Destination,
}

/// Adds up the windows, writes them, and says how to exit.
pub fn tell(history: &History) -> Result<Exit, Error> {
    let artifact = Artifact::open(&history.destination)?;
    // Nobody says to stop.
    let sum = sum(&history.state, history.span, &mut || true)?.unwrap_or_default();
    let (rows, more) = report::rows(&sum.statistics, &sum.texts, history.selection);
    let titles: Vec<&str> = sum.titles.iter().map(String::as_str).collect();
    let report = Report {
        title: &titles.join("; "),
        duration: sum.duration,
        by: None,
        rows,
        more,
        statistics: &sum.statistics,
        under_way: &[],
        account: Some(&sum.account),
    };
    let text = match history.form {
        Form::Json => json::render(&report)?,
        Form::Csv => csv::render(&report),
        Form::Table | Form::Events => table::render(&report),
    };
    artifact.write(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Adds up the windows of a span, as long as the caller says to go on; `None` where that was not long enough.
pub(super) fn sum(
    state: &Path,
    span: Span,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Sum>, Error> {
    let mut sum = Sum::default();
    let add = |bytes: &[u8]| Window::read(bytes).map(|window| sum.add(window)).is_ok();
    let notes = store::each(state, Capability::Queries, span, go_on, add)?;
    Ok(notes.map(|notes| {
        sum.account.notes.extend(notes);
        sum
    }))
}
