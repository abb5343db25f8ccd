//! Every map and global of the programs: key, value, size, who writes, who reads.

use aya_ebpf::{
    bindings::{self, pt_regs},
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    helpers::generated,
    macros::btf_map,
};
use profiler_common::{
    comm::Step,
    config::Settings,
    limits::{
        CALLERS_MAX, CELLS_MAX, ERRORS_MAX, LISTENERS_MAX, MAPPINGS_MAX, PAGES_MAX,
        PYTHON_CACHE_MAX, PYTHONS_MAX, RING_BYTES, RULES_MAX, SEGMENTS_MAX, SOCKETS_MAX,
        SPACES_MAX, TARGETS_MAX, THREADS_MAX,
    },
    off_cpu::ThreadTimes,
    outcome::{COUNTERS, Counter},
    python::{FRAME_WORDS, HEAD_WORDS, Interpreter},
    sample::{Rest, SampleHeader, WORDS_MAX},
    syscalls::{Call, CallSettings, Cell, CellKey, ErrorKey},
    tcp::{Listener, Socket, TcpSettings},
    unwind::{
        LEAF_REGISTERS, Registers, Rule,
        table::{BLOCKS_PER_SEGMENT, Bounds, Mapping, Page, ROWS_PER_BLOCK, Space},
    },
    wire::{TAIL_BYTES, WHOLE_BYTES, WireHeader, WireInterest, WireSettings},
};

use crate::atomic;

/// Written by the loader before load, read by every program.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::UNSET;

/// Byte of a task's name → what it does to the pattern that is wanted. Likewise.
#[unsafe(no_mangle)]
pub(crate) static COMM_STEPS: [Step; 256] = [Step::NONE; 256];

/// tgid → `config::target` bits. Written by user space (targets), by fork (followers) and by the
/// first sample of a process found through another filter; removed at exit. Preallocated.
#[btf_map]
pub(crate) static TARGETS: HashMap<u32, u32, TARGETS_MAX> = HashMap::new();

/// tgid → its range of `MAPPINGS`. Written by user space and, for a child, by fork; removed at exec
/// and exit. Preallocated.
#[btf_map]
pub(crate) static SPACES: HashMap<u32, Space, SPACES_MAX> = HashMap::new();

/// tgid → its Python interpreter. Written by user space and, for a child, by fork; removed at exec and
/// exit. Preallocated.
#[btf_map]
pub(crate) static PYTHONS: HashMap<u32, Interpreter, PYTHONS_MAX> = HashMap::new();

/// tid → address of its Python thread state, where that had to be looked for. Verified at each use.
#[btf_map]
pub(crate) static PYTHON_THREADS: LruHashMap<u32, u64, PYTHON_CACHE_MAX> = LruHashMap::new();

/// Executable mappings, those of a process together and sorted. This and the three below are written
/// by user space through shared memory, read here.
#[btf_map]
pub(crate) static MAPPINGS: Array<Mapping, MAPPINGS_MAX, MMAPABLE> = Array::new();

/// Pages of files' unwind tables, those of a file together.
#[btf_map]
pub(crate) static PAGES: Array<Page, PAGES_MAX, MMAPABLE> = Array::new();

/// Rules of files' unwind tables, those of a file together.
#[btf_map]
pub(crate) static RULES: Array<Rule, RULES_MAX, MMAPABLE> = Array::new();

/// Rows of files' unwind tables, those of a page together. Segments come as they are needed.
#[btf_map]
pub(crate) static ROWS: ArrayOfMaps<Segment, SEGMENTS_MAX> = ArrayOfMaps::new();

/// See [`ROWS`].
pub(crate) type Segment = Array<[u32; ROWS_PER_BLOCK], BLOCKS_PER_SEGMENT, MMAPABLE>;

/// `BPF_F_MMAPABLE`
const MMAPABLE: usize = 1 << 10;

/// Records to user space: samples and process events.
#[btf_map]
pub(crate) static EVENTS: RingBuf<u8, RING_BYTES> = RingBuf::new();

/// `Counter` slots. Written here, read by user space.
#[btf_map]
pub(crate) static COUNTS: PerCpuArray<[u64; COUNTERS], 1> = PerCpuArray::new();

/// The record under construction and the state of the walk. One for each CPU and kind of program: a sample may hit within
/// a switch, and either within a call. Neither of these can be interrupted by itself; the one of calls is claimed.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 3> = PerCpuArray::new();

