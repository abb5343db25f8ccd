//! pprof read back: names, inlined functions, files and labels, from this profiler or another.
//!
//! The number of samples is taken from a value counted in samples, else from CPU time and period,
//! else from the first value. Kinds of code are not in the format: kernel code is known by its
//! mapping or by its half of the address space, JIT code by its mapping, a marker by its brackets.

use std::time::Duration;

mod message;

use rustc_hash::FxHashMap;

use self::message::Message;
use super::{LONG_TEXT, MALFORMED_SAMPLE, ReadError, SAMPLES_MAX, builder::Builder, provenance};
use crate::profile::Gil;
use crate::{
    output::{
        frame_class::FrameClass,
        pprof::{
            JIT_MAPPING, LABEL_CGROUP, LABEL_COMM, LABEL_GIL, LABEL_PID, LABEL_THREAD, LABEL_TID,
            PYTHON_MAPPING, schema,
        },
    },
    profile::{
        Frame, FrameKind, Location, LocationId, Meta, Module, ModuleId, Process, Profile, Thread,
        ThreadId,
    },
};

/// Most functions of one location.
const INLINED_MAX: usize = 256;

/// The profile in a message. `weight_max` bounds what may become of it.
pub(super) fn read(bytes: &[u8], weight_max: usize) -> Result<Profile, ReadError> {
    let message = Message::read(bytes)?;
    let mut reader = Reader::new(&message, weight_max);
    let mut malformed = 0;
    let mut total = 0;
    for sample in message.samples() {
        let count = sample.as_ref().and_then(|sample| reader.unit.count(sample));
        let count = count.filter(|count| total + count <= SAMPLES_MAX);
        match sample
            .zip(count)
            .and_then(|(sample, count)| reader.sample(&sample, count))
        {
            Some(count) => total += count,
            None => malformed += 1,
        }
        reader.builder.check()?;
    }
    let mut profile = reader.builder.finish();
    let comments: Vec<&str> = message
        .comments
        .iter()
        .map(|comment| message.text(*comment))
        .collect();
    provenance::restore(&mut profile, &comments);
    complete(&mut profile.meta, &message);
    for (note, count) in [(MALFORMED_SAMPLE, malformed), (LONG_TEXT, message.cut)] {
        if count > 0 {
            *profile.account.notes.entry(note.into()).or_default() += count;
        }
    }
    Ok(profile)
}

/// What the message itself says of the recording, where it is more exact than the comments or
/// there are none.
fn complete(meta: &mut Meta, message: &Message<'_>) {
    let time = |nanos: i64| {
        u64::try_from(nanos)
            .ok()
            .filter(|nanos| *nanos > 0)
            .map(Duration::from_nanos)
    };
    meta.started = time(message.time_nanos).unwrap_or(meta.started);
    meta.duration = time(message.duration_nanos).unwrap_or(meta.duration);
    let in_time = message
        .period_type
        .is_some_and(|period| message.text(period.unit) == "nanoseconds");
    let period = u64::try_from(message.period)
        .ok()
        .filter(|period| *period > 0 && in_time);
    if let Some(period) = period
        && meta.frequency_hz == 0
    {
        meta.frequency_hz = (1_000_000_000 + period / 2) / period;
    }
}

/// Which value of a sample says how many samples it stands for.
#[derive(Clone, Copy)]
struct Unit {
    place: usize,
    /// Amount of the value that is one sample.
    divisor: i64,
}

