//! The machine itself: started, watched, and ended by its own power off or by us.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    kernel::Unpacked,
    steps::{Outcome, Step},
};
use crate::{interrupt, shell};

/// From power on to the first step.
const BOOT_MAX: Duration = Duration::from_secs(300);
/// How often its results are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Lines of the console that an error shows.
const TAIL: usize = 15;

/// The console goes into a file, failures of a unit are told there, and a kernel that panics ends the machine. On an
/// emulated processor that others use too a thread may wait for minutes, which is no stall of the kernel's.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=4 mitigations=off random.trust_cpu=on \
     rcupdate.rcu_cpu_stall_timeout=300 \
     systemd.mask=getty.target systemd.mask=systemd-timesyncd.service systemd.mask=apt-daily.timer \
     systemd.mask=apt-daily-upgrade.timer systemd.mask=e2scrub_all.timer systemd.mask=fstrim.timer";

/// What a machine is made of.
pub(super) struct Machine<'a> {
    /// Its disk, of which it gets a copy that is thrown away.
    pub(super) image: &'a Path,
    pub(super) kernel: &'a Unpacked,
    pub(super) initramfs: &'a Path,
    /// How its kernel preempts, if not as it comes.
    pub(super) preempt: Option<&'static str>,
    /// What it shares with us.
    pub(super) share: &'a Path,
    /// Where everything goes that it prints.
    pub(super) console: &'a Path,
}

/// Ends with us, also by an error.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Runs the steps, telling each; an error names the first that failed, and where everything printed is.
    pub(super) fn run(&self, steps: &[&Step]) -> Result<()> {
        self.watch(steps).with_context(|| {
            let printed = fs::read_to_string(self.console).unwrap_or_default();
            let lines: Vec<&str> = printed.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            format!(
                "the machine's console is {}, which ends in:\n{tail}\n",
                self.console.display()
            )
        })
    }

    fn watch(&self, steps: &[&Step]) -> Result<()> {
        let log = File::create(self.console.with_extension("qemu"))?;
        let mut qemu = Running(
            self.qemu()
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?,
        );
        let began = Instant::now();
        let mut limit = began + BOOT_MAX;
        for step in steps {
            limit += step.limit + LOOK;
            let outcome = loop {
                interrupt::check()?;
                if let Some(outcome) = step.outcome(self.share)? {
                    break outcome;
                }
                ensure!(Instant::now() < limit, "no end of step {}", step.name);
                if let Some(status) = qemu.0.try_wait()? {
                    // It may have ended between the two looks.
                    break step.outcome(self.share)?.with_context(|| {
                        format!(
                            "the machine went off ({status}) before the end of step {}",
                            step.name
                        )
                    })?;
                }
                sleep(LOOK);
            };
            tell(step, &outcome, self.share)?;
        }
        self.off(&mut qemu)
    }

    fn off(&self, qemu: &mut Running) -> Result<()> {
        let limit = Instant::now() + BOOT_MAX;
        while qemu.0.try_wait()?.is_none() {
            interrupt::check()?;
            ensure!(
                Instant::now() < limit,
                "the machine does not turn itself off"
            );
            sleep(LOOK);
        }
        println!("off; its console is {}", self.console.display());
        Ok(())
    }

    fn command_line(&self) -> String {
        let preempt = self.preempt.map(|mode| format!(" preempt={mode}"));
        format!("{COMMAND_LINE}{}", preempt.unwrap_or_default())
    }

    fn qemu(&self) -> Command {
        let mut qemu = shell::command("qemu-system-x86_64", &[]);
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        // Two processors, as anything per-CPU is trivial on one.
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max,la57=off",
            "-smp",
            "2",
            "-m",
            "2G",
        ])
        .arg("-append")
        .arg(self.command_line())
        .arg("-kernel")
        .arg(self.kernel.image())
        .arg("-initrd")
        .arg(self.initramfs)
        .arg("-serial")
        .arg(format!("file:{}", self.console.display()))
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=virtio,snapshot=on",
            self.image.display()
        ));
        let modules = self.kernel.modules();
        for (tag, folder, more) in [
            ("host", self.share, ""),
            ("modules", &modules, ",readonly=on"),
        ] {
            let options = "security_model=passthrough,multidevs=remap";
            qemu.arg("-virtfs").arg(format!(
                "local,path={},mount_tag={tag},{options}{more}",
                folder.display()
            ));
        }
        qemu
    }
}

fn tell(step: &Step, outcome: &Outcome, share: &Path) -> Result<()> {
    let printed = step.printed(share);
    if outcome.status == 0 {
        println!("ok {} ({:.0} s)", step.name, outcome.seconds);
        return Ok(());
    }
    let talk = fs::read_to_string(&printed).unwrap_or_default();
    let why = if outcome.status == 124 {
        "took too long"
    } else {
        "failed"
    };
    bail!(
        "step {} {why} (status {}); {}:\n{talk}",
        step.name,
        outcome.status,
        printed.display()
    )
}
