//! Sorts and formats.

use std::{collections::BTreeMap, hint::black_box};

#[inline(never)]
fn sort(rows: &mut [u64]) {
    for (index, row) in rows.iter_mut().enumerate() {
        *row = index as u64 * 7919 % 10007;
    }
    rows.sort_by(|one, other| other.cmp(one));
}

#[inline(never)]
fn text(rows: &[u64]) -> usize {
    let rows = rows.iter().map(|row| (format!("{row:08}"), *row));
    rows.collect::<BTreeMap<String, u64>>().len()
}

#[inline(never)]
fn handle(rows: &mut [u64]) -> usize {
    sort(rows);
    // Not in place of this function.
    black_box(text(rows))
}

fn main() {
    let mut rows = vec![0; 5000];
    loop {
        black_box(handle(&mut rows));
    }
}
