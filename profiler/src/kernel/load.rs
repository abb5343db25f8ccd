//! Loads the object with its settings and keeps what was loaded.

use std::{
    array,
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{
        PerfEvent, Program, RawTracePoint, perf_event::PerfEventLink,
        raw_trace_point::RawTracePointLink, trace_point::TracePointLink, uprobe::UProbeLink,
    },
};
use profiler_common::{
    comm::Step,
    config::Settings,
    limits::{TARGETS_MAX, THREADS_MAX},
    outcome::{COUNTERS, Counter},
    syscalls::CallSettings,
    tcp::TcpSettings,
    wire::WireSettings,
};
use zerocopy::IntoBytes;

use super::{
    Clock, KernelError, Ring, SharedMaps,
    calls::{self, Calls},
    switches::{SWITCH, Switches},
    tcp::{self, Connections},
    tls,
    wire::{self, Interests},
};

pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/profiler-ebpf.o"));

/// Tracepoints by program, in the order in which they are attached.
const LIFECYCLE: [(&str, &str); 3] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];

/// The program that takes CPU samples.
pub(super) const CPU_SAMPLE: &str = "cpu_sample";

/// What is wanted beside stacks; by default nothing.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// System calls.
    pub calls: CallSettings,
    /// TCP connections.
    pub tcp: TcpSettings,
    /// Traffic: the offsets of both others must be there too.
    pub wire: WireSettings,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            calls: CallSettings::UNSET,
            tcp: TcpSettings::UNSET,
            wire: WireSettings::UNSET,
        }
    }
}

/// The loaded object. Dropping it detaches and unloads everything: nothing is pinned.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) clocks: BTreeMap<u32, PerfEventLink>,
    pub(super) clock: Option<Clock>,
    targets: HashMap<MapData, u32, u32>,
    counts: PerCpuArray<MapData, [u64; COUNTERS]>,
    pub(super) switches: Switches,
    pub(super) switch_link: Option<RawTracePointLink>,
    pub(super) calls: Calls,
    pub(super) call_programs: Vec<(&'static str, &'static str)>,
    pub(super) call_links: Vec<RawTracePointLink>,
    pub(super) connections: Connections,
    pub(super) tcp_links: Vec<RawTracePointLink>,
    pub(super) interests: Interests,
    pub(super) tracepoint_links: Vec<TracePointLink>,
    pub(super) tls_links: Vec<UProbeLink>,
    lifecycle_links: Vec<RawTracePointLink>,
    /// Keeps the kernel's run-time statistics of BPF programs on; `None` below kernel 5.8, and where they would
    /// cost too much.
    stats: Option<OwnedFd>,
}

impl Kernel {
    /// Loads what a recording of stacks needs. Nothing runs yet.
    pub fn load(settings: &Settings) -> Result<(Self, Ring, SharedMaps), KernelError> {
        Self::load_with(settings, &Wanted::default())
    }

