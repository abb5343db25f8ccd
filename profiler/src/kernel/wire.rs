//! Taking what goes through sockets.

use std::{fs, io};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::TracePoint,
};
use profiler_common::{
    limits::{CALLERS_MAX, SOCKETS_MAX},
    wire::{WireInterest, WireSettings},
};

use super::{
    Kernel, KernelError,
    load::{failed, map, program},
    plain::plain,
    tracefs,
};

/// The program at entry and the calls that it is for.
const ENTER: &str = "wire_enter";
const SENDING: [&str; 4] = ["sendto", "write", "sendmsg", "writev"];
/// The program at return and the calls that it is for.
const EXIT: &str = "wire_exit";
const ALL: [&str; 8] = [
    "sendto", "recvfrom", "write", "read", "sendmsg", "recvmsg", "writev", "readv",
];

plain! {
    /// [`WireInterest`] as aya wants it.
    Interest(WireInterest);
}

/// What is wanted of sockets.
pub(super) struct Interests(HashMap<MapData, u64, Interest>);

impl Interests {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self(map(ebpf, "WIRE_INTERESTS", HashMap::try_from)?))
    }
}

/// Sizes of the maps: as small as can be where nothing is wanted of them.
pub(super) fn sizes(settings: &WireSettings) -> [(&'static str, u32); 5] {
    let size = |wanted: u32, size: usize| match wanted {
        0 => 1,
        _ => u32::try_from(size).unwrap_or(u32::MAX),
    };
    let (wanted, tls) = (settings.wanted, settings.tls);
    [
        ("WIRE_ENTRIES", size(wanted, CALLERS_MAX)),
        ("WIRE_SOCKETS", size(wanted, SOCKETS_MAX)),
        ("WIRE_INTERESTS", size(wanted, SOCKETS_MAX)),
        ("TLS_CALLS", size(tls, CALLERS_MAX)),
        ("TLS_STREAMS", size(tls, SOCKETS_MAX)),
    ]
}

/// Loads the programs if they are wanted.
pub(super) fn load(ebpf: &mut Ebpf, settings: &WireSettings) -> Result<(), KernelError> {
    if settings.wanted == 0 {
        return Ok(());
    }
    for name in [ENTER, EXIT] {
        let hook: &mut TracePoint = program(ebpf, name)?;
        hook.load().map_err(|source| failed("load", name, source))?;
    }
    Ok(())
}

/// Where the arguments of `sys_exit_*` tracepoints have the result: kernels for real-time work put more before it.
pub fn result_offset() -> Result<u32, KernelError> {
    let text = tracefs::with(|place| {
        fs::read_to_string(format!("{place}/events/syscalls/sys_exit_sendto/format"))
            .map_err(KernelError::NoTracefs)
    });
    let none = || KernelError::NoTracefs(io::Error::other("no result in sys_exit_sendto"));
    offset_of(&text?, "ret").ok_or_else(none)
}

/// The offset of a field in a `format` file: `field:long ret; offset:16; size:8; signed:1;`, with tabs
fn offset_of(format: &str, field: &str) -> Option<u32> {
    let line = format.lines().find(|line| {
        let declaration = line.trim().strip_prefix("field:");
        let declaration = declaration.and_then(|rest| rest.split(';').next());
        declaration.is_some_and(|text| text.ends_with(&format!(" {field}")))
    })?;
    let offset = line.split("offset:").nth(1)?.split(';').next()?;
    offset.trim().parse().ok()
}

impl Kernel {
    /// Begins to take traffic: what is received first, so that no answer is without its reader.
    pub fn attach_wire(&mut self) -> Result<(), KernelError> {
        tracefs::with(|_| self.attach_transfers())
    }

    fn attach_transfers(&mut self) -> Result<(), KernelError> {
        for (name, event, calls) in [(EXIT, "exit", &ALL[..]), (ENTER, "enter", &SENDING[..])] {
            for call in calls {
                self.attach_call(name, event, call)?;
            }
        }
        Ok(())
    }

    /// Attaches a program to the entry of a system call or to the return from it.
    pub(super) fn attach_call(
        &mut self,
        name: &'static str,
        event: &str,
        call: &str,
    ) -> Result<(), KernelError> {
        let hook: &mut TracePoint = program(&mut self.ebpf, name)?;
        let link = hook.attach("syscalls", &format!("sys_{event}_{call}"));
        let link = link.and_then(|id| hook.take_link(id));
        self.tracepoint_links
            .push(link.map_err(|source| failed("attach", name, source))?);
        Ok(())
    }

    /// Wants nothing more of a socket since a time until it was silent for so long, ns.
    pub fn ignore_socket(&mut self, (socket, inode): (u64, u64), since_ns: u64, quiet_ns: u64) {
        let interest = WireInterest {
            inode,
            quiet_ns,
            since_ns,
            ..WireInterest::default()
        };
        // Where that fails its traffic is taken, and left out here.
        let _ = self.interests.0.insert(socket, Interest(interest), 0);
    }

    /// Wants no bytes of a socket before these positions of what it sends and receives: only how many they are. `why` is one of
    /// `profiler_common::wire::passing`, since a time, ns.
    pub fn pass_over(
        &mut self,
        (socket, inode): (u64, u64),
        until: [Option<u64>; 2],
        (why, since_ns): (u64, u64),
    ) {
        let interest = WireInterest {
            inode,
            quiet_ns: 0,
            since_ns,
            is_passing: until.map(|until| until.map_or(0, |_| why)),
            passing: until.map(Option::unwrap_or_default),
        };
        // Where that fails they are taken.
        let _ = self.interests.0.insert(socket, Interest(interest), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::offset_of;

    /// The offset is the field's, not that of another whose name ends alike.
    #[test]
    fn offsets_are_read() {
        let format = "name: sys_exit_sendto\nformat:\n\tfield:int no_ret;\toffset:8;\tsize:4;\n\
                      \n\tfield:long ret;\toffset:24;\tsize:8;\tsigned:1;\n";
        assert_eq!(offset_of(format, "ret"), Some(24));
        assert_eq!(offset_of(format, "nr"), None);
    }
}
