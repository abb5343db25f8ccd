//! speedscope: its own file format, one sampled profile for each thread.
//!
//! Samples come in the order of time where the recording kept it, else in the order of stacks.
//! Weights are nanoseconds where the rate is known, else samples. The account rides along under a
//! key of its own, which speedscope's schema leaves open; the main facts are in the file's name.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{OutputError, frame_class::FrameClass, provenance};
use crate::{
    printable::compact_json,
    profile::{Frame, FrameKind, Profile, StackId, ThreadId},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: String,
    name: &'a str,
    active_profile_index: usize,
    shared: Shared<'a>,
    profiles: Vec<Sampled>,
    #[serde(rename = "profiler:account")]
    account: Vec<String>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<SharedFrame<'a>>,
}

#[derive(Serialize)]
struct SharedFrame<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// The profile as a file.
pub(super) fn render(profile: &Profile) -> Result<Vec<u8>, OutputError> {
    let mut frames = Frames::default();
    let locations: Vec<Vec<usize>> = profile
        .locations
        .iter()
        .map(|location| {
            location
                .frames
                .iter()
                .rev()
                .map(|frame| frames.index(location.kind, frame))
                .collect()
        })
        .collect();
    let mut threads: Vec<(ThreadId, Vec<(StackId, u64)>)> =
        by_thread(profile).into_iter().collect();
    // The busiest thread first: it is the one that opens.
    threads.sort_by_key(|(thread, samples)| (std::cmp::Reverse(sum(samples)), *thread));
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: format!("profiler {}", env!("CARGO_PKG_VERSION")),
        name: &profile.meta.title,
        active_profile_index: 0,
        shared: Shared {
            frames: frames.list,
        },
        profiles: threads
            .iter()
            .map(|(thread, samples)| sampled(profile, *thread, samples, &locations))
            .collect(),
        account: provenance::lines(profile),
    };
    Ok(compact_json(&file)?)
}

/// Frames without repetition, in the order of their first use.
#[derive(Default)]
struct Frames<'a> {
    list: Vec<SharedFrame<'a>>,
    places: FxHashMap<(String, Option<&'a str>, Option<u32>), usize>,
}

impl<'a> Frames<'a> {
    fn index(&mut self, kind: FrameKind, frame: &'a Frame) -> usize {
        let name = match kind {
            FrameKind::Marker => FrameClass::Marker.mark(&frame.name),
            FrameKind::Kernel => format!("{} [kernel]", frame.name),
            FrameKind::Jit => format!("{} [JIT]", frame.name),
            FrameKind::Native | FrameKind::Python => frame.name.clone(),
        };
        let (file, line) = (frame.file.as_deref(), frame.line);
        let list = &mut self.list;
        *self
            .places
            .entry((name.clone(), file, line))
            .or_insert_with(|| {
                list.push(SharedFrame { name, file, line });
                list.len() - 1
            })
    }
}

/// Each thread's samples: in the order of time, equal neighbours joined, or else by stack.
fn by_thread(profile: &Profile) -> BTreeMap<ThreadId, Vec<(StackId, u64)>> {
    let mut threads: BTreeMap<ThreadId, Vec<(StackId, u64)>> = BTreeMap::new();
    for tick in &profile.timeline {
        let samples = threads.entry(tick.thread).or_default();
        match samples.last_mut() {
            Some((stack, count)) if *stack == tick.stack => *count += 1,
            _ => samples.push((tick.stack, 1)),
        }
    }
    if profile.timeline.is_empty() {
        for sample in &profile.samples {
            threads
                .entry(sample.thread)
                .or_default()
                .push((sample.stack, sample.count));
        }
    }
    threads
}

