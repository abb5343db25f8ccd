//! TCP connections: what the kernel side tells of them. Addresses are 16 bytes, those of IPv4 mapped into IPv6.

/// What the loader tells the programs of this capability: whom, and where this kernel keeps what they read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct TcpSettings {
    /// Nonzero where connections are followed at all.
    pub wanted: u32,
    /// Nonzero where those of every process are.
    pub all: u32,
    /// `sock_common.skc_family`
    pub family: u32,
    /// `sock_common.skc_rcv_saddr`
    pub local4: u32,
    /// `sock_common.skc_daddr`
    pub remote4: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub local6: u32,
    /// `sock_common.skc_v6_daddr`
    pub remote6: u32,
    /// `sock_common.skc_num`, in the processor's order
    pub local_port: u32,
    /// `inet_sock.inet_sport`, in the network's order, which stays when the port is given back
    pub source_port: u32,
    /// `sock_common.skc_dport`, in the network's order
    pub remote_port: u32,
    /// `sock_common.skc_net`
    pub net: u32,
    /// `net.ns.inum`
    pub net_inode: u32,
    /// `sock_common.skc_cookie`
    pub cookie: u32,
    /// `sock_common.skc_flags`
    pub flags: u32,
    /// `sock.sk_protocol`
    pub protocol: u32,
    /// `sock.sk_err`
    pub error: u32,
    /// `tcp_sock.bytes_sent`
    pub bytes_sent: u32,
    /// `tcp_sock.bytes_retrans`
    pub bytes_retrans: u32,
    /// `tcp_sock.bytes_received`
    pub bytes_received: u32,
    /// `tcp_sock.segs_out`
    pub segs_out: u32,
    /// `tcp_sock.segs_in`
    pub segs_in: u32,
    /// `tcp_sock.data_segs_out`
    pub data_segs_out: u32,
    /// `tcp_sock.data_segs_in`
    pub data_segs_in: u32,
    /// `tcp_sock.srtt_us`, in eighths
    pub srtt: u32,
    /// `tcp_sock.rtt_min`, its best sample
    pub min_rtt: u32,
    /// `tcp_sock.total_retrans`
    pub retransmits: u32,
}

const _: () = assert!(size_of::<TcpSettings>() == 104 && align_of::<TcpSettings>() == 4);

impl TcpSettings {
    /// What the object holds before the loader has written anything: nothing is wanted.
    pub const UNSET: Self = Self {
        wanted: 0,
        all: 0,
        family: 0,
        local4: 0,
        remote4: 0,
        local6: 0,
        remote6: 0,
        local_port: 0,
        source_port: 0,
        remote_port: 0,
        net: 0,
        net_inode: 0,
        cookie: 0,
        flags: 0,
        protocol: 0,
        error: 0,
        bytes_sent: 0,
        bytes_retrans: 0,
        bytes_received: 0,
        segs_out: 0,
        segs_in: 0,
        data_segs_out: 0,
        data_segs_in: 0,
        srtt: 0,
        min_rtt: 0,
        retransmits: 0,
    };
}

/// Which side of a connection its socket is.
pub mod role {
    /// Not known: it was open before.
    pub const UNKNOWN: u32 = 0;
    /// It connected.
    pub const CLIENT: u32 = 1;
    /// It was accepted, or waits to be.
    pub const SERVER: u32 = 2;
}

/// A socket that is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Socket {
    /// Whose: the process that connected or listened; 0 if not known.
    pub tgid: u32,
    /// One of [`role`].
    pub role: u32,
}

/// Where a process listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Listener {
    /// Inode number of the network namespace.
    pub net: u32,
    /// The port, in the processor's order.
    pub port: u32,
}

/// First field of a record on the ring: something happened to a followed connection.
pub const KIND_TCP: u32 = 11;

/// What happened.
pub mod what {
    /// The state changed, from `old` to `new`.
    pub const STATE: u32 = 0;
    /// A segment was sent again.
    pub const RETRANSMIT: u32 = 1;
    /// We sent a reset.
    pub const RESET_SENT: u32 = 2;
    /// The peer sent one.
    pub const RESET_RECEIVED: u32 = 3;
    /// A process took it from those that wait to be accepted, and is its owner from then on.
    pub const ACCEPTED: u32 = 4;
    /// So did one that is no target: the connection is none of a target.
    pub const TAKEN: u32 = 5;
}

/// States of a TCP socket (`include/net/tcp_states.h`), which are interface: `ss` and BPF programs rely on them.
pub mod tcp_state {
    /// Both sides may send.
    pub const ESTABLISHED: u8 = 1;
    /// The client waits for an answer.
    pub const SYN_SENT: u8 = 2;
    /// The server has answered.
    pub const SYN_RECV: u8 = 3;
    /// We have closed, our end is not confirmed.
    pub const FIN_WAIT1: u8 = 4;
    /// We have closed, the peer has not.
    pub const FIN_WAIT2: u8 = 5;
    /// Closed; late segments are waited for.
    pub const TIME_WAIT: u8 = 6;
    /// No connection, or none any more.
    pub const CLOSE: u8 = 7;
    /// The peer has closed, we have not.
    pub const CLOSE_WAIT: u8 = 8;
    /// The peer closed first, then we; our end is not confirmed.
    pub const LAST_ACK: u8 = 9;
    /// Waits for connections.
    pub const LISTEN: u8 = 10;
    /// Both closed at once.
    pub const CLOSING: u8 = 11;
}

/// What the kernel counts of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Figures {
    /// Bytes sent, those sent again each time.
    pub bytes_sent: u64,
    /// Of those, again.
    pub bytes_retransmitted: u64,
    /// Bytes received in order; the peer's end counts as one.
    pub bytes_received: u64,
    /// Segments sent.
    pub segments_out: u32,
    /// Segments received.
    pub segments_in: u32,
    /// Of those sent, with data.
    pub data_segments_out: u32,
    /// Of those received, with data.
    pub data_segments_in: u32,
    /// Smoothed round trip time, µs; 0 if not measured.
    pub rtt_us: u32,
    /// The least round trip time of the last minutes, µs; `u32::MAX` if not measured.
    pub min_rtt_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Nonzero once the peer's end was received.
    pub peer_ended: u32,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct TcpEvent {
    /// [`KIND_TCP`].
    pub kind: u32,
    /// One of [`what`].
    pub what: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// Address of the socket: who it is while it lives.
    pub socket: u64,
    /// Its owner.
    pub owner: Socket,
    /// Inode number of its network namespace.
    pub net: u32,
    /// Error that it has for its owner, 0 if none.
    pub error: u32,
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Local port.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// State before.
    pub old: u8,
    /// State after.
    pub new: u8,
    /// Explicit padding, zero.
    pub padding: u16,
    /// Its figures now.
    pub figures: Figures,
}

const _: () = assert!(size_of::<TcpEvent>() == 136 && align_of::<TcpEvent>() == 8);
