//! The configuration of the daemon: a file and what is dropped in beside it, turned into settings that are
//! checked and complete. The defaults are here, and in the commented example `packaging/profiler.toml`.

mod complaint;
mod file;
mod leaving;
mod value;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use profiler_common::comm::CommGlob;

use crate::{
    cgroup,
    config::MIN_BLOCK,
    postgres::Tls,
    store::{Sampled, retention::Retention},
};

pub use self::{
    complaint::Complaint,
    file::{Format, Level},
};
use self::{
    file::{File, Over},
    value::{Bytes, Glob, Hertz, Length, Share, Span},
};
pub use crate::{
    export::{Export, Kind, Limits, Signal, Target},
    web::{Listen, Web},
};
pub(crate) use value::parse_span;

/// Where the configuration is unless `--config` says otherwise.
pub const PATH: &str = "/etc/profiler/profiler.toml";
/// Folder beside it with files that are laid over it, in the order of their names.
const DROP_INS: &str = "profiler.d";
/// Where windows are kept where neither the configuration nor systemd says.
const STATE: &str = "/var/lib/profiler";
/// Samples per second and CPU: low enough to run for months, odd as every rate here.
const FREQUENCY_HZ: u64 = 19;
const WINDOW: Duration = Duration::from_secs(60);
const AGE: Duration = Duration::from_secs(7 * 86_400);
const SIZE_BYTES: u64 = 1_000_000_000;
const OVERHEAD_PPM: u32 = 10_000;

/// What the daemon does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where windows are kept.
    pub state: PathBuf,
    /// How long a window is.
    pub window: Duration,
    /// What is kept of windows.
    pub retention: Retention,
    /// CPU time that the daemon may use, BPF programs included: millionths of the time of all CPUs.
    pub overhead_max_ppm: u32,
    /// What is logged.
    pub log: Log,
    /// Sampling of stacks, if it is on.
    pub sampling: Option<Sampling>,
    /// Calls of Postgres, if they are watched.
    pub queries: Option<Queries>,
    /// Whose TCP connections are watched, with what descends from them, if anybody's are.
    pub tcp: Option<Targets>,
    /// Likewise, whose system calls are counted.
    pub syscalls: Option<Targets>,
    /// The page and the metrics, if they are served.
    pub web: Option<Web>,
    /// Where windows are sent.
    pub export: Export,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The least.
    pub level: Level,
    /// As what, where it does not go to the journal.
    pub format: Format,
}

/// Sampling of stacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Where threads run, where they wait, or both.
    pub sampled: Sampled,
    /// Samples per second and CPU.
    pub frequency_hz: u64,
    /// Waits shorter than this are only added up.
    pub min_block: Duration,
    /// Whom; `None` for the whole host.
    pub targets: Option<Targets>,
}

/// Calls of Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries {
    /// What is read of encrypted connections.
    pub tls: Tls,
    /// Whom, with what descends from them.
    pub targets: Targets,
}

/// Whom: what fits any of these, now or later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Systemd units, by name with or without its suffix.
    pub units: Vec<String>,
    /// Cgroups (v2) from the root of their hierarchy, with a slash before and none behind.
    pub cgroups: Vec<String>,
    /// Names of processes: the glob as typed and compiled.
    pub commands: Vec<(String, CommGlob)>,
    /// Process ids.
    pub pids: Vec<u32>,
}

impl Targets {
    /// In words.
    pub fn description(&self) -> String {
        let mut parts = Vec::new();
        let mut list = |what: &str, names: Vec<String>| {
            if !names.is_empty() {
                parts.push(format!("{what} {}", names.join(", ")));
            }
        };
        list("unit", self.units.clone());
        list("cgroup", self.cgroups.clone());
        list(
            "processes named",
            self.commands.iter().map(|(glob, _)| glob.clone()).collect(),
        );
        list("pid", self.pids.iter().map(u32::to_string).collect());
        parts.join("; ")
    }
}

