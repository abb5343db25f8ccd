//! Running other programs: said before it is done, an error if it fails.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// A program to be run in the root of the checkout.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = command(&cargo, arguments);
    // What it tells of our own package makes builds that ask for it (ring) begin anew, and all that needs them.
    let told = std::env::vars_os().map(|(name, _)| name);
    for name in told.filter(|name| is_of_package(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// Whether cargo sets a variable of the environment by the package of what it runs.
fn is_of_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Says what is run, runs it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", text(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", text(command)))?;
    ensure!(status.success(), "{} failed: {status}", text(command));
    Ok(())
}

/// What a program prints, trimmed; `None` if it fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program is on PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// One rung of a ladder, with a headline and its time.
pub(crate) fn rung<T>(name: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n== {name}");
    let started = Instant::now();
    let result = body().with_context(|| format!("rung failed: {name}"))?;
    println!("== {name}: ok, {:.1} s", started.elapsed().as_secs_f64());
    Ok(result)
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
