//! `profiler report`: recordings in, one profile out, in any format or as a table. Needs no
//! privileges beyond reading its files.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{History, Wanted, merge, read};
use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
    output::{self, Format, account, top},
    printable::shown,
    profile::Profile,
    terminal::say,
};

/// `profiler report`, as meant.
#[derive(Debug)]
pub struct Report {
    /// What of.
    pub source: Source,
    /// Whose samples.
    pub wanted: Wanted,
    /// Where to and as what, if anything is to be written.
    pub output: Option<(Destination, Format)>,
    /// How many functions to print.
    pub top: Option<usize>,
    /// How it is drawn.
    pub options: output::Options,
}

/// What a report is of.
#[derive(Debug)]
pub enum Source {
    /// Files, `-` being standard input.
    Files(Vec<PathBuf>),
    /// What the daemon kept.
    History(History),
}

/// Runs the verb.
pub fn run(report: &Report) -> Result<Exit, Error> {
    // A bad output path fails before a long read.
    let output = report.output.as_ref().map(|(destination, format)| {
        Artifact::open(destination).map(|artifact| (artifact, *format))
    });
    let output = output.transpose()?;
    let profile = match &report.source {
        Source::Files(inputs) => {
            let profiles: Result<Vec<Profile>, Error> = inputs
                .iter()
                .map(|path| {
                    let mut profile = read_one(path)?;
                    report.wanted.retain(&mut profile);
                    Ok(profile)
                })
                .collect();
            let mut profile = merge(profiles?);
            report.wanted.name(&mut profile);
            profile
        }
        Source::History(history) => {
            let profile = history.profile(&report.wanted)?;
            for line in account::lines(&profile) {
                say(&line);
            }
            profile
        }
    };
    if let Some((artifact, format)) = output {
        let bytes = output::render(&profile, format, &report.options)?;
        let path = artifact.path().map(shown);
        artifact.write(&bytes)?;
        if let Some(path) = path {
            say(&format!("wrote {path}"));
        }
    }
    if let Some(rows) = report.top {
        Artifact::open(&Destination::Stdout)?.write(top::table(&profile, rows).as_bytes())?;
    }
    Ok(Exit::Done)
}

fn read_one(path: &Path) -> Result<Profile, Error> {
    let bytes = read_bytes(path).map_err(|source| Error::Input {
        path: path.to_owned(),
        source,
    })?;
    read(&bytes).map_err(|source| Error::Recording {
        path: path.to_owned(),
        source,
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}
