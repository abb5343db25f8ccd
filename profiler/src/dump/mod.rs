//! `profiler dump`: the stack of every thread of a process now, and what it waits for, without BPF and
//! without stopping the process.
//!
//! A thread that waits in a system call tells where it is through `/proc`; its native stack is walked
//! over a copy of its stack. Of a thread that runs only the Python frames are shown, read as they change.

mod memory;
mod thread;

use std::fmt::Write;

use serde_json::{Value, json};

use self::thread::{Dumped, Dumper};
use crate::{
    artifact::{Artifact, Destination},
    config::Dump,
    error::{Error, Exit},
    output::{Lines, OutputError, folded::python_text},
    printable::{compact_json, shortened},
    profile::{Frame, FrameKind, Location},
    record::check_pid,
    symbolize::{self, Limits},
};

/// Most characters of a name in the text; JSON has all of it.
const NAME_MAX: usize = 1000;

/// Dumps, as text or JSON.
pub fn run(config: Dump) -> Result<Exit, Error> {
    check_pid(config.pid).map_err(|error| match error {
        // Where `/proc` is closed to others, it seems not to be there.
        Error::NoSuchProcess { pid } if crate::process::is_alive(pid) => Error::NotReadable { pid },
        other => other,
    })?;
    let stdout = Artifact::open(&Destination::Stdout)?;
    symbolize::check(Limits::VERB)?;
    let mut dumper = Dumper::new(config);
    let threads = dumper.threads()?;
    let bytes = if config.json {
        let threads: Vec<Value> = threads.iter().map(json).collect();
        let dump = json!({
            "pid": config.pid,
            "threads": threads,
            "threads_left_out": dumper.left_out,
        });
        let mut line = compact_json(&dump).map_err(OutputError::Json)?;
        line.push(b'\n');
        line
    } else {
        let mut text = text(&dumper.title(), &threads);
        if dumper.left_out > 0 {
            let _ = writeln!(text, "\n[{} more threads are not shown]", dumper.left_out);
        }
        text.into_bytes()
    };
    stdout.write(&bytes)?;
    Ok(Exit::Done)
}

fn text(title: &str, threads: &[Dumped]) -> String {
    let shown = |name: &str| shortened(name, NAME_MAX).into_owned();
    let mut lines = vec![shown(title)];
    for thread in threads {
        let gil = if thread.has_gil {
            ", holds the GIL"
        } else {
            ""
        };
        let Dumped {
            tid, name, doing, ..
        } = thread;
        let (name, doing) = (shown(name), shown(doing));
        lines.push(format!("\nthread {tid} \"{name}\": {doing}{gil}"));
        for location in &thread.stack {
            let frames = location.frames.iter();
            lines
                .extend(frames.map(|frame| format!("    {}", shown(&frame_text(location, frame)))));
        }
        lines.extend(thread.cut.map(|cut| format!("    [cut: {cut}]")));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn frame_text(location: &Location, frame: &Frame) -> String {
    match (location.kind, &frame.file, frame.line) {
        (FrameKind::Python, ..) => python_text(frame, Lines::Line),
        (_, Some(file), Some(line)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            format!("{} ({file}:{line})", frame.name)
        }
        _ => frame.name.clone(),
    }
}

fn json(thread: &Dumped) -> Value {
    let frame = |location: &Location, frame: &Frame| {
        let kind = match location.kind {
            FrameKind::Python => "python",
            FrameKind::Kernel => "kernel",
            FrameKind::Jit => "jit",
            FrameKind::Native | FrameKind::Marker => "native",
        };
        json!({ "kind": kind, "name": frame.name, "file": frame.file, "line": frame.line })
    };
    let frames = thread.stack.iter().flat_map(|location| {
        location
            .frames
            .iter()
            .map(move |each| frame(location, each))
    });
    json!({
        "tid": thread.tid, "name": thread.name, "doing": thread.doing, "holds_gil": thread.has_gil,
        "frames": frames.collect::<Vec<_>>(), "cut": thread.cut,
    })
}
