//! Python programs that carry or are carried: what `PyInstaller` makes of a script, and an application in uWSGI. Both
//! come from the registry of Python packages.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::programs::Program;
use crate::shell;

/// Where uWSGI listens, on this machine alone.
const ADDRESS: &str = "127.0.0.1:18471";

/// The programs of both; packages are installed once.
pub(super) fn all(folder: &Path, programs: &mut Vec<Program>) -> Result<()> {
    let environment = folder.join("packed");
    let python = environment.join("bin/python");
    if !environment.join("bin/uwsgi").exists() {
        let mut make = Command::new("python3");
        shell::run(make.args(["-m", "venv"]).arg(&environment))?;
        let mut install = Command::new(&python);
        let packages = ["-m", "pip", "install", "--quiet", "pyinstaller", "uwsgi"];
        shell::run(install.args(packages))?;
    }
    let sources = shell::root().join("xtask/trees");
    for kind in ["onefile", "onedir"] {
        let made = folder.join(kind);
        if !made.exists() {
            let mut pack = Command::new(&python);
            pack.args(["-m", "PyInstaller", "--log-level=ERROR", "--noconfirm"])
                .arg(format!("--{kind}"))
                .arg("--distpath")
                .arg(&made)
                .arg("--workpath")
                .arg(folder.join("packing"))
                .arg("--specpath")
                .arg(folder.join("packing"))
                .arg(sources.join("app.py"));
            shell::run(&mut pack)?;
        }
        let place = if kind == "onefile" { "app" } else { "app/app" };
        let mut command = Command::new(made.join(place));
        command.args(["2", "0"]);
        let mut program = Program::new(
            format!("packed, PyInstaller {kind}"),
            command,
            &["<module>", "main", "down"],
        );
        program.has_children = kind == "onefile";
        programs.push(program);
    }
    let mut server = Command::new(environment.join("bin/uwsgi"));
    server
        .args(["--http-socket", ADDRESS, "--enable-threads", "--wsgi-file"])
        .arg(sources.join("served.py"))
        .env("UWSGI_ADDRESS", ADDRESS);
    // The application, or the thread that asks.
    let served = Program::new("packed, uWSGI".to_owned(), server, &["served."]);
    programs.push(served);
    Ok(())
}
