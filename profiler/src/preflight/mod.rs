//! What this machine allows, found out before it matters: `profiler doctor`, and the quick check
//! before a recording.
//!
//! `facts` looks and tries, `assess` judges what was found and knows what mends it, `render`
//! shows the verdict. Only `facts` touches the machine.

mod assess;
mod facts;
mod render;

pub(crate) use assess::SET_CAPABILITIES;
pub use assess::{Check, Command, Report, Status, Verdict};

use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
};

/// A recording would fail, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot record: {reason}")]
pub struct PreflightError {
    reason: String,
    remedy: Option<String>,
}

impl PreflightError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        self.remedy.clone()
    }
}

/// How `doctor` shows its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Refuses where `record` could not work, naming what is missing. Only reads; nothing is tried.
pub fn require_record() -> Result<(), PreflightError> {
    match assess::first_refusal(&facts::quick()) {
        Some(check) => Err(refused(check)),
        None => Ok(()),
    }
}

/// Refuses where the probes of TLS libraries could not be attached.
pub fn require_tls() -> Result<(), PreflightError> {
    let check = assess::tls(&facts::quick());
    match check.status {
        Status::Ok => Ok(()),
        Status::Warn | Status::Refused => Err(refused(check)),
    }
}

fn refused(check: Check) -> PreflightError {
    PreflightError {
        reason: format!("{}: {}", check.name, check.found),
        remedy: check.remedy,
    }
}

/// `profiler doctor`: prints the report; success only if `record` would work.
pub fn doctor(form: Form) -> Result<Exit, Error> {
    let report = assess::assess(&facts::gather());
    let text = match form {
        Form::Text => render::text(&report),
        Form::Json => render::json(&report)?,
    };
    Artifact::open(&Destination::Stdout)?.write(text.as_bytes())?;
    Ok(if report.record_works() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
