//! `profiler daemon`.

use std::path::PathBuf;

use clap::Args;

use crate::daemon::config;

const DAEMON_EXAMPLES: &str = "\
Examples:
  profiler daemon --check                         what would run here, and what would not and why
  profiler daemon --config ./profiler.toml        until SIGTERM or Ctrl-C; SIGHUP reads the configuration again
  profiler report --since 1h -o host.svg          what it has kept

SIGTERM and Ctrl-C write the open windows and end it within 5 s, a second one at once. What it keeps can be read by its
user and by that user's group.";

/// `profiler daemon`
#[derive(Debug, Args)]
#[command(after_help = DAEMON_EXAMPLES)]
pub struct DaemonArgs {
    /// Configuration; files in profiler.d beside it are laid over it
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    pub config: PathBuf,
    /// Only say what would run, and whether the configuration is right
    #[arg(long)]
    pub check: bool,
    /// Serve the page on an address that others can reach too; wants a configuration that says so too, and a token
    #[arg(long)]
    pub listen_publicly: bool,
}
