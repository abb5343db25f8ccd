//! Judges what was found: each check with a status and, where it is bad, what mends it; and which
//! commands work as a result. Pure.

use serde::Serialize;

use super::facts::{CAPABILITIES, Facts, TriedFacts};
use crate::kernel::{ClockEvent, PARANOID_MIN, paranoid_remedy, probe::Tried};

/// `bpf_loop` came with 5.17.
const KERNEL_MIN: (u32, u32) = (5, 17);
/// What mends a want of privilege.
pub(crate) const SET_CAPABILITIES: &str = "run as root (sudo), or: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,\
                                cap_dac_read_search,cap_syslog,cap_checkpoint_restore+ep $(command -v profiler)";

/// Names of the checks that other commands rest on.
const SYSCALLS: &str = "system call tracepoints";
const TCP: &str = "TCP tracepoints";
const WIRE: &str = "traffic of sockets";
const TLS: &str = "probes of TLS libraries";

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something is less good than it could be.
    Warn,
    /// Something does not work.
    Refused,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What mends it, unless all is well.
    pub remedy: Option<String>,
}

/// Whether a command works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Fully.
    Works,
    /// With something missing.
    Limited,
    /// Not at all.
    No,
}

/// A command of the profiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Whether it works.
    pub verdict: Verdict,
    /// Why not fully.
    pub why: Vec<&'static str>,
}

/// The whole verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which commands work.
    pub commands: Vec<Command>,
    /// What was looked at.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether `profiler record` would work.
    pub fn record_works(&self) -> bool {
        self.commands
            .iter()
            .any(|command| command.name == "record" && command.verdict != Verdict::No)
    }
}

/// The first thing found that makes recording impossible.
pub(super) fn first_refusal(facts: &Facts) -> Option<Check> {
    required(facts)
        .into_iter()
        .find(|check| check.status == Status::Refused)
}

/// Judges everything.
pub(super) fn assess(facts: &Facts) -> Report {
    let mut checks = required(facts);
    let refused_for_all: Vec<&str> = checks
        .iter()
        .filter(|check| check.status == Status::Refused)
        .map(|check| check.name)
        .collect();
    let mut for_record: Vec<Check> = checks.clone();
    if let Some(tried) = &facts.tried {
        let own = recording(facts, tried);
        for_record.push(own.clone());
        checks.push(own);
        checks.extend(others(facts, tried));
        checks.extend(quality(facts, tried));
        checks.extend(parts(tried));
    }
    checks.extend(settings(facts));
    let of = |status| {
        checks
            .iter()
            .filter(move |check: &&Check| check.status == status)
            .map(|check| check.name)
    };
    let refused: Vec<&str> = for_record
        .iter()
        .filter(|check| check.status == Status::Refused)
        .map(|check| check.name)
        .collect();
    let record = if refused.is_empty() {
        let why: Vec<&str> = of(Status::Warn).collect();
        Command {
            name: "record",
            verdict: if why.is_empty() {
                Verdict::Works
            } else {
                Verdict::Limited
            },
            why,
        }
    } else {
        Command {
            name: "record",
            verdict: Verdict::No,
            why: refused,
        }
    };
    let refused: Vec<&str> = of(Status::Refused).collect();
    let needs = |name, check| needs(name, check, &refused, &refused_for_all);
    let always = |name| Command {
        name,
        verdict: Verdict::Works,
        why: Vec::new(),
    };
    Report {
        commands: vec![
            record,
            needs("syscalls", SYSCALLS),
            needs("tcp", TCP),
            queries(needs("queries", WIRE), facts),
            always("report"),
            always("doctor"),
        ],
        checks,
    }
}

