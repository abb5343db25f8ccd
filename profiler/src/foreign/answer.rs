//! Asking what may never answer. A target's memory, and what the kernel tells by way of it, can be made to wait for as long as the
//! target likes: a page of it may be behind a file system or a fault handler of its own. So a thread of ours asks, and if
//! it is not back in time, it is left behind and the process is not asked any more.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::spent::thread_ran;

/// How long an answer is waited for. A machine that swaps takes some hundredths of a second.
const WAIT: Duration = Duration::from_secs(2);
/// How long a process that did not answer is left alone.
const REST: Duration = Duration::from_secs(600);
/// Most threads that are left behind; with more, nobody is asked.
const LEFT_MAX: usize = 64;
/// Most processes that are left alone.
const SILENT_MAX: usize = 4096;

/// Threads left behind that are not back yet.
static LEFT: AtomicUsize = AtomicUsize::new(0);
/// Times that no answer came, and that none was asked for.
static SILENT: AtomicU64 = AtomicU64::new(0);
static NOT_ASKED: AtomicU64 = AtomicU64::new(0);

type Question = Box<dyn FnOnce() + Send>;

/// The thread that asks for one of ours.
struct Asker {
    questions: mpsc::Sender<Question>,
    is_left: Arc<AtomicBool>,
}

#[derive(Default)]
struct Askers {
    asker: Option<Asker>,
    /// How long it has run for us.
    ran: Duration,
    silent: HashMap<u32, Instant>,
}

thread_local! {
    static ASKERS: RefCell<Askers> = RefCell::default();
}

impl Asker {
    fn new() -> Option<Self> {
        let (questions, receiver) = mpsc::channel::<Question>();
        let is_left = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&is_left);
        let work = move || {
            for question in receiver {
                question();
            }
            if left.load(Ordering::Acquire) {
                LEFT.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("ask".to_owned());
        thread.spawn(work).ok()?;
        Some(Self { questions, is_left })
    }
}

/// Asks about a process; `None` where no answer comes, now or before.
pub(crate) fn ask<T: Send + 'static>(
    pid: u32,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    ask_for(pid, WAIT, question)
}

fn ask_for<T: Send + 'static>(
    pid: u32,
    wait: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    ASKERS.with_borrow_mut(|askers| askers.ask(pid, wait, question))
}

impl Askers {
    fn ask<T: Send + 'static>(
        &mut self,
        pid: u32,
        wait: Duration,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.is_silent(pid) || LEFT.load(Ordering::Relaxed) >= LEFT_MAX {
            NOT_ASKED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let asked: Question = Box::new(move || {
            // Who has stopped waiting does not hear it.
            let began = thread_ran();
            let answer = question();
            let _ = reply.send((answer, thread_ran().saturating_sub(began)));
        });
        if self.asker.is_none() {
            self.asker = Asker::new();
        }
        self.asker.as_ref()?.questions.send(asked).ok()?;
        match answer.recv_timeout(wait) {
            Ok((answered, ran)) => {
                self.ran += ran;
                return Some(answered);
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.asker = None;
                return None;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        SILENT.fetch_add(1, Ordering::Relaxed);
        self.leave(pid);
        None
    }

    fn is_silent(&mut self, pid: u32) -> bool {
        let Some(since) = self.silent.get(&pid) else {
            return false;
        };
        let is_silent = since.elapsed() < REST;
        if !is_silent {
            self.silent.remove(&pid);
        }
        is_silent
    }

    fn leave(&mut self, pid: u32) {
        if self.silent.len() >= SILENT_MAX {
            self.silent.clear();
        }
        self.silent.insert(pid, Instant::now());
        if let Some(asker) = self.asker.take() {
            LEFT.fetch_add(1, Ordering::Relaxed);
            asker.is_left.store(true, Ordering::Release);
        }
    }
}

/// How long this thread has run, and others for it. What it waited for, a CPU or a quota, does not count.
pub(crate) fn ran() -> Duration {
    thread_ran() + ASKERS.with_borrow(|askers| askers.ran)
}

/// For the account.
pub(crate) fn notes() -> [(&'static str, u64); 2] {
    [
        (
            "process did not let itself be looked at in time",
            SILENT.load(Ordering::Relaxed),
        ),
        (
            "process not looked at, as it did not answer before",
            NOT_ASKED.load(Ordering::Relaxed),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::{WAIT, ask, ask_for, notes};

    /// Who does not answer costs the wait once; others are asked as before.
    #[test]
    fn silence_is_left_alone() {
        assert_eq!(ask(1, || 7), Some(7));
        let (never, forever) = mpsc::channel::<()>();
        let silent = ask_for(2, Duration::from_millis(1), move || forever.recv().is_ok());
        assert_eq!(silent, None);
        assert_eq!(ask(2, || 7), None, "not asked any more");
        assert_eq!(ask(3, || 8), Some(8));
        assert!(notes().iter().all(|(_, count)| *count > 0));
        drop(never);
    }

    /// A question that panics is no answer, and the next one is asked.
    #[test]
    fn a_panic_is_no_answer() {
        let began = std::time::Instant::now();
        let panics: Option<u32> = ask(4, || panic!("as the test wants it"));
        assert_eq!(panics, None);
        assert!(began.elapsed() < WAIT);
        assert_eq!(ask(5, || 7), Some(7));
    }
}