    /// Loads what is wanted. Nothing runs yet.
    pub fn load_with(
        settings: &Settings,
        wanted: &Wanted,
    ) -> Result<(Self, Ring, SharedMaps), KernelError> {
        // Two looks at the clock a run: too much where programs run at system calls.
        let stats = (wanted.calls.wanted == 0 && wanted.wire.wanted == 0)
            .then(|| aya::sys::enable_stats(aya::sys::Stats::RunTime).ok())
            .flatten();
        let follows_switches = settings.off_cpu != 0;
        let threads = if follows_switches { THREADS_MAX } else { 1 };
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        let comm: [Step; 256] = array::from_fn(|byte| {
            // SANITY: an index of the array.
            settings.comm.step(u8::try_from(byte).unwrap_or_default())
        });
        let mut loader = EbpfLoader::new();
        loader
            .override_global("SETTINGS", settings.as_bytes(), true)
            .override_global("COMM_STEPS", comm.as_bytes(), true)
            .override_global("CALL_SETTINGS", wanted.calls.as_bytes(), true)
            .override_global("TCP_SETTINGS", wanted.tcp.as_bytes(), true)
            .override_global("WIRE_SETTINGS", wanted.wire.as_bytes(), true);
        size_maps(&mut loader, wanted, threads);
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|source| KernelError::Object(Box::new(source)))?;
        let ring = Ring::new(map(&mut ebpf, "EVENTS", RingBuf::try_from)?)?;
        let targets = map(&mut ebpf, "TARGETS", HashMap::try_from)?;
        let counts = map(&mut ebpf, "COUNTS", PerCpuArray::try_from)?;
        let shared = SharedMaps::take(&mut ebpf)?;
        let switches = Switches::take(&mut ebpf)?;
        let calls = Calls::take(&mut ebpf)?;
        let connections = Connections::take(&mut ebpf)?;
        let interests = Interests::take(&mut ebpf)?;
        let call_programs = calls::programs(&wanted.calls);
        let switch = follows_switches.then_some((SWITCH, SWITCH));
        let programs = switch.into_iter().chain(call_programs.clone());
        load_programs(
            &mut ebpf,
            programs.chain(tcp::programs(&wanted.tcp).iter().copied()),
        )?;
        wire::load(&mut ebpf, &wanted.wire)?;
        tcp::load(&mut ebpf, &wanted.tcp)?;
        tls::load(&mut ebpf, &wanted.wire)?;
        let kernel = Self {
            ebpf,
            clocks: BTreeMap::new(),
            clock: None,
            targets,
            counts,
            switches,
            switch_link: None,
            calls,
            call_programs,
            call_links: Vec::new(),
            connections,
            tcp_links: Vec::new(),
            interests,
            tracepoint_links: Vec::new(),
            tls_links: Vec::new(),
            lifecycle_links: Vec::new(),
            stats,
        };
        Ok((kernel, ring, shared))
    }

    /// Begins to follow forks, execs and exits.
    pub fn attach_lifecycle(&mut self) -> Result<(), KernelError> {
        for (name, tracepoint) in LIFECYCLE {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            let link = program
                .attach(tracepoint)
                .and_then(|id| program.take_link(id))
                .map_err(|source| failed("attach", name, source))?;
            self.lifecycle_links.push(link);
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

    /// A process is no target any more. One that was none is as good.
    pub fn remove_target(&mut self, tgid: u32) {
        let _ = self.targets.remove(&tgid);
    }

    /// Every target, named ones and those that they forked.
    pub fn targets(&self) -> BTreeSet<u32> {
        self.targets.keys().filter_map(Result::ok).collect()
    }

    /// What the kernel side has counted so far, summed over the CPUs.
    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, KernelError> {
        let slots = self.counts.get(&0, 0).map_err(|source| KernelError::Map {
            map: "COUNTS",
            source: Box::new(source),
        })?;
        let sum = |counter: &Counter| match counter {
            Counter::NotRun => self.misses(),
            counter => slots.iter().map(|cpu| cpu[*counter as usize]).sum(),
        };
        Ok(Counter::ALL
            .iter()
            .map(|counter| (*counter, sum(counter)))
            .collect())
    }

    /// Time spent inside our programs so far, all CPUs; `None` where the kernel does not tell.
    pub fn bpf_time(&self) -> Option<Duration> {
        let infos = self
            .ebpf
            .programs()
            .filter_map(|(_, program)| program.info().ok());
        let time: Duration = infos.map(|info| info.run_time()).sum();
        // Others may have the statistics on.
        (self.stats.is_some() || !time.is_zero()).then_some(time)
    }

    /// Stops everything; what is on the ring and in the maps can still be read.
    pub fn stop(&mut self) {
        self.clocks.clear();
        self.switch_link = None;
        self.call_links.clear();
        self.tcp_links.clear();
        self.tracepoint_links.clear();
        self.tls_links.clear();
        self.lifecycle_links.clear();
    }
}

/// Turns the kernel's run-time statistics of BPF programs on, as long as the descriptor is open; `None` where
/// that is not allowed (it wants `CAP_SYS_ADMIN`).
pub fn keep_statistics() -> Option<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime).ok()
}

/// Makes the maps as large as what is wanted needs them, and those of nothing small.
pub(super) fn size_maps(loader: &mut EbpfLoader<'_>, wanted: &Wanted, threads: u32) {
    let sizes = calls::sizes(&wanted.calls).into_iter();
    let sizes = sizes
        .chain(tcp::sizes(&wanted.tcp))
        .chain(wire::sizes(&wanted.wire));
    let by_thread = ["THREADS", "LEFT"].map(|map| (map, threads));
    for (map, entries) in sizes.chain(by_thread) {
        loader.map_max_entries(map, entries);
    }
}

fn load_programs(
    ebpf: &mut Ebpf,
    wanted: impl Iterator<Item = (&'static str, &'static str)>,
) -> Result<(), KernelError> {
    let sample: &mut PerfEvent = program(ebpf, CPU_SAMPLE)?;
    sample
        .load()
        .map_err(|source| failed("load", CPU_SAMPLE, source))?;
    for (name, _) in LIFECYCLE.into_iter().chain(wanted) {
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

pub(super) fn map<T>(
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
