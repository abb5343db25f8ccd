//! The page: who used the CPU in a span of time, what was lost, and how the daemon itself fares. Pure.

use std::fmt::Write;

use askama::Template;

use super::{
    history::Sum,
    own::Own,
    query::{Asked, Query},
};
use crate::{
    daemon::status::{Snapshot, State},
    export::{Health, Target},
    output::figures::{bytes, grouped, percent},
    printable::lines,
    store::{Sampled, instant_text},
};

/// Ranges that are a click away: name and `since`.
const RANGES: [(&str, &str); 4] = [
    ("5 minutes", "5m"),
    ("1 hour", "1h"),
    ("24 hours", "24h"),
    ("7 days", "7d"),
];
/// Most rows of a table; the rest is one row.
const ROWS_MAX: usize = 200;

/// What the page shows.
#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct Page<'a> {
    pub(super) query: &'a Query,
    ranges: Vec<Range>,
    begin: String,
    end: String,
    rows: Vec<Row>,
    further: Option<String>,
    facts: Vec<Fact>,
    capabilities: Vec<Capability>,
    own: Vec<Fact>,
    exports: Vec<Fact>,
    trouble: Vec<String>,
    has_samples: bool,
    picture: String,
    modes: Vec<Mode>,
    words: Words,
}

/// A link to what else was sampled.
struct Mode {
    name: &'static str,
    text: &'static str,
    is_current: bool,
}

/// What the page's headings say of what was sampled.
struct Words {
    heading: &'static str,
    counts: &'static str,
    time: &'static str,
}

fn words(sampled: Sampled) -> Words {
    let (heading, counts, time) = match sampled {
        Sampled::Cpu => ("Where the CPU time went", "samples", "CPU time"),
        Sampled::OffCpu => ("Where threads waited", "microseconds", "time off the CPU"),
        Sampled::Wall => ("Where threads spent their time", "microseconds", "time"),
    };
    Words {
        heading,
        counts,
        time,
    }
}

/// Those that there are windows of, and the one that is shown, where that is more than one.
fn modes(sum: &Sum) -> Vec<Mode> {
    let is_there = |sampled: &Sampled| sum.there.contains(sampled) || *sampled == sum.sampled;
    let all = Sampled::ALL
        .into_iter()
        .filter(is_there)
        .map(|sampled| Mode {
            name: sampled.name(),
            text: match sampled {
                Sampled::Cpu => "on the CPU",
                Sampled::OffCpu => "off the CPU (waits)",
                Sampled::Wall => "all time",
            },
            is_current: sampled == sum.sampled,
        });
    let modes: Vec<Mode> = all.collect();
    if modes.len() > 1 { modes } else { Vec::new() }
}

struct Range {
    name: &'static str,
    since: &'static str,
    is_current: bool,
}

struct Row {
    service: String,
    is_unit: bool,
    comm: String,
    samples: u64,
    samples_text: String,
    cpu_ns: u64,
    cpu: String,
    share: String,
    /// Per thousand, for a bar.
    mille: u64,
}

struct Fact {
    name: String,
    value: String,
    is_bad: bool,
}

struct Capability {
    name: &'static str,
    state: &'static str,
    text: String,
}

/// How the daemon fares.
pub(super) struct Now<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) exports: &'a [(Target, Health)],
    pub(super) own: Own,
    pub(super) trouble: Vec<String>,
}

/// A page as it is sent. The template escapes markup; what is not printable in a name is escaped here.
pub(super) fn rendered(page: &impl Template) -> askama::Result<String> {
    Ok(lines(&page.render()?).into_owned())
}

impl<'a> Page<'a> {
    pub(super) fn of(query: &'a Query, asked: &Asked, sum: &Sum, now: Now<'_>) -> Self {
        let total = sum.summary.shown;
        let mut groups: Vec<_> = sum.summary.groups.iter().collect();
        groups.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
        let rows = groups
            .iter()
            .take(ROWS_MAX)
            .map(|(group, (samples, cpu_ns))| Row {
                service: group.service.clone(),
                is_unit: group.is_unit(),
                comm: group.comm.clone(),
                samples: *samples,
                samples_text: grouped(*samples),
                cpu_ns: *cpu_ns,
                cpu: seconds(*cpu_ns),
                share: percent(*samples, total),
                mille: (samples * 1000).checked_div(total).unwrap_or(0),
            });
        let further = groups.len().saturating_sub(ROWS_MAX);
        let rest = groups.iter().skip(ROWS_MAX);
        let rest: u64 = rest.map(|(_, (samples, _))| *samples).sum();
        let begin = instant_text(asked.span.begin_ms);
        let end = instant_text(asked.span.end_ms);
        Self {
            ranges: ranges(query),
            rows: rows.collect(),
            further: (further > 0)
                .then(|| format!("{further} further, {} together", percent(rest, total))),
            facts: facts(sum),
            capabilities: capabilities(now.snapshot),
            own: own(&now),
            exports: exports(now.exports),
            trouble: now.trouble,
            has_samples: total > 0,
            picture: picture(query, sum.sampled, &begin, &end),
            modes: modes(sum),
            words: words(sum.sampled),
            begin,
            end,
            query,
        }
    }
}

