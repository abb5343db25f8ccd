//! Every code object met, and what each process has at which address.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use super::{
    code::{Code, Failure, Memory},
    lines::line_at,
    module::module_of,
};
use crate::foreign::{Root, ask};
use profiler_common::python::{CodeLayout, LineTable, PythonFrame};

/// Position in the list of code objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeId(u32);

/// What a code object is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// With its module: `json.decoder.JSONDecoder.decode`.
    pub name: String,
    /// Path of its source, if it has one.
    pub file: Option<String>,
    /// Where it begins, if that is known.
    pub first_line: Option<u32>,
    /// It is none, but says how many are left out.
    pub is_gap: bool,
}

impl Function {
    /// One of which no more is known than what stands for its name.
    fn nameless(name: String) -> Self {
        Self {
            name,
            file: None,
            first_line: None,
            is_gap: false,
        }
    }
}

/// Most code objects of one process, those that could not be read included. Django runs some 10,000.
const OF_PROCESS_MAX: usize = 20_000;
/// Most bytes of code objects of all processes.
const BYTES_MAX: usize = 64 << 20;
/// What a code object takes beside its texts.
const OBJECT_BYTES: usize = 300;
/// Most lines that are remembered.
const LINES_MAX: usize = 200_000;
/// Most folders of which it is remembered whether they are packages.
const PACKAGES_MAX: usize = 4096;

/// What is counted where there is no room for more.
const BEYOND: &str = "Python frame without a name, too many code objects";

/// What is at an address: the code object's address and checksum, then which it is. Both are the process's to choose, so
/// the hash is not one that it could foresee.
type ByAddress = HashMap<(u64, u32), CodeId>;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Codes {
    functions: Vec<Function>,
    tables: Vec<Option<(LineTable, Code)>>,
    /// By the module too, which is what the process's own files say it is.
    by_content: HashMap<(String, Code), CodeId>,
    by_process: HashMap<u32, Arc<ByAddress>>,
    lines: HashMap<(CodeId, i32), u32>,
    packages: HashMap<(u32, String), bool>,
    failures: BTreeMap<Failure, u64>,
    /// What the code objects take.
    bytes: usize,
    /// Stands for code objects that found no room, and how often it did.
    beyond: Option<CodeId>,
    beyond_count: u64,
    /// What stands for so many frames, or for more.
    gaps: HashMap<(usize, bool), CodeId>,
}

impl Codes {
    /// The code object of a frame, read now if it is new, and the line, 0 where there is none.
    pub(super) fn find(
        &mut self,
        pid: u32,
        frame: &PythonFrame,
        layout: &CodeLayout,
        memory: &impl Memory,
    ) -> (CodeId, u32) {
        let key = (frame.code, frame.checksum);
        let codes = self.by_process.get(&pid);
        let known = codes.and_then(|codes| codes.get(&key)).copied();
        let is_full = codes.is_some_and(|codes| codes.len() >= OF_PROCESS_MAX) || self.is_full();
        if known.is_none() && is_full {
            self.beyond_count += 1;
            return (self.beyond(), 0);
        }
        let code = known.unwrap_or_else(|| {
            let code = match memory.code(layout, frame) {
                Ok(code) => self.enter(pid, code, layout.line_table),
                Err(failure) => {
                    *self.failures.entry(failure).or_default() += 1;
                    self.unnamed(frame.code)
                }
            };
            let codes = self.by_process.entry(pid).or_default();
            Arc::make_mut(codes).insert(key, code);
            code
        });
        (code, self.line(code, frame.offset))
    }

    /// Whether the code object of a frame is known or can be read.
    pub(super) fn can_find(
        &self,
        pid: u32,
        frame: &PythonFrame,
        layout: &CodeLayout,
        memory: &impl Memory,
    ) -> bool {
        let key = (frame.code, frame.checksum);
        let codes = self.by_process.get(&pid);
        codes.is_some_and(|codes| codes.contains_key(&key)) || memory.code(layout, frame).is_ok()
    }

    fn enter(&mut self, pid: u32, code: Code, kind: LineTable) -> CodeId {
        let module = module_of(&code.file, |folder| self.is_package(pid, folder));
        let key = (module, code);
        if let Some(&id) = self.by_content.get(&key) {
            return id;
        }
        let (module, code) = &key;
        let function = Function {
            name: format!("{module}.{}", code.name),
            file: Some(code.file.clone()),
            first_line: Some(code.first_line),
            is_gap: false,
        };
        // Names and paths are kept three times.
        let texts = 3 * (module.len() + code.name.len() + code.file.len());
        self.bytes += texts + 2 * code.lines.len();
        let id = self.push(function, Some((kind, code.clone())));
        self.by_content.insert(key, id);
        id
    }

    fn unnamed(&mut self, address: u64) -> CodeId {
        let name = format!("<python code at {address:#x}>");
        self.push(Function::nameless(name), None)
    }

    /// What stands for so many frames that are left out, or for `more` than that.
    pub(super) fn left_out(&mut self, frames: usize, more: bool) -> CodeId {
        if let Some(&id) = self.gaps.get(&(frames, more)) {
            return id;
        }
        let name = match (frames, more) {
            (0, _) => "[more Python frames]".to_owned(),
            (_, true) => format!("[more than {frames} Python frames]"),
            (_, false) => format!("[{frames} Python frames left out]"),
        };
        let gap = Function {
            is_gap: true,
            ..Function::nameless(name)
        };
        let id = self.push(gap, None);
        self.gaps.insert((frames, more), id);
        id
    }

