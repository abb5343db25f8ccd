//! Time off the CPU: threads that are there when a recording begins, spans as they end, and what is
//! still open when it does.

use std::time::Duration;

use profiler_common::{
    config::Settings,
    limits::{COMM_LEN, PYTHON_FRAMES_MIN},
    off_cpu::{KIND_THREAD_END, State, ThreadTimes, wait},
    outcome::{PythonStop, StopReason},
    sample::{KIND_OFF_CPU, ORIGIN_SYSCALL, Sample, SampleHeader},
};
use zerocopy::FromZeros;

use super::{
    aggregate::Aggregate,
    carry::{Boundary, Part},
    finish::monotonic_ns,
    state,
};
use crate::{
    config::Mode,
    error::Error,
    foreign::{proc_bytes, proc_facts},
    kernel::{Kernel, KernelError, Left, Record, switch_tells_state},
    process::{Place, is_frozen, own_id, read_words, threads},
    python::{Pythons, Walked, both_ends},
    wait as waits,
};

/// What the kernel side is to do of it.
pub(super) fn settings(
    settings: Settings,
    mode: Mode,
    min_block: Duration,
) -> Result<Settings, Error> {
    if mode == Mode::OnCpu {
        return Ok(settings);
    }
    Ok(Settings {
        off_cpu: 1,
        min_block_ns: nanoseconds(min_block),
        switch_tells_state: u32::from(switch_tells_state()?),
        ..settings
    })
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Begins the accounts of every thread of these processes. Call when switches are followed already: what the
/// kernel side knows better is left.
pub(super) fn begin(
    kernel: &mut Kernel,
    pids: impl IntoIterator<Item = u32>,
    pythons: &Pythons,
) -> Result<(), KernelError> {
    for pid in pids {
        let states = pythons.states(pid);
        let is_frozen = is_frozen(pid);
        let walk = |tid| pythons.walk(pid, own_id(pid, tid), &states);
        for tid in threads(pid) {
            if let Some((times, left)) = look(pid, tid, is_frozen, walk) {
                kernel.begin_thread(times, &left)?;
            }
        }
    }
    Ok(())
}

/// What `/proc` tells of a thread now: its state and, if it waits in a system call, which and where.
fn look(
    pid: u32,
    tid: u32,
    is_frozen: bool,
    walk: impl Fn(u32) -> Option<Walked>,
) -> Option<(ThreadTimes, Left)> {
    let fact = |name: &str| proc_facts(pid, &format!("task/{tid}/{name}"));
    let stat = fact("stat")?;
    let (state, stopped) = match stat.rsplit_once(") ")?.1.chars().next()? {
        'R' => (State::Runnable, 0),
        'D' => (State::Uninterruptible, 0),
        'Z' | 'X' => return None,
        'T' | 't' => (State::Blocked, wait::STOPPED),
        'S' if is_frozen => (State::Blocked, wait::STOPPED),
        _ => (State::Blocked, 0),
    };
    let now = monotonic_ns();
    let mut times = ThreadTimes::new_zeroed();
    times.kind = KIND_THREAD_END;
    (times.tgid, times.tid, times.state) = (pid, tid, state as u32);
    (times.since_ns, times.first_ns) = (now, now);
    times.comm = comm(&times);
    times.ran_ns = fact("schedstat")
        .and_then(|text| ran_ns(&text))
        .unwrap_or(0);
    let mut header = without_stack(&times, StopReason::Before);
    header.wait |= stopped;
    let call = fact("syscall").unwrap_or_default();
    let address = enter_call(&mut header, &call).unwrap_or(0);
    header.user_len = u16::from(address != 0);
    let walked = walk(tid);
    let frames = walked.iter().flat_map(|walked| &walked.frames);
    let python: Vec<[u64; 2]> = frames.map(|frame| frame.words()).collect();
    let (python, inner, left_out) = both_ends(&python, PYTHON_FRAMES_MIN);
    let small = |number: usize| u16::try_from(number).unwrap_or(0);
    header.python_len = small(python.len());
    (header.python_inner, header.python_left_out) = (small(inner), small(left_out));
    header.python_stop = walked.map_or(PythonStop::None, |walked| walked.stop) as u8;
    Some((times, Left::new(&header, address, &python)))
}

/// How long a thread has run: the first word of its `schedstat` (Documentation/scheduler/sched-stats.rst), ns.
fn ran_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// A thread's name, state and system call now, as a record of a wait.
pub(crate) fn header_of(pid: u32, tid: u32, is_frozen: bool) -> Option<SampleHeader> {
    let (_, left) = look(pid, tid, is_frozen, |_| None)?;
    match Record::decode(left.bytes()) {
        Record::Sample(sample) => Some(*sample.header),
        _ => None,
    }
}

/// Reads `NUMBER ARG0 … ARG5 SP PC`, or `-1 SP PC` of a thread that waits in no call; gives the PC.
fn enter_call(header: &mut SampleHeader, text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let address = number(words.last()?)?;
    if let [call, first, second, third, .., _sp, _pc] = words.as_slice() {
        header.syscall = call.parse().ok()?;
        header.origin = ORIGIN_SYSCALL;
        header.arguments = [number(first)?, number(second)?, number(third)?];
        if waits::polls(header.syscall) {
            let word = read_words(header.tgid, header.arguments[0]);
            header.operand = word.map_or(u32::MAX, |[word, _]| waits::low_word(word));
        }
    }
    Some(address)
}

/// Closes the accounts of the threads that live, at the end of the recording. Spans that are still
/// open end here: those long enough are handed to `each`. Gives their number.
pub(super) fn close(
    kernel: &Kernel,
    end_ns: u64,
    min_block: Duration,
    mut each: impl FnMut(&Sample<'_>),
    mut account: impl FnMut(&ThreadTimes),
) -> u64 {
    let min_block_ns = nanoseconds(min_block);
    let mut open = 0;
    for mut times in kernel.thread_times() {
        let span = end_ns.saturating_sub(times.since_ns);
        let state = (times.state & 3) as usize;
        times.in_state_ns[state] += span;
        let mut name = None;
        if state != State::Running as usize {
            let left = left(kernel, &times);
            if span < min_block_ns {
                times.below_threshold_ns[state] += span;
            } else if let Some(left) = &left
                && let Record::Sample(mut sample) = Record::decode(left.bytes())
            {
                let header = SampleHeader {
                    duration_ns: span,
                    ..*sample.header
                };
                sample.header = &header;
                name = Some(header.comm);
                open += 1;
                each(&sample);
            } else {
                times.lost_ns += span;
            }
        }
        times.comm = name
            .filter(|name| name[0] != 0)
            .unwrap_or_else(|| comm(&times));
        account(&times);
    }
    open
}

/// Closes the accounts of the threads that live, at the end of a window, and shows the spans that are open as far as
/// they lie in it. Gives their number.
pub(super) fn close_window(kernel: &Kernel, state: &mut state::State, boundary: Boundary) -> u64 {
    let mut open = 0;
    for times in kernel.thread_times() {
        let is_off = times.state != State::Running as u32;
        let left = is_off.then(|| left(kernel, &times)).flatten();
        let record = left.as_ref().map(|left| Record::decode(left.bytes()));
        let sample = match record {
            Some(Record::Sample(sample)) => Some(sample),
            _ => None,
        };
        let left_ns = sample.as_ref().map(|sample| sample.header.time_ns);
        let Part { mut times, open_ns } = state.carry.close(&times, left_ns, boundary);
        if let (Some(open_ns), Some(sample)) = (open_ns, &sample) {
            let header = SampleHeader {
                duration_ns: open_ns,
                ..*sample.header
            };
            open += 1;
            state.span(&Sample {
                header: &header,
                ..*sample
            });
        }
        if times.in_state_ns.iter().any(|time_ns| *time_ns > 0) {
            let name = sample.map(|sample| sample.header.comm);
            times.comm = name
                .filter(|name| name[0] != 0)
                .unwrap_or_else(|| comm(&times));
            state.aggregate.add_times(&times);
        }
    }
    state.carry.forget_gone();
    open
}

/// What a thread that is off the CPU left it with; a new one waits for its first.
fn left(kernel: &Kernel, times: &ThreadTimes) -> Option<Left> {
    kernel.left(times.tid).or_else(|| {
        if times.switches > 0 {
            return None;
        }
        // As the kernel side tells it when the thread comes to its first CPU.
        let mut header = without_stack(times, StopReason::NotStarted);
        header.comm = comm(times);
        Some(Left::new(&header, 0, &[]))
    })
}

/// A wait of a thread in its state since its time, whose stack nobody took.
fn without_stack(times: &ThreadTimes, stop: StopReason) -> SampleHeader {
    let mut header = SampleHeader::new_zeroed();
    header.kind = KIND_OFF_CPU;
    header.time_ns = times.since_ns;
    (header.tgid, header.tid) = (times.tgid, times.tid);
    header.comm = times.comm;
    header.state = u8::try_from(times.state).unwrap_or_default();
    // Not one that a limit kept from being taken.
    header.wait = wait::STACK;
    header.stop = stop as u8;
    header.syscall = -1;
    header
}

fn comm(times: &ThreadTimes) -> [u8; 16] {
    let name = format!("task/{}/comm", times.tid);
    let (text, _) = proc_bytes(times.tgid, &name, COMM_LEN as u64).unwrap_or_default();
    let name = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut comm = times.comm;
    if let Some(room) = comm.get_mut(..name.len()) {
        room.copy_from_slice(name);
    }
    comm
}

/// Makes the samples stand for all time of the threads: what no record stands for becomes a frame of
/// its own, and each running sample its share of the time that its thread really ran.
pub(super) fn complete(aggregate: &mut Aggregate<Place>, mode: Mode, min_block: Duration) {
    if mode == Mode::Wall {
        let running = |times: &ThreadTimes| times.in_state_ns[State::Running as usize];
        for (thread, time_ns) in aggregate.weigh_samples(running) {
            aggregate.add_time(thread, "[running, not sampled]", time_ns);
        }
    }
    let threads: Vec<_> = aggregate
        .times
        .iter()
        .map(|(id, times)| (*id, *times))
        .collect();
    for (thread, times) in threads {
        for state in State::ALL {
            let leaf = format!("[{}, in spans below {min_block:?}]", state.text());
            let time_ns = times.below_threshold_ns[state as usize];
            if time_ns > 0 {
                aggregate.add_time(thread, &leaf, time_ns);
            }
        }
        if times.lost_ns > 0 {
            aggregate.add_time(thread, "[off the CPU, record lost]", times.lost_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::sample::SampleHeader;
    use zerocopy::FromZeros;

    use super::{enter_call, look};

    /// Both forms of the kernel's line, and what is none.
    #[test]
    fn system_calls_are_read() {
        let mut header = SampleHeader::new_zeroed();
        header.syscall = -1;
        let line = "202 0x7f0 0x80 0x2 0x0 0x0 0x0 0x7ffd 0x7f1234\n";
        assert_eq!(enter_call(&mut header, line), Some(0x7f_1234));
        assert_eq!((header.syscall, header.arguments), (202, [0x7f0, 0x80, 2]));
        header.syscall = -1;
        assert_eq!(enter_call(&mut header, "-1 0x7ffd 0x40"), Some(0x40));
        assert_eq!(enter_call(&mut header, "running"), None);
        assert_eq!(header.syscall, -1);
    }

    /// A thread of ours that waits is seen as it is.
    #[test]
    fn waiting_threads_are_seen() {
        let pid = std::process::id();
        let (times, left) = look(pid, pid, false, |_| None).unwrap();
        assert_eq!((times.tgid, times.tid), (pid, pid));
        assert!(matches!(
            crate::kernel::Record::decode(left.bytes()),
            crate::kernel::Record::Sample(_)
        ));
    }
}