fn sampled(
    profile: &Profile,
    id: ThreadId,
    samples: &[(StackId, u64)],
    locations: &[Vec<usize>],
) -> Sampled {
    let period = profile.meta.period_ns();
    let (unit, weight) = if period > 0 {
        ("nanoseconds", period)
    } else {
        ("none", 1)
    };
    let weights: Vec<u64> = samples
        .iter()
        .map(|(_, count)| count.saturating_mul(weight))
        .collect();
    let stack = |id: StackId| {
        let stack = profile.stacks[id.index()].locations.iter().rev();
        stack
            .flat_map(|location| locations[location.index()].iter().copied())
            .collect()
    };
    Sampled {
        r#type: "sampled",
        name: thread_name(profile, id),
        unit,
        start_value: 0,
        end_value: weights
            .iter()
            .fold(0, |sum, weight| sum.saturating_add(*weight)),
        samples: samples.iter().map(|(id, _)| stack(*id)).collect(),
        weights,
    }
}

/// Process, thread and their ids, as far as they are known and differ.
fn thread_name(profile: &Profile, id: ThreadId) -> String {
    let thread = profile.thread(id);
    let process = profile.process_of(id);
    let named = |name: &str, id: u32| {
        if id > 0 {
            format!("{name} ({id})")
        } else {
            name.to_owned()
        }
    };
    let process_text = named(&process.comm, process.pid);
    if (thread.tid, &thread.name) == (process.pid, &process.comm) || thread.name.is_empty() {
        return process_text;
    }
    format!("{process_text} / {}", named(&thread.name, thread.tid))
}

fn sum(samples: &[(StackId, u64)]) -> u64 {
    samples.iter().map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::{
        output::{Format, Options, example, render},
        profile::{Profile, StackId, ThreadId, Tick},
    };

    fn file(profile: &Profile) -> Value {
        serde_json::from_slice(&render(profile, Format::Speedscope, &Options::default()).unwrap())
            .unwrap()
    }

    /// Names of the frames of a profile's sample, root first.
    fn stack(file: &Value, profile: usize, sample: usize) -> Vec<&str> {
        let frames = file["profiles"][profile]["samples"][sample]
            .as_array()
            .unwrap()
            .iter();
        let index = |frame: &Value| usize::try_from(frame.as_u64().unwrap()).unwrap();
        frames
            .map(|frame| {
                file["shared"]["frames"][index(frame)]["name"]
                    .as_str()
                    .unwrap()
            })
            .collect()
    }

    /// One profile a thread, the busiest first, stacks from the root, weights in nanoseconds.
    #[test]
    fn each_thread_is_a_profile() {
        let file = file(&example::profile());
        assert_eq!(file["profiles"][0]["name"], "worker (4711)");
        assert_eq!(file["profiles"][1]["name"], "worker (4711) / pool 2 (4712)");
        assert_eq!(file["profiles"][0]["weights"][0], 60 * 10_101_010_u64);
        assert_eq!(file["profiles"][0]["endValue"], 91 * 10_101_010_u64);
        assert_eq!(stack(&file, 0, 0), ["main", "leaf"]);
        let inlined = [
            "main",
            "Vec<u8>::push",
            "grow",
            "do_syscall_64 [kernel]",
            "copy_page [kernel]",
        ];
        assert_eq!(stack(&file, 0, 1), inlined);
    }

    /// Where the order of samples is known it is kept.
    #[test]
    fn timeline_gives_the_order() {
        let mut profile = example::profile();
        let tick = |time_ns, stack| Tick {
            time_ns,
            cpu: 0,
            thread: ThreadId(0),
            stack: StackId(stack),
        };
        profile.timeline = vec![tick(1, 1), tick(2, 0), tick(3, 0), tick(4, 1)];
        let file = file(&profile);
        let period = 10_101_010_u64;
        assert_eq!(
            file["profiles"][0]["weights"],
            serde_json::json!([period, 2 * period, period])
        );
        assert_eq!(stack(&file, 0, 1), ["main", "leaf"]);
    }

    /// Without a rate the unit is samples.
    #[test]
    fn unknown_rate_counts_samples() {
        let mut profile = example::profile();
        profile.meta.frequency_hz = 0;
        let file = file(&profile);
        assert_eq!(file["profiles"][0]["unit"], "none");
        assert_eq!(file["profiles"][0]["endValue"], 91);
    }

    /// The account is in the file.
    #[test]
    fn account_rides_along() {
        let file = file(&example::profile());
        let account = file["profiler:account"].as_array().unwrap();
        assert!(account.contains(&Value::from("lost, ring buffer full: 3 samples")));
    }
}