/// Index in `SCRATCH` of `cpu_sample`.
pub(crate) const FOR_SAMPLE: u32 = 0;
/// Index in `SCRATCH` of `sched_switch`.
pub(crate) const FOR_SWITCH: u32 = 1;

/// Index in `SCRATCH` of `sys_exit_stacks`.
pub(crate) const FOR_CALL: u32 = 2;

/// Likewise, of system calls.
#[unsafe(no_mangle)]
pub(crate) static CALL_SETTINGS: CallSettings = CallSettings::UNSET;

/// tid → the system call that it is in. Written by user space (threads that are there), fork, `sys_enter` and
/// `sys_exit`, and by user space read at the end; removed when the thread ends. Preallocated.
#[btf_map]
pub(crate) static CALLERS: HashMap<u32, Call, CALLERS_MAX> = HashMap::new();

/// Sums of system calls. Written by `sys_exit`, each CPU its own; read by user space. Preallocated.
#[btf_map]
pub(crate) static CELLS: PerCpuHashMap<CellKey, Cell, CELLS_MAX> = PerCpuHashMap::new();

/// What a cell begins with: too large for a program's stack. Never written.
#[btf_map]
pub(crate) static EMPTY_CELL: Array<Cell, 1> = Array::new();

/// Errors of system calls → how often. Written by `sys_exit`, each CPU its own; read by user space. Preallocated.
#[btf_map]
pub(crate) static ERRORS: PerCpuHashMap<ErrorKey, u64, ERRORS_MAX> = PerCpuHashMap::new();

/// Stacks taken in system calls in the period under way, and its beginning.
#[btf_map]
pub(crate) static CALL_BUDGET: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// Likewise, of TCP connections.
#[unsafe(no_mangle)]
pub(crate) static TCP_SETTINGS: TcpSettings = TcpSettings::UNSET;

/// Address of a socket → whose it is. Written when it connects, is accepted or is met for the first time; removed
/// when it is destroyed. Preallocated.
#[btf_map]
pub(crate) static SOCKETS: HashMap<u64, Socket, SOCKETS_MAX> = HashMap::new();

/// Cookie of a socket that was there before → whose it is. Written by user space. Preallocated.
#[btf_map]
pub(crate) static COOKIES: HashMap<u64, Socket, SOCKETS_MAX> = HashMap::new();

/// Where targets listen → which of them. Written by user space (those that do already) and when a target begins
/// to. Preallocated.
#[btf_map]
pub(crate) static LISTENERS: HashMap<Listener, u32, LISTENERS_MAX> = HashMap::new();

/// Likewise, of traffic.
#[unsafe(no_mangle)]
pub(crate) static WIRE_SETTINGS: WireSettings = WireSettings::UNSET;

/// tid → when it last entered a call that may send. Written at entry, read at return.
#[btf_map]
pub(crate) static WIRE_ENTRIES: LruHashMap<u32, u64, CALLERS_MAX> = LruHashMap::new();

/// Address of a socket's inode → what is known of it. Written at return from calls.
#[btf_map]
pub(crate) static WIRE_SOCKETS: LruHashMap<u64, WireSocket, SOCKETS_MAX> = LruHashMap::new();

/// Address of a socket's inode, or number of a connection of a TLS library → what is wanted of it. Written by user space.
#[btf_map]
pub(crate) static WIRE_INTERESTS: LruHashMap<u64, WireInterest, SOCKETS_MAX> = LruHashMap::new();

/// tid → the function of a TLS library that it is in. Written at its entry, removed at its return.
#[btf_map]
pub(crate) static TLS_CALLS: LruHashMap<u32, TlsCall, CALLERS_MAX> = LruHashMap::new();

/// A connection of a TLS library → how much was seen of it. Written at return from its functions, removed when it is
/// freed.
#[btf_map]
pub(crate) static TLS_STREAMS: LruHashMap<TlsKey, TlsStream, SOCKETS_MAX> = LruHashMap::new();

/// Records under construction: one of a thread that runs, others of threads that were preempted in theirs. Claimed.
#[btf_map]
pub(crate) static WIRE_SCRATCH: PerCpuArray<WireScratch, WIRE_SCRATCHES> = PerCpuArray::new();

