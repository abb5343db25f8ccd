//! Debian's kernels: the package that is the newest of a suite now, unpacked. Nothing is installed here.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::shell::{self, output};

/// Where Debian is.
pub(super) const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security bookworm-security";
const BACKPORTS: &str = "http://deb.debian.org/debian bookworm-backports";
const TRIXIE: &str = "http://deb.debian.org/debian trixie";
const SID: &str = "http://deb.debian.org/debian sid";
/// Whose signature its packages have.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package that depends on the newest kernel.
const NEWEST: &str = "linux-image-amd64";

/// How a kernel is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// As it comes.
    Plain,
    /// With this `preempt=`.
    Preempt(&'static str),
    /// Not so: it does not know this `preempt=`, for that reason.
    Unknown(&'static str, &'static str),
}

/// A kernel of Debian's.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    source: &'static str,
    /// One machine each. The plain ones are for all steps but that of preemption, the others for that one.
    pub(super) boots: &'static [Boot],
}

/// Those that the profiler is tried on.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "6.1",
        source: SECURITY,
        boots: &[Boot::Plain],
    },
    Kernel {
        name: "6.12",
        source: BACKPORTS,
        boots: &[Boot::Plain],
    },
    Kernel {
        name: "trixie",
        source: TRIXIE,
        boots: &[
            Boot::Preempt("none"),
            Boot::Unknown("lazy", "it came with 6.13"),
            Boot::Preempt("full"),
        ],
    },
    Kernel {
        name: "sid",
        source: SID,
        boots: &[
            Boot::Unknown("none", "given up where there is `lazy`"),
            Boot::Preempt("lazy"),
            Boot::Preempt("full"),
        ],
    },
];

/// An unpacked kernel.
pub(super) struct Unpacked {
    /// As `uname -r` says it.
    pub(super) release: String,
    folder: PathBuf,
}

impl Unpacked {
    /// Its image, which newer ones have beside their modules.
    pub(super) fn image(&self) -> PathBuf {
        let beside = self.modules().join(&self.release).join("vmlinuz");
        if beside.exists() {
            return beside;
        }
        self.folder.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// The folder of modules of all kernels, which is only this one's.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules")
    }

    /// A file for what is made of it.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What is there already stays; a new one is downloaded, unpacked and indexed.
pub(super) fn fetch(folder: &Path, kernel: &Kernel) -> Result<Unpacked> {
    let into = folder.join(format!("kernel-{}", kernel.name));
    if !into.exists() {
        let part = folder.join(format!("kernel-{}.part", kernel.name));
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        let unpacked = download(&part, kernel.source)?;
        shell::run(
            Command::new("depmod")
                .arg("-b")
                .arg(&part)
                .arg(&unpacked.release),
        )?;
        fs::rename(&part, &into)?;
    }
    Ok(Unpacked {
        release: release(&into)?,
        folder: into,
    })
}

fn download(into: &Path, source: &str) -> Result<Unpacked> {
    let settings = settings(into, source)?;
    let apt = |program: &str, arguments: &[&str]| {
        let mut apt = Command::new(program);
        apt.args(arguments)
            .env("APT_CONFIG", &settings)
            .current_dir(into);
        apt
    };
    shell::run(&mut apt("apt-get", &["-q", "update"]))?;
    let described = output(&mut apt(
        "apt-cache",
        &["show", "--no-all-versions", NEWEST],
    ))
    .with_context(|| format!("{source} has no {NEWEST}"))?;
    let package = depended_on(&described)
        .with_context(|| format!("{NEWEST} of {source} depends on no kernel"))?;
    let described = output(&mut apt("apt-cache", &["show", package]))
        .with_context(|| format!("{source} has no {package}"))?;
    let mut download = vec!["-q", "download", package];
    download.extend(parts(&described, package));
    shell::run(&mut apt("apt-get", &download))?;
    for entry in fs::read_dir(into)? {
        let file = entry?.path();
        if file.extension().is_some_and(|suffix| suffix == "deb") {
            shell::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(into))?;
            fs::remove_file(file)?;
        }
    }
    fs::remove_dir_all(into.join("apt"))?;
    // Newer ones have their modules below `usr`, where this `depmod` does not look.
    if !into.join("lib").exists() {
        symlink("usr/lib", into.join("lib"))?;
    }
    Ok(Unpacked {
        release: release(into)?,
        folder: into.to_owned(),
    })
}

