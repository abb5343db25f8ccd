//! What user space wants of the traffic of a socket.

use profiler_common::wire::{SENT, WireHeader, WireInterest, family, passing};

use crate::maps::{WIRE_INTERESTS, WireSocket};

/// Notes when the other end had its turn.
#[inline(always)]
pub(crate) fn note(direction: u8, now_ns: u64, socket: &mut WireSocket) {
    let direction = u64::from(direction);
    if direction != socket.direction {
        socket.direction = direction;
        socket.turned_ns = now_ns;
    }
}

/// Whether a socket is ignored. It no longer is once it was silent for long enough: what comes then is the beginning of
/// something.
#[inline(always)]
pub(crate) fn is_ignored(
    interest: Option<&WireInterest>,
    socket: &mut WireSocket,
    now_ns: u64,
) -> bool {
    let silent_ns = now_ns.saturating_sub(socket.seen_ns);
    socket.seen_ns = now_ns;
    let Some(interest) = interest else {
        return false;
    };
    if interest.quiet_ns == 0 || socket.woken_ns > interest.since_ns {
        return false;
    }
    if silent_ns < interest.quiet_ns {
        return true;
    }
    socket.woken_ns = now_ns;
    false
}

/// Whether all bytes of a call are within a long message of no interest.
#[inline(always)]
pub(crate) fn is_passed(interest: &WireInterest, header: &WireHeader, turned_ns: u64) -> bool {
    let (is_passing, until) = if header.direction == SENT {
        (interest.is_passing[0], interest.passing[0])
    } else {
        (interest.is_passing[1], interest.passing[1])
    };
    let end = header.position.wrapping_add(header.length);
    let left = if header.family == family::UNIX {
        until.wrapping_sub(end) as i64
    } else {
        i64::from((until as u32).wrapping_sub(end as u32) as i32)
    };
    let is_over = is_passing == passing::ONE_WAY && turned_ns > interest.since_ns;
    is_passing != 0 && left >= 0 && !is_over
}

/// Whether user space wants what goes through a connection of a TLS library.
#[inline(always)]
pub(crate) fn is_wanted(number: u64, connection: u64) -> bool {
    !interest(number, connection).is_some_and(|interest| interest.quiet_ns != 0)
}

/// What user space wants of a socket, or of a connection of a TLS library: both as in [`WireHeader`].
#[inline(always)]
pub(crate) fn interest(socket: u64, inode: u64) -> Option<&'static WireInterest> {
    // SAFETY: words that are written by user space only; one that is old is as good.
    let interest = unsafe { WIRE_INTERESTS.get(socket) };
    interest.filter(|interest| interest.inode == inode)
}
