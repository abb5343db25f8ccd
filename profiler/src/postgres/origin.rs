//! Where calls come from: a connection and what is known of it. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::protocol::{Session, Side};

/// How traffic was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    /// On a TCP connection.
    Tcp,
    /// On a unix socket.
    Unix,
    /// Within TLS, on whatever connection.
    Tls,
}

impl Transport {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
        }
    }
}

/// In a word.
pub(super) fn side_text(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// A connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Whose calls are seen.
    pub(super) side: Side,
    pub(super) transport: Transport,
    /// Process whose calls are seen.
    pub(super) pid: u32,
    /// The other end: an address, or the path of the server's socket.
    pub(super) peer: Option<Arc<str>>,
    pub(super) database: Option<Arc<str>>,
    pub(super) user: Option<Arc<str>>,
    pub(super) application: Option<Arc<str>>,
    /// The server's process, as it told its client.
    pub(super) backend: Option<u32>,
}

impl Origin {
    /// The same connection after its start-up was seen.
    pub(super) fn with_session(&self, session: &Session) -> Self {
        let known = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Self {
            database: known(&session.database),
            user: known(&session.user),
            application: known(&session.application_name),
            backend: session.backend_pid,
            ..self.clone()
        }
    }

    /// The same connection as a backend's title tells it: `postgres: [CLUSTER: ]USER DATABASE PEER ACTIVITY`
    /// (`init_ps_display` of `src/backend/utils/misc/ps_status.c`). Names with blanks are not understood.
    pub(super) fn with_title(&self, title: &str) -> Self {
        let Some(rest) = rest_of_title(title) else {
            return self.clone();
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [user, database, peer, ..] = words.as_slice() else {
            return self.clone();
        };
        let is_peer = *peer == "[local]" || peer.ends_with(')');
        if !is_peer {
            return self.clone();
        }
        Self {
            user: Some(Arc::from(*user)),
            database: Some(Arc::from(*database)),
            ..self.clone()
        }
    }
}

/// A title of a server's process behind the words that all of them have.
pub(super) fn rest_of_title(title: &str) -> Option<&str> {
    let rest = title.strip_prefix("postgres: ")?.trim();
    match rest.split_once(' ') {
        Some((cluster, rest)) if cluster.ends_with(':') => Some(rest.trim_start()),
        _ => Some(rest),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Origin, Side, Transport};

    pub(in crate::postgres) fn origin() -> Origin {
        Origin {
            side: Side::Server,
            transport: Transport::Unix,
            pid: 7,
            peer: None,
            database: None,
            user: None,
            application: None,
            backend: None,
        }
    }

    /// Titles of backends name user and database; those of other processes of the server do not.
    #[test]
    fn titles_are_read() {
        let read = |title: &str| {
            let origin = origin().with_title(title);
            (origin.user, origin.database)
        };
        let both = (Some("bench".into()), Some("shop".into()));
        assert_eq!(read("postgres: bench shop [local] idle"), both);
        let cluster = "postgres: 15/main: bench shop 127.0.0.1(47112) SELECT";
        assert_eq!(read(cluster), both);
        for other in [
            "postgres: checkpointer ",
            "postgres: autovacuum launcher",
            "app a b c",
        ] {
            assert_eq!(read(other), (None, None), "{other}");
        }
    }
}
