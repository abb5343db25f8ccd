//! pprof: the gzipped protocol buffer that `go tool pprof`, Pyroscope and Parca read.
//!
//! Follows the conventions of the format: leaf first, inlined functions as several lines of one
//! location, the main binary as first mapping, the kernel as `[kernel.kallsyms]`, values already
//! scaled. Where the rate is not known there is no value in nanoseconds, rather than one of zero.
//! Reading is done by `report`.

pub(crate) mod schema;

use std::time::Duration;

use prost::Message;
use rustc_hash::FxHashMap;

use super::{OutputError, figures::hexadecimal, frame_class::FrameClass, gzip, provenance};
use crate::profile::{Frame, FrameKind, Location, Module, Profile, Sample};

/// Mapping that stands for the kernel.
pub(crate) const KERNEL_MAPPING: &str = "[kernel.kallsyms]";
/// Mapping that stands for code that a runtime made outside any file.
pub(crate) const JIT_MAPPING: &str = "[jit]";

/// Stands for Python functions, likewise.
pub(crate) const PYTHON_MAPPING: &str = "[python]";
/// Label of the process id.
pub(crate) const LABEL_PID: &str = "pid";
/// Label of the thread id.
pub(crate) const LABEL_TID: &str = "tid";
/// Label of the thread's name.
pub(crate) const LABEL_THREAD: &str = "thread";
/// Label of the process's name.
pub(crate) const LABEL_COMM: &str = "comm";
/// Label of the process's cgroup.
pub(crate) const LABEL_CGROUP: &str = "cgroup";
/// Label: whether the thread held its Python interpreter's lock: `held` or `free`.
pub(crate) const LABEL_GIL: &str = "gil";

/// The profile as a file.
pub(super) fn render(profile: &Profile) -> Result<Vec<u8>, OutputError> {
    gzip(&encode(profile).encode_to_vec())
}

/// The profile as a message.
pub(crate) fn encode(profile: &Profile) -> schema::Profile {
    let mut encoder = Encoder::new(profile);
    let sample_type = encoder.sample_types();
    let mapping = encoder.mappings();
    let location = encoder.locations();
    let sample = profile
        .samples
        .iter()
        .map(|sample| encoder.sample(sample))
        .collect();
    let comment = provenance::lines(profile)
        .iter()
        .map(|line| encoder.strings.index(line))
        .collect();
    let event = profile.meta.event;
    let period_type = if event.is_time() {
        encoder.value_type(event.name(), "microseconds")
    } else {
        encoder.cpu_time()
    };
    schema::Profile {
        sample_type,
        sample,
        mapping,
        location,
        function: encoder.functions,
        time_nanos: nanoseconds(profile.meta.started),
        duration_nanos: nanoseconds(profile.meta.duration),
        period_type: Some(period_type),
        period: if event.is_time() {
            1
        } else {
            signed(profile.meta.period_ns())
        },
        comment,
        string_table: encoder.strings.list,
    }
}

/// Modules in the order of mappings: the main binary first, then as they are.
fn mapping_order(profile: &Profile) -> Vec<usize> {
    let main = main_module(profile);
    let rest = (0..profile.modules.len()).filter(|index| Some(*index) != main);
    main.into_iter().chain(rest).collect()
}

/// The module that the busiest process is named after, else the one that the command line names,
/// else the first file.
fn main_module(profile: &Profile) -> Option<usize> {
    let find = |belongs: &dyn Fn(&Module) -> bool| {
        profile
            .modules
            .iter()
            .position(|module| !module.path.starts_with('[') && belongs(module))
    };
    let busiest = profile.samples.iter().max_by_key(|sample| sample.count);
    let comm = busiest.map(|sample| profile.process_of(sample.thread).comm.as_str());
    let command = profile.meta.command_line.split_whitespace().next();
    let program = command.and_then(|path| path.rsplit('/').next());
    comm.filter(|comm| !comm.is_empty())
        .and_then(|comm| find(&|module| module.name().starts_with(comm)))
        .or_else(|| program.and_then(|program| find(&|module| module.name() == program)))
        .or_else(|| find(&|_| true))
}

#[derive(Default)]
struct Strings {
    list: Vec<String>,
    places: FxHashMap<String, i64>,
}

