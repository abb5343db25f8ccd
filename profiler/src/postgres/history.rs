//! `profiler queries --since`: what the daemon has kept of queries, as one table.

use std::path::PathBuf;

use super::{
    Form, Selection, csv, json,
    report::{self, Report},
    table,
    window::{Sum, Window},
};
use crate::{
    artifact::{Artifact, Destination},
    daemon::store::{self, Capability, Span},
    error::{Error, Exit},
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
    let mut sum = Sum::default();
    let notes = store::each(&history.state, Capability::Queries, history.span, |bytes| {
        Window::read(bytes).map(|window| sum.add(window)).is_ok()
    })?;
    sum.account.notes.extend(notes);
    let (rows, more) = report::rows(&sum.statistics, &sum.texts, history.selection);
    let titles: Vec<&str> = sum.titles.iter().map(String::as_str).collect();
    let report = Report {
        title: &titles.join("; "),
        duration: sum.duration,
        by: None,
        rows,
        more,
        statistics: &sum.statistics,
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
