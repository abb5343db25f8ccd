//! A capability under the supervisor: a thread that is started, told to change, ended, and started again with growing
//! pauses when it fails.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    status::{State, Status},
    store::Capability,
    writer::Windows,
};
use crate::{error::Error, record::ending::runtime};

/// First pause before a capability that failed is started again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause. One that has run so long has recovered.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a capability is to do.
pub(crate) trait Plan: Clone + Send + 'static {
    /// Which one.
    const CAPABILITY: Capability;

    /// What it does, in words, with so many processes followed now.
    fn description(&self, followed: u64) -> String;

    /// Its thread, from attaching to its last window.
    fn work(self, windows: Windows, life: Life<Self>) -> Result<(), Error>;
}

/// What joins a capability's thread and the supervisor.
pub(crate) struct Life<P> {
    commands: UnboundedReceiver<Command<P>>,
    pulse: Arc<Pulse>,
    /// Waits to hear whether its programs are attached.
    attached: SyncSender<Result<(), Error>>,
}

impl<P> Life<P> {
    /// Attaches, says whether that worked, and runs to the end.
    pub(crate) fn lead<S>(
        self,
        attach: impl FnOnce(Arc<Pulse>) -> Result<S, Error>,
        run: impl AsyncFnOnce(S, UnboundedReceiver<Command<P>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        runtime()?.block_on(async {
            match attach(self.pulse) {
                Ok(session) => {
                    // The caller waits for it.
                    let _ = self.attached.send(Ok(()));
                    run(session, self.commands).await
                }
                Err(error) => {
                    let _ = self.attached.send(Err(error));
                    Ok(())
                }
            }
        })
    }
}

/// What a capability is told.
pub(crate) enum Command<P> {
    /// End this window and go on by another plan.
    Plan(Box<P>, Windows),
    /// End this window and the thread.
    Stop,
}

/// Signs of life.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    /// Time inside its BPF programs so far, ns; 0 where the kernel does not tell.
    bpf_ns: AtomicU64,
    /// Processes that are targets; 0 where everybody is.
    followed: AtomicU64,
}

impl Pulse {
    /// It has done something.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_followed(&self, processes: usize) {
        self.followed.store(processes as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_bpf_time(&self, time: Option<Duration>) {
        let ns = u64::try_from(time.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        self.bpf_ns.store(ns, Ordering::Relaxed);
    }

    fn bpf_time(&self) -> Duration {
        Duration::from_nanos(self.bpf_ns.load(Ordering::Relaxed))
    }
}

/// The thread while it runs.
struct Running<P> {
    commands: UnboundedSender<Command<P>>,
    pulse: Arc<Pulse>,
    thread: JoinHandle<Result<(), Error>>,
}

impl<P: Plan> Running<P> {
    /// Starts it and waits until its programs are attached, or could not be.
    fn start(plan: P, windows: Windows) -> Result<Self, Error> {
        let (commands, receiver) = unbounded_channel();
        let (attached, result) = sync_channel(1);
        let pulse = Arc::<Pulse>::default();
        let life = Life {
            commands: receiver,
            pulse: Arc::clone(&pulse),
            attached,
        };
        let thread = std::thread::Builder::new()
            .name(P::CAPABILITY.name().to_owned())
            .spawn(move || plan.work(windows, life))
            .map_err(|source| Error::System {
                action: "start the thread of a capability",
                source,
            })?;
        let running = Self {
            commands,
            pulse,
            thread,
        };
        match result.recv() {
            Ok(Ok(())) => Ok(running),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(running.end()),
        }
    }

    /// Ends it; its last window is handed on.
    fn stop(self) -> Result<(), Error> {
        let _ = self.commands.send(Command::Stop);
        self.thread.join().unwrap_or_else(|_| Err(failed()))
    }

    /// Why it has ended by itself.
    fn end(self) -> Error {
        match self.thread.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => failed(),
        }
    }
}

fn failed() -> Error {
    Error::System {
        action: "go on",
        source: std::io::Error::other("the thread of a capability has failed"),
    }
}

/// A capability.
pub(crate) struct Slot<P> {
    thread: Thread<P>,
    status: Arc<Status>,
    /// Time in BPF programs of threads that have ended.
    bpf_ended: Duration,
    /// Beats at the last look of the watchdog.
    beats: Option<u64>,
}

enum Thread<P> {
    Off,
    Runs {
        plan: P,
        running: Running<P>,
        since: Instant,
        failures: u32,
    },
    /// It failed so many times in a row.
    Waits {
        until: Instant,
        failures: u32,
    },
}

impl<P: Plan> Slot<P> {
    /// Off.
    pub(crate) fn new(status: Arc<Status>) -> Self {
        Self {
            thread: Thread::Off,
            status,
            bpf_ended: Duration::ZERO,
            beats: None,
        }
    }

