//! Every way a user stack can end, and every counter of the kernel side: one list for both sides.
//!
//! A bad sample is data: the kernel side never drops a sample without counting it here, and the
//! report shows every reason by its text.

macro_rules! closed_enum {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $id:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vmeta])* $variant = $id,)+ }

        impl $name {
            /// All variants in the order of their ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The variant with this id, if there is one.
            #[must_use]
            pub const fn from_id(id: $repr) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)+ _ => None }
            }

            /// What it means, in words for a report.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

closed_enum! {
    /// Why the walk up a user stack ended.
    StopReason: u8 {
        /// The frame pointer chain reached its end: a zero frame pointer or return address, as the
        /// ABI sets them up at process and thread start (System V x86-64 psABI §3.4.1).
        FramePointersEnd = 0 => "end of the frame pointer chain",
        /// The frame pointer register held no plausible frame record: code without frame pointers.
        FramePointerLost = 1 => "no unwind table and no frame pointer",
        /// The stack memory could not be read: usually a page that is not resident.
        ReadStack = 2 => "stack page not readable",
        /// The stack is deeper than [`USER_FRAMES_MAX`](crate::limits::USER_FRAMES_MAX).
        TooDeep = 3 => "deeper than 256 frames",
        /// A 32-bit process: its stack is not walked.
        Ia32 = 4 => "32-bit process",
        /// A kernel thread: it has no user stack, its stack is complete without one.
        KernelThread = 5 => "kernel thread",
        /// The task has given up its memory while exiting: no user stack is left.
        Exiting = 6 => "exiting process",
        /// The saved user registers could not be read.
        NoRegisters = 7 => "user registers not readable",
        /// The outermost frame: its unwind table says that it has no caller, or the stack ends with it.
        Outermost = 8 => "outermost frame",
        /// The process is not known to the unwinder yet: its first samples, until user space has read
        /// its mappings.
        NoProcess = 9 => "process not known yet",
        /// An address outside of every executable mapping known: a library loaded just now.
        NoMapping = 10 => "address in no known mapping",
        /// The unwind table has a rule that the kernel side cannot apply there.
        UnsupportedRule = 11 => "unwind rule not supported",
        /// The stack pointer of the caller does not lie above that of the callee.
        StackPointerLost = 12 => "stack pointer not growing",
        /// The return address is none.
        BadReturnAddress = 13 => "no code at the return address",
        /// The task is replacing its program (execve): its user stack is gone, the new one has not begun.
        Exec = 14 => "replacing its program",
        /// No stack was taken when the thread left the CPU: it or the CPU was at its limit.
        Limit = 15 => "limit of stacks reached",
        /// The thread was off the CPU already when the recording began.
        Before = 16 => "off the CPU since before the recording",
        /// One of the first samples of a process, walked on a copy of its stack, which ended before the stack.
        CopyEnd = 17 => "stack longer than its copy",
        /// The thread waited for its first CPU: it had no stack yet.
        NotStarted = 18 => "thread not started yet",
        /// The return address is zero where no thread begins: a rule was wrong, here or further in.
        NoReturnAddress = 19 => "return address of zero where no thread begins",
        /// Code was replaced there just before, and the unwind tables were those of the old code.
        Replaced = 20 => "code was replaced, walked with the old tables",
        /// The native stack is whole; of the Python stack the middle or the outer part is left out.
        PythonLeftOut = 21 => "Python stack longer than is kept",
        /// A uretprobe has put its own address there, and the kernel does not say what it has taken away.
        Probed = 22 => "return address replaced by a probe of another tracer",
    }
}

impl StopReason {
    /// Whether the stack holds everything down to its outermost frame.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        matches!(
            self,
            Self::FramePointersEnd
                | Self::KernelThread
                | Self::Outermost
                | Self::Exec
                | Self::NotStarted
        )
    }
}

closed_enum! {
    /// How the walk up the list of Python frames ended.
    PythonStop: u8 {
        /// There was none: the process maps no interpreter that is known.
        None = 0 => "no Python",
        /// All frames are there.
        Outermost = 1 => "outermost Python frame",
        /// It has more than [`PYTHON_WALK_MAX`](crate::limits::PYTHON_WALK_MAX).
        TooDeep = 2 => "Python stack deeper than 1,024 frames",
        /// A frame or its code object could not be read.
        Unreadable = 3 => "Python frame not readable",
        /// The thread is none that the interpreter knows: a native one.
        NoThread = 4 => "thread without Python",
    }
}

