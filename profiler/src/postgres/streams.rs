//! Sockets: which of them speak Postgres, and a machine of the protocol for each that does. Pure.

use std::{collections::hash_map::Entry, sync::Arc};

use profiler_common::wire::{WireHeader, source};
use rustc_hash::FxHashMap;

use super::{
    account::Sockets,
    conversation::{Conversation, Passing, Unknown, World},
    encrypted::Encrypted,
    now::UnderWay,
    origin::Origin,
    protocol::{Direction, Ending, Event, Recognition},
    texts::Texts,
    transfer::Transfer,
    undecided::{Shown, Undecided, quiet_ns},
};

/// Most sockets that are followed at once.
const SOCKETS_MAX: usize = 50_000;

/// What is to be done about a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Nothing more of it is wanted.
    pub(super) ignore: Option<Ignore>,
    /// It is encrypted.
    pub(super) is_encrypted: bool,
    /// It is within a long message, or no longer.
    pub(super) passing: Option<Passing>,
    /// It runs a statement whose text was not seen, or has just done so.
    pub(super) unknown: Option<Unknown>,
}

/// A socket that is ignored from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ignore {
    /// Address and inode number.
    pub(super) socket: (u64, u64),
    /// Since when, and until it was silent for how long, ns.
    pub(super) since_ns: u64,
    pub(super) quiet_ns: u64,
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By address.
    followed: FxHashMap<u64, Stream>,
    sockets: Sockets,
    encrypted: Encrypted,
    events: Vec<Event>,
    /// Connections of Postgres that were met.
    met: u32,
}

#[derive(Debug)]
struct Stream {
    /// Of what it carried last: who it is, and who used it.
    last: WireHeader,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Nothing so far.
    Undecided(Undecided),
    Postgres(Box<Conversation>),
    /// Something else, given up for the first time, the second, … at this time, ns.
    Other {
        tries: u32,
        since_ns: u64,
    },
}

/// Why nothing more of a socket is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It has not spoken Postgres up to now, ns.
    Other(u64),
    /// It is encrypted; what is inside is not known.
    Encrypted,
    /// Postgres asked for it to be encrypted.
    PostgresEncrypted,
}

impl Streams {
    /// Counts a record that made no sense.
    pub(super) fn malformed(&mut self) {
        self.sockets.malformed += 1;
    }

    /// Counts records from after the end of the recording, of which nothing is told.
    pub(super) fn leave_out(&mut self, records: usize) {
        self.sockets.records += records as u64;
    }

    pub(super) fn sockets(&self) -> Sockets {
        let mut sockets = self.sockets;
        let undecided = |stream: &&Stream| matches!(stream.what, What::Undecided(_));
        sockets.undecided += self.followed.values().filter(undecided).count() as u64;
        let open = |stream: &&Stream| matches!(stream.what, What::Postgres(_));
        sockets.open = self.followed.values().filter(open).count() as u64;
        sockets.encrypted = self.encrypted.counts();
        sockets
    }

