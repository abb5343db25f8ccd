//! TCP connections are listed with the right figures: in network namespaces of the tests' own, against what the
//! programs did, what the kernel lists (`ss`) and what a link really dropped.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use serde_json::Value;

use rustix::process::Signal;

use crate::bench::{Bench, Target, bench, signal, text, until_watching};

/// What the programs have in common.
pub(crate) const COMMON: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
static struct sockaddr_in at(const char *ip, int port) { struct sockaddr_in a = { AF_INET, htons(port) }; inet_pton(AF_INET, ip, &a.sin_addr); return a; }
static int listening(int port, int backlog) {
  int s = socket(AF_INET, SOCK_STREAM, 0), one = 1; struct sockaddr_in a = at("0.0.0.0", port);
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); if (bind(s, (void *)&a, sizeof a) || listen(s, backlog)) abort(); return s;
}
static int connected(const char *ip, int port) {
  int s = socket(AF_INET, SOCK_STREAM, 0); struct sockaddr_in a = at(ip, port);
  if (connect(s, (void *)&a, sizeof a)) { close(s); return -1; } return s;
}
static void ms(int n) { nanosleep(&(struct timespec){ n / 1000, n % 1000 * 1000000 }, 0); }
static void go(void) { char c; puts("ready"); fflush(stdout); if (read(0, &c, 1) != 1) abort(); }
static void done(void) { puts("done"); fflush(stdout); pause(); }
static void whole(int s, char *b, long n) { while (n > 0) { long r = read(s, b, n < 65536 ? n : 65536); if (r <= 0) abort(); n -= r; } }
"#;

/// A program in a network namespace of its own, which says `ready` and waits for a word.
pub(crate) fn start(
    bench: &Bench,
    name: &str,
    source: &str,
) -> (Target, BufReader<std::process::ChildStdout>) {
    let program = bench.compile(name, &format!("{COMMON}{source}"), &["-lpthread", "-w"]);
    let script = format!("ip link set lo up && exec {}", program.display());
    let mut target = Target::spawn(Command::new("unshare").args(["-n", "sh", "-c", &script]));
    let mut lines = BufReader::new(target.0.stdout.take().expect("a pipe"));
    expect(&mut lines, "ready");
    (target, lines)
}

fn expect(lines: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    lines.read_line(&mut line).expect("the program talks");
    assert_eq!(line.trim_end(), wanted);
}

/// Watches a program from before it does anything until it prints a line, which is given too.
fn watched(bench: &Bench, target: &mut Target, lines: &mut impl BufRead) -> (Value, String) {
    let pid = target.pid();
    let mut command = bench.command(&["tcp", "--json", "-p", &pid, "-d", "10m"]);
    let watching = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the profiler runs");
    until_watching(&watching);
    let mut stdin = target.0.stdin.take().expect("a pipe");
    stdin.write_all(b"!").expect("it listens");
    target.0.stdin = Some(stdin);
    let mut line = String::new();
    lines.read_line(&mut line).expect("the program talks");
    signal(&watching, Signal::INT);
    let output = watching.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    println!("{}", report["account"]);
    assert_eq!(report["account"]["lost"], serde_json::json!({}));
    assert_eq!(report["account"]["notes"], serde_json::json!({}));
    (report, line.trim_end().to_owned())
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

pub(crate) fn connections<'a>(report: &'a Value, role: &str, port: &str) -> Vec<&'a Value> {
    let list = report["connections"].as_array().expect("a list");
    list.iter()
        .filter(|one| {
            let peer = if role == "server" { "local" } else { "remote" };
            one["role"] == role && one[peer].as_str().is_some_and(|end| end.ends_with(port))
        })
        .collect()
}

fn states(list: &[&Value]) -> BTreeMap<String, u64> {
    let mut states = BTreeMap::new();
    for one in list {
        let state = one["state"].as_str().expect("a text").to_owned();
        *states.entry(state).or_default() += 1;
    }
    states
}

