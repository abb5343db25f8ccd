//! Unwind tables in ordinary memory, where no kernel side searches them.

use std::{collections::HashMap, convert::Infallible};

use profiler_common::unwind::{
    Rule,
    table::{Mapping, Page, Space},
};

use crate::unwind::Shared;

/// See the file.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pages: Vec<Page>,
    rules: Vec<Rule>,
    rows: HashMap<u16, Vec<u32>>,
    spaces: Vec<(u32, Space)>,
}

fn write<T: Copy + Default>(list: &mut Vec<T>, at: u32, values: &[T]) {
    let at = at as usize;
    if list.len() < at + values.len() {
        list.resize(at + values.len(), T::default());
    }
    list[at..at + values.len()].copy_from_slice(values);
}

impl Shared for Tables {
    type Error = Infallible;

    fn page(&self, at: u32) -> Option<Page> {
        self.pages.get(at as usize).copied()
    }

    fn row(&self, segment: u16, at: u32) -> Option<u32> {
        self.rows.get(&segment)?.get(at as usize).copied()
    }

    fn rule(&self, at: u32) -> Option<Rule> {
        self.rules.get(at as usize).copied()
    }

    fn write_mappings(&mut self, _at: u32, _mappings: &[Mapping]) {}

    fn write_pages(&mut self, at: u32, pages: &[Page]) {
        write(&mut self.pages, at, pages);
    }

    fn write_rules(&mut self, at: u32, rules: &[Rule]) {
        write(&mut self.rules, at, rules);
    }

    fn write_rows(&mut self, segment: u16, at: u32, rows: &[u32]) -> Result<(), Infallible> {
        write(self.rows.entry(segment).or_default(), at, rows);
        Ok(())
    }

    fn set_space(&mut self, pid: u32, space: Space) -> Result<(), Infallible> {
        self.remove_space(pid);
        self.spaces.push((pid, space));
        Ok(())
    }

    fn remove_space(&mut self, pid: u32) {
        self.spaces.retain(|&(known, _)| known != pid);
    }

    fn spaces(&self) -> Vec<(u32, Space)> {
        self.spaces.clone()
    }
}