    /// Starts it for the first time, where a failure is one of the set-up.
    pub(crate) fn begin(&mut self, plan: Option<P>, windows: Windows) -> Result<(), Error> {
        match plan {
            Some(plan) => {
                let running = Running::start(plan.clone(), windows)?;
                self.runs(plan, running, 0);
            }
            None => self.set_state(State::Off),
        }
        Ok(())
    }

    /// Time in BPF programs since the start.
    pub(crate) fn bpf_time(&self) -> Duration {
        match &self.thread {
            Thread::Runs { running, .. } => self.bpf_ended + running.pulse.bpf_time(),
            Thread::Off | Thread::Waits { .. } => self.bpf_ended,
        }
    }

    /// To be called every second: starts again what has failed.
    pub(crate) fn look_after(&mut self, plan: Option<P>, windows: Windows) {
        match mem::replace(&mut self.thread, Thread::Off) {
            Thread::Runs {
                running,
                since,
                failures,
                ..
            } if running.thread.is_finished() => {
                self.bpf_ended += running.pulse.bpf_time();
                let recovered = since.elapsed() > PAUSE_MAX;
                let failures = if recovered { 0 } else { failures };
                let error = running.end();
                self.failed(&error, failures + 1);
            }
            Thread::Waits { until, failures } if until <= Instant::now() => {
                self.start(plan, windows, failures);
            }
            thread => self.thread = thread,
        }
        self.status.beat(P::CAPABILITY, self.beats_now());
        self.show();
    }

    fn beats_now(&self) -> Option<u64> {
        match &self.thread {
            Thread::Runs { running, .. } => Some(running.pulse.beats.load(Ordering::Relaxed)),
            Thread::Off | Thread::Waits { .. } => None,
        }
    }

    fn start(&mut self, plan: Option<P>, windows: Windows, failures: u32) {
        let Some(plan) = plan else {
            self.thread = Thread::Off;
            self.set_state(State::Off);
            return;
        };
        match Running::start(plan.clone(), windows) {
            Ok(running) => {
                tracing::info!("{}: {}", P::CAPABILITY.name(), plan.description(0));
                self.runs(plan, running, failures);
            }
            Err(error) => self.failed(&error, failures + 1),
        }
    }

    /// Brings it in line with a plan, without a pause where it goes on. A thread that has ended takes no commands, and
    /// is noticed by that.
    pub(crate) fn change(&mut self, plan: Option<P>, windows: Windows) {
        match (plan, &mut self.thread) {
            (Some(new), Thread::Runs { plan, running, .. }) => {
                *plan = new.clone();
                let _ = running.commands.send(Command::Plan(Box::new(new), windows));
                self.show();
            }
            (plan @ Some(_), Thread::Off | Thread::Waits { .. }) => self.start(plan, windows, 0),
            (None, _) => {
                self.stop();
                self.set_state(State::Off);
            }
        }
    }

    /// Ends it; the open window is handed on.
    pub(crate) fn stop(&mut self) {
        if let Thread::Runs { running, .. } = mem::replace(&mut self.thread, Thread::Off) {
            let pulse = Arc::clone(&running.pulse);
            if let Err(error) = running.stop() {
                let name = P::CAPABILITY.name();
                tracing::error!(%error, "{name} failed at its end");
            }
            self.bpf_ended += pulse.bpf_time();
        }
    }

    /// Whether it has done something since the last time, if it runs. What is known to have failed is being looked
    /// after.
    pub(crate) fn is_alive(&mut self) -> bool {
        let beats = self.beats_now();
        let is_alive = beats.is_none() || beats != self.beats;
        self.beats = beats;
        is_alive
    }

    fn runs(&mut self, plan: P, running: Running<P>, failures: u32) {
        self.thread = Thread::Runs {
            plan,
            running,
            since: Instant::now(),
            failures,
        };
        self.show();
    }

    fn failed(&mut self, error: &Error, failures: u32) {
        let doublings = failures.saturating_sub(1).min(16);
        let pause = (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX);
        let hint = error.hint().map(|hint| format!("; {hint}"));
        let (name, hint, pause_s) = (
            P::CAPABILITY.name(),
            hint.unwrap_or_default(),
            pause.as_secs(),
        );
        // In the message, as the journal shows no more unless asked.
        tracing::error!(
            failures,
            "{name} failed, it is started again in {pause_s} s: {error}{hint}"
        );
        self.thread = Thread::Waits {
            until: Instant::now() + pause,
            failures,
        };
        self.set_state(State::Failed(error.to_string()));
    }

    fn show(&self) {
        if let Thread::Runs { plan, running, .. } = &self.thread {
            let followed = running.pulse.followed.load(Ordering::Relaxed);
            self.set_state(State::On(plan.description(followed)));
        }
    }

    fn set_state(&self, state: State) {
        self.status.update(|now| {
            now.capabilities.insert(P::CAPABILITY, state);
        });
    }
}
