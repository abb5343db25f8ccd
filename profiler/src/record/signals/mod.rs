//! Signals: one thread waits for them, so that they are heard when no other thread turns.
//!
//! The first signal asks for an orderly end. The second one ends the process at once, and so does a
//! time without progress after the first one. Files are whole or not there, so that nothing is left
//! half-written. The kernel takes probes away with the process.
//!
//! Every other thread blocks these signals: the kernel cannot choose one that hangs to take them.

mod course;
mod set;

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use self::course::{Course, Now, Step};
pub(crate) use self::{course::Patience, set::Caught};
use crate::{daemon::privileges, error::Error, record::finish::process_cpu_time, symbolize};

/// How often progress is looked at after the first signal.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time that the last words may take: standard error may block, too.
const WORDS: Duration = Duration::from_millis(100);

/// What the thread shares with the others.
struct Shared {
    /// The first signal that asks for the end.
    end: watch::Sender<Option<Caught>>,
    reload: Notify,
    /// Somebody makes an orderly end of the first signal.
    is_orderly: AtomicBool,
    /// Everything is written: only the recorded command is waited for.
    is_written: AtomicBool,
    mask_before: libc::sigset_t,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// Starts the thread. The caller is the only thread so far: those that it starts inherit its mask.
/// Until somebody [subscribes](Signals::subscribe) each signal ends the process as it always does.
pub(crate) fn begin(patience: Patience) -> Result<(), Error> {
    let set = set::of(&Caught::ALL);
    let mask_before = set::change_mask(libc::SIG_BLOCK, &set);
    let shared = SHARED.get_or_init(|| Shared {
        end: watch::Sender::new(None),
        reload: Notify::new(),
        is_orderly: AtomicBool::new(false),
        is_written: AtomicBool::new(false),
        mask_before,
    });
    let work = move || {
        privileges::give_up();
        listen(shared, &set, Course::new(patience));
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|source| Error::System {
            action: "start the thread that waits for signals",
            source,
        })
}

/// Gives a child the mask that this process was started with. Runs between fork and exec.
pub(crate) fn restore_mask() {
    if let Some(shared) = SHARED.get() {
        set::change_mask(libc::SIG_SETMASK, &shared.mask_before);
    }
}

/// Lifts the deadline: only the recorded command is waited for, which may take any time.
pub(crate) fn written() {
    if let Some(shared) = SHARED.get() {
        shared.is_written.store(true, Ordering::Relaxed);
    }
}

/// What came in, for an event loop.
pub(crate) struct Signals {
    end: watch::Receiver<Option<Caught>>,
    reload: &'static Notify,
}

impl Signals {
    /// From now on the first signal does not end the process; the owner of this does.
    pub(crate) fn subscribe() -> Result<Self, Error> {
        let shared = SHARED.get().ok_or_else(|| Error::System {
            action: "watch for signals",
            source: io::Error::other("nobody waits for them"),
        })?;
        if !shared.is_orderly.swap(true, Ordering::Relaxed) {
            for signal in Caught::ALL {
                set::show_as_caught(signal);
            }
        }
        Ok(Self {
            end: shared.end.subscribe(),
            reload: &shared.reload,
        })
    }

    /// Comes back with the first signal that asks for the end, also if it came before. May be
    /// dropped.
    pub(crate) async fn end(&self) -> Caught {
        let mut end = self.end.clone();
        if let Ok(first) = end.wait_for(Option::is_some).await
            && let Some(signal) = *first
        {
            return signal;
        }
        // The other end is never dropped.
        std::future::pending().await
    }

    /// Comes back when the configuration is to be read again. May be dropped.
    pub(crate) async fn reload(&self) {
        self.reload.notified().await;
    }
}

/// The thread.
fn listen(shared: &Shared, set: &libc::sigset_t, mut course: Course) {
    loop {
        let caught = set::wait(set, course.has_begun().then_some(LOOK));
        if let Some(signal) = caught
            && !shared.is_orderly.load(Ordering::Relaxed)
        {
            set::die_of(signal);
        }
        let now = Now {
            at: Instant::now(),
            used: others_cpu_time(),
            is_written: shared.is_written.load(Ordering::Relaxed),
        };
        let step = match caught {
            Some(signal) => course.caught(signal, now),
            None => course.look(now),
        };
        match step {
            Step::Nothing => {}
            Step::Reload => shared.reload.notify_one(),
            Step::End(signal) => {
                shared.end.send_replace(Some(signal));
            }
            Step::Exit(signal, why) => exit(signal, why),
        }
    }
}

/// CPU time of this process without the calling thread.
fn others_cpu_time() -> Duration {
    let own = clock_gettime(ClockId::ThreadCPUTime);
    let own = Duration::new(
        u64::try_from(own.tv_sec).unwrap_or_default(),
        u32::try_from(own.tv_nsec).unwrap_or_default(),
    );
    process_cpu_time().saturating_sub(own) + symbolize::time_of_children()
}

/// Says why and ends the process. Another thread says it, as standard error may block.
fn exit(signal: Caught, why: &str) -> ! {
    let words = format!("profiler: ended by {why}; what was not written yet is lost\n");
    let (said, heard) = sync_channel(1);
    let say = move || {
        let _ = io::stderr().write_all(words.as_bytes());
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_timeout(WORDS);
    }
    set::exit(signal)
}
