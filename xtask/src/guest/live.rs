//! The live tests in the machine: their program and the profiler that they run, both of this checkout, and which of them
//! are run there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    shell::{self, cargo},
    test::TESTED,
};

/// Those that an emulated processor can run. Of the others some compare times that are real only on a real one, or want
/// more to happen within a second than happens there; some want what Debian's packages of 12 do not have (node, Java, Go,
/// Rust, symbols of libc); and some take longer than everything else here together.
pub(super) const TESTS: &[&str] = &[
    "daemon::queries_are_kept",
    "daemon_tables::connections_are_kept",
    "daemon_tables::system_calls_are_kept",
    "filters::newcomers_are_recorded",
    "filters::only_processes_of_a_cgroup",
    "filters::only_the_named_processes",
    "filters::threads_are_told_apart",
    "lifecycle::descendants_are_followed_if_asked",
    "lifecycle::interrupted_recording_is_written",
    "lifecycle::killed_profiler_leaves_nothing",
    "lifecycle::recording_ends_with_its_target",
    "names::deleted_and_replaced_binaries_keep_their_names",
    "names::inlined_functions_are_shown",
    "names::kernel_and_vdso_have_names",
    "names::perf_maps_name_compiled_code",
    "python::holders_of_the_gil_are_known",
    "python::python_code_has_its_functions_and_lines",
    "python::waits_have_python_frames",
    "queries::nothing_secret_is_kept",
    "refusals::doctor_says_what_is_true",
    "refusals::no_privilege",
    "shares::known_split_is_shown",
    "stacks::cpython",
    "stacks::deep_recursion",
    "stacks::musl_static",
    "syscalls::a_loop_of_calls_is_counted_exactly",
    "syscalls::counts_are_those_of_strace",
    "syscalls::descriptors_are_the_files_behind_them",
    "syscalls::stacks_are_weighted_by_time",
    "tcp::connections_from_before_and_other_addresses",
    "tcp::ends_have_their_names",
    "tcp::figures_are_those_of_the_kernel",
    "waits::modes_stay_apart",
];

/// The steps that run them, or one of them.
pub(super) const IN_STEPS: [&str; 3] = ["preemption", "hostile", "live"];

/// Builds them and lays them out, with where the tests look for the profiler.
pub(super) fn lay_out(share: &Path) -> Result<()> {
    let (tests, profiler) = built()?;
    let folder = share.join("live");
    fs::create_dir_all(&folder)?;
    for (from, name) in [(&tests, "test"), (&profiler, "profiler")] {
        // What the machine has to read is emulated, too.
        let mut strip = shell::command("strip", &["--strip-debug", "-o"]);
        shell::run(strip.arg(folder.join(name)).arg(from))?;
    }
    let place = profiler
        .to_str()
        .context("the checkout's path is no text")?;
    fs::write(folder.join("where"), format!("{place}\n"))?;
    fs::write(folder.join("names"), TESTS.join("\n") + "\n")?;
    Ok(())
}

/// Where cargo puts the tests' program and the profiler.
fn built() -> Result<(PathBuf, PathBuf)> {
    let arguments = [
        "--test",
        "live",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ];
    // As the ladder builds them: with other features all would be built once more.
    let mut cargo = cargo(&["test"]);
    let output = cargo
        .args(TESTED)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the live tests do not build");
    let talk = String::from_utf8_lossy(&output.stdout);
    let program = |kind| program(&talk, kind).with_context(|| format!("cargo made no {kind}"));
    Ok((program("test")?, program("bin")?))
}

/// The program of this kind among what cargo tells, a JSON object a line.
fn program(talk: &str, kind: &str) -> Option<PathBuf> {
    let lines = talk
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let of_kind = |told: Value| {
        let is_it = told["target"]["kind"][0] == kind;
        let path = told["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(path))
    };
    lines.filter_map(of_kind).next_back()
}

#[cfg(test)]
mod tests {
    use super::program;

    /// Each program is found by its kind, among what has none.
    #[test]
    fn programs_are_found() {
        let talk = r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"]},"executable":"/t/debug/profiler"}
{"reason":"compiler-artifact","target":{"kind":["test"]},"executable":"/t/debug/deps/live-1"}
{"reason":"build-finished","success":true}
"#;
        let found = |kind| program(talk, kind).map(|path| path.display().to_string());
        assert_eq!(found("test").as_deref(), Some("/t/debug/deps/live-1"));
        assert_eq!(found("bin").as_deref(), Some("/t/debug/profiler"));
        assert_eq!(found("example"), None);
    }
}
