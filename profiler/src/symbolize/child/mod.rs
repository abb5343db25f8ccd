//! The process that reads what a target may have made up: it has no privileges, and nothing is lost with it.
//!
//! It is this program once more, by a verb that `--help` does not show. It is asked about one file at
//! a time, so that its death names the file, and keeps nothing of a file that was answered for.

mod debug_file;
mod elf;
mod file;
mod filter;
mod functions;
pub(crate) mod fuzzing;
mod perf_map;
mod readable;
mod sandbox;

use std::{
    io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use self::perf_map::PerfMaps;
use super::{
    limits::Limits,
    wire::{Answer, Question, receive, send},
};

/// The verb, the first word of the command line.
pub(super) const VERB: &str = "__symbolize";
/// Exit status: it could not be confined, and has read nothing.
pub(super) const NOT_CONFINED: u8 = 70;

/// What this process does if it was started as the child; `None` if it was not.
pub(super) fn main(mut words: impl Iterator<Item = String>) -> Option<ExitCode> {
    if words.next()? != VERB {
        return None;
    }
    let Some(limits) = Limits::from_words(words) else {
        return Some(ExitCode::from(NOT_CONFINED));
    };
    if sandbox::enter(&limits).is_err() {
        return Some(ExitCode::from(NOT_CONFINED));
    }
    // SAFETY: the parent has put the socket there, and nothing else uses this descriptor.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) });
    let begin = || sandbox::allow_seconds(limits.seconds);
    Some(match serve(&socket, begin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Answers until there are no more questions.
pub(super) fn serve(socket: &UnixStream, begin: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let mut maps = PerfMaps::default();
    // Without a time-out on the socket there is no pause.
    while let Some((question, files)) = receive(socket, || Ok(()))? {
        begin()?;
        let answer = answer(&question, &files, &mut maps)?;
        drop(files);
        send(socket, &answer, &[])?;
    }
    Ok(())
}

fn answer(question: &Question, files: &[OwnedFd], maps: &mut PerfMaps) -> io::Result<Answer> {
    let (first, others) = files.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(match question {
        Question::Links => Answer::Links(debug_file::links(first)),
        Question::Names { offsets, detail } => {
            Answer::Names(file::names(first, others, offsets, *detail))
        }
        Question::PerfMap { addresses } => Answer::PerfMap(maps.names(first, addresses)?),
    })
}
