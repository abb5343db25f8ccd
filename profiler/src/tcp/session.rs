//! The shell: attaches, lists what is open, takes events until the end, lists again, writes.

use std::{
    collections::BTreeSet,
    fs::File,
    time::{Duration, Instant},
};

use profiler_common::{
    event::{KIND_EXIT, KIND_FORK},
    tcp::{Listener, Socket, TcpSettings, role, tcp_state},
    wire::WireSettings,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Form,
    account::Account,
    connections::Connections,
    csv, json,
    table::{self, Report},
};
use crate::{
    artifact::Artifact,
    config,
    error::{Error, Exit},
    kernel::{
        Kernel, Record, Ring, Wanted, call_offsets, result_offset, tcp_offsets, wire_offsets,
    },
    preflight,
    record::{
        command::Held,
        ending::{End, Ending, event_loop},
        finish,
        ring_watch::RingWatch,
        running::{Running, conclude},
        showing::show,
        targets,
    },
    sockets::{self, tcp::Found},
};

/// How often the ring is emptied: a connection's life takes half a KiB of it.
const POLL: Duration = Duration::from_millis(20);

/// Watches, writes the result, and says how to exit.
pub fn run(config: config::Tcp) -> Result<Exit, Error> {
    event_loop(watch(config))
}

async fn watch(config: config::Tcp) -> Result<Exit, Error> {
    preflight::require_record()?;
    targets::check_pids(&config.targets.pids)?;
    let mut session = Session::prepare(config)?;
    let command = session.start()?;
    let (end, command) = session.watch(command).await?;
    let result = session.finish();
    conclude(command, end, result).await
}

/// A watch under way.
struct Session {
    config: config::Tcp,
    artifact: Artifact,
    kernel: Kernel,
    ring: Ring,
    held: Option<Held>,
    /// Named targets, and followers, that live.
    alive: BTreeSet<u32>,
    connections: Connections,
    /// Connections that could not be followed because a table was full.
    unfollowed: u64,
    started: Instant,
    started_ns: u64,
}

impl Session {
    /// Everything that can fail, before anything is watched.
    fn prepare(config: config::Tcp) -> Result<Self, Error> {
        let all = !config.targets.names_processes();
        let settings = targets::settings(&config.targets)?;
        let wanted = Wanted {
            calls: call_offsets()?,
            tcp: TcpSettings {
                wanted: 1,
                all: u32::from(all),
                ..tcp_offsets()?
            },
            wire: WireSettings {
                result: result_offset()?,
                ..wire_offsets()?
            },
        };
        let (mut kernel, ring, _) = Kernel::load_with(&settings, &wanted)?;
        let artifact = Artifact::open(&config.destination)?;
        let held = targets::hold_command(&config.targets)?;
        let alive = targets::name(&mut kernel, &config.targets, held.as_ref())?;
        Ok(Self {
            config,
            artifact,
            kernel,
            ring,
            held,
            alive,
            connections: Connections::default(),
            unfollowed: 0,
            started: Instant::now(),
            started_ns: finish::monotonic_ns(),
        })
    }