/// A command that needs one check of its own beside those that all need.
fn needs(
    name: &'static str,
    check: &str,
    refused: &[&'static str],
    refused_for_all: &[&str],
) -> Command {
    let why: Vec<&str> = refused
        .iter()
        .copied()
        .filter(|found| *found == check || refused_for_all.contains(found))
        .collect();
    Command {
        name,
        verdict: if why.is_empty() {
            Verdict::Works
        } else {
            Verdict::No
        },
        why,
    }
}

/// Encrypted connections want more.
fn queries(command: Command, facts: &Facts) -> Command {
    if command.verdict == Verdict::Works && tls(facts).status != Status::Ok {
        return Command {
            verdict: Verdict::Limited,
            why: vec![TLS],
            ..command
        };
    }
    command
}

/// Uprobes are opened through a perf event (kernels with the fix of CVE-2025-38466).
pub(super) fn tls(facts: &Facts) -> Check {
    if holds(facts, "CAP_SYS_ADMIN") {
        return ok(TLS, "may be attached");
    }
    bad(
        TLS,
        Status::Refused,
        "uprobes need CAP_SYS_ADMIN",
        "run as root (sudo), or add cap_sys_admin to the capabilities of the profiler",
    )
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check {
        name,
        status: Status::Ok,
        found: found.into(),
        remedy: None,
    }
}

fn bad(name: &'static str, status: Status, found: impl Into<String>, remedy: &str) -> Check {
    Check {
        name,
        status,
        found: found.into(),
        remedy: Some(remedy.to_owned()),
    }
}

/// Without these nothing can be recorded.
fn required(facts: &Facts) -> Vec<Check> {
    vec![
        kernel(facts),
        btf(facts),
        capabilities(facts),
        pid_namespace(facts),
    ]
}

fn kernel(facts: &Facts) -> Check {
    let found = format!("{} {}", facts.release, facts.machine);
    let mut numbers = facts
        .release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        ok("kernel", found)
    } else {
        bad(
            "kernel",
            Status::Refused,
            found,
            "Linux 5.17 or newer is needed (bpf_loop)",
        )
    }
}

fn btf(facts: &Facts) -> Check {
    match &facts.btf_error {
        None => ok("kernel type information (BTF)", "present"),
        Some(error) => {
            let remedy = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are, and mount /sys";
            bad(
                "kernel type information (BTF)",
                Status::Refused,
                error,
                remedy,
            )
        }
    }
}

fn holds(facts: &Facts, capability: &str) -> bool {
    let number = CAPABILITIES
        .iter()
        .find(|(name, _)| *name == capability)
        .map(|(_, number)| *number);
    number.is_some_and(|number| facts.capabilities >> number & 1 == 1)
}

/// `CAP_SYS_ADMIN` implies both, as it did before they were cut out of it (Linux 5.8).
fn capabilities(facts: &Facts) -> Check {
    let held: Vec<&str> = CAPABILITIES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| holds(facts, name))
        .collect();
    let missing: Vec<&str> = ["CAP_BPF", "CAP_PERFMON"]
        .into_iter()
        .filter(|name| !holds(facts, name))
        .collect();
    if missing.is_empty() || holds(facts, "CAP_SYS_ADMIN") {
        ok("capabilities", held.join(" "))
    } else {
        bad(
            "capabilities",
            Status::Refused,
            format!("needs {}", missing.join(" and ")),
            SET_CAPABILITIES,
        )
    }
}

fn pid_namespace(facts: &Facts) -> Check {
    if facts.initial_pid_namespace {
        return ok("pid namespace", "the initial one");
    }
    let remedy = "run on the host, or in a container that shares its pids (docker run --pid=host)";
    bad(
        "pid namespace",
        Status::Refused,
        "a container's own: its process ids are not the kernel's",
        remedy,
    )
}

/// The proof: our own programs.
fn recording(facts: &Facts, tried: &TriedFacts) -> Check {
    let name = "our programs, loaded and attached";
    match &tried.recording {
        Ok(ClockEvent::Cycles) => ok(name, "yes; clock: hardware cycles"),
        Ok(ClockEvent::CpuClock) => ok(
            name,
            "yes; clock: the kernel's cpu-clock (no hardware cycles here)",
        ),
        Err(error) => {
            let locked = tried.lockdown.as_deref() == Some("confidentiality");
            let remedy = if locked {
                "the kernel is locked down (confidentiality): boot with lockdown=integrity or none"
                    .to_owned()
            } else {
                privileges_remedy(facts)
            };
            bad(name, Status::Refused, error, &remedy)
        }
    }
}

/// What mends a refusal for want of privilege.
fn privileges_remedy(facts: &Facts) -> String {
    let may_record = capabilities(facts).status == Status::Ok && !holds(facts, "CAP_SYS_ADMIN");
    match facts.settings.get("perf_event_paranoid") {
        Some(level @ PARANOID_MIN..) if may_record => paranoid_remedy(*level),
        _ => SET_CAPABILITIES.to_owned(),
    }
}

/// The programs of the other commands.
fn others(facts: &Facts, tried: &TriedFacts) -> Vec<Check> {
    let own = |name, tried: &Result<(), String>| match tried {
        Ok(()) => ok(name, "loaded and attached"),
        Err(error) => bad(name, Status::Refused, error, &privileges_remedy(facts)),
    };
    let tcp = match &tried.tcp {
        // Entering a network namespace wants it.
        Ok(()) if !holds(facts, "CAP_SYS_ADMIN") => bad(
            TCP,
            Status::Refused,
            "listing connections needs CAP_SYS_ADMIN, to enter network namespaces",
            "run as root (sudo), or add cap_sys_admin to the capabilities of the profiler",
        ),
        tried => own(TCP, tried),
    };
    vec![
        own(SYSCALLS, &tried.syscalls),
        tcp,
        own(WIRE, &tried.wire),
        tls(facts),
    ]
}

