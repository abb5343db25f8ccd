//! Whom: the options that every verb that attaches has.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::compile_glob;
use crate::{
    cgroup,
    command_line::CommandLines,
    config::{Descendants, Targets},
    error::Error,
};

/// Whom to look at.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Processes to watch, all their threads
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Vec<u32>,
    /// Watch every process of the host
    #[arg(short, long, conflicts_with_all = ["pids", "command"])]
    pub all: bool,
    /// Only processes whose name (of the main thread) matches, e.g. 'postgres*'
    #[arg(long, value_name = "GLOB", conflicts_with = "command")]
    pub comm: Option<String>,
    /// Only processes in this cgroup (v2) or below it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["unit", "command"])]
    pub cgroup: Option<PathBuf>,
    /// Only processes of this systemd unit
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub unit: Option<String>,
    /// Also what descends from the targets, now or later [default with a COMMAND]
    #[arg(long)]
    pub descendants: bool,
    /// Keep command lines whole, passwords and all [default: names of programs and options]
    #[arg(long)]
    pub full_command: bool,

    /// Start this command, watch it and its children, exit with its status
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    pub command: Vec<OsString>,
}

impl TargetArgs {
    /// What is meant. Looks up the cgroup, reads nothing else.
    pub(super) fn resolve(&self) -> Result<Targets, Error> {
        let anyone =
            self.all || self.comm.is_some() || self.cgroup.is_some() || self.unit.is_some();
        if self.pids.is_empty() && self.command.is_empty() && !anyone {
            return Err(Error::NoTarget);
        }
        let comm = self
            .comm
            .as_ref()
            .map(|glob| compile_glob(glob).map(|compiled| (glob.clone(), compiled)));
        let command = (!self.command.is_empty()).then(|| self.command.clone());
        let follow = self.descendants || command.is_some();
        let mut pids = self.pids.clone();
        pids.sort_unstable();
        pids.dedup();
        Ok(Targets {
            pids,
            command,
            comm: comm.transpose()?,
            cgroup: self.cgroup()?,
            descendants: if follow {
                Descendants::Follow
            } else {
                Descendants::Ignore
            },
            command_lines: CommandLines::of(self.full_command),
        })
    }

    fn cgroup(&self) -> Result<Option<(String, cgroup::Cgroup)>, Error> {
        if let Some(path) = &self.cgroup {
            return Ok(Some((path.display().to_string(), cgroup::resolve(path)?)));
        }
        if let Some(unit) = &self.unit {
            return Ok(Some((unit.clone(), cgroup::unit(unit)?)));
        }
        Ok(None)
    }
}