/// So many on each CPU. Only kernels of 7.0 and later preempt a thread there, and few threads at once.
pub(crate) const WIRE_SCRATCHES: usize = 2;

/// tid → its account of time. Written by user space (threads that are there), fork and `sched_switch`,
/// read by user space; removed when the thread ends. Preallocated.
#[btf_map]
pub(crate) static THREADS: HashMap<u32, ThreadTimes, THREADS_MAX> = HashMap::new();

/// tid → what it left the CPU with. Written and read by `sched_switch`, and by user space for those that are
/// still off the CPU at the end; removed when the thread ends. Preallocated.
#[btf_map]
pub(crate) static LEFT: HashMap<u32, Left, THREADS_MAX> = HashMap::new();

/// Stacks taken at switches in the period under way, and its beginning.
#[btf_map]
pub(crate) static SWITCH_BUDGET: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// See [`LEFT`]: the beginning of a record.
#[repr(C)]
pub(crate) struct Left {
    pub(crate) header: SampleHeader,
    pub(crate) stacks: [u64; WORDS_MAX],
}

/// See [`WIRE_SCRATCH`]. `header` and `bytes` adjoin, as the record on the ring has them.
#[repr(C)]
pub(crate) struct WireScratch {
    pub(crate) header: WireHeader,
    /// With room that the verifier thinks head and tail could take together.
    pub(crate) bytes: [u8; WHOLE_BYTES + TAIL_BYTES],
    /// Bytes copied so far, and those to be copied next: see `wire::copy_vectors`.
    pub(crate) filled: u64,
    pub(crate) part: u64,
    /// Where the next piece of a long buffer is, and bytes of that buffer from there: see `wire::send_pieces`.
    pub(crate) from: u64,
    pub(crate) left: u64,
    /// See [`crate::atomic::claim`].
    pub(crate) taken: u64,
}

/// See [`WIRE_SOCKETS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct WireSocket {
    /// Inode number, which tells it from another one at the same address.
    pub(crate) inode: u64,
    /// Address of its `struct sock`.
    pub(crate) sock: u64,
    /// Bytes that were seen to be sent and received: positions where there are no sequence numbers.
    pub(crate) bytes: [u64; 2],
    /// Local address, one of IPv4 mapped into IPv6; zeros of a unix socket.
    pub(crate) local: [u8; 16],
    /// Remote address.
    pub(crate) remote: [u8; 16],
    /// Local port.
    pub(crate) local_port: u16,
    /// Remote port.
    pub(crate) remote_port: u16,
    /// One of [`profiler_common::wire::family`]; 0 of a socket that carries no stream.
    pub(crate) family: u32,
    /// When it carried something last, ns.
    pub(crate) seen_ns: u64,
    /// When it did so last after a pause that ended its being ignored, ns.
    pub(crate) woken_ns: u64,
    /// When it did so last another way than before, ns.
    pub(crate) turned_ns: u64,
    /// [`SENT`](profiler_common::wire::SENT) or [`RECEIVED`](profiler_common::wire::RECEIVED): the last one.
    pub(crate) direction: u64,
}

/// See [`TLS_CALLS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TlsCall {
    /// Whose it is: in a full table the place of one may be another's at any time.
    pub(crate) tid: u64,
    /// Address of the library's connection.
    pub(crate) connection: u64,
    pub(crate) buffer: u64,
    /// Where the function puts how many bytes it passed; 0 where that is its result.
    pub(crate) length_at: u64,
    /// The stack pointer at entry.
    pub(crate) stack: u64,
    /// A place that holds the same as long as the function has not returned, and what that is.
    pub(crate) slot: u64,
    pub(crate) caller: u64,
    pub(crate) entry_ns: u64,
    pub(crate) direction: u64,
    /// The socket that it used: address, inode number and family; zeros if none was seen.
    pub(crate) socket: [u64; 3],
}

/// See [`TLS_STREAMS`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct TlsKey {
    pub(crate) connection: u64,
    pub(crate) tgid: u64,
}

/// See [`TLS_STREAMS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TlsStream {
    /// Whose it is: in a full table the place of one may be another's at any time.
    pub(crate) key: TlsKey,
    /// A number that is given once.
    pub(crate) id: u64,
    /// Bytes that were seen to be sent and received.
    pub(crate) bytes: [u64; 2],
    /// The socket beneath: inode number, family and addresses; zeros if it is not known.
    pub(crate) inode: u64,
    pub(crate) local: [u8; 16],
    pub(crate) remote: [u8; 16],
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) family: u32,
}

