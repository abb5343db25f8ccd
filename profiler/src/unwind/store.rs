//! Tables of files in the memory shared with the kernel side: each once, however many processes and
//! paths it is mapped under.

use std::collections::HashMap;

use profiler_common::{
    limits::{PAGES_MAX, RULES_MAX, SEGMENTS_MAX},
    unwind::{
        Rule,
        table::{Page, ROWS_PER_SEGMENT},
    },
};

use super::{Shared, Table, arena::Arena};

/// Where a table lies, as a mapping refers to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) first_page: u32,
    pub(super) pages: u32,
    pub(super) page_base: u32,
    pub(super) rule_base: u32,
}

/// A table in shared memory.
#[derive(Clone, Debug)]
struct Stored {
    placed: Placed,
    rules: u32,
    /// Its rows: segment, first, length.
    rows: Vec<(u16, u32, u32)>,
}

/// Allocation of the shared memory.
#[derive(Debug)]
pub(super) struct Store {
    pages: Arena,
    rules: Arena,
    segments: Vec<Arena>,
    stored: HashMap<u32, Stored>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            pages: Arena::new(to_u32(PAGES_MAX)),
            rules: Arena::new(to_u32(RULES_MAX)),
            segments: Vec::new(),
            stored: HashMap::new(),
        }
    }

    /// Whether a table lies there, entry for entry.
    pub(super) fn is_equal<S: Shared>(&self, placed: Placed, table: &Table, shared: &S) -> bool {
        let same_size = placed.first_page == table.first_page
            && placed.pages == to_u32(table.pages.len())
            && (self.stored.get(&placed.page_base))
                .is_some_and(|stored| stored.rules == to_u32(table.rules.len()));
        let same_page = |(at, &(first, count)): (u32, &(u32, u16))| {
            let page = shared.page(placed.page_base + at);
            page.is_some_and(|page| {
                let rows = table
                    .rows
                    .get(first as usize..first as usize + usize::from(count));
                let mut there = (page.first..).map(|at| shared.row(page.segment, at));
                page.count == count
                    && rows
                        .is_some_and(|rows| rows.iter().all(|row| there.next() == Some(Some(*row))))
            })
        };
        let same_rule =
            |(at, rule): (u32, &Rule)| shared.rule(placed.rule_base + at) == Some(*rule);
        same_size
            && (0..).zip(&table.rules).all(same_rule)
            && (0..).zip(&table.pages).all(same_page)
    }

    /// Whether half of all stays free if a table is put.
    pub(super) fn leaves_half(&self, table: &Table) -> bool {
        let stays = |arena: &Arena, taken: usize, all: usize| {
            usize::try_from(arena.free()).is_ok_and(|free| free >= taken.saturating_add(all / 2))
        };
        let rows_max = SEGMENTS_MAX as u64 * u64::from(ROWS_PER_SEGMENT);
        stays(&self.pages, table.pages.len(), PAGES_MAX)
            && stays(&self.rules, table.rules.len(), RULES_MAX)
            && self.rows() + table.rows.len() as u64 <= rows_max / 2
    }

    /// Writes a table, in the order in which it is searched backwards; nothing refers to it yet.
    /// `None` where there is no room.
    pub(super) fn put<S: Shared>(
        &mut self,
        table: &Table,
        shared: &mut S,
    ) -> Result<Option<Placed>, S::Error> {
        let (pages, rules) = (to_u32(table.pages.len()), to_u32(table.rules.len()));
        let Some(page_base) = self.pages.take(pages) else {
            return Ok(None);
        };
        let Some(rule_base) = self.rules.take(rules) else {
            self.pages.give_back(page_base, pages);
            return Ok(None);
        };
        let placed = Placed {
            first_page: table.first_page,
            pages,
            page_base,
            rule_base,
        };
        let mut stored = Stored {
            placed,
            rules,
            rows: Vec::new(),
        };
        let Some(page_list) = self.put_rows(table, &mut stored, shared)? else {
            self.free(&stored);
            return Ok(None);
        };
        shared.write_rules(rule_base, &table.rules);
        shared.write_pages(page_base, &page_list);
        self.stored.insert(page_base, stored);
        Ok(Some(placed))
    }

    /// Frees a table. The caller has waited until no walk can still be in it.
    pub(super) fn remove(&mut self, placed: Placed) {
        if let Some(stored) = self.stored.remove(&placed.page_base) {
            self.free(&stored);
        }
    }

    fn free(&mut self, stored: &Stored) {
        self.pages
            .give_back(stored.placed.page_base, stored.placed.pages);
        self.rules.give_back(stored.placed.rule_base, stored.rules);
        for &(segment, first, length) in &stored.rows {
            self.segments[usize::from(segment)].give_back(first, length);
        }
    }

    /// Pages that lie together in one segment are written together.
    fn put_rows<S: Shared>(
        &mut self,
        table: &Table,
        stored: &mut Stored,
        shared: &mut S,
    ) -> Result<Option<Vec<Page>>, S::Error> {
        let mut list = Vec::with_capacity(table.pages.len());
        for run in runs(&table.pages) {
            let begin = run.first().map_or(0, |page| page.0);
            let end = run.last().map_or(0, |page| page.0 + u32::from(page.1));
            let Some((segment, at)) = self.take_rows(end - begin) else {
                return Ok(None);
            };
            stored.rows.push((segment, at, end - begin));
            shared.write_rows(segment, at, &table.rows[begin as usize..end as usize])?;
            list.extend(run.iter().map(|&(first, count)| Page {
                segment,
                count,
                first: at + first - begin,
            }));
        }
        Ok(Some(list))
    }

    fn take_rows(&mut self, length: u32) -> Option<(u16, u32)> {
        for (segment, arena) in (0..).zip(&mut self.segments) {
            if let Some(first) = arena.take(length) {
                return Some((segment, first));
            }
        }
        if self.segments.len() >= SEGMENTS_MAX {
            return None;
        }
        let mut arena = Arena::new(ROWS_PER_SEGMENT);
        let first = arena.take(length)?;
        self.segments.push(arena);
        Some((u16::try_from(self.segments.len() - 1).ok()?, first))
    }

    /// Rows in use, all tables.
    pub(super) fn rows(&self) -> u64 {
        let free: u64 = self
            .segments
            .iter()
            .map(|segment| u64::from(segment.free()))
            .sum();
        self.segments.len() as u64 * u64::from(ROWS_PER_SEGMENT) - free
    }
}

/// Pages in runs of at most a quarter of a segment, so that little is left over at the end of each.
fn runs(pages: &[(u32, u16)]) -> impl Iterator<Item = &[(u32, u16)]> {
    const ROWS_MAX: u32 = ROWS_PER_SEGMENT / 4;
    let mut rest = pages;
    std::iter::from_fn(move || {
        let &(begin, _) = rest.first()?;
        let fits =
            rest.partition_point(|&(first, count)| first + u32::from(count) - begin <= ROWS_MAX);
        let (run, after) = rest.split_at(fits.max(1));
        rest = after;
        Some(run)
    })
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
