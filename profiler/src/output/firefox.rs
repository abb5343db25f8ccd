//! Firefox Profiler: its processed profile format, written by `fxprof-processed-profile`.
//!
//! Names are already known, so frames are labels; their category is the kind of code and their
//! subcategory the module. With a timeline every sample stands at its time; without one a thread's
//! samples are spread evenly over the recording, and the profile says so. The account is in the
//! profile's extra information, which the page shows.

use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, CategoryPairHandle, CpuDelta, Frame as Label, FrameFlags,
    FrameInfo, Profile as Processed, ReferenceTimestamp, SamplingInterval, StackHandle,
    ThreadHandle, Timestamp,
};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::{Lines, OutputError, folded::python_text, frame_class::FrameClass, provenance};
use crate::{
    printable::compact_json,
    profile::{FrameKind, Location, ModuleId, Profile, StackId, ThreadId},
};

/// Most modules that get a subcategory of their own; the format counts them in 16 bits.
const SUBCATEGORIES_MAX: usize = 1 << 14;

/// The profile as a file, not compressed.
pub(super) fn render(profile: &Profile) -> Result<Vec<u8>, OutputError> {
    let processed = Converter::new(profile).convert();
    let mut file = serde_json::to_value(&processed)?;
    file["meta"]["extra"] = extra(profile);
    file["meta"]["arguments"] = Value::from(profile.meta.command_line.as_str());
    Ok(compact_json(&file)?)
}

/// The account as a section of the page's profile information.
fn extra(profile: &Profile) -> Value {
    let mut lines = provenance::lines(profile);
    if profile.timeline.is_empty() {
        lines.push("times: not recorded, samples are spread evenly over the recording".to_owned());
    }
    let entries: Vec<Value> = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(label, value)| json!({ "label": label, "format": "string", "value": value }))
        .collect();
    json!([{ "label": "Recording", "entries": entries }])
}

struct Converter<'a> {
    profile: &'a Profile,
    processed: Processed,
    categories: [(FrameKind, CategoryHandle); 5],
    subcategories: FxHashMap<(FrameKind, ModuleId), CategoryPairHandle>,
    threads: Vec<ThreadHandle>,
    stacks: FxHashMap<(ThreadId, StackId), Option<StackHandle>>,
}

impl<'a> Converter<'a> {
    fn new(profile: &'a Profile) -> Self {
        let meta = &profile.meta;
        let reference = ReferenceTimestamp::from_duration_since_unix_epoch(meta.started);
        let interval = SamplingInterval::from_nanos(meta.period_ns().max(1));
        let title = if meta.title.is_empty() {
            "profiler"
        } else {
            &meta.title
        };
        let mut processed = Processed::new(title, reference, interval);
        processed.set_os_name("Linux");
        processed.set_symbolicated(true);
        let mut category = |kind, color| {
            let (class, _) = FrameClass::of_kind(kind);
            (kind, processed.add_category(class.word(), color))
        };
        let categories = [
            category(FrameKind::Native, CategoryColor::Orange),
            category(FrameKind::Kernel, CategoryColor::Blue),
            category(FrameKind::Jit, CategoryColor::Green),
            category(FrameKind::Python, CategoryColor::Yellow),
            category(FrameKind::Marker, CategoryColor::Gray),
        ];
        let (subcategories, stacks) = (FxHashMap::default(), FxHashMap::default());
        Self {
            profile,
            processed,
            categories,
            subcategories,
            threads: Vec::new(),
            stacks,
        }
    }

    fn convert(mut self) -> Processed {
        self.add_threads();
        if self.profile.timeline.is_empty() {
            self.spread_samples();
        } else {
            self.place_samples();
        }
        self.processed
    }

    fn add_threads(&mut self) {
        let start = Timestamp::from_nanos_since_reference(0);
        let processes: Vec<_> = self
            .profile
            .processes
            .iter()
            .map(|process| {
                self.processed
                    .add_process(&process.comm, process.pid, start)
            })
            .collect();
        for thread in &self.profile.threads {
            let process = processes[thread.process.index()];
            let is_main = thread.tid == self.profile.processes[thread.process.index()].pid;
            let handle = self
                .processed
                .add_thread(process, thread.tid, start, is_main);
            self.processed.set_thread_name(handle, &thread.name);
            self.threads.push(handle);
        }
    }

    /// Every sample at its time.
    fn place_samples(&mut self) {
        let profile = self.profile;
        for tick in &profile.timeline {
            let since_start = tick.time_ns.saturating_sub(profile.meta.started_mono_ns);
            self.add(tick.thread, tick.stack, since_start, 1);
        }
    }

    /// Each thread's samples one after the other, so that they fill the recording.
    fn spread_samples(&mut self) {
        let profile = self.profile;
        let mut totals = vec![0_u64; profile.threads.len()];
        for sample in &profile.samples {
            totals[sample.thread.index()] += sample.count;
        }
        let mut passed = vec![0_u64; profile.threads.len()];
        for sample in &profile.samples {
            let thread = sample.thread.index();
            let at = profile.meta.duration.as_nanos() * u128::from(passed[thread])
                / u128::from(totals[thread].max(1));
            self.add(
                sample.thread,
                sample.stack,
                u64::try_from(at).unwrap_or(u64::MAX),
                sample.count,
            );
            passed[thread] += sample.count;
        }
    }

