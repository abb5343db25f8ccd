//! What a machine does: steps of a shell, each with a limit, whose results it leaves in the shared folder.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::ladder::{LIBRARY, STEPS};

/// One step, which fails as soon as a line of it does.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Steps that have to come before it.
    pub(super) needs: &'static [&'static str],
    /// A step that takes longer hangs.
    pub(super) limit: Duration,
    pub(super) shell: &'static str,
}

/// How a step ended.
pub(super) struct Outcome {
    pub(super) status: i32,
    pub(super) seconds: f64,
}

/// The one that wants kernels that preempt in several ways.
const PREEMPTION: &str = "preemption";

/// The steps of a machine whose kernel is booted plainly or with a way to preempt: those of these names, with what they
/// need, or those that are for it.
pub(super) fn of_machine(is_plain: bool, names: &[String]) -> Result<Vec<&'static Step>> {
    if !names.is_empty() {
        return chosen(names);
    }
    let is_for_it = |step: &&Step| is_plain != (step.name == PREEMPTION);
    Ok(STEPS.iter().filter(is_for_it).collect())
}

/// Those of these names, with what they need.
fn chosen(names: &[String]) -> Result<Vec<&'static Step>> {
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        let step = STEPS.iter().find(|step| step.name == name);
        let all: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        wanted.push(
            step.with_context(|| format!("no step {name}: there are {}", all.join(", ")))?
                .name,
        );
    }
    // Backwards, as each needs only earlier ones.
    for step in STEPS.iter().rev() {
        if wanted.contains(&step.name) {
            wanted.extend(step.needs);
        }
    }
    Ok(STEPS
        .iter()
        .filter(|step| wanted.contains(&step.name))
        .collect())
}

/// Makes the folder that the machine shares with us.
pub(super) fn lay_out(share: &Path, deb: &Path, steps: &[&Step]) -> Result<()> {
    if share.exists() {
        fs::remove_dir_all(share)?;
    }
    fs::create_dir_all(share.join("steps"))?;
    fs::create_dir_all(share.join("out"))?;
    fs::copy(deb, share.join("profiler.deb"))
        .with_context(|| format!("no package {}", deb.display()))?;
    fs::write(share.join("library"), LIBRARY)?;
    for step in steps {
        fs::write(
            share.join("steps").join(step.name),
            format!(". /host/library\n{}", step.shell),
        )?;
    }
    fs::write(share.join("run"), script(steps))?;
    Ok(())
}

/// Runs them one after the other, to the first that fails; a status is there whole or not at all.
fn script(steps: &[&Step]) -> String {
    let mut script = "\
cd /host
up() { cut -d ' ' -f 1 /proc/uptime; }
step() {
  began=$(up)
  timeout -k 5 $2 sh -eux steps/$1 > out/$1.txt 2>&1 < /dev/null
  status=$?
  echo \"$status $began $(up)\" > out/part
  mv out/part out/$1.status
  echo \"step $1: status $status\"
  [ $status = 0 ] || exit 1
}
"
    .to_owned();
    script.extend(
        steps
            .iter()
            .map(|step| format!("step {} {}\n", step.name, step.limit.as_secs())),
    );
    script
}

impl Step {
    /// What it printed.
    pub(super) fn printed(&self, share: &Path) -> PathBuf {
        share.join("out").join(format!("{}.txt", self.name))
    }

    /// How it ended, if it has.
    pub(super) fn outcome(&self, share: &Path) -> Result<Option<Outcome>> {
        let file = share.join("out").join(format!("{}.status", self.name));
        if !file.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&file)?;
        parse(&text)
            .map(Some)
            .with_context(|| format!("malformed: {} has `{}`", file.display(), text.trim()))
    }
}

/// A status, and uptimes in seconds before and after.
fn parse(text: &str) -> Option<Outcome> {
    let mut words = text.split_whitespace();
    let status = words.next()?.parse().ok()?;
    let began: f64 = words.next()?.parse().ok()?;
    let ended: f64 = words.next()?.parse().ok()?;
    Some(Outcome {
        status,
        seconds: ended - began,
    })
}

#[cfg(test)]
mod tests {
    use super::{STEPS, chosen, of_machine, parse, script};

    fn names_of(names: &[&str]) -> Vec<&'static str> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        chosen(&names)
            .unwrap()
            .iter()
            .map(|step| step.name)
            .collect()
    }

    /// What is asked for comes with what it needs, in the order in which all run.
    #[test]
    fn a_step_comes_after_what_it_needs() {
        let names = names_of(&["queries"]);
        assert_eq!(names, ["install", "postgres", "queries"]);
        assert!(chosen(&["querie".to_owned()]).is_err());
        for (index, step) in STEPS.iter().enumerate() {
            let earlier = |name: &&str| STEPS[..index].iter().any(|step| step.name == *name);
            assert!(
                step.needs.iter().all(earlier),
                "{} needs a later step",
                step.name
            );
        }
    }

    /// Every step is for one of the two kinds of machines.
    #[test]
    fn machines_share_the_steps() {
        let plain = of_machine(true, &[]).unwrap();
        let preempting = of_machine(false, &[]).unwrap();
        assert_eq!(plain.len() + 1, STEPS.len());
        assert!(preempting.iter().map(|step| step.name).eq(["preemption"]));
        assert_eq!(of_machine(false, &["doctor".to_owned()]).unwrap().len(), 2);
    }

    /// A script without its steps would be a machine that succeeds at nothing.
    #[test]
    fn the_script_runs_each_step_with_its_limit() {
        let script = script(&chosen(&["doctor".to_owned()]).unwrap());
        assert!(
            script.ends_with("step install 120\nstep doctor 120\n"),
            "{script}"
        );
    }

    /// Only a whole line is an outcome.
    #[test]
    fn a_status_that_is_cut_is_no_status() {
        let outcome = parse("1 10.50 12.75\n").unwrap();
        assert_eq!(
            (outcome.status, outcome.seconds.to_string()),
            (1, "2.25".to_owned())
        );
        assert!(parse("1 10.50").is_none() && parse("").is_none());
    }
}
