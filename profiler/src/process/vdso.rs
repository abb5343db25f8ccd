//! The image of the kernel's virtual library, as a file. It is the same for all 64-bit processes, so
//! ours serves for all.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use procfs::process::{MMapPath, Process};
use rustix::fs::{MemfdFlags, memfd_create};

/// Its name where a path would stand.
pub const VDSO_NAME: &str = "[vdso]";

/// Copies it out of our own memory.
pub fn vdso_image() -> io::Result<File> {
    let maps = Process::myself()
        .and_then(|process| process.maps())
        .map_err(io::Error::other)?;
    let vdso = maps
        .iter()
        .find(|map| map.pathname == MMapPath::Vdso)
        .ok_or(io::ErrorKind::NotFound)?;
    let (start, end) = vdso.address;
    let length = usize::try_from(end - start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    File::open("/proc/self/mem")?.read_exact_at(&mut bytes, start)?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