    fn add(&mut self, thread: ThreadId, stack: StackId, since_start_ns: u64, count: u64) {
        let handle = self.stack(thread, stack);
        let time = Timestamp::from_nanos_since_reference(since_start_ns);
        // Time off the CPU is none on it.
        let period = if self.profile.meta.event.is_time() {
            0
        } else {
            self.profile.meta.period_ns()
        };
        let mut left = count;
        // A weight has 31 bits: more samples than that of one stack take several entries.
        while left > 0 {
            let weight = i32::try_from(left).unwrap_or(i32::MAX);
            let part = u64::from(weight.unsigned_abs());
            let cpu = CpuDelta::from_nanos(period.saturating_mul(part));
            self.processed
                .add_sample(self.threads[thread.index()], time, handle, cpu, weight);
            left -= part;
        }
    }

    fn stack(&mut self, thread: ThreadId, stack: StackId) -> Option<StackHandle> {
        if let Some(handle) = self.stacks.get(&(thread, stack)) {
            return *handle;
        }
        let profile = self.profile;
        let mut frames = Vec::new();
        for id in profile.stacks[stack.index()].locations.iter().rev() {
            let location = profile.location(*id);
            let category_pair = self.category(location);
            for frame in location.frames.iter().rev() {
                let name = match location.kind {
                    FrameKind::Marker => FrameClass::Marker.mark(&frame.name),
                    FrameKind::Python => python_text(frame, Lines::Line),
                    FrameKind::Kernel | FrameKind::Native | FrameKind::Jit => frame.name.clone(),
                };
                let label = Label::Label(self.processed.intern_string(&name));
                frames.push(FrameInfo {
                    frame: label,
                    category_pair,
                    flags: FrameFlags::empty(),
                });
            }
        }
        let handle = self
            .processed
            .intern_stack_frames(self.threads[thread.index()], frames.into_iter());
        self.stacks.insert((thread, stack), handle);
        handle
    }

    fn category(&mut self, location: &Location) -> CategoryPairHandle {
        let mut categories = self.categories.iter();
        let category = categories
            .find(|(kind, _)| *kind == location.kind)
            .map_or(CategoryHandle::OTHER, |(_, category)| *category);
        let Some(id) = location.module else {
            return category.into();
        };
        let full = self.subcategories.len() >= SUBCATEGORIES_MAX;
        match self.subcategories.get(&(location.kind, id)) {
            Some(pair) => *pair,
            None if full => category.into(),
            None => {
                let name = self.profile.modules[id.index()].name();
                let pair = self.processed.add_subcategory(category, name);
                self.subcategories.insert((location.kind, id), pair);
                pair
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::Value;

    use crate::{
        output::{Format, Options, Packing, example, render},
        profile::{Profile, StackId, ThreadId, Tick},
    };

    fn file(profile: &Profile) -> Value {
        serde_json::from_slice(&render(profile, Format::Firefox, &Options::default()).unwrap())
            .unwrap()
    }

    fn entries(file: &Value) -> String {
        file["meta"]["extra"].to_string()
    }

    /// Every sample is in the file with its weight, and the file says that times are made up.
    #[test]
    fn samples_are_spread_where_times_are_not_known() {
        let file = file(&example::profile());
        let weights = |thread: &Value| -> i64 {
            thread["samples"]["weight"]
                .as_array()
                .unwrap()
                .iter()
                .map(|weight| weight.as_i64().unwrap())
                .sum()
        };
        let threads = file["threads"].as_array().unwrap();
        assert_eq!(threads.iter().map(weights).sum::<i64>(), 100);
        assert!(
            entries(&file).contains("spread evenly"),
            "{}",
            entries(&file)
        );
        assert!(
            entries(&file).contains("ring buffer full"),
            "{}",
            entries(&file)
        );
    }

    /// With a timeline each sample stands at its time after the start.
    #[test]
    fn samples_stand_at_their_times() {
        let mut profile = example::profile();
        let tick = |time_ns, stack| Tick {
            time_ns,
            cpu: 0,
            thread: ThreadId(0),
            stack: StackId(stack),
        };
        profile.timeline = vec![tick(5_010_000_000, 0), tick(5_030_000_000, 1)];
        let file = file(&profile);
        let threads = file["threads"].as_array().unwrap();
        let main = threads
            .iter()
            .find(|thread| thread["tid"] == "4711")
            .unwrap();
        assert_eq!(main["samples"]["length"], 2);
        assert_eq!(
            main["samples"]["timeDeltas"],
            serde_json::json!([10.0, 20.0])
        );
        assert!(!entries(&file).contains("spread evenly"));
    }

    /// The compressed form holds the same file.
    #[test]
    fn compressed_file_is_the_same() {
        let options = Options {
            packing: Packing::Gzip,
            ..Options::default()
        };
        let packed = render(&example::profile(), Format::Firefox, &options).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            file(&example::profile())
        );
    }
}
