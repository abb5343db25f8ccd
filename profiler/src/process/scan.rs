//! Reads what `/proc` tells of one process. A process that ends meanwhile is no error: what was read
//! until then is used.

use std::{fs, path::Path};

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

use super::{
    files::{Files, Mapped},
    mappings::{Backing, Mapping, Mappings},
};

/// Name of the process's main thread.
pub(super) fn comm(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(
        String::from_utf8_lossy(&comm)
            .trim_end_matches('\n')
            .to_owned(),
    )
}

/// Its command line, words separated by blanks.
pub(super) fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = bytes
        .split(|&byte| byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    Some(words.join(" ").trim_end().to_owned())
}

/// Its executable mappings, the files behind them pinned; `None` if it is gone.
pub(super) fn mappings(pid: u32, files: &mut Files) -> Option<Mappings> {
    let maps = Process::new(i32::try_from(pid).ok()?).ok()?.maps().ok()?;
    let executable = maps
        .iter()
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE));
    Some(Mappings::new(
        executable.map(|map| mapping(pid, map, files)).collect(),
    ))
}

fn mapping(pid: u32, map: &MemoryMap, files: &mut Files) -> Mapping {
    let (start, end) = map.address;
    let backing = match &map.pathname {
        MMapPath::Vdso => Backing::Vdso,
        MMapPath::Path(path) if is_file(path) => {
            let identity = (map.dev.0, map.dev.1, map.inode);
            let path = without_mark(path);
            Backing::File(files.pin(&Mapped {
                pid,
                start,
                end,
                file_offset: map.offset,
                identity,
                path,
            }))
        }
        _ => Backing::Anonymous,
    };
    Mapping {
        start,
        end,
        file_offset: map.offset,
        backing,
    }
}

/// Whether a mapping's path is a file of code, rather than memory that only has a name: runtimes
/// keep their compiled code in such.
fn is_file(path: &Path) -> bool {
    let memory = ["/memfd:", "/dev/zero", "/anon_hugepage", "/SYSV", "//anon"];
    let text = path.to_string_lossy();
    text.starts_with('/') && !memory.iter().any(|prefix| text.starts_with(prefix))
}

/// The path without the mark that the kernel puts behind one that was unlinked.
fn without_mark(path: &Path) -> &Path {
    path.to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
        .map_or(path, Path::new)
}

/// The perf map that a runtime may write for its compiled code, as the target sees it:
/// `/tmp/perf-PID.map` below its root, PID being the one in its innermost pid namespace.
pub(super) fn perf_map(pid: u32) -> Option<fs::File> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    let inner: u32 = numbers.split_whitespace().last()?.parse().ok()?;
    fs::File::open(format!("/proc/{pid}/root/tmp/perf-{inner}.map")).ok()
}

/// Where a process in another mount namespace keeps debug information.
pub(super) fn debug_directory(pid: u32) -> Option<std::path::PathBuf> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    if namespace(&pid.to_string())? == namespace("self")? {
        return None;
    }
    let directory = std::path::PathBuf::from(format!("/proc/{pid}/root/usr/lib/debug"));
    directory.is_dir().then_some(directory)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_file, without_mark};

    /// Named memory is told apart from files, and an unlinked file keeps its name.
    #[test]
    fn paths_of_mappings() {
        assert!(is_file(Path::new("/usr/bin/app")) && is_file(Path::new("/tmp/memfd:app")));
        assert!(
            !is_file(Path::new("/memfd:jit (deleted)"))
                && !is_file(Path::new("/dev/zero (deleted)"))
        );
        assert_eq!(
            without_mark(Path::new("/tmp/app (deleted)")),
            Path::new("/tmp/app")
        );
    }
}
