//! Rungs that go on beside others: they wait for the network or use one processor, and come before
//! tests that are timed.

use std::{
    fs::File,
    io::{Read, Seek},
    process::Child,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::shell::command;

/// A process of ours that runs such rungs, with the lowest priority.
pub(super) struct Aside {
    child: Child,
    /// What it prints, shown when it has ended.
    talk: File,
    started: Instant,
}

impl Aside {
    /// Starts a verb of ours.
    pub(super) fn start(verb: &str) -> Result<Self> {
        let program = std::env::current_exe()?;
        let talk = tempfile::tempfile()?;
        let mut nice = command("nice", &["-n", "19"]);
        let child = nice
            .arg(program)
            .arg(verb)
            .stdout(talk.try_clone()?)
            .stderr(talk.try_clone()?)
            .spawn()
            .context("cannot run `nice`")?;
        Ok(Self {
            child,
            talk,
            started: Instant::now(),
        })
    }

    /// Waits for its end, and shows what it printed.
    pub(super) fn end(mut self) -> Result<()> {
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
