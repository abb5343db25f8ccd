//! What the kernel starts with: the modules of disk and shared folder, which Debian's kernels have as modules, and a
//! shell that loads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::kernel::Unpacked;
use crate::shell::{self, output};

/// What has to be loaded, or be built in.
const MODULES: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    CHECKSUM,
    "ext4",
    "9pnet_virtio",
    "9p",
];

/// What ext4 asks for by an alias, which nobody answers yet. Newer kernels have it in themselves, by another name.
const CHECKSUM: &str = "crc32c_generic";

/// The first program of the machine.
const INIT: &str = "\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in $($b cat /order); do $b insmod $module; done
$b mount -t ext4 /dev/vda /root
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /root/host
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose modules /root/usr/lib/modules
$b umount /proc
exec $b switch_root /root /sbin/init
";

/// Packs it, beside the kernel.
pub(super) fn pack(kernel: &Unpacked) -> Result<PathBuf> {
    let tree = kernel.beside("initramfs");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for folder in ["bin", "dev", "modules", "proc", "root"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    let modules = kernel.modules().join(&kernel.release);
    let order = in_order(
        &fs::read_to_string(modules.join("modules.dep"))?,
        &fs::read_to_string(modules.join("modules.builtin"))?,
    )?;
    let mut list = String::new();
    for file in &order {
        let name = format!("modules/{}", stem(file));
        unpack(&modules.join(file), &tree.join(&name))?;
        list.extend(["/", &name, "\n"]);
    }
    fs::write(tree.join("order"), list)?;
    let packed = kernel.beside("initramfs.cpio");
    archive(&tree, &packed)?;
    Ok(packed)
}

/// Copies a module as it is loaded.
fn unpack(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|suffix| suffix == "xz") {
        let status = Command::new("xz")
            .arg("-dc")
            .arg(from)
            .stdout(File::create(to)?)
            .status()?;
        ensure!(status.success(), "cannot unpack {}", from.display());
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// In the format that the kernel reads.
fn archive(tree: &Path, to: &Path) -> Result<()> {
    let names = output(
        Command::new("find")
            .args([".", "-mindepth", "1"])
            .current_dir(tree),
    )
    .context("cannot list the initramfs")?;
    let list = tree.with_extension("list");
    fs::write(&list, names + "\n")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(tree)
        .stdin(File::open(&list)?)
        .stdout(Stdio::from(File::create(to)?));
    shell::run(&mut cpio)
}

/// The name of a module by its file.
fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name)
}

/// The files of what has to be loaded and of what that needs, each after what it needs; `depmod` wrote the lists.
fn in_order(dependencies: &str, built_in: &str) -> Result<Vec<String>> {
    let mut needs: BTreeMap<&str, (&str, Vec<&str>)> = BTreeMap::new();
    for line in dependencies.lines() {
        if let Some((file, rest)) = line.split_once(':') {
            needs.insert(stem(file), (file, rest.split_whitespace().collect()));
        }
    }
    let built_in: BTreeSet<&str> = built_in.lines().map(stem).collect();
    let mut order = Vec::new();
    for module in MODULES {
        let name = |known: &&str| known.replace('-', "_") == module;
        if built_in.iter().any(name) {
            continue;
        }
        let Some((_, (file, before))) = needs.iter().find(|(known, _)| name(known)) else {
            ensure!(module == CHECKSUM, "this kernel has no {module}");
            continue;
        };
        // The list has what is needed first at its end.
        for file in before.iter().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push((*file).to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::in_order;

    const DEPENDENCIES: &str = "\
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/net/9p/9pnet.ko.xz:
kernel/fs/9p/9p.ko.xz: kernel/fs/netfs/netfs.ko.xz kernel/net/9p/9pnet.ko.xz
kernel/fs/netfs/netfs.ko.xz:
";

    /// Each module comes after what it needs, once; what is built in is not loaded.
    #[test]
    fn each_module_comes_after_what_it_needs() {
        let built_in = "kernel/drivers/virtio/virtio_pci.ko\n";
        let order = in_order(DEPENDENCIES, built_in).unwrap();
        let names: Vec<&str> = order.iter().map(|file| super::stem(file)).collect();
        assert_eq!(
            names,
            [
                "virtio_blk",
                "crc32c_generic",
                "mbcache",
                "jbd2",
                "ext4",
                "9pnet",
                "9pnet_virtio",
                "netfs",
                "9p"
            ]
        );
    }

    /// A kernel that has the checksum in itself boots without its module.
    #[test]
    fn the_checksum_may_be_built_in_under_another_name() {
        let without: Vec<&str> = DEPENDENCIES
            .lines()
            .filter(|line| !line.contains("crc32c"))
            .collect();
        let order = in_order(&without.join("\n"), "kernel/drivers/virtio/virtio_pci.ko\n");
        assert_eq!(order.unwrap().len(), 8);
    }

    /// Without the module of its disk a machine would hang, far from the cause.
    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let error = in_order(DEPENDENCIES, "").unwrap_err().to_string();
        assert!(error.contains("virtio_pci"), "{error}");
    }
}
