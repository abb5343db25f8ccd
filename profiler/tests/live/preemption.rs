//! Threads that preempt each other within our BPF programs, at saturation: no record holds another process's bytes. The
//! kernel preempts there as it was booted to, which `cargo xtask test-kernel --step preemption` does in several ways.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use object::{Object, ObjectSegment, ObjectSymbol};
use profiler::kernel::{
    Kernel, Record, Wanted, call_offsets, kernel_offsets, switch_tells_state, tcp_offsets,
    wire_offsets,
};
use profiler_common::{
    config::{FILTER_TARGETS, Settings},
    outcome::Counter,
    sample::{KIND_OFF_CPU, Sample},
    tls::Passing,
    wire::{RECEIVED, SENT, Wire, WireSettings, source},
};

use crate::bench::{Bench, Target, bench};

const CANARY: &str = include_str!("drivers/canary.c");
/// How its processes are scheduled, one each: many of one kind, and who preempts them.
const SCHEDULED: [&str; 12] = [
    "0", "0", "0", "0", "0", "0", "5", "19", "-5", "idle", "fifo", "fifo",
];
/// The first one's byte; none is one of a text or an address.
const FIRST_BYTE: u8 = 0xa1;
/// A run of another's byte as long as this is no accident.
const RUN: usize = 16;
/// Records of each kind, all processes together, after which it is enough; and of a process at least.
const ENOUGH: u64 = 3000;
const EACH: u64 = 20;
/// A machine that gives no more in that time hangs.
const HANG: Duration = Duration::from_secs(200);
const READER_NICE: i32 = -20;
/// Often enough that the kernel side runs at most switches, calls and ticks.
const FREQUENCY_HZ: u64 = 997;

/// What was read of records: how many of each kind, and what is wrong with any.
#[derive(Default)]
struct Read {
    kinds: BTreeMap<&'static str, BTreeMap<u32, u64>>,
    wire: u64,
    malformed: u64,
    foreign: Vec<String>,
}

impl Read {
    fn count(&mut self, kind: &'static str, pid: u32) {
        *self.kinds.entry(kind).or_default().entry(pid).or_default() += 1;
    }

    fn take(&mut self, record: Record<'_>, bytes: &BTreeMap<u32, u8>) {
        match record {
            Record::Wire(wire) => self.take_wire(&wire, bytes),
            Record::Sample(sample) => self.take_sample(&sample, bytes),
            Record::Malformed => self.malformed += 1,
            Record::ThreadEnd(_) | Record::Process(_) | Record::Caller(_) | Record::Tcp(_) => {}
        }
    }

    fn take_wire(&mut self, wire: &Wire<'_>, bytes: &BTreeMap<u32, u8>) {
        self.wire += 1;
        let (pid, is_tls) = (wire.header.tgid, wire.header.source == source::TLS);
        self.count(if is_tls { "tls" } else { "wire" }, pid);
        let own = bytes.get(&pid).copied();
        let is_own = |part: &[u8]| own.is_some_and(|own| part == vec![own; part.len()]);
        if !is_own(wire.head) || !is_own(wire.tail) {
            self.foreign.push(format!("{own:x?}: {:?}", wire.header));
        }
    }

    fn take_sample(&mut self, sample: &Sample<'_>, bytes: &BTreeMap<u32, u8>) {
        let header = sample.header;
        let is_wait = header.kind == KIND_OFF_CPU;
        self.count(if is_wait { "wait" } else { "sample" }, header.tgid);
        let own = bytes.get(&header.tgid).copied();
        let name = own.map(|own| format!("canary {own}"));
        let is_named = name.is_some_and(|name| header.comm.starts_with(name.as_bytes()));
        let stack = sample.rest.map_or(&[][..], |rest| &rest.stack[..]);
        let is_others = |run: &[u8]| {
            own != Some(run[0])
                && run == [run[0]; RUN]
                && bytes.values().any(|byte| *byte == run[0])
        };
        if !is_named || stack.chunks_exact(RUN).any(is_others) {
            self.foreign.push(format!("{own:x?}: {header:?}"));
        }
    }

    fn is_enough(&self, pids: &BTreeMap<u32, u8>) -> bool {
        ["wire", "tls", "sample", "wait"].iter().all(|kind| {
            let of_kind = self.kinds.get(kind);
            let of = |pid| of_kind.and_then(|counts| counts.get(pid)).copied();
            let counts = pids.keys().map(|pid| of(pid).unwrap_or(0));
            // A thread of the idle class runs when all others wait, which they may never do.
            let few = counts.clone().filter(|count| *count < EACH).count();
            few <= 1 && (counts.sum::<u64>() >= ENOUGH || *kind == "sample")
        })
    }
}

/// Where a symbol lies in a file.
fn offset(program: &Path, name: &str) -> u64 {
    let bytes = fs::read(program).expect("it was just made");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let mut symbols = file.symbols();
    let symbol = symbols.find(|symbol| symbol.name() == Ok(name));
    let address = symbol.expect("the symbol is there").address();
    let holds = |begin: u64, size: u64| (begin..begin + size).contains(&address);
    let mut segments = file.segments();
    let segment = segments.find(|segment| holds(segment.address(), segment.size()));
    let segment = segment.expect("a segment holds it");
    address - segment.address() + segment.file_range().0
}

