//! Names for places.
//!
//! A thread of its own holds the symbolizer, which is neither `Send` nor quick; it is handed places
//! and the descriptors of pinned files, never a live process, so that exited processes and deleted
//! files get their names too. Every place gets a name: a function without a symbol is named after its
//! first byte, which is the same for all its addresses.

mod cache;
pub(crate) mod elf;
mod functions;
mod names;
pub(crate) mod perf_map;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use crate::{
    process::{LifeId, PinnedFile, Place, Processes},
    profile::{Frame, FrameKind, Module},
};

pub(crate) use self::cache::Cache;

/// Symbolization could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// No thread for it.
    #[error("cannot start the symbolizer's thread: {0}")]
    Thread(#[source] io::Error),
    /// The thread is gone.
    #[error("the symbolizer has failed")]
    Gone,
}

impl SymbolizeError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Thread(_) => Some("raise the limit of processes (ulimit -u)".to_owned()),
            Self::Gone => None,
        }
    }
}

/// A place with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What kind of code it is.
    pub kind: FrameKind,
    /// The function and what is inlined into it there, innermost first; never empty.
    pub frames: Vec<Frame>,
    /// The file it lies in.
    pub module: Option<Module>,
}

/// The answer to one batch.
#[derive(Debug, Default)]
pub struct Resolved {
    /// One for each place, in order.
    pub named: Vec<Named>,
    /// What went wrong, with how often.
    pub notes: BTreeMap<&'static str, u64>,
    /// What would give more names, a sentence each.
    pub hints: Vec<String>,
}

/// What the thread works on.
struct Batch {
    places: Vec<Place>,
    sources: Sources,
    reply: mpsc::Sender<Resolved>,
}

/// Where names come from: files that stay pinned as long as this lives.
#[derive(Clone, Debug)]
pub struct Sources {
    files: Vec<Arc<PinnedFile>>,
    perf_maps: HashMap<LifeId, Arc<File>>,
    debug_directories: Vec<PathBuf>,
}

impl Sources {
    /// Those of the processes known now.
    pub fn of(processes: &Processes) -> Self {
        Self {
            files: processes.files().to_vec(),
            perf_maps: processes.perf_maps().clone(),
            debug_directories: processes.debug_directories().to_vec(),
        }
    }
}

/// The symbolizer's handle. Dropping it ends the thread.
#[derive(Debug)]
pub struct Symbols {
    batches: Option<mpsc::Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Symbols {
    /// Starts the thread. The processes' directories of debug information are searched before the
    /// host's own.
    pub fn spawn(sources: &Sources) -> Result<Self, SymbolizeError> {
        let (batches, receiver) = mpsc::channel::<Batch>();
        let directories = sources.debug_directories.clone();
        let work = move || {
            let mut names = names::Names::new(&directories);
            for Batch {
                places,
                sources,
                reply,
            } in receiver
            {
                // A caller that does not wait for the answer any more is no concern of ours.
                let _ = reply.send(names.resolve(&places, &sources));
            }
        };
        let thread = std::thread::Builder::new()
            .name("symbolize".to_owned())
            .spawn(work)
            .map_err(SymbolizeError::Thread)?;
        Ok(Self {
            batches: Some(batches),
            thread: Some(thread),
        })
    }

    /// Names for places in these files. Waits for the answer.
    pub fn resolve(
        &self,
        places: Vec<Place>,
        sources: Sources,
    ) -> Result<Resolved, SymbolizeError> {
        let (reply, answer) = mpsc::channel();
        let batches = self.batches.as_ref().ok_or(SymbolizeError::Gone)?;
        batches
            .send(Batch {
                places,
                sources,
                reply,
            })
            .map_err(|_| SymbolizeError::Gone)?;
        answer.recv().map_err(|_| SymbolizeError::Gone)
    }
}

impl Drop for Symbols {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been told to every waiting caller as `Gone`.
            let _ = thread.join();
        }
    }
}
