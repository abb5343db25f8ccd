//! Builds a profile piece by piece, each distinct piece once.
//!
//! Readers and the merger hand in whole values; the builder returns the id of an equal one if there
//! is one. It knows no format and judges nothing.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::ReadError;
use crate::profile::{
    Gil, Location, LocationId, Module, ModuleId, Process, ProcessId, Profile, Sample, Stack,
    StackId, Thread, ThreadId,
};

/// What a distinct piece takes beside its texts, places in hash tables included, bytes.
const PIECE_WEIGHT: usize = 160;
/// Text that all stacks may have together: this, and [`TEXT_EACH`] for each byte that they take. Deep stacks of long
/// names have 20, names that recur for the sake of it thousands.
const TEXT_LEAST: usize = 64 << 20;
/// See [`TEXT_LEAST`].
const TEXT_EACH: usize = 32;
/// Most bytes of the names of a stack, which has them all in one line of a flamegraph.
const STACK_TEXT_MAX: usize = 4 << 20;
/// Most frames of a stack.
pub(super) const STACK_FRAMES_MAX: usize = 1 << 16;

/// A profile in the making.
#[derive(Default)]
pub(super) struct Builder {
    /// Most bytes that it may take, if there is a limit.
    weight_max: Option<usize>,
    /// How many it takes, about.
    weight: usize,
    /// Bytes of all stacks as lines of text, which a flamegraph is drawn from.
    text: usize,
    /// Bytes of the names of each location.
    texts: Vec<u32>,
    profile: Profile,
    processes: Places,
    threads: Places,
    modules: Places,
    locations: Places,
    stacks: Places,
    samples: FxHashMap<(ThreadId, StackId, Gil), usize>,
}

impl Builder {
    /// One of which what comes of foreign bytes stays below a limit.
    pub(super) fn bounded(weight_max: usize) -> Self {
        Self {
            weight_max: Some(weight_max),
            ..Self::default()
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.weight_max.is_some_and(|limit| self.weight > limit)
    }

    /// An error where it takes more than it may.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        let Some(limit) = self.weight_max else {
            return Ok(());
        };
        if self.weight > limit {
            return Err(ReadError::TooHeavy { limit });
        }
        let limit = TEXT_LEAST.saturating_add(self.weight.saturating_mul(TEXT_EACH));
        if self.text > limit {
            return Err(ReadError::TooHeavy { limit });
        }
        Ok(())
    }

    /// Whether a stack can be drawn: that a few names recur a million times takes little to say.
    pub(super) fn fits(&self, locations: &[LocationId]) -> bool {
        locations.len() <= STACK_FRAMES_MAX && self.text_of(locations) <= STACK_TEXT_MAX
    }

    fn text_of(&self, locations: &[LocationId]) -> usize {
        let texts = locations.iter().map(|id| self.texts[id.index()] as usize);
        texts.fold(0, usize::saturating_add)
    }

    fn add_weight(&mut self, is_new: bool, bytes: usize) {
        if is_new {
            self.weight = self.weight.saturating_add(PIECE_WEIGHT + bytes);
        }
    }

    pub(super) fn process(&mut self, process: Process) -> ProcessId {
        let key = FxBuildHasher.hash_one((process.pid, &process.comm, &process.cgroup));
        let bytes = process.comm.len() + process.cgroup.len();
        let (id, is_new) = self
            .processes
            .place(&mut self.profile.processes, key, process);
        self.add_weight(is_new, bytes);
        ProcessId(id)
    }

    pub(super) fn thread(&mut self, thread: Thread) -> ThreadId {
        let key = FxBuildHasher.hash_one((thread.process, thread.tid, &thread.name));
        let bytes = thread.name.len();
        let (id, is_new) = self.threads.place(&mut self.profile.threads, key, thread);
        self.add_weight(is_new, bytes);
        ThreadId(id)
    }

    pub(super) fn module(&mut self, module: Module) -> ModuleId {
        let key = FxBuildHasher.hash_one((&module.path, &module.build_id, module.start));
        let bytes = module.path.len() + module.build_id.len();
        let (id, is_new) = self.modules.place(&mut self.profile.modules, key, module);
        self.add_weight(is_new, bytes);
        ModuleId(id)
    }

    pub(super) fn location(&mut self, location: Location) -> LocationId {
        let key = location_key(&location);
        let (text, bytes) = location_bytes(&location);
        let (id, is_new) = self
            .locations
            .place(&mut self.profile.locations, key, location);
        if is_new {
            self.texts.push(u32::try_from(text).unwrap_or(u32::MAX));
        }
        self.add_weight(is_new, bytes);
        LocationId(id)
    }

    /// Locations leaf first.
    pub(super) fn stack(&mut self, locations: Vec<LocationId>) -> StackId {
        let key = FxBuildHasher.hash_one(&locations);
        let (bytes, text) = (size_of_val(locations.as_slice()), self.text_of(&locations));
        let (id, is_new) = self
            .stacks
            .place(&mut self.profile.stacks, key, Stack { locations });
        self.add_weight(is_new, bytes);
        if is_new {
            self.text = self.text.saturating_add(text);
        }
        StackId(id)
    }

    pub(super) fn sample(&mut self, thread: ThreadId, stack: StackId, (gil, count): (Gil, u64)) {
        let samples = &mut self.profile.samples;
        let before = samples.len();
        let place = *self.samples.entry((thread, stack, gil)).or_insert_with(|| {
            samples.push(Sample {
                thread,
                stack,
                gil,
                count: 0,
            });
            samples.len() - 1
        });
        samples[place].count = samples[place].count.saturating_add(count);
        let is_new = samples.len() > before;
        self.add_weight(is_new, 0);
    }

    /// The profile, still without description, account and timeline.
    pub(super) fn finish(self) -> Profile {
        self.profile
    }
}

/// Bytes of its names in a line of text, and all that it takes.
fn location_bytes(location: &Location) -> (usize, usize) {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let frames = location.frames.iter();
    frames.fold((0, 0), |(text, all), frame| {
        let own = frame.name.len();
        let kept = size_of_val(frame) + own + length(&frame.system_name) + length(&frame.file);
        (text + own, all + kept)
    })
}

/// What a whole profile takes, about.
#[cfg(test)]
pub(super) fn weight_of(profile: &Profile) -> usize {
    let locations = profile
        .locations
        .iter()
        .map(|location| location_bytes(location).1);
    let stacks = profile
        .stacks
        .iter()
        .map(|stack| size_of_val(stack.locations.as_slice()));
    let pieces = profile.locations.len() + profile.stacks.len() + profile.samples.len();
    locations.chain(stacks).sum::<usize>() + pieces * PIECE_WEIGHT
}

fn location_key(location: &Location) -> u64 {
    let mut key = FxBuildHasher.hash_one((location.kind, location.module, location.address));
    for frame in &location.frames {
        key = FxBuildHasher.hash_one((key, &frame.name, &frame.file, frame.line));
    }
    key
}

/// Where the values of a list stand, by hash; values with one hash are compared.
#[derive(Default)]
struct Places(FxHashMap<u64, Vec<u32>>);

impl Places {
    /// Its place, and whether it is new.
    fn place<T: PartialEq>(&mut self, list: &mut Vec<T>, key: u64, value: T) -> (u32, bool) {
        let places = self.0.entry(key).or_default();
        if let Some(place) = places.iter().find(|place| list[**place as usize] == value) {
            return (*place, false);
        }
        // A file has at most 2^28 bytes, and no value takes less than one.
        let place = u32::try_from(list.len()).unwrap_or(u32::MAX);
        list.push(value);
        places.push(place);
        (place, true)
    }
}
