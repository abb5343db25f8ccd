//! Figures of statements since the start of the daemon, for Prometheus: those with the most time each for itself, all
//! others together. Pure.
//!
//! Sums only grow. A statement that is shown no more keeps its sums, and goes on from there should it be shown again;
//! what it did meanwhile is among the others'. It has to give way to one that took more than twice its time since the
//! start, so that few ever do: their number grows with the logarithm of the time.

use crate::sums::add_count;
use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::{
    latencies::Latencies, measured::Measured, origin::side_text, protocol::SqlState,
    sql::Fingerprint, window::Window,
};

/// Statements whose time is remembered; beyond, the half with less is forgotten.
const WEIGHTS_MAX: usize = 20_000;
/// Classes of errors that are told apart of a statement: there are some 40, and a server may make up others.
const CLASSES_MAX: usize = 16;
/// The class of further ones.
const OTHER_CLASS: &str = "other";
/// Stands for the statements that have no series of their own.
const OTHER: &str = "other";
/// Stands for the statements whose text was not seen.
const UNKNOWN: &str = "unknown";
/// Longest text of a statement, in characters.
const TEXT_MAX: usize = 200;

/// A statement, seen at one side.
type Key = (Fingerprint, &'static str);

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Most statements that are shown each for itself.
    top: usize,
    /// Time of each statement since the start, ns.
    weights: FxHashMap<Key, u64>,
    /// Statements that are shown, or were.
    series: BTreeMap<Key, Series>,
    /// Those that are.
    shown: BTreeSet<Key>,
    /// What no series has, by why not and side.
    rest: BTreeMap<(&'static str, &'static str), Sums>,
}

#[derive(Debug, Default)]
struct Series {
    text: String,
    sums: Sums,
}

/// Sums that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Calls, however they ended.
    pub(crate) calls: u64,
    /// Rows returned or affected.
    pub(crate) rows: u64,
    /// Errors by the class of their SQLSTATE.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Of the calls whose own latency is known.
    pub(crate) latencies: Latencies,
}

/// What is shown under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The fingerprint, or in a word what it is instead.
    pub(crate) fingerprint: String,
    pub(crate) side: &'static str,
    /// The normal form, cut where it is long.
    pub(crate) text: Option<String>,
    pub(crate) sums: Sums,
}

impl Totals {
    /// Most statements that are shown each for itself, from now on.
    pub(crate) fn set_top(&mut self, top: usize) {
        self.top = top;
        while self.shown.len() > top {
            let lightest = self.shown.iter().min_by_key(|key| self.weight(key));
            let Some(lightest) = lightest.copied() else {
                return;
            };
            self.shown.remove(&lightest);
        }
    }

    /// Takes a window in.
    pub(crate) fn add(&mut self, window: &Window) {
        let mut texts: BTreeMap<Key, &str> = BTreeMap::new();
        for measured in window.measured() {
            if let (Some(key), Some(text)) = (key(&measured), measured.text) {
                add_count(self.weights.entry(key).or_default(), measured.total_ns());
                texts.insert(key, text);
            }
        }
        self.choose(&texts);
        for (key, text) in &texts {
            // More of it may be shown than in the windows before.
            if let Some(series) = self.series.get_mut(key) {
                series.text = shortened(text);
            }
        }
        for measured in window.measured() {
            let key = key(&measured);
            let series = key.filter(|key| self.shown.contains(key));
            let sums = match (key, series.and_then(|key| self.series.get_mut(&key))) {
                (_, Some(series)) => &mut series.sums,
                (key, None) => {
                    let name = key.map_or(UNKNOWN, |_| OTHER);
                    let side = side_text(measured.side);
                    self.rest.entry((name, side)).or_default()
                }
            };
            sums.add(&measured);
        }
        self.forget();
    }

    /// Everything, in order.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let statements = self.shown.iter().filter_map(|key| {
            let series = self.series.get(key)?;
            Some(Shown {
                fingerprint: key.0.to_string(),
                side: key.1,
                text: Some(series.text.clone()),
                sums: series.sums.clone(),
            })
        });
        let rest = self.rest.iter().map(|((name, side), sums)| Shown {
            fingerprint: (*name).to_owned(),
            side,
            text: None,
            sums: sums.clone(),
        });
        statements.chain(rest).collect()
    }

    fn weight(&self, key: &Key) -> u64 {
        self.weights.get(key).copied().unwrap_or(0)
    }

    /// Decides which statements are shown, among those that are and those of a window.
    fn choose(&mut self, texts: &BTreeMap<Key, &str>) {
        let outside = texts.keys().filter(|key| !self.shown.contains(*key));
        let mut outside: Vec<Key> = outside.copied().collect();
        outside.sort_by_key(|key| (std::cmp::Reverse(self.weight(key)), *key));
        let mut inside: Vec<Key> = self.shown.iter().copied().collect();
        inside.sort_by_key(|key| self.weight(key));
        let mut inside = inside.into_iter();
        for key in outside {
            if self.shown.len() >= self.top {
                let Some(lightest) = inside.next() else {
                    return;
                };
                if self.weight(&key) / 2 <= self.weight(&lightest) {
                    return;
                }
                self.shown.remove(&lightest);
            }
            self.shown.insert(key);
            self.series.entry(key).or_default();
        }
    }

    fn forget(&mut self) {
        if self.weights.len() <= WEIGHTS_MAX {
            return;
        }
        let mut sorted: Vec<u64> = self.weights.values().copied().collect();
        sorted.sort_unstable();
        let middle = sorted[sorted.len() / 2];
        let (series, weights) = (&self.series, &mut self.weights);
        weights.retain(|key, weight| *weight > middle || series.contains_key(key));
    }
}

