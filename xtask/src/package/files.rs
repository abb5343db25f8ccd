//! Which files a package holds, and that both hold the same.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, ensure};

use super::listing;

/// Where a file lies in the .deb, and where in the .rpm, if elsewhere.
const ELSEWHERE: [(&str, &str); 2] = [
    (
        "usr/share/zsh/vendor-completions/_profiler",
        "usr/share/zsh/site-functions/_profiler",
    ),
    (
        "usr/share/doc/profiler/changelog.gz",
        "usr/share/doc/profiler/changelog",
    ),
];

/// What every package has to have.
const WANTED: [&str; 6] = [
    "etc/profiler/profiler.toml",
    "usr/bin/profiler",
    "usr/lib/systemd/system/profiler.service",
    "usr/lib/sysusers.d/profiler.conf",
    "usr/share/doc/profiler/copyright",
    "usr/share/man/man1/profiler.1.gz",
];

/// What may be linked dynamically: the C library, and the compiler's own. Notices say that all else is built from source.
const LINKED: [&str; 2] = ["libc6", "libgcc-s1"];

/// An error if the program needs another library, by what its package depends on.
pub(super) fn linked(depends: &str) -> Result<()> {
    let names = depends.split([',', '|']).map(|word| {
        let word = word.trim();
        word.split(' ').next().unwrap_or(word)
    });
    let others: Vec<&str> = names
        .filter(|name| name.starts_with("lib") && !LINKED.contains(name))
        .collect();
    ensure!(
        others.is_empty(),
        "the program is linked with {}, which it should hold",
        others.join(", ")
    );
    Ok(())
}

/// An error if the packages hold different files, or not what they should.
pub(super) fn compare(deb: &Path, rpm: &Path) -> Result<()> {
    let deb = of_deb(&listing("dpkg-deb", &["--contents"], deb)?);
    let rpm = of_rpm(&listing("rpm", &["-qpl", "--nosignature"], rpm)?);
    let differences = differences(&deb, &rpm);
    ensure!(
        differences.is_empty(),
        "the packages differ: {}",
        differences.join("; ")
    );
    println!("{} files in each package", deb.len());
    Ok(())
}

/// Of `dpkg-deb --contents`: mode, owner, size, day, time, path below `./`.
fn of_deb(listing: &str) -> BTreeSet<String> {
    let files = listing.lines().filter(|line| line.starts_with('-'));
    let paths = files.filter_map(|line| line.split_whitespace().nth(5));
    paths
        .map(|path| path.trim_start_matches("./").to_owned())
        .collect()
}

/// Of `rpm -qpl`: paths.
fn of_rpm(listing: &str) -> BTreeSet<String> {
    let paths = listing.lines();
    paths
        .map(|path| path.trim_start_matches('/').to_owned())
        .collect()
}

fn differences(deb: &BTreeSet<String>, rpm: &BTreeSet<String>) -> Vec<String> {
    let in_rpm = |path: &str| {
        let elsewhere = ELSEWHERE.iter().find(|(here, _)| *here == path);
        elsewhere.map_or(path, |(_, there)| there).to_owned()
    };
    let expected: BTreeSet<String> = deb.iter().map(|path| in_rpm(path)).collect();
    let mut found: Vec<String> = Vec::new();
    found.extend(
        expected
            .difference(rpm)
            .map(|path| format!("{path} is not in the .rpm")),
    );
    found.extend(
        rpm.difference(&expected)
            .map(|path| format!("{path} is not in the .deb")),
    );
    let missing = WANTED.iter().filter(|path| !deb.contains(**path));
    found.extend(missing.map(|path| format!("{path} is missing")));
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{WANTED, differences, linked, of_deb, of_rpm};

    fn wanted() -> BTreeSet<String> {
        WANTED.map(str::to_owned).into()
    }

    /// A library of the building machine's is no part of the package, and so none that it may need.
    #[test]
    fn foreign_libraries_are_refused() {
        let ours =
            "libc6 (>= 2.34), libgcc-s1 (>= 4.2), systemd | systemd-standalone-sysusers, passwd";
        assert!(linked(ours).is_ok());
        let error = linked(&format!("{ours}, liblzma5 (>= 5.1.1)")).unwrap_err();
        assert!(error.to_string().contains("liblzma5"), "{error}");
    }

    /// Folders are no files, and both lists name paths the same way.
    #[test]
    fn both_tools_lists_become_the_same_paths() {
        let deb = "drwxr-xr-x 0/0    0 2026-11-21 18:00 ./usr/bin/\n\
                   -rwxr-xr-x 0/0 9999 2026-11-21 18:00 ./usr/bin/profiler\n";
        assert_eq!(of_deb(deb), of_rpm("/usr/bin/profiler\n"));
    }

    /// The completion of zsh lies where each system looks for it.
    #[test]
    fn a_file_that_lies_elsewhere_is_the_same_file() {
        let (mut deb, mut rpm) = (wanted(), wanted());
        deb.insert("usr/share/zsh/vendor-completions/_profiler".to_owned());
        assert_eq!(
            differences(&deb, &rpm),
            ["usr/share/zsh/site-functions/_profiler is not in the .rpm"]
        );
        rpm.insert("usr/share/zsh/site-functions/_profiler".to_owned());
        assert!(differences(&deb, &rpm).is_empty());
    }

    /// Two packages that lack the same file agree, and are wrong.
    #[test]
    fn what_both_lack_is_missing() {
        let mut without = wanted();
        without.remove("usr/lib/systemd/system/profiler.service");
        assert_eq!(
            differences(&without, &without),
            ["usr/lib/systemd/system/profiler.service is missing"]
        );
    }
}
