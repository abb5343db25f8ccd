//! The command to be recorded: started, held before its first instruction until the kernel side
//! knows it, then let go.
//!
//! The child waits between fork and exec on a pipe. Nothing of it is sampled before its exec,
//! because the kernel side awaits that ([`target::AWAIT_EXEC`](profiler_common::config::target::AWAIT_EXEC)).

use std::{
    ffi::OsString,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use super::signals;
use crate::cores;

/// A started command that waits for [`Held::release`].
#[derive(Debug)]
pub struct Held {
    pid: u32,
    gate: PipeWriter,
    spawned: JoinHandle<io::Result<Child>>,
}

impl Held {
    /// Forks the child. It has not executed anything of the command yet.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (gate_reader, gate) = io::pipe()?;
        let (mut pid_reader, pid_writer) = io::pipe()?;
        let mut child = Command::new(program);
        child.args(arguments);
        let fds = [
            pid_writer.as_raw_fd(),
            gate_reader.as_raw_fd(),
            gate.as_raw_fd(),
        ];
        // SAFETY: the closure only writes to and reads from pipes that live until the spawn is
        // over, and sets a mask and a limit, all of which is async-signal-safe.
        unsafe { child.pre_exec(move || wait_at_gate(fds)) };
        // `spawn` returns only after the exec, so it must not run on this thread.
        let spawned = std::thread::spawn(move || spawn(child, gate_reader, pid_writer));
        let mut pid = [0; 4];
        if pid_reader.read_exact(&mut pid).is_err() {
            let error = spawned.join().map_or_else(
                |_| io::ErrorKind::Other.into(),
                |result| result.err().unwrap_or_else(|| io::ErrorKind::Other.into()),
            );
            return Err(error);
        }
        Ok(Self {
            pid: u32::from_ne_bytes(pid),
            gate,
            spawned,
        })
    }

    /// The child's process id, which the command will have.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the child execute the command.
    pub fn release(mut self) -> io::Result<Child> {
        self.gate.write_all(&[1])?;
        drop(self.gate);
        self.spawned
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }
}

fn spawn(mut child: Command, gate: PipeReader, pid: PipeWriter) -> io::Result<Child> {
    let result = child.spawn();
    drop((gate, pid));
    result
}

/// Runs in the child: tells its pid, then waits for the byte that lets it go. A closed gate (the
/// profiler gave up or died) ends the child instead. The command gets the signals and the limit of
/// core dumps that the profiler was started with.
fn wait_at_gate([pid_fd, gate_fd, other_end]: [RawFd; 3]) -> io::Result<()> {
    use rustix::fd::BorrowedFd;
    // Without this, the child's own copy of the writing end would keep the gate open for ever.
    // SAFETY: the descriptor is the child's copy and used by nothing else in it.
    unsafe { rustix::io::close(other_end) };
    // SAFETY: open in this process until the exec.
    let pid_pipe = unsafe { BorrowedFd::borrow_raw(pid_fd) };
    // SAFETY: as above.
    let gate = unsafe { BorrowedFd::borrow_raw(gate_fd) };
    let pid = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .to_ne_bytes();
    rustix::io::write(pid_pipe, &pid)?;
    let mut go = [0; 1];
    match rustix::io::read(gate, &mut go)? {
        1 => {
            signals::restore_mask();
            cores::restore();
            Ok(())
        }
        _ => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// The exit code that a shell would report.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// The exit code of a command that could not be started, as a shell has it: 127 not found, 126 not
/// executable.
pub fn start_failure_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, exit_code, start_failure_code};

    /// The command runs under the pid that was told before, and its status comes back.
    #[test]
    fn runs_when_released() {
        let held = Held::start(&["sh".into(), "-c".into(), "exit 7".into()]).unwrap();
        let pid = held.pid();
        let mut child = held.release().unwrap();
        assert_eq!(child.id(), pid);
        assert_eq!(exit_code(child.wait().unwrap()), 7);
    }

    /// A command that does not exist is told after the release, with the shell's code.
    #[test]
    fn missing_command_is_told() {
        let error = Held::start(&["/nonexistent/command".into()])
            .unwrap()
            .release()
            .unwrap_err();
        assert_eq!(start_failure_code(&error), 127);
    }
}