impl Sums {
    fn add(&mut self, measured: &Measured<'_>) {
        add_count(&mut self.calls, measured.calls());
        add_count(&mut self.rows, measured.rows());
        self.latencies.add(&measured.latencies());
        for (code, count) in measured.errors() {
            let class = self.class(code);
            add_count(self.errors.entry(class).or_default(), count);
        }
    }

    /// The class of an error: the first two characters of its code.
    fn class(&self, code: SqlState) -> String {
        let class: String = code.to_string().chars().take(2).collect();
        if self.errors.len() < CLASSES_MAX || self.errors.contains_key(&class) {
            class
        } else {
            OTHER_CLASS.to_owned()
        }
    }
}

fn key(measured: &Measured<'_>) -> Option<Key> {
    Some((measured.fingerprint?, side_text(measured.side)))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{OTHER, Shown, TEXT_MAX, Totals, shortened};
    use crate::postgres::window::Window;

    /// A window of these statements, each with one call of so many ms.
    fn window(calls: &[(&str, u64)]) -> Window {
        crate::postgres::example::window(Duration::ZERO, calls)
    }

    fn totals(top: usize) -> Totals {
        let mut totals = Totals::default();
        totals.set_top(top);
        totals
    }

    fn calls(shown: &[Shown], text: &str) -> Option<u64> {
        let found = shown
            .iter()
            .find(|shown| shown.text.as_deref() == Some(text));
        found.map(|shown| shown.sums.calls)
    }

    fn others(shown: &[Shown]) -> u64 {
        let others = shown.iter().filter(|shown| shown.fingerprint == OTHER);
        others.map(|shown| shown.sums.calls).sum()
    }

    /// Statements beyond the limit are together; one that takes far more time gets a place, and the one that made
    /// room goes on where it was once it is back.
    #[test]
    fn sums_never_go_back() {
        let mut totals = totals(1);
        totals.add(&window(&[("SELECT a", 10), ("SELECT b", 9)]));
        let shown = totals.shown();
        assert_eq!((calls(&shown, "SELECT a"), others(&shown)), (Some(1), 1));
        totals.add(&window(&[("SELECT b", 9)]));
        assert_eq!(
            calls(&totals.shown(), "SELECT a"),
            Some(1),
            "not twice as much"
        );
        totals.add(&window(&[("SELECT b", 9)]));
        let shown = totals.shown();
        assert_eq!(
            (calls(&shown, "SELECT b"), calls(&shown, "SELECT a")),
            (Some(1), None)
        );
        assert_eq!(others(&shown), 2);
        totals.add(&window(&[("SELECT a", 100)]));
        let shown = totals.shown();
        assert_eq!((calls(&shown, "SELECT a"), others(&shown)), (Some(2), 2));
    }

    /// Every call is counted once, and each sum is at least what it was, whatever comes.
    #[test]
    fn every_call_is_counted_once() {
        let mut totals = totals(3);
        let mut before: Vec<Shown> = Vec::new();
        let mut most = std::collections::BTreeMap::new();
        for round in 1..60_u64 {
            let texts: Vec<String> = (0..8)
                .map(|n| format!("SELECT c{}", n * round % 13))
                .collect();
            let calls: Vec<(&str, u64)> = texts
                .iter()
                .zip(1..)
                .map(|(text, n)| (text.as_str(), n * round))
                .collect();
            totals.add(&window(&calls));
            let shown = totals.shown();
            assert!(shown.iter().filter(|shown| shown.text.is_some()).count() <= 3);
            for one in &shown {
                let name = (one.fingerprint.clone(), one.side);
                let last = most.insert(name, one.sums.calls).unwrap_or(0);
                assert!(one.sums.calls >= last, "{one:?}");
            }
            before = shown;
        }
        let all: u64 = totals.series.values().map(|series| series.sums.calls).sum();
        let rest: u64 = totals.rest.values().map(|sums| sums.calls).sum();
        assert_eq!(all + rest, 59 * 8, "{before:#?}");
    }

    /// With fewer places than before the lightest statements lose theirs.
    #[test]
    fn fewer_places() {
        let mut totals = totals(3);
        totals.add(&window(&[
            ("SELECT a", 10),
            ("SELECT b", 20),
            ("SELECT c", 30),
        ]));
        totals.set_top(1);
        let shown = totals.shown();
        assert_eq!((shown.len(), calls(&shown, "SELECT c")), (1, Some(1)));
    }

    /// Errors are told by class, each latency is in its bucket, long texts are cut.
    #[test]
    fn errors_and_latencies() {
        let mut totals = totals(10);
        totals.add(&crate::postgres::example::stored(Duration::ZERO));
        let shown = totals.shown();
        let of = |word: &str| {
            let is_of = |shown: &&Shown| {
                shown
                    .text
                    .as_deref()
                    .is_some_and(|text| text.starts_with(word))
            };
            &shown.iter().find(is_of).unwrap().sums
        };
        assert_eq!(of("INSERT").errors, [("23".to_owned(), 1)].into());
        let select = of("SELECT");
        assert_eq!((select.calls, select.rows), (3, 9));
        assert_eq!(
            (select.latencies.calls(), select.latencies.sum_ns),
            (3, 60_000_000)
        );
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), TEXT_MAX + 1);
    }
}
