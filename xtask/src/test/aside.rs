//! Rungs that go on beside others, each group in a process of its own, so that what they print does not mix.

use std::{
    fs::File,
    io::{Read, Seek},
    process::Child,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use clap::ValueEnum;

use crate::shell::command;

/// The hidden verb of [`super::aside()`].
const VERB: &str = "aside";

/// What goes on beside the others.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Rungs {
    /// What the live tests need to be there: it waits for the network.
    Installs,
    /// What no live test needs.
    Checks,
}

/// A process of ours that runs such rungs.
pub(super) struct Aside {
    child: Child,
    /// What it prints, shown when it has ended.
    talk: File,
    started: Instant,
}

impl Aside {
    /// Starts them. They run only when a processor has nothing else to do: live tests do not see them.
    pub(super) fn start(rungs: Rungs) -> Result<Self> {
        let program = std::env::current_exe()?;
        let talk = tempfile::tempfile()?;
        let rungs = rungs.to_possible_value();
        let rungs = rungs.as_ref().map_or("", |value| value.get_name());
        let mut idle = command("chrt", &["--idle", "0"]);
        let child = idle
            .arg(program)
            .args([VERB, rungs])
            .stdout(talk.try_clone()?)
            .stderr(talk.try_clone()?)
            .spawn()
            .context("cannot run `chrt`: Debian's package is util-linux")?;
        Ok(Self {
            child,
            talk,
            started: Instant::now(),
        })
    }

    /// An error if they have failed by now: the ladder need not go on.
    pub(super) fn check(&mut self) -> Result<()> {
        let failed = self
            .child
            .try_wait()?
            .is_some_and(|status| !status.success());
        if failed { self.show() } else { Ok(()) }
    }

    /// Waits for their end, and shows what they printed.
    pub(super) fn end(mut self) -> Result<()> {
        self.show()
    }

    fn show(&mut self) -> Result<()> {
        let waits = Instant::now();
        let status = self.child.wait()?;
        let mut talk = Vec::new();
        self.talk.rewind()?;
        self.talk.read_to_end(&mut talk)?;
        println!("{}", String::from_utf8_lossy(&talk));
        println!(
            "\n== beside the rungs above: {:.1} s, of which {:.1} s waited for",
            self.started.elapsed().as_secs_f64(),
            waits.elapsed().as_secs_f64()
        );
        ensure!(status.success(), "a rung beside the others failed");
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Only where another rung failed first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