impl Unit {
    fn of(message: &Message<'_>) -> Self {
        let types = || {
            message
                .sample_types
                .iter()
                .map(|value| (message.text(value.r#type), message.text(value.unit)))
        };
        let counted = types()
            .position(|(name, _)| name == "samples")
            .or_else(|| types().position(|(_, unit)| unit == "count"));
        if let Some(place) = counted {
            return Self { place, divisor: 1 };
        }
        let timed = types().position(|(name, unit)| name == "cpu" && unit == "nanoseconds");
        match timed {
            Some(place) if message.period > 0 => Self {
                place,
                divisor: message.period,
            },
            _ => Self {
                place: 0,
                divisor: 1,
            },
        }
    }

    /// How many samples it is, at least one for a value that is not zero.
    fn count(self, sample: &schema::Sample) -> Option<u64> {
        let value = u64::try_from(*sample.value.get(self.place)?).ok()?;
        let divisor = u64::try_from(self.divisor)
            .ok()
            .filter(|divisor| *divisor > 0)?;
        Some(value.div_ceil(divisor))
    }
}

struct Reader<'a> {
    message: &'a Message<'a>,
    unit: Unit,
    builder: Builder,
    /// Locations already turned into ours.
    done: FxHashMap<u64, LocationId>,
}

impl<'a> Reader<'a> {
    fn new(message: &'a Message<'a>, weight_max: usize) -> Self {
        Self {
            message,
            unit: Unit::of(message),
            builder: Builder::bounded(weight_max),
            done: FxHashMap::default(),
        }
    }

    /// Takes a sample in, `None` where it names what is not there. A sample of nothing is left out.
    fn sample(&mut self, sample: &schema::Sample, count: u64) -> Option<u64> {
        if count == 0 {
            return Some(0);
        }
        let mut locations = Vec::with_capacity(sample.location_id.len());
        for id in &sample.location_id {
            locations.push(self.location(*id)?);
        }
        if !self.builder.fits(&locations) {
            return None;
        }
        let thread = self.thread(&sample.label);
        let stack = self.builder.stack(locations);
        let gil = self.gil(&sample.label);
        self.builder.sample(thread, stack, (gil, count));
        Some(count)
    }

    fn gil(&self, labels: &[schema::Label]) -> Gil {
        let label = labels
            .iter()
            .find(|label| self.message.text(label.key) == LABEL_GIL);
        label.map_or(Gil::Unknown, |label| {
            Gil::from_word(self.message.text(label.str))
        })
    }

    fn thread(&mut self, labels: &[schema::Label]) -> ThreadId {
        let message = self.message;
        let find = |key: &str| labels.iter().find(|label| message.text(label.key) == key);
        let number = |key| {
            find(key)
                .and_then(|label| u32::try_from(label.num).ok())
                .unwrap_or(0)
        };
        let name = |key| {
            find(key)
                .map(|label| message.text(label.str))
                .filter(|name| !name.is_empty())
        };
        let comm = name(LABEL_COMM)
            .unwrap_or_else(|| self.main_binary())
            .to_owned();
        let thread = name(LABEL_THREAD).map_or_else(|| comm.clone(), str::to_owned);
        let process = self.builder.process(Process {
            pid: number(LABEL_PID),
            comm,
            cgroup: name(LABEL_CGROUP).unwrap_or_default().to_owned(),
        });
        self.builder.thread(Thread {
            process,
            tid: number(LABEL_TID),
            name: thread,
        })
    }

    /// Name of the first mapping's file, by convention the main binary.
    fn main_binary(&self) -> &'a str {
        let first = self.message.main_mapping;
        let path = first.map_or("", |mapping| self.message.text(mapping.filename));
        path.rsplit('/').next().unwrap_or(path)
    }

    fn location(&mut self, id: u64) -> Option<LocationId> {
        if let Some(done) = self.done.get(&id) {
            return Some(*done);
        }
        let message = self.message;
        let location = message
            .location(id)
            .filter(|location| location.line.len() <= INLINED_MAX)?;
        let mapping = message.mappings.get(&location.mapping_id);
        let mut frames: Vec<Frame> = location
            .line
            .iter()
            .filter_map(|line| self.frame(line))
            .collect();
        if frames.is_empty() {
            frames.push(Frame {
                name: self.address_name(&location, mapping),
                ..Frame::default()
            });
        }
        let path = mapping.map_or("", |mapping| message.text(mapping.filename));
        let kind = kind(location.address, path, &frames);
        // The stand-in for code outside any file is no file.
        let mapping = mapping.filter(|_| !matches!(path, JIT_MAPPING | PYTHON_MAPPING));
        let module = mapping.map(|mapping| self.module(mapping));
        let place = self.builder.location(Location {
            kind,
            module,
            address: location.address,
            frames,
        });
        self.done.insert(id, place);
        (!self.builder.is_full()).then_some(place)
    }

    fn frame(&self, line: &schema::Line) -> Option<Frame> {
        let function = self.message.function(line.function_id)?;
        let known = |index| Some(self.message.text(index)).filter(|text| !text.is_empty());
        let name = known(function.name).or_else(|| known(function.system_name))?;
        Some(Frame {
            name: name.to_owned(),
            system_name: known(function.system_name)
                .filter(|system| *system != name)
                .map(str::to_owned),
            file: known(function.filename).map(str::to_owned),
            line: positive(line.line),
            first_line: positive(function.start_line),
        })
    }

    /// A name for code without one: its place in its file.
    fn address_name(
        &self,
        location: &schema::Location,
        mapping: Option<&schema::Mapping>,
    ) -> String {
        let Some(mapping) = mapping else {
            return format!("{:#x}", location.address);
        };
        let path = self.message.text(mapping.filename);
        let file = path.rsplit('/').next().unwrap_or(path);
        let offset = location
            .address
            .wrapping_sub(mapping.memory_start)
            .wrapping_add(mapping.file_offset);
        format!("{file}+{offset:#x}")
    }

    fn module(&mut self, mapping: &schema::Mapping) -> ModuleId {
        self.builder.module(Module {
            path: self.message.text(mapping.filename).to_owned(),
            build_id: bytes(self.message.text(mapping.build_id)),
            start: mapping.memory_start,
            end: mapping.memory_limit,
            file_offset: mapping.file_offset,
        })
    }
}

fn positive(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

fn kind(address: u64, path: &str, frames: &[Frame]) -> FrameKind {
    let in_upper_half = address >> 63 == 1;
    if path.starts_with("[kernel") || path.starts_with("/lib/modules/") || in_upper_half {
        return FrameKind::Kernel;
    }
    if path == JIT_MAPPING {
        return FrameKind::Jit;
    }
    if path == PYTHON_MAPPING {
        return FrameKind::Python;
    }
    let is_marker = |frame: &Frame| FrameClass::of_text(&frame.name).0 == FrameClass::Marker;
    if path.is_empty() && frames.iter().all(is_marker) {
        FrameKind::Marker
    } else {
        FrameKind::Native
    }
}

/// Bytes of hexadecimal digits, none where they are not.
fn bytes(digits: &str) -> Vec<u8> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return Vec::new();
    }
    let bytes = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    bytes.collect::<Result<_, _>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{MALFORMED_SAMPLE, bytes, read, schema};
    use crate::{
        output::{Options, account, example, folded, pprof::encode, top},
        profile::Profile,
    };

