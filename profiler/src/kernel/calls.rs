//! The sums of system calls, as the kernel side keeps them.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuHashMap},
    programs::RawTracePoint,
};
use profiler_common::{
    limits::{CALLERS_MAX, CELLS_BYTES, CELLS_MAX, CELLS_MIN, ERRORS_MAX},
    syscalls::{Call, CallSettings, Cell, CellKey, ErrorKey, wanted},
};

use super::{
    Kernel, KernelError,
    load::{failed, map, program},
    plain::plain,
};

/// Program and tracepoint of the entry.
const ENTER: (&str, &str) = ("sys_enter", "sys_enter");
/// Of the return, without and with stacks.
const EXIT: (&str, &str) = ("sys_exit", "sys_exit");
const EXIT_STACKS: (&str, &str) = ("sys_exit_stacks", "sys_exit");

plain! {
    /// [`Call`] as aya wants it.
    CallValue(Call);
    /// [`Cell`] as aya wants it.
    CellValue(Cell);
    /// [`CellKey`] as aya wants it.
    Key(CellKey);
    /// [`ErrorKey`] as aya wants it.
    KeyOfError(ErrorKey);
}

/// All maps of it.
pub(super) struct Calls {
    callers: HashMap<MapData, u32, CallValue>,
    cells: PerCpuHashMap<MapData, Key, CellValue>,
    errors: PerCpuHashMap<MapData, KeyOfError, u64>,
}

impl Calls {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            callers: map(ebpf, "CALLERS", HashMap::try_from)?,
            cells: map(ebpf, "CELLS", PerCpuHashMap::try_from)?,
            errors: map(ebpf, "ERRORS", PerCpuHashMap::try_from)?,
        })
    }
}

/// Sizes of the maps: as small as can be where nothing is wanted of them.
pub(super) fn sizes(settings: &CallSettings) -> [(&'static str, u32); 3] {
    let sizes = if settings.wanted == 0 {
        [1, 1, 1]
    } else {
        let cpus = aya::util::nr_cpus().unwrap_or(1).max(1);
        let room = CELLS_BYTES / (size_of::<Cell>() * cpus);
        [CALLERS_MAX, room.clamp(CELLS_MIN, CELLS_MAX), ERRORS_MAX]
    };
    let [callers, cells, errors] = sizes.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    [("CALLERS", callers), ("CELLS", cells), ("ERRORS", errors)]
}

/// The programs that are wanted, with their tracepoints, in the order in which they are attached: the
/// return first, so that no call is entered without being seen to return.
pub(super) fn programs(settings: &CallSettings) -> Vec<(&'static str, &'static str)> {
    match settings.wanted {
        0 => Vec::new(),
        bits if bits & wanted::STACKS != 0 => vec![EXIT_STACKS, ENTER],
        _ => vec![EXIT, ENTER],
    }
}

impl Kernel {
    /// Begins to follow system calls.
    pub fn attach_calls(&mut self) -> Result<(), KernelError> {
        for (name, tracepoint) in self.call_programs.clone() {
            let hook: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            let link = hook.attach(tracepoint).and_then(|id| hook.take_link(id));
            let link = link.map_err(|source| failed("attach", name, source))?;
            // Detached in the opposite order, so that the returns are seen to the last.
            self.call_links.insert(0, link);
        }
        Ok(())
    }

    /// Notes the call that a thread was in when the recording began, unless it is followed by now. Says which.
    pub fn begin_caller(&mut self, tid: u32, call: Call) -> Result<bool, KernelError> {
        const NO_EXIST: u64 = 1;
        match self.calls.callers.insert(tid, CallValue(call), NO_EXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            Err(source) => Err(KernelError::Map {
                map: "CALLERS",
                source: Box::new(source),
            }),
            Ok(()) => Ok(true),
        }
    }

    /// The threads that are followed.
    pub fn callers(&self) -> BTreeMap<u32, Call> {
        let entries = self.calls.callers.iter().filter_map(Result::ok);
        entries.map(|(tid, call)| (tid, call.0)).collect()
    }

    /// Every sum so far, each CPU's apart.
    pub fn cells(&self, mut each: impl FnMut(&CellKey, &Cell)) {
        for (key, cells) in self.calls.cells.iter().filter_map(Result::ok) {
            cells.iter().for_each(|cell| each(&key.0, &cell.0));
        }
    }

    /// Takes a sum out, which nobody must write to any more. Says whether it is gone.
    pub fn forget_cell(&mut self, key: &CellKey) -> bool {
        self.calls.cells.remove(&Key(*key)).is_ok()
    }

    /// Likewise, the number of an error.
    pub fn forget_call_error(&mut self, key: &ErrorKey) -> bool {
        self.calls.errors.remove(&KeyOfError(*key)).is_ok()
    }

    /// Errors by their number so far.
    pub fn call_errors(&self) -> BTreeMap<ErrorKey, u64> {
        let entries = self.calls.errors.iter().filter_map(Result::ok);
        entries
            .map(|(key, counts)| (key.0, counts.iter().sum()))
            .collect()
    }
}
