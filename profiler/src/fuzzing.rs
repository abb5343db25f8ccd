//! Where the targets of `fuzz/` reach readers of foreign bytes that no other crate calls. No
//! interface: it changes with them.
//!
//! Each function reads bytes as the profiler does and drops what comes of it, or gives what a
//! target can check.

use std::{ffi::OsString, fs::File, io};

use axum::{extract::Query as Parameters, http::Uri};
use jiff::Timestamp;

use crate::{
    daemon::config,
    go, output, postgres,
    process::scan,
    python, sockets,
    store::Who,
    symbolize::child::fuzzing as symbols,
    syscalls, tcp, tls,
    web::{guard, query::Query},
};

/// A table of the store.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// Of statements.
    Queries,
    /// Of connections.
    Tcp,
    /// Of system calls.
    Syscalls,
}

/// Two windows of the store that follow each other, added up as for a page.
///
/// # Errors
///
/// Of what is no window.
pub fn window(kept: Kept, bytes: &[u8]) -> io::Result<()> {
    match kept {
        Kept::Queries => {
            let mut sum = postgres::window::Sum::default();
            sum.add(postgres::Window::read(bytes)?);
            sum.add(postgres::Window::read(bytes)?);
        }
        Kept::Tcp => {
            let mut sum = tcp::window::Sum::default();
            sum.add(tcp::window::Window::read(bytes)?, &Who::default());
            sum.add(tcp::window::Window::read(bytes)?, &Who::default());
        }
        Kept::Syscalls => {
            let mut sum = syscalls::window::Sum::default();
            sum.add(syscalls::window::Window::read(bytes)?, &Who::default());
            sum.add(syscalls::window::Window::read(bytes)?, &Who::default());
            sum.finish();
        }
    }
    Ok(())
}

/// Compressed, as windows are in the store.
pub fn packed(bytes: &[u8]) -> Vec<u8> {
    output::gzip(bytes).unwrap_or_default()
}

/// `/proc/PID/maps`: how many of its lines were understood.
pub fn maps(text: &[u8]) -> usize {
    scan::memory_in(text).len()
}

/// A datagram of the kernel's list of sockets: how many of each kind were understood.
pub fn sockets(datagram: &[u8]) -> (usize, usize) {
    let (mut tcp, mut unix) = (0, 0);
    // An error is an answer.
    let _ = sockets::netlink::take(datagram, &mut |message| {
        tcp += usize::from(sockets::tcp::socket(message, 1).is_some());
        unix += usize::from(sockets::unix::socket(message).is_some());
    });
    (tcp, unix)
}

/// The configuration of the daemon: whether it was accepted.
pub fn configuration(text: &str) -> bool {
    config::parse(text).is_ok()
}

/// What follows the question mark of a request: whether it was accepted.
pub fn query_string(text: &str) -> bool {
    let Ok(uri) = format!("http://localhost/?{text}").parse::<Uri>() else {
        return false;
    };
    let Ok(Parameters(query)) = Parameters::<Query>::try_from_uri(&uri) else {
        return false;
    };
    query.resolve(Timestamp::UNIX_EPOCH).is_ok()
}

/// Whether the `Host` header of a request names this machine.
pub fn host(text: &str) -> bool {
    guard::names_this_machine(text)
}

/// OpenSSL's functions in an ELF file.
pub fn tls_functions(file: &[u8]) {
    tls::functions::find(file);
}

/// Where a function's code leaves it: `ret`s, and jumps elsewhere.
///
/// # Errors
///
/// Of code that cannot be followed.
pub fn leaves(start: u64, code: &[u8]) -> Result<(Vec<u64>, Vec<u64>), &'static str> {
    let leaves = tls::returns::follow(start, code)?;
    let list = |set: std::collections::BTreeSet<u64>| set.into_iter().collect();
    Ok((list(leaves.returns), list(leaves.tail_calls)))
}

/// An interpreter in an ELF file: whether there is one.
pub fn python_image(file: &[u8], name: &str) -> bool {
    python::image::Image::read(file, name).is_some()
}

/// What an ELF file tells beside names, at an offset too.
pub fn elf(file: File, offset: u64) {
    symbols::elf(&file.into(), offset);
}

/// The name of its debug file, as it is looked for below a folder.
pub fn debug_link(file: File) -> Option<OsString> {
    symbols::debug_link(file.into())
}

/// Go's table of functions: how many functions are at their ends. The table stands in for what their data are in, too.
pub fn go_table(table: &[u8], text: u64) -> usize {
    go::fuzzing::names(table, text, table)
}

/// A perf map: what it says of an address.
pub fn perf_map(text: &[u8], address: u64) -> Option<String> {
    symbols::perf_map(text, address)
}

/// What the child that reads symbols sends: whether it was understood.
pub fn answer(bytes: &[u8]) -> bool {
    symbols::answer(bytes)
}
