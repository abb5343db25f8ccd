//! The requests of Pyroscope and Parca: JSON with gzipped pprof in it, a series for each service. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::services::{part, samples_by_service};
use crate::{
    output::{self, Format, Options, OutputError},
    profile::{Event, Profile},
};

/// What Pyroscope calls it: kept for Parca, whose types have any name.
fn metric(event: Event) -> &'static str {
    match event {
        Event::CpuClock | Event::Cycles => "process_cpu",
        Event::OffCpu => "off_cpu",
        Event::Wall => "wall",
        Event::Syscalls => "syscalls",
    }
}

/// The body of Pyroscope's `Push`.
pub fn pyroscope(profile: &Profile, host: &str) -> Result<Vec<u8>, OutputError> {
    let series = series(
        profile,
        host,
        |labels, packed| json!({ "labels": labels, "samples": [{ "rawProfile": packed }] }),
    )?;
    Ok(serde_json::to_vec(&json!({ "series": series }))?)
}

/// The body of Parca's `WriteRaw`. The addresses are those of processes, not of files.
pub fn parca(profile: &Profile, host: &str) -> Result<Vec<u8>, OutputError> {
    let series = series(
        profile,
        host,
        |labels, packed| json!({ "labels": { "labels": labels }, "samples": [{ "rawProfile": packed }] }),
    )?;
    Ok(serde_json::to_vec(
        &json!({ "series": series, "normalized": false }),
    )?)
}

fn series(
    profile: &Profile,
    host: &str,
    make: impl Fn(Value, String) -> Value,
) -> Result<Vec<Value>, OutputError> {
    let services = samples_by_service(profile);
    let one = |(service, positions): (&str, Vec<usize>)| {
        let part = part(profile, &positions);
        let packed = output::render(&part, Format::Pprof, &Options::default())?;
        let label = |name: &str, value: &str| json!({ "name": name, "value": value });
        let labels = json!([
            label("__name__", metric(profile.meta.event)),
            label("service_name", service),
            label("host", host),
            label("profiler", "profiler"),
        ]);
        Ok(make(labels, BASE64_STANDARD.encode(packed)))
    };
    services.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::Value;

    use super::{parca, pyroscope};
    use crate::{output::example, report};

    fn raw(series: &Value) -> Vec<u8> {
        let text = series["samples"][0]["rawProfile"].as_str().unwrap();
        BASE64_STANDARD.decode(text).unwrap()
    }

    /// Each service is a series whose pprof holds its samples, and all together hold every sample.
    #[test]
    fn series_hold_every_sample() {
        let profile = example::profile();
        let body: Value = serde_json::from_slice(&pyroscope(&profile, "h").unwrap()).unwrap();
        let series = body["series"].as_array().unwrap();
        let sum: u64 = series
            .iter()
            .map(|series| report::read(&raw(series)).unwrap().total())
            .sum();
        assert_eq!(sum, profile.total());
        let names: Vec<&str> = series[0]["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["__name__", "service_name", "host", "profiler"]);
        assert_eq!(series[0]["labels"][0]["value"], "process_cpu");
    }

    /// Parca's labels lie one level deeper, with the same samples.
    #[test]
    fn parca_nests_labels() {
        let profile = example::profile();
        let body: Value = serde_json::from_slice(&parca(&profile, "h").unwrap()).unwrap();
        assert_eq!(body["normalized"], false);
        let series = &body["series"][0];
        assert_eq!(series["labels"]["labels"][2]["value"], "h");
        assert!(report::read(&raw(series)).unwrap().total() > 0);
    }
}