/// A connection waits until its process takes it: an idle server's does not, a busy one's does.
#[test]
fn waiting_to_be_accepted_is_timed() {
    let Some(bench) = bench() else { return };
    let source = r#"
int main(void) {
  go(); int l = listening(4000, 10), c = connected("127.0.0.1", 4000);
  ms(300); int s = accept(l, 0, 0);
  ms(300); close(c); close(s); ms(200); done();
}
"#;
    let (mut target, mut lines) = start(&bench, "accepts", source);
    let (report, _) = watched(&bench, &mut target, &mut lines);
    let [server] = connections(&report, "server", ":4000")[..] else {
        panic!("one connection in {report:#}")
    };
    let waited_ms = number(&server["accept_ns"]) / 1_000_000;
    assert!((295..400).contains(&waited_ms), "{waited_ms} ms");
}

/// Every way to end is named, on both sides.
#[test]
fn ends_have_their_names() {
    let Some(bench) = bench() else { return };
    let source = r#"
static int l; 
void *server(void *a) {
  for (int i = 0; i < 4; i++) {
    int s = accept(l, 0, 0); char c; read(s, &c, 1);
    if (c == 'r') { struct linger g = { 1, 0 }; setsockopt(s, SOL_SOCKET, SO_LINGER, &g, sizeof g); close(s); }
    if (c == 'c') close(s);
    if (c == 'w') { read(s, &c, 1); close(s); }
  }
  return 0;
}
int main(void) {
  go(); l = listening(4000, 100); pthread_t t; pthread_create(&t, 0, server, 0);
  connected("127.0.0.1", 4001);
  listening(4002, 0); connected("127.0.0.1", 4002);
  int s = socket(AF_INET, SOCK_STREAM, 0), two = 1; setsockopt(s, IPPROTO_TCP, TCP_SYNCNT, &two, sizeof two);
  struct sockaddr_in a = at("127.0.0.1", 4002); if (!connect(s, (void *)&a, sizeof a)) abort(); close(s);
  char c; 
  int r = connected("127.0.0.1", 4000); write(r, "r", 1); read(r, &c, 1); close(r);
  int p = connected("127.0.0.1", 4000); write(p, "c", 1); read(p, &c, 1); close(p);
  int w = connected("127.0.0.1", 4000); write(w, "w", 1); ms(50); close(w);
  int h = connected("127.0.0.1", 4000); write(h, "h", 1); ms(50); shutdown(h, SHUT_WR);
  ms(300); done();
}
"#;
    let (mut target, mut lines) = start(&bench, "ends", source);
    let (report, _) = watched(&bench, &mut target, &mut lines);
    let state = |role: &str, port: &str| states(&connections(&report, role, port));
    let expected = |list: &[(&str, u64)]| -> BTreeMap<String, u64> {
        list.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect()
    };
    assert_eq!(state("client", ":4001"), expected(&[("refused", 1)]));
    assert_eq!(
        state("client", ":4002"),
        expected(&[("established", 1), ("timed out", 1)])
    );
    assert_eq!(
        state("client", ":4000"),
        expected(&[
            ("closed by peer", 1),
            ("closed by us", 1),
            ("half-closed by us", 1),
            ("reset by peer", 1)
        ])
    );
    assert_eq!(
        state("server", ":4000"),
        expected(&[
            ("closed by peer", 1),
            ("closed by us", 1),
            ("half-closed by peer", 1),
            ("reset by us", 1)
        ])
    );
    let timed_out = connections(&report, "client", ":4002");
    let timed_out = timed_out
        .iter()
        .find(|one| one["state"] == "timed out")
        .expect("one");
    assert!(number(&timed_out["retransmits"]) >= 1, "{timed_out}");
}

