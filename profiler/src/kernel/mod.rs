//! The only room that knows aya: loads the BPF object, attaches its programs, hands out what they
//! record. Everything else sees plain values. What the programs do is decided by
//! [`Settings`](profiler_common::config::Settings); nothing here knows why a process is a target.

mod attach;
mod btf;
mod calls;
mod error;
mod load;
mod misses;
#[cfg(test)]
mod own_stack;
mod paranoid;
mod perf_ring;
mod plain;
pub mod probe;
mod pythons;
mod records;
mod remaps;
mod shared;
mod sleepers;
mod switches;
mod tcp;
mod tls;
mod tracefs;
mod wire;

pub use attach::{Clock, ClockEvent, diff_cpus};
pub use btf::{
    Btf, BtfError, call_offsets, kernel_offsets, switch_tells_state, tcp_offsets, wire_offsets,
};
pub use error::KernelError;
pub use load::{Kernel, Wanted, keep_statistics};
pub use paranoid::{PARANOID_MIN, paranoid_remedy, perf_event_paranoid};
pub use pythons::PythonMap;
pub use records::{Record, Ring};
pub use remaps::{Remap, Remaps};
pub use shared::SharedMaps;
pub use sleepers::sleepers;
pub use switches::Left;
pub use tracefs::has_tracefs;
pub use wire::result_offset;
