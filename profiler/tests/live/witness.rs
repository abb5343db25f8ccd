//! The kernel side's walk against another unwinder (framehop, which runs the call frame information
//! itself) on the same registers and the same stack, sample by sample.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    process::Command,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use framehop::{
    Error, ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use gimli::UnwindSection;
use object::{Object, ObjectSection, ObjectSegment};
use profiler::{
    kernel::{Kernel, Record, Ring, kernel_offsets},
    process::{self, Backing, Processes},
    unwind::Unwinder,
};
use profiler_common::{
    config::{FILTER_TARGETS, Settings},
    outcome::StopReason,
    sample::{Rest, Sample},
};

use crate::{
    bench::{Bench, Target, bench},
    postgres::Postgres,
    stacks::{CPP, CPYTHON, NODE, RELEASE, THROWS},
};

/// Samples wanted.
const SAMPLES: usize = 12_000;
/// Fast enough for a short test, on any number of processors.
const FREQUENCY_HZ: u64 = 999;

type Bytes = Arc<[u8]>;

/// A mapped file.
struct Mapped {
    range: Range<u64>,
    name: String,
    /// What is added to the file's addresses.
    base: u64,
    code: Code,
}

/// What a file's call frame information tells of its code.
#[derive(Default)]
struct Code {
    /// Functions with call frame information by address, with whether they are a signal's trampoline.
    functions: Vec<(Range<u64>, bool)>,
    /// Code whose CFA is found by a register that is neither `rsp` nor `rbp`.
    by_others: Vec<Range<u64>>,
}

/// The other unwinder's view of one process.
struct Witness {
    unwinder: UnwinderX86_64<Bytes>,
    cache: CacheX86_64,
    mapped: Memory,
}

/// What is mapped in one process.
struct Memory(Vec<Mapped>);

/// How the two walks of one sample compare.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// All frames are equal. Where the kernel side said that there is no code at an address, the other
    /// found the same address.
    Equal,
    /// All frames are equal up to where the copy of the stack ended.
    EqualAsFarAsCopied,
    /// They differ from a frame on that has no call frame information. There the kernel side goes by frame
    /// pointer, and reached the outermost frame; the other takes it for a function that has pushed
    /// nothing, if it is the leaf. V8's own code is such.
    NoInformation,
    /// They differ at a leaf whose CFA is found by a register that the other is not given, as at the end of
    /// `_Unwind_RaiseException`. The kernel side reached the outermost frame.
    OtherRegister,
    /// They differ after the frame of a signal, behind which the other takes the interrupted code for a
    /// call. The kernel side reached the outermost frame.
    Signal,
    /// They differ for another reason.
    Different(Difference),
}

/// Where two walks part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    /// The last frame in common.
    last: String,
    /// How the kernel side's walk ended.
    stop: &'static str,
    /// What the other one found.
    witness: String,
}

impl Witness {
    fn new(pid: u32, processes: &Processes, vdso: &File) -> Self {
        let mut unwinder = UnwinderX86_64::new();
        let mut mapped = Vec::new();
        for mapping in processes.mappings(pid) {
            let (name, file) = match mapping.backing {
                Backing::Anonymous | Backing::Uprobes => continue,
                Backing::Vdso => ("vdso".to_owned(), vdso),
                Backing::File(file) => {
                    let pinned = &processes.files()[file.index()];
                    let name = pinned.path.display().to_string();
                    (name, pinned.file.as_ref().expect("a file of the test's"))
                }
            };
            let range = mapping.start..mapping.end;
            let bytes = read(file);
            let base = base(mapping, &bytes);
            unwinder.add_module(module(&name, range.clone(), base, &bytes));
            let code = code(&bytes);
            mapped.push(Mapped {
                range,
                name,
                base,
                code,
            });
        }
        let cache = CacheX86_64::new();
        Self {
            unwinder,
            cache,
            mapped: Memory(mapped),
        }
    }