/// Ten thousand connections begun and ended in the window, of both ends, are all there, with every byte; and
/// that a pool is missing is said.
#[test]
fn ten_thousand_connections_are_accounted_for() {
    let Some(bench) = bench() else { return };
    let source = r#"
static int l;
void *server(void *a) { char b[4096]; for (;;) { int s = accept(l, 0, 0); whole(s, b, 100); write(s, b, 300); close(s); } }
int main(void) {
  go(); l = listening(4000, 1000); pthread_t t; pthread_create(&t, 0, server, 0);
  char b[4096] = { 0 };
  for (int i = 0; i < 10000; i++) { int s = connected("127.0.0.1", 4000); if (s < 0) abort(); write(s, b, 100); whole(s, b, 300); read(s, b, 1); close(s); }
  done();
}
"#;
    let (mut target, mut lines) = start(&bench, "churn", source);
    let (report, done) = watched(&bench, &mut target, &mut lines);
    assert_eq!(done, "done");
    let account = &report["account"];
    assert_eq!(
        (number(&account["begun"]), number(&account["listed"])),
        (20_000, 20_000)
    );
    let sum =
        |list: &[&Value], key: &str| -> u64 { list.iter().map(|one| number(&one[key])).sum() };
    for (role, sent, received, end) in [
        ("client", 1_000_000, 3_000_000, "closed by peer"),
        ("server", 3_000_000, 1_000_000, "closed by us"),
    ] {
        let list = connections(&report, role, ":4000");
        assert_eq!(states(&list), BTreeMap::from([(end.to_owned(), 10_000)]));
        assert_eq!(
            (sum(&list, "sent"), sum(&list, "received")),
            (sent, received),
            "{role}"
        );
    }
    let peers = report["peers"].as_array().expect("a list");
    let finding = peers
        .iter()
        .find(|peer| peer["role"] == "client")
        .and_then(|peer| peer["finding"].as_str());
    println!("{finding:?}");
    assert!(
        finding
            .is_some_and(|finding| finding.contains("127.0.0.1:4000") && finding.contains("pool"))
    );
}

/// A relay on a TUN device that swaps addresses, delays each packet by 20 ms and drops some with data; a client and a
/// server that talk through it.
const RELAY: &str = r#"
#define N 512
static int tun, l, lossy; static struct { uint64_t due; int len; unsigned char b[2048]; } queue[N]; static volatile unsigned in, out; static volatile int dropped;
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
void *reader(void *a) {
  unsigned data = 0;
  for (;;) {
    unsigned i = in % N; int n = read(tun, queue[i].b, 2048); unsigned char *b = queue[i].b;
    if (n < 40 || b[0] >> 4 != 4 || b[9] != 6 || in - out >= N - 1) continue;
    int head = (b[0] & 15) * 4 + (b[(b[0] & 15) * 4 + 12] >> 4) * 4;
    if (n > head && lossy && ++data % 50 == 25) { dropped++; continue; }
    unsigned char t[4]; memcpy(t, b + 12, 4); memcpy(b + 12, b + 16, 4); memcpy(b + 16, t, 4);
    queue[i].len = n; queue[i].due = now() + 20000000; __sync_synchronize(); in++;
  }
}
void *writer(void *a) { for (;;) { if (in == out) { usleep(200); continue; } unsigned i = out % N; uint64_t t = now(); if (queue[i].due > t) usleep((queue[i].due - t) / 1000 + 1); write(tun, queue[i].b, queue[i].len); out++; } }
void *server(void *a) { static char b[65536]; int s = accept(l, 0, 0); for (int i = 0; i < 20; i++) { whole(s, b, 20000); write(s, b, 30000); } pause(); return 0; }
int main(void) {
  struct ifreq r = { 0 }; tun = open("/dev/net/tun", O_RDWR); strcpy(r.ifr_name, "relay"); r.ifr_flags = IFF_TUN | IFF_NO_PI; if (ioctl(tun, TUNSETIFF, &r)) { puts("no tun"); return 0; }
  system("ip addr add 10.9.0.1/24 dev relay; ip link set relay up");
  pthread_t t; pthread_create(&t, 0, reader, 0); pthread_create(&t, 0, writer, 0);
  go(); l = listening(4000, 10); pthread_create(&t, 0, server, 0);
  int s = connected("10.9.0.2", 4000); lossy = 1; static char b[65536];
  for (int i = 0; i < 20; i++) { write(s, b, 20000); whole(s, b, 30000); }
  ms(300); printf("dropped %d\n", dropped); fflush(stdout); pause();
}
"#;

