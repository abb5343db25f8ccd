//! What waits to be sent to one place: a folder, a file a request, each whole or not there. It outlives the daemon.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Dropped, Limits};
use crate::{
    artifact::{self, Artifact, Destination},
    store::{
        WINDOW_BYTES_MAX, now_ms,
        retention::{self, Retention, Surplus},
        trusted,
    },
};

const SUFFIX: &str = ".request";

/// Tells requests of one millisecond apart.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// When it began to, milliseconds after the Unix epoch.
    since_ms: u64,
    name: String,
    bytes: u64,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Queue {
    folder: PathBuf,
    limits: Limits,
}

impl Queue {
    pub(super) fn new(folder: PathBuf, limits: Limits) -> Self {
        Self { folder, limits }
    }

    /// Makes the folder where there is none, tightens what others could read, and removes what a
    /// daemon that was killed left unfinished.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if let Some(queues) = self.folder.parent() {
            trusted::make_folder(queues)?;
        }
        trusted::make_folder(&self.folder)?;
        artifact::remove_unfinished(&self.folder)
    }

    /// Adds a request.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<(), Dropped> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        let path = self
            .folder
            .join(format!("{:015}-{number:06}{SUFFIX}", now_ms()));
        let artifact = Artifact::open_as(&Destination::Ours(path), trusted::FILE_MODE);
        artifact
            .and_then(|artifact| artifact.write(bytes))
            .map_err(|error| {
                tracing::warn!(%error, "export: the queue cannot be written to");
                Dropped::QueueFailed
            })
    }

    /// All that waits, the oldest first.
    pub(super) fn items(&self) -> Vec<Item> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut items: Vec<Item> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (since, _) = name.strip_suffix(SUFFIX)?.split_once('-')?;
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some(Item {
                    since_ms: since.parse().ok()?,
                    bytes: metadata.len(),
                    name,
                })
            })
            .collect();
        items.sort();
        items
    }

    pub(super) fn read(&self, item: &Item) -> io::Result<Vec<u8>> {
        trusted::read_bounded(&self.folder.join(&item.name), WINDOW_BYTES_MAX)
    }

    /// Whether it was there to be removed.
    pub(super) fn remove(&self, item: &Item) -> io::Result<bool> {
        match fs::remove_file(self.folder.join(&item.name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Drops what is too much; gives what was dropped, and how many requests and bytes are left.
    pub(super) fn trim(&self) -> (BTreeMap<Dropped, u64>, u64, u64) {
        let items = self.items();
        let (mut count, mut bytes) = (items.len() as u64, total(&items));
        let mut dropped = BTreeMap::new();
        for (position, cause) in surplus(&items, self.limits, now_ms()) {
            if matches!(self.remove(&items[position]), Ok(true)) {
                *dropped.entry(cause).or_default() += 1;
                count -= 1;
                bytes -= items[position].bytes;
            }
        }
        (dropped, count, bytes)
    }
}

fn total(items: &[Item]) -> u64 {
    items.iter().map(|item| item.bytes).sum()
}

/// Which of them are to be dropped, and why: what is too old, then the oldest until the rest is within the limit.
/// Pure.
fn surplus(items: &[Item], limits: Limits, now_ms: u64) -> Vec<(usize, Dropped)> {
    let retention = Retention {
        age: limits.age,
        bytes: limits.bytes,
    };
    let files = items.iter().map(|item| (item.since_ms, item.bytes));
    let cause = |why| match why {
        Surplus::Old => Dropped::TooOld,
        Surplus::Much => Dropped::QueueFull,
    };
    let gone = retention::surplus(files, retention, now_ms).into_iter();
    gone.map(|(position, why)| (position, cause(why))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Dropped, Item, Limits, Queue, surplus};

    fn items(list: &[(u64, u64)]) -> Vec<Item> {
        let item = |&(since_ms, bytes): &(u64, u64)| Item {
            since_ms,
            name: since_ms.to_string(),
            bytes,
        };
        list.iter().map(item).collect()
    }

    /// Old requests go, then the oldest until the rest fits; each for its own cause.
    #[test]
    fn oldest_go_first() {
        let limits = Limits {
            bytes: 25,
            age: Duration::from_millis(100),
        };
        let waiting = items(&[(0, 10), (500, 10), (501, 10), (502, 10)]);
        assert_eq!(
            surplus(&waiting, limits, 550),
            [(0, Dropped::TooOld), (1, Dropped::QueueFull)]
        );
        assert_eq!(surplus(&waiting[2..], limits, 550), []);
        // One that is larger than all that may wait.
        assert_eq!(
            surplus(&items(&[(500, 26)]), limits, 550),
            [(0, Dropped::QueueFull)]
        );
        // After the clock was set back nothing is too old.
        assert_eq!(surplus(&items(&[(500, 1)]), limits, 0), []);
    }

    /// What was put in comes out whole and in order, also by another daemon; a full queue says what it dropped.
    #[test]
    fn queue_keeps_order_and_limits() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            bytes: 8,
            age: Duration::from_secs(3600),
        };
        let queue = Queue::new(folder.path().join("q"), limits);
        queue.prepare().unwrap();
        for text in ["one", "two", "three"] {
            queue.put(text.as_bytes()).unwrap();
        }
        std::fs::write(folder.path().join("q/.profiler-x"), "half").unwrap();
        let (dropped, count, bytes) = queue.trim();
        assert_eq!((dropped[&Dropped::QueueFull], count, bytes), (1, 2, 8));
        let again = Queue::new(folder.path().join("q"), limits);
        again.prepare().unwrap();
        let items = again.items();
        let texts: Vec<Vec<u8>> = items.iter().map(|item| again.read(item).unwrap()).collect();
        assert_eq!(texts, [b"two".to_vec(), b"three".to_vec()]);
        assert!(again.remove(&items[0]).unwrap() && !again.remove(&items[0]).unwrap());
        assert_eq!(
            std::fs::read_dir(folder.path().join("q")).unwrap().count(),
            1
        );
    }

    /// A queue that cannot be written to says so.
    #[test]
    fn unwritable_queue_drops() {
        // Not in /proc: the folder above a queue is tightened, and nobody else could read /proc any more.
        let file = tempfile::NamedTempFile::new().unwrap();
        let queue = Queue::new(file.path().join("queue"), Limits::default());
        assert!(queue.prepare().is_err());
        assert_eq!(queue.put(b"x"), Err(Dropped::QueueFailed));
    }
}
