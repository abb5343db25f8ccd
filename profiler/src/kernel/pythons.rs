//! Which processes have a Python interpreter, as the kernel side is told.

use aya::maps::{HashMap, MapData};
use profiler_common::python::Interpreter;

use super::{Kernel, KernelError, load::map, plain::plain};

const PYTHONS: &str = "PYTHONS";
const PYTHON_THREADS: &str = "PYTHON_THREADS";

plain! {
    /// [`Interpreter`] as aya wants it.
    Value(Interpreter);
}

/// The tables of interpreters and of threads whose state had to be looked for.
pub struct PythonMap {
    interpreters: HashMap<MapData, u32, Value>,
    threads: HashMap<MapData, u32, u64>,
}

impl Kernel {
    /// The tables of interpreters; once.
    pub fn pythons(&mut self) -> Result<PythonMap, KernelError> {
        Ok(PythonMap {
            interpreters: map(&mut self.ebpf, PYTHONS, HashMap::try_from)?,
            threads: map(&mut self.ebpf, PYTHON_THREADS, HashMap::try_from)?,
        })
    }
}

impl PythonMap {
    /// Tells of a process's interpreter; says whether there was room.
    pub fn set(&mut self, pid: u32, interpreter: Interpreter) -> bool {
        self.interpreters.insert(pid, Value(interpreter), 0).is_ok()
    }

    /// Sets a thread's state, which the kernel side checks whenever it uses it.
    pub fn set_thread(&mut self, tid: u32, state: u64) {
        // The least recently used makes room.
        let _ = self.threads.insert(tid, state, 0);
    }

    /// A process has none any more.
    pub fn remove(&mut self, pid: u32) {
        // Gone already is as good.
        let _ = self.interpreters.remove(&pid);
    }
}
