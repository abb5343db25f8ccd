//! The registers of a process's threads that wait, which `/proc` shows in part only: the frame pointer is missing
//! there. A program is run over the list of tasks and unloaded.

use std::{collections::HashMap, io::Read};

use aya::{Btf, EbpfLoader, programs::Iter};
use profiler_common::{config::Settings, sleepers::Sleeper, unwind::Registers};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    KernelError, kernel_offsets,
    load::{OBJECT, Wanted, failed, program, size_maps},
};

const PROGRAM: &str = "task_registers";
/// Most bytes of the answer: more threads than any process may have.
const BYTES_MAX: u64 = 256 << 20;

/// The registers of each thread of a process, by its id. Of one that runs they are those with which it entered the
/// kernel last, which say nothing.
///
/// # Errors
/// The kernel lets us load no programs, or has no such list (before 5.8).
pub fn sleepers(tgid: u32) -> Result<HashMap<u32, Registers>, KernelError> {
    let settings = Settings {
        only_tgid: tgid,
        offsets: kernel_offsets().map_err(|_| KernelError::Missing(PROGRAM))?,
        ..Settings::UNSET
    };
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", settings.as_bytes(), true);
    size_maps(&mut loader, &Wanted::default(), 1);
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| KernelError::Object(Box::new(source)))?;
    let btf = Btf::from_sys_fs().map_err(|source| KernelError::Object(Box::new(source.into())))?;
    let iterator: &mut Iter = program(&mut ebpf, PROGRAM)?;
    let opened = iterator
        .load("task", &btf)
        .and_then(|()| iterator.attach())
        .and_then(|id| iterator.take_link(id))
        .map_err(|source| failed("load", PROGRAM, source))?;
    let list = opened
        .into_file()
        .map_err(|_| KernelError::Missing(PROGRAM))?;
    let mut bytes = Vec::new();
    list.take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|_| KernelError::Missing(PROGRAM))?;
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> HashMap<u32, Registers> {
    let whole = bytes.chunks_exact(size_of::<Sleeper>());
    let sleepers = whole.filter_map(|bytes| Sleeper::read_from_bytes(bytes).ok());
    let known =
        sleepers.filter_map(|Sleeper { tid, frame }| Some((u32::try_from(tid).ok()?, frame)));
    known.collect()
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::{Registers, Sleeper, decode};

    /// Each thread's registers are its own; what is cut off is no thread.
    #[test]
    fn threads_have_their_registers() {
        let frame = |pc| Registers { pc, sp: 2, bp: 3 };
        let list = [7, 8].map(|tid| Sleeper {
            tid,
            frame: frame(tid * 10),
        });
        let mut bytes = list.as_bytes().to_vec();
        bytes.extend([1; 31]);
        let known = decode(&bytes);
        assert_eq!(known.len(), 2);
        assert_eq!((known[&7], known[&8]), (frame(70), frame(80)));
    }
}
