//! Unwind tables: from files' call frame information to what the kernel side walks stacks with.
//!
//! [`Table::read`] turns an ELF file into rows and rules, once per file. [`Unwinder`] keeps the tables
//! of all files and the mappings of all processes in memory shared with the kernel side, and frees
//! what no process uses any more. How that memory comes about is the [`kernel`](crate::kernel) room's
//! business: here it is a [`Shared`].

mod analysis;
mod arena;
mod code_of_go;
mod elf;
mod headers;
mod parts;
mod ranges;
mod rows;
mod rules;
mod store;
mod unwinder;
mod walk;

pub(crate) use elf::functions;
pub use elf::{Malformed, Segments, Use};
pub(crate) use parts::add_parts;
use profiler_common::unwind::{
    Rule,
    table::{Mapping, Page, Space},
};
pub(crate) use ranges::holds;
pub use rows::Table;
pub use rules::Arch;
pub use unwinder::{Stats, Unwinder};
pub use walk::StackCopy;

/// Memory shared with the kernel side. Positions count elements; whoever writes keeps within the
/// limits of [`profiler_common::limits`].
pub trait Shared {
    /// The kernel refused.
    type Error;

    /// A page as written.
    fn page(&self, at: u32) -> Option<Page>;
    /// A row as written.
    fn row(&self, segment: u16, at: u32) -> Option<u32>;
    /// A rule as written.
    fn rule(&self, at: u32) -> Option<Rule>;
    /// Writes mappings.
    fn write_mappings(&mut self, at: u32, mappings: &[Mapping]);
    /// Writes pages.
    fn write_pages(&mut self, at: u32, pages: &[Page]);
    /// Writes rules.
    fn write_rules(&mut self, at: u32, rules: &[Rule]);
    /// Writes rows; makes the segment if there is none.
    fn write_rows(&mut self, segment: u16, at: u32, rows: &[u32]) -> Result<(), Self::Error>;
    /// Gives a process its mappings.
    fn set_space(&mut self, pid: u32, space: Space) -> Result<(), Self::Error>;
    /// Takes them away.
    fn remove_space(&mut self, pid: u32);
    /// The mappings of every process that has some.
    fn spaces(&self) -> Vec<(u32, Space)>;
}
