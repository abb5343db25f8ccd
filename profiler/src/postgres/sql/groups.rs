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
    &[
        "SAVEPOINT sp_9b1deb4d_3b7d_4bad_9bdd_2b0d7b3dcb6d",
        "SAVEPOINT sp_0c9ff01e_cafe_4e1a_beef_0123456789ab",
    ],
    &[
        "DECLARE \"9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d\" CURSOR FOR SELECT a",
        "DECLARE \"1c9ff01e-cafe-4e1a-beef-0123456789ab\" CURSOR FOR SELECT a",
    ],
    &["LISTEN room_12", "LISTEN room_7"],
    &["PREPARE s_1 AS SELECT 2", "PREPARE s_22 AS SELECT 3"],
    &["EXECUTE s_1(2)", "EXECUTE s_1(3)"],
    &["EXECUTE s_22(3)"],
    &[
        "SELECT a FROM tenant_1.t JOIN tenant_1.u ON true",
        "SELECT a FROM tenant_22.t JOIN tenant_22.u ON true",
    ],
    &["SELECT t1.a FROM u t1", "select t1.a from u t1"],
    &["SELECT t2.a FROM u t2"],
    &[
        "INSERT INTO tmp_8f3a2b VALUES (1)",
        "INSERT INTO tmp_77aa01 VALUES (2)",
    ],
    &["SELECT temp1 FROM t"],
    &["SELECT temp2 FROM t"],
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
