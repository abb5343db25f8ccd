//! Both ends of a Python stack that is longer than a record. Pure.
//!
//! A record keeps its innermost frames in their order; the others go round in the rest of the room, so that at the
//! end the outermost ones are there. Where the oldest of those is follows from how many were left out.

/// A stack's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ends<T> {
    /// Innermost first.
    pub(super) inner: Vec<T>,
    /// Innermost first, up to the outermost one.
    pub(super) outer: Vec<T>,
}

/// Puts the frames of a record into their order.
pub(super) fn ends<T: Clone>(frames: &[T], inner: usize, left_out: usize) -> Ends<T> {
    if left_out == 0 {
        return Ends {
            inner: frames.to_vec(),
            outer: Vec::new(),
        };
    }
    let (inner, outer) = frames.split_at(inner.min(frames.len()));
    let mut outer = outer.to_vec();
    if !outer.is_empty() {
        let oldest = left_out % outer.len();
        outer.rotate_left(oldest);
    }
    Ends {
        inner: inner.to_vec(),
        outer,
    }
}

/// The frames of a whole stack as a record with so much room has them, how many of them are the inner part, and how
/// many are left out.
pub(crate) fn both_ends<T: Clone>(frames: &[T], room: usize) -> (Vec<T>, usize, usize) {
    let left_out = frames.len().saturating_sub(room);
    if left_out == 0 {
        return (frames.to_vec(), frames.len(), 0);
    }
    let inner = room / 2;
    let (mut kept, mut outer) = (
        frames[..inner].to_vec(),
        frames[inner + left_out..].to_vec(),
    );
    if !outer.is_empty() {
        let oldest = left_out % outer.len();
        outer.rotate_right(oldest);
    }
    kept.append(&mut outer);
    (kept, inner, left_out)
}

#[cfg(test)]
mod tests {
    use super::{Ends, both_ends, ends};

    /// What the kernel side does, frame by frame.
    fn pushed(frames: &[u32], room: usize) -> Vec<u32> {
        let mut kept = vec![0; room.min(frames.len())];
        let mut at = 0;
        for &frame in frames {
            if at >= room {
                at = room / 2;
            }
            kept[at] = frame;
            at += 1;
        }
        kept
    }

    /// However long a stack is, both ends are right, and what lies between is counted.
    #[test]
    fn both_ends_are_kept() {
        for room in [2, 3, 8, 9] {
            for length in 0..40 {
                let frames: Vec<u32> = (0..length).collect();
                let (kept, inner, left_out) = both_ends(&frames, room);
                assert_eq!(kept, pushed(&frames, room), "{room} {length}");
                let Ends {
                    inner: inside,
                    outer,
                } = ends(&kept, inner, left_out);
                let parts = (inside.len(), outer.len());
                assert_eq!(parts.0 + left_out + parts.1, frames.len());
                assert_eq!(inside, frames[..parts.0], "{room} {length}");
                assert_eq!(outer, frames[frames.len() - parts.1..], "{room} {length}");
            }
        }
    }
}
