//! What processes send and receive through their sockets: the record of one system call, or call of a TLS library, with
//! the bytes that it carried, and the settings of the programs that take it.

/// What the loader tells the programs of this capability. What else they read of the kernel is at the offsets of
/// [`CallSettings`](crate::syscalls::CallSettings) (files) and [`TcpSettings`](crate::tcp::TcpSettings) (addresses).
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
pub struct WireSettings {
    /// Nonzero where traffic is taken at all.
    pub wanted: u32,
    /// Where the arguments of `sys_exit_*` tracepoints have the result.
    pub result: u32,
    /// `file.private_data`
    pub file_private: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `tcp_sock.write_seq`
    pub write_seq: u32,
    /// `tcp_sock.copied_seq`
    pub copied_seq: u32,
    /// `tcp_sock.rcv_nxt`
    pub rcv_nxt: u32,
    /// Nonzero where what goes through TLS libraries may be taken too.
    pub tls: u32,
}

const _: () = assert!(size_of::<WireSettings>() == 32 && align_of::<WireSettings>() == 4);

impl WireSettings {
    /// What the object holds before the loader has written anything: nothing is wanted.
    pub const UNSET: Self = Self {
        wanted: 0,
        result: 0,
        file_private: 0,
        socket_sk: 0,
        write_seq: 0,
        copied_seq: 0,
        rcv_nxt: 0,
        tls: 0,
    };
}

/// Most bytes of one call that are copied whole: libpq reads 16 KiB at once, a backend writes 8 KiB.
pub const WHOLE_BYTES: usize = 16 << 10;
/// Of a longer call the first and the last bytes: queries begin and answers end there.
pub const HEAD_BYTES: usize = 8 << 10;
/// See [`HEAD_BYTES`].
pub const TAIL_BYTES: usize = 1 << 10;
/// While user space lags behind, of each call that is longer than [`CROWDED_MIN`] so many of the first and of the last
/// bytes: a row of 100 MB is one message, of which nothing but its length matters.
pub const CROWDED_BYTES: usize = 256;
/// See [`CROWDED_BYTES`].
pub const CROWDED_MIN: usize = 4096;
/// A longer one of one buffer is copied in so many pieces of [`WHOLE_BYTES`] before that: a client that pipelines requests
/// sends a MiB at once, and takes as much of what they gave.
pub const PIECES_MAX: u32 = 128;
/// Of a call that passes several buffers, bytes that are copied at most, and buffers that are looked at.
pub const VECTOR_BYTES: usize = 8 << 10;
/// See [`VECTOR_BYTES`].
pub const VECTORS_MAX: usize = 16;

/// The process gave bytes to the kernel.
pub const SENT: u8 = 0;
/// The process took bytes from the kernel.
pub const RECEIVED: u8 = 1;

/// Where bytes were seen.
pub mod source {
    /// At system calls.
    pub const SOCKET: u8 = 0;
    /// At functions of a TLS library, before they are encrypted or after they are decrypted.
    pub const TLS: u8 = 1;
}

/// Address families, of `include/linux/socket.h`.
pub mod family {
    /// `AF_UNIX`
    pub const UNIX: u8 = 1;
    /// `AF_INET`
    pub const INET: u8 = 2;
    /// `AF_INET6`
    pub const INET6: u8 = 10;
}

/// Why bytes are of no interest.
pub mod passing {
    /// They are within a long message.
    pub const MESSAGE: u64 = 1;
    /// They all go one way; once something goes the other way, all is of interest again.
    pub const ONE_WAY: u64 = 2;
}

/// What user space wants of the traffic of a socket, by the address of its inode, or of a connection of a TLS library, by
/// its number ([`WireHeader::socket`]).
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
pub struct WireInterest {
    /// Inode number, which tells the socket from another one at the same address; see [`WireHeader::inode`].
    pub inode: u64,
    /// Nonzero where the socket is ignored until it was silent for so long, ns.
    pub quiet_ns: u64,
    /// Since when, `CLOCK_MONOTONIC` ns.
    pub since_ns: u64,
    /// Nonzero where what is sent and received is of no interest for now: one of [`passing`].
    pub is_passing: [u64; 2],
    /// Where that ends: a position as in [`WireHeader::position`].
    pub passing: [u64; 2],
}

const _: () = assert!(size_of::<WireInterest>() == 56 && align_of::<WireInterest>() == 8);

/// First field of a record on the ring: a call that carried bytes, which follow.
pub const KIND_WIRE: u32 = 12;

/// One call.
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
pub struct WireHeader {
    /// [`KIND_WIRE`].
    pub kind: u32,
    /// Bytes of its beginning that follow.
    pub head: u32,
    /// Bytes of its end that follow those.
    pub tail: u32,
    /// [`SENT`] or [`RECEIVED`].
    pub direction: u8,
    /// One of [`family`]; of TLS that of the socket beneath, 0 if it is not known.
    pub family: u8,
    /// One of [`source`].
    pub source: u8,
    /// Explicit padding, zero.
    pub padding: u8,
    /// Bytes that it carried; 0 where no more will come.
    pub length: u64,
    /// When it was entered, `CLOCK_MONOTONIC` ns; 0 if not known. Only of those that send.
    pub entry_ns: u64,
    /// When it returned.
    pub exit_ns: u64,
    /// Address of the socket's inode: with the inode number, who it is. Of TLS a number that is given once.
    pub socket: u64,
    /// Inode number, as `/proc/PID/fd` has it. Of TLS the address of the library's connection.
    pub inode: u64,
    /// Of TLS the inode number of the socket beneath; 0 if it is not known.
    pub carrier: u64,
    /// Of the first byte: of TCP its sequence number, 32 bits that wrap; else a count of the bytes seen before.
    pub position: u64,
    /// Process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Local address, one of IPv4 mapped into IPv6; zeros of a unix socket.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Local port.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// Explicit padding, zero.
    pub padding2: u32,
}

/// Bytes of a record before those that the call carried.
pub const WIRE_HEADER_BYTES: usize = size_of::<WireHeader>();

const _: () = assert!(WIRE_HEADER_BYTES == 120 && align_of::<WireHeader>() == 8);
const _: () = assert!(HEAD_BYTES + TAIL_BYTES <= WHOLE_BYTES && 2 * VECTOR_BYTES <= WHOLE_BYTES);

/// A record: its header and the bytes.
#[cfg(feature = "user")]
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a> {
    /// What is known of the call.
    pub header: &'a WireHeader,
    /// The first bytes that it carried.
    pub head: &'a [u8],
    /// The last ones, if `head` is not all of them.
    pub tail: &'a [u8],
}

#[cfg(feature = "user")]
impl<'a> Wire<'a> {
    /// Reads a record; `None` if it contradicts itself.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = <WireHeader as zerocopy::FromBytes>::ref_from_prefix(bytes).ok()?;
        let (head, rest) = rest.split_at_checked(usize::try_from(header.head).ok()?)?;
        let tail = rest.get(..usize::try_from(header.tail).ok()?)?;
        let copied = u64::try_from(head.len() + tail.len()).ok()?;
        (copied <= header.length).then_some(Self { header, head, tail })
    }
}
