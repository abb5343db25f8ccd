//! What a profile says of time is right, and adds up.

use crate::bench::{SPLIT, Target, bench, text};

/// A program with a known split shows it, within two points.
#[test]
fn known_split_is_shown() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "8s", "-F", "499"]);
    for (function, percent) in [("seventy", 70.0), ("twenty", 20.0), ("ten", 10.0)] {
        let share = folded.share(&format!(";main;{function};burn"));
        assert!(
            (share - percent).abs() < 2.0,
            "{function}: {share:.1} %\n{}",
            folded.text
        );
    }
}

/// Every sample is shown or lost by a named cause, and there are as many as the scheduler's own
/// account of the target's CPU time makes one expect.
#[test]
fn every_sample_is_accounted_for() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let before = target.cpu_ns();
    let output = bench.profiler(&[
        "record",
        "-p",
        &target.pid(),
        "-d",
        "4s",
        "-F",
        "999",
        "-f",
        "json",
        "-o",
        "-",
    ]);
    let used_s = Duration::from_nanos(target.cpu_ns() - before).as_secs_f64();
    let profile: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let account = &profile["account"];
    let taken = account["taken"].as_u64().expect("a number");
    let lost: u64 = account["lost"]
        .as_object()
        .expect("an object")
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    assert_eq!(
        taken,
        account["shown"].as_u64().expect("a number") + lost,
        "{account}"
    );
    assert!(
        !account["lost"].to_string().contains("unexplained"),
        "{account}"
    );
    // The target ran a little before and after the recording too.
    let expected = used_s * 999.0;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
    let ratio = taken as f64 / expected;
    assert!(
        (0.80..1.05).contains(&ratio),
        "{taken} samples of {expected:.0}\n{}",
        text(&output.stderr)
    );
}

use std::time::Duration;
