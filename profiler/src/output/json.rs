//! The profiler's own JSON: everything that a profile holds, for programs.
//!
//! One object. Times are nanoseconds, addresses hexadecimal text (JSON numbers lose the low bits of
//! a kernel address), lists refer to each other by position:
//!
//! - `version`: 1; grows when a key changes its meaning, not when one is added
//! - `meta`: `title`, `command_line`, `event`, `frequency_hz`, `started_unix_ns`,
//!   `started_monotonic_ns`, `duration_ns`; 0 or `""` where not known
//! - `account`: `known`, `taken`, `shown`, `lost` {cause: samples}, `complete_stacks` and
//!   `cut_stacks` {reason: samples}, `notes` {what: times}, `cost` {`bpf_ns`, `process_ns`}, and
//!   `text`, the same in words
//! - `processes`: `pid`, `comm`, `cgroup`; `threads`: `process`, `tid`, `name`
//! - `modules`: `path`, `build_id`, `start`, `end`, `file_offset`
//! - `locations`: `kind` (`kernel`, `native`, `jit`, `python`, `marker`), `module` or null,
//!   `address`, `frames`, the innermost first: `name`, and where known `system_name`, `file`, `line`,
//!   `first_line` (of the function)
//! - `stacks`: lists of locations, leaf first
//! - `thread_times`, of recordings with time off the CPU: `thread`, `followed_ns`, `in_state_ns` and
//!   `below_threshold_ns` {state: ns}
//! - `samples`: `thread`, `stack`, `count`, and where known `gil`: whether the thread `held` its Python
//!   interpreter's lock, or it was `free` of it
//! - `timeline`: `time_ns` (monotonic), `cpu`, `thread`, `stack`; empty unless it was recorded

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{OutputError, account, figures::hexadecimal};
use crate::{
    printable::compact_json,
    profile::{Account, Frame, FrameKind, Location, Meta, Module, Profile, Sample},
};
use profiler_common::off_cpu::State;

/// The version of the schema.
const VERSION: u32 = 1;

/// The profile as a file.
pub(super) fn render(profile: &Profile) -> Result<Vec<u8>, OutputError> {
    let list = |values: Vec<Value>| Value::Array(values);
    let file = json!({
        "version": VERSION,
        "meta": meta(&profile.meta),
        "processes": list(profile.processes.iter().map(|process| json!({
            "pid": process.pid, "comm": process.comm, "cgroup": process.cgroup,
        })).collect()),
        "threads": list(profile.threads.iter().map(|thread| json!({
            "process": thread.process.0, "tid": thread.tid, "name": thread.name,
        })).collect()),
        "modules": list(profile.modules.iter().map(module).collect()),
        "locations": list(profile.locations.iter().map(location).collect()),
        "stacks": list(profile.stacks.iter().map(|stack| {
            stack.locations.iter().map(|id| id.0).collect()
        }).collect()),
        "thread_times": list(profile.times.iter().map(|times| json!({
            "thread": times.thread.0, "followed_ns": times.followed_ns,
            "in_state_ns": by_state(&times.in_state_ns),
            "below_threshold_ns": by_state(&times.below_threshold_ns),
        })).collect()),
        "samples": list(profile.samples.iter().map(sample).collect()),
        "timeline": list(profile.timeline.iter().map(|tick| json!({
            "time_ns": tick.time_ns, "cpu": tick.cpu, "thread": tick.thread.0, "stack": tick.stack.0,
        })).collect()),
        "account": statement(profile),
    });
    Ok(compact_json(&file)?)
}

fn meta(meta: &Meta) -> Value {
    json!({
        "title": meta.title,
        "command_line": meta.command_line,
        "event": meta.event.name(),
        "frequency_hz": meta.frequency_hz,
        "started_unix_ns": nanoseconds(meta.started),
        "started_monotonic_ns": meta.started_mono_ns,
        "duration_ns": nanoseconds(meta.duration),
    })
}

fn module(module: &Module) -> Value {
    let build_id = hexadecimal(&module.build_id);
    json!({
        "path": module.path,
        "build_id": build_id,
        "start": address(module.start),
        "end": address(module.end),
        "file_offset": address(module.file_offset),
    })
}

