//! The only room that knows aya: loads the BPF object, attaches its programs, hands out what they
//! record. Everything else sees plain values. What the programs do is decided by
//! [`Settings`](profiler_common::config::Settings); nothing here knows why a process is a target.

mod attach;
mod btf;
mod error;
mod load;
pub mod probe;
mod records;

pub use attach::{Clock, diff_cpus};
pub use btf::{Btf, BtfError, kernel_offsets};
pub use error::KernelError;
pub use load::Kernel;
pub use records::{Record, Ring};
