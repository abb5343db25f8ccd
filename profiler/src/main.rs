//! Parses, runs, reports.

use std::{io, process::ExitCode};

use clap::{Parser, error::Error as Refusal};
use profiler::{
    cli::{Cli, Verb},
    cores, daemon, dump,
    error::{Error, Exit},
    postgres,
    preflight::{self, Form},
    printable, record, report, symbolize, syscalls, tcp,
    terminal::say_lines,
};

fn main() -> ExitCode {
    // Before anything else: without privileges its own folder in `/proc` is closed to it once it cannot be dumped.
    let words = std::env::args_os().skip(1);
    if let Some(exit) = symbolize::child(words.map_while(|word| word.into_string().ok())) {
        return exit;
    }
    cores::forbid();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return answer(&refusal),
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    say_lines(&format!("profiler: error: {}", chain(error)));
    if let Some(hint) = error.hint() {
        say_lines(&format!("hint: {hint}"));
    }
    error.exit().into()
}

/// Help, or why what was typed is not understood: it may hold names of files that others chose.
fn answer(refusal: &Refusal) -> ExitCode {
    let text = refusal.render().to_string();
    let is_safe = *printable::lines(&text) == *text;
    let written = match (is_safe, refusal.use_stderr()) {
        (false, true) => {
            say_lines(text.trim_end());
            Ok(())
        }
        _ => refusal.print(),
    };
    match written {
        Err(source) if !refusal.use_stderr() && source.kind() != io::ErrorKind::BrokenPipe => {
            fail(&Error::System {
                action: "write to standard output",
                source,
            })
        }
        _ => ExitCode::from(u8::try_from(refusal.exit_code()).unwrap_or(1)),
    }
}

fn run(cli: Cli) -> Result<Exit, Error> {
    match cli.verb {
        Verb::Record(args) => record::run(args.resolve()?),
        Verb::Syscalls(args) => match args.history()? {
            Some(history) => syscalls::tell(&history),
            None => syscalls::run(args.resolve()?),
        },
        Verb::Tcp(args) => match args.history()? {
            Some(history) => tcp::tell(&history),
            None => tcp::run(args.resolve()?),
        },
        Verb::Queries(args) => match args.history() {
            Some(history) => postgres::tell(&history),
            None => postgres::run(args.resolve()?),
        },
        Verb::Report(args) => report::run(&args.resolve()?),
        Verb::Daemon(args) if args.check => daemon::check(&args.config, args.listen_publicly),
        Verb::Daemon(args) => daemon::run(&args.config, args.listen_publicly),
        Verb::Dump(args) => dump::run(args.resolve()),
        Verb::Doctor(args) => preflight::doctor(if args.json { Form::Json } else { Form::Text }),
    }
}

/// The error and its causes on one line, without saying anything twice.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