impl Strings {
    fn index(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = i64::try_from(self.list.len()).unwrap_or(0);
        self.list.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

struct Encoder<'a> {
    profile: &'a Profile,
    strings: Strings,
    functions: Vec<schema::Function>,
    function_ids: FxHashMap<[i64; 4], u64>,
    /// Mapping id of each module.
    mapping_ids: Vec<u64>,
    kernel_mapping: u64,
    jit_mapping: u64,
    python_mapping: u64,
}

impl<'a> Encoder<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut strings = Strings::default();
        strings.index("");
        Self {
            profile,
            strings,
            functions: Vec::new(),
            function_ids: FxHashMap::default(),
            mapping_ids: vec![0; profile.modules.len()],
            kernel_mapping: 0,
            jit_mapping: 0,
            python_mapping: 0,
        }
    }

    fn value_type(&mut self, name: &str, unit: &str) -> schema::ValueType {
        schema::ValueType {
            r#type: self.strings.index(name),
            unit: self.strings.index(unit),
        }
    }

    fn cpu_time(&mut self) -> schema::ValueType {
        self.value_type("cpu", "nanoseconds")
    }

    fn sample_types(&mut self) -> Vec<schema::ValueType> {
        let event = self.profile.meta.event;
        if event.is_time() {
            return vec![self.value_type(event.name(), "microseconds")];
        }
        let mut types = vec![self.value_type("samples", "count")];
        if self.profile.meta.period_ns() > 0 {
            types.push(self.cpu_time());
        }
        types
    }

    fn mappings(&mut self) -> Vec<schema::Mapping> {
        let mut mappings = Vec::new();
        for index in mapping_order(self.profile) {
            let id = next_id(&mappings);
            self.mapping_ids[index] = id;
            let module = &self.profile.modules[index];
            if module.path == KERNEL_MAPPING {
                self.kernel_mapping = id;
            }
            let known = self.known(index);
            mappings.push(schema::Mapping {
                id,
                memory_start: module.start,
                memory_limit: module.end,
                file_offset: module.file_offset,
                filename: self.strings.index(&module.path),
                build_id: self.strings.index(&hexadecimal(&module.build_id)),
                ..known
            });
        }
        let lacks_module = |kind| {
            let mut locations = self.profile.locations.iter();
            locations.any(|location| location.kind == kind && location.module.is_none())
        };
        let (kernel, jit, python) = (
            lacks_module(FrameKind::Kernel),
            lacks_module(FrameKind::Jit),
            lacks_module(FrameKind::Python),
        );
        if kernel && self.kernel_mapping == 0 {
            self.kernel_mapping = self.stand_in(KERNEL_MAPPING, &mut mappings);
        }
        if jit {
            self.jit_mapping = self.stand_in(JIT_MAPPING, &mut mappings);
        }
        if python {
            self.python_mapping = self.stand_in(PYTHON_MAPPING, &mut mappings);
        }
        mappings
    }

    /// A mapping for code that lies in no file.
    fn stand_in(&mut self, name: &str, mappings: &mut Vec<schema::Mapping>) -> u64 {
        let id = next_id(mappings);
        let filename = self.strings.index(name);
        mappings.push(schema::Mapping {
            id,
            filename,
            has_functions: true,
            ..Default::default()
        });
        id
    }

    /// What is known of a module's code.
    fn known(&self, module: usize) -> schema::Mapping {
        let mut known = schema::Mapping {
            has_functions: true,
            ..Default::default()
        };
        let mut locations = self.profile.locations.iter();
        for location in locations
            .by_ref()
            .filter(|location| location.module.is_some_and(|id| id.index() == module))
        {
            known.has_filenames |= location.frames.iter().any(|frame| frame.file.is_some());
            known.has_line_numbers |= location.frames.iter().any(|frame| frame.line.is_some());
            known.has_inline_frames |= location.frames.len() > 1;
        }
        known
    }

    fn locations(&mut self) -> Vec<schema::Location> {
        let profile = self.profile;
        let mut locations = Vec::with_capacity(profile.locations.len());
        for location in &profile.locations {
            let id = next_id(&locations);
            let line = location
                .frames
                .iter()
                .map(|frame| self.line(location.kind, frame))
                .collect();
            let mapping_id = self.mapping_of(location);
            locations.push(schema::Location {
                id,
                mapping_id,
                address: location.address,
                line,
            });
        }
        locations
    }

    fn mapping_of(&self, location: &Location) -> u64 {
        match (location.module, location.kind) {
            (Some(id), _) => self.mapping_ids[id.index()],
            (None, FrameKind::Kernel) => self.kernel_mapping,
            (None, FrameKind::Jit) => self.jit_mapping,
            (None, FrameKind::Python) => self.python_mapping,
            (None, FrameKind::Native | FrameKind::Marker) => 0,
        }
    }

    fn line(&mut self, kind: FrameKind, frame: &Frame) -> schema::Line {
        let name = match kind {
            FrameKind::Marker => FrameClass::Marker.mark(&frame.name),
            FrameKind::Kernel | FrameKind::Native | FrameKind::Jit | FrameKind::Python => {
                frame.name.clone()
            }
        };
        let key = [
            self.strings.index(&name),
            self.strings
                .index(frame.system_name.as_deref().unwrap_or(&name)),
            self.strings.index(frame.file.as_deref().unwrap_or("")),
            frame.first_line.map_or(0, i64::from),
        ];
        let new_id = next_id(&self.functions);
        let function_id = *self.function_ids.entry(key).or_insert(new_id);
        if function_id == new_id {
            let [name, system_name, filename, start_line] = key;
            self.functions.push(schema::Function {
                id: new_id,
                name,
                system_name,
                filename,
                start_line,
            });
        }
        schema::Line {
            function_id,
            line: frame.line.map_or(0, i64::from),
        }
    }

    fn sample(&mut self, sample: &Sample) -> schema::Sample {
        let profile = self.profile;
        let stack = &profile.stacks[sample.stack.index()];
        let mut value = vec![signed(sample.count)];
        let period = profile.meta.period_ns();
        if period > 0 && !profile.meta.event.is_time() {
            value.push(signed(sample.count.saturating_mul(period)));
        }
        schema::Sample {
            location_id: stack
                .locations
                .iter()
                .map(|id| u64::from(id.0) + 1)
                .collect(),
            value,
            label: self.labels(sample),
        }
    }

    fn labels(&mut self, sample: &Sample) -> Vec<schema::Label> {
        let thread = self.profile.thread(sample.thread);
        let process = self.profile.process_of(sample.thread);
        let numbers = [(LABEL_PID, process.pid), (LABEL_TID, thread.tid)];
        let texts = [
            (LABEL_THREAD, &thread.name),
            (LABEL_COMM, &process.comm),
            (LABEL_CGROUP, &process.cgroup),
        ];
        let mut labels = Vec::new();
        // An id of zero and an empty name both mean that it is not known.
        for (key, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
            labels.push(schema::Label {
                key: self.strings.index(key),
                num: i64::from(number),
                str: 0,
            });
        }
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            labels.push(schema::Label {
                key: self.strings.index(key),
                str: self.strings.index(text),
                num: 0,
            });
        }
        if let Some(word) = sample.gil.word() {
            labels.push(schema::Label {
                key: self.strings.index(LABEL_GIL),
                str: self.strings.index(word),
                num: 0,
            });
        }
        labels
    }
}

