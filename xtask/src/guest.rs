//! `cargo xtask test-kernel`: the package on Debian's kernels, in a machine of its own. qemu emulates it in
//! software, so that it needs no help of the processor; Debian's packages are its root file system and kernels.

mod image;
mod initramfs;
mod judge;
mod kernel;
mod ladder;
mod live;
mod machine;
mod steps;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use self::kernel::{Boot, KERNELS, Kernel};
use crate::{
    interrupt, package, setup,
    shell::{self, rung},
};

/// What is kept between runs, and what the guests printed.
const FOLDER: &str = "target/guest";

/// `cargo xtask test-kernel`
#[derive(Args)]
pub(crate) struct Options {
    /// Only this kernel: 6.1, 6.12, trixie or sid; several times for several [default: all]
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Only steps of this name, and what they need; several times for several
    #[arg(long, value_name = "NAME")]
    step: Vec<String>,
    /// This package instead of a new one
    #[arg(long, value_name = "FILE")]
    deb: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "making a root file system wants root: `sudo -E env PATH=\"$PATH\" cargo xtask test-kernel`"
    );
    let kernels = chosen(&options.kernel)?;
    interrupt::watch()?;
    setup::guest()?;
    let deb = match &options.deb {
        Some(deb) => deb
            .canonicalize()
            .with_context(|| format!("no package {}", deb.display()))?,
        None => package::make()?,
    };
    let folder = shell::root().join(FOLDER);
    fs::create_dir_all(&folder)?;
    let image = image::root(&folder)?;
    for kernel in kernels {
        for boot in kernel.boots {
            let preempt = match boot {
                Boot::Plain => None,
                Boot::Preempt(mode) => Some(*mode),
                Boot::Unknown(mode, why) => {
                    println!("\n== no preempt={mode} on Debian's {}: {why}", kernel.name);
                    continue;
                }
            };
            let how = preempt.map(|mode| format!(" with preempt={mode}"));
            let name = format!(
                "the package on Debian's {}{}",
                kernel.name,
                how.unwrap_or_default()
            );
            let guest = Guest {
                folder: &folder,
                image: &image,
                deb: &deb,
                kernel,
                preempt,
            };
            rung(&name, || guest.run(&options.step))?;
        }
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Kernel>> {
    for name in names {
        if !KERNELS.iter().any(|kernel| kernel.name == name) {
            let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
            bail!("no kernel {name} here: {}", known.join(", "));
        }
    }
    let wanted =
        |kernel: &&Kernel| names.is_empty() || names.iter().any(|name| name == kernel.name);
    Ok(KERNELS.iter().filter(wanted).collect())
}

/// One machine to be.
struct Guest<'a> {
    folder: &'a Path,
    image: &'a Path,
    deb: &'a Path,
    kernel: &'a Kernel,
    preempt: Option<&'static str>,
}

impl Guest<'_> {
    /// From power on to power off.
    fn run(&self, names: &[String]) -> Result<()> {
        let installed = kernel::fetch(self.folder, self.kernel)?;
        println!("kernel {}", installed.release);
        let initramfs = initramfs::pack(&installed)?;
        let name = [Some(self.kernel.name), self.preempt];
        let name = name.into_iter().flatten().collect::<Vec<_>>().join("-");
        let share = self.folder.join(format!("share-{name}"));
        let steps = steps::of_machine(self.preempt.is_none(), names)?;
        steps::lay_out(&share, self.deb, &steps)?;
        if steps.iter().any(|step| live::IN_STEPS.contains(&step.name)) {
            live::lay_out(&share)?;
        }
        let machine = machine::Machine {
            image: self.image,
            kernel: &installed,
            initramfs: &initramfs,
            preempt: self.preempt,
            share: &share,
            console: &self.folder.join(format!("console-{name}.log")),
        };
        machine.run(&steps)?;
        judge::artifacts(&share.join("out"), &steps)
    }
}
