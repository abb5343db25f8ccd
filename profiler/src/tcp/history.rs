//! `profiler tcp --since`: what the daemon has kept of connections, by peer.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    Form, csv, json,
    peers::Peer,
    table,
    window::{Sum, Window},
};
use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
    output::OutputError,
    printable::{pretty_json, printable},
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
    /// Most rows of a table.
    pub limit: usize,
    /// As what it is shown.
    pub form: Form,
    /// Where to.
    pub destination: Destination,
}

/// Adds up the windows, writes them, and says how to exit.
pub fn tell(history: &History) -> Result<Exit, Error> {
    let artifact = Artifact::open(&history.destination)?;
    // Nobody says to stop.
    let sum = sum(&history.state, history.span, &history.who, &mut || true)?;
    let (peers, sum) = sum.unwrap_or_default();
    let text = match history.form {
        Form::Json => as_json(&peers, &sum)?,
        Form::Csv => csv::of_peers(&peers, sum.duration, &sum.account),
        Form::Table | Form::Events => as_table(&peers, &sum, history.limit),
    };
    artifact.write(text.as_bytes())?;
    Ok(Exit::Done)
}

/// Adds up the windows of a span, as long as the caller says to go on; `None` where that was not long enough.
pub(super) fn sum(
    state: &Path,
    span: Span,
    who: &Who,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<(Vec<Peer>, Sum)>, Error> {
    let mut sum = Sum::default();
    let add = |bytes: &[u8]| {
        Window::read(bytes)
            .map(|window| sum.add(window, who))
            .is_ok()
    };
    let notes = store::each(state, Capability::Tcp, span, go_on, add)?;
    Ok(notes.map(|notes| {
        let peers = sum.finish();
        sum.account.notes.extend(notes);
        (peers, sum)
    }))
}

fn title(sum: &Sum) -> String {
    let titles: Vec<&str> = sum.titles.iter().map(String::as_str).collect();
    titles.join("; ")
}

fn as_table(peers: &[Peer], sum: &Sum, limit: usize) -> String {
    let seconds = sum.duration.as_secs_f64();
    let mut text = format!(
        "TCP connections of {} in {seconds:.2} s\n\n",
        printable(&title(sum))
    );
    table::push(&mut text, &table::of_peers(peers, sum.duration, limit));
    text.push('\n');
    let open: u64 = peers.iter().map(|peer| peer.open).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "open: {open} connections");
    for (end, count) in &sum.ends {
        let _ = writeln!(text, "{}: {count} connections", printable(end));
    }
    table::push_findings(&mut text, peers, sum.duration);
    text.push('\n');
    for line in sum.account.lines() {
        let _ = writeln!(text, "{}", printable(&line));
    }
    text
}

fn as_json(peers: &[Peer], sum: &Sum) -> Result<String, OutputError> {
    let value = json!({
        "version": 1,
        "title": title(sum),
        "duration_ns": json::ns(sum.duration),
        "connections": null,
        "peers": peers.iter().map(|one| json::peer(one, sum.duration)).collect::<Vec<_>>(),
        "ends": sum.ends,
        "account": json::account(&sum.account),
    });
    Ok(pretty_json(&value)?)
}
