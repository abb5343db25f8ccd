//! Starting the child, and its end.

use std::{io, os::unix::net::UnixStream};

pub(super) use self::imp::Peer;

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By this signal.
    Signal(i32),
    /// By itself, with this status.
    Status(i32),
    /// It is not known.
    Unknown,
}

/// Starts the child at the other end of a socket.
pub(super) fn start(limits: &super::Limits) -> io::Result<(UnixStream, Peer)> {
    let (ours, theirs) = UnixStream::pair()?;
    let peer = imp::start(theirs, limits)?;
    Ok((ours, peer))
}

#[cfg(not(test))]
mod imp {
    use std::{
        io,
        os::{
            fd::OwnedFd,
            unix::{
                net::UnixStream,
                process::{CommandExt, ExitStatusExt},
            },
        },
        process::{Child, Command, ExitStatus, Stdio},
        time::Duration,
    };

    use super::{super::child::VERB, End};
    use crate::symbolize::Limits;

    /// This program, once more: also where its file was replaced since.
    const PROGRAM: &str = "/proc/self/exe";

    /// How often, and how many times, an ending child is looked at: two seconds.
    const LOOK: Duration = Duration::from_millis(2);
    const LOOKS_MAX: u32 = 1000;

    /// The child. It ends with the thread that started it, whatever becomes of this.
    #[derive(Debug)]
    pub(in crate::symbolize) struct Peer(Child);

    pub(super) fn start(socket: UnixStream, limits: &Limits) -> io::Result<Peer> {
        let child = Command::new(PROGRAM)
            .arg0("profiler")
            .arg(VERB)
            .args(limits.to_words())
            .env_clear()
            // The child's own: by it the child opens once more what it is given. `/proc` itself may be closed to
            // the child, which has fewer privileges than we have.
            .current_dir("/proc/self/fd")
            .stdin(OwnedFd::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Peer(child))
    }

    impl Peer {
        /// Its process id.
        #[expect(
            clippy::unnecessary_wraps,
            reason = "the thread of unit tests has none"
        )]
        pub(in crate::symbolize) fn pid(&self) -> Option<u32> {
            Some(self.0.id())
        }

        /// Ends it where it has not ended by itself; says how it did. Does not wait for one that cannot be ended.
        pub(in crate::symbolize) fn end(mut self, is_ending: bool) -> End {
            // One that closed its socket is ending: its own status is the one that counts.
            let status = if is_ending { self.wait() } else { None };
            let status = status.or_else(|| {
                self.0.kill().ok()?;
                self.wait()
            });
            let Some(status) = status else {
                return End::Unknown;
            };
            match (status.signal(), status.code()) {
                (Some(signal), _) => End::Signal(signal),
                (_, Some(code)) => End::Status(code),
                (None, None) => End::Unknown,
            }
        }

        fn wait(&mut self) -> Option<ExitStatus> {
            for _ in 0..LOOKS_MAX {
                match self.0.try_wait() {
                    Ok(None) => std::thread::sleep(LOOK),
                    status => return status.ok()?,
                }
            }
            None
        }
    }
}

/// In unit tests this program is the test itself, so a thread does what the child does, without its limits. The
/// child itself is shown by live tests.
#[cfg(test)]
mod imp {
    use std::{io, os::unix::net::UnixStream};

    use super::{super::child, End};
    use crate::symbolize::Limits;

    #[derive(Debug)]
    pub(in crate::symbolize) struct Peer;

    pub(super) fn start(socket: UnixStream, _limits: &Limits) -> io::Result<Peer> {
        std::thread::Builder::new().spawn(move || child::serve(&socket, || Ok(())))?;
        Ok(Peer)
    }

    impl Peer {
        #[expect(clippy::unused_self, reason = "as that of the process")]
        pub(in crate::symbolize) fn pid(&self) -> Option<u32> {
            None
        }

        #[expect(clippy::unused_self, reason = "as that of the process")]
        pub(in crate::symbolize) fn end(self, _is_ending: bool) -> End {
            End::Unknown
        }
    }
}
