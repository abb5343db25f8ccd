//! A small profile with every kind of frame, for the tests of outputs and readers.

use std::{collections::BTreeMap, time::Duration};

use profiler_common::outcome::{Counter, StopReason};

use crate::profile::{
    Account, Cost, Event, Frame, FrameKind, Location, LocationId, Lost, Meta, Module, ModuleId,
    Process, ProcessId, Profile, Sample, Stack, StackId, Thread, ThreadId, ThreadTime,
};

/// One process with two threads: native, inlined, kernel and JIT frames, one cut stack.
pub(crate) fn profile() -> Profile {
    let process = Process {
        pid: 4711,
        comm: "worker".to_owned(),
        cgroup: "/system.slice/worker.service".to_owned(),
    };
    let thread = |tid, name: &str| Thread {
        process: ProcessId(0),
        tid,
        name: name.to_owned(),
    };
    let counts = [(0, 0, 60), (1, 0, 9), (0, 1, 20), (0, 2, 1), (0, 3, 10)];
    let stack = |ids: &[u32]| Stack {
        locations: ids.iter().copied().map(LocationId).collect(),
    };
    Profile {
        meta: meta(),
        processes: vec![process],
        threads: vec![thread(4711, "worker"), thread(4712, "pool 2")],
        modules: modules(),
        locations: locations(),
        stacks: vec![
            stack(&[1, 0]),
            stack(&[4, 3, 2]),
            stack(&[5, 0]),
            stack(&[1, 6]),
        ],
        samples: counts
            .map(|(thread, stack, count)| Sample {
                gil: crate::profile::Gil::Unknown,
                thread: ThreadId(thread),
                stack: StackId(stack),
                count,
            })
            .to_vec(),
        times: Vec::new(),
        timeline: Vec::new(),
        account: account(),
    }
}

fn meta() -> Meta {
    Meta {
        title: "worker (pid 4711)".to_owned(),
        command_line: "worker --threads 2".to_owned(),
        event: Event::CpuClock,
        frequency_hz: 99,
        started: Duration::new(1_763_700_000, 250_000_000),
        started_mono_ns: 5_000_000_000,
        duration: Duration::from_secs(1),
    }
}

fn modules() -> Vec<Module> {
    vec![
        Module {
            path: "[kernel.kallsyms]".to_owned(),
            start: 0xffff_8000_0000_0000,
            end: 0xffff_ffff_ffff_ffff,
            ..Module::default()
        },
        Module {
            path: "/usr/bin/worker".to_owned(),
            build_id: vec![0xde, 0xad, 0xbe, 0xef],
            start: 0x40_0000,
            end: 0x41_0000,
            file_offset: 0,
        },
    ]
}

fn locations() -> Vec<Location> {
    let frame = |name: &str| Frame {
        name: name.to_owned(),
        ..Frame::default()
    };
    let line = |name: &str, line| Frame {
        name: name.to_owned(),
        file: Some("/src/worker.rs".to_owned()),
        line: Some(line),
        system_name: Some(format!("_ZN{name}")),
        first_line: None,
    };
    let location = |kind, module: Option<u32>, address, frames| Location {
        kind,
        module: module.map(ModuleId),
        address,
        frames,
    };
    vec![
        location(
            FrameKind::Native,
            Some(1),
            0x40_1000,
            vec![line("main", 10)],
        ),
        location(
            FrameKind::Native,
            Some(1),
            0x40_1100,
            vec![line("leaf", 20)],
        ),
        location(
            FrameKind::Native,
            Some(1),
            0x40_1200,
            vec![
                line("grow", 400),
                line("Vec<u8>::push", 300),
                line("main", 12),
            ],
        ),
        location(
            FrameKind::Kernel,
            Some(0),
            0xffff_8000_0000_1000,
            vec![frame("do_syscall_64")],
        ),
        location(
            FrameKind::Kernel,
            Some(0),
            0xffff_8000_0000_2000,
            vec![frame("copy_page")],
        ),
        location(
            FrameKind::Jit,
            None,
            0x7f00_0000_1000,
            vec![frame("regexp;run")],
        ),
        location(FrameKind::Marker, None, 0, vec![frame("no frame pointer")]),
    ]
}

fn account() -> Account {
    Account {
        taken: 104,
        shown: 100,
        lost: BTreeMap::from([(Lost::RingFull, 3), (Lost::Unexplained, 1)]),
        stacks: BTreeMap::from([
            (StopReason::FramePointersEnd, 90),
            (StopReason::FramePointerLost, 10),
        ]),
        notes: BTreeMap::from([(Counter::NoKernelStack.text().into(), 2)]),
        threads: BTreeMap::from([(ThreadTime::Followed, Duration::from_millis(2500))]),
        cost: Cost {
            bpf: Duration::from_millis(12),
            process: Duration::from_millis(431),
        },
    }
}
