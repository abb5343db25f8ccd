//! A throw-away Postgres: own folder, own unix socket, no network unless asked for, gone when dropped. The live tests
//! of `profiler` use this file too.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A server that takes longer to start is not starting.
const START_MAX: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Postgres {
    folder: TempDir,
    /// The postmaster.
    pub(crate) server: Child,
    owner: Option<(u32, u32)>,
    /// Where it listens, if it does.
    port: u16,
}

/// Of TCP connections that are not trusted.
const PASSWORD: &str = "demo";
/// Postgres's own.
const PORT: u16 = 5432;

/// Where a server is to be reached beside its unix socket.
#[derive(Clone, Copy)]
enum Network<'a> {
    /// At these addresses, by everybody.
    Trusting(&'a str),
    /// At 127.0.0.1, at a port of its own, with the password.
    Loopback(u16),
}

/// Where a server of another version is, if the tests are to run beside it.
pub(crate) const OTHER_SERVER: &str = "PROFILER_TEST_POSTGRES";

/// A program of Postgres, on PATH or where Debian keeps it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let other = std::env::var_os(OTHER_SERVER).map(PathBuf::from);
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    other
        .into_iter()
        .chain(folders)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Postgres refuses to run as root: whom it runs as then.
fn owner() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .context("no user `postgres`, as whom to run the server")?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(uid)), Some(Ok(gid))) => Ok(Some((uid, gid))),
        _ => bail!("/etc/passwd has a malformed line for `postgres`"),
    }
}

impl Postgres {
    /// Makes a cluster and starts its server.
    pub(crate) fn start() -> Result<Self> {
        Self::start_at("")
    }

    /// Likewise, with these settings, and reached at a port of 127.0.0.1 by who knows the password. With `ssl=on` it
    /// has a certificate that it signed itself.
    pub(crate) fn start_with(settings: &[&str]) -> Result<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = free.local_addr()?.port();
        drop(free);
        Self::launch(Network::Loopback(port), settings)
    }

    /// Likewise, with a server that also listens at these addresses: anybody who reaches one is its master, so they
    /// have to be in a network namespace of our own.
    pub(crate) fn start_at(addresses: &str) -> Result<Self> {
        Self::launch(Network::Trusting(addresses), &[])
    }

    fn launch(network: Network<'_>, settings: &[&str]) -> Result<Self> {
        let owner = owner()?;
        let folder = tempfile::Builder::new()
            .prefix("profiler-demo-")
            .tempdir()?;
        if let Some((uid, gid)) = owner {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let data = folder.path().join("data");
        let (addresses, port) = match network {
            Network::Trusting(addresses) => (addresses, PORT),
            Network::Loopback(port) => ("127.0.0.1", port),
        };
        make_cluster(folder.path(), owner)?;
        let whom = match network {
            Network::Trusting(_) => "host all all all trust",
            // Whichever way the server keeps passwords: 12 and 13 keep them as this.
            Network::Loopback(_) => "host all all samehost md5",
        };
        let rules = format!("local all all trust\n{whom}\n");
        fs::write(data.join("pg_hba.conf"), rules)?;
        if settings.contains(&"ssl=on") {
            certify(&data, owner)?;
        }
        let mut server = program("postgres", folder.path(), owner)?;
        server
            .arg("-D")
            .arg(&data)
            .args(["-c", "fsync=off", "-c"])
            .arg(format!("listen_addresses={addresses}"))
            .arg("-p")
            .arg(port.to_string());
        for setting in settings {
            server.args(["-c", setting]);
        }
        server.arg("-c").arg(format!(
            "unix_socket_directories={}",
            folder.path().display()
        ));
        let log = fs::File::create(folder.path().join("log"))?;
        dies_with_us(&mut server);
        let server = server
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start postgres")?;
        let postgres = Self {
            folder,
            server,
            owner,
            port,
        };
        postgres.wait()?;
        Ok(postgres)
    }

    fn wait(&self) -> Result<()> {
        let started = Instant::now();
        while !self.client("pg_isready")?.output()?.status.success() {
            if started.elapsed() > START_MAX {
                bail!(
                    "postgres does not start: {}",
                    fs::read_to_string(self.folder.path().join("log"))?
                );
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The server's process and those of its connections and workers, which are all its children.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let server = self.server.id();
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))
            .context("the kernel does not list children (CONFIG_PROC_CHILDREN)")?;
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        Ok(std::iter::once(server).chain(children).collect())
    }

    /// A client program that talks to this server.
    pub(crate) fn client(&self, name: &str) -> Result<Command> {
        let mut client = program(name, self.folder.path(), self.owner)?;
        client
            // libpq looks for keys there, and the owner may not look into ours.
            .env("HOME", self.folder.path())
            .env("PGHOST", self.folder.path())
            .env("PGPORT", self.port.to_string())
            .env("PGPASSWORD", PASSWORD)
            .env("PGUSER", "demo")
            .env("PGDATABASE", "postgres");
        dies_with_us(&mut client);
        Ok(client)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is Postgres's fast shutdown; the folder goes when its last process has.
        let _ = kill_process(Pid::from_child(&self.server), Signal::INT);
        let _ = self.server.wait();
    }
}

/// Makes a key, which nobody else may read, and a certificate, where the server looks for them.
fn certify(data: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-new", "-x509", "-nodes", "-days", "2", "-newkey"])
        .args(["rsa:2048", "-subj", "/CN=localhost"])
        .args(["-keyout", "server.key", "-out", "server.crt"])
        .current_dir(data)
        .stderr(Stdio::null());
    ensure!(openssl.status()?.success(), "openssl failed");
    let key = data.join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    if let Some((uid, gid)) = owner {
        chown(&key, Some(uid), Some(gid))?;
        chown(data.join("server.crt"), Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Makes a cluster. As that takes a second, a copy is kept for the next one.
fn make_cluster(folder: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let data = folder.join("data");
    let initdb = find("initdb").unwrap_or_default();
    let name = initdb.to_string_lossy().replace('/', "-");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/tmp/cluster{name}"));
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        copied.is_ok_and(|status| status.success())
    };
    if kept.join("PG_VERSION").is_file() && copy(&kept, &data) {
        return Ok(());
    }
    let password = folder.join("password");
    fs::write(&password, PASSWORD)?;
    let mut initdb = program("initdb", folder, owner)?;
    initdb
        .args(["--no-sync", "--auth=trust", "--username=demo", "--pwfile"])
        .arg(&password)
        .arg("-D")
        .arg(&data)
        .stdout(Stdio::null());
    ensure!(initdb.status()?.success(), "initdb failed");
    let part = kept.with_extension(std::process::id().to_string());
    if let Some(parent) = kept.parent()
        && fs::create_dir_all(parent).is_ok()
        && !(copy(&data, &part) && fs::rename(&part, &kept).is_ok())
    {
        // Another one was faster, or there is no room: the next cluster is made anew.
        let _ = fs::remove_dir_all(&part);
    }
    Ok(())
}

fn program(name: &str, folder: &Path, owner: Option<(u32, u32)>) -> Result<Command> {
    let path = find(name)
        .with_context(|| format!("no `{name}`: `cargo xtask setup --tests` installs Postgres"))?;
    let mut command = Command::new(path);
    command.current_dir(folder).env("LC_ALL", "C");
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// The kernel ends the program when we end, however that happens.
pub(crate) fn dies_with_us(command: &mut Command) {
    let death = || {
        Ok(rustix::process::set_parent_process_death_signal(Some(
            Signal::INT,
        ))?)
    };
    // SAFETY: the closure makes one system call and nothing else.
    unsafe { command.pre_exec(death) };
}
