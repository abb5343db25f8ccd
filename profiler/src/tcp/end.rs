//! How a connection ended, and what its state is called. Pure.

use profiler_common::tcp::tcp_state;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// Both sides closed, we first.
    ClosedByUs,
    /// Both sides closed, the peer first.
    ClosedByPeer,
    /// Closed; who began was before the recording.
    Closed,
    /// The peer sent a reset.
    ResetByPeer,
    /// We sent a reset.
    ResetByUs,
    /// The peer refused it.
    Refused,
    /// It was not answered, or no longer.
    TimedOut,
    /// The network refused it, with this error.
    Failed(u32),
    /// We gave it up before it was established.
    GivenUp,
    /// It is not there any more, and its end was not told.
    Unseen,
}

impl End {
    /// In words.
    pub(super) fn text(self) -> String {
        match self {
            Self::ClosedByUs => "closed by us".to_owned(),
            Self::ClosedByPeer => "closed by peer".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::ResetByPeer => "reset by peer".to_owned(),
            Self::ResetByUs => "reset by us".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::TimedOut => "timed out".to_owned(),
            Self::Failed(error) => {
                let name = i32::try_from(error)
                    .ok()
                    .and_then(|error| syscalls::Errno::new(error).name());
                format!("failed: {}", name.unwrap_or("unknown error"))
            }
            Self::GivenUp => "given up".to_owned(),
            Self::Unseen => "gone, end not seen".to_owned(),
        }
    }
}

/// A state in words; half-closed ones say who has closed.
pub(super) fn state_text(state: u8) -> &'static str {
    match state {
        tcp_state::ESTABLISHED => "established",
        tcp_state::SYN_SENT => "connecting",
        tcp_state::SYN_RECV => "being accepted",
        tcp_state::FIN_WAIT1 | tcp_state::FIN_WAIT2 => "half-closed by us",
        tcp_state::CLOSE_WAIT => "half-closed by peer",
        tcp_state::TIME_WAIT => "closed, waiting",
        tcp_state::LAST_ACK | tcp_state::CLOSING => "closing",
        _ => "closed",
    }
}
