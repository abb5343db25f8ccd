//! What `crate::fuzzing` reaches of this room: everything but blazesym, whose faults end the child
//! and not us.

use std::{io::Write, os::fd::OwnedFd, os::unix::net::UnixStream};

use super::{
    debug_file::{find, links},
    elf::Elf,
    perf_map::PerfMap,
};
use crate::symbolize::{
    debug_files::plain_name,
    wire::{Answer, receive},
};

/// What an ELF file tells beside names, at an offset too.
pub(crate) fn elf(file: &OwnedFd, offset: u64) {
    let Some(elf) = Elf::read(file) else {
        return;
    };
    if let Some(address) = elf.address_of(offset) {
        elf.section_of(address);
        elf.functions.find(address);
    }
}

/// The name of its debug file, as it is looked for below a folder, and whether it is the file that
/// belongs to it.
pub(crate) fn debug_link(file: OwnedFd) -> Option<std::ffi::OsString> {
    let links = links(&file);
    let candidates = [file];
    find(&candidates[0], &candidates);
    let name = links.debug_link?;
    plain_name(&name).map(ToOwned::to_owned)
}

/// What a perf map says of an address.
pub(crate) fn perf_map(text: &[u8], address: u64) -> Option<String> {
    let addresses = [0, address, u64::MAX];
    PerfMap::parse(text.to_vec())
        .find_all(&addresses)
        .swap_remove(1)
}

/// An answer of a child that a file has taken over: whether it was understood.
pub(crate) fn answer(bytes: &[u8]) -> bool {
    let Ok((ours, mut theirs)) = UnixStream::pair() else {
        return false;
    };
    // More than a socket holds would wait for us to read it.
    let is_sent = theirs.set_nonblocking(true).is_ok() && theirs.write_all(bytes).is_ok();
    drop(theirs);
    is_sent && matches!(receive::<Answer>(&ours, || Ok(())), Ok(Some(_)))
}
