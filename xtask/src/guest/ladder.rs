//! The steps, in their order: each a few lines of a shell, which know [`LIBRARY`].

use std::time::Duration;

use super::steps::Step;

/// Known to each step. A timer of Debian's writes to `/var/backups` once a day, as when the clock is set ahead.
pub(super) const LIBRARY: &str = "\
refuse() { if \"$@\" >/dev/null 2>&1; then echo \"should fail: $*\"; exit 1; fi; }
keep() { cp \"$@\" /host/out/; }
everything() {
  find / -xdev \\( -path /host -o -path /usr/lib/modules -o -path /tmp -o -path /var/tmp -o -path /var/log \\
    -o -path /root -o -path /var/backups -o -path /var/lib/postgresql \\
    -o -path /var/lib/systemd \\) -prune -o -print | sort
}
dropins=/etc/systemd/system/profiler.service.d
queries=/etc/profiler/profiler.d/queries.toml
folder=/var/lib/profiler/windows
kept() { ls $folder | wc -l; }
live() {
  profiler=$(cat /host/live/where)
  mkdir -p $(dirname $profiler)
  cp /host/live/profiler $profiler
  cp /host/live/test .
}
within() { for i in $(seq 40); do if eval \"$1\"; then return; fi; sleep 2; done; echo \"never: $1\"; exit 1; }
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
pub(super) static STEPS: &[Step] = &[
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
    // The profiler then has a tracefs of its own, which nobody else sees.
    step(
        "tracefs",
        &["install", "postgres"],
        240,
        "systemctl stop sys-kernel-tracing.mount sys-kernel-debug.mount
refuse grep -E ' (tracefs|debugfs) ' /proc/mounts
systemd-run --quiet --unit=reading dd if=/dev/zero of=/dev/null bs=1
profiler syscalls --unit reading -d 3 --json -o bare-syscalls.json
systemctl stop reading
systemd-run --quiet --unit=bare --setenv=PGSSLMODE=disable pgbench -U postgres -h 127.0.0.1 -c 2 -T 3600 postgres
profiler queries -p $(head -1 /var/lib/postgresql/15/main/postmaster.pid) -d 8 --json -o bare-queries.json
systemctl stop bare
refuse grep -E ' (tracefs|debugfs) ' /proc/mounts
systemctl start sys-kernel-tracing.mount sys-kernel-debug.mount
keep bare-syscalls.json bare-queries.json
",
    ),
    // An emulated processor is some thirty times slower than the one that the unit's budget is for.
    step(
        "configure",
        &["install"],
        60,
        "mkdir -p $dropins /etc/profiler/profiler.d
printf '[Service]\nCPUQuota=\n' > $dropins/emulated.conf
printf '[windows]\nlength = \"5s\"\n[overhead]\nmax = \"100%%\"\n' > /etc/profiler/profiler.d/emulated.toml
printf '[queries]\ntargets = { units = [\"postgresql@15-main\"] }\n' > $queries
systemctl daemon-reload
",
    ),
    // Debian's kernels refuse perf events to whoever lacks CAP_SYS_ADMIN, as their default: what the unit says then, and
    // likewise where somebody has taken a capability from it.
    step(
        "refused",
        &["configure"],
        240,
        "test $(cat /proc/sys/kernel/perf_event_paranoid) = 3
refuse systemctl start profiler
systemctl stop profiler
journalctl -u profiler -o cat --no-pager > refused.txt
grep 'hint: kernel.perf_event_paranoid is 3.*sudo sysctl kernel.perf_event_paranoid=2.*perf-events.conf' refused.txt
caps=+bpf,+perfmon,+sys_ptrace,+dac_read_search,+syslog,+checkpoint_restore
few=\"setpriv --reuid profiler --regid profiler --clear-groups --inh-caps $caps --ambient-caps $caps\"
$few profiler daemon --check --config /etc/profiler/profiler.toml > check.txt || true
grep 'sampling: impossible here, .*kernel.perf_event_paranoid is 3' check.txt
$few profiler doctor > doctor.txt || true
grep 'kernel.perf_event_paranoid=2' doctor.txt
profiler daemon --check --config /etc/profiler/profiler.toml | grep 'perf events: by CAP_SYS_ADMIN'
printf '[Service]\nAmbientCapabilities=~CAP_PERFMON\nCapabilityBoundingSet=~CAP_PERFMON\n' > $dropins/less.conf
systemctl daemon-reload
refuse systemctl start profiler
systemctl stop profiler
journalctl -u profiler -o cat --no-pager | grep 'cannot record: capabilities: needs CAP_PERFMON'
rm $dropins/less.conf
systemctl daemon-reload
keep refused.txt check.txt
",
    ),
    step(
        "start",
        &["configure", "busy"],
        300,
        "for unit in calls bench; do systemctl stop $unit || true; done
cp /usr/share/doc/profiler/examples/perf-events.conf /etc/sysctl.d/
systemctl restart systemd-sysctl
test $(cat /proc/sys/kernel/perf_event_paranoid) = 2
profiler daemon --check
systemctl start profiler
systemctl is-active profiler
systemctl show profiler -p MainPID -p StatusText -p NRestarts -p User
grep CapEff:.000001c400080004 /proc/$(systemctl show -p MainPID --value profiler)/status
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
    // 200 calls of a statement that nobody else makes, on connections that begin while the daemon watches.
    step(
        "table",
        &["start", "postgres"],
        300,
        "echo 'SELECT count(*) AS known FROM pgbench_branches WHERE bid = :client_id' > known.sql
PGSSLMODE=disable pgbench -n -U postgres -h 127.0.0.1 -c 2 -t 100 -f known.sql postgres
counted() { profiler queries --since 10m --json -o table.json && python3 -c '
import json
print(sum(row[\"calls\"] for row in json.load(open(\"table.json\"))[\"statements\"] if \"AS known\" in row[\"statement\"]))'; }
for i in $(seq 60); do
  test \"$(counted)\" = 200 && break
  sleep 2
done
keep table.json
",
    ),
    // Further than windows are kept for, and right again; by the same daemon, which a restart would hide.
    step(
        "clock",
        &["start"],
        600,
        "daemon=$(systemctl show -p MainPID --value profiler)
before=$(kept)
first=$(ls $folder | head -1)
date -s '+10 days'
within \"profiler report --since 11d -f json -o ahead.json && grep 'clock set ahead' ahead.json\"
test -e $folder/$first
journalctl -u profiler -o cat --no-pager | grep 'clock set ahead'
date -s '10 days ago'
within \"profiler report --since 1h -f json -o back.json && grep 'clock set back' back.json\"
test -e $folder/$first
test $(kept) -gt $before
test $(systemctl show -p MainPID --value profiler) = $daemon
keep ahead.json back.json
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
rm -f /etc/sysctl.d/perf-events.conf
everything > after
diff before after
refuse getent passwd profiler
",
    ),
    // Debian's kernels preempt as their command line says, where they know that word.
    step(
        "preemption",
        &[],
        900,
        "mode=$(sed -n 's/.* preempt=//p' /proc/cmdline)
test -z \"$mode\" || grep -w \"($mode)\" /sys/kernel/debug/sched/preempt
live
CI=true timeout -k 5 800 ./test --exact preemption::no_record_holds_another_processs_bytes --show-output > canaries.txt 2>&1 ||
  failed=yes
dmesg > kernel.txt
keep canaries.txt kernel.txt
test -z \"${failed-}\"
",
    ),
    // Of the whole host, as only a machine of its own allows.
    step(
        "hostile",
        &[],
        1800,
        "live
PROFILER_HOST_WIDE=1 CI=true timeout -k 5 1700 ./test --exact --show-output \
  hostile_symbols::the_daemon_goes_on_beside_hostile_files > hostile.txt 2>&1 || failed=yes
keep hostile.txt
test -z \"${failed-}\"
",
    ),
    // Each is a program of its own, so that one that hangs takes no other with it.
    step(
        "live",
        &[],
        3600,
        "live
failed=
for name in $(cat /host/live/names); do
  cut -d ' ' -f 1 /proc/uptime
  CI=true timeout -k 5 300 ./test --exact $name --show-output > one.txt 2>&1 || failed=\"$failed $name\"
  cat one.txt >> /host/out/tests.txt
done
test -z \"$failed\"
",
    ),
];