fn location(location: &Location) -> Value {
    let kind = match location.kind {
        FrameKind::Kernel => "kernel",
        FrameKind::Native => "native",
        FrameKind::Jit => "jit",
        FrameKind::Python => "python",
        FrameKind::Marker => "marker",
    };
    json!({
        "kind": kind,
        "module": location.module.map(|id| id.0),
        "address": address(location.address),
        "frames": location.frames.iter().map(frame).collect::<Vec<_>>(),
    })
}

fn frame(frame: &Frame) -> Value {
    let mut value = json!({ "name": frame.name });
    let optional = [
        ("system_name", frame.system_name.as_deref().map(Value::from)),
        ("file", frame.file.as_deref().map(Value::from)),
        ("line", frame.line.map(Value::from)),
        ("first_line", frame.first_line.map(Value::from)),
    ];
    for (key, known) in optional {
        if let Some(known) = known {
            value[key] = known;
        }
    }
    value
}

fn sample(sample: &Sample) -> Value {
    let mut value = json!({
        "thread": sample.thread.0, "stack": sample.stack.0, "count": sample.count,
    });
    if let Some(word) = sample.gil.word() {
        value["gil"] = word.into();
    }
    value
}

fn by_state(times: &[u64; 4]) -> Value {
    let entries = State::ALL.map(|state| (state.text().to_owned(), json!(times[state as usize])));
    Value::Object(entries.into_iter().collect())
}

fn statement(profile: &Profile) -> Value {
    let Account {
        taken,
        shown,
        lost,
        stacks,
        notes,
        threads: _,
        cost,
    } = &profile.account;
    let lost: BTreeMap<&str, u64> = lost
        .iter()
        .map(|(cause, count)| (cause.text(), *count))
        .collect();
    let (complete, cut): (BTreeMap<_, _>, BTreeMap<_, _>) =
        stacks.iter().partition(|(reason, _)| reason.is_complete());
    let by_text =
        |stacks: BTreeMap<&profiler_common::outcome::StopReason, &u64>| -> BTreeMap<&str, u64> {
            stacks
                .into_iter()
                .map(|(reason, count)| (reason.text(), *count))
                .collect()
        };
    json!({
        "known": profile.account.is_known(),
        "taken": taken,
        "shown": shown,
        "lost": lost,
        "complete_stacks": by_text(complete),
        "cut_stacks": by_text(cut),
        "notes": notes,
        "cost": { "bpf_ns": nanoseconds(cost.bpf), "process_ns": nanoseconds(cost.process) },
        "text": account::lines(profile),
    })
}

fn address(address: u64) -> String {
    format!("{address:#x}")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::output::{Format, Options, example, render};

    /// The values of the documented keys.
    #[test]
    fn file_holds_everything_under_the_documented_keys() {
        let file = render(&example::profile(), Format::Json, &Options::default()).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(file["version"], 1);
        assert_eq!(file["meta"]["frequency_hz"], 99);
        assert_eq!(file["meta"]["duration_ns"], 1_000_000_000);
        assert_eq!(
            file["account"]["lost"],
            json!({"ring buffer full": 3, "unexplained": 1})
        );
        assert_eq!(
            file["account"]["cut_stacks"],
            json!({"no unwind table and no frame pointer": 10})
        );
        assert_eq!(file["account"]["text"][0], "taken: 104 samples");
        assert_eq!(file["locations"][3]["address"], "0xffff800000001000");
        assert_eq!(file["locations"][2]["frames"][0]["line"], 400);
        assert_eq!(file["locations"][5]["module"], Value::Null);
        assert_eq!(
            file["locations"][5]["frames"][0],
            json!({"name": "regexp;run"})
        );
        assert_eq!(file["stacks"][1], json!([4, 3, 2]));
        assert_eq!(
            file["samples"][0],
            json!({"thread": 0, "stack": 0, "count": 60})
        );
        assert_eq!(file["threads"][1]["name"], "pool 2");
        assert_eq!(file["modules"][1]["build_id"], "deadbeef");
    }
}
