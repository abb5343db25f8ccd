//! Keeps the kernel side's unwinder supplied: mappings and tables of processes as they come, memory
//! that a walk could not read.

use std::{borrow::Cow, collections::BTreeMap};

use profiler_common::{outcome::StopReason, sample::Sample};

use super::finish::monotonic_ns;
use crate::{
    kernel::{KernelError, PythonMap, Remaps, SharedMaps},
    process::{self, Place, Processes, Swept},
    python::Pythons,
    unwind::{Stats, Unwinder},
};

/// Housekeepings between two sweeps.
const SWEEP_EVERY: u32 = 5;
/// Most pages brought in between two housekeepings: each costs about as much as a sample.
const TOUCHES_MAX: u32 = 100;

/// Most walks of one sample in user space: the executable, the linker, the libraries.
const LOOKS_MAX: u32 = 3;

/// See the room.
pub(crate) struct Stacks {
    unwinder: Unwinder<SharedMaps>,
    pythons: Pythons,
    python_map: PythonMap,
    remaps: Remaps,
    /// Whether the kernel emits no mappings.
    is_deaf: bool,
    remaps_lost: u64,
    no_room: u64,
    housekeepings: u32,
    touches: u32,
    touched: u64,
    frames: Vec<u64>,
}

impl Stacks {
    pub(crate) fn new(shared: SharedMaps, python_map: PythonMap) -> Self {
        let mut remaps = Remaps::default();
        let is_deaf = remaps.listen().is_err();
        Self {
            remaps,
            is_deaf,
            remaps_lost: 0,
            unwinder: Unwinder::new(shared, process::vdso_image().ok()),
            pythons: Pythons::default(),
            python_map,
            no_room: 0,
            housekeepings: 0,
            touches: 0,
            touched: 0,
            frames: Vec::new(),
        }
    }

    /// Learns of code that was replaced up to the time of a sample.
    pub(crate) fn catch_up(
        &mut self,
        time_ns: u64,
        processes: &mut Processes,
    ) -> Result<(), KernelError> {
        for remap in self.remaps.until(time_ns, monotonic_ns) {
            processes.remapped(&remap);
        }
        let lost = self.remaps.take_lost();
        if lost > 0 {
            self.remaps_lost += lost;
            processes.remaps_lost(time_ns);
        }
        self.update(processes)
    }