closed_enum! {
    /// Slots of the kernel side's per-CPU counters.
    Counter: u32 {
        /// Samples of a target task that the kernel side began to take.
        Taken = 0 => "samples taken",
        /// Samples handed to user space.
        Sent = 1 => "samples sent",
        /// Samples that found the ring buffer full.
        RingFull = 2 => "ring buffer full",
        /// Process events (fork, exec, exit) that found the ring buffer full.
        EventLost = 3 => "process event lost, ring buffer full",
        /// Processes that could not be followed because the table of targets was full.
        TargetsFull = 4 => "process not followed, table full",
        /// Samples whose kernel stack could not be taken; the sample is kept without it.
        NoKernelStack = 5 => "kernel stack not readable",
        /// Forked processes whose parent's mappings could not be handed on because the table was full.
        SpacesFull = 6 => "mappings of a forked process not handed on, table full",
        /// Threads whose time off the CPU could not be followed.
        ThreadsFull = 7 => "thread not followed, table full",
        /// Spans off the CPU at least as long as the threshold.
        SpansTaken = 8 => "spans off the CPU",
        /// Of those, without a stack, because the thread or the CPU was at its limit.
        NoSwitchStack = 9 => "span off the CPU without a stack, limit reached",
        /// Forked processes whose parent's interpreter could not be handed on because the table was full.
        PythonsFull = 10 => "Python of a forked process not handed on, table full",
        /// System calls of followed threads that were entered.
        CallsEntered = 11 => "system calls entered",
        /// System calls that were not followed because the table of threads was full.
        CallersFull = 12 => "system call not counted, table of threads full",
        /// System calls that returned and found the table of sums full.
        CellsFull = 13 => "system call not counted, table of sums full",
        /// Times that a call's thread or descriptor found no room in the table of sums, so that it is counted with
        /// others of its process.
        CellsCoarse = 14 => "thread or descriptor found no room of its own, table of sums full",
        /// Threads that entered a system call while they were in one: the return was not seen.
        ReturnUnseen = 15 => "system call whose return was not seen",
        /// Threads that returned from a system call that they were not seen to enter, such as one that a seccomp
        /// filter refused.
        EntryUnseen = 16 => "return from a system call whose entry was not seen",
        /// Threads that were noted as being in a call when the recording began, and were not when they entered
        /// another one.
        EntryBefore = 17 => "system call under way at the beginning whose return was not seen",
        /// Errors that found the table of errors full.
        ErrorsFull = 18 => "error of a system call not counted by its number, table full",
        /// Stacks taken in system calls.
        CallStacks = 19 => "stacks in system calls",
        /// Stacks not taken when they were due because the CPU was at its limit; a later one stands for the time.
        CallStackLate = 20 => "stack in a system call taken late, limit reached",
        /// TCP connections of targets that were begun or accepted.
        ConnectionsBegun = 21 => "connections begun",
        /// TCP sockets of targets that could not be followed because a table was full.
        SocketsFull = 22 => "connection not followed, table full",
        /// System calls of targets that carried bytes through a socket that is looked at.
        WireTaken = 23 => "sends and receives seen",
        /// Of those, calls whose record found the ring buffer full.
        WireLost = 24 => "send or receive lost, ring buffer full",
        /// Of those, calls whose buffer could not be read.
        WireUnreadable = 25 => "buffer of a send or receive not readable",
        /// Calls whose entry could not be noted because the table of threads was full.
        WireEntriesFull = 26 => "entry of a send not noted, table full",
        /// Calls whose socket found no room in the table of sockets, or could not be read.
        WireSocketsFull = 27 => "send or receive not followed, table of sockets full",
        /// Calls of a TLS library that could not be noted because a table was full.
        TlsFull = 28 => "call of a TLS library not followed, table full",
        /// Threads that left a CPU and were not seen to come to it: the kernel ran no program at that switch.
        ArrivalUnseen = 29 => "switch to a thread not seen, put where the scheduler's account has it",
        /// Times that the kernel did not run a program of ours because it was under way on that CPU already, in a thread
        /// that was preempted or interrupted. Counted by the kernel.
        NotRun = 30 => "event missed, another one was under way",
        /// Calls whose record was not built because all memory for it was in use by threads that were preempted.
        Busy = 31 => "send or receive lost, preempted threads held all buffers of its processor",
    }
}

/// Number of counter slots.
pub const COUNTERS: usize = Counter::ALL.len();

#[cfg(test)]
mod tests {
    use super::{Counter, StopReason};

    /// Ids are dense and survive the way through the record.
    #[test]
    fn ids_are_dense_and_reversible() {
        for (index, reason) in StopReason::ALL.iter().enumerate() {
            assert_eq!(usize::from(*reason as u8), index);
            assert_eq!(StopReason::from_id(*reason as u8), Some(*reason));
        }
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
        assert_eq!(StopReason::from_id(200), None);
    }
}