/// See [`SCRATCH`]. `header`, `stacks` and `rest` adjoin, as the record on the ring has them.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) header: SampleHeader,
    pub(crate) stacks: [u64; WORDS_MAX],
    pub(crate) rest: Rest,
    pub(crate) walk: Walk,
    pub(crate) python: Python,
    /// The task's user registers: too many for a program's stack of 512 bytes.
    pub(crate) registers: pt_regs,
    /// See [`crate::atomic::claim`].
    pub(crate) taken: u64,
}

/// Where the walk up the Python stack stands.
#[repr(C)]
pub(crate) struct Python {
    pub(crate) interpreter: Interpreter,
    /// Of the task; what `pthread_self` gives.
    pub(crate) thread_pointer: u64,
    /// The thread state, found or under inspection.
    pub(crate) state: u64,
    /// The interpreter whose thread states come next.
    pub(crate) next_interpreter: u64,
    /// The frame to be looked at next.
    pub(crate) frame: u64,
    /// That frame.
    pub(crate) words: [u64; FRAME_WORDS],
    /// The head of its code object.
    pub(crate) head: [u32; HEAD_WORDS],
    /// Whether `state` is the one.
    pub(crate) found: u32,
    /// Frames met.
    pub(crate) count: u32,
    /// Frames that there is room for.
    pub(crate) room: u32,
    /// Which of them the next one is; behind the last one it goes on with the outer half.
    pub(crate) at: u32,
    /// Where in `stacks` that is.
    pub(crate) slot: u32,
    /// Whether the next frame is the first one of its activation.
    pub(crate) begins: u32,
    pub(crate) stop: u32,
}

/// Where the walk up the user stack stands.
#[repr(C)]
pub(crate) struct Walk {
    pub(crate) frame: Registers,
    pub(crate) frames: u32,
    pub(crate) stop: u32,
    /// How the frame was come by: bits of `stack`.
    pub(crate) how: u32,
    /// Where in `stacks` the next frame goes.
    pub(crate) slot: u32,
    /// The mappings of the process.
    pub(crate) space: Space,
    /// What a uretprobe has noted of the calls that it looks at: where in that list the walk stands, 0 at the beginning.
    pub(crate) probed: u64,
    /// The mapping found last: most frames lie in the one of their callee.
    pub(crate) mapping: Mapping,
    /// The rule found last.
    pub(crate) rule: Rule,
    /// Of the search under way.
    pub(crate) bounds: Bounds,
    /// The address read last.
    pub(crate) address: u64,
    /// The leaf's registers in DWARF numbering.
    pub(crate) leaf: [u64; LEAF_REGISTERS],
}

/// The loader's settings; a volatile read, as the compiler must not fold the zeros above.
macro_rules! setting {
    ($($field:tt)+) => {{
        // SAFETY: a live static of plain data, valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::SETTINGS.$($field)+) }
    }};
}
pub(crate) use setting;

/// Likewise, of system calls.
macro_rules! call_setting {
    ($field:ident) => {{
        // SAFETY: a live static of plain data, valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::CALL_SETTINGS.$field) }
    }};
}
pub(crate) use call_setting;

/// Likewise, of TCP connections.
macro_rules! tcp_setting {
    ($field:ident) => {{
        // SAFETY: a live static of plain data, valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::TCP_SETTINGS.$field) }
    }};
}
pub(crate) use tcp_setting;

/// Likewise, of traffic.
macro_rules! wire_setting {
    ($field:ident) => {{
        // SAFETY: a live static of plain data, valid and aligned.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::WIRE_SETTINGS.$field) }
    }};
}
pub(crate) use wire_setting;

/// Whether more than half of the ring waits for user space.
#[inline(always)]
pub(crate) fn is_crowded() -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the map's own address, as each helper takes it.
    let waiting =
        unsafe { generated::bpf_ringbuf_query(ring, u64::from(bindings::BPF_RB_AVAIL_DATA)) };
    waiting > RING_BYTES as u64 / 2
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot; the index is a constant below the length.
        let word = unsafe { &raw mut (*counts)[counter as usize] };
        atomic::add(word, 1);
    }
}
