//! Whose samples: a window of the host divided by service, as those who receive it expect. Pure.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::profile::{
    Location, LocationId, Module, ModuleId, Process, Profile, Sample, Stack, StackId, ThreadId,
};

/// The service that a process belongs to: its systemd unit, if that is a service, else its name.
pub fn service_of(process: &Process) -> &str {
    let unit = process
        .cgroup
        .split('/')
        .filter_map(|part| part.strip_suffix(".service"))
        // The innermost; each user's manager is one too, and says nothing.
        .rfind(|unit| !unit.starts_with("user@"));
    match unit {
        Some(unit) => unit,
        None if process.comm.is_empty() => "unknown",
        None => &process.comm,
    }
}

/// Positions of each service's samples.
pub fn samples_by_service(profile: &Profile) -> BTreeMap<&str, Vec<usize>> {
    let mut services: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, sample) in profile.samples.iter().enumerate() {
        let service = service_of(profile.process_of(sample.thread));
        services.entry(service).or_default().push(position);
    }
    services
}

/// A profile of some samples alone, told apart by the name of their process and not by its id, nor by thread: what
/// a database of profiles can keep for long. It carries no account, which is the whole window's.
pub fn part(profile: &Profile, positions: &[usize]) -> Profile {
    let mut part = Part {
        whole: profile,
        profile: Profile {
            meta: profile.meta.clone(),
            ..Profile::default()
        },
        modules: FxHashMap::default(),
        locations: FxHashMap::default(),
        stacks: FxHashMap::default(),
    };
    let mut comms: BTreeMap<&str, u32> = BTreeMap::new();
    let mut sums: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for sample in positions.iter().map(|position| &profile.samples[*position]) {
        let comm = profile.process_of(sample.thread).comm.as_str();
        let next = number(comms.len());
        let thread = *comms.entry(comm).or_insert(next);
        if thread == next {
            part.add_process(comm);
        }
        let stack = part.stack(sample.stack);
        *sums.entry((thread, stack)).or_default() += sample.count;
    }
    let mut part = part.profile;
    part.samples = sums
        .into_iter()
        .map(|((thread, stack), count)| Sample {
            thread: ThreadId(thread),
            stack: StackId(stack),
            gil: crate::profile::Gil::Unknown,
            count,
        })
        .collect();
    part
}

/// The lists of a part as they grow, and where each piece of the whole is in them.
struct Part<'a> {
    whole: &'a Profile,
    profile: Profile,
    modules: FxHashMap<ModuleId, u32>,
    locations: FxHashMap<LocationId, u32>,
    stacks: FxHashMap<StackId, u32>,
}

impl Part<'_> {
    fn add_process(&mut self, comm: &str) {
        let process = crate::profile::ProcessId(number(self.profile.processes.len()));
        self.profile.processes.push(Process {
            comm: comm.to_owned(),
            ..Process::default()
        });
        self.profile.threads.push(crate::profile::Thread {
            process,
            tid: 0,
            name: String::new(),
        });
    }

    fn stack(&mut self, id: StackId) -> u32 {
        if let Some(place) = self.stacks.get(&id) {
            return *place;
        }
        let ids = &self.whole.stacks[id.index()].locations;
        let locations = ids
            .iter()
            .map(|id| LocationId(self.location(*id)))
            .collect();
        let place = number(self.profile.stacks.len());
        self.profile.stacks.push(Stack { locations });
        self.stacks.insert(id, place);
        place
    }

    fn location(&mut self, id: LocationId) -> u32 {
        if let Some(place) = self.locations.get(&id) {
            return *place;
        }
        let location = self.whole.location(id);
        let module = location.module.map(|id| ModuleId(self.module(id)));
        let place = number(self.profile.locations.len());
        self.profile.locations.push(Location {
            module,
            ..location.clone()
        });
        self.locations.insert(id, place);
        place
    }

    fn module(&mut self, id: ModuleId) -> u32 {
        let modules: &mut Vec<Module> = &mut self.profile.modules;
        *self.modules.entry(id).or_insert_with(|| {
            modules.push(self.whole.modules[id.index()].clone());
            number(modules.len() - 1)
        })
    }
}

/// Ids of the whole fit into 32 bits, and a part is no larger.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Process, part, samples_by_service, service_of};
    use crate::output::{Options, example, folded};

    /// A unit counts more than a name, and a user's manager is no service.
    #[test]
    fn services_are_named() {
        let named = |cgroup: &str, comm: &str| {
            let process = Process {
                pid: 1,
                comm: comm.to_owned(),
                cgroup: cgroup.to_owned(),
            };
            service_of(&process).to_owned()
        };
        assert_eq!(named("/system.slice/nginx.service", "worker"), "nginx");
        assert_eq!(named("/system.slice/a.service/b", "worker"), "a");
        let user = "/user.slice/user-1.slice/user@1.service";
        assert_eq!(named(user, "bash"), "bash");
        assert_eq!(named(&format!("{user}/app.slice/x.service"), "y"), "x");
        assert_eq!(named("", "cron"), "cron");
        assert_eq!(named("", ""), "unknown");
    }

    /// The parts have every sample once, and the same stacks as the whole.
    #[test]
    fn parts_add_up() {
        let whole = example::profile();
        let services = samples_by_service(&whole);
        let parts = services.values().map(|positions| part(&whole, positions));
        let parts: Vec<_> = parts.collect();
        let total: u64 = parts.iter().map(crate::profile::Profile::total).sum();
        assert_eq!(total, whole.total());
        let mut lines: Vec<String> = parts
            .iter()
            .flat_map(|part| folded::lines(part, &Options::default()))
            .collect();
        let mut of_whole = folded::lines(&whole, &Options::default());
        lines.sort();
        of_whole.sort();
        let without_pids = |lines: Vec<String>| -> Vec<String> {
            let stack = |line: String| line.split_once(';').map(|(_, rest)| rest.to_owned());
            lines.into_iter().filter_map(stack).collect()
        };
        assert_eq!(without_pids(lines), without_pids(of_whole));
    }

    /// A part of nothing is empty, and holds no file that none of its stacks goes through.
    #[test]
    fn nothing_is_carried_along() {
        let empty = part(&example::profile(), &[]);
        assert!(empty.modules.is_empty() && empty.locations.is_empty() && empty.total() == 0);
    }
}
