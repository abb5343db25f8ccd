//! Which processes have a Python interpreter, as the kernel side is told.

use aya::maps::{HashMap, MapData};
use profiler_common::python::Interpreter;

use super::{Kernel, KernelError, load::map, plain::plain};

const PYTHONS: &str = "PYTHONS";

plain! {
    /// [`Interpreter`] as aya wants it.
    Value(Interpreter);
}

/// The table of interpreters.
pub struct PythonMap(HashMap<MapData, u32, Value>);

impl Kernel {
    /// The table of interpreters; once.
    pub fn pythons(&mut self) -> Result<PythonMap, KernelError> {
        map(&mut self.ebpf, PYTHONS, HashMap::try_from).map(PythonMap)
    }
}

impl PythonMap {
    /// Tells of a process's interpreter; says whether there was room.
    pub fn set(&mut self, pid: u32, interpreter: Interpreter) -> bool {
        self.0.insert(pid, Value(interpreter), 0).is_ok()
    }

    /// A process has none any more.
    pub fn remove(&mut self, pid: u32) {
        // Gone already is as good.
        let _ = self.0.remove(&pid);
    }
}
