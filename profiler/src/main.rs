//! Parses, runs, reports.

#![expect(
    clippy::print_stderr,
    reason = "the one place that talks to the user about errors"
)]

use std::process::ExitCode;

use clap::Parser;
use profiler::{
    cli::{Cli, Verb},
    daemon, dump,
    error::{Error, Exit},
    postgres,
    preflight::{self, Form},
    record, report, symbolize, syscalls, tcp,
};

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1);
    if let Some(exit) = symbolize::child(words.map_while(|word| word.into_string().ok())) {
        return exit;
    }
    match run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("profiler: error: {}", chain(&error));
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            error.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Error> {
    match cli.verb {
        Verb::Record(args) => record::run(args.resolve()?),
        Verb::Syscalls(args) => match args.history()? {
            Some(history) => syscalls::tell(&history),
            None => syscalls::run(args.resolve()?),
        },
        Verb::Tcp(args) => match args.history() {
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
