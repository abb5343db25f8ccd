//! Unwind tables of the files that this system has, against gimli's evaluation of the same call frame
//! information: at each row's first, middle and last address, both steps give the same caller.

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, EvaluationResult, LittleEndian,
    Location, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTable,
    UnwindTableRow, Value,
};
use object::{Architecture, Object, ObjectSection};
use profiler::unwind::Table;
use profiler_common::{
    outcome::StopReason,
    unwind::{Cfa, Registers, Rule, SignalFrame, step},
};

/// Where programs and libraries are.
const FOLDERS: [&str; 4] = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/postgresql",
];
/// A set of rows large enough that every form that compilers write is in it.
const ROWS_MIN: u64 = 1_000_000;

/// Functions before one that are asked whether they reach into it.
const OVERLAP_LOOK: usize = 8;

const RBP: Register = Register(6);
const RSP: Register = Register(7);
const RIP: Register = Register(16);

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Section<'a> = EhFrame<Bytes<'a>>;
type Row = UnwindTableRow<usize>;
type Function<'a> = gimli::FrameDescriptionEntry<Bytes<'a>>;

/// The caller, or that there is none.
type Caller = Result<Registers, StopReason>;

/// Each register and each word of memory is another number, the stack pointer the smallest.
fn register(number: usize) -> u64 {
    0x7000_0000_0000
        + if number == 7 {
            0
        } else {
            0x10_0000 * (number as u64 + 1)
        }
}

fn memory(address: u64) -> u64 {
    0x7100_0000_0000 + (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24 & !7)
}

/// gimli's evaluation at one address of a file.
struct Evaluation<'a> {
    section: &'a Section<'a>,
    encoding: gimli::Encoding,
    pc: u64,
}

impl Evaluation<'_> {
    fn register(&self, number: Register) -> u64 {
        if number == RIP {
            self.pc
        } else {
            register(usize::from(number.0))
        }
    }

    /// The value of an expression, with what is on its stack at the beginning.
    fn expression(&self, expression: &UnwindExpression<usize>, first: Option<u64>) -> u64 {
        let expression = expression.get(self.section).expect("a whole expression");
        let mut evaluation = expression.evaluation(self.encoding);
        if let Some(first) = first {
            evaluation.set_initial_value(first);
        }
        let mut result = evaluation.evaluate().expect("a sound expression");
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.register(register)))
                }
                EvaluationResult::RequiresMemory { address, .. } => {
                    evaluation.resume_with_memory(Value::Generic(memory(address)))
                }
                other => panic!("{other:?} in call frame information"),
            }
            .expect("a sound expression");
        }
        match evaluation.result()[0].location {
            Location::Address { address } => address,
            ref other => panic!("{other:?} in call frame information"),
        }
    }

    /// The caller by a row.
    fn caller(&self, row: &Row) -> Caller {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(*register).wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.expression(expression, None),
        };
        let value = |number: Register| {
            Some(match row.register(number) {
                Some(RegisterRule::Undefined) if number == RIP => return None,
                // Callee-saved: without a rule it has not changed.
                None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => {
                    self.register(number)
                }
                Some(RegisterRule::Offset(offset)) => memory(cfa.wrapping_add_signed(offset)),
                Some(RegisterRule::ValOffset(offset)) => cfa.wrapping_add_signed(offset),
                Some(RegisterRule::Register(other)) => self.register(other),
                Some(RegisterRule::Expression(expression)) => {
                    memory(self.expression(&expression, Some(cfa)))
                }
                Some(RegisterRule::ValExpression(expression)) => {
                    self.expression(&expression, Some(cfa))
                }
                Some(other) => panic!("{other:?} in call frame information"),
            })
        };
        Ok(Registers {
            pc: value(RIP).ok_or(StopReason::Outermost)?,
            sp: cfa,
            bp: value(RBP).expect("it has a value"),
        })
    }
}

/// Our step by our rule, on the same registers and memory.
fn caller(rule: &Rule, pc: u64) -> Caller {
    let frame = Registers {
        pc,
        sp: register(usize::from(RSP.0)),
        bp: register(usize::from(RBP.0)),
    };
    let read = |address| Some(memory(address));
    if rule.cfa == Cfa::Signal as u8 {
        return SignalFrame::X86_64
            .interrupted(&frame, read)
            .ok_or(StopReason::ReadStack);
    }
    step(rule, &frame, |number| Some(register(number)), read)
}

/// What was compared.
#[derive(Debug, Default)]
struct Seen {
    files: u64,
    rows: u64,
    addresses: u64,
    /// Rows of a kind that the tables do not have, by that row.
    unsupported: BTreeMap<String, u64>,
    /// Functions that overlap with another, of which the first is believed.
    overlapping: u64,
    /// Functions whose rules gimli cannot read either.
    malformed: u64,
}

