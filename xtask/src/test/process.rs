//! A program with tests that is run to its end, or to its bound: a test that hangs is a failure,
//! not the end of the ladder.

use std::{
    fs,
    io::{Read, Seek},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// No test takes a tenth of it.
const BOUND: Duration = Duration::from_secs(600);
/// How often it is looked whether the program has ended.
const STEP: Duration = Duration::from_millis(10);

/// How a program ended.
pub(super) struct Ended {
    /// Everything that it printed.
    pub(super) talk: String,
    pub(super) success: bool,
    pub(super) time: Duration,
}

/// Runs it. What it prints goes to a file: a pipe would be held open by what a killed test leaves.
pub(super) fn run(command: &mut Command) -> Result<Ended> {
    let mut file = tempfile::tempfile()?;
    let started = Instant::now();
    let mut child = command
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let success = wait(&mut child, started + BOUND)?;
    let time = started.elapsed();
    let mut talk = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut talk)?;
    let mut talk = String::from_utf8_lossy(&talk).into_owned();
    if success.is_none() {
        talk += "\nkilled: it hangs\n";
    }
    Ok(Ended {
        talk,
        success: success == Some(true),
        time,
    })
}

/// Whether it succeeded; `None` if it was killed.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<bool>> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        std::thread::sleep(STEP);
    }
    for pid in descendants(Pid::from_child(child)) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
    child.wait()?;
    Ok(None)
}

/// A process and what it has started.
fn descendants(first: Pid) -> Vec<Pid> {
    let mut all = vec![first];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
        let threads = threads.into_iter().flatten().flatten();
        let children =
            threads.flat_map(|thread| fs::read_to_string(thread.path().join("children")));
        let children: Vec<i32> = children
            .flat_map(|text| text.split(' ').flat_map(str::parse).collect::<Vec<_>>())
            .collect();
        all.extend(children.into_iter().filter_map(Pid::from_raw));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::{run, wait};

    /// What a program prints is kept in its order, and its failure seen.
    #[test]
    fn talk_is_kept() {
        let mut shell = Command::new("sh");
        let ended = run(shell.args(["-c", "echo one; echo two >&2; exit 3"])).unwrap();
        assert_eq!(ended.talk, "one\ntwo\n");
        assert!(!ended.success);
    }

    /// A program that hangs is killed with what it has started.
    #[test]
    fn what_hangs_is_killed() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo $!; wait"]);
        let mut child = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        let mut talk = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut talk, &mut pid).unwrap();
        let ended = wait(&mut child, Instant::now()).unwrap();
        assert_eq!(ended, None);
        let stat = format!("/proc/{}/stat", pid.trim());
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let bound = Instant::now() + Duration::from_secs(60);
        while lives() {
            assert!(Instant::now() < bound, "what it started lives on");
            std::thread::yield_now();
        }
    }
}
