//! What a recording says of a program.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use super::programs::Program;

/// What stands for a name that is not known.
const NAMELESS: [&str; 5] = [
    "[.text]",
    "[unmapped]",
    "[anonymous code]",
    "<python code",
    "Python evaluator",
];

/// Folded stacks, with the account.
pub(super) struct Recorded {
    stacks: Vec<(String, f64)>,
    /// Share of whole stacks, percent, by the account.
    complete: f64,
}

impl Recorded {
    /// Records a process.
    pub(super) fn of(profiler: &Path, pid: u32, program: &Program, seconds: u32) -> Result<Self> {
        let output = Command::new(profiler)
            .args(["record", "-p", &pid.to_string(), "-F", "199"])
            .args(["-d", &format!("{seconds}s"), "-f", "folded", "-o", "-"])
            .args(program.has_children.then_some("--descendants"))
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {error}", profiler.display());
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(text: &str) -> Self {
        let stacks = text.lines().filter(|line| !line.starts_with('#'));
        let stacks = stacks.filter_map(|line| {
            let (stack, count) = line.rsplit_once(' ')?;
            Some((stack.to_owned(), count.parse().ok()?))
        });
        let whole = text
            .lines()
            .find_map(|line| line.strip_prefix("# complete stacks: "));
        let percent = whole.and_then(|line| line.rsplit_once(", ")?.1.strip_suffix(" %"));
        Self {
            stacks: stacks.collect(),
            complete: percent
                .and_then(|percent| percent.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// Share of samples that have the program's functions in their order, and no frame without a name, percent.
    pub(super) fn named(&self, program: &Program) -> f64 {
        self.share(|stack| is_named(stack, program) || is_rightly_cut(stack, program))
    }

    /// Share of samples with whole stacks and of those that are cut as they must be, percent.
    pub(super) fn whole(&self, program: &Program) -> f64 {
        self.complete + self.share(|stack| is_rightly_cut(stack, program))
    }

    fn share(&self, is_one: impl Fn(&str) -> bool) -> f64 {
        let all: f64 = self.stacks.iter().map(|(_, count)| count).sum();
        let ones = self.stacks.iter().filter(|(stack, _)| is_one(stack));
        100.0 * ones.map(|(_, count)| count).sum::<f64>() / all.max(1.0)
    }
}

fn is_rightly_cut(stack: &str, program: &Program) -> bool {
    !program.right_cut.is_empty() && has_all(stack, program.right_cut)
}

fn is_named(stack: &str, program: &Program) -> bool {
    let is_start = |frame: &str| program.start.iter().any(|start| frame.starts_with(start));
    let starts_right = program.start.is_empty()
        || program.functions.first().is_some_and(|first| {
            // The program's own name comes first, and a part of the function's last.
            let outside = stack.split(first).next().unwrap_or(stack);
            let frames = outside.rsplit_once(';').map_or("", |(frames, _)| frames);
            frames.split(';').skip(1).all(is_start)
        });
    let is_nameless = NAMELESS.iter().any(|nameless| stack.contains(nameless));
    has_all(stack, program.functions) && starts_right && !is_nameless
}

/// Whether a text has these, in this order.
fn has_all(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::Recorded;
    use crate::trees::programs::Program;

    /// Functions count in their order, and nothing may be without a name.
    #[test]
    fn shares_are_of_samples() {
        let text = "# complete stacks: 9 samples, 90.0 %\na;main;leaf 6\na;leaf;main 2\na;main;leaf;a [.text] 2\n";
        let program = Program {
            functions: &["main", "leaf"],
            ..Program::default()
        };
        let recorded = Recorded::read(text);
        assert!((recorded.named(&program) - 60.0).abs() < 1e-9);
        assert!((recorded.whole(&program) - 90.0).abs() < 1e-9);
    }

    /// A C function outside of the Python code, and a cut that is as it must be.
    #[test]
    fn places_and_cuts_count() {
        let text = "# complete stacks: 6 samples, 60.0 %\nx;_start;m.<module>;c 4\nx;_start;c;m.<module> 2\n\
                    x;[cut: long];_start;m.<module>;[9 left out];m.leaf 4\n";
        let program = Program {
            functions: &["<module>"],
            start: &["_start", "[cut: "],
            right_cut: &["[cut: long]", "<module>", "left out]", "leaf"],
            ..Program::default()
        };
        let recorded = Recorded::read(text);
        assert!((recorded.named(&program) - 80.0).abs() < 1e-9);
        assert!((recorded.whole(&program) - 100.0).abs() < 1e-9);
    }
}
