//! Where a file's debug information is, and whether another file is that one.

use std::{io::Read, os::fd::OwnedFd};

use object::{Object, ReadCache};

use super::readable::FromStart;
use crate::symbolize::wire::Links;

/// How much is read at once.
const CHUNK: usize = 1 << 16;

/// What a file is known by to its debug file.
struct Known {
    build_id: Vec<u8>,
    debug_link: Option<(Vec<u8>, u32)>,
}

fn known(file: &OwnedFd) -> Option<Known> {
    let file = std::fs::File::from(file.try_clone().ok()?);
    let cache = ReadCache::new(file);
    let object = object::File::parse(&cache).ok()?;
    let build_id = object.build_id().ok().flatten().unwrap_or_default();
    let debug_link = object.gnu_debuglink().ok().flatten();
    Some(Known {
        build_id: build_id.to_vec(),
        debug_link: debug_link.map(|(name, sum)| (name.to_vec(), sum)),
    })
}

/// What a file says of it.
pub(super) fn links(file: &OwnedFd) -> Links {
    known(file).map_or_else(Links::default, |known| Links {
        build_id: known.build_id,
        debug_link: known.debug_link.map(|(name, _)| name),
    })
}

/// The one of these files that has the debug information of the file.
pub(super) fn find<'a>(file: &OwnedFd, candidates: &'a [OwnedFd]) -> Option<&'a OwnedFd> {
    if candidates.is_empty() {
        return None;
    }
    let Known {
        build_id,
        debug_link,
    } = known(file)?;
    let is_it = |candidate: &&OwnedFd| {
        let theirs = known(candidate).unwrap_or(Known {
            build_id: Vec::new(),
            debug_link: None,
        });
        let same_build = !build_id.is_empty() && build_id == theirs.build_id;
        same_build
            || debug_link
                .as_ref()
                .is_some_and(|(_, sum)| check_sum(candidate) == Some(*sum))
    };
    candidates.iter().find(is_it)
}

/// The sum that a debug link has of its file.
fn check_sum(file: &OwnedFd) -> Option<u32> {
    let mut reader = FromStart::of(file).ok()?;
    let mut sum = flate2::Crc::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk).ok()? {
            0 => return Some(sum.sum()),
            read => sum.update(&chunk[..read]),
        }
    }
}
