//! A small reader of the kernel's own type information, for the offsets of structure members.
//!
//! The format is that of Documentation/bpf/btf.rst. aya keeps the members of a structure to itself
//! and Rust has no CO-RE relocations, so the loader reads the offsets here and hands them to the
//! programs. Only structures and unions are understood, the rest is stepped over.

use std::{fs, io};

use profiler_common::{
    config::KernelOffsets, syscalls::CallSettings, tcp::TcpSettings, wire::WireSettings,
};

/// Where the running kernel keeps it.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
/// Anonymous members within anonymous members; the kernel's deepest is 3.
const NESTING_MAX: u32 = 16;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Why an offset could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel has no type information.
    #[error("cannot read {VMLINUX}: {0}")]
    Unreadable(#[source] io::Error),
    /// The bytes are not BTF, or end in the middle.
    #[error("{VMLINUX} is not BTF that this program understands: {0}")]
    Malformed(&'static str),
    /// No such structure.
    #[error("this kernel has no `struct {0}`")]
    NoStruct(String),
    /// No such member.
    #[error("`struct {structure}` of this kernel has no member `{member}`")]
    NoMember {
        /// Of which structure.
        structure: String,
        /// Which member.
        member: String,
    },
}

impl BtfError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreadable(_) => {
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are, and /sys be mounted"
            }
            Self::Malformed(_) => return None,
            Self::NoStruct(_) | Self::NoMember { .. } => {
                "this kernel is not supported yet; please report its version"
            }
        };
        Some(hint.to_owned())
    }
}

/// Parsed type information: where each type begins.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset of each type in `types`; type ids begin at 1.
    starts: Vec<usize>,
}

/// One type: its fixed part.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    vlen: u32,
    /// Member offsets of bit fields carry a size in their upper byte.
    kind_flag: bool,
    /// Where the part that depends on the kind begins.
    body: usize,
}

impl<'a> Btf<'a> {
    /// Finds every type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let word = |at| u32_at(bytes, at).ok_or(BtfError::Malformed("too short"));
        let magic = bytes.get(..2).ok_or(BtfError::Malformed("too short"))?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let header = (word(4)? as usize).max(HEADER_BYTES);
        let section = |offset: u32, length: u32| {
            let start = header.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let types =
            section(word(8)?, word(12)?).ok_or(BtfError::Malformed("types beyond the end"))?;
        let strings =
            section(word(16)?, word(20)?).ok_or(BtfError::Malformed("strings beyond the end"))?;
        let mut btf = Self {
            types,
            strings,
            starts: Vec::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let (_, next) = btf
                .read(at)
                .ok_or(BtfError::Malformed("type of unknown kind or cut short"))?;
            btf.starts.push(at);
            at = next;
        }
        Ok(btf)
    }

    /// Byte offset of a member, looked for inside anonymous members too.
    pub fn member_offset(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        self.member_bits(structure, member).map(|bits| bits / 8)
    }

    /// Likewise in bits, for a bit field: which bit of which byte, on a little-endian processor.
    pub fn member_bits(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        let types = self
            .starts
            .iter()
            .filter_map(|&start| Some(self.read(start)?.0));
        let mut named = types.filter(|t| {
            t.kind == KIND_STRUCT && t.vlen > 0 && self.name(t.name) == Some(structure.as_bytes())
        });
        let found = named
            .next()
            .ok_or_else(|| BtfError::NoStruct(structure.to_owned()))?;
        let bits = self.bit_offset(found, member.as_bytes(), NESTING_MAX);
        bits.ok_or_else(|| BtfError::NoMember {
            structure: structure.to_owned(),
            member: member.to_owned(),
        })
    }

    fn bit_offset(&self, t: Type, member: &[u8], nesting: u32) -> Option<u32> {
        for index in 0..t.vlen as usize {
            let at = t.body + index * 12;
            let name = self.name(self.word(at)?)?;
            let offset = self.word(at + 8)?;
            let offset = if t.kind_flag {
                offset & 0x00ff_ffff
            } else {
                offset
            };
            if name == member {
                return Some(offset);
            }
            if name.is_empty() && nesting > 0 {
                let inner = self.type_by_id(self.word(at + 4)?)?;
                let is_aggregate = matches!(inner.kind, KIND_STRUCT | KIND_UNION);
                if is_aggregate && let Some(inside) = self.bit_offset(inner, member, nesting - 1) {
                    return offset.checked_add(inside);
                }
            }
        }
        None
    }

