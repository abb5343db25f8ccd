//! The Python stack of a thread that no sample was taken of, read from user space: what the kernel side
//! does, over a process that is not stopped. A thread that runs meanwhile may give nonsense, which the
//! checks of code objects keep out; one that waits stands still.

use std::collections::HashMap;

use profiler_common::{
    limits::{PYTHON_LIST_MAX, PYTHON_STEPS_MAX, PYTHON_WALK_MAX},
    outcome::PythonStop,
    python::{FRAME_WORDS, HEAD_WORDS, Interpreter, NONE, PythonFrame, checksum, step},
};

use super::code::Memory;

/// Where glibc and musl keep a thread's id, counted from what `pthread_self` gives (`struct pthread` of
/// nptl/descr.h, `src/internal/pthread_impl.h`; x86-64). Before 3.11 a thread state does not tell it.
const THREAD_ID_AT: [u64; 2] = [0x2d0, 0x30];

/// The state of each thread, by the id that the thread itself sees.
pub type States = HashMap<u32, u64>;

/// The states of all threads that the interpreters know.
pub(super) fn states(memory: &impl Memory, interpreter: &Interpreter) -> States {
    let walker = Walker {
        memory,
        interpreter,
    };
    let mut states = States::new();
    // What was found before the list ended in nonsense is good.
    let _ = walker.thread_states(&mut states);
    states
}

/// The stack of a thread with this state; `None` if the state is another thread's by now.
pub(super) fn walk(
    memory: &impl Memory,
    interpreter: &Interpreter,
    tid: u32,
    state: u64,
) -> Option<Walked> {
    let walker = Walker {
        memory,
        interpreter,
    };
    if !walker.ids(state).contains(&Some(tid)) {
        return None;
    }
    let mut walked = Walked {
        frames: Vec::new(),
        outermost: None,
        stop: PythonStop::TooDeep,
        holds_gil: walker.holder(state) == Some(state),
    };
    walked.stop = walker.frames(state, &mut walked);
    Some(walked)
}

/// A thread's Python stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Innermost first.
    pub frames: Vec<PythonFrame>,
    /// The address of the outermost frame, if the walk came to it.
    pub outermost: Option<u64>,
    /// Why it ended.
    pub stop: PythonStop,
    /// Whether the thread held its interpreter's lock.
    pub holds_gil: bool,
}

struct Walker<'a, M> {
    memory: &'a M,
    interpreter: &'a Interpreter,
}

impl<M: Memory> Walker<'_, M> {
    fn read<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.memory.read(address, &mut bytes).then_some(bytes)
    }

    fn word(&self, base: u64, offset: u32) -> Option<u64> {
        self.read(base.wrapping_add(u64::from(offset)))
            .map(u64::from_ne_bytes)
    }

    fn thread_states(&self, states: &mut States) -> Option<()> {
        let layout = &self.interpreter.layout;
        let mut looks = 0;
        let mut next = self.word(self.interpreter.runtime, layout.interpreters)?;
        while next != 0 && looks < PYTHON_LIST_MAX {
            let mut state = self.word(next, layout.interpreter_threads)?;
            while state != 0 && looks < PYTHON_LIST_MAX {
                for tid in self.ids(state).into_iter().flatten() {
                    states.entry(tid).or_insert(state);
                }
                state = self.word(state, layout.thread_next)?;
                looks += 1;
            }
            next = self.word(next, layout.interpreter_next)?;
            looks += 1;
        }
        Some(())
    }

    /// The ids that a thread with this state may have: one of them is none.
    fn ids(&self, state: u64) -> [Option<u32>; 2] {
        let thread = self.word(state, self.interpreter.layout.thread_id);
        let id = |at| self.read(thread?.wrapping_add(at)).map(u32::from_ne_bytes);
        THREAD_ID_AT.map(id)
    }

    /// The thread state that holds the lock, as the kernel side finds it.
    fn holder(&self, state: u64) -> Option<u64> {
        let layout = &self.interpreter.layout;
        if layout.current_thread != NONE {
            return self.word(self.interpreter.runtime, layout.current_thread);
        }
        let interpreter = self.word(state, layout.thread_interpreter)?;
        let gil = self.word(interpreter, layout.interpreter_gil)?;
        let locked: [u8; 4] = self.read(gil.wrapping_add(u64::from(layout.gil_locked)))?;
        let is_locked = i32::from_ne_bytes(locked) > 0;
        is_locked.then(|| self.word(gil, layout.gil_holder))?
    }

    fn frames(&self, state: u64, walked: &mut Walked) -> PythonStop {
        let layout = &self.interpreter.layout;
        let pointer = self.word(state, layout.thread_frame);
        let innermost = match pointer {
            Some(pointer) if pointer != 0 && layout.c_frame != NONE => {
                self.word(pointer, layout.c_frame)
            }
            pointer => pointer,
        };
        let Some(mut frame) = innermost else {
            return PythonStop::Unreadable;
        };
        let mut is_first = true;
        let mut last = None;
        for _ in 0..PYTHON_STEPS_MAX {
            if frame == 0 {
                walked.outermost = last;
                return PythonStop::Outermost;
            }
            let Some(words) = self.frame_words(frame) else {
                return PythonStop::Unreadable;
            };
            let step = step(layout, &words);
            if !step.is_shim {
                last = Some(frame);
            }
            frame = step.back;
            let pushed = if step.is_shim {
                is_first.then_some(PythonFrame {
                    is_first,
                    ..PythonFrame::default()
                })
            } else {
                let head = step.code.wrapping_add(u64::from(layout.code_head));
                let Some(head) = self.read::<{ HEAD_WORDS * 4 }>(head) else {
                    return PythonStop::Unreadable;
                };
                let mut words = [0; HEAD_WORDS];
                for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
                    *word = u32::from_ne_bytes(*bytes);
                }
                Some(PythonFrame {
                    code: step.code,
                    is_first,
                    offset: step.offset,
                    checksum: checksum(&words),
                })
            };
            walked.frames.extend(pushed);
            is_first = step.is_last;
            if walked.frames.len() >= PYTHON_WALK_MAX {
                break;
            }
        }
        PythonStop::TooDeep
    }

    fn frame_words(&self, frame: u64) -> Option<[u64; FRAME_WORDS]> {
        let mut bytes = [0; FRAME_WORDS * 8];
        let wanted = (self.interpreter.layout.frame_bytes as usize).min(bytes.len());
        if !self.memory.read(frame, &mut bytes[..wanted]) {
            return None;
        }
        let mut words = [0; FRAME_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Some(words)
    }
}