    /// Walks and compares with what the kernel side found.
    fn compare(&mut self, sample: &Sample<'_>, rest: &Rest) -> Verdict {
        let stack = &rest.stack[..rest.bytes as usize];
        let mut beyond = false;
        let mut read_word = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(rest.base())).unwrap_or(usize::MAX);
            let word = stack.get(at..).and_then(|bytes| bytes.first_chunk::<8>());
            beyond |= word.is_none() && address >= rest.base();
            word.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(())
        };
        let frame = rest.frame;
        let registers = UnwindRegsX86_64::new(frame.pc, frame.sp, frame.bp);
        let Self {
            unwinder,
            cache,
            mapped,
        } = self;
        let mut theirs = unwinder.iter_frames(frame.pc, registers, cache, &mut read_word);
        let mut ours = sample.user.iter().copied();
        let mut last = 0;
        let mut after_signal = false;
        let (their_next, our_next) = loop {
            match (theirs.next(), ours.next()) {
                (Ok(Some(address)), Some(ours)) if is_same(address, ours) => {
                    last = ours;
                    after_signal |= mapped.function(ours) == Some(true);
                }
                ends => break ends,
            }
        };
        // The kernel side looked for the call before the address, and found no mapping.
        let lost = sample.stop == StopReason::NoMapping && our_next.is_none();
        let different = || Verdict::Different(mapped.difference(sample, last, &their_next));
        match (&their_next, our_next) {
            (Ok(None) | Err(_), None) => Verdict::Equal,
            (Ok(Some(address)), None) if lost && address.address() == sample.header.fault + 1 => {
                Verdict::Equal
            }
            (Err(_), Some(_)) if beyond => Verdict::EqualAsFarAsCopied,
            _ if sample.stop != StopReason::Outermost => different(),
            _ if after_signal => Verdict::Signal,
            _ if last == frame.pc && mapped.is_by_other(last) => Verdict::OtherRegister,
            _ if mapped.function(last).is_none() => Verdict::NoInformation,
            _ => different(),
        }
    }
}