/// The figures of a connection are those that `ss -ti` shows of it.
fn assert_listed(one: &Value, listed: &str) {
    let local = one["local"].as_str().expect("a text");
    let mut lines = listed.lines();
    lines
        .find(|line| line.split_whitespace().nth(2) == Some(local))
        .expect("ss lists it");
    let facts = lines.next().expect("its figures");
    // Of `rtt:SMOOTHED/VARIATION` the first, of `retrans:NOW/TOTAL` the last.
    let fact = |key: &str, first: bool| -> f64 {
        let value = facts
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key));
        let mut parts = value.unwrap_or("0").split('/');
        let part = if first {
            parts.next()
        } else {
            parts.next_back()
        };
        part.and_then(|part| part.parse().ok()).expect("a number")
    };
    let ours = |key: &str| one[key].as_f64().expect("a number");
    let same = |theirs: f64, key: &str| {
        let ours = ours(key);
        assert!((theirs - ours).abs() < 1.0, "{key}: {theirs} and {ours}");
    };
    same(fact("rtt:", true) * 1000.0, "rtt_us");
    same(fact("minrtt:", true) * 1000.0, "min_rtt_us");
    same(fact("segs_out:", true), "segments_out");
    same(fact("segs_in:", true), "segments_in");
    same(fact("retrans:", false), "retransmits");
}

/// Over a link with a delay of 20 ms each way that drops segments: the figures are those of `ss`, the time to connect
/// is a round trip, and as many segments are sent again as were dropped, or more.
#[test]
fn figures_are_those_of_the_kernel() {
    let Some(bench) = bench() else { return };
    let (mut target, mut lines) = start(&bench, "relay", RELAY);
    let (report, line) = watched(&bench, &mut target, &mut lines);
    let dropped: u64 = line
        .strip_prefix("dropped ")
        .and_then(|number| number.parse().ok())
        .expect("the transfer is over");
    let (client, server) = (
        connections(&report, "client", ":4000")[0],
        connections(&report, "server", ":4000")[0],
    );
    println!("{dropped} dropped\n{client}\n{server}");
    assert_eq!(
        (number(&client["sent"]), number(&client["received"])),
        (400_000, 600_000)
    );
    assert_eq!(
        (number(&server["sent"]), number(&server["received"])),
        (600_000, 400_000)
    );
    let connect_ms = number(&client["connect_ns"]) / 1_000_000;
    assert!((40..80).contains(&connect_ms), "{connect_ms} ms");
    let again = number(&client["retransmits"]) + number(&server["retransmits"]);
    assert!(
        dropped > 5 && again >= dropped && again <= dropped * 3,
        "{again} for {dropped}"
    );
    let listed = Command::new("nsenter")
        .args([
            "-t",
            &target.pid(),
            "-n",
            "ss",
            "-tinH",
            "state",
            "established",
        ])
        .output()
        .expect("ss runs");
    let listed = text(&listed.stdout);
    println!("{listed}");
    for one in [client, server] {
        assert_listed(one, &listed);
    }
}

