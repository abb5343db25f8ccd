//! Names for places.
//!
//! A thread of its own is handed places and the descriptors of pinned files, never a live process, so
//! that exited processes and deleted files get their names too. Every place gets a name: a function
//! without a symbol is named after its first byte, which is the same for all its addresses.
//!
//! What a file says of itself may be made up to harm its reader, so it is read by a child process
//! without privileges (`child`), one file at a time: its death costs the names of that file. The thread
//! asks it (`worker`), finds files of debug information for it (`debug_files`), and makes names of what
//! it answers (`names`).

mod blaze;
mod budget;
mod cache;
pub(crate) mod child;
mod debug_files;
mod hints;
mod launch;
mod limits;
mod mangling;
mod names;
mod wire;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    os::fd::AsFd,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use crate::{
    process::{LifeId, PinnedFile, Place, Processes},
    profile::{Frame, FrameKind, Module},
};

pub(crate) use self::{
    cache::Cache,
    limits::Limits,
    worker::{give_up_after, time_of_children},
};

/// Symbolization could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// No thread for it.
    #[error("cannot start the symbolizer's thread: {0}")]
    Thread(#[source] io::Error),
    /// The thread is gone.
    #[error("the symbolizer has failed")]
    Gone,
    /// No child.
    #[error("cannot start the process that reads symbols: {0}")]
    Child(#[source] io::Error),
    /// The child cannot give up its privileges.
    #[error("cannot confine the process that reads symbols")]
    Confine,
}

impl SymbolizeError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Thread(_) => Some("raise the limit of processes (ulimit -u)".to_owned()),
            Self::Gone => None,
            Self::Child(_) => Some(
                "the profiler runs itself once more by /proc/self/exe: /proc must be mounted, and its file system without noexec".to_owned(),
            ),
            Self::Confine => Some(
                "it needs a kernel with CONFIG_SECCOMP_FILTER, and no filter that refuses prctl or capset".to_owned(),
            ),
        }
    }
}

/// What this process does if it was started as the child that reads symbols; `None` if it was not. For the beginning
/// of `main`.
pub fn child(words: impl Iterator<Item = String>) -> Option<ExitCode> {
    child::main(words)
}

/// Whether the child can be started here: better found out before a recording than after it.
pub(crate) fn check(limits: Limits) -> Result<(), SymbolizeError> {
    let mut worker = worker::Worker::new(limits);
    worker.start().map_err(SymbolizeError::Child)?;
    let file = File::open("/proc/self/exe").map_err(SymbolizeError::Child)?;
    match worker.ask(&wire::Question::Links, &[file.as_fd()]) {
        Err(worker::Failed::NotStarted) => Err(SymbolizeError::Confine),
        _ => Ok(()),
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

/// The name of code that a runtime has made and no map names.
pub(crate) const NAMELESS_CODE: &str = "[anonymous code]";

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
}

impl Sources {
    /// Those of the processes known now.
    pub fn of(processes: &Processes) -> Self {
        Self {
            files: processes.files().to_vec(),
            perf_maps: processes.perf_maps().clone(),
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
    /// Starts the thread.
    pub(crate) fn spawn(limits: Limits) -> Result<Self, SymbolizeError> {
        let (batches, receiver) = mpsc::channel::<Batch>();
        let work = move || {
            let mut names = names::Names::new(limits);
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
