//! Attaching to functions of TLS libraries: where they are and how they pass bytes is found elsewhere.

use std::path::Path;

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use profiler_common::{tls::Passing, wire::WireSettings};

use super::{
    Kernel, KernelError,
    load::{failed, program},
};

/// The programs: at a function's entry, at its returns, and where a connection is freed.
const ENTER: &str = "tls_enter";
const RETURN: &str = "tls_return";
const FREE: &str = "tls_free";

/// Loads the programs if they are wanted.
pub(super) fn load(ebpf: &mut Ebpf, settings: &WireSettings) -> Result<(), KernelError> {
    if settings.tls == 0 {
        return Ok(());
    }
    for name in [ENTER, RETURN, FREE] {
        let probe: &mut UProbe = program(ebpf, name)?;
        probe
            .load()
            .map_err(|source| failed("load", name, source))?;
    }
    Ok(())
}

impl Kernel {
    /// Begins to take what passes through a function of a file, of whatever process: its entry and its returns are
    /// offsets in the file. The returns come first, so that no call is noted whose return is not seen.
    pub fn attach_passing(
        &mut self,
        file: &Path,
        passing: Passing,
        entry: u64,
        returns: &[u64],
    ) -> Result<(), KernelError> {
        let mut links = Vec::new();
        for &offset in returns {
            links.push(self.probe(RETURN, file, offset, None)?);
        }
        links.push(self.probe(ENTER, file, entry, Some(passing.cookie()))?);
        self.tls_links.append(&mut links);
        Ok(())
    }

    /// Begins to see where connections are freed.
    pub fn attach_free(&mut self, file: &Path, entry: u64) -> Result<(), KernelError> {
        let link = self.probe(FREE, file, entry, None)?;
        self.tls_links.push(link);
        Ok(())
    }

    fn probe(
        &mut self,
        name: &'static str,
        file: &Path,
        offset: u64,
        cookie: Option<u64>,
    ) -> Result<UProbeLink, KernelError> {
        let probe: &mut UProbe = program(&mut self.ebpf, name)?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie,
        };
        probe
            .attach(point, file, UProbeScope::AllProcesses)
            .and_then(|id| probe.take_link(id))
            .map_err(|source| failed("attach", name, source))
    }
}
