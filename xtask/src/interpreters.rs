//! The `CPython` interpreters of this machine. The live tests go through them, too.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The system's and pyenv's interpreters from 3.8 on: name and path.
pub(crate) fn interpreters() -> Vec<(String, PathBuf)> {
    let mut found = vec![("system".to_owned(), PathBuf::from("/usr/bin/python3"))];
    let home = std::env::var("HOME").unwrap_or_default();
    let versions = fs::read_dir(Path::new(&home).join(".pyenv/versions"));
    for version in versions.into_iter().flatten().flatten() {
        let name = version.file_name().to_string_lossy().into_owned();
        let minor = name
            .strip_prefix("3.")
            .and_then(|rest| rest.split('.').next());
        let minor = minor.and_then(|minor| minor.parse::<u32>().ok());
        if minor.is_some_and(|minor| (8..=14).contains(&minor)) {
            found.push((name, version.path().join("bin/python3")));
        }
    }
    found.sort();
    found
}
