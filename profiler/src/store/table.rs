//! Tables in the store: one JSON object a window, compressed.

use std::{io, time::Duration};

use profiler_common::comm::CommGlob;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    cgroup,
    output::{self, OutputError},
    postgres::Window,
    report,
};

/// A window of a table on its way to the store.
pub(crate) trait Table: Send {
    /// Whom.
    fn title(&self) -> &str;

    /// How long it is.
    fn duration(&self) -> Duration;

    /// Calls or connections in it.
    fn events(&self) -> u64;

    /// Those that are not, as far as that is known.
    fn lost(&self) -> u64;

    /// Says something of it, with how often.
    fn note(&mut self, note: String, count: u64);

    /// As it is stored.
    fn to_bytes(&self) -> Result<Vec<u8>, OutputError>;

    /// The statements, where it is of them.
    fn queries(&self) -> Option<&Window> {
        None
    }

    /// What is added up since the daemon's start for whoever asks for metrics.
    fn sums(&self) -> Vec<(Figure, u64)> {
        Vec::new()
    }
}

/// What is added up of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    /// Connections begun or accepted.
    Opened,
    /// Connections that were established and have ended, but for resets.
    Closed,
    /// Connections that were never established.
    Failed,
    /// Connections ended by a reset.
    Reset,
    /// Segments sent again.
    Retransmitted,
    /// System calls that returned an error.
    CallErrors,
}

/// What a window says of itself before anything else.
#[derive(Serialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    window: T,
}

/// Bytes of a window of this version.
pub(crate) fn pack<T: Serialize>(version: u32, window: &T) -> Result<Vec<u8>, OutputError> {
    output::gzip(&serde_json::to_vec(&Versioned { version, window })?)
}

/// Reads one back.
///
/// # Errors
///
/// Of what is no window, or one of another version.
pub(crate) fn unpack<T: DeserializeOwned>(wanted: u32, bytes: &[u8]) -> io::Result<T> {
    /// The first look, which leaves aside what is another version's.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let plain = report::inflate(bytes, super::WINDOW_BYTES_MAX).map_err(io::Error::other)?;
    let Version { version } = serde_json::from_slice(&plain)?;
    if version != wanted {
        return Err(io::Error::other(format!("a window of version {version}")));
    }
    Ok(serde_json::from_slice(&plain)?)
}

/// Who a process is; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its name.
    pub(crate) comm: String,
    /// Its cgroup (v2) from the root.
    pub(crate) cgroup: String,
}

/// Whose rows of a table are wanted: everybody's, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// These processes.
    pub pids: Vec<u32>,
    /// Processes of such a name.
    pub comm: Option<CommGlob>,
    /// Processes of this systemd unit.
    pub unit: Option<String>,
}

impl Who {
    /// Whether a process is wanted; `None` where that cannot be told, as of those that are not told apart, whose
    /// number is 0.
    pub(crate) fn has(&self, pid: u32, comm: &str, cgroup: &str) -> Option<bool> {
        if *self == Self::default() {
            return Some(true);
        }
        if pid == 0 {
            return None;
        }
        let is_named = (self.pids.is_empty() || self.pids.contains(&pid))
            && self.comm.is_none_or(|glob| glob.matches_name(comm));
        match &self.unit {
            Some(_) if is_named && cgroup.is_empty() => None,
            Some(unit) => Some(is_named && cgroup::is_in_unit(cgroup, unit)),
            None => Some(is_named),
        }
    }
}

/// Which watch a window is of, and where in it: what is still open at the end of one is what the next begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// When the watch began, ns after the Unix epoch: tells watches apart.
    pub(crate) watch: u64,
    /// From 0.
    pub(crate) number: u64,
}

impl Link {
    /// Of a watch that begins now.
    pub(crate) fn begin() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let watch = u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        Self { watch, number: 0 }
    }

    /// Of the window after this one.
    pub(crate) fn next(self) -> Self {
        Self {
            number: self.number + 1,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CommGlob, Link, Who, pack, unpack};

    /// What was stored is read back; another version, another kind and half of a file are refused.
    #[test]
    fn only_its_own_version_is_read() {
        let link = Link::begin().next();
        let bytes = pack(3, &link).unwrap();
        assert_eq!(unpack::<Link>(3, &bytes).unwrap(), link);
        let refused = unpack::<Link>(4, &bytes).unwrap_err();
        assert!(refused.to_string().contains("version 3"), "{refused}");
        assert!(unpack::<Link>(3, &bytes[..bytes.len() / 2]).is_err());
        assert!(unpack::<Link>(3, &pack(3, &"nonsense").unwrap_or_default()).is_err());
        assert!(unpack::<Link>(3, b"").is_err());
    }

    /// Each condition must hold; none is everybody.
    #[test]
    fn who_is_wanted() {
        let who = |pids: &[u32], glob: Option<&str>| Who {
            pids: pids.to_vec(),
            comm: glob.map(|glob| CommGlob::compile(glob.as_bytes()).unwrap()),
            unit: None,
        };
        assert_eq!(who(&[], None).has(0, "", ""), Some(true));
        let both = who(&[7], Some("post*"));
        assert_eq!(both.has(7, "postgres", ""), Some(true));
        assert_eq!(both.has(8, "postgres", ""), Some(false));
        assert_eq!(both.has(7, "nginx", ""), Some(false));
        assert_eq!(both.has(0, "", ""), None);
    }

    /// A unit is known by the cgroup; where there is none it is not known, unless something else says no.
    #[test]
    fn units_may_not_be_known() {
        let who = Who {
            pids: vec![7],
            unit: Some("app".to_owned()),
            ..Who::default()
        };
        let app = "/system.slice/app.service/worker";
        assert_eq!(who.has(7, "app", app), Some(true));
        assert_eq!(
            who.has(7, "app", "/system.slice/other.service"),
            Some(false)
        );
        assert_eq!(who.has(7, "app", ""), None);
        assert_eq!(who.has(8, "app", app), Some(false));
        assert_eq!(who.has(8, "app", ""), Some(false));
    }
}
