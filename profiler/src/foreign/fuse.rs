//! Files of file systems that are programs: a program of a user's answers when it likes, and we would wait.

use rustix::fs::{major, minor};

use super::proc_text;

/// `FUSE_SUPER_MAGIC`
pub(super) const MAGIC: i64 = 0x6573_5546;
/// Longest list of mounts that is read.
const MOUNTS_MAX: u64 = 4 << 20;

/// Whether root runs the program behind a device, or the machine's host does, so that it is no target's.
pub(super) fn is_trusted(device: u64) -> bool {
    let mounts = proc_text(std::process::id(), "mountinfo", MOUNTS_MAX).unwrap_or_default();
    is_trusted_by(&mounts, &format!("{}:{}", major(device), minor(device)))
}

/// By a list of mounts (`man 5 proc_pid_mountinfo`). A mount that is not in our own list is not trusted.
fn is_trusted_by(mounts: &str, device: &str) -> bool {
    let mut of_device = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(device))
        .peekable();
    let is_trusted = |line: &str| {
        let mut words = line.rsplit(" - ").next().unwrap_or_default().split(' ');
        let (kind, options) = (words.next(), words.nth(1).unwrap_or_default());
        kind == Some("virtiofs") || options.split(',').any(|option| option == "user_id=0")
    };
    of_device.peek().is_some() && of_device.all(is_trusted)
}

#[cfg(test)]
mod tests {
    use super::is_trusted_by;

    /// Root's and the host's are trusted; a user's is not, whatever it is called, nor one that is not listed.
    #[test]
    fn users_programs_are_not_trusted() {
        let mounts = "\
            25 1 0:30 / /srv rw,relatime - fuse.sshfs a:/ rw,user_id=0,group_id=0,allow_other\n\
            26 1 0:31 / /home/a/m rw,nosuid - fuse.user_id=0 virtiofs rw,user_id=1000,group_id=0,allow_other\n\
            27 1 0:32 / /mnt rw - virtiofs share rw\n";
        let trusted = ["0:30", "0:31", "0:32", "0:33"].map(|device| is_trusted_by(mounts, device));
        assert_eq!(trusted, [true, false, true, false]);
    }
}
