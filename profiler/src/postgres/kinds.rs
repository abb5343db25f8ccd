//! What kind of process a server's is, by its title: numbers for kinds differ between versions of Postgres, these words
//! do not (`init_ps_display` of `src/backend/utils/misc/ps_status.c`). Pure.

use super::origin::rest_of_title;

/// Kinds whose title begins with these words, as `backend_type` of `pg_stat_activity` has them.
const WORKERS: [&str; 7] = [
    "parallel worker",
    "autovacuum worker",
    "logical replication parallel worker",
    "logical replication apply worker",
    "logical replication tablesync worker",
    "logical replication worker",
    "walsender",
];

/// The kind of a process that serves a client.
pub(super) const CLIENT: &str = "client backend";

/// The kind of a process that runs statements or sends the log of changes, by its title; `None` of others. A role may be
/// called as a kind is: who serves a client is known by its socket.
pub(super) fn worker(title: &str) -> Option<&'static str> {
    let rest = rest_of_title(title)?;
    WORKERS.into_iter().find(|kind| {
        let behind = rest.strip_prefix(kind);
        behind.is_some_and(|behind| behind.is_empty() || behind.starts_with(' '))
    })
}

/// The kind of a process with a client.
pub(super) fn with_client(title: &str) -> &'static str {
    worker(title)
        .filter(|kind| *kind == "walsender")
        .unwrap_or(CLIENT)
}

#[cfg(test)]
mod tests {
    use super::{CLIENT, with_client, worker};

    /// Titles tell kinds, with and without the name of a cluster.
    #[test]
    fn titles_tell_kinds() {
        for (title, kind) in [
            (
                "postgres: parallel worker for PID 42 ",
                Some("parallel worker"),
            ),
            (
                "postgres: 15/main: autovacuum worker shop",
                Some("autovacuum worker"),
            ),
            (
                "postgres: logical replication worker for subscription 7",
                Some("logical replication worker"),
            ),
            (
                "postgres: walsender me 10.0.0.7(5123) streaming 0/1",
                Some("walsender"),
            ),
            ("postgres: checkpointer ", None),
            ("postgres: autovacuum launcher ", None),
            ("postgres: me shop [local] SELECT", None),
            ("app parallel worker", None),
        ] {
            assert_eq!(worker(title), kind, "{title}");
        }
        assert_eq!(with_client("postgres: me shop [local] SELECT"), CLIENT);
        assert_eq!(
            with_client("postgres: walsender me [local] idle"),
            "walsender"
        );
    }
}