impl Sampling {
    /// Whom, in words.
    pub fn description(&self) -> String {
        let targets = self.targets.as_ref();
        targets.map_or_else(|| "host".to_owned(), Targets::description)
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", crate::printable::shown(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{0}")]
    Wrong(Complaint),
}

impl ConfigError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some(format!(
                "name another file with --config FILE; the default is {PATH}"
            )),
            Self::Wrong(complaint) => complaint.hint(),
        }
    }
}

/// Reads the file, and what is dropped in beside it.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let mut merged = File::default();
    for path in [vec![path.to_owned()], drop_ins(path)?].concat() {
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let file: File = toml::from_str(&text)
            .map_err(|error| ConfigError::Wrong(Complaint::of_text(&path, &text, &error)))?;
        merged = file.over(merged);
    }
    let state = env::var_os("STATE_DIRECTORY").map(|paths| first_path(&paths.to_string_lossy()));
    resolve(merged, state).map_err(|message| ConfigError::Wrong(Complaint::of_value(path, message)))
}

/// A file that stands alone, with its defaults.
pub(crate) fn parse(text: &str) -> Result<Settings, ConfigError> {
    let path = Path::new(PATH);
    let file = toml::from_str(text)
        .map_err(|error| ConfigError::Wrong(Complaint::of_text(path, text, &error)))?;
    resolve(file, None).map_err(|message| ConfigError::Wrong(Complaint::of_value(path, message)))
}

