//! Rows of functions, compacted into pages. Pure.

use std::collections::{HashMap, hash_map::Entry};

use profiler_common::unwind::{
    Cfa, Rule,
    table::{PAGE_BITS, SEARCH_MAX, row},
};

/// Bytes between two functions that are taken for padding, and inherit the rule before them. Linkers
/// align functions to 16.
const PADDING_MAX: u64 = 15;

/// Most pages of one table: 512 MiB of code, an eighth of what there is for all.
const PAGES_MAX: u64 = 1 << 13;
/// Most rules of one table, an eighth of what there is for all.
const RULES_MAX: u16 = 1 << 13;

/// The unwind table of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Number of the first page.
    pub first_page: u32,
    /// Of each page from the first one on: where its rows begin in `rows`, and how many there are.
    pub pages: Vec<(u32, u16)>,
    /// See [`profiler_common::unwind::table`].
    pub rows: Vec<u32>,
    /// Distinct rules.
    pub rules: Vec<Rule>,
    /// Functions whose rules could not be read.
    pub malformed: u64,
    /// Rows before compaction.
    pub raw_rows: u64,
    /// Whether the file has more than is read of one.
    pub is_cut: bool,
}

/// Collects functions in any order.
#[derive(Debug, Default)]
pub(super) struct Builder {
    functions: Vec<Function>,
    rows: Vec<(u64, u16)>,
    rules: Vec<Rule>,
    ids: HashMap<Rule, u16>,
    malformed: u64,
    is_cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    start: u64,
    end: u64,
    first_row: usize,
    rows: usize,
}

impl Builder {
    pub(super) fn new() -> Self {
        let mut builder = Self::default();
        builder.id(Rule::only(Cfa::None));
        builder
    }

    /// A function `[start, end)`; its rows follow by [`row`](Self::row).
    pub(super) fn function(&mut self, start: u64, end: u64) {
        self.functions.push(Function {
            start,
            end,
            first_row: self.rows.len(),
            rows: 0,
        });
    }

    /// From `address` on, within the last function, this rule holds.
    pub(super) fn row(&mut self, address: u64, rule: Rule) {
        let id = self.id(rule);
        if let Some(function) = self.functions.last_mut() {
            function.rows += 1;
            self.rows.push((address, id));
        }
    }

    /// The rows of the last function ended in the middle.
    pub(super) fn malformed(&mut self) {
        self.malformed += 1;
    }

    /// There is more, which is not read.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Where functions begin and end, sorted.
    pub(super) fn extents(&self) -> Vec<(u64, u64)> {
        let mut extents: Vec<_> = self.functions.iter().map(|f| (f.start, f.end)).collect();
        extents.sort_unstable();
        extents
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self, functions_max: usize, rows_max: usize) -> bool {
        self.functions.len() >= functions_max || self.rows.len() >= rows_max
    }

    fn id(&mut self, rule: Rule) -> u16 {
        let Self { rules, ids, .. } = self;
        let next = u16::try_from(rules.len()).unwrap_or(u16::MAX);
        match ids.entry(rule) {
            Entry::Occupied(entry) => *entry.get(),
            // The last number stands for what finds no room; a file of so many distinct rules does not exist.
            Entry::Vacant(_) if next == RULES_MAX => {
                if let Some(last) = rules.last_mut() {
                    *last = Rule::only(Cfa::Unsupported);
                }
                RULES_MAX - 1
            }
            Entry::Vacant(entry) => {
                rules.push(rule);
                *entry.insert(next)
            }
        }
    }

    /// The table.
    pub(super) fn finish(mut self) -> Table {
        self.functions.sort_by_key(|function| function.start);
        let sorted = self.sorted_rows();
        let mut table = Table {
            rules: self.rules,
            malformed: self.malformed,
            is_cut: self.is_cut,
            raw_rows: self.rows.len() as u64,
            ..Table::default()
        };
        let (Some(&(first, _)), Some(&(last, _))) = (sorted.first(), sorted.last()) else {
            return table;
        };
        let (first, last) = (first >> PAGE_BITS, last >> PAGE_BITS);
        table.first_page = u32::try_from(first).unwrap_or(u32::MAX);
        let mut rest = sorted.as_slice();
        let mut in_force = 0;
        for page in first..=last.min(first + PAGES_MAX) {
            let here = rest.partition_point(|&(address, _)| address >> PAGE_BITS <= page);
            let (rows, after) = rest.split_at(here);
            table.push_page(page << PAGE_BITS, in_force, rows);
            in_force = rows.last().map_or(in_force, |&(_, rule)| rule);
            rest = after;
        }
        table
    }

