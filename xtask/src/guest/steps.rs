//! What a machine does: steps of a shell, each with a limit, whose results it leaves in the shared folder.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

/// One step, which fails as soon as a line of it does.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Steps that have to come before it.
    needs: &'static [&'static str],
    /// A step that takes longer hangs.
    pub(super) limit: Duration,
    shell: &'static str,
}

/// How a step ended.
pub(super) struct Outcome {
    pub(super) status: i32,
    pub(super) seconds: f64,
}

/// Known to each step.
const LIBRARY: &str = "\
refuse() { if \"$@\" >/dev/null 2>&1; then echo \"should fail: $*\"; exit 1; fi; }
keep() { cp \"$@\" /host/out/; }
everything() {
  find / -xdev \\( -path /host -o -path /usr/lib/modules -o -path /tmp -o -path /var/tmp -o -path /var/log \\
    -o -path /root -o -path /var/lib/postgresql -o -path /var/lib/systemd \\) -prune -o -print | sort
}
trap 'test $? = 0 || journalctl --no-pager -n 40 -o short-monotonic' EXIT
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
cd /root
";

const fn step(
    name: &'static str,
    needs: &'static [&'static str],
    limit_s: u64,
    shell: &'static str,
) -> Step {
    Step {
        name,
        needs,
        limit: Duration::from_secs(limit_s),
        shell,
    }
}