    /// Attaches, lists what is there, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        self.kernel.attach_lifecycle()?;
        targets::add_descendants(
            &mut self.kernel,
            &self.config.targets,
            &mut self.alive,
            |_| {},
        )?;
        self.started = Instant::now();
        self.started_ns = finish::monotonic_ns();
        self.kernel.attach_tcp()?;
        self.list_open()?;
        match self.held.take() {
            Some(held) => targets::release(held, &self.config.targets).map(Some),
            None => Ok(None),
        }
    }

    /// Processes whose connections are watched.
    fn pids(&self) -> Vec<u32> {
        if self.config.targets.names_processes() {
            self.alive.iter().copied().collect()
        } else {
            sockets::everybody()
        }
    }

    /// Notes the connections and listening sockets that targets have already, and has them followed.
    fn list_open(&mut self) -> Result<(), Error> {
        let pids = self.pids();
        let owners = sockets::owners_of(pids.iter().copied());
        let found = listed(&pids)?;
        let all = !self.config.targets.names_processes();
        let mut ports = BTreeSet::new();
        for socket in &found {
            let owner = owners.get(&socket.inode).copied();
            let (ends, state) = (socket.listed.ends, socket.listed.state);
            if state == tcp_state::LISTEN
                && let Some(tgid) = owner
            {
                let listener = Listener {
                    net: ends.net,
                    port: u32::from(ends.local.port()),
                };
                ports.insert(listener);
                self.unfollowed += u64::from(!self.kernel.follow_listener(listener, tgid));
            }
        }
        for socket in &found {
            let owner = owners.get(&socket.inode).copied();
            let ends = socket.listed.ends;
            let is_over = matches!(
                socket.listed.state,
                tcp_state::LISTEN | tcp_state::TIME_WAIT | tcp_state::CLOSE | tcp_state::SYN_RECV
            );
            if is_over || (owner.is_none() && !all) {
                continue;
            }
            let listener = Listener {
                net: ends.net,
                port: u32::from(ends.local.port()),
            };
            let owner = Socket {
                tgid: owner.unwrap_or(0),
                role: if ports.contains(&listener) {
                    role::SERVER
                } else {
                    role::UNKNOWN
                },
            };
            self.unfollowed += u64::from(!self.kernel.follow_socket(socket.cookie, owner));
            self.connections.there_before(&socket.listed, owner);
        }
        Ok(())
    }

    /// Waits for the end.
    async fn watch(
        &mut self,
        mut command: Option<Running>,
    ) -> Result<(End, Option<Running>), Error> {
        let ring = RingWatch::begin(&self.ring)?;
        let mut ending = Ending::watch(self.config.duration.map(|time| self.started + time))?;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                end = ending.reached(command.as_ref()) => break end,
                ready = ring.readable() => {
                    ready?;
                    self.drain()?;
                }
                _ = poll.tick() => {
                    if !self.drain()? {
                        break End::Interrupted;
                    }
                    if self.config.targets.names_processes() && command.is_none() && targets::all_gone(&mut self.alive) {
                        break End::TargetsGone;
                    }
                }
            }
        };
        if end == End::Command
            && let Some(command) = &mut command
        {
            command.reap()?;
        }
        Ok((end, command))
    }

    /// Takes what is on the ring; not so where nobody reads the events any more.
    fn drain(&mut self) -> Result<bool, Error> {
        let Self {
            ring,
            connections,
            alive,
            started_ns,
            config,
            ..
        } = self;
        let mut lines = String::new();
        ring.drain(|record| match record {
            Record::Tcp(event) => {
                if let Some(connection) = connections.take(event)
                    && config.form == Form::Events
                {
                    lines.push_str(&table::event(event, connection, *started_ns));
                }
            }
            Record::Process(event) if event.kind == KIND_FORK => {
                alive.insert(event.tgid);
            }
            Record::Process(event) if event.kind == KIND_EXIT => {
                alive.remove(&event.tgid);
            }
            _ => {}
        });
        if lines.is_empty() {
            return Ok(true);
        }
        show(lines.as_bytes())
    }

    /// Ends the watch and writes it.
    fn finish(mut self) -> Result<(), Error> {
        let (duration, end_ns) = (self.started.elapsed(), finish::monotonic_ns());
        self.kernel.stop();
        self.drain()?;
        let pids = self.pids();
        for socket in listed(&pids)? {
            if !matches!(
                socket.listed.state,
                tcp_state::LISTEN | tcp_state::TIME_WAIT | tcp_state::CLOSE
            ) {
                self.connections.still_there(&socket.listed);
            }
        }
        self.connections.close(end_ns);
        let missed = self.kernel.missed_tcp();
        let mut account = Account::new(&self.kernel.counters()?, &self.connections, missed);
        if self.unfollowed > 0 {
            account.lost.insert(
                "connection there before not followed, table full",
                self.unfollowed,
            );
        }
        account.bpf = self.kernel.bpf_time();
        account.process = finish::process_cpu_time();
        let title = self.config.targets.title();
        let report = Report {
            title: &title,
            duration,
            end_ns,
            rows: self.config.rows,
            limit: self.config.limit,
            connections: &self.connections,
            account: &account,
        };
        let text = match self.config.form {
            Form::Table => table::render(&report),
            Form::Json => json::render(&report)?,
            Form::Csv => csv::render(&report),
            Form::Events => account
                .lines()
                .into_iter()
                .fold(String::new(), |text, line| text + "# " + &line + "\n"),
        };
        Ok(self.artifact.write(text.as_bytes())?)
    }
}

/// Every TCP socket in the namespaces of these processes.
fn listed(pids: &[u32]) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for (net, namespace) in sockets::namespaces_of(pids.iter().copied()) {
        found.extend(listed_in(net, &namespace)?);
    }
    Ok(found)
}

fn listed_in(net: u32, namespace: &File) -> Result<Vec<Found>, Error> {
    sockets::within(namespace, || sockets::tcp::sockets(net)).map_err(|source| Error::System {
        action: "list the TCP sockets of a network namespace",
        source,
    })
}