/// Everything that takes records at once: traffic, plaintext, samples and waits.
fn attach(kernel: &mut Kernel, program: &Path, pids: &BTreeMap<u32, u8>) {
    kernel.attach_lifecycle().expect("attached");
    for pid in pids.keys() {
        kernel.add_target(*pid, 0).expect("there is room");
    }
    for (name, direction) in [("pass_out", SENT), ("pass_in", RECEIVED)] {
        let passing = Passing {
            direction,
            length_argument: 0,
        };
        let end = offset(program, &format!("{name}_return"));
        kernel
            .attach_passing(program, passing, offset(program, name), &[end])
            .expect("attached");
    }
    kernel.attach_wire().expect("attached");
    kernel.attach_switches().expect("attached");
    kernel.start_clock(FREQUENCY_HZ).expect("a clock");
}

fn settings() -> (Settings, Wanted) {
    let settings = Settings {
        filters: FILTER_TARGETS,
        off_cpu: 1,
        switch_tells_state: u32::from(switch_tells_state().expect("BTF")),
        offsets: kernel_offsets().expect("BTF"),
        ..Settings::UNSET
    };
    let wanted = Wanted {
        calls: call_offsets().expect("BTF"),
        tcp: tcp_offsets().expect("BTF"),
        wire: WireSettings {
            wanted: 1,
            tls: 1,
            ..wire_offsets().expect("BTF")
        },
    };
    (settings, wanted)
}

/// The canary processes, and each one's byte.
fn canaries(program: &Path) -> (Vec<Target>, BTreeMap<u32, u8>) {
    let mut targets = Vec::new();
    let mut bytes = BTreeMap::new();
    for (byte, scheduled) in (FIRST_BYTE..).zip(SCHEDULED) {
        let target = Target::start(program, &[&byte.to_string(), scheduled]);
        until_named(&target, &format!("canary {byte}"));
        bytes.insert(target.0.id(), byte);
        targets.push(target);
    }
    (targets, bytes)
}

/// Waits until a process has given itself this name, which it does last before it begins.
fn until_named(target: &Target, name: &str) {
    let comm = format!("/proc/{}/comm", target.0.id());
    let is_named = || fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == name);
    let named = (0..600).any(|_| {
        let named = is_named();
        sleep(Duration::from_millis(if named { 0 } else { 100 }));
        named
    });
    assert!(named, "{name} does not begin");
}

/// Which preemption the kernel does, where it says so.
fn mode() -> String {
    let mode = fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
    mode.trim().to_owned()
}

fn recorded(bench: &Bench) -> (Read, BTreeMap<Counter, u64>) {
    let program = bench.compile("canary", CANARY, &["-no-pie"]);
    let (mut targets, bytes) = canaries(&program);
    let (settings, wanted) = settings();
    let (mut kernel, mut ring, _) = Kernel::load_with(&settings, &wanted).expect("loads");
    attach(&mut kernel, &program, &bytes);
    // Twelve that send all the time would leave the reader next to nothing of the processors.
    rustix::process::setpriority_process(None, READER_NICE).expect("root may");
    let mut read = Read::default();
    let began = Instant::now();
    while read.foreign.is_empty() && !read.is_enough(&bytes) && began.elapsed() < HANG {
        ring.drain(|record| read.take(record, &bytes));
        sleep(Duration::from_millis(1));
    }
    kernel.stop();
    ring.drain(|record| read.take(record, &bytes));
    for target in &mut targets {
        assert_eq!(target.0.try_wait().expect("it can be asked"), None, "ended");
    }
    let counters = kernel.counters().expect("the counters are read");
    let enough = read.is_enough(&bytes) || !read.foreign.is_empty();
    assert!(enough, "{:#?}\n{counters:#?}", read.kinds);
    (read, counters)
}

/// Twelve processes, preempted by each other wherever the kernel does it, have each record filled with their own byte
/// alone; each record that was begun came, or was counted.
#[test]
fn no_record_holds_another_processs_bytes() {
    let Some(bench) = bench() else { return };
    let (read, counters) = recorded(&bench);
    let sums = read.kinds.iter().map(|(kind, counts)| {
        let sum: u64 = counts.values().sum();
        format!("{sum} {kind}")
    });
    let sums: Vec<String> = sums.collect();
    let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
    println!(
        "preempt {}; records: {}; lost: {} without room, {} without buffer; not run: {}",
        mode(),
        sums.join(", "),
        counted(Counter::WireLost) + counted(Counter::RingFull),
        counted(Counter::Busy),
        counted(Counter::NotRun),
    );
    assert!(read.foreign.is_empty(), "{:#?}", read.foreign);
    assert_eq!(read.malformed, 0);
    let told = read.wire + counted(Counter::WireLost);
    assert_eq!(counted(Counter::WireTaken), told);
}
