//! What kind of thing a frame of a folded stack is, and how its text says so.
//!
//! Folded text has no columns, so the kind rides on the name: `_[k]` kernel, `_[j]` JIT, `_[p]` Python, `_[i]`
//! inlined, and a name all in brackets is a marker. Writer, flamegraph and reader share this table.
//! Which frame is the process is said by its place, never by its text.

use crate::profile::FrameKind;

/// Class of one frame of a folded stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FrameClass {
    /// The process, or the thread below it.
    Process,
    /// Kernel code.
    Kernel,
    /// A compiled function.
    Native,
    /// A function compiled into the one below it.
    Inlined,
    /// Code that a runtime made.
    Jit,
    /// A function of Python.
    Python,
    /// Not code: says where a stack was cut and why.
    Marker,
}

impl FrameClass {
    /// All classes, in the order of the legend.
    pub(crate) const ALL: [Self; 7] = [
        Self::Process,
        Self::Python,
        Self::Native,
        Self::Inlined,
        Self::Jit,
        Self::Kernel,
        Self::Marker,
    ];

    /// Class of a location's outermost function, and of those inlined into it.
    pub(crate) fn of_kind(kind: FrameKind) -> (Self, Self) {
        match kind {
            FrameKind::Kernel => (Self::Kernel, Self::Kernel),
            FrameKind::Native => (Self::Native, Self::Inlined),
            FrameKind::Jit => (Self::Jit, Self::Jit),
            FrameKind::Python => (Self::Python, Self::Python),
            FrameKind::Marker => (Self::Marker, Self::Marker),
        }
    }

    /// What it is called in a legend.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Process => "process or thread",
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Inlined => "inlined",
            Self::Jit => "JIT",
            Self::Python => "Python",
            Self::Marker => "not code",
        }
    }

    /// The frame's text: its name with what marks the class.
    pub(crate) fn mark(self, name: &str) -> String {
        match self {
            Self::Marker if !is_bracketed(name) => format!("[{name}]"),
            _ => format!("{name}{}", self.suffix()),
        }
    }

    /// Class and name of a frame's text.
    pub(crate) fn of_text(text: &str) -> (Self, &str) {
        for class in [Self::Kernel, Self::Jit, Self::Python, Self::Inlined] {
            if let Some(name) = text.strip_suffix(class.suffix()) {
                return (class, name);
            }
        }
        let class = if is_bracketed(text) {
            Self::Marker
        } else {
            Self::Native
        };
        (class, text)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Kernel => "_[k]",
            Self::Jit => "_[j]",
            Self::Python => "_[p]",
            Self::Inlined => "_[i]",
            Self::Process | Self::Native | Self::Marker => "",
        }
    }
}

fn is_bracketed(name: &str) -> bool {
    name.len() >= 2 && name.starts_with('[') && name.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::FrameClass;

    /// What a class writes, it reads.
    #[test]
    fn text_keeps_the_class() {
        for class in FrameClass::ALL
            .into_iter()
            .filter(|class| *class != FrameClass::Process)
        {
            let text = class.mark("name");
            let (read, _) = FrameClass::of_text(&text);
            assert_eq!(read, class, "{text}");
        }
        assert_eq!(
            FrameClass::of_text("[no frame pointer]"),
            (FrameClass::Marker, "[no frame pointer]")
        );
        assert_eq!(
            FrameClass::of_text("<[T] as Clone>::clone"),
            (FrameClass::Native, "<[T] as Clone>::clone")
        );
        assert_eq!(FrameClass::of_text("["), (FrameClass::Native, "["));
    }
}
