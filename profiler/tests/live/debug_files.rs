//! Debug information in files of its own: each place where gdb finds it, by its name or by its build id alone, below the
//! root of the process that runs the program; and what a recording says where there is none.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::bench::{Bench, Folded, SPLIT, Target, bench, text};

fn objcopy(words: &[&str]) {
    let objcopy = Command::new("objcopy").args(words).status();
    assert!(objcopy.expect("objcopy runs").success(), "{words:?}");
}

/// A program that stands alone in a tree of its own, stripped; and its debug information, elsewhere.
fn apart(bench: &Bench, name: &str, flags: &[&str], has_link: bool) -> (PathBuf, PathBuf) {
    let root = bench.path(&format!("{name}-root"));
    fs::create_dir_all(root.join("app")).expect("it is ours");
    let whole = bench.compile(name, SPLIT, &[&["-static"], flags].concat());
    let debug = bench.path(&format!("{name}.debug"));
    let program = root.join("app").join(name);
    let text = |path: &Path| path.display().to_string();
    objcopy(&["--only-keep-debug", &text(&whole), &text(&debug)]);
    objcopy(&["--strip-all", &text(&whole), &text(&program)]);
    if has_link {
        let link = format!("--add-gnu-debuglink={}", text(&debug));
        objcopy(&[&link, &text(&program)]);
    }
    (root, debug)
}

fn start(root: &Path, name: &str) -> Target {
    let root = root.to_owned();
    let mut command = Command::new(format!("/app/{name}"));
    let enter = move || std::os::unix::fs::chroot(&root);
    // SAFETY: the closure makes one system call and nothing else.
    unsafe { command.pre_exec(enter) };
    Target::spawn(&mut command)
}

/// A recording, and what it says besides.
fn record(bench: &Bench, target: &Target) -> (Folded, String) {
    let pid = target.pid();
    let arguments = [
        "record", "-p", &pid, "-d", "500ms", "-f", "folded", "-o", "-",
    ];
    let output = bench.profiler(&arguments);
    (Folded::parse(&text(&output.stdout)), text(&output.stderr))
}

/// The build id that readelf shows.
fn build_id(program: &Path) -> String {
    let notes = Command::new("readelf").arg("-n").arg(program).output();
    let notes = text(&notes.expect("readelf runs").stdout);
    let id = notes
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "));
    id.expect("it has one").to_owned()
}

/// Found by the name in the debug link, in three places, and by the build id.
#[test]
fn they_are_found_in_each_place_below_the_targets_root() {
    let Some(bench) = bench() else { return };
    let (root, debug) = apart(&bench, "linked", &["-Wl,--build-id=none"], true);
    let target = start(&root, "linked");
    for place in [
        "app/linked.debug",
        "app/.debug/linked.debug",
        "usr/lib/debug/app/linked.debug",
    ] {
        in_place(&bench, &target, &debug, &root.join(place));
    }
    let (_, said) = record(&bench, &target);
    let missing =
        "there is no linked.debug: its debug symbol package (-dbgsym, -debuginfo) below that root";
    assert!(said.contains(missing), "{said}");

    let (root, debug) = apart(&bench, "identified", &["-Wl,--build-id"], false);
    let target = start(&root, "identified");
    let id = build_id(&root.join("app/identified"));
    let place = format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    in_place(&bench, &target, &debug, &root.join(&place));
    let (_, said) = record(&bench, &target);
    assert!(said.contains(&format!("there is no /{place}: ")), "{said}");
}

/// A recording with the debug file in this place, and only there.
#[track_caller]
fn in_place(bench: &Bench, target: &Target, debug: &Path, place: &Path) {
    fs::create_dir_all(place.parent().expect("a folder")).expect("it is ours");
    fs::copy(debug, place).expect("it is ours");
    let (folded, said) = record(bench, target);
    folded.assert_has("main;seventy;burn");
    assert!(!said.contains("are named by address"), "{said}");
    fs::remove_file(place).expect("it is ours");
}
