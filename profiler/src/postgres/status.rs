//! What a backend says of itself to all others: `PgBackendStatus` of `src/include/utils/backend_status.h`, which
//! `pg_stat_activity` shows, and the class of what it waits for. Up to the fields that are read here the structure is the
//! same from Postgres 12 to 18. Pure.

/// Bytes of it that are read.
pub(super) const STATUS_BYTES: usize = 256;

/// Where the fields are.
const CHANGES: usize = 0;
const PID: usize = 4;
const TRANSACTION: usize = 24;
const ACTIVITY: usize = 32;
const STATE: usize = 40;
const APPLICATION: usize = 240;
const TEXT: usize = 248;
/// Where `st_query_id` is, from Postgres 14 on.
pub(super) const QUERY_ID: u64 = 424;

/// Microseconds from 1970 to 2000, where Postgres begins to count.
const EPOCH_US: i64 = 946_684_800_000_000;
/// Most texts are kept in so many bytes, the zero behind them included (`track_activity_query_size`): a longer one is cut.
pub(super) const ACTIVITY_BYTES: usize = 1024;

/// Part of it. Times are microseconds since 1970, of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Counts changes, and is odd while there is one.
    pub(super) changes: u32,
    /// When the transaction began, if there is one.
    pub(super) transaction_us: Option<i64>,
    /// When the last statement began.
    pub(super) activity_us: i64,
    /// When it began to wait for its client, or to work for it.
    pub(super) state_us: i64,
    /// Where the name is that its client gave itself, and the text of the last statement.
    pub(super) application: u64,
    pub(super) text: u64,
}

impl Status {
    /// Reads it; `None` if it is not that of a process with one of these numbers.
    pub(super) fn read(bytes: &[u8; STATUS_BYTES], pids: &[u32]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let long = |at: usize| {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let time = |at: usize| Some(long(at)?.cast_signed());
        let after_1970 = |us: i64| us.saturating_add(EPOCH_US);
        let changes = word(CHANGES)?;
        let is_its = pids.contains(&word(PID)?) && changes.is_multiple_of(2);
        is_its.then_some(())?;
        Some(Self {
            changes,
            transaction_us: Some(time(TRANSACTION)?)
                .filter(|us| *us != 0)
                .map(after_1970),
            activity_us: after_1970(time(ACTIVITY)?),
            state_us: after_1970(time(STATE)?),
            application: long(APPLICATION)?,
            text: long(TEXT)?,
        })
    }
}

/// What a backend waits for, by `my_wait_event_info`: the class that `pg_stat_activity` shows.
pub(super) fn wait_class(event: u32) -> Option<&'static str> {
    Some(match event >> 24 {
        0x01 => "LWLock",
        0x03 => "Lock",
        0x04 => "BufferPin",
        0x05 => "Activity",
        0x06 => "Client",
        0x07 => "Extension",
        0x08 => "IPC",
        0x09 => "Timeout",
        0x0a => "IO",
        0x0b => "InjectionPoint",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{ACTIVITY, EPOCH_US, PID, STATUS_BYTES, Status, TEXT, wait_class};

    /// Only the status of the process itself is believed, and not while it changes.
    #[test]
    fn statuses_are_their_own() {
        let mut bytes = [0; STATUS_BYTES];
        bytes[PID..PID + 4].copy_from_slice(&77_u32.to_le_bytes());
        bytes[ACTIVITY..ACTIVITY + 8].copy_from_slice(&5_i64.to_le_bytes());
        bytes[TEXT..TEXT + 8].copy_from_slice(&9_u64.to_le_bytes());
        let status = Status::read(&bytes, &[3, 77]).unwrap();
        assert_eq!((status.activity_us, status.text), (EPOCH_US + 5, 9));
        assert_eq!(status.transaction_us, None);
        assert_eq!(Status::read(&bytes, &[3]), None);
        bytes[0] = 1;
        assert_eq!(Status::read(&bytes, &[77]), None);
    }

    /// Classes are those of the server.
    #[test]
    fn waits_have_classes() {
        assert_eq!(wait_class(0x0300_0005), Some("Lock"));
        assert_eq!(wait_class(0), None);
    }
}
