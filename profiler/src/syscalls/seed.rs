//! The calls that threads are in when the recording begins, as /proc tells them, and names of threads.

use profiler_common::syscalls::{Call, state};

use crate::foreign::proc_facts;

/// What a thread is in, if it waits in a call.
pub(super) fn call(pid: u32, tid: u32, now_ns: u64) -> Option<Call> {
    let text = proc_facts(pid, &format!("task/{tid}/syscall"))?;
    Some(Call {
        tgid: pid,
        state: state::INSIDE_BEFORE,
        number: number(&text)?,
        descriptor: -1,
        since_ns: now_ns,
        ..Call::default()
    })
}

/// Whether a thread that was in a call at the beginning is not in that any more, without the return having been
/// seen: it happened while it was noted.
pub(super) fn has_returned(tid: u32, noted: &Call) -> bool {
    if noted.state != state::INSIDE_BEFORE {
        return false;
    }
    let text = proc_facts(noted.tgid, &format!("task/{tid}/syscall"));
    text.is_some_and(|text| number(&text) != Some(noted.number) && text.trim_end() != "running")
}

/// Of `NUMBER ARG0 … ARG5 SP PC`; a thread that runs is `running`, one that waits elsewhere `-1 SP PC`.
fn number(text: &str) -> Option<u32> {
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    (words.count() == 8).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::number;

    /// Only a thread that waits in a call has a number.
    #[test]
    fn only_calls_have_numbers() {
        assert_eq!(number("7 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc 0x7f21\n"), Some(7));
        assert_eq!(number("-1 0x7ffc 0x7f21\n"), None);
        assert_eq!(number("running\n"), None);
    }
}