    fn beyond(&mut self) -> CodeId {
        if let Some(beyond) = self.beyond {
            return beyond;
        }
        let name = "<python code, too much>".to_owned();
        let beyond = self.push(Function::nameless(name), None);
        self.beyond = Some(beyond);
        beyond
    }

    fn push(&mut self, function: Function, table: Option<(LineTable, Code)>) -> CodeId {
        let id = CodeId(u32::try_from(self.functions.len()).unwrap_or(u32::MAX));
        self.bytes += OBJECT_BYTES;
        self.functions.push(function);
        self.tables.push(table);
        id
    }

    /// Whether a folder, as the process sees it, is a package.
    fn is_package(&mut self, pid: u32, folder: &str) -> bool {
        let look = || {
            if !folder.starts_with('/') {
                return false;
            }
            let file = Path::new(folder).join("__init__.py");
            let find = move || Root::of(pid)?.find(&file);
            ask(pid, find).is_some_and(|found| found.is_ok())
        };
        if self.packages.len() >= PACKAGES_MAX {
            self.packages.clear();
        }
        let key = (pid, folder.to_owned());
        *self.packages.entry(key).or_insert_with(look)
    }

    fn line(&mut self, code: CodeId, offset: i32) -> u32 {
        let Self { tables, lines, .. } = self;
        if lines.len() >= LINES_MAX {
            lines.clear();
        }
        let Some(Some((kind, code_object))) = tables.get(code.0 as usize) else {
            return 0;
        };
        let Code {
            first_line,
            lines: table,
            ..
        } = code_object;
        *lines
            .entry((code, offset))
            .or_insert_with(|| line_at(*kind, table, *first_line, offset).unwrap_or(*first_line))
    }

    /// The child has what its parent has, until it changes.
    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        if let Some(codes) = self.by_process.get(&parent) {
            let codes = Arc::clone(codes);
            self.by_process.insert(child, codes);
        }
    }

    pub(super) fn forget(&mut self, pid: u32) {
        self.by_process.remove(&pid);
        self.packages.retain(|&(process, _), _| process != pid);
    }

    /// Whether there is no room for more, of any process.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn function(&self, code: CodeId) -> &Function {
        &self.functions[code.0 as usize]
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failures = self.failures.iter();
        failures
            .map(|(failure, count)| (failure.text(), *count))
            .chain([(BEYOND, self.beyond_count)])
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::python::{PythonFrame, Version};

    use super::{BEYOND, Code, Codes, LineTable, Memory, OF_PROCESS_MAX};

    struct Nothing;

    impl Memory for Nothing {
        fn read(&self, _address: u64, _buffer: &mut [u8]) -> bool {
            false
        }
    }

    /// A process whose code objects are always others has so many, and no more; what another one has goes on.
    #[test]
    fn one_process_does_not_take_all() {
        let layout = Version { minor: 11 }.known().unwrap().code;
        let mut codes = Codes::default();
        let mut find = |pid, code| {
            let frame = PythonFrame {
                code,
                ..PythonFrame::default()
            };
            let (id, _) = codes.find(pid, &frame, &layout, &Nothing);
            codes.function(id).name.clone()
        };
        for code in 0..OF_PROCESS_MAX as u64 {
            assert_eq!(find(1, code), format!("<python code at {code:#x}>"));
        }
        assert_eq!(find(1, u64::MAX), "<python code, too much>");
        assert_eq!(find(1, 7), "<python code at 0x7>");
        assert_eq!(find(2, 9), "<python code at 0x9>");
        let beyond = codes.notes().find(|(text, _)| *text == BEYOND);
        assert_eq!(beyond, Some((BEYOND, 1)));
    }

    /// Equal code of two processes is one function only if their files say that it is of one module.
    #[test]
    fn modules_are_of_each_process() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("__init__.py"), "").unwrap();
        let code = Code {
            name: "f".to_owned(),
            file: format!("{}/m.py", folder.path().display()),
            first_line: 1,
            lines: Box::default(),
        };
        let mut codes = Codes::default();
        // A process that is gone has no files.
        let gone = codes.enter(u32::MAX, code.clone(), LineTable::Ranges);
        let ours = codes.enter(std::process::id(), code, LineTable::Ranges);
        let package = folder.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(codes.function(gone).name, "m.f");
        assert_eq!(codes.function(ours).name, format!("{package}.m.f"));
    }

    /// What cannot be read is named by its address, tried once and counted; a child shares it.
    #[test]
    fn what_cannot_be_read_is_counted() {
        let layout = Version { minor: 11 }.known().unwrap().code;
        let mut codes = Codes::default();
        let frame = PythonFrame {
            code: 0x1234,
            ..PythonFrame::default()
        };
        let (code, line) = codes.find(1, &frame, &layout, &Nothing);
        assert_eq!(codes.find(1, &frame, &layout, &Nothing), (code, line));
        codes.forked(1, 2);
        assert_eq!(codes.find(2, &frame, &layout, &Nothing).0, code);
        assert_eq!(codes.function(code).name, "<python code at 0x1234>");
        assert_eq!(
            (line, codes.notes().map(|(_, count)| count).sum::<u64>()),
            (0, 1)
        );
    }
}
