//! Builds a profile piece by piece, each distinct piece once.
//!
//! Readers and the merger hand in whole values; the builder returns the id of an equal one if there
//! is one. It knows no format and judges nothing.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::profile::{
    Gil, Location, LocationId, Module, ModuleId, Process, ProcessId, Profile, Sample, Stack,
    StackId, Thread, ThreadId,
};

/// A profile in the making.
#[derive(Default)]
pub(super) struct Builder {
    profile: Profile,
    processes: Places,
    threads: Places,
    modules: Places,
    locations: Places,
    stacks: Places,
    samples: FxHashMap<(ThreadId, StackId, Gil), usize>,
}

impl Builder {
    pub(super) fn process(&mut self, process: Process) -> ProcessId {
        let key = FxBuildHasher.hash_one((process.pid, &process.comm, &process.cgroup));
        ProcessId(
            self.processes
                .place(&mut self.profile.processes, key, process),
        )
    }

    pub(super) fn thread(&mut self, thread: Thread) -> ThreadId {
        let key = FxBuildHasher.hash_one((thread.process, thread.tid, &thread.name));
        ThreadId(self.threads.place(&mut self.profile.threads, key, thread))
    }

    pub(super) fn module(&mut self, module: Module) -> ModuleId {
        let key = FxBuildHasher.hash_one((&module.path, &module.build_id, module.start));
        ModuleId(self.modules.place(&mut self.profile.modules, key, module))
    }

    pub(super) fn location(&mut self, location: Location) -> LocationId {
        let key = location_key(&location);
        LocationId(
            self.locations
                .place(&mut self.profile.locations, key, location),
        )
    }

    /// Locations leaf first.
    pub(super) fn stack(&mut self, locations: Vec<LocationId>) -> StackId {
        let key = FxBuildHasher.hash_one(&locations);
        StackId(
            self.stacks
                .place(&mut self.profile.stacks, key, Stack { locations }),
        )
    }

    pub(super) fn sample(&mut self, thread: ThreadId, stack: StackId, (gil, count): (Gil, u64)) {
        let samples = &mut self.profile.samples;
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
    }

    /// The profile, still without description, account and timeline.
    pub(super) fn finish(self) -> Profile {
        self.profile
    }
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
    fn place<T: PartialEq>(&mut self, list: &mut Vec<T>, key: u64, value: T) -> u32 {
        let places = self.0.entry(key).or_default();
        if let Some(place) = places.iter().find(|place| list[**place as usize] == value) {
            return *place;
        }
        // A file has at most 2^28 bytes, and no value takes less than one.
        let place = u32::try_from(list.len()).unwrap_or(u32::MAX);
        list.push(value);
        places.push(place);
        place
    }
}
