//! What happened in one window of time, as it is stored: one JSON object, compressed. Windows read back add up. Pure.
//!
//! A call is in the window in which it ended, with all of its time; those that threads are in at a window's end are in
//! it as open, and the next window begins with them.

use crate::sums::{add_count, add_time};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use profiler_common::syscalls::{BUCKETS, Cell, CellKey, ErrorKey};
use serde::{Deserialize, Serialize};

use super::{
    account::Account,
    tally::{self, Tally},
};
use crate::{
    output::OutputError,
    store::{Figure, Identity, Link, Table, Who, pack, unpack},
};

/// Of what is written now.
const VERSION: u32 = 1;
/// Most rows that are kept whole, those with most time; the others are summed over processes.
const ROWS_MAX: usize = 2000;
/// Most calls that are told apart in those sums: programs may ask for any number.
const SUMMED_MAX: usize = 1000;
/// Note: see [`ROWS_MAX`].
const SUMMED: &str = "row of a process and call summed with those of other processes";
/// Note: see [`Sum::add`].
const LEFT_OUT: &str =
    "call of processes that are not told apart or whose unit is not known, left out";

/// A window.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    title: String,
    duration: Duration,
    link: Link,
    rows: Vec<Row>,
    /// Calls that were under way when the window before this one ended.
    carried: u64,
    pub(super) account: Account,
}

/// Calls of one number of one process.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    /// 0 of all processes that are not told apart.
    pid: u32,
    comm: String,
    /// Its cgroup; empty where it is not known, as in windows of before it was kept.
    #[serde(default)]
    cgroup: String,
    number: u32,
    figures: Figures,
    /// By the error's number.
    errors: BTreeMap<u32, u64>,
}

/// A sum, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    calls: u64,
    errors: u64,
    total_ns: u64,
    max_ns: u64,
    before: u64,
    before_ns: u64,
    ended: u64,
    ended_ns: u64,
    open: u64,
    open_ns: u64,
    /// Buckets that are not empty.
    histogram: Vec<(usize, u64)>,
}