/// The id of the next entry: ids count from 1.
fn next_id<T>(list: &[T]) -> u64 {
    list.len() as u64 + 1
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{FrameKind, KERNEL_MAPPING, encode};
    use crate::{output::example, profile::Profile};

    /// The conventions that readers rely on.
    #[test]
    fn message_follows_the_conventions() {
        let message = encode(&example::profile());
        let text = |index: i64| message.string_table[usize::try_from(index).unwrap()].as_str();
        assert_eq!(text(0), "");
        let types: Vec<_> = message
            .sample_type
            .iter()
            .map(|value| (text(value.r#type), text(value.unit)))
            .collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!(message.period, 10_101_010);
        assert_eq!(message.sample[0].value, [60, 606_060_600]);
        assert_eq!(text(message.mapping[0].filename), "/usr/bin/worker");
        assert_eq!(text(message.mapping[0].build_id), "deadbeef");
        assert!(message.mapping[0].has_functions && message.mapping[0].has_inline_frames);
        assert_eq!(text(message.mapping[1].filename), KERNEL_MAPPING);
        assert!(
            message
                .location
                .iter()
                .zip(1..)
                .all(|(location, id)| location.id == id)
        );
        let inlined = &message.location[2];
        let name = |id: u64| text(message.function[usize::try_from(id).unwrap() - 1].name);
        let names: Vec<_> = inlined
            .line
            .iter()
            .map(|line| name(line.function_id))
            .collect();
        assert_eq!(names, ["grow", "Vec<u8>::push", "main"]);
        assert_eq!(message.sample[2].location_id, [5, 4, 3], "leaf first");
        assert_eq!(message.duration_nanos, 1_000_000_000);
        assert_eq!(message.time_nanos, 1_763_700_000_250_000_000);
        assert!(
            message
                .comment
                .iter()
                .any(|comment| text(*comment) == "lost, ring buffer full: 3 samples")
        );
    }

    /// Kernel and JIT code without a module still lies in a mapping that says what it is.
    #[test]
    fn code_without_a_file_gets_a_stand_in() {
        let mut profile = example::profile();
        for location in &mut profile.locations {
            location.module = None;
        }
        profile.modules.clear();
        let message = encode(&profile);
        for (location, encoded) in profile.locations.iter().zip(&message.location) {
            let has_mapping = encoded.mapping_id > 0;
            assert_eq!(
                has_mapping,
                matches!(location.kind, FrameKind::Kernel | FrameKind::Jit)
            );
        }
    }

    /// Without a rate there is no time, rather than a time of zero.
    #[test]
    fn unknown_rate_gives_counts_only() {
        let message = encode(&Profile::default());
        assert_eq!(message.sample_type.len(), 1);
    }
}
