//! What a profile says of time is right, and adds up.

use std::time::{Duration, Instant};

use crate::bench::{SPLIT, Target, bench, text};

/// A program with a known split shows it, within two points: of 12,000 samples that is more than four standard
/// deviations.
#[test]
fn known_split_is_shown() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "12s", "-F", "999"]);
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
    let (before, started) = (target.cpu_ns(), Instant::now());
    let pid = target.pid();
    let record = [
        "record", "-p", &pid, "-d", "6s", "-F", "999", "-f", "json", "-o", "-",
    ];
    let output = bench.profiler(&record);
    let used = Duration::from_nanos(target.cpu_ns() - before);
    // The share of one CPU that it had, setting up and finishing included.
    let busy = used.as_secs_f64() / started.elapsed().as_secs_f64();
    let profile: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let account = &profile["account"];
    let lost = account["lost"].as_object().expect("an object");
    let lost_total: u64 = lost.values().map(number).sum();
    assert_eq!(
        number(&account["taken"]),
        number(&account["shown"]) + lost_total,
        "{account}"
    );
    assert!(
        !lost.keys().any(|cause| cause == "unexplained"),
        "{account}"
    );
    let ticks = profile["timeline"].as_array().expect("a list").len() as u64;
    assert_eq!(ticks, number(&account["shown"]));
    let recorded = Duration::from_nanos(number(&profile["meta"]["duration_ns"]));
    let expected = busy * recorded.as_secs_f64() * 999.0;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
    let ratio = number(&account["taken"]) as f64 / expected;
    assert!(
        (0.85..1.15).contains(&ratio),
        "{ratio}: {}",
        text(&output.stderr)
    );
}
