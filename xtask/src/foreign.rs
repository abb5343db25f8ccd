//! Who opens what: files whose path a target can influence are opened by the room `foreign` alone. A lint over the
//! sources, by what calls look like.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

use crate::shell;

/// The room that may.
const DOOR: &str = "foreign/";

/// Rooms and files whose paths are the user's or the system's, never a target's.
const OWN: [&str; 12] = [
    "artifact",
    "cgroup.rs",
    "config.rs",
    "daemon/",
    "export/",
    "kernel/",
    "preflight/",
    "process/vdso.rs",
    "record/targets.rs",
    "report/convert.rs",
    "store/",
    "web/",
];

/// Lines that may stay, with the reason.
const EXCEPT: [(&str, &str, &str); 1] = [(
    "tls/libraries.rs",
    "fs::read_dir",
    "of the system's own folders, to list them",
)];

/// What opens or looks at a file by its path.
const OPENERS: [&str; 13] = [
    "File::open(",
    "OpenOptions",
    "fs::read(",
    "fs::read_to_string(",
    "fs::metadata(",
    "fs::symlink_metadata(",
    "fs::exists(",
    "fs::read_dir",
    "openat",
    "canonicalize(",
    ".is_file()",
    ".is_dir()",
    ".exists()",
];

/// Files of the kernel's below `/proc` and `/proc/PID`: opening them does nothing, whatever the target is.
const OF_THE_KERNEL: [&str; 9] = [
    "/proc\"",
    "/proc/self/",
    "/proc/{pid}\"",
    "/proc/{pid}/fd\"",
    "/proc/{pid}/mem\"",
    "/proc/{pid}/ns/",
    "/proc/{pid}/task",
    "/proc/thread-self/ns/",
    "/proc/sys/",
];

/// Links of procfs that lead to a target's files.
const LINKS: [&str; 4] = ["/root", "/map_files", "/exe", "/cwd"];

/// What reads a whole file, or maps it, without a bound.
const UNBOUNDED: [&str; 4] = ["ReadCache", " mmap(", "::mmap(", "Mmap"];
/// Where our own memory is mapped, which the kernel shares with us.
const MAPS: [&str; 2] = ["kernel/perf_ring.rs", "kernel/shared.rs"];
/// The symbolizer's process may open nothing and is bounded by its limits.
const CHILD: &str = "symbolize/child/";

/// The rung.
pub(crate) fn check() -> Result<()> {
    let root = shell::root().join("profiler/src");
    let mut found = Vec::new();
    look(&root, &root, &mut found)?;
    ensure!(
        found.is_empty(),
        "files that a target can influence are opened by profiler/src/foreign alone:\n{}",
        found.join("\n")
    );
    Ok(())
}

fn look(root: &Path, folder: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            look(root, &path, found)?;
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            found.extend(complaints(&name, &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// What is wrong with a source file, by its path below `profiler/src`.
fn complaints(name: &str, text: &str) -> Vec<String> {
    if name.starts_with(DOOR) || name.starts_with(CHILD) {
        return Vec::new();
    }
    let own = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines: Vec<&str> = own.lines().collect();
    let is_own = OWN.iter().any(|room| name.starts_with(room));
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_excepted = EXCEPT
            .iter()
            .any(|(file, piece, _)| *file == name && line.contains(piece));
        if line.trim_start().starts_with("//") || is_excepted {
            continue;
        }
        // An argument may stand on one of the next lines.
        let call = lines[index..].iter().take(3).copied().collect::<Vec<_>>();
        let cause = if follows_link(line) {
            "follows a link of procfs"
        } else if !MAPS.contains(&name) && UNBOUNDED.iter().any(|piece| line.contains(piece)) {
            "reads without a bound: foreign::Contents has one"
        } else if !is_own && opens(line, &call.concat()) {
            "opens a path that is not the kernel's own"
        } else {
            continue;
        };
        found.push(format!("{name}:{}: {cause}: {}", index + 1, line.trim()));
    }
    found
}

/// Whether a text holds `/proc/{…}/LINK`.
fn follows_link(line: &str) -> bool {
    line.split("/proc/{").skip(1).any(|rest| {
        let behind = rest.split_once('}').map_or("", |(_, behind)| behind);
        LINKS.iter().any(|link| behind.starts_with(link))
    })
}

/// Whether a line opens something, and what it opens is not named as the kernel's own.
fn opens(line: &str, call: &str) -> bool {
    OPENERS.iter().any(|opener| line.contains(opener))
        && !line.starts_with("use ")
        && !OF_THE_KERNEL.iter().any(|file| call.contains(file))
}

#[cfg(test)]
mod tests {
    use super::{check, complaints};

    /// Each kind of opening is seen where it may not be, on one line or on several, and nowhere else.
    #[test]
    fn openings_are_seen() {
        for line in [
            "let file = File::open(path)?;",
            "let text = fs::read_to_string(&path);",
            "let file = File::open(\n    folder.join(name),\n)?;",
            "if Path::new(folder).is_file() {}",
            "let file = File::open(format!(\"/proc/{pid}/exe\"));",
            "let path = format!(\"/proc/{}/root/tmp\", pid);",
            "let link = format!(\"/proc/{pid}/map_files/{start:x}-{end:x}\");",
            "let cache = ReadCache::new(file);",
        ] {
            assert_eq!(complaints("wait/lock.rs", line).len(), 1, "{line}");
            assert!(complaints("foreign/root.rs", line).is_empty(), "{line}");
        }
        for line in [
            "// let file = File::open(path)?;",
            "let memory = File::open(format!(\"/proc/{pid}/mem\"))?;",
            "let folder = fs::read_dir(\n    format!(\"/proc/{pid}/fd\"),\n);",
            "#[cfg(test)]\nmod tests {\n    let file = File::open(path);\n}",
        ] {
            assert!(complaints("wait/lock.rs", line).is_empty(), "{line}");
        }
    }

    /// A room with files of its own opens them, and no target's.
    #[test]
    fn own_files_are_opened() {
        assert!(complaints("store/read.rs", "fs::read(path)").is_empty());
        let link = "fs::read(format!(\"/proc/{pid}/root/{name}\"))";
        assert_eq!(complaints("store/read.rs", link).len(), 1);
    }

    /// What is in this checkout keeps to it.
    #[test]
    fn sources_keep_to_it() {
        check().unwrap();
    }
}