/// In their order.
static STEPS: &[Step] = &[
    step(
        "install",
        &[],
        120,
        "everything > before
dpkg -i /host/profiler.deb
refuse systemctl is-active profiler
refuse systemctl is-enabled profiler
getent passwd profiler
refuse test -e /var/lib/profiler
profiler --version
",
    ),
    step("doctor", &["install"], 120, "profiler doctor\n"),
    step(
        "busy",
        &[],
        60,
        "systemd-run --quiet --unit=busy sh -c 'while :; do :; done'
systemd-run --quiet --unit=calls dd if=/dev/zero of=/dev/null bs=1
systemctl is-active busy calls
",
    ),
    step(
        "record",
        &["install", "busy"],
        180,
        "profiler record --unit busy -d 5 -o busy.folded
profiler report busy.folded -o busy.svg
keep busy.folded busy.svg
",
    ),
    step(
        "wall",
        &["install", "busy"],
        180,
        "profiler record --unit busy --wall -d 3 -o wall.folded
keep wall.folded
",
    ),
    step(
        "syscalls",
        &["install", "busy"],
        180,
        "profiler syscalls --unit calls -d 3 --json -o syscalls.json
keep syscalls.json
systemctl stop calls
",
    ),
    step(
        "postgres",
        &[],
        300,
        "echo 'host all all 127.0.0.1/32 trust' > /etc/postgresql/15/main/pg_hba.conf
echo 'local all all trust' >> /etc/postgresql/15/main/pg_hba.conf
systemctl start postgresql@15-main
pgbench -U postgres -i -q postgres
systemd-run --quiet --unit=bench --setenv=PGSSLMODE=disable pgbench -U postgres -h 127.0.0.1 -c 2 -T 3600 postgres
systemctl is-active bench
",
    ),
    step(
        "queries",
        &["install", "postgres"],
        240,
        "profiler queries -p $(head -1 /var/lib/postgresql/15/main/postmaster.pid) -d 8 --json -o queries.json
keep queries.json
",
    ),
    step(
        "tcp",
        &["install", "postgres"],
        240,
        "systemd-run --quiet --unit=anew pgbench -U postgres -h 127.0.0.1 -C -S -T 3600 postgres
profiler tcp -p $(head -1 /var/lib/postgresql/15/main/postmaster.pid) -d 5 --json -o tcp.json
keep tcp.json
systemctl stop anew bench
",
    ),
    // As Debian's server and clients speak with each other, unless told otherwise.
    step(
        "tls",
        &["install", "postgres"],
        240,
        "systemd-run --quiet --unit=secret --setenv=PGSSLMODE=require pgbench -U postgres -h 127.0.0.1 -c 2 -T 3600 postgres
profiler queries -p $(head -1 /var/lib/postgresql/15/main/postmaster.pid) --tls auto -d 8 --json -o tls.json
keep tls.json
systemctl stop secret
",
    ),
    step(
        "start",
        &["install", "busy"],
        300,
        "mkdir -p /etc/systemd/system/profiler.service.d /etc/profiler/profiler.d
# An emulated processor is some thirty times slower than the one that the budget is for.
printf '[Service]\\nCPUQuota=\\n' > /etc/systemd/system/profiler.service.d/emulated.conf
printf '[windows]\\nlength = \"5s\"\\n[overhead]\\nmax = \"100%%\"\\n' > /etc/profiler/profiler.d/emulated.toml
systemctl daemon-reload
cp /usr/share/doc/profiler/examples/perf-events.conf /etc/sysctl.d/
systemctl restart systemd-sysctl
profiler daemon --check
systemctl start profiler
systemctl is-active profiler
systemctl show profiler -p MainPID -p StatusText -p NRestarts -p User
test $(stat -c %U /var/lib/profiler) = profiler
",
    ),
    step(
        "confined",
        &["start"],
        60,
        "systemd-analyze security profiler --no-pager --threshold 31\n",
    ),
    step(
        "windows",
        &["start"],
        240,
        "for i in $(seq 20); do
  profiler report --since 10m --unit busy -o windows.folded && grep -q '^sh;' windows.folded && break
  sleep 3
done
profiler report --since 10m -o windows.svg
keep windows.folded windows.svg
",
    ),
    step(
        "reload",
        &["start"],
        120,
        "before=$(systemctl show -p MainPID --value profiler)
systemctl reload profiler
systemctl is-active profiler
test $(systemctl show -p MainPID --value profiler) = $before
journalctl -u profiler -o cat --no-pager | tail -5
",
    ),
    step(
        "watchdog",
        &["start"],
        240,
        "before=$(systemctl show -p MainPID --value profiler)
kill -STOP $before
for i in $(seq 200); do
  now=$(systemctl show -p MainPID --value profiler)
  if test $now != 0 && test $now != $before && systemctl is-active profiler; then break; fi
  sleep 1
done
journalctl -u profiler -o cat --no-pager | grep -i watchdog
test $(systemctl show -p NRestarts --value profiler) = 1
refuse kill -0 $before
",
    ),
    step(
        "stop",
        &["start"],
        120,
        "systemctl stop profiler
test $(systemctl show -p Result --value profiler) = success
journalctl -u profiler -o short-monotonic --no-pager > journal.txt
keep journal.txt
",
    ),
    step(
        "remove",
        &["install"],
        120,
        "dpkg -r profiler
refuse command -v profiler
test -e /etc/profiler/profiler.toml
",
    ),
    step(
        "purge",
        &["remove"],
        120,
        "dpkg -P profiler
rm /etc/sysctl.d/perf-events.conf
everything > after
diff before after
refuse getent passwd profiler
",
    ),
];

/// All, or those of these names, with what they need.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Step>> {
    if names.is_empty() {
        return Ok(STEPS.iter().collect());
    }
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        let step = STEPS.iter().find(|step| step.name == name);
        let all: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        wanted.push(
            step.with_context(|| format!("no step {name}: there are {}", all.join(", ")))?
                .name,
        );
    }
    // Backwards, as each needs only earlier ones.
    for step in STEPS.iter().rev() {
        if wanted.contains(&step.name) {
            wanted.extend(step.needs);
        }
    }
    Ok(STEPS
        .iter()
        .filter(|step| wanted.contains(&step.name))
        .collect())
}