fn ranges(query: &Query) -> Vec<Range> {
    let is_current = |since| query.until.trim().is_empty() && query.since() == since;
    let range = |(name, since)| Range {
        name,
        since,
        is_current: is_current(since),
    };
    RANGES.into_iter().map(range).collect()
}

/// The address of the flamegraph: of the very same time as the table.
fn picture(query: &Query, sampled: Sampled, begin: &str, end: &str) -> String {
    let mut parameters = vec![("since", begin), ("until", end)];
    let filters = [
        ("comm", query.comm.trim()),
        ("pid", query.pid.trim()),
        ("unit", query.unit.trim()),
    ];
    if sampled != Sampled::Cpu {
        parameters.push(("mode", sampled.name()));
    }
    parameters.extend(filters.into_iter().filter(|(_, value)| !value.is_empty()));
    let mut address = "/flamegraph.svg?".to_owned();
    for (name, value) in parameters {
        if !address.ends_with('?') {
            address.push('&');
        }
        address.push_str(name);
        address.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                address.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(address, "%{byte:02X}");
            }
        }
    }
    address
}

fn fact(name: impl Into<String>, value: impl Into<String>) -> Fact {
    Fact {
        name: name.into(),
        value: value.into(),
        is_bad: false,
    }
}

fn bad(name: impl Into<String>, value: impl Into<String>) -> Fact {
    Fact {
        is_bad: true,
        ..fact(name, value)
    }
}

/// What became of the samples of the span.
fn facts(sum: &Sum) -> Vec<Fact> {
    let summary = &sum.summary;
    let (shown, taken) = match sum.sampled {
        Sampled::Cpu => ("shown", "taken, of all targets"),
        // Time is shown, samples and spans are counted.
        Sampled::OffCpu | Sampled::Wall => (
            "microseconds shown",
            "samples and spans taken, of all targets",
        ),
    };
    let mut facts = vec![
        fact(shown, grouped(summary.shown)),
        fact(taken, grouped(summary.taken)),
        fact("windows", grouped(sum.windows as u64)),
    ];
    let lost = summary.lost.iter().filter(|(_, count)| **count > 0);
    let before = facts.len();
    for (cause, count) in lost {
        let value = format!("{} ({})", grouped(*count), percent(*count, summary.taken));
        facts.push(bad(format!("lost: {cause}"), value));
    }
    if facts.len() == before {
        facts.push(fact("lost", "none"));
    }
    let counts = [
        ("windows that could not be read", sum.unreadable),
        (
            "windows for which there was no time: reload to go on",
            sum.unread,
        ),
    ];
    for (name, count) in counts {
        if count > 0 {
            facts.push(bad(name, grouped(count as u64)));
        }
    }
    for gap in sum.gaps.iter().take(5) {
        let (begin, end) = (instant_text(gap.begin_ms), instant_text(gap.end_ms));
        facts.push(bad("no window", format!("{begin} to {end}")));
    }
    if let Some(more @ 1..) = sum.gaps.len().checked_sub(5) {
        facts.push(bad("no window", format!("{more} further gaps")));
    }
    facts
}

fn capabilities(snapshot: &Snapshot) -> Vec<Capability> {
    let kept = snapshot.capabilities.iter().map(|(capability, state)| {
        let (state, text) = match state {
            State::On(what) => ("on", what.clone()),
            State::Off => ("off", "as configured".to_owned()),
            State::Shed => (
                "shed",
                "by the CPU budget, until there is room again".to_owned(),
            ),
            State::Failed(why) => ("failed", format!("tried again: {why}")),
        };
        Capability {
            name: capability.name(),
            state,
            text,
        }
    });
    kept.collect()
}

fn own(now: &Now<'_>) -> Vec<Fact> {
    let snapshot = now.snapshot;
    let windows = &snapshot.windows;
    let mut facts = vec![
        fact("CPU of the last seconds, of all CPUs", snapshot.own_cpu()),
        fact(
            "CPU time of the process",
            format!("{:.1} s", now.own.cpu.as_secs_f64()),
        ),
        fact(
            "CPU time in BPF programs",
            format!("{:.1} s", snapshot.bpf.as_secs_f64()),
        ),
        fact(
            "memory",
            now.own
                .resident_bytes
                .map_or_else(|| "not known".to_owned(), bytes),
        ),
        fact(
            "windows in the store",
            format!("{} in {}", grouped(windows.kept), bytes(windows.kept_bytes)),
        ),
        fact("windows written since the start", grouped(windows.written)),
    ];
    for (cause, count) in &windows.lost {
        facts.push(bad(
            format!("windows lost: {}", cause.text()),
            grouped(*count),
        ));
    }
    facts.extend(
        snapshot
            .cut
            .iter()
            .map(|cut| bad("over the CPU budget", cut.as_str())),
    );
    let refused = snapshot.refused.iter();
    facts.extend(refused.map(|why| bad("new configuration refused", why.as_str())));
    facts
}

