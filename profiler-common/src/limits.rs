//! Every bound of the project that both sides must agree on, each with its reason.

/// Longest user stack, in frames. Deep enough for Django under gunicorn and for recursive parsers;
/// deeper stacks end with [`StopReason::TooDeep`](crate::outcome::StopReason::TooDeep).
pub const USER_FRAMES_MAX: usize = 256;

/// Longest kernel stack, in frames: the kernel's own default, `kernel.perf_event_max_stack`.
pub const KERNEL_FRAMES_MAX: usize = 127;

/// Bytes of a task's name, its terminating zero included (`TASK_COMM_LEN` of the kernel).
pub const COMM_LEN: usize = 16;

/// Target processes that the kernel side can hold at once. The hash is preallocated (tracing
/// programs may not allocate before kernel 6.1): 16,384 entries cost about 1 MiB.
pub const TARGETS_MAX: usize = 16_384;

/// Bytes of the ring buffer from the kernel to user space. A worst-case sample takes about 3.1 KB,
/// so the ring holds 2,700 of them: over 10 s of one CPU at 99 Hz, and 100 ms of 27 CPUs at 999 Hz.
pub const RING_BYTES: usize = 8 << 20;

/// The largest distance in bytes from the stack pointer at which a frame record is believed. Beyond
/// it the frame pointer register is taken to hold something else.
pub const FRAME_BYTES_MAX: u64 = 1 << 20;

const _: () = assert!(
    RING_BYTES.is_power_of_two(),
    "the kernel wants a power of two of pages"
);
const _: () = assert!(RING_BYTES >= 1024 * crate::sample::SAMPLE_BYTES_MAX);
