//! Writes what a package ships beside the program: its manual, one page a verb, and completions for shells.
//! Run by `cargo xtask package`; made of the definition of the command line, so that they cannot disagree.

use std::{
    error::Error,
    fs::{File, create_dir_all},
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use profiler::cli::Cli;
use roff::{Roff, roman};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: manual FOLDER")?;
    create_dir_all(&folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "profiler", &folder)?;
    }
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    page(&cli, &folder)?;
    for verb in cli.get_subcommands() {
        page(verb, &folder)?;
    }
    Ok(())
}

/// Everything that clap knows of a verb. Its examples are set as they are typed, which `clap_mangen`'s own
/// rendering does not do.
fn page(command: &Command, folder: &Path) -> io::Result<()> {
    // Only the program itself has a version of its own.
    let command = command.clone().version(env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.clone())
        .manual("profiler")
        .source(concat!("profiler ", env!("CARGO_PKG_VERSION")));
    let mut file = File::create(folder.join(page.get_filename()))?;
    page.render_title(&mut file)?;
    page.render_name_section(&mut file)?;
    page.render_synopsis_section(&mut file)?;
    page.render_description_section(&mut file)?;
    if command.get_arguments().next().is_some() {
        page.render_options_section(&mut file)?;
    }
    if command.has_subcommands() {
        page.render_subcommands_section(&mut file)?;
    }
    if let Some(examples) = command.get_after_help() {
        after_help(&examples.to_string(), &mut file)?;
    }
    page.render_version_section(&mut file)?;
    file.flush()
}

/// What is indented is an example, and keeps its lines; the rest is text.
fn after_help(text: &str, file: &mut File) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    let text = text.strip_prefix("Examples:\n").unwrap_or(text);
    let mut indented = false;
    for line in text.lines() {
        if line.starts_with(' ') != indented {
            indented = !indented;
            roff.control(if indented { "nf" } else { "fi" }, []);
        }
        if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
    }
    roff.control("fi", []);
    roff.to_writer(file)
}