/// Where windows are, for those who only read them: as configured, if that can be read.
pub fn state_directory() -> PathBuf {
    load(Path::new(PATH)).map_or_else(|_| PathBuf::from(STATE), |settings| settings.state)
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.with_file_name(DROP_INS);
    let failed = |source| ConfigError::Read {
        path: folder.clone(),
        source,
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|suffix| suffix == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// systemd separates several by colons.
fn first_path(paths: &str) -> PathBuf {
    paths.split(':').next().unwrap_or_default().into()
}

/// What is meant: checked, and complete with defaults.
fn resolve(file: File, state_default: Option<PathBuf>) -> Result<Settings, String> {
    let File {
        state,
        windows,
        retention,
        overhead,
        log,
        sampling,
        queries,
        tcp,
        syscalls,
        web,
        export,
        export_queue,
    } = file;
    let windows = windows.unwrap_or_default();
    let Length(window) = windows.length.unwrap_or(Length(WINDOW));
    let retention = retention.unwrap_or_default();
    let Span(age) = retention.age.unwrap_or(Span(AGE));
    if age < window {
        return Err("retention.age is shorter than a window".to_owned());
    }
    let log = log.unwrap_or_default();
    Ok(Settings {
        state: state
            .unwrap_or_default()
            .directory
            .or(state_default)
            .unwrap_or_else(|| STATE.into()),
        window,
        retention: Retention {
            age,
            bytes: retention.size.unwrap_or(Bytes(SIZE_BYTES)).0,
        },
        overhead_max_ppm: overhead
            .unwrap_or_default()
            .max
            .unwrap_or(Share(OVERHEAD_PPM))
            .0,
        log: Log {
            level: log.level.unwrap_or_default(),
            format: log.format.unwrap_or_default(),
        },
        sampling: resolve_sampling(sampling.unwrap_or_default())?,
        queries: resolve_queries(queries.unwrap_or_default())?,
        tcp: resolve_watched("tcp", tcp)?,
        syscalls: resolve_watched("syscalls", syscalls)?,
        web: leaving::web(web.unwrap_or_default())?,
        export: leaving::export(
            export.unwrap_or_default(),
            &export_queue.unwrap_or_default(),
        )?,
    })
}

/// Off unless somebody is named: what everybody sends is nobody's business.
fn resolve_queries(section: file::Queries) -> Result<Option<Queries>, String> {
    let watched = file::Watched {
        enabled: section.enabled,
        targets: section.targets,
    };
    let targets = resolve_watched("queries", Some(watched))?;
    Ok(targets.map(|targets| Queries {
        tls: section.tls.unwrap_or_default(),
        targets,
    }))
}

/// Likewise.
fn resolve_watched(name: &str, section: Option<file::Watched>) -> Result<Option<Targets>, String> {
    let file::Watched { enabled, targets } = section.unwrap_or_default();
    let targets = targets.map(resolve_targets).unwrap_or_default();
    let is_named = targets != Targets::default();
    if enabled == Some(true) && !is_named {
        return Err(format!(
            "{name}.enabled is true, and {name}.targets names nobody"
        ));
    }
    Ok((enabled.unwrap_or(true) && is_named).then_some(targets))
}

/// Each switch between any two threads costs something where waits are recorded: of the whole host only by name.
fn resolve_sampling(section: file::Sampling) -> Result<Option<Sampling>, String> {
    let file::Sampling {
        enabled,
        mode,
        frequency,
        min_block,
        host_wide,
        targets,
    } = section;
    let targets = targets.map(resolve_targets);
    let sampling = Sampling {
        sampled: mode.unwrap_or_default(),
        min_block: min_block.unwrap_or(Span(MIN_BLOCK)).0,
        frequency_hz: frequency.unwrap_or(Hertz(FREQUENCY_HZ)).0,
        targets: targets.filter(|targets| *targets != Targets::default()),
    };
    if !enabled.unwrap_or(true) {
        return Ok(None);
    }
    let mode = sampling.sampled;
    if mode != Sampled::Cpu && sampling.targets.is_none() && host_wide != Some(true) {
        return Err(format!(
            "sampling.mode is {}, of the whole host: every switch between threads would be followed. Name \
             sampling.targets, or set sampling.host_wide = true",
            mode.name()
        ));
    }
    Ok(Some(sampling))
}

fn resolve_targets(section: file::Targets) -> Targets {
    let file::Targets {
        units,
        cgroups,
        commands,
        pids,
    } = section;
    let cgroups = cgroups.unwrap_or_default().into_iter();
    Targets {
        units: units.unwrap_or_default(),
        cgroups: cgroups.map(|path| cgroup::from_root(&path)).collect(),
        commands: commands
            .unwrap_or_default()
            .into_iter()
            .map(|Glob(typed, compiled)| (typed, compiled))
            .collect(),
        pids: pids.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{ConfigError, File, Settings, load, resolve};

    fn settings(text: &str) -> Result<Settings, String> {
        resolve(toml::from_str(text).unwrap(), None)
    }

    /// The commented example is the default configuration, and every key of it is one.
    #[test]
    fn example_is_the_default() {
        let example = include_str!("../../../packaging/profiler.toml");
        assert_eq!(settings(example), settings(""));
        let uncommented: Vec<&str> = example
            .lines()
            .filter_map(|line| {
                line.strip_prefix("#: ")
                    .or((!line.starts_with('#')).then_some(line))
            })
            .collect();
        let all: File = toml::from_str(&uncommented.join("\n")).unwrap();
        assert!(all.sampling.unwrap().targets.unwrap().commands.is_some());
    }

    /// Drop-ins are read in the order of their names, and only those that end in .toml.
    #[test]
    fn drop_ins_are_laid_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiler.toml");
        let dropped = folder.path().join("profiler.d");
        fs::create_dir(&dropped).unwrap();
        fs::write(
            &path,
            "[sampling]\nfrequency = 1\n[windows]\nlength = '10s'",
        )
        .unwrap();
        fs::write(dropped.join("20.toml"), "[sampling]\nfrequency = 3").unwrap();
        fs::write(dropped.join("10.toml"), "[sampling]\nfrequency = 2").unwrap();
        fs::write(dropped.join("30.toml.bak"), "nonsense").unwrap();
        let settings = load(&path).unwrap();
        assert_eq!(settings.sampling.unwrap().frequency_hz, 3);
        assert_eq!(settings.window, Duration::from_secs(10));
        fs::write(dropped.join("40.toml"), "\n[sampling]\nfrequency = -1").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("40.toml:3: "), "{error}");
    }

    /// What cannot be is refused: a missing file, windows that are deleted before they end.
    #[test]
    fn impossible_settings_are_refused() {
        let missing = load("/nonexistent/profiler.toml".as_ref());
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
        assert!(settings("[retention]\nage = '30s'").is_err());
    }

    /// Targets of nothing are the host, cgroups are written in any way, what is off is not there.
    #[test]
    fn targets_are_normalised() {
        let sampling = |text: &str| settings(text).unwrap().sampling;
        let host = sampling("[sampling]\ntargets = { units = [] }").unwrap();
        assert_eq!(
            (host.targets.is_none(), host.description().as_str()),
            (true, "host")
        );
        let chosen = sampling(
            "[sampling]\ntargets = { cgroups = ['/sys/fs/cgroup/a/b/', 'c'], units = ['nginx'], pids = [7] }",
        );
        assert_eq!(
            chosen.unwrap().description(),
            "unit nginx; cgroup /a/b, /c; pid 7"
        );
        assert_eq!(sampling("[sampling]\nenabled = false"), None);
    }

    /// Waits are recorded of those who are named, of the whole host only where that is said.
    #[test]
    fn waits_of_the_host_want_a_word() {
        let sampling = |text: &str| settings(text).map(|settings| settings.sampling);
        for mode in ["off-cpu", "wall"] {
            let section = format!("[sampling]\nmode = '{mode}'\n");
            let refused = sampling(&section).unwrap_err();
            assert!(refused.contains("host_wide"), "{refused}");
            let host = sampling(&format!("{section}host_wide = true"));
            assert_eq!(host.unwrap().unwrap().targets, None);
            let named = sampling(&format!(
                "{section}min_block = '5ms'\ntargets = {{ pids = [7] }}"
            ));
            let named = named.unwrap().unwrap();
            assert_eq!(
                (named.sampled.name(), named.min_block.as_millis()),
                (mode, 5)
            );
            let off = sampling(&format!("{section}enabled = false"));
            assert_eq!(off, Ok(None));
        }
    }

    /// Queries are watched of those who are named, and of nobody else.
    #[test]
    fn queries_want_targets() {
        let queries = |text: &str| settings(text).map(|settings| settings.queries);
        assert_eq!(queries(""), Ok(None));
        assert!(queries("[queries]\nenabled = true").is_err());
        let named = "[queries]\ntls = 'auto'\ntargets = { units = ['postgresql@15-main'] }";
        let on = queries(named).unwrap().unwrap();
        assert_eq!(on.targets.description(), "unit postgresql@15-main");
        assert_eq!(on.tls, crate::postgres::Tls::Auto);
        let off = named.replace("tls =", "enabled = false\ntls =");
        assert_eq!(queries(&off), Ok(None));
    }

    /// So are connections and system calls.
    #[test]
    fn tables_want_targets() {
        let none = settings("").unwrap();
        assert_eq!((none.tcp, none.syscalls), (None, None));
        for name in ["tcp", "syscalls"] {
            let nobody = settings(&format!("[{name}]\nenabled = true")).unwrap_err();
            assert_eq!(
                nobody,
                format!("{name}.enabled is true, and {name}.targets names nobody")
            );
        }
        let both = "[tcp]\ntargets = { pids = [7] }\n[syscalls]\ntargets = { units = ['nginx'] }";
        let both = settings(both).unwrap();
        assert_eq!(both.tcp.unwrap().description(), "pid 7");
        assert_eq!(both.syscalls.unwrap().description(), "unit nginx");
    }
}
