//! Names of places that come again and again, for who asks for months. Bounded, and forgotten now and then: names
//! change when a kernel module is replaced.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use lru::LruCache;

use super::{Limits, Named, Resolved, Sources, SymbolizeError, Symbols};
use crate::process::Place;

/// Most places: some 20 MB.
const PLACES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(50_000 - 1);
/// How long names are believed.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// See the file.
pub(crate) struct Cache {
    names: LruCache<Place, Named>,
    /// Started when there is something to name: it remembers which files are not to be read again.
    symbols: Option<Symbols>,
    /// The table of files that places refer to.
    table: u64,
    born: Instant,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            names: LruCache::new(PLACES_MAX),
            symbols: None,
            table: 0,
            born: Instant::now(),
        }
    }

    /// Names for places. `table` tells apart tables of files, in which one position means different files.
    pub(crate) fn resolve(
        &mut self,
        table: u64,
        places: &[Place],
        sources: Sources,
    ) -> Result<Resolved, SymbolizeError> {
        if table != self.table || self.born.elapsed() > AGE_MAX {
            self.names.clear();
            if table != self.table {
                self.symbols = None;
            }
            self.table = table;
            self.born = Instant::now();
        }
        let mut named: Vec<Option<Named>> = places
            .iter()
            .map(|place| self.names.get(place).cloned())
            .collect();
        let missing: Vec<Place> = (places.iter().zip(&named))
            .filter(|(_, named)| named.is_none())
            .map(|(place, _)| *place)
            .collect();
        let mut resolved = Resolved::default();
        if !missing.is_empty() {
            let symbols = match self.symbols.take() {
                Some(symbols) => symbols,
                None => Symbols::spawn(Limits::SERVICE)?,
            };
            resolved = symbols.resolve(missing, sources)?;
            self.symbols = Some(symbols);
        }
        let mut found = std::mem::take(&mut resolved.named).into_iter();
        for (place, slot) in places.iter().zip(&mut named) {
            if slot.is_none() {
                *slot = found.next();
                if let Some(named) = slot
                    && is_lasting(place)
                    && !is_by_page(named)
                {
                    self.names.put(*place, named.clone());
                }
            }
        }
        resolved.named = named.into_iter().flatten().collect();
        Ok(resolved)
    }
}

/// Whether a place has the name of its page, because its file could not be read, or not in time. The next window asks
/// again.
fn is_by_page(named: &Named) -> bool {
    let only = named.frames.first().filter(|_| named.frames.len() == 1);
    only.is_some_and(|frame| frame.line.is_none() && frame.name.contains("@0x"))
}

/// Whether a place means the same later. What a runtime compiles is replaced.
fn is_lasting(place: &Place) -> bool {
    matches!(
        place,
        Place::Kernel(_) | Place::File { .. } | Place::Vdso { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::{Cache, Place, Sources};
    use crate::process::Processes;

    /// What was named once is not looked up again, and has the same name in the same place.
    #[test]
    fn second_time_is_from_memory() {
        let mut processes = Processes::new();
        let pid = std::process::id();
        processes.observe(pid);
        let code = processes.locate(pid, second_time_is_from_memory as *const () as u64);
        let sources = Sources::of(&processes);
        let places = [Place::Unmapped { address: 1 }, code, code];
        let mut cache = Cache::new();
        let first = cache.resolve(1, &places, sources.clone()).unwrap().named;
        assert!(
            first[1]
                .frames
                .iter()
                .any(|frame| frame.name.contains("from_memory"))
        );
        // Without its file the name can only come from memory.
        let nothing = Sources::of(&Processes::new());
        let second = cache.resolve(1, &places, nothing.clone()).unwrap().named;
        assert_eq!(first, second);
        let other_table = cache.resolve(2, &places, nothing).unwrap().named;
        assert_ne!(first[1], other_table[1]);
    }
}
