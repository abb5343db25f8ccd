//! Where the debug information of a file may be: gdb's four places, below the root of the process that has it. Files
//! that are there are opened here, and compared with it in the child.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use super::wire::{FILES_MAX, Links};
use crate::{
    foreign::{Refused, Root},
    output::figures::hexadecimal,
    process::PinnedFile,
};

/// Where distributions put separate debug information.
pub(super) const DIRECTORIES: [&str; 2] = ["/usr/lib/debug", "/lib/debug"];
/// A check sum is soon forged, so it is no proof of who wrote a file.
const ANOTHER_USERS: &str = "debug file not used, another user owns it";
/// A build id of fewer bytes is none, one of more is made up.
const BUILD_ID: std::ops::RangeInclusive<usize> = 8..=64;

/// What was found.
#[derive(Default)]
pub(super) struct Candidates {
    /// Files that may have the debug information.
    pub(super) files: Vec<File>,
    /// Why others are not among them.
    pub(super) refused: Vec<&'static str>,
}

/// Looks for the debug information of a file. `host` is our own root, where host and container have the same
/// packages: only what distributions put there is believed.
pub(super) fn candidates(pinned: &PinnedFile, links: &Links, host: Option<&Root>) -> Candidates {
    let mut found = Candidates::default();
    let Some(file) = pinned.file.as_ref().and_then(|file| file.metadata().ok()) else {
        return found;
    };
    let by_build_id = by_build_id(&links.build_id);
    let name = links.debug_link.as_deref().and_then(plain_name);
    let root = pinned.root.as_deref();
    let path = root.map_or_else(|| (&*pinned.path).into(), |root| root.inside(&pinned.path));
    let beside = name.map_or_else(Vec::new, |name| beside(&path, name));
    let global = name.map_or_else(Vec::new, |name| global(&path, name));
    let own = root.into_iter().flat_map(|root| {
        let paths = by_build_id.iter().chain(&beside).chain(&global);
        paths.map(move |path| (root, path))
    });
    let of_host = host.into_iter().flat_map(|root| {
        let paths = by_build_id.iter().chain(&global);
        paths.map(move |path| (root, path))
    });
    let mut seen = BTreeSet::new();
    for (root, path) in own.chain(of_host) {
        let candidate = match root.find(path) {
            Ok(candidate) => candidate,
            Err(Refused::Gone) => continue,
            Err(cause) => {
                found.refused.push(cause.text());
                continue;
            }
        };
        if candidate.inode() == file.ino() || !seen.insert(candidate.identity()) {
            continue;
        }
        if ![0, file.uid()].contains(&candidate.owner()) {
            found.refused.push(ANOTHER_USERS);
        } else if found.files.len() + 1 < FILES_MAX {
            match candidate.open() {
                Ok(opened) => found.files.push(opened),
                Err(cause) => found.refused.push(cause.text()),
            }
        }
    }
    found
}

fn by_build_id(build_id: &[u8]) -> Vec<PathBuf> {
    if !BUILD_ID.contains(&build_id.len()) {
        return Vec::new();
    }
    DIRECTORIES
        .map(|directory| build_id_path(directory, build_id).into())
        .into()
}

/// Where a debug file is by a build id, which is not empty.
pub(super) fn build_id_path(directory: &str, build_id: &[u8]) -> String {
    let digits = hexadecimal(build_id);
    let (first, rest) = digits.split_at(2);
    format!("{directory}/.build-id/{first}/{rest}.debug")
}

fn beside(path: &Path, name: &OsStr) -> Vec<PathBuf> {
    let Some(folder) = path.parent() else {
        return Vec::new();
    };
    vec![folder.join(name), folder.join(".debug").join(name)]
}

fn global(path: &Path, name: &OsStr) -> Vec<PathBuf> {
    let folder = path
        .parent()
        .and_then(|folder| folder.strip_prefix("/").ok());
    let below = |directory| Some(Path::new(directory).join(folder?).join(name));
    DIRECTORIES.into_iter().filter_map(below).collect()
}

/// A name as a debug link has it: of a file, without any folder.
pub(super) fn plain_name(bytes: &[u8]) -> Option<&OsStr> {
    let name = OsStr::from_bytes(bytes);
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::Path};

    use super::{beside, by_build_id, global, plain_name};

    /// A link's name leads to no other folder.
    #[test]
    fn names_are_of_files() {
        assert_eq!(plain_name(b"a.debug"), Some(OsStr::new("a.debug")));
        for name in [&b"/tmp/a"[..], b"../a", b"a/b", b"..", b".", b"", b"a/"] {
            assert_eq!(plain_name(name), None, "{name:?}");
        }
    }

    /// The places are those in which gdb looks.
    #[test]
    fn places_are_those_of_gdb() {
        let path = Path::new("/usr/bin/ls");
        let shown = |paths: Vec<std::path::PathBuf>| -> Vec<String> {
            paths
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        let name = OsStr::new("ls.debug");
        assert_eq!(
            shown(beside(path, name)),
            ["/usr/bin/ls.debug", "/usr/bin/.debug/ls.debug"]
        );
        assert_eq!(
            shown(global(path, name))[0],
            "/usr/lib/debug/usr/bin/ls.debug"
        );
        let id: Vec<u8> = (0xa0..0xb4).collect();
        assert_eq!(
            shown(by_build_id(&id))[0],
            "/usr/lib/debug/.build-id/a0/a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3.debug"
        );
        assert!(by_build_id(&[1]).is_empty() && by_build_id(&[1; 65]).is_empty());
    }
}
