//! What a recording, or a window of one, was taken out as: plain values and pinned files, out of which a
//! profile can be made later, on another thread, whatever has become of the processes.

use std::collections::HashMap;

use profiler_common::{off_cpu::ThreadTimes, outcome::StopReason};

use super::{
    aggregate::{Aggregate, RUNNING},
    places::{self, Locations, PythonPlaces},
};
use crate::{
    config::{Interpreter, Mode},
    process::Place,
    profile::{
        Account, Frame, FrameKind, Location, LocationId, Meta, Module, ModuleId, Profile, Stack,
        ThreadId, ThreadTime, Times,
    },
    symbolize::{Named, Resolved, Sources},
};

/// The scheduler's frames lie within these, at the leaf end of a stack taken at a switch.
const SCHEDULER_FRAMES_MAX: usize = 12;

/// See the file.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) meta: Meta,
    pub(crate) mode: Mode,
    pub(crate) interpreter: Interpreter,
    pub(crate) aggregate: Aggregate<Place>,
    pub(crate) pythons: PythonPlaces,
    /// Where the names of everything else come from.
    pub(crate) sources: Sources,
    /// All but the times of threads and what naming has to say.
    pub(crate) account: Account,
}

impl Captured {
    /// The profile, and what would give more names, a sentence each. `resolve` names places that are no Python
    /// code.
    pub(crate) fn profile<E>(
        self,
        resolve: impl FnOnce(Vec<Place>, Sources) -> Result<Resolved, E>,
    ) -> Result<(Profile, Vec<String>), E> {
        let Self {
            meta,
            mode,
            interpreter,
            aggregate,
            pythons,
            sources,
            mut account,
        } = self;
        let mut modules = Modules::default();
        let Locations {
            list: mut locations,
            notes,
            hints,
        } = places::locations(&aggregate.places, &pythons, &mut modules, |places| {
            resolve(places, sources)
        })?;
        let stacks = stacks(&aggregate, &pythons, interpreter, &mut locations);
        account
            .notes
            .extend(notes.into_iter().map(|(note, count)| (note.into(), count)));
        let times: Vec<Times> = aggregate.times.iter().map(times_of).collect();
        if mode != Mode::OnCpu {
            let sum = |part| times.iter().map(|times| times.of(part)).sum();
            account.threads = ThreadTime::ALL.map(|part| (part, sum(part))).into();
        }
        let samples = aggregate.samples(|weight| match mode {
            Mode::OnCpu => weight.count,
            Mode::OffCpu | Mode::Wall | Mode::Syscalls => (weight.time_ns + 500) / 1000,
        });
        let profile = Profile {
            meta,
            processes: aggregate.processes,
            threads: aggregate.threads,
            modules: modules.list,
            locations,
            stacks,
            samples,
            times,
            timeline: aggregate.ticks,
            account,
        };
        Ok((profile, hints))
    }
}

#[cfg(test)]
impl Captured {
    /// Nothing was recorded.
    pub(crate) fn empty(meta: Meta, account: Account) -> Self {
        use super::aggregate::Timeline;
        use crate::process::Processes;
        Self {
            meta,
            mode: Mode::OnCpu,
            interpreter: Interpreter::Fold,
            aggregate: Aggregate::new(Timeline::Drop),
            pythons: PythonPlaces::default(),
            sources: Sources::of(&Processes::new()),
            account,
        }
    }
}

/// Every stack with what stands on it and, where it was cut, why.
fn stacks(
    aggregate: &Aggregate<Place>,
    pythons: &PythonPlaces,
    interpreter: Interpreter,
    locations: &mut Vec<Location>,
) -> Vec<Stack> {
    let mut markers = HashMap::new();
    let mut leaves = HashMap::new();
    let mut stacks = Vec::with_capacity(aggregate.stacks.len());
    for key in &aggregate.stacks {
        let mut stack = places::shown(&key.places, &aggregate.places, pythons, interpreter);
        if let Some(leaf) = key.leaf {
            let leaf = &aggregate.leaves[leaf as usize];
            if leaf != RUNNING {
                drop_scheduler(&mut stack, locations);
            }
            stack.insert(
                0,
                *leaves
                    .entry(leaf)
                    .or_insert_with(|| push_text(locations, leaf.clone())),
            );
        }
        if !key.stop.is_complete() {
            stack.push(
                *markers
                    .entry(key.stop)
                    .or_insert_with(|| push_marker(locations, key.stop)),
            );
        }
        stacks.push(Stack { locations: stack });
    }
    stacks
}

#[derive(Default)]
pub(crate) struct Modules {
    list: Vec<Module>,
    /// Files of one path and build id can be different ones: what one of them is mapped at does not hold for another.
    ids: HashMap<(String, Vec<u8>, u64), ModuleId>,
}

impl Modules {
    fn id(&mut self, module: Module) -> ModuleId {
        let Self { list, ids } = self;
        let key = (module.path.clone(), module.build_id.clone(), module.start);
        *ids.entry(key).or_insert_with(|| {
            list.push(module);
            ModuleId(u32::try_from(list.len() - 1).unwrap_or(u32::MAX))
        })
    }
}

pub(super) fn location(named: Named, address: u64, modules: &mut Modules) -> Location {
    Location {
        kind: named.kind,
        module: named.module.map(|module| modules.id(module)),
        address,
        frames: named.frames,
    }
}

/// Takes the scheduler's own frames, and those of our program in it, off a stack that was taken at a switch.
fn drop_scheduler(stack: &mut Vec<LocationId>, locations: &[Location]) {
    let scheduler = stack.iter().take(SCHEDULER_FRAMES_MAX).rposition(|id| {
        let location = &locations[id.index()];
        location.kind == FrameKind::Kernel
            && location
                .frames
                .last()
                .is_some_and(|frame| frame.name == "__schedule")
    });
    if let Some(last) = scheduler {
        stack.drain(..=last);
    }
}

/// A frame that says at the root of a stack why the rest is missing.
fn push_marker(locations: &mut Vec<Location>, stop: StopReason) -> LocationId {
    push_text(locations, format!("[cut: {}]", stop.text()))
}

/// A frame that is no code.
fn push_text(locations: &mut Vec<Location>, name: String) -> LocationId {
    let frame = Frame {
        name,
        ..Frame::default()
    };
    locations.push(Location {
        kind: FrameKind::Marker,
        module: None,
        address: 0,
        frames: vec![frame],
    });
    LocationId(u32::try_from(locations.len() - 1).unwrap_or(u32::MAX))
}

fn times_of((thread, times): (&ThreadId, &ThreadTimes)) -> Times {
    Times {
        thread: *thread,
        followed_ns: times.in_state_ns.iter().sum(),
        in_state_ns: times.in_state_ns,
        below_threshold_ns: times.below_threshold_ns,
    }
}