    fn is_trampoline(&self, rule: u16) -> bool {
        let rule = self.rules.get(usize::from(rule));
        rule.is_some_and(|rule| rule.cfa == Cfa::Signal as u8)
    }

    /// Rows of all functions by address, without repetitions, with the rule `None` in the gaps.
    fn sorted_rows(&self) -> Vec<(u64, u16)> {
        let mut sorted: Vec<(u64, u16)> = Vec::with_capacity(self.rows.len());
        let mut push = |address, rule| {
            sorted.pop_if(|&mut (last, _)| last == address);
            if sorted.last().is_none_or(|&(_, last)| last != rule) {
                sorted.push((address, rule));
            }
        };
        let mut end = 0;
        for function in &self.functions {
            if end > 0 && function.start.saturating_sub(end) > PADDING_MAX {
                push(end, 0);
            }
            // Of two functions that overlap, the one that begins first is believed.
            let rows = &self.rows[function.first_row..function.first_row + function.rows];
            for &(address, rule) in rows {
                // A caller that is a signal's trampoline is looked up by the byte before it. Where that byte is
                // another function's, it has no rule: then the kernel side looks at the code. A leaf is looked up by
                // its own address.
                if address + 1 == end && self.is_trampoline(rule) {
                    push(address, 0);
                    push(end, rule);
                } else if address >= end && address < function.end {
                    push(address, rule);
                }
            }
            end = end.max(function.end);
        }
        if end > 0 {
            push(end, 0);
        }
        sorted
    }
}

impl Table {
    /// Appends a page: the rule in force at its beginning, unless a row says so itself, and its rows.
    fn push_page(&mut self, start: u64, in_force: u16, rows: &[(u64, u16)]) {
        let first = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let begins = rows.first().is_some_and(|&(address, _)| address == start);
        if !begins && (in_force != 0 || !rows.is_empty()) {
            self.rows.push(row(0, in_force));
        }
        let low = |address: u64| u16::try_from(address - start).unwrap_or(u16::MAX);
        self.rows
            .extend(rows.iter().map(|&(address, rule)| row(low(address), rule)));
        let room = SEARCH_MAX as usize;
        self.rows.truncate(first as usize + room);
        let count = self.rows.len() - first as usize;
        self.pages
            .push((first, u16::try_from(count).unwrap_or(u16::MAX)));
    }

