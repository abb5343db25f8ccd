//! The image of the kernel's virtual library, as a file. It is the same for all 64-bit processes, so
//! ours serves for all.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
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
    read_own_memory(start, &mut bytes)?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Not through `/proc/self/mem`, which is root's in a process that is never dumped.
fn read_own_memory(start: u64, bytes: &mut [u8]) -> io::Result<()> {
    let here = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let there = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(
            usize::try_from(start).map_err(io::Error::other)?,
        ),
        iov_len: bytes.len(),
    };
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the kernel writes as many bytes as `bytes` has, and checks the address that it reads
    // from.
    let read = unsafe { libc::process_vm_readv(own, &raw const here, 1, &raw const there, 1, 0) };
    match usize::try_from(read) {
        Ok(read) if read == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::FileExt};

    use super::vdso_image;

    /// The image is an ELF file, also where this process cannot be dumped.
    #[test]
    fn image_needs_no_dumps() {
        crate::cores::forbid();
        let mut image = vdso_image().unwrap();
        let mut magic = [0; 4];
        image.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        assert!(image.read_exact_at(&mut [0; 1024], 0).is_ok());
    }
}
