//! What was measured, in tables: medians of the rounds, and ratios of what ran in the same round.

use serde_json::{Value, json};

use super::recorder::{Recorder, Recording};

/// How our cost compares with that of another recorder.
#[derive(Clone, Debug)]
pub(super) struct Ratio {
    what: &'static str,
    other: Recorder,
    /// Of each round, sorted.
    rounds: Vec<f64>,
}

/// A column: its headline and its figure.
type Column = (&'static str, fn(&Recording) -> f64, usize);

/// What is compared, and its figure.
type Compared = (&'static str, fn(&Recording) -> f64);

/// What the workload does under a recorder, or under none.
const WORKLOAD: Compared = ("transactions of the workload", |recording| recording.tps);

/// What a recorder takes. Not its share while it records: for perf, that leaves out what the kernel does
/// for it, and what it puts off until it ends.
const COSTS: [Compared; 3] = [
    ("CPU time, all of it", Recording::cpu_share),
    ("CPU time a sample", Recording::sample_us),
    ("peak memory, maps included", |recording| {
        recording.peak_mib() + recording.maps_mib()
    }),
];

impl Ratio {
    pub(super) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "ours_to": self.other.name(),
            "median": median(&self.rounds),
            "rounds": self.rounds,
        })
    }
}

/// Prints medians and ratios.
pub(super) fn print_recordings(recordings: &[Recording], seconds: u32) {
    let columns: [Column; 11] = [
        ("CPU ms/s", |r| r.cpu_share() * 1e3, 2),
        ("while rec.", |r| r.cpu_steady_share() * 1e3, 2),
        ("BPF", |r| r.bpf.as_secs_f64() * 1e3, 1),
        ("record", |r| r.record.cpu.as_secs_f64() * 1e3, 0),
        ("script", |r| r.script.cpu.as_secs_f64() * 1e3, 0),
        (
            "samples",
            |r| f64::from(u32::try_from(r.samples).unwrap_or(u32::MAX)),
            0,
        ),
        ("frames", Recording::depth, 1),
        ("us/sample", Recording::sample_us, 0),
        ("BPF us", Recording::sample_bpf_us, 1),
        ("peak MiB", Recording::peak_mib, 1),
        ("maps MiB", Recording::maps_mib, 1),
    ];
    println!(
        "\npgbench -S, {seconds} s a recording, medians; BPF, record and script are CPU ms of the whole \
         recording.\nCPU counts set-up, naming and writing; the kernel side of perf is in the workload's time \
         and is not counted. Peak is what one process had resident, BPF maps left out; maps are all of \
         those."
    );
    print!("{:<24}", "");
    for (headline, ..) in columns {
        print!("{headline:>11}");
    }
    println!("{:>10}{:>8}", "tps", "of none");
    let undisturbed = median_of(recordings, Recorder::None, |r| r.tps);
    for recorder in recorders(recordings) {
        print!("{:<24}", recorder.name());
        for (_, figure, digits) in columns {
            if recorder == Recorder::None {
                print!("{:>11}", "");
            } else {
                let value = median_of(recordings, recorder, figure);
                print!("{value:>11.digits$}");
            }
        }
        let tps = median_of(recordings, recorder, |r| r.tps);
        println!("{tps:>10.0}{:>7.1}%", 100.0 * tps / undisturbed);
    }
    println!("\nratios of the same round, ours / other: median (lowest to highest)");
    for Ratio {
        what,
        other,
        rounds,
    } in ratios(recordings)
    {
        let (low, high) = (
            rounds.first().copied().unwrap_or(f64::NAN),
            rounds.last().copied().unwrap_or(f64::NAN),
        );
        println!(
            "  {what:<30} / {:<24} {:>6.3}  ({low:.3} to {high:.3})",
            other.name(),
            median(&rounds)
        );
    }
}

/// Prints how tables are made.
pub(super) fn print_tables(tables: &[Value]) {
    println!(
        "\nunwind tables, median of readings\n{:<44}{:>9}{:>10}{:>9}{:>7}{:>10}{:>8}{:>12}{:>10}",
        "", "file MB", "raw rows", "rows", "rules", "malformed", "ms", "raw rows/s", "table MB"
    );
    for table in tables {
        let number = |key: &str| table[key].as_f64().unwrap_or(f64::NAN);
        let seconds = number("median_ns") / 1e9;
        println!(
            "{:<44}{:>9.1}{:>10}{:>9}{:>7}{:>10}{:>8.1}{:>12.0}{:>10.2}",
            table["file"].as_str().unwrap_or_default(),
            number("file_bytes") / 1e6,
            number("raw_rows"),
            number("rows"),
            number("rules"),
            number("malformed"),
            seconds * 1e3,
            number("raw_rows") / seconds,
            number("table_bytes") / 1e6,
        );
    }
}

/// Ours to each other one, round by round.
pub(super) fn ratios(recordings: &[Recording]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for other in recorders(recordings) {
        if other == Recorder::Ours {
            continue;
        }
        // Nobody costs nothing: there only the workload can be compared.
        let costs = if other == Recorder::None {
            &[]
        } else {
            &COSTS[..]
        };
        for (what, figure) in costs.iter().chain([&WORKLOAD]) {
            let mut rounds: Vec<f64> = pairs(recordings, other)
                .map(|(ours, theirs)| figure(ours) / figure(theirs))
                .filter(|ratio| ratio.is_finite())
                .collect();
            rounds.sort_by(f64::total_cmp);
            if !rounds.is_empty() {
                ratios.push(Ratio {
                    what,
                    other,
                    rounds,
                });
            }
        }
    }
    ratios
}

fn pairs(
    recordings: &[Recording],
    other: Recorder,
) -> impl Iterator<Item = (&Recording, &Recording)> {
    let of = |recorder| recordings.iter().filter(move |r| r.recorder == recorder);
    of(Recorder::Ours).filter_map(move |ours| {
        let theirs = of(other).find(|theirs| theirs.round == ours.round)?;
        Some((ours, theirs))
    })
}

fn recorders(recordings: &[Recording]) -> Vec<Recorder> {
    let mut list = Vec::new();
    for recording in recordings {
        if !list.contains(&recording.recorder) {
            list.push(recording.recorder);
        }
    }
    list
}

fn median_of(
    recordings: &[Recording],
    recorder: Recorder,
    figure: impl Fn(&Recording) -> f64,
) -> f64 {
    let mut values: Vec<f64> = recordings
        .iter()
        .filter(|recording| recording.recorder == recorder)
        .map(figure)
        .collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// Of sorted values.
pub(super) fn median(values: &[f64]) -> f64 {
    match (values.get(values.len() / 2), values.len() % 2) {
        (Some(upper), 0) => f64::midpoint(values[values.len() / 2 - 1], *upper),
        (Some(middle), _) => *middle,
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    /// The middle one, or the middle of two.
    #[test]
    #[expect(clippy::float_cmp, reason = "exact in binary")]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
    }
}
