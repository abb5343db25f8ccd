//! Every map and global of the programs: key, value, size, who writes, who reads.

use aya_ebpf::{
    bindings::pt_regs,
    btf_maps::{HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use profiler_common::{
    config::Settings,
    limits::{KERNEL_FRAMES_MAX, RING_BYTES, TARGETS_MAX, USER_FRAMES_MAX},
    outcome::{COUNTERS, Counter},
    sample::SampleHeader,
    unwind::Registers,
};

/// Written by the loader before load, read by every program.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::UNSET;

/// tgid → `config::target` bits. Written by user space (targets), by fork (followers) and by the
/// first sample of a process found through another filter; removed at exit. Preallocated.
#[btf_map]
pub(crate) static TARGETS: HashMap<u32, u32, TARGETS_MAX> = HashMap::new();

/// Records to user space: samples and process events.
#[btf_map]
pub(crate) static EVENTS: RingBuf<u8, RING_BYTES> = RingBuf::new();

/// `Counter` slots. Written here, read by user space.
#[btf_map]
pub(crate) static COUNTS: PerCpuArray<[u64; COUNTERS], 1> = PerCpuArray::new();

/// The sample under construction and the state of the walk. One for each CPU; only `cpu_sample`
/// uses it, which cannot interrupt itself.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// See [`SCRATCH`]. `header` and `stacks` adjoin, as the record on the ring has them.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) header: SampleHeader,
    pub(crate) stacks: [u64; KERNEL_FRAMES_MAX + USER_FRAMES_MAX],
    pub(crate) walk: Walk,
    /// The task's user registers: too many for a program's stack of 512 bytes.
    pub(crate) registers: pt_regs,
}

/// Where the walk up the user stack stands.
#[repr(C)]
pub(crate) struct Walk {
    pub(crate) frame: Registers,
    pub(crate) frames: u32,
    pub(crate) stop: u32,
}

/// The loader's settings; a volatile read, as the compiler must not fold the zeros above.
macro_rules! setting {
    ($($field:tt)+) => {{
        // SAFETY: a live static of plain data, valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SETTINGS.$($field)+) }
    }};
}
pub(crate) use setting;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot; the index is a constant below the length.
        unsafe { (*counts)[counter as usize] += 1 };
    }
}