fn exports(exports: &[(Target, Health)]) -> Vec<Fact> {
    let one = |(target, health): &(Target, Health)| {
        let mut parts = vec![format!("{} windows sent", grouped(health.sent))];
        if health.waiting > 0 {
            parts.push(format!(
                "{} wait ({})",
                health.waiting,
                bytes(health.waiting_bytes)
            ));
        }
        for (cause, count) in &health.dropped {
            parts.push(format!("{count} dropped: {}", cause.text()));
        }
        parts.extend(health.trouble.clone());
        Fact {
            name: format!(
                "{} to {} {}",
                health.signal.name(),
                target.kind.name(),
                target.url
            ),
            value: parts.join("; "),
            is_bad: health.trouble.is_some() || !health.dropped.is_empty(),
        }
    };
    exports.iter().map(one).collect()
}

/// Three digits and a unit are enough for a table; the sorting has the number.
fn seconds(ns: u64) -> String {
    let ms = ns / 1_000_000;
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::{
        Asked, Now, Own, Page, Query, Sampled, Snapshot, State, Sum, capabilities, picture,
        rendered,
    };
    use crate::{
        printable::tests::{HOSTILE, is_safe},
        report::Wanted,
        store::{Capability, Span},
    };

    fn html(query: &Query, sum: &Sum) -> String {
        let asked = Asked {
            span: Span {
                begin_ms: 0,
                end_ms: 1000,
            },
            wanted: Wanted::default(),
            sampled: None,
        };
        let snapshot = Snapshot::default();
        let now = Now {
            snapshot: &snapshot,
            exports: &[],
            own: Own::default(),
            trouble: Vec::new(),
        };
        rendered(&Page::of(query, &asked, sum, now)).unwrap()
    }

    /// What users and programs are called is text, never markup.
    #[test]
    fn names_are_escaped() {
        let evil = "\"><script>alert(1)</script>";
        let query = Query {
            comm: evil.to_owned(),
            ..Query::default()
        };
        let page = html(&query, &Sum::default());
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("#60;script") || page.contains("&lt;script"));
    }

    /// What controls a terminal or turns text around is shown as its escape.
    #[test]
    fn names_are_printable() {
        let query = Query {
            comm: HOSTILE.to_owned(),
            ..Query::default()
        };
        let page = html(&query, &Sum::default());
        assert!(is_safe(&page), "{page:?}");
        assert!(page.contains("\\u{202e}cmd|"), "{page}");
    }

    /// The page has no code and no style of its own, and names nothing elsewhere.
    #[test]
    fn page_keeps_its_policy() {
        let page = html(&Query::default(), &Sum::default());
        for forbidden in [
            "<style",
            " style=",
            " onclick",
            " onload",
            "http://",
            "https://",
            "javascript:",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script src=\"/").count()
        );
    }

    /// What the budget has shed is not shown as what nobody wants.
    #[test]
    fn shed_is_not_off() {
        let mut snapshot = Snapshot::default();
        snapshot.capabilities.extend([
            (Capability::Queries, State::Off),
            (Capability::Tcp, State::Shed),
        ]);
        let shown = capabilities(&snapshot);
        let shown: Vec<_> = shown.iter().map(|one| (one.state, &*one.text)).collect();
        let shed = ("shed", "by the CPU budget, until there is room again");
        assert_eq!(shown, [("off", "as configured"), shed]);
    }

    /// Where waits were kept too the page leads to them, and says what it shows.
    #[test]
    fn waits_are_a_click_away() {
        let mut sum = Sum {
            there: vec![Sampled::Cpu, Sampled::OffCpu],
            ..Sum::default()
        };
        sum.summary.shown = 1;
        let page = html(&Query::default(), &sum);
        assert!(
            page.contains("mode=off-cpu") && page.contains("Where the CPU time went"),
            "{page}"
        );
        sum.sampled = Sampled::OffCpu;
        let page = html(&Query::default(), &sum);
        assert!(page.contains("Where threads waited"), "{page}");
        assert!(page.contains("/flamegraph.svg?") && page.contains("mode=off-cpu"));
        sum.there.clear();
        sum.sampled = Sampled::Cpu;
        assert!(
            !html(&Query::default(), &sum).contains("mode="),
            "nothing else is there"
        );
    }

    /// The picture is of the same time, whatever else is asked for.
    #[test]
    fn picture_is_of_the_same_time() {
        let query = Query {
            unit: "a&b=c".to_owned(),
            ..Query::default()
        };
        assert_eq!(
            picture(&query, Sampled::Cpu, "1970-01-01T00:00:00Z", "x"),
            "/flamegraph.svg?since=1970-01-01T00%3A00%3A00Z&until=x&unit=a%26b%3Dc"
        );
    }
}
