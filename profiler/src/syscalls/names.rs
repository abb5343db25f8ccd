//! Names of system calls and of their errors, from a maintained table. A number that it does not know is shown
//! as a number.

use profiler_common::syscalls::{COMPAT, CallSettings, NUMBERS_MAX};
use syscalls::{Errno, Sysno};

use crate::wait;

/// The name of a call.
pub(super) fn call(number: u32) -> String {
    if number == super::OTHER_CALLS {
        return "all others".to_owned();
    }
    let plain = number & !COMPAT;
    let index = usize::try_from(plain).ok();
    if number & COMPAT != 0 {
        return compat(index).map_or_else(
            || format!("32-bit call {plain}"),
            |name| format!("{name} (32-bit)"),
        );
    }
    index
        .and_then(Sysno::new)
        .map_or_else(|| format!("call {plain}"), |known| known.name().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn compat(index: Option<usize>) -> Option<&'static str> {
    Some(syscalls::x86::Sysno::new(index?)?.name())
}

#[cfg(not(target_arch = "x86_64"))]
fn compat(_index: Option<usize>) -> Option<&'static str> {
    None
}

/// Whether what a call returns is the interrupted program's register, not a result of its own.
pub(super) fn has_no_result(number: u32) -> bool {
    matches!(
        call(number).as_str(),
        "rt_sigreturn" | "rt_sigreturn (32-bit)" | "sigreturn (32-bit)"
    )
}

/// The name of an error. Above 511 the kernel's own, which programs never see: the call is begun again or
/// interrupted instead (include/linux/errno.h).
pub(super) fn error(number: u32) -> String {
    let known = match number {
        512 => Some("ERESTARTSYS"),
        513 => Some("ERESTARTNOINTR"),
        514 => Some("ERESTARTNOHAND"),
        515 => Some("ENOIOCTLCMD"),
        516 => Some("ERESTART_RESTARTBLOCK"),
        _ => i32::try_from(number)
            .ok()
            .and_then(|number| Errno::new(number).name()),
    };
    known.map_or_else(|| format!("error {number}"), str::to_owned)
}

/// Sets the bit of each call that takes a descriptor first.
pub(super) fn mark_descriptor_calls(settings: &mut CallSettings) {
    for number in (0..NUMBERS_MAX).filter(|number| {
        Sysno::new(*number).is_some_and(|known| wait::takes_descriptor(known.name()))
    }) {
        settings.takes_descriptor[number / 64] |= 1 << (number % 64);
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::syscalls::{COMPAT, CallSettings};
    use syscalls::Sysno;

    use super::{call, error, has_no_result, mark_descriptor_calls};

    fn number(call: Sysno) -> u32 {
        u32::try_from(call.id()).unwrap()
    }

    /// Known numbers have names, others are shown; 32-bit calls have their own table.
    #[test]
    fn numbers_have_names() {
        assert_eq!(call(number(Sysno::futex)), "futex");
        assert_eq!(call(0x7fff), "call 32767");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(call(COMPAT | 4), "write (32-bit)");
        assert_eq!(call(COMPAT | 0x7fff), "32-bit call 32767");
        assert!(has_no_result(number(Sysno::rt_sigreturn)));
        assert_eq!(error(11), "EAGAIN");
        assert_eq!(error(512), "ERESTARTSYS");
        assert_eq!(error(4000), "error 4000");
    }

    /// Only calls on a descriptor are marked.
    #[test]
    fn descriptor_calls_are_marked() {
        let mut settings = CallSettings::UNSET;
        mark_descriptor_calls(&mut settings);
        let marked = |call: Sysno| {
            let number = number(call) as usize;
            settings.takes_descriptor[number / 64] >> (number % 64) & 1 == 1
        };
        assert!(marked(Sysno::read) && marked(Sysno::close) && marked(Sysno::fstat));
        assert!(!marked(Sysno::futex) && !marked(Sysno::getpid));
    }
}
