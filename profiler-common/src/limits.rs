//! Every bound of the project that both sides must agree on, each with its reason.

/// Longest user stack, in frames. Deep enough for Django under gunicorn and for recursive parsers;
/// deeper stacks end with [`StopReason::TooDeep`](crate::outcome::StopReason::TooDeep).
pub const USER_FRAMES_MAX: usize = 256;

/// Longest kernel stack, in frames: the kernel's own default, `kernel.perf_event_max_stack`.
pub const KERNEL_FRAMES_MAX: usize = 127;

/// Most Python frames that are sent, where the other stacks leave room for them: of a longer stack both ends.
/// Django under gunicorn has some 60, with a framework on top and middleware some 150.
pub const PYTHON_FRAMES_MAX: usize = 256;

/// Python frames that are sent, however long the other stacks are.
pub const PYTHON_FRAMES_MIN: usize = 128;

/// Python frames that are walked past to reach the outermost one.
pub const PYTHON_WALK_MAX: usize = 1024;

/// Steps up the list of Python frames: in the worst case (from 3.12 on) each is an activation of its own,
/// with a frame that stands for the evaluator's entry.
pub const PYTHON_STEPS_MAX: usize = 2 * PYTHON_WALK_MAX;

/// Interpreters and thread states that the kernel side looks through for the one of a thread, all together, where its
/// thread-specific data does not say: each costs a read. User space finds the others.
pub const PYTHON_THREADS_MAX: usize = 512;

/// Interpreters and thread states that user space looks through, all together.
pub const PYTHON_LIST_MAX: usize = 32_768;

/// Processes with an interpreter that the kernel side can hold at once: 400 KiB.
pub const PYTHONS_MAX: usize = 4096;

/// Threads whose thread state is remembered after it was looked for so: 1 MiB.
pub const PYTHON_CACHE_MAX: usize = 16_384;

/// Bytes of a task's name, its terminating zero included (`TASK_COMM_LEN` of the kernel).
pub const COMM_LEN: usize = 16;

/// Target processes that the kernel side can hold at once. The hash is preallocated (tracing
/// programs may not allocate before kernel 6.1): 16,384 entries cost about 1 MiB.
pub const TARGETS_MAX: usize = 16_384;

/// Most bytes of a stack that are copied with a sample whose walk could not go on, a whole number of
/// [`STACK_CHUNK_BYTES`]: enough for the first functions of a process, which is when that happens.
pub const STACK_COPY_BYTES: usize = 8192;

/// Bytes below the stack pointer that are copied before those: the red zone, which a leaf may use (System
/// V x86-64 psABI §3.2.2). A function that has popped its frame pointer and not returned yet has it there.
pub const STACK_RED_ZONE_BYTES: usize = 128;

/// Bytes that are copied at once: a chunk that reaches into a page that is not there is left out.
pub const STACK_CHUNK_BYTES: usize = 512;

/// Processes whose mappings the kernel side can hold at once: as many as targets.
pub const SPACES_MAX: usize = TARGETS_MAX;

/// Executable mappings of all processes together; those of a forked process are its parent's. 5 MiB:
/// 2,000 processes of 60 mappings each that do not stem from one another.
pub const MAPPINGS_MAX: usize = 131_072;

/// Pages of 64 KiB in all unwind tables together: 4 GiB of code, 512 KiB of memory.
pub const PAGES_MAX: usize = 65_536;

/// Rules of all unwind tables together, 1 MiB: the system's libraries have 8 to 785 distinct ones each.
pub const RULES_MAX: usize = 65_536;

/// Segments of rows: 1 MiB each, made as they are needed. 64 million rows.
pub const SEGMENTS_MAX: usize = 256;

/// Threads whose time off the CPU is followed at once. A preallocated entry takes 5.4 KB, the stacks it
/// left with included: 43 MiB, and nothing where it is not asked for.
pub const THREADS_MAX: usize = 8192;

/// Time in which a thread earns one stack at leaving a CPU, ns: 2,000 a second, which costs it some hundredths
/// of its CPU at most.
pub const SWITCH_STACK_INTERVAL_NS: u64 = 500_000;

/// Stacks that a thread can have saved up: one that works in bursts has all of its own.
pub const SWITCH_STACK_BURST: u64 = 200;

/// Most stacks of all threads leaving one CPU, in each period of [`SWITCH_BUDGET_PERIOD_NS`]: at some 10 to 20 µs each, three
/// to six hundredths of the CPU.
pub const SWITCH_STACKS_MAX: u64 = 300;

/// See [`SWITCH_STACKS_MAX`].
pub const SWITCH_BUDGET_PERIOD_NS: u64 = 100_000_000;

/// Threads whose system calls are followed at once. A preallocated entry takes about 100 bytes.
pub const CALLERS_MAX: usize = 16_384;

/// Sums of system calls at most, each of a process and call and, where asked for, thread and descriptor. A
/// sum takes 2.5 KB on each CPU.
pub const CELLS_MAX: usize = 8192;

/// Memory of all sums together, which bounds their number on machines with many CPUs.
pub const CELLS_BYTES: usize = 128 << 20;

/// However many CPUs there are, so many sums have room: a process with every call there is.
pub const CELLS_MIN: usize = 512;

/// Distinct errors of calls.
pub const ERRORS_MAX: usize = 4096;

/// Time in system calls that each stack stands for, ns: a thread has at most 1,000 taken in a second.
pub const CALL_STACK_PERIOD_NS: u64 = 1_000_000;

/// TCP sockets that are followed at once. Two preallocated entries of each take about 10 MiB.
pub const SOCKETS_MAX: usize = 65_536;

/// Ports that targets listen on.
pub const LISTENERS_MAX: usize = 4096;

/// Bytes of the ring buffer from the kernel to user space. A worst-case sample takes about 5.2 KB,
/// so the ring holds 1,600 of them: 16 s of one CPU at 99 Hz, and 100 ms of 16 CPUs at 999 Hz.
pub const RING_BYTES: usize = 8 << 20;

/// The largest distance in bytes from the stack pointer at which a frame record is believed. Beyond
/// it the frame pointer register is taken to hold something else.
pub const FRAME_BYTES_MAX: u64 = 1 << 20;

const _: () = assert!(
    RING_BYTES.is_power_of_two(),
    "the kernel wants a power of two of pages"
);
const _: () = assert!(RING_BYTES >= 1024 * crate::sample::SAMPLE_BYTES_MAX);
