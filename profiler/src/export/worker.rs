//! The sending to one place: a thread that sends the oldest request first, and waits longer after each failure.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use prost::Message;

use super::{
    Dropped, Health, Kind, Signal, Target, otlp, push, queries,
    queue::{Item, Queue},
    send::{Agent, Answer},
};
use crate::{
    daemon::privileges,
    error::Error,
    output::{self, OutputError},
    postgres::Window,
    profile::Profile,
};

/// First pause after a failure; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The way to the thread, which ends some time after this is gone: when the request under way has.
pub(super) struct Worker {
    target: Target,
    signal: Signal,
    queue: Arc<Queue>,
    health: Arc<Mutex<Health>>,
    wake: SyncSender<()>,
    host: String,
}

impl Worker {
    pub(super) fn start(target: Target, signal: Signal, queue: Queue) -> Result<Self, Error> {
        if let Err(error) = queue.prepare() {
            // Each window will be counted as dropped.
            tracing::error!(%error, url = target.url, "export: no queue");
        }
        let (wake, wakes) = sync_channel(1);
        let health = Health {
            signal,
            ..Health::default()
        };
        let (queue, health) = (Arc::new(queue), Arc::new(Mutex::new(health)));
        let work = Work {
            agent: Agent::new(target.clone(), signal),
            queue: Arc::clone(&queue),
            health: Arc::clone(&health),
            failures: 0,
        };
        std::thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || work.run(&wakes))
            .map_err(|source| Error::System {
                action: "start the thread that exports",
                source,
            })?;
        Ok(Self {
            target,
            signal,
            queue,
            health,
            wake,
            host: host(),
        })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn signal(&self) -> Signal {
        self.signal
    }

    pub(super) fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Puts a window of stacks into the queue.
    pub(super) fn offer(&self, profile: &Profile) {
        self.put(encode(self.target.kind, profile, &self.host));
    }

    /// Puts a window of queries into the queue, unless there is nothing to tell of it.
    pub(super) fn offer_queries(&self, window: &Window, started: Duration) {
        if let Some(request) = queries::request(window, started, &self.host) {
            self.put(output::gzip(&request.encode_to_vec()));
        }
    }

    fn put(&self, encoded: Result<Vec<u8>, OutputError>) {
        let put = match encoded {
            Ok(bytes) => self.queue.put(&bytes),
            Err(error) => {
                tracing::error!(%error, "export: a window could not be encoded");
                Err(Dropped::NotEncoded)
            }
        };
        if let Err(cause) = put {
            *lock(&self.health).dropped.entry(cause).or_default() += 1;
        }
        trim(&self.queue, &self.health);
        // Full: it is awake. Gone: it has failed, and the queue is bounded without it.
        let _ = self.wake.try_send(());
    }
}

/// The bytes of a request.
fn encode(kind: Kind, profile: &Profile, host: &str) -> Result<Vec<u8>, OutputError> {
    match kind {
        Kind::Otlp => output::gzip(&otlp::request(profile, host).encode_to_vec()),
        Kind::Pyroscope => push::pyroscope(profile, host),
        Kind::Parca => push::parca(profile, host),
    }
}

fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

fn trim(queue: &Queue, health: &Mutex<Health>) {
    let (dropped, waiting, waiting_bytes) = queue.trim();
    let mut health = lock(health);
    for (cause, count) in dropped {
        tracing::warn!(cause = cause.text(), count, "export: windows dropped");
        *health.dropped.entry(cause).or_default() += count;
    }
    health.waiting = waiting;
    health.waiting_bytes = waiting_bytes;
}

/// A panic of another part does not make figures less true.
fn lock(health: &Mutex<Health>) -> MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Work {
    agent: Agent,
    queue: Arc<Queue>,
    health: Arc<Mutex<Health>>,
    /// Requests that failed in a row.
    failures: u32,
}

