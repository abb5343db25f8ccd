//! Interleaves a Python stack with the native one: each activation of the evaluator, a native frame, runs
//! one Python frame or several. Pure.

use std::ops::Range;

use profiler_common::python::PythonFrame;

/// Frames of a Python stack that belong together, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Before this frame of the native stack, leaf first: the evaluator's frame that runs them.
    pub(super) before: usize,
    /// Which ones, leaf first.
    pub(super) frames: Range<usize>,
}

/// Pairs activations (positions in the native stack of `native` frames, leaf first) with what they run.
/// `is_whole` says that both stacks reach their outermost frame: then they are paired from there, since
/// a thread may just be entering or leaving the evaluator at the leaf.
pub(super) fn stitch(
    frames: &[PythonFrame],
    activations: &[usize],
    native: usize,
    is_whole: bool,
) -> Vec<Piece> {
    let groups = groups(frames);
    let (extra_groups, extra_activations) = if is_whole {
        (
            groups.len().saturating_sub(activations.len()),
            activations.len().saturating_sub(groups.len()),
        )
    } else {
        (0, 0)
    };
    let mut pieces = Vec::with_capacity(groups.len());
    for (index, frames) in groups.into_iter().enumerate() {
        let before = if index < extra_groups {
            0
        } else {
            let activation = activations.get(index - extra_groups + extra_activations);
            // What the native stack was cut before stands behind it.
            activation.copied().unwrap_or(native)
        };
        pieces.push(Piece { before, frames });
    }
    pieces
}

/// What each activation runs, leaf first; nothing where its frame is being set up or has just gone.
fn groups(frames: &[PythonFrame]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let begin = if frame.code == 0 { index + 1 } else { index };
        match groups.last_mut() {
            Some(group) if !frame.is_first => group.end = index + 1,
            _ => groups.push(begin..index + 1),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::{Piece, PythonFrame, stitch};

    /// Frames as letters; a capital one begins an activation, a dash is one without a frame.
    fn frames(text: &str) -> Vec<PythonFrame> {
        let frame = |c: char| PythonFrame {
            code: if c == '-' { 0 } else { 0x1000 },
            is_first: !c.is_lowercase(),
            ..PythonFrame::default()
        };
        text.chars().map(frame).collect()
    }

    fn pieces(text: &str, activations: &[usize], is_whole: bool) -> Vec<(usize, String)> {
        let pieces = stitch(&frames(text), activations, 10, is_whole);
        let piece = |Piece { before, frames }: Piece| (before, text[frames].to_owned());
        pieces.into_iter().map(piece).collect()
    }

    fn expected(list: &[(usize, &str)]) -> Vec<(usize, String)> {
        let owned = |&(at, text): &(usize, &str)| (at, text.to_owned());
        list.iter().map(owned).collect()
    }

    /// Each activation has its frames before it.
    #[test]
    fn activations_have_their_frames() {
        let found = pieces("AbcDE", &[0, 3, 7], true);
        assert_eq!(found, expected(&[(0, "Abc"), (3, "D"), (7, "E")]));
    }

    /// At the leaf a thread may have an activation without a frame yet, or a frame without its activation.
    #[test]
    fn whole_stacks_are_paired_from_the_root() {
        assert_eq!(pieces("Ab", &[0, 3], true), expected(&[(3, "Ab")]));
        assert_eq!(pieces("ABc", &[5], true), expected(&[(0, "A"), (5, "Bc")]));
        assert_eq!(
            pieces("-Ab", &[0, 3], true),
            expected(&[(0, ""), (3, "Ab")])
        );
    }

    /// A stack that is cut is paired from the leaf; what is beyond the cut stands behind it.
    #[test]
    fn cut_stacks_are_paired_from_the_leaf() {
        let found = pieces("ABCd", &[1, 4], false);
        assert_eq!(found, expected(&[(1, "A"), (4, "B"), (10, "Cd")]));
        assert_eq!(pieces("A", &[1, 4], false), expected(&[(1, "A")]));
    }

    /// Without a Python stack there is nothing to pair, without activations it stands at the leaf.
    #[test]
    fn one_side_may_be_missing() {
        assert_eq!(pieces("", &[1, 4], true), expected(&[]));
        assert_eq!(pieces("Ab", &[], true), expected(&[(0, "Ab")]));
    }
}
