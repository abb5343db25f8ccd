//! A watch that goes on for months, in windows: connections that have ended make room, the others are listed with what
//! they have carried.

use std::{collections::BTreeMap, mem, time::Duration};

use profiler_common::config::{Settings, target};

use super::{
    account::{Counts, UNFOLLOWED, UNLISTED},
    watcher::Watcher,
    window::{Groups, Window},
};
use crate::{
    daemon::tables,
    error::Error,
    record::{
        finish::{self, monotonic_ns},
        ring_watch::RingWatch,
    },
    store::{Capability, Identity, Link, Table},
};

/// A connection that has ended is kept for so long: a reset that it ended with is told after its end.
const SETTLE_NS: u64 = 100_000_000;

/// A watch under way.
pub(crate) struct Keeper {
    watcher: Watcher,
    groups: Groups,
    /// Who processes are that have connections.
    known: BTreeMap<u32, Identity>,
    before: Counts,
    process: Duration,
    bpf: Option<Duration>,
    link: Link,
    has_ended: bool,
}

impl tables::Keeper for Keeper {
    const CAPABILITY: Capability = Capability::Tcp;
    const POLL: Duration = Duration::from_millis(20);
    type How = ();

    fn begin(settings: &Settings, (): ()) -> Result<Self, Error> {
        let mut watcher = Watcher::load(settings, false)?;
        watcher.kernel.attach_lifecycle()?;
        watcher.kernel.attach_tcp()?;
        Ok(Self {
            watcher,
            groups: Groups::default(),
            known: BTreeMap::new(),
            before: Counts::default(),
            process: finish::process_cpu_time(),
            bpf: None,
            link: Link::begin(),
            has_ended: false,
        })
    }

    fn watch_ring(&self) -> Result<RingWatch, Error> {
        self.watcher.watch_ring()
    }

    fn drain(&mut self) {
        let Self { watcher, known, .. } = self;
        watcher.drain(|_, connection| {
            let who = || tables::identity(connection.pid);
            known.entry(connection.pid).or_insert_with(who);
        });
    }

    fn look(&mut self) {
        self.drain();
        self.settle(monotonic_ns().saturating_sub(SETTLE_NS));
        self.watcher.forget_listeners();
    }

    fn add_target(&mut self, pid: u32) -> Result<(), Error> {
        self.watcher.kernel.add_target(pid, target::FOLLOW)?;
        self.watcher.alive.insert(pid);
        Ok(())
    }

    fn added(&mut self, pids: &[u32]) {
        // What has happened to their sockets until now is told before they are listed.
        self.drain();
        self.watcher.list_open(pids);
    }

    // Its connections are followed to their end.
    fn remove_target(&mut self, pid: u32) {
        self.watcher.kernel.remove_target(pid);
        self.watcher.alive.remove(&pid);
    }

    fn bpf_time(&self) -> Option<Duration> {
        self.watcher.bpf_time()
    }

    fn end(&mut self) {
        self.watcher.kernel.stop();
        self.drain();
        self.has_ended = true;
    }

    fn take_window(&mut self, what: (String, Duration)) -> Result<Box<dyn Table>, Error> {
        let counters = self.watcher.kernel.counters()?;
        self.drain();
        let listed = self.watcher.list_again(&self.watcher.pids());
        self.drain();
        let now_ns = monotonic_ns();
        let is_listed = |net| listed.contains(&net);
        self.watcher.connections.miss(is_listed, now_ns);
        self.settle(if self.has_ended {
            u64::MAX
        } else {
            now_ns.saturating_sub(SETTLE_NS)
        });
        let groups = &mut self.groups;
        self.watcher.connections.roll(|one| groups.add(one));
        let counts = Counts::new(&counters, &self.watcher.connections);
        let before = mem::replace(&mut self.before, counts);
        let mut account = counts.since(before).account();
        account.lose(UNFOLLOWED, mem::take(&mut self.watcher.unfollowed));
        account.note(UNLISTED, mem::take(&mut self.watcher.unlisted));
        let bpf = self.watcher.bpf_time();
        let bpf_before = mem::replace(&mut self.bpf, bpf);
        account.bpf = bpf.map(|bpf| bpf.saturating_sub(bpf_before.unwrap_or_default()));
        let process = finish::process_cpu_time();
        account.process = process.saturating_sub(mem::replace(&mut self.process, process));
        let groups = mem::take(&mut self.groups);
        // A process may have another name by now; one without connections needs none.
        self.known = tables::identities_of(groups.pids(), &self.known);
        let link = self.link;
        self.link = link.next();
        let window = Window::new(what, link, groups, &self.known, account);
        Ok(Box::new(window))
    }
}

impl Keeper {
    /// Takes those out that ended before that time.
    fn settle(&mut self, before_ns: u64) {
        let Self {
            watcher, groups, ..
        } = self;
        let Watcher {
            connections,
            kernel,
            ..
        } = watcher;
        connections.settle(before_ns, |one| {
            groups.add(one);
            if one.cookie != 0 {
                kernel.forget_socket(one.cookie);
            }
        });
    }
}
