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
    retries::{Retries, Retry},
    status::{State, Status},
    writer::Windows,
};
use crate::{error::Error, record::ending::runtime, store::Capability};

/// Note of the last window before a capability is shed.
const SHED_AFTER: &str = "window before a pause, shed by the CPU budget";
/// Note of the first one when it is back.
const SHED_BEFORE: &str = "window after a pause, shed by the CPU budget";

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
    /// Say this of the window under way.
    Note(&'static str),
    /// End this window and the thread.
    Stop,
}

/// What is wanted of a capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<P> {
    /// That it does this.
    On(P),
    /// Nothing.
    Off,
    /// That it does nothing for now, for want of CPU time.
    Shed,
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
    retries: Retries,
    /// It was shed since it last ran.
    was_shed: bool,
}

enum Thread<P> {
    Off,
    Runs {
        plan: P,
        running: Running<P>,
        since: Instant,
    },
    /// It failed.
    Waits {
        until: Instant,
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
            retries: Retries::default(),
            was_shed: false,
        }
    }

    /// Starts it for the first time, where a failure is one of the set-up.
    pub(crate) fn begin(&mut self, wanted: Wanted<P>, windows: Windows) -> Result<(), Error> {
        match wanted {
            Wanted::On(plan) => {
                let running = Running::start(plan.clone(), windows)?;
                self.runs(plan, running);
            }
            Wanted::Off => self.set_state(State::Off),
            Wanted::Shed => self.shed(),
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
    pub(crate) fn look_after(&mut self, wanted: Wanted<P>, windows: Windows) {
        match mem::replace(&mut self.thread, Thread::Off) {
            Thread::Runs { running, since, .. } if running.thread.is_finished() => {
                self.bpf_ended += running.pulse.bpf_time();
                self.retries.ran(since.elapsed());
                let error = running.end();
                self.failed(&error);
            }
            Thread::Waits { until } if until <= Instant::now() => self.start(wanted, windows),
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

    fn start(&mut self, wanted: Wanted<P>, windows: Windows) {
        let plan = match wanted {
            Wanted::On(plan) => plan,
            Wanted::Off => return self.set_state(State::Off),
            Wanted::Shed => return self.shed(),
        };
        match Running::start(plan.clone(), windows) {
            Ok(running) => {
                let (name, what) = (P::CAPABILITY.name(), plan.description(0));
                if mem::take(&mut self.was_shed) {
                    tracing::info!("{name} is back, within the CPU budget: {what}");
                    let _ = running.commands.send(Command::Note(SHED_BEFORE));
                } else {
                    tracing::info!("{name}: {what}");
                }
                self.runs(plan, running);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Brings it in line, without a pause where it goes on. A thread that has ended takes no commands, and
    /// is noticed by that.
    pub(crate) fn change(&mut self, wanted: Wanted<P>, windows: Windows) {
        match (wanted, &mut self.thread) {
            (Wanted::On(new), Thread::Runs { plan, running, .. }) => {
                *plan = new.clone();
                let _ = running.commands.send(Command::Plan(Box::new(new), windows));
                self.show();
            }
            (wanted @ Wanted::On(_), Thread::Off | Thread::Waits { .. }) => {
                self.retries = Retries::default();
                self.start(wanted, windows);
            }
            (Wanted::Off, _) => {
                self.stop();
                self.was_shed = false;
                self.set_state(State::Off);
            }
            (Wanted::Shed, _) => self.shed(),
        }
    }

    /// Ends it for now; its last window says why.
    fn shed(&mut self) {
        if let Thread::Runs { running, .. } = &self.thread {
            let _ = running.commands.send(Command::Note(SHED_AFTER));
        }
        self.stop();
        self.was_shed = true;
        self.set_state(State::Shed);
    }

    /// Has it end and hand its open window on, without waiting for that.
    pub(crate) fn ask_to_stop(&self) {
        if let Thread::Runs { running, .. } = &self.thread {
            let _ = running.commands.send(Command::Stop);
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

    fn runs(&mut self, plan: P, running: Running<P>) {
        self.thread = Thread::Runs {
            plan,
            running,
            since: Instant::now(),
        };
        self.show();
    }

    fn failed(&mut self, error: &Error) {
        let name = P::CAPABILITY.name();
        let why = error.with_hint();
        let Retry {
            failures,
            pause,
            is_news,
        } = self.retries.failed(why.clone());
        let pause_s = pause.as_secs();
        if is_news {
            // In the message, as the journal shows no more unless asked.
            tracing::error!(
                failures,
                "{name} failed, it is started again in {pause_s} s and so on, which is told if it fails otherwise: {why}"
            );
        } else {
            tracing::debug!(failures, "{name} failed again, next time in {pause_s} s");
        }
        self.thread = Thread::Waits {
            until: Instant::now() + pause,
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{
        Capability, Command, Error, Life, SHED_AFTER, SHED_BEFORE, Slot, State, Status, Wanted,
        Windows,
    };
    use crate::daemon::writer::Writer;

    /// Does nothing but note what it is told.
    #[derive(Clone, Default)]
    struct Plan(Arc<Mutex<Vec<&'static str>>>);

    impl super::Plan for Plan {
        const CAPABILITY: Capability = Capability::Tcp;

        fn description(&self, _followed: u64) -> String {
            "all".to_owned()
        }

        fn work(self, _windows: Windows, life: Life<Self>) -> Result<(), Error> {
            life.lead(
                |_| Ok(()),
                async |(), mut commands| {
                    while let Some(command) = commands.recv().await {
                        match command {
                            Command::Note(note) => self.0.lock().unwrap().push(note),
                            Command::Plan(..) => {}
                            Command::Stop => break,
                        }
                    }
                    Ok(())
                },
            )
        }
    }

    /// What the budget sheds is not off: its state says so, and so do the windows before and after.
    #[test]
    fn shed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let status = Arc::<Status>::default();
        let windows = Writer::keeping_all(folder.path(), &status).windows();
        let (plan, mut slot) = (Plan::default(), Slot::new(Arc::clone(&status)));
        let mut told = |wanted: Wanted<Plan>| {
            slot.change(wanted, windows.clone());
            slot.look_after(Wanted::Off, windows.clone());
            status.snapshot().capabilities[&Capability::Tcp].clone()
        };
        let on = || Wanted::On(plan.clone());
        assert_eq!(told(on()), State::On("all".to_owned()));
        assert_eq!(told(Wanted::Shed), State::Shed);
        assert_eq!(*plan.0.lock().unwrap(), [SHED_AFTER]);
        assert_eq!(told(Wanted::Shed), State::Shed);
        assert_eq!(told(on()), State::On("all".to_owned()));
        assert_eq!(told(Wanted::Off), State::Off);
        assert_eq!(*plan.0.lock().unwrap(), [SHED_AFTER, SHED_BEFORE]);
        told(Wanted::Shed);
        // Turned off meanwhile: whoever turns it on again does not hear of the budget.
        told(Wanted::Off);
        told(on());
        told(Wanted::Off);
        assert_eq!(*plan.0.lock().unwrap(), [SHED_AFTER, SHED_BEFORE]);
    }
}
