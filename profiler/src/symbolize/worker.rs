//! The child as its parent sees it: asked, watched, ended and started again.

use std::{
    io,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use procfs::process::{Process, Stat};

use super::{
    Limits,
    child::NOT_CONFINED,
    launch::{self, End, Peer},
    wire::{Answer, Question, receive, send},
};

/// How often a working child is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Looks in a row at which it waits for something and has used no processor time: it hangs, on a file system that
/// does not answer, say. A minute.
const IDLE_LOOKS_MAX: u32 = 300;

/// From now on nothing is waited for.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);
/// Processor time of all children so far, as far as it was looked at: milliseconds.
static USED: AtomicU64 = AtomicU64::new(0);

/// Processor time of the children that read symbols: that the profiler waits for them is progress.
pub(crate) fn time_of_children() -> Duration {
    Duration::from_millis(USED.load(Ordering::Relaxed))
}

/// Ends the naming of code in this process after a while: what has no name by then is named by its address. For when the
/// process has to end.
pub(crate) fn give_up_after(time: Duration) {
    let work = move || {
        std::thread::sleep(time);
        GIVEN_UP.store(true, Ordering::Relaxed);
    };
    let thread = std::thread::Builder::new().name("patience".to_owned());
    if thread.spawn(work).is_err() {
        GIVEN_UP.store(true, Ordering::Relaxed);
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The child wanted more memory than it may use.
    Memory,
    /// More processor time.
    Time,
    /// The file was cut while it was read.
    Cut,
    /// It waited for the file for too long.
    Stuck,
    /// It ended otherwise.
    Broken,
    /// The process has to end.
    GivenUp,
    /// It could not be started or confined.
    NotStarted,
}

/// The child, if it runs.
#[derive(Debug)]
pub(super) struct Worker {
    limits: Limits,
    running: Option<(UnixStream, Peer)>,
}

impl Worker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            running: None,
        }
    }

    /// Starts the child, if it does not run.
    pub(super) fn start(&mut self) -> io::Result<&(UnixStream, Peer)> {
        if self.running.is_none() {
            let (socket, peer) = launch::start(&self.limits)?;
            socket.set_read_timeout(Some(LOOK))?;
            // It reads a whole question before it works.
            socket.set_write_timeout(Some(LOOK * IDLE_LOOKS_MAX))?;
            self.running = Some((socket, peer));
        }
        self.running
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Asks, and waits for the answer. After a failure the child is another one.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        files: &[BorrowedFd<'_>],
    ) -> Result<Answer, Failed> {
        if GIVEN_UP.load(Ordering::Relaxed) {
            return Err(Failed::GivenUp);
        }
        let seconds = self.limits.seconds;
        let (socket, peer) = self.start().map_err(|_| Failed::NotStarted)?;
        let mut watch = Watch::of(peer, seconds);
        let answer =
            send(socket, question, files).and_then(|()| receive::<Answer>(socket, || watch.look()));
        match answer {
            Ok(Some((answer, _))) => Ok(answer),
            unanswered => {
                let is_ending = match unanswered {
                    Ok(_) => true,
                    Err(error) => matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof
                            | io::ErrorKind::BrokenPipe
                            | io::ErrorKind::ConnectionReset
                    ),
                };
                let end = self.running.take().map(|(socket, peer)| {
                    drop(socket);
                    peer.end(is_ending)
                });
                Err(watch
                    .verdict
                    .unwrap_or_else(|| end.map_or(Failed::Broken, meaning)))
            }
        }
    }

    /// Processor time that the child has used, zero where there is none.
    pub(super) fn used(&self) -> Duration {
        let pid = self.running.as_ref().and_then(|(_, peer)| peer.pid());
        pid.and_then(stat)
            .map_or(Duration::ZERO, |stat| time(&stat))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some((socket, peer)) = self.running.take() {
            drop(socket);
            peer.end(false);
        }
    }
}

fn meaning(end: End) -> Failed {
    match end {
        // What Rust does where memory is refused.
        End::Signal(libc::SIGABRT) => Failed::Memory,
        End::Signal(libc::SIGXCPU) => Failed::Time,
        End::Signal(libc::SIGBUS) => Failed::Cut,
        End::Status(status) if status == i32::from(NOT_CONFINED) => Failed::NotStarted,
        End::Signal(_) | End::Status(_) | End::Unknown => Failed::Broken,
    }
}

/// Looks at a child that works.
struct Watch {
    pid: Option<u32>,
    /// Processor time at which it is ended, should the kernel not have done so.
    most: Duration,
    last: Duration,
    idle: u32,
    verdict: Option<Failed>,
}

impl Watch {
    fn of(peer: &Peer, seconds: u64) -> Self {
        let pid = peer.pid();
        let last = pid
            .and_then(stat)
            .map_or(Duration::ZERO, |stat| time(&stat));
        Self {
            pid,
            most: last + Duration::from_secs(2 * seconds + 2),
            last,
            idle: 0,
            verdict: None,
        }
    }

    /// An error where the child is to be ended.
    fn look(&mut self) -> io::Result<()> {
        if GIVEN_UP.load(Ordering::Relaxed) {
            self.verdict = Some(Failed::GivenUp);
        } else if let Some(stat) = self.pid.and_then(stat) {
            let used = time(&stat);
            let waits = matches!(stat.state, 'S' | 'D' | 'T' | 't');
            self.idle = if waits && used == self.last {
                self.idle + 1
            } else {
                0
            };
            let more = used.saturating_sub(self.last).as_millis();
            USED.fetch_add(u64::try_from(more).unwrap_or_default(), Ordering::Relaxed);
            self.last = used;
            if used > self.most {
                self.verdict = Some(Failed::Time);
            } else if self.idle > IDLE_LOOKS_MAX {
                self.verdict = Some(Failed::Stuck);
            }
        }
        match self.verdict {
            Some(_) => Err(io::ErrorKind::TimedOut.into()),
            None => Ok(()),
        }
    }
}

fn stat(pid: u32) -> Option<Stat> {
    Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()
}

fn time(stat: &Stat) -> Duration {
    let ticks = stat.utime + stat.stime;
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::{End, Failed, NOT_CONFINED, meaning};

    /// How the child ended says what the file did.
    #[test]
    fn ends_have_their_causes() {
        let status = End::Status(i32::from(NOT_CONFINED));
        for (end, cause) in [
            (End::Signal(libc::SIGABRT), Failed::Memory),
            (End::Signal(libc::SIGXCPU), Failed::Time),
            (End::Signal(libc::SIGBUS), Failed::Cut),
            (End::Signal(libc::SIGSEGV), Failed::Broken),
            (End::Status(101), Failed::Broken),
            (status, Failed::NotStarted),
        ] {
            assert_eq!(meaning(end), cause, "{end:?}");
        }
    }
}
