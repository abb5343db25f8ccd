//! A watch that goes on for months, in windows. What is asked for on connections is what `profiler queries` tells; here
//! it is only begun, asked for windows, and begun anew when there is no room for further statements.

use std::{collections::BTreeSet, time::Duration};

use profiler_common::config::Settings;

use super::{Tls, session::POLL, watcher::Watcher};
use crate::{
    daemon::tables,
    error::Error,
    record::ring_watch::RingWatch,
    store::{Capability, Table},
};

/// A watch under way.
pub(crate) struct Keeper(Watcher);

impl tables::Keeper for Keeper {
    const CAPABILITY: Capability = Capability::Queries;
    const POLL: Duration = POLL;
    type How = Tls;

    fn begin(settings: &Settings, tls: Tls) -> Result<Self, Error> {
        let mut watcher = Watcher::load(settings, tls)?;
        watcher.attach(|_, _| Ok(()))?;
        Ok(Self(watcher))
    }

    fn watch_ring(&self) -> Result<RingWatch, Error> {
        self.0.watch_ring()
    }

    fn drain(&mut self) {
        self.0.drain();
    }

    fn poll(&mut self) {
        self.0.tick();
    }

    fn add_target(&mut self, pid: u32) -> Result<(), Error> {
        self.0.add_target(pid)
    }

    fn remove_target(&mut self, pid: u32) {
        self.0.remove_target(pid);
    }

    // Connections of those who stay are followed on, with what was prepared on them.
    fn targets(&self) -> Option<BTreeSet<u32>> {
        Some(self.0.targets())
    }

    fn is_worn(&self) -> bool {
        self.0.is_worn()
    }

    fn bpf_time(&self) -> Option<Duration> {
        self.0.bpf_time()
    }

    fn end(&mut self) {
        self.0.end();
    }

    fn take_window(
        &mut self,
        (title, duration): (String, Duration),
    ) -> Result<Box<dyn Table>, Error> {
        Ok(Box::new(self.0.take_window(title, duration)?))
    }
}
