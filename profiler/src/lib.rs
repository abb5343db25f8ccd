//! See where a running process spends its time, without touching its code.
//!
//! # Architecture
//!
//! A recording is a one-way pipeline of plain values; each arrow is a function call, and no room
//! knows what comes after it:
//!
//! ```text
//! kernel ─► process ─► record::aggregate ─► symbolize ─► profile ─► output
//! (aya)     (where?)   (how often?)         (what name?) (the value) (bytes)
//! ```
//!
//! In reading order:
//!
//! - [`cli`] is what can be typed, [`config`] what is meant, [`error`] what can go wrong with
//!   setting up. [`preflight`] finds out what this machine allows (`profiler doctor`).
//! - [`kernel`] loads and attaches the BPF programs of `profiler-ebpf` and hands out records. It is
//!   the only room that names aya.
//! - [`process`] knows which processes live and which file lies behind an address. It keeps files
//!   pinned by descriptor and gives no names.
//! - [`unwind`] makes the tables with which the kernel side walks stacks, once a file, and keeps them
//!   and the processes' mappings in memory shared with it.
//! - [`python`] finds `CPython` interpreters, reads their code objects and puts Python frames between the
//!   native ones that run them.
//! - [`syscalls`] counts system calls: another one-way street, from sums that the kernel side keeps to a table.
//!   [`tcp`] lists TCP connections, from events and what the kernel lists. [`postgres`] reads what goes through
//!   sockets and makes a table of queries of it; `tls` finds where encrypted connections pass what they carry.
//! - `go` reads the tables that every Go program has of its own code, for names and for unwinding.
//! - `sockets` lists what sockets there are and whose they are. [`wait`] says what a thread that left the CPU waited for.
//! - [`record`] is the loop: records in, a bounded table of distinct stacks, at the end a profile. Only
//!   it, the other capabilities' sessions, `daemon` and `main` know about time, signals and tokio.
//! - `foreign` opens every file whose path a target can influence; nothing else does.
//! - [`symbolize`] gives names to places, on a thread of its own, from pinned files, never from a live
//!   process. It is the only room that names blazesym.
//! - [`profile`] is the value at which everything meets: plain lists, no I/O.
//! - [`output`] turns a profile into bytes of any format, and never sees a process or a map. Only its
//!   `flamegraph` names inferno. [`report`] reads bytes back into a profile.
//! - [`daemon`] records all the time, keeps windows of it in the [`store`], and is what systemd runs.
//! - [`export`] sends those windows to what users run elsewhere, [`web`] shows them in a browser and to Prometheus.
//! - [`dump`] shows the threads of a process now, without the kernel side.
//! - [`artifact`] writes files whole or not at all. [`cores`] forbids core dumps. [`cgroup`] finds cgroups and units. `sums` adds without an end.
//!
//! What both sides of the kernel border share is in `profiler-common`: records, settings, limits,
//! outcomes, the unwind step. Time is `CLOCK_MONOTONIC` in ns everywhere, ids are those of the initial
//! pid namespace, addresses below a process, offsets below a file.
//!
//! # Invariants
//!
//! - Nothing is lost silently: a sample is in the profile, or counted in its
//!   [account](profile::Account) under a cause; the two sums are compared at the end of each recording.
//! - The target is never stopped, signalled or written to.
//! - Nothing is pinned in the kernel: what the profiler attached ends with it.

pub mod artifact;
pub mod cgroup;
pub mod cli;
pub mod command_line;
pub mod config;
pub mod cores;
pub mod daemon;
pub mod dump;
pub mod error;
pub mod export;
mod foreign;
#[doc(hidden)]
pub mod fuzzing;
mod go;
pub mod kernel;
pub mod output;
pub mod postgres;
pub mod preflight;
pub mod printable;
pub mod process;
pub mod profile;
pub mod python;
pub mod record;
pub mod report;
mod sockets;
pub mod store;
mod sums;
pub mod symbolize;
pub mod syscalls;
pub mod tcp;
pub mod terminal;
mod tls;
pub mod unwind;
pub mod wait;
pub mod web;
