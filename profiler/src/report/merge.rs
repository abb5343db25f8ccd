//! Several recordings as one profile.
//!
//! Equal processes, threads and stacks become one, samples and accounts add up. The descriptions
//! are joined as far as they agree. Times of different recordings have no common axis, so there is
//! no timeline afterwards.

use super::{DIFFERENT_RATES, NO_ACCOUNT, builder::Builder};
use crate::profile::{Account, Location, LocationId, Meta, ModuleId, Profile, ThreadId};

/// Most titles or command lines that are named one by one.
const NAMED_MAX: usize = 3;

/// The samples of all profiles together; of none, an empty profile.
pub fn merge(mut profiles: Vec<Profile>) -> Profile {
    if profiles.len() == 1 {
        return profiles.pop().unwrap_or_default();
    }
    let mut merger = Merger::default();
    for profile in profiles {
        merger.add(profile);
    }
    merger.finish()
}

/// A merge of many profiles, each of which need not be kept.
#[derive(Default)]
pub(crate) struct Merger {
    builder: Builder,
    parts: Vec<Part>,
}

/// What is kept of one.
struct Part {
    meta: Meta,
    account: Account,
    shown: u64,
}

impl Merger {
    pub(crate) fn add(&mut self, profile: Profile) {
        add(&mut self.builder, &profile);
        let shown = if profile.meta.event.is_time() {
            profile.account.shown
        } else {
            profile.total()
        };
        self.parts.push(Part {
            meta: profile.meta,
            account: profile.account,
            shown,
        });
    }

    pub(crate) fn finish(self) -> Profile {
        let mut merged = self.builder.finish();
        merged.meta = describe(&self.parts);
        merged.account = add_accounts(&self.parts);
        merged
    }
}

fn add(builder: &mut Builder, profile: &Profile) {
    let modules: Vec<ModuleId> = profile
        .modules
        .iter()
        .map(|module| builder.module(module.clone()))
        .collect();
    let locations: Vec<LocationId> = profile
        .locations
        .iter()
        .map(|location| {
            let module = location.module.map(|id| modules[id.index()]);
            builder.location(Location {
                module,
                ..location.clone()
            })
        })
        .collect();
    let threads: Vec<ThreadId> = profile
        .threads
        .iter()
        .map(|thread| {
            let process = builder.process(profile.processes[thread.process.index()].clone());
            builder.thread(crate::profile::Thread {
                process,
                ..thread.clone()
            })
        })
        .collect();
    for sample in &profile.samples {
        let stack = &profile.stacks[sample.stack.index()];
        let stack = builder.stack(
            stack
                .locations
                .iter()
                .map(|id| locations[id.index()])
                .collect(),
        );
        builder.sample(
            threads[sample.thread.index()],
            stack,
            (sample.gil, sample.count),
        );
    }
}

fn describe(parts: &[Part]) -> Meta {
    let metas = || parts.iter().map(|part| &part.meta);
    let rate = |meta: &Meta| (meta.event, meta.frequency_hz);
    let first = metas().next().cloned().unwrap_or_default();
    let frequency_hz = if metas().all(|meta| rate(meta) == rate(&first)) {
        first.frequency_hz
    } else {
        0
    };
    Meta {
        title: join(metas().map(|meta| meta.title.as_str()), " + "),
        command_line: join(metas().map(|meta| meta.command_line.as_str()), "; "),
        event: first.event,
        frequency_hz,
        started: metas()
            .map(|meta| meta.started)
            .filter(|time| !time.is_zero())
            .min()
            .unwrap_or_default(),
        started_mono_ns: 0,
        duration: metas().map(|meta| meta.duration).sum(),
    }
}

/// The distinct texts, the first few by name and the rest by number.
fn join<'a>(texts: impl Iterator<Item = &'a str>, between: &str) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for text in texts.filter(|text| !text.is_empty()) {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    let named = distinct
        .iter()
        .take(NAMED_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(between);
    match distinct.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named}{between}{more} more"),
    }
}

fn add_accounts(parts: &[Part]) -> Account {
    let any_known = parts.iter().any(|part| part.account.is_known());
    let mut sum = Account::default();
    for Part { account, shown, .. } in parts {
        let Account {
            taken,
            shown: _,
            lost,
            stacks,
            notes,
            threads,
            cost,
        } = account;
        sum.shown += shown;
        sum.taken += taken;
        if any_known && !account.is_known() && *shown > 0 {
            // What such a file shows was taken; whether more was is not known, and is said.
            sum.taken += shown;
            *sum.notes.entry(NO_ACCOUNT.into()).or_default() += 1;
        }
        for (cause, count) in lost {
            *sum.lost.entry(*cause).or_default() += count;
        }
        for (reason, count) in stacks {
            *sum.stacks.entry(*reason).or_default() += count;
        }
        for (note, count) in notes {
            *sum.notes.entry(note.clone()).or_default() += count;
        }
        for (part, time) in threads {
            *sum.threads.entry(*part).or_default() += *time;
        }
        sum.cost.bpf += cost.bpf;
        sum.cost.process += cost.process;
    }
    let rate = |part: &Part| (part.meta.event, part.meta.frequency_hz);
    let differing = parts
        .iter()
        .filter(|part| rate(part) != rate(&parts[0]))
        .count();
    if differing > 0 {
        *sum.notes.entry(DIFFERENT_RATES.into()).or_default() += differing as u64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{DIFFERENT_RATES, NO_ACCOUNT, Profile, merge};
    use crate::{
        output::{Options, example, folded},
        report,
    };

    /// Samples of equal stacks add up, and so do the accounts.
    #[test]
    fn merged_profile_is_the_sum() {
        let merged = merge(vec![example::profile(), example::profile()]);
        assert_eq!(merged.total(), 200);
        assert_eq!(merged.samples.len(), example::profile().samples.len());
        assert_eq!(merged.locations, example::profile().locations);
        assert_eq!(merged.account.taken, 208);
        assert_eq!(
            merged.account.taken,
            merged.account.shown + merged.account.lost_total()
        );
        assert_eq!(merged.meta.title, "worker (pid 4711)");
        assert_eq!(merged.meta.duration, 2 * example::profile().meta.duration);
        assert_eq!(merged.meta.frequency_hz, 99);
    }

    /// A file without an account is merged with a note, and the account still adds up.
    #[test]
    fn missing_account_is_noted() {
        let foreign = report::read(b"other;main 5\n").unwrap();
        let merged = merge(vec![example::profile(), foreign]);
        assert_eq!(merged.account.notes[NO_ACCOUNT], 1);
        assert_eq!(merged.account.notes[DIFFERENT_RATES], 1);
        assert_eq!(
            merged.meta.frequency_hz, 0,
            "one sample no longer stands for one time"
        );
        assert_eq!(
            merged.account.taken,
            merged.account.shown + merged.account.lost_total()
        );
        assert!(folded::lines(&merged, &Options::default()).contains(&"other;main 5".to_owned()));
    }

    /// One profile is left as it is, with its timeline; none gives an empty one.
    #[test]
    fn single_profile_is_itself() {
        let one = merge(vec![example::profile()]);
        assert_eq!(one.meta, example::profile().meta);
        assert_eq!(merge(Vec::new()).total(), Profile::default().total());
    }

    /// Many titles are named up to a limit.
    #[test]
    fn titles_are_joined() {
        let titled = |title: &str| {
            let mut profile = example::profile();
            profile.meta.title = title.to_owned();
            profile
        };
        let merged = merge(["a", "b", "a", "c", "d", "e"].map(titled).to_vec());
        assert_eq!(merged.meta.title, "a + b + c + 2 more");
    }
}
