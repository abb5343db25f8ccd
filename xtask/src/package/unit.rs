//! The unit of systemd, by systemd's own judgement, which needs no running systemd.

use std::{fs, process::Command};

use crate::shell::{has, root};

/// The exposure that is left, in tenths: what a profiler cannot do without.
const EXPOSURE_MAX: &str = "31";

/// Why a test is skipped where systemd's tools are not; with CI=true that is a failure.
fn absent() -> bool {
    if has("systemd-analyze") {
        return false;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "systemd-analyze is not here"
    );
    println!("skipped: systemd-analyze is not here (Debian's package is systemd)");
    true
}

/// The unit and the drop-in of the documentation, as installed in a folder of their own; the program is a stand-in,
/// as nothing of ours is installed here.
fn installed(drop_in: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packaging = root().join("profiler/packaging");
    let unit = fs::read_to_string(packaging.join("profiler.service")).unwrap();
    let unit = unit.replace("/usr/bin/profiler ", "/bin/true ");
    fs::write(folder.path().join("profiler.service"), unit).unwrap();
    if drop_in {
        let drop_ins = folder.path().join("profiler.service.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::copy(
            packaging.join("sys-admin.conf"),
            drop_ins.join("sys-admin.conf"),
        )
        .unwrap();
    }
    folder
}

/// Whether it passes, and what is said about our unit: others of this host have faults of their own.
fn analyze(folder: &tempfile::TempDir, arguments: &[&str]) -> (bool, Vec<String>) {
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(arguments)
        .arg(folder.path().join("profiler.service"));
    let output = analyze.output().unwrap();
    let talk = [output.stdout, output.stderr].concat();
    let talk = String::from_utf8_lossy(&talk).into_owned();
    let ours = talk
        .lines()
        .filter(|line| line.contains("profiler.service"));
    (output.status.success(), ours.map(str::to_owned).collect())
}

/// systemd finds nothing in the unit to complain about, with the drop-in or without.
#[test]
fn the_unit_is_valid() {
    if absent() {
        return;
    }
    for drop_in in [false, true] {
        let (valid, complaints) = analyze(&installed(drop_in), &["verify", "--man=no"]);
        assert!(valid && complaints.is_empty(), "{complaints:?}");
    }
}

/// A setting that is misspelt is found, so that a clean unit is one that was read.
#[test]
fn a_misspelt_setting_is_found() {
    if absent() {
        return;
    }
    let folder = installed(false);
    let file = folder.path().join("profiler.service");
    let unit = fs::read_to_string(&file).unwrap();
    fs::write(&file, unit.replace("WatchdogSec=", "WatchdogSeconds=")).unwrap();
    let (_, complaints) = analyze(&folder, &["verify", "--man=no"]);
    assert!(
        complaints
            .iter()
            .any(|line| line.contains("WatchdogSeconds")),
        "{complaints:?}"
    );
}

/// The unit gives away no more than a profiler cannot do without.
#[test]
fn the_unit_is_confined() {
    if absent() {
        return;
    }
    let arguments = [
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold",
        EXPOSURE_MAX,
    ];
    let (confined, said) = analyze(&installed(false), &arguments);
    assert!(confined, "{said:?}");
    assert!(
        said.iter().any(|line| line.contains("exposure level")),
        "{said:?}"
    );
}
