//! Which texts are one statement. Where the server keeps statements apart by more than their literals, so do we;
//! lists of any length, quoted words and parameters are where they differ on purpose.

use super::{Fingerprint, Reading, normalise};

/// Groups of texts: one fingerprint in a group, another one in each other group.
const GROUPS: &[&[&str]] = &[
    &[
        "SELECT a FROM t WHERE b = 1",
        "select A from T where B=-2;",
        "SELECT a /* x */ FROM t\nWHERE b = 'x' -- y",
        "SELECT a FROM t WHERE b = $1",
    ],
    &[
        "SELECT a FROM t WHERE \"b\" = 1",
        "SELECT a FROM t WHERE \"b\"=2",
    ],
    &["SELECT a FROM t WHERE \"B\" = 1"],
    &["SELECT a FROM t2 WHERE b = 1"],
    &[
        "SELECT a FROM s.t WHERE b = 1",
        "SELECT a FROM s . t WHERE b = 1",
    ],
    &["SELECT a FROM t WHERE c = 1"],
    &["SELECT a FROM t WHERE b = NULL"],
    &[
        "SELECT a FROM t WHERE b IN (1)",
        "SELECT a FROM t WHERE b IN (1,2)",
        "SELECT a FROM t WHERE b IN ($1, $2, $3)",
        "SELECT a FROM t WHERE b IN ('x', NULL)",
    ],
    &[
        "SELECT a FROM t WHERE b IN (1) AND c = 2",
        "SELECT a FROM t WHERE b IN ($1,$2) AND c = $3",
    ],
    &["SELECT a FROM t WHERE b IN (c, 1)"],
    &[
        "SELECT a FROM t WHERE b = ANY(ARRAY[1])",
        "SELECT a FROM t WHERE b = ANY(ARRAY[$1,$2])",
    ],
    &[
        "INSERT INTO t VALUES (1, 2)",
        "INSERT INTO t VALUES (1, 2), (3, 4)",
        "INSERT INTO t VALUES ($1,$2),($3,$4),($5,$6)",
    ],
    &["INSERT INTO t VALUES (1)"],
    &["INSERT INTO u VALUES (1)"],
    &["SAVEPOINT a1", "savepoint a23"],
    &["SAVEPOINT a"],
    &["SELECT ab", "SELECT AB"],
    &["SELECT a b"],
    &["SELECT a.b"],
    &["SELECT a, b"],
    &["SELECT a - 1", "SELECT a-1", "SELECT a -1"],
    &["SELECT a, -1", "SELECT a, 1"],
    &["SELECT a < - b", "SELECT a <- b"],
    &["SELECT a <-> b"],
    &["SELECT a < b"],
    &["SELECT a @- 1"],
    &["SELECT a @ - 1", "SELECT a @ 1"],
    &["SET x = a", "SET x = b", "SET x = 'c'"],
    &["SET x TO a"],
    &["SET y = a"],
    &["SELECT \"a\nb\""],
    &["SELECT \"a\tb\""],
];

/// Texts of a group have one fingerprint, texts of different groups different ones.
#[test]
fn fingerprints_tell_groups_apart() {
    let mut seen: Vec<Fingerprint> = Vec::new();
    for group in GROUPS {
        let of = |text: &&str| normalise(text.as_bytes(), Reading::default()).fingerprint;
        let fingerprints: Vec<_> = group.iter().map(of).collect();
        let first = fingerprints[0];
        assert_eq!(fingerprints, vec![first; group.len()], "{group:?}");
        assert!(!seen.contains(&first), "{group:?}");
        seen.push(first);
    }
}

/// Fingerprints are the same in every version, for they may be stored: this one was worked out by other means.
#[test]
fn fingerprints_are_stable() {
    let of = |text: &str| {
        let normal = normalise(text.as_bytes(), Reading::default());
        normal.fingerprint.to_string()
    };
    assert_eq!(of("SELECT a FROM t WHERE b = 5"), "05672ea3a55396c8");
    assert_eq!(of(""), "cbf29ce484222325");
}
