//! The daemon as the tests see it: started under a service manager that is the test, asked, told, ended.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        net::{UnixDatagram, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use profiler::store::{self, Capability, Entry, Span};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::bench::{Bench, Folded, signal, text};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon, under a service manager that is the test. Killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    config: PathBuf,
    pub(crate) state: PathBuf,
    log: PathBuf,
    manager: UnixDatagram,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(bench: &Bench, sections: &str) -> Self {
        let state = bench.path("state");
        let _ = fs::create_dir(&state);
        let command = bench.command(&[]);
        let program = PathBuf::from(command.get_program());
        Self::spawn(bench, sections, &mut Command::new(program))
    }

    /// Likewise, by a command to which the daemon's arguments are added.
    pub(crate) fn spawn(bench: &Bench, sections: &str, command: &mut Command) -> Self {
        let (config, state) = (bench.path("profiler.toml"), bench.path("state"));
        let (log, socket) = (bench.path("log"), bench.path("notify"));
        write_config(&config, &state, sections);
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).expect("a socket");
        manager
            .set_read_timeout(Some(PATIENCE))
            .expect("it can wait");
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("it is ours");
        let death = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: the closure makes one system call and nothing else.
        unsafe { command.pre_exec(death) };
        let child = command
            .args(["daemon", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "500000")
            .env_remove("WATCHDOG_PID")
            .env_remove("JOURNAL_STREAM")
            .env_remove("STATE_DIRECTORY")
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the daemon starts");
        let daemon = Self {
            child,
            config,
            state,
            log,
            manager,
        };
        daemon.told("READY=1");
        daemon
    }

    /// Waits until the service manager is told this; gives all of that message.
    #[track_caller]
    pub(crate) fn told(&self, wanted: &str) -> String {
        let started = Instant::now();
        let mut bytes = [0; 4096];
        while started.elapsed() < PATIENCE {
            let Ok(length) = self.manager.recv(&mut bytes) else {
                break;
            };
            let message = text(&bytes[..length]);
            if message.contains(wanted) {
                return message;
            }
        }
        panic!("never told {wanted}; log:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log holds this.
    #[track_caller]
    pub(crate) fn logged(&self, wanted: &str) {
        let found = (0..600).find(|_| {
            sleep(Duration::from_millis(100));
            self.log().contains(wanted)
        });
        assert!(found.is_some(), "no {wanted} in:\n{}", self.log());
    }

    /// Waits until so many windows are there.
    #[track_caller]
    pub(crate) fn windows(&self, wanted: usize) -> Vec<Entry> {
        let found = (0..6000).find_map(|_| {
            sleep(Duration::from_millis(50));
            let entries = store::list(&self.state).unwrap_or_default();
            (entries.len() >= wanted).then_some(entries)
        });
        found.unwrap_or_else(|| panic!("no {wanted} windows; log:\n{}", self.log()))
    }

    /// Waits until something is so, for as long as the daemon shows signs of life.
    #[track_caller]
    pub(crate) fn until(&self, is_so: impl Fn() -> bool) {
        while !is_so() {
            // Whoever does not read what is told stops the daemon.
            self.told("WATCHDOG=1");
        }
    }

    /// A figure of the page at this socket.
    #[track_caller]
    pub(crate) fn metric(&self, socket: &str, name: &str) -> u64 {
        let mut stream = UnixStream::connect(socket).expect("it listens");
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers");
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let figure = line.and_then(|figure| figure.trim().parse().ok());
        figure.unwrap_or_else(|| panic!("no {name} in\n{page}\nlog:\n{}", self.log()))
    }

    pub(crate) fn reload(&self, sections: &str) {
        write_config(&self.config, &self.state, sections);
        signal(&self.child, Signal::HUP);
        let reloading = self.told("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    }

    /// Ends it as systemd does, and gives the windows.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Vec<Entry> {
        signal(&self.child, Signal::TERM);
        self.told("STOPPING=1");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{}", self.log());
        store::list(&self.state).expect("the store can be read")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(path: &Path, state: &Path, sections: &str) {
    let state = state.display();
    let text = format!("[state]\ndirectory = '{state}'\n{sections}\n");
    fs::write(path, text).expect("a configuration");
}

/// Windows of this length, sampling whom the targets say.
pub(crate) fn sections(length: &str, targets: &str) -> String {
    format!(
        "[windows]\nlength = \"{length}\"\n[overhead]\nmax = \"100%\"\n[log]\nlevel = \"debug\"\n\
         [sampling]\nfrequency = 199\ntargets = {{ {targets} }}"
    )
}

pub(crate) fn report(bench: &Bench, state: &Path, arguments: &[&str]) -> Folded {
    let state = state.to_str().expect("text");
    let report = [
        "report", "--state", state, "--since", "1h", "-f", "folded", "-o", "-",
    ];
    let output = bench.profiler(&[&report, arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    Folded::parse(&text(&output.stdout))
}

/// Parts of the time from the first window to the last without one.
pub(crate) fn gaps(entries: &[Entry]) -> Vec<Span> {
    let begin_ms = entries.first().map_or(0, |entry| entry.name.begin_ms);
    let end_ms = entries.last().map_or(0, |entry| entry.name.end_ms);
    store::select(entries, Capability::Sampling, Span { begin_ms, end_ms }).gaps
}
