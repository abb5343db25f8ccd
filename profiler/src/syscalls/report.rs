//! What is shown, with names: the value that table, JSON and CSV are made of. Pure.

use std::{collections::BTreeMap, time::Duration};

use profiler_common::syscalls::{CellKey, ErrorKey, wanted};

use super::{
    account::Account,
    descriptors::Files,
    names,
    tally::{Apart, SortBy, Sum, Tally},
};

/// Everything of one recording, or of one interval of it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Whom.
    pub(super) title: String,
    /// How long.
    pub(super) duration: Duration,
    /// Bits of [`wanted`]: what is told apart.
    pub(super) wanted: u32,
    /// In order, as many as are wanted.
    pub(super) rows: Vec<Row>,
    /// Rows that are not shown because only so many are wanted.
    pub(super) more: usize,
    /// All rows together, those not shown too.
    pub(super) total: Sum,
    /// Errors: the call, the error, how often; most often first.
    pub(super) errors: Vec<(String, String, u64)>,
    /// What became of every call; not of an interval.
    pub(super) account: Option<Account>,
}

/// Calls of one name and, where told apart, thread and descriptor.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) call: String,
    pub(super) number: u32,
    /// Process, where anything is told apart.
    pub(super) pid: Option<u32>,
    /// Thread and its name.
    pub(super) thread: Option<(u32, String)>,
    /// Descriptor, and what it is.
    pub(super) descriptor: Option<(i32, String)>,
    pub(super) sum: Sum,
}

/// Where names come from.
pub(super) struct Named<'a> {
    pub(super) threads: &'a BTreeMap<u32, String>,
    pub(super) files: &'a Files,
}

/// Which rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection {
    /// Bits of [`wanted`].
    pub(super) wanted: u32,
    pub(super) sort: SortBy,
    pub(super) limit: Option<usize>,
}

/// Rows with names, as many as are wanted, and how many more there are.
pub(super) fn rows(tally: &Tally, selection: Selection, named: &Named<'_>) -> (Vec<Row>, usize) {
    let by = |bit| selection.wanted & bit != 0;
    let apart = if by(wanted::BY_THREAD | wanted::BY_DESCRIPTOR) {
        Apart::All
    } else {
        Apart::Calls
    };
    let all = tally.rows(apart, selection.sort, names::call);
    let shown = selection.limit.unwrap_or(usize::MAX).min(all.len());
    let more = all.len() - shown;
    let rows = all.into_iter().take(shown).map(|(key, sum)| Row {
        call: names::call(key.number),
        number: key.number,
        pid: (apart == Apart::All).then_some(key.tgid),
        thread: by(wanted::BY_THREAD).then(|| (key.tid, thread(&key, named))),
        descriptor: named
            .files
            .text(&key)
            .map(|text| (key.descriptor, text.to_owned())),
        sum: without_result(key.number, sum),
    });
    (rows.collect(), more)
}

fn thread(key: &CellKey, named: &Named<'_>) -> String {
    match named.threads.get(&key.tid) {
        Some(name) => name.clone(),
        None if key.tid == 0 => "all others".to_owned(),
        None => "?".to_owned(),
    }
}

/// What looks like an error is none where a call has no result.
fn without_result(number: u32, mut sum: Sum) -> Sum {
    if names::has_no_result(number) {
        sum.cell.errors = 0;
    }
    sum
}

/// Errors by call and number, those of all processes together.
pub(super) fn errors(counts: &BTreeMap<ErrorKey, u64>) -> Vec<(String, String, u64)> {
    let mut merged: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (key, count) in counts {
        if !names::has_no_result(key.number) {
            *merged.entry((key.number, key.errno)).or_default() += count;
        }
    }
    let mut errors: Vec<_> = merged
        .into_iter()
        .map(|((call, errno), count)| (names::call(call), names::error(errno), count))
        .collect();
    errors.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
    errors
}

/// All rows together, without what is no error.
pub(super) fn total(tally: &Tally) -> Sum {
    let mut total = tally.total();
    let rows = tally.rows(Apart::Calls, SortBy::Time, names::call);
    total.cell.errors = rows
        .into_iter()
        .map(|(key, sum)| without_result(key.number, sum).cell.errors)
        .sum();
    total
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use profiler_common::syscalls::{CellKey, ErrorKey, wanted};
    use syscalls::Sysno;

    use super::{
        super::{
            account::Account,
            descriptors::Files,
            tally::{SortBy, Tally, tests::cell},
        },
        Named, Report, Selection, errors, rows, total,
    };

    /// Three calls, one of them with errors and one still open.
    pub(in crate::syscalls) fn example(bits: u32) -> Report {
        let mut tally = Tally::default();
        let key = |call: Sysno| CellKey {
            tgid: 7,
            number: u32::try_from(call.id()).unwrap(),
            tid: if bits & wanted::BY_THREAD == 0 { 0 } else { 8 },
            descriptor: -1,
            inode: 0,
        };
        let read = tally.sum(key(Sysno::read));
        read.add(&cell(&[1_000, 2_000, 3_000_000]));
        read.cell.errors = 1;
        read.open = 1;
        read.open_ns = 500_000_000;
        tally.sum(key(Sysno::getpid)).add(&cell(&[100; 1000]));
        tally.sum(key(Sysno::exit_group)).cell.ended = 1;
        let threads = BTreeMap::from([(8, "worker".to_owned())]);
        let files = Files::default();
        let named = Named {
            threads: &threads,
            files: &files,
        };
        let selection = Selection {
            wanted: bits,
            sort: SortBy::Time,
            limit: Some(2),
        };
        let (rows, more) = rows(&tally, selection, &named);
        let counts = BTreeMap::from([(
            ErrorKey {
                tgid: 7,
                number: key(Sysno::read).number,
                errno: 11,
            },
            1,
        )]);
        Report {
            title: "app (pid 7)".to_owned(),
            duration: Duration::from_secs(1),
            wanted: bits,
            rows,
            more,
            total: total(&tally),
            errors: errors(&counts),
            account: Some(Account {
                entered: 1005,
                counted: 1005,
                process: Duration::from_millis(12),
                ..Account::default()
            }),
        }
    }

    /// The limit leaves rows out and says how many; the total has them all.
    #[test]
    fn limit_leaves_rows_out_of_the_list_only() {
        let report = example(wanted::CALLS);
        let calls: Vec<&str> = report.rows.iter().map(|row| row.call.as_str()).collect();
        assert_eq!((calls, report.more), (vec!["read", "getpid"], 1));
        assert_eq!(
            (report.total.returned(), report.total.not_returned()),
            (1003, 2)
        );
    }
}