    fn round_trip(profile: &Profile) -> Profile {
        read(&encode(profile).encode_to_vec(), usize::MAX).unwrap()
    }

    /// Samples, names, kinds, lines, labels and account survive.
    #[test]
    fn profile_comes_back() {
        let before = example::profile();
        let after = round_trip(&before);
        assert_eq!(
            folded::lines(&after, &Options::default()),
            folded::lines(&before, &Options::default())
        );
        assert_eq!(top::functions(&after), top::functions(&before));
        assert_eq!(account::lines(&after), account::lines(&before));
        assert_eq!(after.processes, before.processes);
        assert_eq!(after.threads, before.threads);
        assert_eq!(after.meta.duration, before.meta.duration);
        assert_eq!(after.meta.frequency_hz, before.meta.frequency_hz);
        let inlined = |profile: &Profile| {
            let mut locations = profile.locations.iter();
            locations
                .find(|location| location.frames.len() == 3)
                .unwrap()
                .frames
                .clone()
        };
        assert_eq!(inlined(&after), inlined(&before));
        let worker = after
            .modules
            .iter()
            .find(|module| module.path == "/usr/bin/worker")
            .unwrap();
        assert_eq!(worker, &before.modules[1]);
    }

    /// A second turn changes nothing.
    #[test]
    fn second_turn_changes_nothing() {
        let once = round_trip(&example::profile());
        let twice = round_trip(&once);
        assert_eq!(once.locations, twice.locations);
        assert_eq!(once.samples, twice.samples);
        assert_eq!(once.account, twice.account);
        assert_eq!(once.meta, twice.meta);
    }

    fn foreign() -> schema::Profile {
        let text = |text: &str| text.to_owned();
        schema::Profile {
            sample_type: vec![schema::ValueType { r#type: 1, unit: 2 }],
            sample: vec![schema::Sample {
                location_id: vec![7],
                value: vec![30],
                label: Vec::new(),
            }],
            mapping: vec![schema::Mapping {
                id: 3,
                memory_start: 0x1000,
                filename: 3,
                ..Default::default()
            }],
            location: vec![schema::Location {
                id: 7,
                mapping_id: 3,
                address: 0x1234,
                line: Vec::new(),
            }],
            string_table: vec![
                text(""),
                text("cpu"),
                text("nanoseconds"),
                text("/bin/other"),
            ],
            period_type: Some(schema::ValueType { r#type: 1, unit: 2 }),
            period: 10,
            ..Default::default()
        }
    }

    /// Of another profiler's file: time over period gives samples, code without a name gets one.
    #[test]
    fn foreign_profile_is_read() {
        let profile = read(&foreign().encode_to_vec(), usize::MAX).unwrap();
        assert_eq!(
            folded::lines(&profile, &Options::default()),
            ["other;other+0x234 3"]
        );
        assert_eq!(profile.meta.frequency_hz, 100_000_000);
        assert!(!profile.account.is_known());
    }

    /// Samples that contradict themselves are counted.
    #[test]
    fn malformed_samples_are_counted() {
        let mut message = foreign();
        let sample = |location_id: u64, value: i64| schema::Sample {
            location_id: vec![location_id],
            value: vec![value],
            label: Vec::new(),
        };
        message
            .sample
            .extend([sample(8, 10), sample(7, -10), sample(7, i64::MAX)]);
        message.sample.push(schema::Sample::default());
        let profile = read(&message.encode_to_vec(), usize::MAX).unwrap();
        assert_eq!(profile.total(), 3);
        assert_eq!(profile.account.notes[MALFORMED_SAMPLE], 4);
    }

    /// Build ids are pairs of digits or nothing.
    #[test]
    fn build_ids_are_digits() {
        assert_eq!(bytes("dead"), [0xde, 0xad]);
        assert!(bytes("dea").is_empty() && bytes("xy").is_empty() && bytes("é").is_empty());
    }
}
