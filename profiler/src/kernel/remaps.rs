//! Memory that processes make executable: what was known of those addresses holds no longer.
//!
//! A perf event that counts nothing emits each such mapping (`PERF_RECORD_MMAP2`), with the clock of
//! the samples. Its ring is emptied before a sample that may have come after it is looked at.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::generated::{
    perf_event_attr, perf_event_sample_format::PERF_SAMPLE_TIME,
    perf_event_type::PERF_RECORD_MMAP2, perf_sw_ids::PERF_COUNT_SW_DUMMY,
    perf_type_id::PERF_TYPE_SOFTWARE,
};

use super::{attach::online_cpus, diff_cpus, perf_ring::PerfRing};

/// `PERF_RECORD_LOST`: the ring was full.
const LOST: u32 = 2;
/// Most events that wait for a sample to come after them.
const WAITING_MAX: usize = 65_536;

/// An executable mapping that was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remap {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// By which process, in the initial pid namespace.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset in the file of what is mapped at `start`.
    pub file_offset: u64,
    /// Of the file, as `/proc/PID/maps` has it; zeros of memory without one.
    pub device: (i32, i32),
    /// Of the file, as above.
    pub inode: u64,
}

/// All events, in the order of their times.
#[derive(Default)]
pub struct Remaps {
    rings: BTreeMap<u32, PerfRing>,
    waiting: BTreeSet<Remap>,
    /// Everything before this time has been read, ns.
    read_until_ns: u64,
    lost: u64,
}

impl Remaps {
    /// Begins to listen on every CPU, also on those that came since the last call. Where the kernel does not
    /// let us, nothing is emitted, and the first error is given.
    pub fn listen(&mut self) -> std::io::Result<()> {
        let online = online_cpus().map_err(std::io::Error::other)?;
        let (came, went) = diff_cpus(&self.rings.keys().copied().collect(), &online);
        for cpu in went {
            self.rings.remove(&cpu);
        }
        for cpu in came {
            self.rings
                .insert(cpu, PerfRing::open(&mut attributes(), cpu)?);
        }
        Ok(())
    }

    /// The mappings made up to a time of a sample, each once, oldest first. `now_ns` is asked for the time.
    pub fn until(&mut self, time_ns: u64, now_ns: impl FnOnce() -> u64) -> Vec<Remap> {
        if time_ns >= self.read_until_ns && !self.rings.is_empty() {
            let now_ns = now_ns();
            self.read();
            self.read_until_ns = now_ns;
        }
        let behind = Remap {
            time_ns: time_ns.saturating_add(1),
            ..Remap::default()
        };
        if self.waiting.first().is_none_or(|first| *first >= behind) {
            return Vec::new();
        }
        let later = self.waiting.split_off(&behind);
        std::mem::replace(&mut self.waiting, later)
            .into_iter()
            .collect()
    }

    /// How many mappings were dropped since the last call: any process may have made them.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn read(&mut self) {
        let Self {
            rings,
            waiting,
            lost,
            ..
        } = self;
        for ring in rings.values_mut() {
            ring.drain(|kind, body| {
                if kind == LOST {
                    *lost += word(body, 8).unwrap_or(1);
                } else if kind == PERF_RECORD_MMAP2 as u32
                    && let Some(remap) = decode(body)
                {
                    if waiting.len() < WAITING_MAX {
                        waiting.insert(remap);
                    } else {
                        *lost += 1;
                    }
                }
            });
        }
    }
}

fn attributes() -> perf_event_attr {
    // SAFETY: plain numbers, of which zero is one that the kernel accepts.
    let mut attributes: perf_event_attr = unsafe { std::mem::zeroed() };
    attributes.type_ = PERF_TYPE_SOFTWARE as u32;
    attributes.size = u32::try_from(size_of::<perf_event_attr>()).unwrap_or(0);
    attributes.config = PERF_COUNT_SW_DUMMY as u64;
    attributes.sample_type = PERF_SAMPLE_TIME as u64;
    attributes.clockid = libc::CLOCK_MONOTONIC;
    attributes.set_mmap(1);
    attributes.set_mmap2(1);
    attributes.set_sample_id_all(1);
    attributes.set_use_clockid(1);
    attributes
}

/// Reads what follows the header of a `PERF_RECORD_MMAP2`: ids, address, length, offset, device, inode and its
/// generation, protection, flags, name; at the end the time.
fn decode(body: &[u8]) -> Option<Remap> {
    let half = |at: usize| Some(u32::from_ne_bytes(*body.get(at..)?.first_chunk()?));
    let (start, length) = (word(body, 8)?, word(body, 16)?);
    Some(Remap {
        time_ns: word(body, body.len().checked_sub(8)?)?,
        pid: half(0)?,
        start,
        end: start.checked_add(length)?,
        file_offset: word(body, 24)?,
        device: (half(32)?.cast_signed(), half(36)?.cast_signed()),
        inode: word(body, 40)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::{Remap, Remaps, decode};

    /// Every member is where the kernel has it; a record that ends early is none.
    #[test]
    fn records_are_decoded() {
        let words: [u64; 9] = [
            7 << 32 | 5,
            0x1000,
            0x2000,
            0x3000,
            2 << 32 | 8,
            99,
            0,
            5,
            1234,
        ];
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let remap = Remap {
            time_ns: 1234,
            pid: 5,
            start: 0x1000,
            end: 0x3000,
            file_offset: 0x3000,
            device: (8, 2),
            inode: 99,
        };
        assert_eq!(decode(&body), Some(remap));
        assert_eq!(decode(&body[..40]), None);
        assert_eq!(decode(&[]), None);
    }

    /// What was made up to a sample's time comes before it, oldest first, and once.
    #[test]
    fn mappings_come_in_the_order_of_time() {
        let mut remaps = Remaps::default();
        let made = |time_ns| Remap {
            time_ns,
            pid: 1,
            ..Remap::default()
        };
        remaps.waiting.extend([made(30), made(10), made(20)]);
        let mut until = |time_ns| remaps.until(time_ns, || time_ns);
        assert_eq!(until(9), []);
        assert_eq!(until(20), [made(10), made(20)]);
        assert_eq!(until(20), []);
        assert_eq!(until(40), [made(30)]);
    }
}
