//! What is shown, with texts: the value that table, JSON and CSV are made of. Pure.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    account::Account,
    figures::Figures,
    now::UnderWay,
    protocol::{Side, Statement},
    sql::Fingerprint,
    statistics::{By, Statistics},
    texts::Texts,
};

/// By what rows are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SortBy {
    /// Time of all calls together
    Time,
    /// How many calls
    Calls,
    /// The mean latency
    Mean,
    /// The latency that 95 of 100 calls do not exceed
    P95,
    /// The latency that 99 of 100 calls do not exceed
    P99,
    /// The longest latency
    Max,
    /// Rows returned or affected
    Rows,
    /// Errors
    Errors,
}

/// Which rows.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Their order.
    pub sort: SortBy,
    /// Most of them.
    pub limit: usize,
    /// Statements with fewer calls are left out.
    pub min_calls: u64,
    /// By what calls of one statement are told apart.
    pub by: Option<By>,
}

/// Everything of one recording, or of one interval of it.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// Whom.
    pub(super) title: &'a str,
    /// How long.
    pub(super) duration: Duration,
    pub(super) by: Option<By>,
    /// In order.
    pub(super) rows: Vec<Row<'a>>,
    /// Rows that are not shown, since only so many are wanted.
    pub(super) more: usize,
    pub(super) statistics: &'a Statistics,
    /// What connections are in the middle of at the end.
    pub(super) under_way: &'a [UnderWay],
    /// What became of everything; not of an interval.
    pub(super) account: Option<&'a Account>,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The normal form, or in angle brackets what it is instead.
    pub(super) text: String,
    pub(super) fingerprint: Option<Fingerprint>,
    /// The server's own number for it, where it was met.
    pub(super) query_id: Option<i64>,
    pub(super) side: Side,
    /// What [`By`] says.
    pub(super) by: Option<&'a str>,
    /// Its share of the time of all calls of its side, in tenths of a per cent.
    pub(super) share_permille: u64,
    pub(super) figures: &'a Figures,
}

/// Rows in order, as many as are wanted, and how many more there are.
pub(super) fn rows<'a>(
    statistics: &'a Statistics,
    texts: &Texts,
    selection: Selection,
) -> (Vec<Row<'a>>, usize) {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, figures) in &statistics.groups {
        *totals
            .entry(super::origin::side_text(key.side))
            .or_default() += figures.total_ns;
    }
    let groups = statistics.groups.iter();
    let chosen = groups.filter(|(_, figures)| figures.all_calls() >= selection.min_calls);
    let mut rows: Vec<Row<'a>> = chosen
        .map(|(key, figures)| {
            let (text, fingerprint) = text(key.statement.as_ref(), texts);
            let total_ns = totals[super::origin::side_text(key.side)];
            let share = (u128::from(figures.total_ns) * 1000).checked_div(u128::from(total_ns));
            Row {
                query_id: match key.statement {
                    Some(Statement::Known(id)) => texts.query_id(id),
                    _ => None,
                },
                text,
                fingerprint,
                side: key.side,
                by: key.by.as_deref(),
                share_permille: share.map_or(0, |share| u64::try_from(share).unwrap_or(1000)),
                figures,
            }
        })
        .collect();
    // Both sides of a statement are beside each other.
    let weights = |row: &Row<'_>| (weight(row.figures, selection.sort), row.figures.total_ns);
    let mut most: BTreeMap<(String, Option<&str>), (u64, u64)> = BTreeMap::new();
    for row in &rows {
        let most = most.entry((row.text.clone(), row.by)).or_default();
        *most = weights(row).max(*most);
    }
    rows.sort_by_cached_key(|row| {
        let name = (row.text.clone(), row.by);
        let most = most.get(&name).copied();
        (Reverse(most), name, Reverse(weights(row)))
    });
    let more = rows.len().saturating_sub(selection.limit);
    rows.truncate(selection.limit);
    (rows, more)
}

fn weight(figures: &Figures, sort: SortBy) -> u64 {
    match sort {
        SortBy::Time => figures.total_ns,
        SortBy::Calls => figures.all_calls(),
        SortBy::Mean => figures.mean_ns().unwrap_or(0),
        SortBy::P95 => figures.quantile_ns(95).unwrap_or(0),
        SortBy::P99 => figures.quantile_ns(99).unwrap_or(0),
        SortBy::Max => figures.max_ns,
        SortBy::Rows => figures.rows,
        SortBy::Errors => figures.all_errors().values().sum(),
    }
}

/// A name that is one of a connection.
pub(super) fn named(name: &str, connection: u32) -> String {
    match connection {
        0 => name.to_owned(),
        number => format!("{name}, connection {number}"),
    }
}

/// What to call a statement.
pub(super) fn text(statement: Option<&Statement>, texts: &Texts) -> (String, Option<Fingerprint>) {
    let name = match statement {
        Some(Statement::Known(id)) => {
            return (texts.text(*id).to_owned(), texts.fingerprint(*id));
        }
        Some(Statement::Named(name, connection)) => {
            format!("<prepared before attach: {}>", named(name, *connection))
        }
        Some(Statement::Function(oid)) => format!("<function call oid {oid}>"),
        Some(Statement::Empty) => "<empty query>".to_owned(),
        Some(Statement::Unknown) => "<statement not seen>".to_owned(),
        None => "<other statements>".to_owned(),
    };
    (name, None)
}
