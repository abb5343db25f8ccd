//! What the kernel side and the user side of `profiler` share.
//!
//! This crate is the border: records that cross it ([`sample`], [`event`]), the settings the loader
//! writes before load ([`config`]), every bound ([`limits`]), every way a sample can end
//! ([`outcome`]), and the algorithms that both sides run ([`comm`], [`python`], [`unwind`]). It does no I/O,
//! allocates nothing and depends on nothing, so that the same code is compiled into the BPF object
//! and run in plain unit tests.
//!
//! Rules of the border: records are `repr(C)` with fixed-width integers and explicit padding; no
//! `bool`, `usize`, `Option` or enum crosses it; a number lives here once and both sides derive from
//! it. All times are `CLOCK_MONOTONIC` nanoseconds, all process and thread ids those of the initial
//! pid namespace.

#![no_std]

pub mod comm;
pub mod config;
pub mod event;
pub mod limits;
pub mod off_cpu;
pub mod outcome;
pub mod python;
pub mod sample;
pub mod sleepers;
pub mod syscalls;
pub mod tcp;
pub mod tls;
pub mod unwind;
pub mod wire;
