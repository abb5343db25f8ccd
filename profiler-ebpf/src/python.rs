//! The Python stack of the running task: its thread state, then the list of its frames.
//!
//! Only addresses are taken; see `profiler_common::python`.

use core::{ffi::c_void, mem::transmute, ptr};

use aya_ebpf::helpers::{bpf_loop, bpf_probe_read_user, generated};
use profiler_common::{
    limits::{PYTHON_FRAMES_MAX, PYTHON_STEPS_MAX, PYTHON_THREADS_MAX, PYTHON_WALK_MAX},
    outcome::{PythonStop, StopReason},
    python::{NONE, PythonFrame, checksum, step},
    sample::{GIL_FREE, GIL_HELD, GIL_UNKNOWN, SampleHeader, WORDS_MAX},
};

use crate::{
    maps::{PYTHON_THREADS, PYTHONS, Python, SCRATCH, Scratch},
    task::Task,
};

/// glibc keeps the values of a thread's first 32 keys here, counted from the thread pointer: pairs of
/// words of which the second one is the value (`struct pthread` of nptl/descr.h, x86-64).
const GLIBC_KEYS: u64 = 0x310;
const GLIBC_KEYS_MAX: u32 = 32;
/// musl has a pointer to them here (`struct pthread` of src/internal/pthread_impl.h).
const MUSL_KEYS: u64 = 128;
const MUSL_KEYS_MAX: u32 = 128;

/// Takes the Python stack, if the process has an interpreter, and fills in its part of the header. The
/// other stacks are taken already: it goes behind them.
#[inline(always)]
pub(crate) fn take<const FOR: u32>(scratch: *mut Scratch) {
    // SAFETY: `scratch` is a live map value.
    let header = unsafe { &mut (*scratch).header };
    header.python_len = 0;
    header.python_inner = 0;
    header.python_left_out = 0;
    header.python_stop = PythonStop::None as u8;
    header.gil = GIL_UNKNOWN;
    let has_user_stack = header.stop != StopReason::KernelThread as u8
        && header.stop != StopReason::Exiting as u8
        && header.stop != StopReason::NoRegisters as u8
        && header.stop != StopReason::Exec as u8
        && header.stop != StopReason::Ia32 as u8;
    if !has_user_stack {
        return;
    }
    // SAFETY: values are replaced as wholes, and a torn one makes reads fail.
    let Some(interpreter) = (unsafe { PYTHONS.get(header.tgid) }) else {
        return;
    };
    // SAFETY: `scratch` is a live map value.
    let python = unsafe { &mut (*scratch).python };
    python.interpreter = *interpreter;
    python.count = 0;
    python.at = 0;
    python.room = room(header);
    let Some(thread) = Task::current().thread_pointer() else {
        header.python_stop = PythonStop::NoThread as u8;
        return;
    };
    python.thread_pointer = thread;
    if !find_thread::<FOR>(python, header.tid) {
        header.python_stop = PythonStop::NoThread as u8;
        return;
    }
    header.gil = gil(python);
    walk::<FOR>(python);
    header.python_len = python.count.min(python.room) as u16;
    if python.count > python.room {
        header.python_inner = inner(python.room) as u16;
        header.python_left_out = (python.count - python.room) as u16;
    }
    header.python_stop = python.stop as u8;
}

/// Python frames that a record has room for beside the other stacks.
#[inline(always)]
fn room(header: &SampleHeader) -> u32 {
    let native = u32::from(header.kernel_len) + u32::from(header.user_len);
    ((WORDS_MAX as u32).saturating_sub(native) / 2).min(PYTHON_FRAMES_MAX as u32)
}

/// Of a stack with more frames than there is room for, how many innermost ones are kept; the other half are the
/// outermost ones.
#[inline(always)]
fn inner(room: u32) -> u32 {
    room / 2
}

/// Whether an address lies in the state of the process's interpreter, where its lock is.
#[inline(always)]
pub(crate) fn owns(tgid: u32, address: u64) -> bool {
    // SAFETY: as above.
    let interpreter = unsafe { PYTHONS.get(tgid) };
    interpreter.is_some_and(|interpreter| address - interpreter.runtime < interpreter.runtime_bytes)
}