/// What makes recordings poorer.
fn quality(facts: &Facts, tried: &TriedFacts) -> Vec<Check> {
    let admin = holds(facts, "CAP_SYS_ADMIN");
    let others = holds(facts, "CAP_SYS_PTRACE") || admin && facts.capabilities.count_ones() > 35;
    vec![
        if tried.kernel_symbols {
            ok("kernel symbols", "readable")
        } else {
            let remedy = "sudo sysctl kernel.kptr_restrict=0, or add CAP_SYSLOG";
            bad(
                "kernel symbols",
                Status::Warn,
                "hidden: kernel frames get no names",
                remedy,
            )
        },
        if others {
            ok("other users' processes", "readable")
        } else {
            let remedy = "add CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and CAP_CHECKPOINT_RESTORE";
            bad(
                "other users' processes",
                Status::Warn,
                "mappings unreadable: their frames get no names",
                remedy,
            )
        },
    ]
}

/// What later commands build on, and what is good to know.
fn parts(tried: &TriedFacts) -> Vec<Check> {
    let remedy = if tried.recording.is_ok() {
        "nothing to do: no command needs it yet"
    } else {
        SET_CAPABILITIES
    };
    let works = |(name, outcome): &(&'static str, Tried)| match outcome {
        Tried::Works => ok(name, "works"),
        Tried::Refused(why) => bad(name, Status::Refused, why, remedy),
    };
    let mut checks: Vec<Check> = tried
        .programs
        .iter()
        .chain(&tried.maps)
        .map(works)
        .collect();
    let or_none =
        |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.to_owned());
    checks.push(ok(
        "lockdown",
        or_none(&tried.lockdown, "not in this kernel"),
    ));
    checks.push(ok(
        "locked memory limit",
        tried.memlock.map_or("none".to_owned(), |bytes| {
            format!("{bytes} bytes (matters below Linux 5.11 only)")
        }),
    ));
    checks.push(ok(
        "tracefs",
        if tried.tracefs {
            "mounted"
        } else {
            "not mounted (not needed)"
        },
    ));
    checks.push(ok(
        "cgroup v2",
        or_none(
            &tried.cgroup2,
            "not mounted: --cgroup and --unit do not work",
        ),
    ));
    checks.push(ok(
        "debug information",
        match (tried.debug_info, &tried.debuginfod) {
            (true, _) => "/usr/lib/debug/.build-id",
            (false, Some(_)) => "none installed; debuginfod is set but not used yet",
            (false, None) => "none installed: stripped functions are named by address",
        },
    ));
    checks.push(ok("online CPUs", tried.cpus.to_string()));
    checks
}