impl Figures {
    fn new(sum: &tally::Sum) -> Self {
        let cell = &sum.cell;
        let buckets = cell.histogram.iter().copied().enumerate();
        Self {
            calls: cell.calls,
            errors: cell.errors,
            total_ns: cell.total_ns,
            max_ns: cell.max_ns,
            before: cell.before,
            before_ns: cell.before_ns,
            ended: cell.ended,
            ended_ns: cell.ended_ns,
            open: sum.open,
            open_ns: sum.open_ns,
            histogram: buckets.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Without what is open.
    fn cell(&self) -> Cell {
        let mut histogram = [0; BUCKETS];
        for &(index, count) in &self.histogram {
            add_count(&mut histogram[index.min(BUCKETS - 1)], count);
        }
        Cell {
            calls: self.calls,
            errors: self.errors,
            total_ns: self.total_ns,
            max_ns: self.max_ns,
            before: self.before,
            before_ns: self.before_ns,
            ended: self.ended,
            ended_ns: self.ended_ns,
            histogram,
        }
    }
}

/// What came in the time of a window.
pub(super) struct Came {
    pub(super) tally: Tally,
    pub(super) errors: BTreeMap<ErrorKey, u64>,
    /// Who processes are.
    pub(super) known: BTreeMap<u32, Identity>,
    pub(super) carried: u64,
    pub(super) account: Account,
}

impl Window {
    /// What came, as many rows of it as there is room for.
    pub(super) fn new(what: (String, Duration), link: Link, came: Came) -> Self {
        let Came {
            tally,
            errors,
            known,
            carried,
            mut account,
        } = came;
        let mut sums: Vec<(CellKey, tally::Sum)> = tally.into_sums().into_iter().collect();
        sums.sort_by_key(|(_, sum)| Reverse((sum.time_ns(), sum.returned())));
        let rest = sums.split_off(sums.len().min(ROWS_MAX));
        let mut rows: BTreeMap<(u32, u32), tally::Sum> = BTreeMap::new();
        for (key, sum) in sums {
            rows.entry((key.tgid, key.number)).or_default().merge(&sum);
        }
        let mut summed = BTreeSet::new();
        for (key, sum) in &rest {
            let is_told = summed.len() < SUMMED_MAX || summed.contains(&key.number);
            let number = if is_told {
                key.number
            } else {
                super::OTHER_CALLS
            };
            summed.insert(number);
            rows.entry((0, number)).or_default().merge(sum);
        }
        if !rest.is_empty() {
            account.notes.insert(SUMMED.to_owned(), rest.len() as u64);
        }
        let mut by_row: BTreeMap<(u32, u32), BTreeMap<u32, u64>> = BTreeMap::new();
        for (key, count) in errors {
            let of = [(key.tgid, key.number), (0, key.number)];
            let found = of.into_iter().find(|row| rows.contains_key(row));
            let row = found.unwrap_or((0, super::OTHER_CALLS));
            add_count(
                by_row.entry(row).or_default().entry(key.errno).or_default(),
                count,
            );
        }
        let row = |((pid, number), sum): ((u32, u32), tally::Sum)| {
            let Identity { comm, cgroup } = known.get(&pid).cloned().unwrap_or_default();
            Row {
                pid,
                comm,
                cgroup,
                number,
                figures: Figures::new(&sum),
                errors: by_row.remove(&(pid, number)).unwrap_or_default(),
            }
        };
        Self {
            title: what.0,
            duration: what.1,
            link,
            rows: rows.into_iter().map(row).collect(),
            carried,
            account,
        }
    }

    /// Reads one back.
    pub(crate) fn read(bytes: &[u8]) -> io::Result<Self> {
        unpack(VERSION, bytes)
    }

    fn errors(&self) -> u64 {
        self.rows.iter().map(|row| row.figures.errors).sum()
    }
}

impl Table for Window {
    fn title(&self) -> &str {
        &self.title
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn events(&self) -> u64 {
        self.account.counted
    }

    fn lost(&self) -> u64 {
        self.account.lost.values().sum()
    }

    fn note(&mut self, note: String, count: u64) {
        add_count(self.account.notes.entry(note).or_default(), count);
    }

    fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        pack(VERSION, self)
    }

    fn sums(&self) -> Vec<(Figure, u64)> {
        vec![(Figure::CallErrors, self.errors())]
    }
}

/// Calls that are open, by number: how many, and their time so far, ns.
type Open = BTreeMap<u32, (u64, u64)>;

/// Windows together.
#[derive(Default)]
pub(crate) struct Sum {
    /// Of all processes that are wanted together.
    pub(super) tally: Tally,
    pub(super) errors: BTreeMap<ErrorKey, u64>,
    pub(super) account: Account,
    pub(super) duration: Duration,
    pub(super) titles: BTreeSet<String>,
    /// The last window, and the calls that were open at its end.
    last: Option<(Link, Open)>,
}

impl Sum {
    /// Adds the rows of those who are wanted. The account stays that of everybody. Windows come in their order.
    pub(crate) fn add(&mut self, window: Window, who: &Who) {
        let is_next = self.is_next(window.link);
        if !is_next {
            self.keep_open();
        }
        let mut open = Open::new();
        let mut left_out = 0;
        for row in &window.rows {
            let Some(is_wanted) = who.has(row.pid, &row.comm, &row.cgroup) else {
                add_count(&mut left_out, row.figures.calls);
                continue;
            };
            if !is_wanted {
                continue;
            }
            self.tally.sum(key(row.number)).add(&row.figures.cell());
            let sum = open.entry(row.number).or_default();
            add_count(&mut sum.0, row.figures.open);
            add_count(&mut sum.1, row.figures.open_ns);
            for (&errno, count) in &row.errors {
                let error = ErrorKey {
                    tgid: 0,
                    number: row.number,
                    errno,
                };
                add_count(self.errors.entry(error).or_default(), *count);
            }
        }
        // The open ones of the window before are those that this one began with.
        self.last = Some((window.link, open));
        let carried = if is_next { 0 } else { window.carried };
        self.account.merge(window.account);
        add_count(&mut self.account.entered, carried);
        if left_out > 0 {
            add_count(
                self.account.notes.entry(LEFT_OUT.to_owned()).or_default(),
                left_out,
            );
        }
        add_time(&mut self.duration, window.duration);
        self.titles.insert(window.title);
    }

    /// To be called after the last window.
    pub(crate) fn finish(&mut self) {
        self.keep_open();
    }

    fn is_next(&self, link: Link) -> bool {
        self.last
            .as_ref()
            .is_some_and(|(last, _)| last.next() == link)
    }

    /// What was open when the last window ended stays so: what became of it is not known.
    fn keep_open(&mut self) {
        for (number, (open, open_ns)) in self.last.take().into_iter().flat_map(|(_, open)| open) {
            let sum = self.tally.sum(key(number));
            add_count(&mut sum.open, open);
            add_count(&mut sum.open_ns, open_ns);
            add_count(&mut self.account.counted, open);
        }
    }
}

fn key(number: u32) -> CellKey {
    CellKey {
        number,
        descriptor: -1,
        ..CellKey::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use profiler_common::syscalls::{CellKey, ErrorKey};

    use super::{
        super::{
            account::Account,
            tally::{Tally, tests::cell},
        },
        Came, Identity, Link, ROWS_MAX, Sum, Table, Who, Window,
    };

    /// Calls of number 0 of process 7 that took so long, and so many still open.
    fn window(link: Link, times_ns: &[u64], carried: u64, open: u64) -> Window {
        let mut tally = Tally::default();
        let sum = tally.sum(CellKey {
            tgid: 7,
            ..super::key(0)
        });
        sum.add(&cell(times_ns));
        (sum.open, sum.open_ns, sum.cell.errors) = (open, open * 10, 1);
        let error = ErrorKey {
            tgid: 7,
            number: 0,
            errno: 11,
        };
        let returned = times_ns.len() as u64;
        let app = Identity {
            comm: "app".to_owned(),
            cgroup: "/system.slice/app.service".to_owned(),
        };
        let came = Came {
            tally,
            errors: BTreeMap::from([(error, 1)]),
            known: BTreeMap::from([(7, app)]),
            carried,
            account: Account {
                entered: returned + open - carried,
                counted: returned,
                ..Account::default()
            },
        };
        Window::new(("app".to_owned(), Duration::from_secs(1)), link, came)
    }

    fn sum(windows: Vec<Window>, who: &Who) -> Sum {
        let mut sum = Sum::default();
        for window in windows {
            let bytes = window.to_bytes().unwrap();
            sum.add(Window::read(&bytes).unwrap(), who);
        }
        sum.finish();
        sum
    }

    /// A call that is open at a window's end is counted once: where it returns, or open where nothing more is known.
    #[test]
    fn open_calls_are_counted_once() {
        let first = Link {
            watch: 1,
            number: 0,
        };
        let (second, third) = (first.next(), first.next().next());
        let windows = vec![window(first, &[5, 6], 0, 1), window(second, &[100], 1, 0)];
        let whole = sum(windows, &Who::default());
        let total = whole.tally.total();
        assert_eq!((total.returned(), total.open, total.time_ns()), (3, 0, 111));
        assert_eq!((whole.account.entered, whole.account.counted), (3, 3));
        assert_eq!((total.cell.max_ns, total.quantile_ns(50)), (100, Some(6)));
        // The second one is lost.
        let windows = vec![window(first, &[5, 6], 0, 1), window(third, &[100], 1, 2)];
        let holed = sum(windows, &Who::default());
        let total = holed.tally.total();
        assert_eq!((total.returned(), total.open), (3, 3));
        assert_eq!((holed.account.entered, holed.account.counted), (6, 6));
        assert_eq!(holed.errors.values().sum::<u64>(), 2);
    }

    /// Only who is wanted has rows.
    #[test]
    fn others_are_left_out() {
        let others = Who {
            pids: vec![8],
            ..Who::default()
        };
        let windows = vec![window(Link::default(), &[5], 0, 1)];
        assert_eq!(sum(windows, &others).tally.total().returned(), 0);
    }

    /// A unit's calls are known by the cgroup of their process. Windows of before cgroups were kept are read, and what
    /// cannot be told of them is counted.
    #[test]
    fn units_are_told_apart() {
        let returned = |window: &Window, unit: Option<&str>| {
            let who = Who {
                unit: unit.map(str::to_owned),
                ..Who::default()
            };
            let window = serde_json::to_vec(window).unwrap();
            let sum = sum(vec![serde_json::from_slice(&window).unwrap()], &who);
            let left_out = sum.account.notes.get(super::LEFT_OUT).copied();
            (sum.tally.total().returned(), left_out)
        };
        let now = window(Link::default(), &[5], 0, 0);
        assert_eq!(returned(&now, Some("app")), (1, None));
        assert_eq!(returned(&now, Some("other")), (0, None));
        let mut plain = serde_json::to_value(&now).unwrap();
        plain["rows"][0].as_object_mut().unwrap().remove("cgroup");
        let before: Window = serde_json::from_value(plain).unwrap();
        assert_eq!(returned(&before, Some("app")), (0, Some(1)));
        assert_eq!(returned(&before, None), (1, None));
    }

    /// However many processes there are, a window is bounded, and no call is missing.
    #[test]
    fn windows_are_bounded() {
        let mut tally = Tally::default();
        let processes = u32::try_from(ROWS_MAX).unwrap() * 2;
        for tgid in 1..=processes {
            let key = CellKey {
                tgid,
                ..super::key(tgid)
            };
            tally.sum(key).add(&cell(&[u64::from(tgid)]));
        }
        let came = Came {
            tally,
            errors: BTreeMap::new(),
            known: BTreeMap::new(),
            carried: 0,
            account: Account::default(),
        };
        let window = Window::new((String::new(), Duration::ZERO), Link::default(), came);
        assert!(window.rows.len() <= ROWS_MAX + super::SUMMED_MAX + 1);
        assert_eq!(window.account.notes[super::SUMMED], ROWS_MAX as u64);
        let whole = sum(vec![window], &Who::default());
        assert_eq!(whole.tally.total().returned(), u64::from(processes));
    }
}