/// A file's call frame information and the table that was made of it.
struct File<'a> {
    path: &'a Path,
    section: &'a Section<'a>,
    table: Table,
}

/// What is wrong with a function's rules; the table counts it.
#[derive(Debug)]
struct Malformed;

impl File<'_> {
    /// Each function, in the order of the file.
    fn functions(&self, bases: &BaseAddresses, mut each: impl FnMut(&Function<'_>)) {
        let mut entries = self.section.entries(bases);
        while let Some(entry) = entries.next().expect("whole entries") {
            let CieOrFde::Fde(partial) = entry else {
                continue;
            };
            let fde = partial
                .parse(Section::cie_from_offset)
                .expect("a whole entry");
            if fde.initial_address() != 0 {
                each(&fde);
            }
        }
    }
}

impl Seen {
    fn compare_file(&mut self, path: &Path) {
        let bytes = fs::read(path).expect("it is readable");
        let Ok(object) = object::File::parse(&*bytes) else {
            return;
        };
        let Some(section) = object.section_by_name(".eh_frame") else {
            return;
        };
        if object.architecture() != Architecture::X86_64 {
            return;
        }
        let address = |name| object.section_by_name(name).map_or(0, |s| s.address());
        let bases = BaseAddresses::default()
            .set_eh_frame(section.address())
            .set_text(address(".text"))
            .set_got(address(".got"));
        let data = section.uncompressed_data().expect("a section");
        let (_, table) = Table::read(&*bytes).expect("an ELF file");
        let file = File {
            path,
            section: &EhFrame::new(&data, LittleEndian),
            table,
        };
        let mut extents = Vec::new();
        file.functions(&bases, |fde| {
            extents.push((fde.initial_address(), fde.end_address()));
        });
        extents.sort_unstable();
        let mut context = UnwindContext::new();
        let mut malformed = 0;
        file.functions(&bases, |fde| {
            let next = extents.partition_point(|&(start, _)| start < fde.initial_address());
            let overlaps = extents[..next]
                .iter()
                .rev()
                .take(OVERLAP_LOOK)
                .any(|&(_, end)| end > fde.initial_address());
            if overlaps {
                self.overlapping += 1;
                return;
            }
            let rows = fde.rows(file.section, &bases, &mut context);
            let compared = rows
                .map_err(|_| Malformed)
                .and_then(|rows| self.compare_function(&file, fde, rows));
            malformed += u64::from(compared.is_err());
        });
        assert_eq!(file.table.malformed, malformed, "{}", path.display());
        self.malformed += malformed;
        self.files += 1;
    }

    fn compare_function(
        &mut self,
        file: &File<'_>,
        fde: &Function<'_>,
        mut rows: UnwindTable<'_, '_, Bytes<'_>>,
    ) -> Result<(), Malformed> {
        while let Some(row) = rows.next_row().map_err(|_| Malformed)? {
            // A row may end behind its function, whose rules end with it.
            let (start, end) = (
                row.start_address(),
                row.end_address().min(fde.end_address()),
            );
            if start < end {
                self.rows += 1;
                let encoding = fde.cie().encoding();
                self.compare_row(
                    file,
                    encoding,
                    row,
                    [start, start + (end - start) / 2, end - 1],
                );
            }
        }
        Ok(())
    }

    fn compare_row(
        &mut self,
        file: &File<'_>,
        encoding: gimli::Encoding,
        row: &Row,
        addresses: [u64; 3],
    ) {
        for pc in addresses {
            let evaluation = Evaluation {
                section: file.section,
                encoding,
                pc,
            };
            let rule = file.table.rule_at(pc).copied();
            let rule = rule.unwrap_or(Rule::only(Cfa::None));
            if rule.cfa == Cfa::Unsupported as u8 {
                let form = format!("{:?}, {:?}", row.cfa(), row.register(RBP));
                *self.unsupported.entry(form).or_default() += 1;
                return;
            }
            let (ours, theirs) = (caller(&rule, pc), evaluation.caller(row));
            let path = file.path.display();
            assert_eq!(ours, theirs, "{path} at {pc:#x}: {rule:?}, {row:?}");
            self.addresses += 1;
        }
    }
}

/// Files in the folders, each once.
fn files() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    let mut known = HashSet::new();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && known.insert((metadata.dev(), metadata.ino())) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

/// Compaction and the step lose nothing of any row of any program and library that is installed here.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "compares the files of x86-64")]
fn tables_agree_with_gimli() {
    let mut seen = Seen::default();
    for file in files() {
        seen.compare_file(&file);
    }
    println!("{seen:#?}");
    assert!(seen.rows >= ROWS_MIN, "only {} rows", seen.rows);
    let unsupported: u64 = seen.unsupported.values().sum();
    assert!(
        unsupported * 100_000 < seen.rows,
        "{unsupported} of {} rows are not supported",
        seen.rows
    );
}