/// Makes `python.state` the thread's state, if it has one.
#[inline(always)]
fn find_thread<const FOR: u32>(python: &mut Python, tid: u32) -> bool {
    if by_key(python) {
        return true;
    }
    // SAFETY: values are single words, read once.
    if let Some(state) = unsafe { PYTHON_THREADS.get(tid) }
        && is_ours(python, *state)
    {
        python.state = *state;
        return true;
    }
    python.state = 0;
    python.found = 0;
    let first = python.interpreter.runtime + u64::from(python.interpreter.layout.interpreters);
    python.next_interpreter = read(first).unwrap_or(0);
    // SAFETY: as in `unwind::walk`.
    let callback = unsafe {
        transmute::<unsafe extern "C" fn(u32, *mut c_void) -> i64, *mut c_void>(look_at::<FOR>)
    };
    // SAFETY: as in `unwind::walk`.
    unsafe { bpf_loop(PYTHON_THREADS_MAX as u32, callback, ptr::null_mut(), 0) };
    // SAFETY: a live map value; volatile, as the callback has written it.
    let found = unsafe { ptr::read_volatile(&raw const python.found) } != 0;
    if found {
        // No room costs the next look, no more.
        let _ = PYTHON_THREADS.insert(tid, python.state, 0);
    }
    found
}

/// The interpreter keeps each thread's state in thread-specific data, GIL or no GIL.
#[inline(always)]
fn by_key(python: &mut Python) -> bool {
    let layout = &python.interpreter.layout;
    if layout.thread_key == NONE {
        return false;
    }
    let key = python.interpreter.runtime + u64::from(layout.thread_key);
    let Some([is_set, key]) = read::<[u32; 2]>(key) else {
        return false;
    };
    if is_set == 0 {
        return false;
    }
    let base = python.thread_pointer;
    if key < GLIBC_KEYS_MAX
        && let Some(state) = read(base + GLIBC_KEYS + u64::from(key) * 16 + 8)
        && is_ours(python, state)
    {
        python.state = state;
        return true;
    }
    if key < MUSL_KEYS_MAX
        && let Some(values) = read::<u64>(base + MUSL_KEYS)
        && let Some(state) = read(values + u64::from(key) * 8)
        && is_ours(python, state)
    {
        python.state = state;
        return true;
    }
    false
}

/// Whether a thread state is that of the thread: it notes the thread's `pthread_self`, which is the
/// thread pointer.
#[inline(always)]
fn is_ours(python: &Python, state: u64) -> bool {
    let noted = state + u64::from(python.interpreter.layout.thread_id);
    state != 0 && read(noted) == Some(python.thread_pointer)
}

