//! What a recording says of a program.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use super::programs::Program;

/// What stands for a name that is not known.
const NAMELESS: [&str; 4] = ["[.text]", "[unmapped]", "<python code", "Python evaluator"];

/// Folded stacks, with the account.
pub(super) struct Recorded {
    stacks: Vec<(String, f64)>,
    /// Share of whole stacks, percent, by the account.
    pub(super) whole: f64,
}

impl Recorded {
    /// Records a process.
    pub(super) fn of(profiler: &Path, pid: u32, seconds: u32) -> Result<Self> {
        let output = Command::new(profiler)
            .args(["record", "-p", &pid.to_string(), "-F", "199"])
            .args(["-d", &format!("{seconds}s"), "-f", "folded", "-o", "-"])
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
            whole: percent
                .and_then(|percent| percent.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// Share of samples that have the program's functions in their order, and no frame without a name, percent.
    pub(super) fn named(&self, program: &Program) -> f64 {
        let all: f64 = self.stacks.iter().map(|(_, count)| count).sum();
        let named = self
            .stacks
            .iter()
            .filter(|(stack, _)| is_named(stack, program.functions));
        100.0 * named.map(|(_, count)| count).sum::<f64>() / all.max(1.0)
    }
}

fn is_named(stack: &str, functions: &[&str]) -> bool {
    let mut rest = stack;
    let has_all = functions
        .iter()
        .all(|function| match rest.split_once(function) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        });
    has_all && !NAMELESS.iter().any(|nameless| stack.contains(nameless))
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
        assert!((recorded.whole - 90.0).abs() < 1e-9);
    }
}
