//! A window as a request of OTLP's profiles signal (`v1development`, protocol 1.10 and 1.11, which agree). Pure.
//!
//! A resource for each service, with one profile of counted samples, whose period tells the time that each stands
//! for: what the OpenTelemetry profiler sends, and receivers know. One dictionary for all, whose tables begin with
//! their zero value; stacks leaf first; addresses are those of a process.

mod dictionary;

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    profiles::v1development::{
        Profile as OtlpProfile, ResourceProfiles, Sample as OtlpSample, ScopeProfiles, ValueType,
    },
    resource::v1::Resource,
};
use std::collections::BTreeMap;

use self::dictionary::Dictionary;
use super::services::samples_by_service;
use crate::profile::{Event, Profile};

const SCOPE: &str = "profiler";

/// The request.
pub fn request(profile: &Profile, host: &str) -> ExportProfilesServiceRequest {
    let mut dictionary = Dictionary::new(profile);
    let shape = Shape::of(profile.meta.event, profile.meta.period_ns());
    let mut resource_profiles = Vec::new();
    for (service, positions) in samples_by_service(profile) {
        let mut sums: BTreeMap<(i32, Vec<i32>), i64> = BTreeMap::new();
        for sample in positions.iter().map(|position| &profile.samples[*position]) {
            // A sample's identity is its stack and its attributes: those that differ only in what is not told, the
            // lock of an interpreter, are one.
            let key = (
                dictionary.stack(sample.stack),
                dictionary.thread_attributes(sample.thread),
            );
            let sum = sums.entry(key).or_default();
            *sum = sum.saturating_add(signed(sample.count.saturating_mul(shape.factor)));
        }
        let samples = sums
            .into_iter()
            .map(|((stack_index, attribute_indices), value)| OtlpSample {
                stack_index,
                attribute_indices,
                values: vec![value],
                ..OtlpSample::default()
            });
        let mut value_type = |(name, unit): (&str, &str)| ValueType {
            type_strindex: dictionary.string(name),
            unit_strindex: dictionary.string(unit),
        };
        let one = OtlpProfile {
            sample_type: Some(value_type(shape.values)),
            period_type: shape.period.map(|(period, _)| value_type(period)),
            period: shape.period.map_or(0, |(_, period)| period),
            samples: samples.collect(),
            time_unix_nano: nanoseconds(profile.meta.started),
            duration_nano: nanoseconds(profile.meta.duration),
            ..OtlpProfile::default()
        };
        resource_profiles.push(ResourceProfiles {
            resource: Some(resource(service, host)),
            scope_profiles: vec![scope(profile, one)],
            ..ResourceProfiles::default()
        });
    }
    ExportProfilesServiceRequest {
        resource_profiles,
        dictionary: Some(dictionary.finish()),
    }
}

/// What values mean.
struct Shape {
    values: (&'static str, &'static str),
    /// Type and length of a period, where samples were taken at one.
    period: Option<((&'static str, &'static str), i64)>,
    /// From the profile's counts to values.
    factor: u64,
}

impl Shape {
    fn of(event: Event, period_ns: u64) -> Self {
        let time = |name| Self {
            values: (name, "nanoseconds"),
            period: None,
            factor: 1000,
        };
        match event {
            Event::OffCpu => time("off_cpu"),
            Event::Wall => time("wall"),
            Event::Syscalls => time("syscalls"),
            Event::CpuClock | Event::Cycles => Self {
                values: ("samples", "count"),
                period: (period_ns > 0).then(|| (("cpu", "nanoseconds"), signed(period_ns))),
                factor: 1,
            },
        }
    }
}

/// What was lost is the whole window's, and so stands on the scope.
fn scope(profile: &Profile, one: OtlpProfile) -> ScopeProfiles {
    let account = &profile.account;
    let figures = [
        ("profiler.window.samples.taken", account.taken),
        ("profiler.window.samples.lost", account.lost_total()),
    ];
    let attributes = figures
        .into_iter()
        .filter(|_| account.is_known())
        .map(|(key, count)| key_value(key, Value::IntValue(signed(count))));
    ScopeProfiles {
        scope: Some(InstrumentationScope {
            name: SCOPE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: attributes.collect(),
            ..InstrumentationScope::default()
        }),
        profiles: vec![one],
        ..ScopeProfiles::default()
    }
}

/// Whose signals these are.
pub(super) fn resource(service: &str, host: &str) -> Resource {
    Resource {
        attributes: vec![text("service.name", service), text("host.name", host)],
        ..Resource::default()
    }
}

pub(super) fn text(key: &str, text: &str) -> KeyValue {
    key_value(key, Value::StringValue(text.to_owned()))
}