/// Settings of apt that leave this machine's own sources and lists alone. A mirror may be weeks old: what sid has is
/// signed for ten days only.
fn settings(folder: &Path, source: &str) -> Result<PathBuf> {
    let apt = folder.join("apt");
    for below in ["lists/partial", "cache/archives/partial", "preferences.d"] {
        fs::create_dir_all(apt.join(below))?;
    }
    fs::write(apt.join("status"), "")?;
    fs::write(
        apt.join("sources.list"),
        format!("deb [signed-by={KEYRING}] {source} main\n"),
    )?;
    let settings = apt.join("apt.conf");
    let at = apt.display();
    fs::write(
        &settings,
        format!(
            "Dir::State \"{at}\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc \"{at}\";\nDir::Etc::sourceparts \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\nAcquire::Languages \"none\";\n\
             APT::Architecture \"amd64\";\nAPT::Sandbox::User \"root\";\nAcquire::Check-Valid-Until \"false\";\n"
        ),
    )?;
    Ok(settings)
}

/// The packages that one depends on, by its description.
fn dependencies(described: &str) -> impl Iterator<Item = &str> {
    let depends = described
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "));
    depends.into_iter().flat_map(|line| line.split([' ', ',']))
}

/// The kernel that the package without a version depends on.
fn depended_on(described: &str) -> Option<&str> {
    dependencies(described).find(|package| package.starts_with("linux-image-"))
}

/// The packages of the same release that a kernel's depends on: newer ones have their files in several.
fn parts<'a>(described: &'a str, package: &str) -> impl Iterator<Item = &'a str> {
    let release = package.trim_start_matches("linux-image-").to_owned();
    let is_part = move |name: &&str| name.starts_with("linux-") && name.ends_with(&release);
    dependencies(described).filter(is_part)
}

fn release(folder: &Path) -> Result<String> {
    let modules = folder.join("lib/modules");
    let entry = fs::read_dir(&modules)
        .with_context(|| format!("no kernel in {}", folder.display()))?
        .next()
        .with_context(|| format!("no modules in {}", modules.display()))?;
    Ok(entry?.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{depended_on, parts};

    /// A kernel that comes in pieces comes whole.
    #[test]
    fn a_kernel_is_all_packages_of_its_release() {
        let described = "Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.2.1-amd64 (= 7.2.1-1), \
                         linux-binary-7.2.1-amd64 (= 7.2.1-1), linux-base (>= 4.3)\n";
        let parts: Vec<&str> = parts(described, "linux-image-7.2.1-amd64").collect();
        assert_eq!(
            parts,
            ["linux-base-7.2.1-amd64", "linux-binary-7.2.1-amd64"]
        );
    }

    /// The package without a version in its name says which one has it.
    #[test]
    fn the_newest_kernel_is_what_its_metapackage_depends_on() {
        let described = "Package: linux-image-amd64\nVersion: 6.1.192-2\n\
                         Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nSection: kernel\n";
        assert_eq!(depended_on(described), Some("linux-image-6.1.0-56-amd64"));
        let later = "Depends: linux-base-amd64 (= 7.2.1-1), linux-image-7.2.1-amd64 (= 7.2.1-1)\n";
        assert_eq!(depended_on(later), Some("linux-image-7.2.1-amd64"));
        assert_eq!(depended_on("Package: x\nDepends: libc6\n"), None);
    }
}
