//! Code that takes the place of other code in a process that is known.

use std::time::Instant;

use super::table::{Known, Place, Processes, place_in, read_mappings};
use crate::kernel::Remap;

impl Processes {
    /// A process made memory executable: if that took the place of code that is known, its mappings are read again.
    pub fn remapped(&mut self, remap: &Remap) {
        let Self {
            known,
            files,
            changed,
            ..
        } = self;
        let Some(process) = known.get_mut(&remap.pid) else {
            return;
        };
        if !process.mappings.is_replaced(remap) {
            return;
        }
        let looked = process
            .looks
            .may(Instant::now())
            .then(|| read_mappings(remap.pid, &process.mappings, &mut process.looks, files));
        // By now the process may have gone on to map something else there, which the kernel emits later.
        let new = looked.flatten().filter(|new| new.has(remap));
        let new = new.unwrap_or_else(|| {
            let mut lists = process.replaced.lists().chain([&process.mappings]);
            let file = lists.find_map(|list| list.file_of(remap.device, remap.inode));
            // Better no name than an old one.
            process.mappings.with(remap, file, &files.mappings)
        });
        let old = std::mem::replace(&mut process.mappings, new);
        let range = (remap.start, remap.end);
        process.replaced.replace(range, remap.time_ns, old);
        changed.insert(remap.pid);
    }

    /// Any process may have replaced code: all are looked at again.
    pub fn remaps_lost(&mut self, time_ns: u64) {
        let pids: Vec<u32> = self.known.keys().copied().collect();
        for pid in pids {
            let Some(process) = self.known.get_mut(&pid) else {
                continue;
            };
            let Known {
                mappings, looks, ..
            } = process;
            if looks.may(Instant::now())
                && let Some(new) = read_mappings(pid, mappings, looks, &mut self.files)
                && new != process.mappings
            {
                let old = std::mem::replace(&mut process.mappings, new);
                process.replaced.replace((0, u64::MAX), time_ns, old);
                self.changed.insert(pid);
            }
        }
    }

    /// The kernel side has the mappings of a process as they are here.
    pub fn handed_on(&mut self, pid: u32, now_ns: u64) {
        if let Some(process) = self.known.get_mut(&pid) {
            process.replaced.known_from(now_ns);
        }
    }

    /// How many frames of a stack are right that was taken at a time: the rest was walked with tables of code that
    /// had been replaced.
    pub fn right_frames(&self, pid: u32, time_ns: u64, frames: &[u64]) -> usize {
        let known = self.known.get(&pid);
        known.map_or(frames.len(), |known| {
            known.replaced.right_frames(time_ns, frames)
        })
    }

    /// Where an address of a process lay at a time.
    pub fn locate_when(&mut self, pid: u32, address: u64, time_ns: u64) -> Place {
        let known = self.known.get(&pid);
        let old = known.and_then(|known| Some((known.life, known.replaced.at(time_ns)?)));
        let Some((life, old)) = old else {
            return self.locate(pid, address);
        };
        let Some(mapping) = old.find(address) else {
            return Place::Unmapped { address };
        };
        place_in(mapping, address, life)
    }
}
