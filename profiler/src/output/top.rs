//! Self and total time by function: the profile as a table.
//!
//! Self counts the samples whose innermost function it is, total those in which it appears at all,
//! once however often it recurs. Markers are no functions: a stack cut at its root still counts for
//! the functions it shows.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::{
    columns::Columns,
    figures::{grouped, percent},
};
use crate::profile::{FrameKind, Location, Profile};

/// Samples of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTotal {
    /// Demangled name.
    pub name: String,
    /// Name of the file that it lies in, empty where not known.
    pub module: String,
    /// What kind of code it is.
    pub kind: FrameKind,
    /// Samples in which it was the innermost function.
    pub own: u64,
    /// Samples in which it appears.
    pub total: u64,
}

/// Every function with its samples: by self, then by total, then by name.
pub fn functions(profile: &Profile) -> Vec<FunctionTotal> {
    let mut totals: BTreeMap<(&str, &str), FunctionTotal> = BTreeMap::new();
    for sample in &profile.samples {
        let locations = profile.stacks[sample.stack.index()]
            .locations
            .iter()
            .map(|id| profile.location(*id));
        let mut seen = FxHashSet::default();
        for location in locations.filter(|location| location.kind != FrameKind::Marker) {
            let module = module(profile, location);
            for frame in &location.frames {
                let key = (frame.name.as_str(), module);
                let function = totals.entry(key).or_insert_with(|| FunctionTotal {
                    name: frame.name.clone(),
                    module: module.to_owned(),
                    kind: location.kind,
                    own: 0,
                    total: 0,
                });
                if seen.is_empty() {
                    function.own += sample.count;
                }
                if seen.insert(key) {
                    function.total += sample.count;
                }
            }
        }
    }
    let mut functions: Vec<FunctionTotal> = totals.into_values().collect();
    functions.sort_by(|a, b| {
        (b.own, b.total)
            .cmp(&(a.own, a.total))
            .then_with(|| a.name.cmp(&b.name))
    });
    functions
}

/// The first `limit` functions as aligned text, a line each below a head line.
pub fn table(profile: &Profile, limit: usize) -> String {
    let whole = profile.total();
    let mut table = Columns::new(["self", "self %", "total", "total %", "function", "module"]);
    for function in functions(profile).into_iter().take(limit) {
        table.row([
            grouped(function.own),
            percent(function.own, whole),
            grouped(function.total),
            percent(function.total, whole),
            function.name,
            function.module,
        ]);
    }
    table.right(0..4);
    table.to_string()
}

fn module<'a>(profile: &'a Profile, location: &Location) -> &'a str {
    location
        .module
        .map_or("", |id| profile.modules[id.index()].name())
}

#[cfg(test)]
mod tests {
    use super::{Profile, functions, table};
    use crate::{
        output::example,
        profile::{LocationId, Sample, Stack, StackId, ThreadId},
    };

    fn figures(profile: &Profile, name: &str) -> (u64, u64) {
        let functions = functions(profile);
        let function = functions
            .iter()
            .find(|function| function.name == name)
            .unwrap();
        (function.own, function.total)
    }

    /// Self is the innermost function's, inlined ones included.
    #[test]
    fn samples_go_to_the_innermost_function() {
        let profile = example::profile();
        assert_eq!(figures(&profile, "leaf"), (79, 79));
        assert_eq!(figures(&profile, "main"), (0, 90));
        assert_eq!(figures(&profile, "grow"), (0, 20));
        assert_eq!(figures(&profile, "copy_page"), (20, 20));
        let all = functions(&profile);
        assert_eq!(all[0].name, "leaf");
        assert_eq!(
            all.iter().map(|function| function.own).sum::<u64>(),
            profile.total()
        );
        assert!(
            all.iter()
                .all(|function| function.name != "no frame pointer")
        );
    }

    /// Recursion counts a sample once.
    #[test]
    fn recursion_counts_once() {
        let mut profile = example::profile();
        profile.stacks.push(Stack {
            locations: vec![LocationId(0); 3],
        });
        let stack = StackId(u32::try_from(profile.stacks.len() - 1).unwrap());
        profile.samples = vec![Sample {
            gil: crate::profile::Gil::Unknown,
            thread: ThreadId(0),
            stack,
            count: 7,
        }];
        assert_eq!(figures(&profile, "main"), (7, 7));
    }

    /// The table is aligned text with as many functions as asked for.
    #[test]
    fn table_has_a_line_for_each_function() {
        let expected = " self  self %  total  total %  function   module
   79  79.0 %     79   79.0 %  leaf       worker
   20  20.0 %     20   20.0 %  copy_page  [kernel.kallsyms]
";
        assert_eq!(table(&example::profile(), 2), expected);
    }
}
