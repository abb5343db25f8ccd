//! Loads the object with its settings and keeps what was loaded.

use std::{collections::BTreeMap, os::fd::OwnedFd, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{PerfEvent, Program, RawTracePoint, perf_event::PerfEventLink},
};
use profiler_common::{
    config::Settings,
    limits::TARGETS_MAX,
    outcome::{COUNTERS, Counter},
};
use zerocopy::IntoBytes;

use super::{Clock, KernelError, Ring};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/profiler-ebpf.o"));

/// Tracepoints by program, in the order in which they are attached.
const LIFECYCLE: [(&str, &str); 3] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];

/// The program that takes CPU samples.
pub(super) const CPU_SAMPLE: &str = "cpu_sample";

/// The loaded object. Dropping it detaches and unloads everything: nothing is pinned.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) clocks: BTreeMap<u32, PerfEventLink>,
    pub(super) clock: Option<Clock>,
    targets: HashMap<MapData, u32, u32>,
    counts: PerCpuArray<MapData, [u64; COUNTERS]>,
    /// Keeps the kernel's run-time statistics of BPF programs on; `None` below kernel 5.8.
    stats: Option<OwnedFd>,
}

impl Kernel {
    /// Loads every program. Nothing runs yet.
    pub fn load(settings: &Settings) -> Result<(Self, Ring), KernelError> {
        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).ok();
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", settings.as_bytes(), true)
            .load(OBJECT)
            .map_err(|source| KernelError::Object(Box::new(source)))?;
        let ring = Ring::new(map(&mut ebpf, "EVENTS", RingBuf::try_from)?)?;
        let targets = map(&mut ebpf, "TARGETS", HashMap::try_from)?;
        let counts = map(&mut ebpf, "COUNTS", PerCpuArray::try_from)?;
        load_programs(&mut ebpf)?;
        let kernel = Self {
            ebpf,
            clocks: BTreeMap::new(),
            clock: None,
            targets,
            counts,
            stats,
        };
        Ok((kernel, ring))
    }

    /// Begins to follow forks, execs and exits.
    pub fn attach_lifecycle(&mut self) -> Result<(), KernelError> {
        for (name, tracepoint) in LIFECYCLE {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            program
                .attach(tracepoint)
                .map_err(|source| failed("attach", name, source))?;
        }
        Ok(())
    }

    /// Makes a process a target, with the bits of [`target`](profiler_common::config::target).
    pub fn add_target(&mut self, tgid: u32, bits: u32) -> Result<(), KernelError> {
        match self.targets.insert(tgid, bits, 0) {
            Ok(()) => Ok(()),
            Err(_) if self.targets.keys().count() >= TARGETS_MAX => {
                Err(KernelError::TooManyTargets { limit: TARGETS_MAX })
            }
            Err(source) => Err(KernelError::Map {
                map: "TARGETS",
                source: Box::new(source),
            }),
        }
    }

    /// What the kernel side has counted so far, summed over the CPUs.
    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, KernelError> {
        let slots = self.counts.get(&0, 0).map_err(|source| KernelError::Map {
            map: "COUNTS",
            source: Box::new(source),
        })?;
        let sum = |counter: &Counter| slots.iter().map(|cpu| cpu[*counter as usize]).sum();
        Ok(Counter::ALL
            .iter()
            .map(|counter| (*counter, sum(counter)))
            .collect())
    }

    /// Time spent inside our programs so far, all CPUs; `None` where the kernel does not tell.
    pub fn bpf_time(&self) -> Option<Duration> {
        self.stats.as_ref()?;
        let infos = self
            .ebpf
            .programs()
            .filter_map(|(_, program)| program.info().ok());
        Some(infos.map(|info| info.run_time()).sum())
    }

    /// Stops all sampling; what is on the ring can still be read.
    pub fn stop(&mut self) {
        self.clocks.clear();
    }
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let sample: &mut PerfEvent = program(ebpf, CPU_SAMPLE)?;
    sample
        .load()
        .map_err(|source| failed("load", CPU_SAMPLE, source))?;
    for (name, _) in LIFECYCLE {
        let hook: &mut RawTracePoint = program(ebpf, name)?;
        hook.load().map_err(|source| failed("load", name, source))?;
    }
    Ok(())
}

/// A program of the object by name and type.
pub(super) fn program<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(KernelError::Missing(name))
}

fn map<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    typed: impl FnOnce(aya::maps::Map) -> Result<T, aya::maps::MapError>,
) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Missing(name))?;
    typed(map).map_err(|source| KernelError::Map {
        map: name,
        source: Box::new(source),
    })
}

pub(super) fn failed(
    action: &'static str,
    program: &'static str,
    source: aya::programs::ProgramError,
) -> KernelError {
    KernelError::Program {
        action,
        program,
        source: Box::new(source),
    }
}