/// A connection that was open before is there from the beginning, and its end is seen; addresses of IPv6 and of
/// IPv4 within IPv6 are those that people know. Events are told as they come.
#[test]
fn connections_from_before_and_other_addresses() {
    let Some(bench) = bench() else { return };
    let source = r#"
int main(void) {
  int l = socket(AF_INET6, SOCK_STREAM, 0), off = 0; setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  struct sockaddr_in6 any = { AF_INET6, htons(4000) }; if (bind(l, (void *)&any, sizeof any) || listen(l, 10)) abort();
  char b[1000] = { 0 };
  int c4 = connected("127.0.0.1", 4000), s4 = accept(l, 0, 0); write(c4, b, 500); whole(s4, b, 500);
  go();
  write(c4, b, 700); whole(s4, b, 700); close(c4); ms(50); close(s4);
  int c6 = socket(AF_INET6, SOCK_STREAM, 0); struct sockaddr_in6 to = { AF_INET6, htons(4000), 0, IN6ADDR_LOOPBACK_INIT };
  if (connect(c6, (void *)&to, sizeof to)) abort(); int s6 = accept(l, 0, 0); write(s6, b, 50);
  ms(200); done();
}
"#;
    let (mut target, mut lines) = start(&bench, "before", source);
    let (report, _) = watched(&bench, &mut target, &mut lines);
    assert_eq!(number(&report["account"]["before"]), 2);
    let server = connections(&report, "server", "127.0.0.1:4000");
    assert_eq!(server.len(), 1);
    assert_eq!(
        (
            &server[0]["before"],
            number(&server[0]["received"]),
            &server[0]["state"]
        ),
        (&Value::Bool(true), 700, &Value::from("closed by peer"))
    );
    let six = connections(&report, "client", "[::1]:4000");
    assert_eq!((six.len(), number(&six[0]["receive_queue"])), (1, 50));
    let (mut target, _lines) = start(&bench, "before", source);
    let mut command = bench.command(&["tcp", "--events", "-p", &target.pid(), "-d", "3s"]);
    let watching = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the profiler runs");
    until_watching(&watching);
    let mut stdin = target.0.stdin.take().expect("a pipe");
    stdin.write_all(b"!").expect("it listens");
    let output = text(&watching.wait_with_output().expect("it ends").stdout);
    drop(stdin);
    for piece in [
        "closed by peer; 0 bytes sent, 700 received",
        "[::1]:4000 pid",
        ": accepted;",
        ": connected;",
        "# lost: nothing",
    ] {
        assert!(output.contains(piece), "no `{piece}` in\n{output}");
    }
    // A file of the program's own is all that it leaves.
    assert!(fs::exists(bench.path("before")).expect("a folder"));
}

/// With `--all` nobody is named, and the connections of a namespace of their own are there all the same, with whose they
/// are. What else the host has is neither asserted nor kept: it passes through a pipe and is dropped.
#[test]
fn all_has_the_connections_of_every_namespace() {
    let Some(bench) = bench() else { return };
    let source = r#"
int main(void) {
  int l = listening(4000, 100); char b[100] = { 0 }; int c0 = connected("127.0.0.1", 4000), s0 = accept(l, 0, 0);
  go();
  write(c0, b, 70); whole(s0, b, 70);
  for (int i = 0; i < 20; i++) { int c = connected("127.0.0.1", 4000), s = accept(l, 0, 0); write(c, b, 100); whole(s, b, 100); close(c); read(s, b, 1); close(s); }
  pause();
}
"#;
    let (mut target, _lines) = start(&bench, "everybody", source);
    let namespace = fs::metadata(format!("/proc/{}/ns/net", target.pid())).expect("it lives");
    let mut command = bench.command(&["tcp", "--all", "--json", "-d", "4s"]);
    let watching = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the profiler runs");
    until_watching(&watching);
    let mut stdin = target.0.stdin.take().expect("a pipe");
    stdin.write_all(b"!").expect("it listens");
    let output = watching.wait_with_output().expect("it ends");
    assert!(output.status.success());
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = report["connections"].as_array_mut().expect("a list");
    list.retain(|one| number(&one["net"]) == namespace.ino());
    let report = serde_json::json!({ "connections": list });
    // The client of the one from before is known by its port, which the kernel has given to it.
    for (role, bytes, expected) in [
        ("client", "sent", (1, 20, 2070)),
        ("server", "received", (1, 20, 2070)),
        ("?", "sent", (0, 0, 0)),
    ] {
        let list = connections(&report, role, ":4000");
        let sum: u64 = list.iter().map(|one| number(&one[bytes])).sum();
        let pid = Value::from(target.0.id());
        assert!(list.iter().all(|one| one["pid"] == pid), "{list:?}");
        let (old, new): (Vec<&Value>, Vec<&Value>) =
            list.iter().partition(|one| one["before"] == true);
        assert_eq!((old.len(), new.len(), sum), expected, "{role}");
        assert!(old.iter().all(|one| one["state"] == "established"));
        assert!(new.iter().all(|one| one["state"] != "established"));
    }
}
