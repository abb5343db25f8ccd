//! The system calls that the child may make: what reading files, memory and the socket take, and its own end.
//! Everything else fails with `EPERM`.
//!
//! `readlink` is not among them: by it blazesym would learn where a file lies, and open what the file's
//! debug link names beside it, which may be a pipe. We look for such files ourselves.

use std::io;

use libc::{c_long, sock_filter, sock_fprog};

/// Fields of `struct seccomp_data`, by their offsets.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of an argument; both architectures are little-endian.
const ARGUMENTS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const OURS: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OURS: u32 = 0xc000_00b7;

/// Allowed whatever the arguments.
const PLAIN: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_memfd_create,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrusage,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
#[cfg(target_arch = "x86_64")]
const OF_THE_ARCHITECTURE: &[c_long] = &[libc::SYS_stat, libc::SYS_lstat];
#[cfg(not(target_arch = "x86_64"))]
const OF_THE_ARCHITECTURE: &[c_long] = &[];

/// A condition on one argument.
#[derive(Clone, Copy)]
enum Argument {
    /// None of these bits.
    Without(u32, u32),
    /// This value.
    Is(u32, u32),
}

/// Allowed on a condition: files are only read, memory is never executed, and the process sets its own limits
/// and sends itself signals, which is how it aborts.
fn conditional(pid: u32) -> [(c_long, Argument); 5] {
    let executable = Argument::Without(2, libc::PROT_EXEC.cast_unsigned());
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_PATH;
    [
        (
            libc::SYS_openat,
            Argument::Without(2, writing.cast_unsigned()),
        ),
        (libc::SYS_mmap, executable),
        (libc::SYS_mprotect, executable),
        (libc::SYS_prlimit64, Argument::Is(0, 0)),
        (libc::SYS_tgkill, Argument::Is(0, pid)),
    ]
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k,
    }
}

/// Goes on with the next instruction where the comparison holds, else behind so many.
fn unless_skip(code: u32, k: u32, skip: u8) -> sock_filter {
    sock_filter {
        code: u16::try_from(libc::BPF_JMP | libc::BPF_K | code).unwrap_or_default(),
        jt: 0,
        jf: skip,
        k,
    }
}

fn program(pid: u32) -> Vec<sock_filter> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let end = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let number = |number: c_long| u32::try_from(number).unwrap_or(u32::MAX);
    let mut program = vec![
        load(ARCHITECTURE),
        unless_skip(libc::BPF_JEQ, OURS, 1),
        unless_skip(libc::BPF_JA, 1, 0),
        end(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    for &call in PLAIN.iter().chain(OF_THE_ARCHITECTURE) {
        program.push(unless_skip(libc::BPF_JEQ, number(call), 1));
        program.push(end(libc::SECCOMP_RET_ALLOW));
    }
    for (call, argument) in conditional(pid) {
        program.push(unless_skip(libc::BPF_JEQ, number(call), 4));
        let (index, test, met, unmet) = match argument {
            Argument::Without(index, bits) => {
                let test = unless_skip(libc::BPF_JSET, bits, 1);
                (index, test, refuse, libc::SECCOMP_RET_ALLOW)
            }
            Argument::Is(index, value) => {
                let test = unless_skip(libc::BPF_JEQ, value, 1);
                (index, test, libc::SECCOMP_RET_ALLOW, refuse)
            }
        };
        program.extend([load(ARGUMENTS + 8 * index), test, end(met), end(unmet)]);
    }
    program.push(end(refuse));
    program
}

/// Puts the filter on this thread, for good. Wants `no_new_privs`.
pub(super) fn install() -> io::Result<()> {
    let mut program = program(std::process::id());
    let filter = sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