    /// Learns from how the walk of a sample ended, so that later ones get further, and goes on with
    /// those that can be gone on with. Gives the user stack and why it ended.
    pub(crate) fn finish<'a>(
        &mut self,
        sample: &Sample<'a>,
        processes: &mut Processes,
    ) -> Result<(Cow<'a, [u64]>, StopReason), KernelError> {
        self.learn(sample, processes);
        let Some(rest) = sample.rest else {
            return Ok((Cow::Borrowed(sample.user), sample.stop));
        };
        let pid = sample.header.tgid;
        let code = |address| process::read_words(pid, address);
        for _ in 0..LOOKS_MAX {
            self.update(processes)?;
            self.frames.clear();
            self.frames.extend_from_slice(sample.user);
            let walked = self
                .unwinder
                .walk_rest(pid, rest, code, &mut self.frames)
                .unwrap_or_else(|| {
                    self.frames.push(rest.frame.pc);
                    StopReason::NoProcess
                });
            // The mapping may have come since the last look; then it is worth another walk.
            let unknown = self.frames.last().copied().unwrap_or_default();
            let unknown = unknown.wrapping_sub(1);
            if walked != StopReason::NoMapping
                || matches!(processes.locate(pid, unknown), Place::Unmapped { .. })
            {
                return Ok((Cow::Owned(self.frames.clone()), walked));
            }
            processes.report_again(pid);
        }
        Ok((Cow::Owned(self.frames.clone()), StopReason::NoMapping))
    }

    /// Learns from how the walk of a sample ended, so that later ones get further.
    pub(crate) fn learn(&mut self, sample: &Sample<'_>, processes: &mut Processes) {
        let (pid, fault) = (sample.header.tgid, sample.header.fault);
        if let Some(state) = self.pythons.missed(sample) {
            self.python_map.set_thread(sample.header.tid, state);
        }
        match sample.stop {
            StopReason::NoProcess => processes.report_again(pid),
            // A look-up of an unknown address reads the mappings again.
            StopReason::NoMapping
                if !matches!(processes.locate(pid, fault), Place::Unmapped { .. }) =>
            {
                processes.report_again(pid);
            }
            StopReason::ReadStack if self.touches < TOUCHES_MAX => {
                self.touches += 1;
                self.touched += u64::from(process::bring_in(pid, fault));
            }
            _ => {}
        }
    }

    /// Hands on what has changed.
    pub(crate) fn update(&mut self, processes: &mut Processes) -> Result<(), KernelError> {
        for pid in processes.take_changed() {
            self.unwinder
                .set_mappings(pid, processes.mappings(pid), processes.files())?;
            processes.handed_on(pid, monotonic_ns());
            let (mappings, files) = (processes.mappings(pid), processes.files());
            let Some(interpreter) = self.pythons.look(pid, mappings, files) else {
                continue;
            };
            self.no_room += u64::from(!self.python_map.set(pid, interpreter));
            for (tid, state) in self.pythons.out_of_reach(pid) {
                self.python_map.set_thread(tid, state);
            }
        }
        Ok(())
    }

    /// A process forked. The kernel side copies what it knows of the parent, which may have been nothing yet.
    pub(crate) fn forked(&mut self, parent: u32, child: u32) {
        if let Some(interpreter) = self.pythons.forked(parent, child)
            && !self.python_map.set(child, interpreter)
        {
            self.no_room += 1;
        }
    }

    /// A process runs another program.
    pub(crate) fn execed(&mut self, pid: u32) {
        self.pythons.forget(pid);
        self.python_map.remove(pid);
    }

    pub(crate) fn forget(&mut self, pid: u32) {
        self.unwinder.forget(pid);
        self.pythons.forget(pid);
        self.python_map.remove(pid);
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, swept: &Swept) {
        for &pid in &swept.ended {
            self.forget(pid);
        }
        self.unwinder.forget_files(&swept.files);
        self.pythons.forget_files(&swept.files);
    }

    /// The interpreters of the processes.
    pub(super) fn pythons(&mut self) -> &mut Pythons {
        &mut self.pythons
    }

    /// Likewise, to look at.
    pub(super) fn known_pythons(&self) -> &Pythons {
        &self.pythons
    }

    /// Call once a second.
    pub(crate) fn keep_house(&mut self) {
        self.touches = 0;
        // Processors come and go.
        self.is_deaf = self.remaps.listen().is_err();
        self.housekeepings += 1;
        if self.housekeepings.is_multiple_of(SWEEP_EVERY) {
            self.unwinder.sweep(process::is_alive);
        }
    }

    /// What the unwinder holds.
    pub(crate) fn stats(&self) -> Stats {
        self.unwinder.stats()
    }

    /// What went wrong without costing a sample, with how often.
    pub(crate) fn notes(&self) -> BTreeMap<&'static str, u64> {
        let stats = self.stats();
        let mut notes = self.pythons.notes();
        notes.extend([
            ("stack page brought in for later samples", self.touched),
            ("function without readable unwind rules", stats.malformed),
            ("unwind table or mappings found no room", stats.no_room),
            (
                "file with more to read than is read of one, its rest left out",
                stats.cut,
            ),
            (
                "file not read yet, its owner's files took too long",
                stats.put_off,
            ),
            ("Python not followed, table full", self.no_room),
            (
                "kernel emits no mappings, replaced code keeps its old names",
                u64::from(self.is_deaf),
            ),
            (
                "mapping dropped, ring full, all processes read again",
                self.remaps_lost,
            ),
        ]);
        notes
    }
}