/// One iteration: the next thread state, or the next interpreter's first one. Returns 1 to end the loop.
unsafe extern "C" fn look_at<const FOR: u32>(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(FOR) else {
        return 1;
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    let python = unsafe { &mut (*scratch).python };
    let layout = &python.interpreter.layout;
    if python.state == 0 {
        let interpreter = python.next_interpreter;
        if interpreter == 0 {
            return 1;
        }
        python.state = read(interpreter + u64::from(layout.interpreter_threads)).unwrap_or(0);
        python.next_interpreter =
            read(interpreter + u64::from(layout.interpreter_next)).unwrap_or(0);
        return 0;
    }
    if is_ours(python, python.state) {
        python.found = 1;
        return 1;
    }
    python.state = read(python.state + u64::from(layout.thread_next)).unwrap_or(0);
    0
}

/// Whether the thread holds its interpreter's lock.
#[inline(always)]
fn gil(python: &Python) -> u8 {
    let layout = &python.interpreter.layout;
    let holder = if layout.current_thread != NONE {
        read(python.interpreter.runtime + u64::from(layout.current_thread))
    } else if layout.interpreter_gil != NONE {
        holder_of(python)
    } else {
        None
    };
    match holder {
        Some(holder) if holder == python.state => GIL_HELD,
        Some(_) => GIL_FREE,
        None => GIL_UNKNOWN,
    }
}

/// The last holder of the lock of the thread's interpreter, 0 if nobody holds it.
#[inline(always)]
fn holder_of(python: &Python) -> Option<u64> {
    let layout = &python.interpreter.layout;
    let interpreter: u64 = read(python.state + u64::from(layout.thread_interpreter))?;
    let gil: u64 = read(interpreter + u64::from(layout.interpreter_gil))?;
    let locked: i32 = read(gil + u64::from(layout.gil_locked))?;
    if locked <= 0 {
        return Some(0);
    }
    read(gil + u64::from(layout.gil_holder))
}

/// Walks the list of frames.
#[inline(always)]
fn walk<const FOR: u32>(python: &mut Python) {
    let layout = &python.interpreter.layout;
    python.begins = 1;
    python.stop = PythonStop::TooDeep as u32;
    let pointer = read(python.state + u64::from(layout.thread_frame));
    let frame = match pointer {
        Some(pointer) if pointer != 0 && layout.c_frame != NONE => {
            read(pointer + u64::from(layout.c_frame))
        }
        pointer => pointer,
    };
    let Some(frame) = frame else {
        python.stop = PythonStop::Unreadable as u32;
        return;
    };
    python.frame = frame;
    // SAFETY: as in `unwind::walk`.
    let callback = unsafe {
        transmute::<unsafe extern "C" fn(u32, *mut c_void) -> i64, *mut c_void>(push_frame::<FOR>)
    };
    // SAFETY: as in `unwind::walk`.
    unsafe { bpf_loop(PYTHON_STEPS_MAX as u32, callback, ptr::null_mut(), 0) };
}

/// One iteration: push the frame, step to its caller. Returns 1 to end the loop.
unsafe extern "C" fn push_frame<const FOR: u32>(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(FOR) else {
        return 1;
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    let scratch = unsafe { &mut *scratch };
    match advance(scratch) {
        Ok(()) => 0,
        Err(stop) => {
            scratch.python.stop = stop as u32;
            1
        }
    }
}

#[inline(always)]
fn advance(scratch: &mut Scratch) -> Result<(), PythonStop> {
    let python = &mut scratch.python;
    if python.frame == 0 {
        return Err(PythonStop::Outermost);
    }
    if !read_frame(python) {
        return Err(PythonStop::Unreadable);
    }
    let layout = &python.interpreter.layout;
    let step = step(layout, &python.words);
    let is_first = python.begins != 0;
    python.begins = u32::from(step.is_last);
    python.frame = step.back;
    if step.is_shim {
        // An activation without a frame: just entered, or about to return.
        return if is_first {
            push(
                scratch,
                PythonFrame {
                    is_first,
                    ..PythonFrame::default()
                },
            )
        } else {
            Ok(())
        };
    }
    let head = step.code + u64::from(layout.code_head);
    // SAFETY: the helper checks the source; the destination is a live map value of that size.
    let result = unsafe {
        generated::bpf_probe_read_user(
            (&raw mut python.head).cast(),
            size_of_val(&python.head) as u32,
            head as *const c_void,
        )
    };
    if result != 0 {
        return Err(PythonStop::Unreadable);
    }
    let frame = PythonFrame {
        code: step.code,
        is_first,
        offset: step.offset,
        checksum: checksum(&python.head),
    };
    push(scratch, frame)
}

/// Reads as much of the frame as is wanted: what lies behind it need not be there.
#[inline(always)]
fn read_frame(python: &mut Python) -> bool {
    const LONG: u32 = 120;
    const SHORT: u32 = 80;
    let bytes = if python.interpreter.layout.frame_bytes > SHORT {
        LONG
    } else {
        SHORT
    };
    // SAFETY: the helper checks the source; the destination is a live map value, no shorter.
    let result = unsafe {
        generated::bpf_probe_read_user(
            (&raw mut python.words).cast(),
            bytes,
            python.frame as *const c_void,
        )
    };
    result == 0
}

#[inline(always)]
fn push(scratch: &mut Scratch, frame: PythonFrame) -> Result<(), PythonStop> {
    let python = &mut scratch.python;
    if python.count >= PYTHON_WALK_MAX as u32 {
        return Err(PythonStop::TooDeep);
    }
    if python.at >= python.room {
        python.at = inner(python.room);
    }
    let header = &scratch.header;
    python.slot = u32::from(header.kernel_len) + u32::from(header.user_len) + 2 * python.at;
    // SAFETY: a live map value; volatile for the reason given in `unwind::push`.
    let slot = unsafe { ptr::read_volatile(&raw const scratch.python.slot) };
    if slot >= WORDS_MAX as u32 - 1 {
        return Err(PythonStop::TooDeep);
    }
    let [code, rest] = frame.words();
    // SAFETY: it and the next one lie within the words, as was checked right above.
    let place = unsafe { scratch.stacks.as_mut_ptr().add(slot as usize) };
    // SAFETY: as above.
    unsafe { *place = code };
    // SAFETY: as above.
    unsafe { *place.add(1) = rest };
    scratch.python.count += 1;
    scratch.python.at += 1;
    Ok(())
}

#[inline(always)]
fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails where it is not readable; it never faults a page in.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