    /// Takes a transfer, in order. `world` says what is known of a connection that is new.
    pub(super) fn take(
        &mut self,
        transfer: Transfer,
        texts: &mut Texts,
        world: &mut impl World,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) -> Told {
        self.sockets.records += 1;
        let header = transfer.header;
        if is_within_tls(&header) {
            self.encrypted.passed(&header);
        }
        self.end_another(&header, texts, &mut tell);
        let is_full = self.followed.len() >= SOCKETS_MAX;
        let stream = match self.followed.entry(header.socket) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.sockets.overflowed += 1;
                return Told::default();
            }
            Entry::Vacant(entry) => entry.insert(Stream {
                last: header,
                what: What::Undecided(Undecided::default()),
            }),
        };
        if stream.last.tgid != header.tgid {
            stream.last = header;
        }
        if let What::Other { tries, since_ns } = stream.what {
            // It was silent for long enough: else the kernel side would not emit it.
            if header.exit_ns <= since_ns || is_within_tls(&header) {
                return Told::default();
            }
            self.sockets.other = self.sockets.other.saturating_sub(1);
            stream.what = What::Undecided(Undecided::again(tries));
        }
        let What::Undecided(undecided) = &mut stream.what else {
            return self.hear(vec![transfer], texts, tell);
        };
        let Shown {
            recognition,
            passing,
        } = undecided.take(transfer);
        let told = match recognition {
            // The library gave the connection up.
            Recognition::Undecided if header.length == 0 && is_within_tls(&header) => {
                self.close(header.socket, closed(&header), texts, tell);
                Told::default()
            }
            Recognition::Undecided => Told::default(),
            Recognition::Postgres(side) => {
                self.sockets.postgres += 1;
                let heard = undecided.heard();
                self.met = self.met.wrapping_add(1).max(1);
                let conversation = Conversation::meet((side, self.met), &header, &heard, world);
                stream.what = What::Postgres(Box::new(conversation));
                self.hear(heard, texts, tell)
            }
            Recognition::Tls if !is_within_tls(&header) => self.give_up(&header, Why::Encrypted),
            Recognition::Other if world.is_server(header.tgid) => {
                undecided.keep();
                Told::default()
            }
            Recognition::Tls | Recognition::Other => {
                self.give_up(&header, Why::Other(world.now_ns()))
            }
        };
        Told {
            passing: told.passing.or(passing),
            ..told
        }
    }

    /// Takes what a connection with Postgres carried.
    fn hear(
        &mut self,
        transfers: Vec<Transfer>,
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) -> Told {
        let is_tls = |event: &Event| matches!(event, Event::Opaque(opaque) if opaque.is_tls());
        let mut told = Told::default();
        for transfer in transfers {
            let header = transfer.header;
            let Some(Stream {
                what: What::Postgres(conversation),
                ..
            }) = self.followed.get_mut(&header.socket)
            else {
                break;
            };
            conversation.used_by(header.tgid);
            if conversation.direction(&header) == Direction::Frontend && header.length > 0 {
                conversation.look_back(transfer.time_ns(), texts);
                conversation.last = None;
            }
            conversation.take(&transfer, texts, &mut self.events);
            told.passing = conversation.passing(&header).or(told.passing);
            // That is told of all that are encrypted together.
            let is_encrypted = self.events.iter().any(is_tls);
            self.events.retain(|event| !is_tls(event));
            conversation.tell(&mut self.events, texts, &mut tell);
            told.unknown = conversation.unknown(&header).or(told.unknown);
            if header.length == 0 {
                self.close(header.socket, closed(&header), texts, &mut tell);
            } else if is_encrypted {
                told = self.give_up(&header, Why::PostgresEncrypted);
            }
        }
        told
    }

    /// Wants nothing more of a socket.
    fn give_up(&mut self, header: &WireHeader, why: Why) -> Told {
        match why {
            Why::Other(_) => self.sockets.other += 1,
            Why::Encrypted => self.encrypted.found(header, false),
            Why::PostgresEncrypted => {
                self.sockets.postgres -= 1;
                self.encrypted.found(header, true);
            }
        }
        if is_within_tls(header) {
            // Its number is not given again.
            self.followed.remove(&header.socket);
        }
        // For good, as what is encrypted stays so.
        let mut ignore = Ignore {
            socket: (header.socket, header.inode),
            since_ns: u64::MAX,
            quiet_ns: u64::MAX,
        };
        if let Some(stream) = self.followed.get_mut(&header.socket) {
            let mut tries = 0;
            if let (Why::Other(now_ns), What::Undecided(undecided)) = (why, &stream.what) {
                tries = undecided.tries();
                (ignore.since_ns, ignore.quiet_ns) = (now_ns, quiet_ns(tries));
            }
            stream.what = What::Other {
                tries,
                since_ns: ignore.since_ns,
            };
        }
        Told {
            ignore: Some(ignore),
            is_encrypted: !matches!(why, Why::Other(_)),
            ..Told::default()
        }
    }

    /// Says which process is the server's end of a connection.
    pub(super) fn set_backend(&mut self, socket: u64, backend: u32) {
        if let Some(stream) = self.followed.get_mut(&socket)
            && let What::Postgres(conversation) = &mut stream.what
        {
            conversation.backend = Some(backend);
        }
    }

    /// Another socket has the address of one that must have been closed.
    fn end_another(
        &mut self,
        header: &WireHeader,
        texts: &mut Texts,
        tell: &mut impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        let known = self.followed.get(&header.socket);
        if known.is_some_and(|stream| stream.last.inode != header.inode) {
            self.close(header.socket, closed(header), texts, tell);
        }
    }

    fn close(
        &mut self,
        socket: u64,
        (ending, time_ns): (Ending, u64),
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        let Some(stream) = self.followed.remove(&socket) else {
            return;
        };
        match stream.what {
            What::Postgres(mut conversation) => {
                conversation.end((ending, time_ns), texts, &mut self.events);
                conversation.tell(&mut self.events, texts, &mut tell);
            }
            What::Undecided(_) => self.sockets.undecided += 1,
            What::Other { .. } => {}
        }
    }

    /// What a process used last, by what it carried then.
    pub(super) fn used_by(&self, pid: u32) -> Vec<WireHeader> {
        let all = self.followed.values().map(|stream| stream.last);
        all.filter(|last| last.tgid == pid).collect()
    }

    /// Ends connections, as they are closed or nothing more of them is wanted.
    pub(super) fn leave(
        &mut self,
        sockets: &[WireHeader],
        ending: (Ending, u64),
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        for header in sockets {
            let stream = self.followed.get(&header.socket);
            if stream.is_some_and(|stream| stream.last.inode == header.inode) {
                self.close(header.socket, ending, texts, &mut tell);
            }
        }
    }

    /// What connections are in the middle of by what was seen of them, with the inode number of each.
    pub(super) fn under_way(&self, now_ns: u64, texts: &mut Texts) -> Vec<(u64, UnderWay)> {
        let streams = self.followed.values();
        let told = streams.filter_map(|stream| match &stream.what {
            What::Postgres(conversation) => {
                Some((stream.last.inode, conversation.now(now_ns, texts)?))
            }
            _ => None,
        });
        told.collect()
    }

    /// The recording is over.
    pub(super) fn finish(
        &mut self,
        time_ns: u64,
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        for stream in self.followed.values_mut() {
            if let What::Postgres(conversation) = &mut stream.what {
                let ending = (Ending::Recording, time_ns);
                conversation.end(ending, texts, &mut self.events);
                conversation.tell(&mut self.events, texts, &mut tell);
            }
        }
    }
}

fn closed(header: &WireHeader) -> (Ending, u64) {
    (Ending::Closed, header.exit_ns)
}

/// Whether it was seen within a TLS library.
fn is_within_tls(header: &WireHeader) -> bool {
    header.source == source::TLS
}
