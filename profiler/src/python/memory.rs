//! A process's memory, read while the process runs on. It may wait for whatever the process likes, so it is asked for.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use profiler_common::python::{CodeLayout, Interpreter, PythonFrame, Versioned};

use super::{
    code::{self, Code, Failure, Memory},
    thread_names,
    walk::{self, States, Walked},
};
use crate::foreign::ask;

/// See the file.
#[derive(Clone, Debug)]
pub(super) struct ProcessMemory {
    pid: u32,
    file: Option<Arc<File>>,
}

/// The same where it may wait.
struct Plain(Arc<File>);

impl Memory for Plain {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        self.0.read_exact_at(buffer, address).is_ok()
    }
}

impl ProcessMemory {
    pub(super) fn of(pid: u32) -> Self {
        let file = ask(pid, move || File::open(format!("/proc/{pid}/mem")));
        Self {
            pid,
            file: file.and_then(Result::ok).map(Arc::new),
        }
    }

    /// The states of its threads now.
    pub(super) fn states(&self, interpreter: &Interpreter) -> States {
        let interpreter = *interpreter;
        self.ask(move |memory| walk::states(memory, &interpreter))
            .unwrap_or_default()
    }

    /// The Python stack of a thread with this state now.
    pub(super) fn walk(&self, interpreter: &Interpreter, tid: u32, state: u64) -> Option<Walked> {
        let interpreter = *interpreter;
        self.ask(move |memory| walk::walk(memory, &interpreter, tid, state))?
    }

    /// What `threading` calls the thread with this stack.
    pub(super) fn thread_name(&self, versioned: &Versioned, walked: &Walked) -> Option<String> {
        let versioned = *versioned;
        let outermost = *walked.frames.iter().rfind(|frame| frame.code != 0)?;
        let outermost = (outermost, walked.outermost?);
        self.ask(move |memory| thread_names::name(memory, &versioned, outermost))?
    }

    /// Several reads at once cost one question.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Plain) -> T + Send + 'static,
    ) -> Option<T> {
        let memory = Plain(Arc::clone(self.file.as_ref()?));
        ask(self.pid, move || question(&memory))
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let mut bytes = vec![0; buffer.len()];
        let read = self.ask(move |memory| memory.read(address, &mut bytes).then_some(bytes));
        let Some(bytes) = read.flatten() else {
            return false;
        };
        buffer.copy_from_slice(&bytes);
        true
    }

    fn code(&self, layout: &CodeLayout, frame: &PythonFrame) -> Result<Code, Failure> {
        let (layout, frame) = (*layout, *frame);
        self.ask(move |memory| code::read(memory, &layout, &frame))
            .unwrap_or(Err(Failure::Gone))
    }
}
