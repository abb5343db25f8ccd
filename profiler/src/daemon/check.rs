//! `profiler daemon --check`: what a configuration would do here, a line a capability. Nothing is attached.

use std::{fs, path::Path};

use super::config::{Settings, load};
use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
    preflight,
    record::targets::check_frequency,
};

/// Capabilities of the command line that the daemon does not have.
const ONLY_COMMANDS: [&str; 3] = ["queries", "tcp", "syscalls"];

/// Prints it; fails where something that is on cannot be.
pub(super) fn run(path: &Path) -> Result<Exit, Error> {
    let settings = load(path)?;
    let refusal = sampling_refusal(&settings);
    let store = store_refusal(&settings.state);
    let mut lines = vec![format!("configuration: {} is right", path.display())];
    lines.push(describe_store(&settings, store.as_deref()));
    lines.extend(self::lines(&settings, refusal.as_deref()));
    lines.push(String::new());
    Artifact::open(&Destination::Stdout)?.write(lines.join("\n").as_bytes())?;
    Ok(if refusal.is_none() && store.is_none() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// A line a capability, whether it is on; `refusal` is why sampling cannot be.
pub(super) fn lines(settings: &Settings, refusal: Option<&str>) -> Vec<String> {
    let only_commands = ONLY_COMMANDS.map(|name| {
        format!("{name}: impossible, the daemon does not keep it; `profiler {name}` shows it now")
    });
    std::iter::once(sampling_line(settings, refusal))
        .chain(only_commands)
        .collect()
}

/// The line of sampling.
pub(super) fn sampling_line(settings: &Settings, refusal: Option<&str>) -> String {
    let Some(sampling) = &settings.sampling else {
        return "sampling: off, as configured (sampling.enabled)".to_owned();
    };
    if let Some(refusal) = refusal {
        return format!("sampling: impossible here, {refusal}");
    }
    format!(
        "sampling: on, {} at {} Hz, windows of {:.1} s",
        sampling.description(),
        sampling.frequency_hz,
        settings.window.as_secs_f64()
    )
}

/// Why sampling, if it is on, cannot work here.
fn sampling_refusal(settings: &Settings) -> Option<String> {
    let sampling = settings.sampling.as_ref()?;
    let error = match preflight::require_record() {
        Err(error) => Error::from(error),
        Ok(()) => check_frequency(sampling.frequency_hz).err()?,
    };
    let hint = error.hint().map(|hint| format!("; {hint}"));
    Some(format!("{error}{}", hint.unwrap_or_default()))
}

fn describe_store(settings: &Settings, refusal: Option<&str>) -> String {
    let state = settings.state.display();
    match refusal {
        Some(refusal) => format!("store: impossible, {state}: {refusal}"),
        None => format!(
            "store: {state}, up to {} MB and {:.1} days",
            settings.retention.bytes / 1_000_000,
            settings.retention.age.as_secs_f64() / 86_400.0
        ),
    }
}

/// Why windows could not be kept there. The directory may still have to be made.
fn store_refusal(state: &Path) -> Option<String> {
    let existing = state.ancestors().find(|path| path.exists())?;
    match fs::metadata(existing) {
        Ok(metadata) if !metadata.is_dir() => Some("not a directory".to_owned()),
        Ok(_) => {
            let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
            writable.err().map(|error| error.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}