    /// The rule at an address, as the kernel side finds it.
    pub fn rule_at(&self, address: u64) -> Option<&Rule> {
        let page = (address >> PAGE_BITS).checked_sub(u64::from(self.first_page))?;
        let &(first, count) = self.pages.get(usize::try_from(page).ok()?)?;
        let rows = &self.rows[first as usize..][..usize::from(count)];
        let low = u16::try_from(address & ((1 << PAGE_BITS) - 1)).ok()?;
        let wanted = row(low, u16::MAX);
        let after = rows.partition_point(|&candidate| candidate <= wanted);
        let found = *rows.get(after.checked_sub(1)?)?;
        let rule = self
            .rules
            .get(profiler_common::unwind::table::rule_of(found) as usize)?;
        (rule.cfa != Cfa::None as u8).then_some(rule)
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::unwind::table::rule_of;
    use proptest::prelude::*;

    use super::{Builder, Cfa, PAGE_BITS, Rule, Table};

    fn rule(offset: i32) -> Rule {
        Rule {
            cfa_offset: offset,
            ..Rule::only(Cfa::Sp)
        }
    }

    /// Functions as (start, length, rules at every fourth byte).
    fn build(functions: &[(u64, u64, &[i32])]) -> Table {
        let mut builder = Builder::new();
        for &(start, length, rules) in functions {
            builder.function(start, start + length);
            for (at, &offset) in (0..).zip(rules) {
                builder.row(start + 4 * at, rule(offset));
            }
        }
        builder.finish()
    }

    /// The byte before a signal's trampoline has the trampoline's rule, but where it is another function's: then none.
    #[test]
    fn trampolines_are_known_by_the_byte_before() {
        let at = |start: u64, address: u64| {
            let mut builder = Builder::new();
            builder.function(0x1000, 0x1010);
            builder.row(0x1000, rule(8));
            builder.function(start - 1, start + 9);
            builder.row(start - 1, Rule::only(Cfa::Signal));
            builder.finish().rule_at(address).map(|rule| rule.cfa)
        };
        let (plain, signal) = (Some(Cfa::Sp as u8), Some(Cfa::Signal as u8));
        assert_eq!(at(0x1011, 0x100f), plain);
        assert_eq!(at(0x1011, 0x1010), signal);
        assert_eq!(at(0x1010, 0x100e), plain);
        assert_eq!(
            [0x100f, 0x1010, 0x1018].map(|address| at(0x1010, address)),
            [None, signal, signal]
        );
    }

    /// Gaps of 16 bytes and more are not covered, smaller ones are padding, the end is an end.
    #[test]
    fn gaps_have_no_rule() {
        let table = build(&[
            (0x1030, 16, &[24]),
            (0x1000, 16, &[8, 16]),
            (0x104f, 1, &[32]),
        ]);
        let at = |address| table.rule_at(address).map(|rule| rule.cfa_offset);
        assert_eq!(
            [0xfff, 0x1000, 0x1003, 0x1004, 0x100f].map(at),
            [None, Some(8), Some(8), Some(16), Some(16)]
        );
        assert_eq!(
            [0x1010, 0x102f, 0x1030, 0x1040, 0x104e].map(at),
            [None, None, Some(24), Some(24), Some(24)]
        );
        assert_eq!([0x104f, 0x1050, 0x2_0000].map(at), [Some(32), None, None]);
    }

    /// A function over many pages has its rule at the beginning of each.
    #[test]
    fn pages_begin_with_the_rule_in_force() {
        let table = build(&[(0x8000, 0x4_0000, &[8, 16])]);
        assert_eq!(table.pages.len(), 5);
        for address in [0x8004, 0x1_0000, 0x2_ffff, 0x4_7fff] {
            assert_eq!(table.rule_at(address).map(|r| r.cfa_offset), Some(16));
        }
        assert_eq!(table.rule_at(0x4_8000), None);
    }

    proptest! {
        /// Compaction loses nothing: at every address the rule is that of the function there.
        #[test]
        fn compaction_agrees_with_the_functions(
            functions in proptest::collection::vec((0_u64..40_000, 1_u64..300, proptest::collection::vec(1_i32..6, 1..5)), 1..12)
        ) {
            let mut end = 60_000;
            let placed: Vec<(u64, u64, Vec<i32>)> = functions.into_iter().map(|(gap, length, rules)| {
                let start = end + gap;
                end = start + length;
                (start, length, rules)
            }).collect();
            let list: Vec<_> = placed.iter().map(|(s, l, r)| (*s, *l, r.as_slice())).collect();
            let table = build(&list);
            for (start, length, rules) in &placed {
                for address in *start..start + length {
                    let index = usize::try_from((address - start) / 4).unwrap().min(rules.len() - 1);
                    prop_assert_eq!(table.rule_at(address).map(|r| r.cfa_offset), Some(rules[index]));
                }
            }
            for &(first, count) in &table.pages {
                let rows = &table.rows[first as usize..][..usize::from(count)];
                prop_assert!(rows.windows(2).all(|pair| pair[0] >> PAGE_BITS < pair[1] >> PAGE_BITS));
                prop_assert!(rows.iter().all(|&row| (rule_of(row) as usize) < table.rules.len()));
            }
        }
    }
}
