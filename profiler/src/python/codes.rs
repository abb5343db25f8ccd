//! Every code object met, and what each process has at which address.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use profiler_common::python::{CodeLayout, LineTable, PythonFrame};
use rustc_hash::FxHashMap;

use super::{
    code::{Code, Failure, Memory, read},
    lines::line_at,
    module::module_of,
};

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
}

/// What is at an address: the code object's address and checksum, then which it is.
type ByAddress = FxHashMap<(u64, u32), CodeId>;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Codes {
    functions: Vec<Function>,
    tables: Vec<Option<(LineTable, Code)>>,
    by_content: HashMap<Code, CodeId>,
    by_process: HashMap<u32, Arc<ByAddress>>,
    lines: FxHashMap<(CodeId, i32), u32>,
    packages: HashMap<(u32, String), bool>,
    failures: BTreeMap<Failure, u64>,
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
        let known = self.by_process.get(&pid).and_then(|codes| codes.get(&key));
        let code = known.copied().unwrap_or_else(|| {
            let code = match read(memory, layout, frame) {
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
        codes.is_some_and(|codes| codes.contains_key(&key)) || read(memory, layout, frame).is_ok()
    }

    fn enter(&mut self, pid: u32, code: Code, kind: LineTable) -> CodeId {
        if let Some(&id) = self.by_content.get(&code) {
            return id;
        }
        let module = module_of(&code.file, |folder| self.is_package(pid, folder));
        let function = Function {
            name: format!("{module}.{}", code.name),
            file: Some(code.file.clone()),
            first_line: Some(code.first_line),
        };
        let id = self.push(function, Some((kind, code.clone())));
        self.by_content.insert(code, id);
        id
    }

    fn unnamed(&mut self, address: u64) -> CodeId {
        let function = Function {
            name: format!("<python code at {address:#x}>"),
            file: None,
            first_line: None,
        };
        self.push(function, None)
    }

    fn push(&mut self, function: Function, table: Option<(LineTable, Code)>) -> CodeId {
        let id = CodeId(u32::try_from(self.functions.len()).unwrap_or(u32::MAX));
        self.functions.push(function);
        self.tables.push(table);
        id
    }

    /// Whether a folder, as the process sees it, is a package.
    fn is_package(&mut self, pid: u32, folder: &str) -> bool {
        let look = || {
            let below_root = Path::new(folder).strip_prefix("/").ok()?;
            let root = format!("/proc/{pid}/root");
            let file = Path::new(&root).join(below_root).join("__init__.py");
            Some(file.is_file())
        };
        let key = (pid, folder.to_owned());
        *self
            .packages
            .entry(key)
            .or_insert_with(|| look().unwrap_or(false))
    }

    fn line(&mut self, code: CodeId, offset: i32) -> u32 {
        let Self { tables, lines, .. } = self;
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

    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn function(&self, code: CodeId) -> &Function {
        &self.functions[code.0 as usize]
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.failures
            .iter()
            .map(|(failure, count)| (failure.text(), *count))
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::python::{PythonFrame, Version};

    use super::{Codes, Memory};

    struct Nothing;

    impl Memory for Nothing {
        fn read(&self, _address: u64, _buffer: &mut [u8]) -> bool {
            false
        }
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