/// Makes the folder that the machine shares with us.
pub(super) fn lay_out(share: &Path, deb: &Path, steps: &[&Step]) -> Result<()> {
    if share.exists() {
        fs::remove_dir_all(share)?;
    }
    fs::create_dir_all(share.join("steps"))?;
    fs::create_dir_all(share.join("out"))?;
    fs::copy(deb, share.join("profiler.deb"))
        .with_context(|| format!("no package {}", deb.display()))?;
    fs::write(share.join("library"), LIBRARY)?;
    for step in steps {
        fs::write(
            share.join("steps").join(step.name),
            format!(". /host/library\n{}", step.shell),
        )?;
    }
    fs::write(share.join("run"), script(steps))?;
    Ok(())
}

/// Runs them one after the other, to the first that fails; a status is there whole or not at all.
fn script(steps: &[&Step]) -> String {
    let mut script = "\
cd /host
up() { cut -d ' ' -f 1 /proc/uptime; }
step() {
  began=$(up)
  timeout -k 5 $2 sh -eux steps/$1 > out/$1.txt 2>&1 < /dev/null
  status=$?
  echo \"$status $began $(up)\" > out/part
  mv out/part out/$1.status
  echo \"step $1: status $status\"
  [ $status = 0 ] || exit 1
}
"
    .to_owned();
    script.extend(
        steps
            .iter()
            .map(|step| format!("step {} {}\n", step.name, step.limit.as_secs())),
    );
    script
}

impl Step {
    /// What it printed.
    pub(super) fn printed(&self, share: &Path) -> PathBuf {
        share.join("out").join(format!("{}.txt", self.name))
    }

    /// How it ended, if it has.
    pub(super) fn outcome(&self, share: &Path) -> Result<Option<Outcome>> {
        let file = share.join("out").join(format!("{}.status", self.name));
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&file)?;
        parse(&text)
            .map(Some)
            .with_context(|| format!("malformed: {} has `{}`", file.display(), text.trim()))
    }
}

/// A status, and uptimes in seconds before and after.
fn parse(text: &str) -> Option<Outcome> {
    let mut words = text.split_whitespace();
    let status = words.next()?.parse().ok()?;
    let began: f64 = words.next()?.parse().ok()?;
    let ended: f64 = words.next()?.parse().ok()?;
    Some(Outcome {
        status,
        seconds: ended - began,
    })
}

#[cfg(test)]
mod tests {
    use super::{STEPS, chosen, parse, script};

    fn names_of(names: &[&str]) -> Vec<&'static str> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        chosen(&names)
            .unwrap()
            .iter()
            .map(|step| step.name)
            .collect()
    }

    /// What is asked for comes with what it needs, in the order in which all run.
    #[test]
    fn a_step_comes_after_what_it_needs() {
        let names = names_of(&["queries"]);
        assert_eq!(names, ["install", "postgres", "queries"]);
        assert_eq!(names_of(&[]).len(), STEPS.len());
        assert!(chosen(&["querie".to_owned()]).is_err());
        for (index, step) in STEPS.iter().enumerate() {
            let earlier = |name: &&str| STEPS[..index].iter().any(|step| step.name == *name);
            assert!(
                step.needs.iter().all(earlier),
                "{} needs a later step",
                step.name
            );
        }
    }

    /// A script without its steps would be a machine that succeeds at nothing.
    #[test]
    fn the_script_runs_each_step_with_its_limit() {
        let script = script(&chosen(&["doctor".to_owned()]).unwrap());
        assert!(
            script.ends_with("step install 120\nstep doctor 120\n"),
            "{script}"
        );
    }

    /// Only a whole line is an outcome.
    #[test]
    fn a_status_that_is_cut_is_no_status() {
        let outcome = parse("1 10.50 12.75\n").unwrap();
        assert_eq!(
            (outcome.status, outcome.seconds.to_string()),
            (1, "2.25".to_owned())
        );
        assert!(parse("1 10.50").is_none() && parse("").is_none());
    }
}
