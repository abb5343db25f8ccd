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
        FramePointerLost = 1 => "no frame pointer",
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
    }
}

impl StopReason {
    /// Whether the stack holds everything down to its outermost frame.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::FramePointersEnd | Self::KernelThread)
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
