//! What a thread waits for, in words: from the system call that it was in when it left the CPU, and
//! what the call's descriptor or lock is.
//!
//! It is looked up when the span is told, that is when it is over: a descriptor that was closed since is only a
//! number then.

mod descriptor;
mod lock;

use profiler_common::{
    off_cpu::{State, wait},
    sample::SampleHeader,
};
use syscalls::Sysno;

pub(crate) use self::descriptor::Descriptors;
use self::lock::Locks;

/// What a call's first argument is.
enum Operand {
    Descriptor,
    Futex,
    /// An array of that many `struct pollfd`.
    Poll,
    Other,
}

/// Looks waits up, and remembers sockets and the symbols of locks.
#[derive(Debug, Default)]
pub struct Waits {
    descriptors: Descriptors,
    locks: Locks,
}

impl Waits {
    /// The text of the frame that stands on a stack, without brackets.
    pub fn describe(&mut self, header: &SampleHeader) -> String {
        if header.wait & wait::STOPPED != 0 {
            return "stopped".to_owned();
        }
        let state = State::from_id(header.state).unwrap_or(State::Blocked);
        let how = match state {
            State::Running | State::Runnable => return state.text().to_owned(),
            State::Uninterruptible if header.wait & wait::IO != 0 => "disk",
            State::Blocked | State::Uninterruptible => state.text(),
        };
        let Ok(number) = usize::try_from(header.syscall) else {
            return format!("{how}: page fault");
        };
        let Some(call) = Sysno::new(number) else {
            return format!("{how}: system call {number}");
        };
        match self.operand(call, header) {
            Some(what) => format!("{how}: {}, {what}", call.name()),
            None => format!("{how}: {}", call.name()),
        }
    }

    fn operand(&mut self, call: Sysno, header: &SampleHeader) -> Option<String> {
        let (pid, first) = (header.tgid, header.arguments[0]);
        match operand(call) {
            Operand::Descriptor => Some(self.descriptors.describe(pid, low_word(first))),
            Operand::Futex => Some(self.locks.describe(pid, first, header.operand)),
            Operand::Poll => {
                let descriptor = self.descriptors.describe(pid, header.operand);
                Some(match low_word(header.arguments[1]) {
                    0 => return None,
                    _ if header.operand == u32::MAX => "descriptors".to_owned(),
                    1 => descriptor,
                    more => format!("{descriptor} and {} more", more - 1),
                })
            }
            Operand::Other => None,
        }
    }
}

/// Descriptors are ints: the upper half of the register means nothing.
pub(crate) fn low_word(register: u64) -> u32 {
    (register & 0xffff_ffff) as u32
}

/// Whether a call works on the descriptor that is its first argument.
pub(crate) fn takes_descriptor(name: &str) -> bool {
    const DESCRIPTOR: [&str; 61] = [
        "read",
        "write",
        "readv",
        "writev",
        "pread64",
        "pwrite64",
        "preadv",
        "pwritev",
        "preadv2",
        "pwritev2",
        "recvfrom",
        "recvmsg",
        "recvmmsg",
        "sendto",
        "sendmsg",
        "sendmmsg",
        "accept",
        "accept4",
        "connect",
        "shutdown",
        "fsync",
        "fdatasync",
        "sync_file_range",
        "fallocate",
        "ftruncate",
        "flock",
        "fcntl",
        "getdents64",
        "sendfile",
        "splice",
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_ctl",
        "ioctl",
        "io_uring_enter",
        "close",
        "lseek",
        "fstat",
        "fstatfs",
        "fchmod",
        "fchown",
        "fchdir",
        "fadvise64",
        "readahead",
        "syncfs",
        "fgetxattr",
        "fsetxattr",
        "dup",
        "dup2",
        "dup3",
        "getdents",
        "bind",
        "listen",
        "getsockname",
        "getpeername",
        "getsockopt",
        "setsockopt",
        "timerfd_settime",
        "timerfd_gettime",
        "inotify_add_watch",
    ];
    DESCRIPTOR.contains(&name)
}

/// Whether a call is `poll` or `ppoll`.
pub(crate) fn polls(number: i32) -> bool {
    let call = usize::try_from(number).ok().and_then(Sysno::new);
    matches!(call, Some(Sysno::poll | Sysno::ppoll))
}

fn operand(call: Sysno) -> Operand {
    match call.name() {
        "futex" => Operand::Futex,
        _ if polls(call.id()) => Operand::Poll,
        name if takes_descriptor(name) => Operand::Descriptor,
        _ => Operand::Other,
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::{
        off_cpu::{State, wait},
        sample::{HEADER_BYTES, SampleHeader},
    };
    use syscalls::Sysno;
    use zerocopy::FromBytes;

    use super::Waits;

    fn header(state: State, call: Option<Sysno>, first: u64) -> SampleHeader {
        let mut header = SampleHeader::read_from_bytes(&[0; HEADER_BYTES]).unwrap();
        header.tgid = std::process::id();
        header.state = state as u8;
        header.syscall = call.map_or(-1, |call| call.id());
        header.arguments[0] = first;
        header
    }

    /// Each kind of wait in its words, of this very process.
    #[test]
    fn waits_have_names() {
        let mut waits = Waits::default();
        let mut text = |header: &SampleHeader| waits.describe(header);
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&reader)).unwrap();
        assert_eq!(text(&header(State::Runnable, None, 0)), "runnable");
        assert_eq!(
            text(&header(State::Blocked, Some(Sysno::read), pipe)),
            "blocked: read, pipe"
        );
        assert_eq!(
            text(&header(State::Blocked, Some(Sysno::clock_nanosleep), 0)),
            "blocked: clock_nanosleep"
        );
        let mut fault = header(State::Uninterruptible, None, 0);
        assert_eq!(text(&fault), "uninterruptible: page fault");
        fault.wait = wait::IO;
        assert_eq!(text(&fault), "disk: page fault");
        fault.wait = wait::STOPPED;
        assert_eq!(text(&fault), "stopped");
        assert_eq!(
            text(&header(State::Blocked, Some(Sysno::read), 99_999)),
            "blocked: read, descriptor 99999"
        );
    }
}
