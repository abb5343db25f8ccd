//! How much of our time the files of each user may take to read: a file can be made that takes a second, and copied.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{Spent, ran};

/// What a user's files may take at once: a hundred large programs.
const FREE: Duration = Duration::from_secs(2);
/// Most users that are remembered.
const USERS_MAX: usize = 4096;

/// What the files of each user have taken. Root's may take what they like.
#[derive(Debug, Default)]
pub(crate) struct Owners(HashMap<u32, Spent>);

impl Owners {
    /// Reads a file of a user's, unless that user's files have taken too much: `None`, to be tried later.
    pub(crate) fn read<T>(&mut self, user: u32, read: impl FnOnce() -> T) -> Option<T> {
        let now = Instant::now();
        if !self.may(user, now) {
            return None;
        }
        let began = ran();
        let result = read();
        self.took(user, now, ran().saturating_sub(began));
        Some(result)
    }

    fn may(&self, user: u32, now: Instant) -> bool {
        user == 0 || self.0.get(&user).is_none_or(|spent| spent.may(now))
    }

    fn took(&mut self, user: u32, now: Instant, took: Duration) {
        if user == 0 {
            return;
        }
        if self.0.len() >= USERS_MAX {
            self.0.clear();
        }
        let spent = self.0.entry(user).or_insert(Spent::new(now, FREE));
        spent.took(took);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{FREE, Owners};

    /// One user's files are put off, those of others and of root are not; in time they are read.
    #[test]
    fn one_user_is_put_off() {
        let now = Instant::now();
        let mut owners = Owners::default();
        for user in [0, 1000] {
            owners.took(user, now, FREE + Duration::from_secs(1));
        }
        let may = |user, later| owners.may(user, now + later);
        let zero = Duration::ZERO;
        assert_eq!(
            [0, 1000, 1001].map(|user| may(user, zero)),
            [true, false, true]
        );
        assert!(may(1000, Duration::from_secs(60)));
        assert_eq!(
            (owners.read(1000, || 1), owners.read(0, || 2)),
            (None, Some(2))
        );
    }
}