impl Work {
    fn run(mut self, wakes: &Receiver<()>) {
        privileges::give_up();
        loop {
            lock(&self.health).since = Some(Instant::now());
            trim(&self.queue, &self.health);
            let pause = match self.queue.items().first() {
                None => Some(None),
                Some(item) => self.attempt(item).map(Some),
            };
            lock(&self.health).since = None;
            let goes_on = match pause {
                // There may be more.
                None => !matches!(
                    wakes.try_recv(),
                    Err(std::sync::mpsc::TryRecvError::Disconnected)
                ),
                Some(None) => wakes.recv().is_ok(),
                Some(Some(pause)) => sleep(wakes, pause),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Sends one; gives how long to wait before the next attempt, if at all.
    fn attempt(&mut self, item: &Item) -> Option<Duration> {
        let answer = match self.queue.read(item) {
            Ok(bytes) => self.agent.send(&bytes),
            // Deleted meanwhile, as too old or too much: counted by who did that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                return self.done(item, Some(Dropped::QueueFailed), Some(error.to_string()));
            }
        };
        let pause = match answer {
            Answer::Taken => self.done(item, None, None),
            Answer::Refused(why) => self.done(item, Some(Dropped::Refused), Some(why)),
            Answer::Failed { why, wait } => {
                self.failures = self.failures.saturating_add(1);
                let pause =
                    pause(self.failures, random()).max(wait.unwrap_or_default().min(PAUSE_MAX));
                if self.failures == 1 {
                    tracing::warn!(
                        url = self.agent.url(),
                        why,
                        "export failed, it is tried again"
                    );
                }
                let mut health = lock(&self.health);
                health.failures += 1;
                health.trouble = Some(why);
                return Some(pause);
            }
        };
        if self.failures > 0 {
            tracing::info!(
                url = self.agent.url(),
                failures = self.failures,
                "export works again"
            );
        }
        self.failures = 0;
        pause
    }

    /// It need not be sent any more. Where it cannot be removed there is a pause, so that it is not sent all the time.
    fn done(
        &self,
        item: &Item,
        dropped: Option<Dropped>,
        trouble: Option<String>,
    ) -> Option<Duration> {
        let removed = self.queue.remove(item);
        if let Err(error) = removed {
            let why = format!("the queue cannot be written to: {error}");
            tracing::error!(url = self.agent.url(), why, "export stands still");
            lock(&self.health).trouble = Some(why);
            return Some(PAUSE_MAX);
        }
        let mut health = lock(&self.health);
        match dropped {
            None => health.sent += 1,
            Some(cause) => {
                let why = trouble.as_deref().unwrap_or_default();
                tracing::warn!(
                    url = self.agent.url(),
                    cause = cause.text(),
                    why,
                    "export: window dropped"
                );
                if matches!(removed, Ok(true)) {
                    *health.dropped.entry(cause).or_default() += 1;
                }
            }
        }
        health.trouble = trouble;
        None
    }
}

/// Whether it was slept through; else this place is configured no more.
fn sleep(wakes: &Receiver<()>, pause: Duration) -> bool {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match wakes.recv_timeout(left) {
            // A new window is no reason to knock sooner.
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Exponential, with half of it by chance, so that many hosts do not knock at the same time. Pure.
fn pause(failures: u32, random: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let whole = (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX);
    whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn random() -> u32 {
    // Without chance the pause is a whole one.
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Duration, PAUSE_MAX, pause};

    /// It doubles up to a limit, and chance is worth half of it.
    #[test]
    fn pauses_grow() {
        assert_eq!(pause(1, u32::MAX), Duration::from_secs(1));
        assert_eq!(pause(1, 0), Duration::from_millis(500));
        assert_eq!(pause(4, u32::MAX), Duration::from_secs(8));
        assert_eq!(pause(u32::MAX, u32::MAX), PAUSE_MAX);
        let half = pause(3, u32::MAX / 2);
        assert!(half > pause(3, 0) && half < pause(3, u32::MAX));
    }
}