    /// Number of parameters of the function that a type definition points to.
    fn parameters(&self, typedef: &str) -> Option<u32> {
        let of = |t: Type| self.type_by_id(self.word(t.body - 4)?);
        let found = self
            .starts
            .iter()
            .filter_map(|&start| Some(self.read(start)?.0))
            .find(|t| t.kind == KIND_TYPEDEF && self.name(t.name) == Some(typedef.as_bytes()))?;
        let function = of(of(found)?)?;
        (function.kind == KIND_FUNC_PROTO).then_some(function.vlen)
    }

    fn type_by_id(&self, id: u32) -> Option<Type> {
        let start = *self.starts.get((id as usize).checked_sub(1)?)?;
        Some(self.read(start)?.0)
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.strings.get(offset as usize..)?;
        rest.split(|&byte| byte == 0).next()
    }

    fn word(&self, at: usize) -> Option<u32> {
        u32_at(self.types, at)
    }

    /// The type at an offset, and where the next one begins.
    fn read(&self, at: usize) -> Option<(Type, usize)> {
        let info = self.word(at + 4)?;
        let (kind, vlen) = ((info >> 24) & 0x1f, info & 0xffff);
        let body = at + 12;
        let t = Type {
            name: self.word(at)?,
            kind,
            vlen,
            kind_flag: info >> 31 == 1,
            body,
        };
        let vlen = vlen as usize;
        let tail = match kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => vlen * 12,
            KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
            // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        let next = body + tail;
        (next <= self.types.len()).then_some((t, next))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

/// Whether the tracepoint `sched_switch` of the running kernel tells the state of the task that leaves:
/// its function has it as a fourth argument, after the one that every tracepoint's has.
pub fn switch_tells_state() -> Result<bool, BtfError> {
    let bytes = fs::read(VMLINUX).map_err(BtfError::Unreadable)?;
    Ok(Btf::parse(&bytes)?.parameters("btf_trace_sched_switch") == Some(5))
}

/// The offsets that the programs need, of the running kernel.
pub fn kernel_offsets() -> Result<KernelOffsets, BtfError> {
    let bytes = fs::read(VMLINUX).map_err(BtfError::Unreadable)?;
    offsets_in(&Btf::parse(&bytes)?)
}

/// Of x86-64; 0 elsewhere.
fn thread_pointer(btf: &Btf<'_>) -> u32 {
    let thread = btf.member_offset("task_struct", "thread");
    let base = btf.member_offset("thread_struct", "fsbase");
    thread
        .ok()
        .zip(base.ok())
        .map_or(0, |(thread, base)| thread + base)
}

/// What the programs that follow TCP connections need to know of the running kernel; nothing is wanted of them yet.
pub fn tcp_offsets() -> Result<TcpSettings, BtfError> {
    let bytes = fs::read(VMLINUX).map_err(BtfError::Unreadable)?;
    let btf = Btf::parse(&bytes)?;
    let common = |member| btf.member_offset("sock_common", member);
    let tcp = |member| btf.member_offset("tcp_sock", member);
    let net_ns = btf.member_offset("net", "ns")?;
    Ok(TcpSettings {
        family: common("skc_family")?,
        local4: common("skc_rcv_saddr")?,
        remote4: common("skc_daddr")?,
        local6: common("skc_v6_rcv_saddr")?,
        remote6: common("skc_v6_daddr")?,
        local_port: common("skc_num")?,
        source_port: btf.member_offset("inet_sock", "inet_sport")?,
        remote_port: common("skc_dport")?,
        net: common("skc_net")?,
        net_inode: net_ns + btf.member_offset("ns_common", "inum")?,
        cookie: common("skc_cookie")?,
        flags: common("skc_flags")?,
        protocol: btf.member_offset("sock", "sk_protocol")?,
        error: btf.member_offset("sock", "sk_err")?,
        bytes_sent: tcp("bytes_sent")?,
        bytes_retrans: tcp("bytes_retrans")?,
        bytes_received: tcp("bytes_received")?,
        segs_out: tcp("segs_out")?,
        segs_in: tcp("segs_in")?,
        data_segs_out: tcp("data_segs_out")?,
        data_segs_in: tcp("data_segs_in")?,
        srtt: tcp("srtt_us")?,
        // The best of the samples, a time and a value, is the first.
        min_rtt: tcp("rtt_min")? + btf.member_offset("minmax_sample", "v")?,
        retransmits: tcp("total_retrans")?,
        ..TcpSettings::UNSET
    })
}

/// What the programs that follow system calls need to know of the running kernel; nothing is wanted of them yet.
pub fn call_offsets() -> Result<CallSettings, BtfError> {
    /// `TS_COMPAT` of `arch/x86/include/asm/thread_info.h`: a word of its own there, and set for each call; and
    /// `TIF_32BIT` of `arch/arm64/include/asm/thread_info.h`.
    #[cfg(target_arch = "x86_64")]
    const COMPAT: (&str, u32) = ("status", 2);
    #[cfg(not(target_arch = "x86_64"))]
    const COMPAT: (&str, u32) = ("flags", 1 << 22);
    let bytes = fs::read(VMLINUX).map_err(BtfError::Unreadable)?;
    let btf = Btf::parse(&bytes)?;
    let (compat, compat_mask) = COMPAT;
    let thread_info = btf.member_offset("task_struct", "thread_info")?;
    Ok(CallSettings {
        task_compat: thread_info + btf.member_offset("thread_info", compat)?,
        compat_mask,
        task_files: btf.member_offset("task_struct", "files")?,
        files_fdt: btf.member_offset("files_struct", "fdt")?,
        fdt_max: btf.member_offset("fdtable", "max_fds")?,
        fdt_fd: btf.member_offset("fdtable", "fd")?,
        file_inode: btf.member_offset("file", "f_inode")?,
        inode_number: btf.member_offset("inode", "i_ino")?,
        inode_mode: btf.member_offset("inode", "i_mode")?,
        ..CallSettings::UNSET
    })
}

/// What the programs that take traffic need to know of the running kernel beside what those of system calls and
/// connections do; nothing is wanted of them yet.
pub fn wire_offsets() -> Result<WireSettings, BtfError> {
    let bytes = fs::read(VMLINUX).map_err(BtfError::Unreadable)?;
    let btf = Btf::parse(&bytes)?;
    Ok(WireSettings {
        file_private: btf.member_offset("file", "private_data")?,
        socket_sk: btf.member_offset("socket", "sk")?,
        write_seq: btf.member_offset("tcp_sock", "write_seq")?,
        copied_seq: btf.member_offset("tcp_sock", "copied_seq")?,
        rcv_nxt: btf.member_offset("tcp_sock", "rcv_nxt")?,
        ..WireSettings::UNSET
    })
}

fn offsets_in(btf: &Btf<'_>) -> Result<KernelOffsets, BtfError> {
    let task = |member| btf.member_offset("task_struct", member);
    let probed = |structure, member| btf.member_offset(structure, member).unwrap_or(0);
    let returned = |member| probed("return_instance", member);
    Ok(KernelOffsets {
        task_flags: task("flags")?,
        task_mm: task("mm")?,
        task_tgid: task("tgid")?,
        task_group_leader: task("group_leader")?,
        task_comm: task("comm")?,
        task_signal: task("signal")?,
        signal_live: btf.member_offset("signal_struct", "live")?,
        task_in_execve: btf.member_bits("task_struct", "in_execve")?,
        task_in_iowait: btf.member_bits("task_struct", "in_iowait")?,
        task_frozen: btf.member_bits("task_struct", "frozen").unwrap_or(0),
        // Before 5.14 it was called `state`.
        task_state: task("__state").or_else(|_| task("state"))?,
        task_pid: task("pid")?,
        task_thread_pointer: thread_pointer(btf),
        task_ran: task("se")? + btf.member_offset("sched_entity", "sum_exec_runtime")?,
        task_probed: probed("task_struct", "utask"),
        probed_returns: probed("uprobe_task", "return_instances"),
        return_stack: returned("stack"),
        return_address: returned("orig_ret_vaddr"),
        return_next: returned("next"),
        padding: 0,
    })
}
