//! How fast files become unwind tables, and how large those are: one line of JSON a file. Run by
//! `cargo xtask bench tables`.

#![expect(clippy::print_stdout, reason = "standard output is where the lines go")]

use std::{error::Error, fs::File, mem::size_of, time::Instant};

use object::ReadCache;
use profiler::unwind::Table;
use profiler_common::unwind::{Rule, table::Page};
use serde_json::json;

/// Readings of a file, of which the median counts.
const READINGS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args().skip(1) {
        let file = File::open(&path)?;
        let mut times_ns = Vec::with_capacity(READINGS);
        let mut table = Table::default();
        for _ in 0..READINGS {
            let started = Instant::now();
            // A new cache each time, as the profiler reads each file once.
            (_, table) = Table::read(&ReadCache::new(&file))?;
            times_ns.push(started.elapsed().as_nanos());
        }
        times_ns.sort_unstable();
        let bytes = table.rows.len() * size_of::<u32>()
            + table.rules.len() * size_of::<Rule>()
            + table.pages.len() * size_of::<Page>();
        let line = json!({
            "file": path,
            "file_bytes": file.metadata()?.len(),
            "raw_rows": table.raw_rows,
            "rows": table.rows.len(),
            "rules": table.rules.len(),
            "pages": table.pages.len(),
            "malformed": table.malformed,
            "table_bytes": bytes,
            "median_ns": u64::try_from(times_ns[READINGS / 2])?,
        });
        println!("{line}");
    }
    Ok(())
}