fn settings(facts: &Facts) -> Vec<Check> {
    facts
        .settings
        .iter()
        .map(|(name, value)| match (*name, *value) {
            // Debian's own level; Ubuntu and Android have 4.
            ("perf_event_paranoid", PARANOID_MIN..) if !holds(facts, "CAP_SYS_ADMIN") => {
                let remedy = "sudo sysctl kernel.perf_event_paranoid=2, or run as root";
                bad(
                    name,
                    Status::Warn,
                    format!("{value}: some kernels then ignore CAP_PERFMON"),
                    remedy,
                )
            }
            ("perf_event_max_sample_rate", ..1000) => {
                let remedy = "sudo sysctl kernel.perf_event_max_sample_rate=100000";
                bad(
                    name,
                    Status::Warn,
                    format!("{value}: the kernel lowered it, or somebody did"),
                    remedy,
                )
            }
            _ => ok(name, value.to_string()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Facts, Status, TriedFacts, Verdict, assess, first_refusal};
    use crate::kernel::{ClockEvent, probe::Tried};

    fn healthy() -> Facts {
        let tried = TriedFacts {
            programs: vec![("perf event program", Tried::Works)],
            maps: vec![("hash map", Tried::Works)],
            recording: Ok(ClockEvent::CpuClock),
            syscalls: Ok(()),
            tcp: Ok(()),
            wire: Ok(()),
            kernel_symbols: true,
            lockdown: Some("none".to_owned()),
            memlock: None,
            tracefs: true,
            cgroup2: Some("/sys/fs/cgroup".to_owned()),
            debug_info: false,
            debuginfod: None,
            cpus: 2,
        };
        Facts {
            release: "6.1.0-40-amd64".to_owned(),
            machine: "x86_64".to_owned(),
            btf_error: None,
            capabilities: (1 << 41) - 1,
            initial_pid_namespace: true,
            settings: [("perf_event_paranoid", 2)].into(),
            tried: Some(tried),
        }
    }

    fn refusal(change: impl FnOnce(&mut Facts)) -> (String, String) {
        let mut facts = healthy();
        change(&mut facts);
        assert!(!assess(&facts).record_works());
        let check = first_refusal(&facts).expect("refused");
        (check.found, check.remedy.expect("mendable"))
    }

    /// A healthy machine has nothing to complain of.
    #[test]
    fn healthy_machine_works() {
        let report = assess(&healthy());
        assert_eq!(
            report.commands[0].verdict,
            Verdict::Works,
            "{:?}",
            report.commands[0]
        );
        assert!(report.checks.iter().all(|check| check.status == Status::Ok));
        assert!(first_refusal(&healthy()).is_none());
    }

    /// Each thing that makes recording impossible is named, with what mends it.
    #[test]
    fn refusals_name_the_cause_and_the_remedy() {
        let (found, remedy) = refusal(|facts| facts.capabilities = 1 << 39);
        assert!(
            found == "needs CAP_PERFMON" && remedy.contains("setcap"),
            "{found} {remedy}"
        );
        let (found, _) = refusal(|facts| facts.btf_error = Some("cannot read it".to_owned()));
        assert_eq!(found, "cannot read it");
        let (_, remedy) = refusal(|facts| facts.release = "5.15.0-generic".to_owned());
        assert!(remedy.contains("5.17"));
        let (_, remedy) = refusal(|facts| facts.initial_pid_namespace = false);
        assert!(remedy.contains("--pid=host"));
    }

    /// Under lockdown our programs are refused, and the remedy is not more privilege.
    #[test]
    fn lockdown_is_recognised() {
        let mut facts = healthy();
        if let Some(tried) = &mut facts.tried {
            tried.lockdown = Some("confidentiality".to_owned());
            tried.recording = Err("operation not permitted".to_owned());
        }
        let report = assess(&facts);
        let check = report
            .checks
            .iter()
            .find(|check| check.status == Status::Refused)
            .unwrap();
        assert!(!report.record_works() && check.remedy.as_ref().unwrap().contains("lockdown"));
    }

    /// Each command is refused for what it needs, not for what another one does.
    #[test]
    fn commands_are_judged_apart() {
        let mut facts = healthy();
        if let Some(tried) = &mut facts.tried {
            tried.syscalls = Err("no tracepoint".to_owned());
        }
        facts.capabilities &= !(1 << 21);
        let report = assess(&facts);
        let verdict = |name| {
            let found = report.commands.iter().find(|command| command.name == name);
            found.map(|command| (command.verdict, command.why.clone()))
        };
        assert!(report.record_works());
        assert_eq!(
            verdict("syscalls"),
            Some((Verdict::No, vec!["system call tracepoints"]))
        );
        assert_eq!(verdict("tcp"), Some((Verdict::No, vec!["TCP tracepoints"])));
    }

    /// Where Debian's level refuses whoever has the usual capabilities, more of them are no remedy.
    #[test]
    fn a_paranoid_level_is_recognised() {
        let mut facts = healthy();
        if let Some(tried) = &mut facts.tried {
            tried.recording = Err("permission denied".to_owned());
        }
        let remedy = |facts: &Facts| {
            let report = assess(facts);
            let refused = |check: &&super::Check| check.status == Status::Refused;
            let check = report.checks.into_iter().find(|check| refused(&check));
            check.and_then(|check| check.remedy).unwrap_or_default()
        };
        facts.capabilities &= !(1 << 21);
        assert!(remedy(&facts).contains("setcap"), "{}", remedy(&facts));
        facts.settings.insert("perf_event_paranoid", 3);
        let lower = remedy(&facts);
        assert!(lower.contains("kernel.perf_event_paranoid=2"), "{lower}");
    }

    /// What only makes recordings poorer limits them.
    #[test]
    fn warnings_limit() {
        let mut facts = healthy();
        if let Some(tried) = &mut facts.tried {
            tried.kernel_symbols = false;
        }
        facts.capabilities &= !(1 << 21);
        facts.settings.insert("perf_event_paranoid", 3);
        let report = assess(&facts);
        assert_eq!(report.commands[0].verdict, Verdict::Limited);
        assert_eq!(
            report.commands[0].why,
            ["kernel symbols", "perf_event_paranoid"]
        );
    }
}