pub(super) fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(super) fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry_proto::tonic::profiles::v1development::{
        Function, KeyValueAndUnit, Link, Location, Mapping, ProfilesDictionary, Stack,
    };

    use super::{ExportProfilesServiceRequest, OtlpProfile, request};
    use crate::{output::example, profile::Event};

    fn example() -> (ExportProfilesServiceRequest, ProfilesDictionary) {
        let request = request(&example::profile(), "host-1");
        let dictionary = request.dictionary.clone().unwrap();
        (request, dictionary)
    }

    fn profiles(request: &ExportProfilesServiceRequest) -> Vec<&OtlpProfile> {
        let resources = request.resource_profiles.iter();
        resources
            .flat_map(|resource| &resource.scope_profiles)
            .flat_map(|scope| &scope.profiles)
            .collect()
    }

    /// The first entry of every table is there and zero.
    #[test]
    fn tables_begin_with_zero() {
        let (_, dictionary) = example();
        assert_eq!(dictionary.mapping_table[0], Mapping::default());
        assert_eq!(dictionary.location_table[0], Location::default());
        assert_eq!(dictionary.function_table[0], Function::default());
        assert_eq!(dictionary.link_table, [Link::default()]);
        assert_eq!(dictionary.string_table[0], "");
        assert_eq!(dictionary.attribute_table[0], KeyValueAndUnit::default());
        assert_eq!(dictionary.stack_table[0], Stack::default());
    }

    /// Every index of every message points into its table.
    #[test]
    fn indices_are_in_their_tables() {
        let (request, dictionary) = example();
        let within = |index: i32, length: usize| usize::try_from(index).unwrap() < length;
        let (strings, attributes) = (
            dictionary.string_table.len(),
            dictionary.attribute_table.len(),
        );
        for location in &dictionary.location_table {
            assert!(within(
                location.mapping_index,
                dictionary.mapping_table.len()
            ));
            assert!(
                location
                    .lines
                    .iter()
                    .all(|line| within(line.function_index, dictionary.function_table.len()))
            );
            assert!(
                location
                    .attribute_indices
                    .iter()
                    .all(|index| within(*index, attributes))
            );
        }
        for function in &dictionary.function_table {
            assert!(
                within(function.name_strindex, strings)
                    && within(function.filename_strindex, strings)
            );
        }
        for stack in &dictionary.stack_table {
            assert!(
                stack
                    .location_indices
                    .iter()
                    .all(|index| within(*index, dictionary.location_table.len()))
            );
        }
        for sample in profiles(&request)
            .iter()
            .flat_map(|profile| &profile.samples)
        {
            assert!(
                within(sample.stack_index, dictionary.stack_table.len()) && sample.stack_index > 0
            );
            assert!(
                sample
                    .attribute_indices
                    .iter()
                    .all(|index| within(*index, attributes))
            );
        }
    }

    /// Samples are counted, each once; their period is that of the rate; no two are the same stack with the same
    /// attributes; without times each has one value.
    #[test]
    fn samples_are_the_windows() {
        let (request, dictionary) = example();
        let text = |index: i32| dictionary.string_table[usize::try_from(index).unwrap()].as_str();
        let mut sum = 0;
        for profile in profiles(&request) {
            let (values, period) = (profile.sample_type.unwrap(), profile.period_type.unwrap());
            assert_eq!(
                (text(values.type_strindex), text(values.unit_strindex)),
                ("samples", "count")
            );
            assert_eq!(
                (text(period.type_strindex), text(period.unit_strindex)),
                ("cpu", "nanoseconds")
            );
            assert_eq!(profile.period, 1_000_000_000 / 99);
            let distinct: BTreeSet<_> = profile
                .samples
                .iter()
                .map(|sample| (sample.stack_index, &sample.attribute_indices))
                .collect();
            assert_eq!(distinct.len(), profile.samples.len());
            for sample in &profile.samples {
                assert_eq!(
                    (sample.values.len(), sample.timestamps_unix_nano.len()),
                    (1, 0)
                );
                sum += sample.values[0];
            }
        }
        assert_eq!(u64::try_from(sum).unwrap(), example::profile().total());
    }

    /// The leaf comes first, inlined functions innermost first, and kinds of frames have the conventions' words.
    #[test]
    fn stacks_are_leaf_first() {
        let (_, dictionary) = example();
        let profile = example::profile();
        let name = |index: i32| {
            let location = &dictionary.location_table[usize::try_from(index).unwrap()];
            let function = &dictionary.function_table
                [usize::try_from(location.lines[0].function_index).unwrap()];
            dictionary.string_table[usize::try_from(function.name_strindex).unwrap()].clone()
        };
        let first = &profile.stacks[profile.samples[0].stack.index()];
        let leaf = &profile.location(first.locations[0]).frames[0].name;
        let leaves: Vec<String> = dictionary.stack_table[1..]
            .iter()
            .map(|stack| name(stack.location_indices[0]))
            .collect();
        assert!(leaves.contains(leaf), "{leaf} is not in {leaves:?}");
        assert!(
            dictionary
                .string_table
                .iter()
                .any(|text| text == "profile.frame.type")
        );
    }

    /// Measured time is in nanoseconds and has no period.
    #[test]
    fn time_has_no_period() {
        let mut profile = example::profile();
        profile.meta.event = Event::OffCpu;
        let request = request(&profile, "host-1");
        let profiles = profiles(&request);
        let sum: i64 = profiles
            .iter()
            .flat_map(|profile| &profile.samples)
            .map(|sample| sample.values[0])
            .sum();
        assert_eq!(u64::try_from(sum).unwrap(), profile.total() * 1000);
        assert!(
            profiles
                .iter()
                .all(|profile| profile.period_type.is_none() && profile.period == 0)
        );
    }
}