impl Memory {
    fn difference(
        &self,
        sample: &Sample<'_>,
        last: u64,
        theirs: &Result<Option<FrameAddress>, Error>,
    ) -> Difference {
        Difference {
            last: self.name(last),
            stop: sample.stop.text(),
            witness: match theirs {
                Ok(Some(address)) => self.name(address.address()),
                Ok(None) => "the end".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    fn find(&self, address: u64) -> Option<&Mapped> {
        self.0.iter().find(|mapped| mapped.range.contains(&address))
    }

    /// Whether the instruction before an address is of a signal's trampoline, if there is call frame
    /// information for it.
    fn function(&self, address: u64) -> Option<bool> {
        let mapped = self.find(address)?;
        let address = address - mapped.base - 1;
        let functions = &mapped.code.functions;
        let after = functions.partition_point(|(range, _)| range.start <= address);
        let (range, is_signal) = functions.get(after.checked_sub(1)?)?;
        range.contains(&address).then_some(*is_signal)
    }

    /// Whether the CFA of the instruction at an address is found by another register than `rsp` and `rbp`.
    fn is_by_other(&self, address: u64) -> bool {
        self.find(address).is_some_and(|mapped| {
            let address = address - mapped.base;
            let is_in = |range: &Range<u64>| range.contains(&address);
            mapped.code.by_others.iter().any(is_in)
        })
    }

    fn name(&self, address: u64) -> String {
        match self.find(address) {
            Some(mapped) => format!("{}+{:#x}", mapped.name, address - mapped.base),
            None => format!("{address:#x}, in no file"),
        }
    }
}

/// The kernel side's address of code that a signal interrupted stands one byte behind it.
fn is_same(theirs: FrameAddress, ours: u64) -> bool {
    theirs.address() == ours || (theirs.is_return_address() && theirs.address() + 1 == ours)
}

fn read(file: &File) -> Bytes {
    let length = file.metadata().expect("its length").len();
    let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
    file.read_exact_at(&mut bytes, 0).expect("it is readable");
    bytes.into()
}

/// What is added to the addresses of a file where it is mapped so.
fn base(mapping: &process::Mapping, bytes: &Bytes) -> u64 {
    let object = object::File::parse(&**bytes).expect("an ELF file");
    let (offset, address) = object
        .segments()
        .map(|segment| (segment.file_range(), segment.address()))
        .find(|((offset, size), _)| {
            offset & !4095 <= mapping.file_offset && mapping.file_offset < offset + size
        })
        .map(|((offset, _), address)| (offset, address))
        .expect("a segment");
    (mapping.start + offset).wrapping_sub(mapping.file_offset + address)
}

/// What is read of a file's `.eh_frame`.
fn code(bytes: &Bytes) -> Code {
    let object = object::File::parse(&**bytes).expect("an ELF file");
    let Some(section) = object.section_by_name(".eh_frame") else {
        return Code::default();
    };
    let data = section.uncompressed_data().expect("its data");
    let section_at = gimli::BaseAddresses::default()
        .set_eh_frame(section.address())
        .set_text(0)
        .set_got(0);
    let eh_frame = gimli::EhFrame::new(&data, gimli::LittleEndian);
    let mut context = gimli::UnwindContext::new();
    let mut code = Code::default();
    let mut entries = eh_frame.entries(&section_at);
    while let Some(entry) = entries.next().expect("whole entries") {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial
            .parse(UnwindSection::cie_from_offset)
            .expect("a whole entry");
        let range = fde.initial_address()..fde.end_address();
        code.functions.push((range, fde.is_signal_trampoline()));
        let mut rows = fde
            .rows(&eh_frame, &section_at, &mut context)
            .expect("a whole entry");
        // Hand-written code may have a row that no unwinder reads: those before it count.
        while let Ok(Some(row)) = rows.next_row() {
            if let gimli::CfaRule::RegisterAndOffset { register, .. } = row.cfa()
                && ![gimli::X86_64::RSP, gimli::X86_64::RBP].contains(register)
            {
                code.by_others.push(row.start_address()..row.end_address());
            }
        }
    }
    code.functions
        .sort_unstable_by_key(|(range, _)| range.start);
    code
}

/// A file as the other unwinder wants it.
fn module(name: &str, range: Range<u64>, base: u64, bytes: &Bytes) -> Module<Bytes> {
    let object = object::File::parse(&**bytes).expect("an ELF file");
    let section = |name: &str| object.section_by_name(name);
    let extent = |name: &str| section(name).map(|s| s.address()..s.address() + s.size());
    let data = |name: &str| {
        let data = section(name)?.uncompressed_data().ok()?;
        Some(Bytes::from(&*data))
    };
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: extent(".text"),
        text: data(".text"),
        got_svma: extent(".got"),
        eh_frame_svma: extent(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: extent(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        debug_frame: data(".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    };
    Module::new(name.to_owned(), range, base, sections)
}

/// The programs that are walked: what distributions build without frame pointers, and what a runtime
/// compiles.
struct Programs {
    _targets: Vec<Target>,
    _postgres: Postgres,
    pids: BTreeSet<u32>,
}

fn programs(bench: &Bench) -> Programs {
    let postgres = Postgres::start().expect("a cluster starts");
    let pgbench = |arguments: &[&str]| {
        let mut client = postgres.client("pgbench").expect("pgbench is there");
        client.args(arguments);
        client
    };
    let quiet = ["--quiet", "--initialize", "--scale=1"];
    assert!(pgbench(&quiet).output().expect("it runs").status.success());
    let throws = bench.compile("throws", THROWS, &[&RELEASE[..], &CPP].concat());
    let targets = vec![
        Target::spawn(&mut pgbench(&["--client=2", "--time=120"])),
        Target::spawn(Command::new("/usr/bin/python3").args(["-c", CPYTHON])),
        Target::spawn(Command::new("node").args(["-e", NODE])),
        Target::start(&throws, &[]),
    ];
    sleep(Duration::from_secs(1));
    let mut pids: BTreeSet<u32> = targets.iter().map(|target| target.0.id()).collect();
    pids.extend(postgres.pids().expect("the cluster's processes"));
    Programs {
        _targets: targets,
        _postgres: postgres,
        pids,
    }
}

/// Loads the programs so that each sample comes with its registers and its stack.
fn start(pids: &BTreeSet<u32>, processes: &mut Processes) -> (Kernel, Ring) {
    let settings = Settings {
        filters: FILTER_TARGETS,
        witness: 1,
        offsets: kernel_offsets().expect("this kernel's offsets"),
        ..Settings::UNSET
    };
    let (mut kernel, ring, shared) = Kernel::load(&settings).expect("the programs load");
    let mut unwinder = Unwinder::new(shared, process::vdso_image().ok());
    for &pid in pids {
        kernel.add_target(pid, 0).expect("room for a target");
        processes.observe(pid);
        unwinder
            .set_mappings(pid, processes.mappings(pid), processes.files())
            .expect("room for its mappings");
    }
    kernel.start_clock(FREQUENCY_HZ).expect("a clock");
    (kernel, ring)
}

/// Samples of Postgres, `CPython`, node and C++ exceptions: each stack is that of framehop, as far as the
/// copy of the stack goes. What differs is listed, by cause.
#[test]
fn walks_are_those_of_another_unwinder() {
    let Some(bench) = bench() else { return };
    let programs = programs(&bench);
    let mut processes = Processes::new();
    let (mut kernel, mut ring) = start(&programs.pids, &mut processes);
    let vdso = process::vdso_image().expect("a vdso");
    let mut witnesses: HashMap<u32, Witness> = HashMap::new();
    let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut compared = 0;
    let deadline = Instant::now() + Duration::from_secs(100);
    while compared < SAMPLES && Instant::now() < deadline {
        ring.drain(|record| {
            let Record::Sample(sample) = record else {
                return;
            };
            let Some(rest) = sample.rest else { return };
            let pid = sample.header.tgid;
            let witness = witnesses
                .entry(pid)
                .or_insert_with(|| Witness::new(pid, &processes, &vdso));
            *verdicts.entry(witness.compare(&sample, rest)).or_default() += 1;
            compared += 1;
        });
        sleep(Duration::from_millis(10));
    }
    kernel.stop();
    for (verdict, count) in &verdicts {
        println!("{count:6} {verdict:?}");
    }
    assert!(compared >= 10_000, "only {compared} samples");
    let is_unexplained = |verdict: &&Verdict| matches!(verdict, Verdict::Different(_));
    assert_eq!(verdicts.keys().find(is_unexplained), None);
}
