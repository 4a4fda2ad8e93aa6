//! What is found to differ, kind of table by kind of table.

use rusqlite::Connection;

use super::support::*;
use crate::btree::{Ranges, Touched};
use crate::rows::{Change, Go, Key, Op, Value, diff};

#[test]
fn rows_of_a_rowid_table_are_inserted_updated_and_deleted() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'a'), (2, 'b'), (3, 'c')",
        "DELETE FROM t WHERE id = 1; UPDATE t SET v = 'B' WHERE id = 2; INSERT INTO t VALUES(-4, 'd')",
    );
    let found = diff_all(&old, &new);
    assert_eq!(
        found.lines(),
        ["insert t -4: - => -4,'d'", "delete t 1: 1,'a' => -", "update t 2: 2,'b' => 2,'B'"]
    );
    let counts = found.summary.tables["t"];
    assert_eq!((counts.inserted, counts.updated, counts.deleted), (1, 1, 1));
    assert!(found.schema.is_empty());
}

#[test]
fn a_database_does_not_differ_from_itself() {
    let (old, new) = changed(
        "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 2), (1, 2), (NULL, -0.0);
         CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO w VALUES(1, 2), ('a', x'00')",
        "",
    );
    let found = diff_all(&old, &new);
    assert!(found.summary.is_empty() && found.rows.is_empty());
    assert_eq!(found.summary.read_more, Some("it is a test"));
}

#[test]
fn without_a_key_the_rowid_names_a_row_that_stands_twice() {
    let (old, new) = changed(
        "CREATE TABLE t(a); INSERT INTO t VALUES('x'), ('x'), ('x')",
        "DELETE FROM t WHERE rowid = 2",
    );
    assert_eq!(diff_all(&old, &new).lines(), ["delete t #2: 'x' => -"]);
}

#[test]
fn rows_that_only_moved_to_another_rowid_do_not_differ() {
    let (old, new) = changed(
        "CREATE TABLE t(a TEXT PRIMARY KEY, b);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t SELECT 'key ' || i, i FROM n; DELETE FROM t WHERE rowid % 2",
        "UPDATE t SET rowid = 20000 - rowid;
         UPDATE t SET b = 'new' WHERE a = 'key 4000';
         DELETE FROM t WHERE a = 'key 10'; INSERT INTO t VALUES('key 1', 1)",
    );
    assert_eq!(
        diff_all(&old, &new).lines(),
        [
            "delete t 'key 10': 'key 10',10 => -",
            "update t 'key 4000': 'key 4000',4000 => 'key 4000','new'",
            "insert t 'key 1': - => 'key 1',1"
        ]
    );
}

#[test]
fn a_changed_key_is_a_delete_and_an_insert_and_a_swap_is_two_updates() {
    let (old, new) = changed(
        "CREATE TABLE t(a TEXT PRIMARY KEY, b); INSERT INTO t VALUES('p', 1), ('q', 2), ('r', 3)",
        "UPDATE t SET a = 'R' WHERE a = 'r';
         UPDATE t SET a = 'tmp' WHERE a = 'p'; UPDATE t SET a = 'p' WHERE a = 'q'; UPDATE t SET a = 'q' WHERE a = 'tmp'",
    );
    let mut lines = diff_all(&old, &new).lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "delete t 'r': 'r',3 => -",
            "insert t 'R': - => 'R',3",
            "update t 'p': 'p',1 => 'p',2",
            "update t 'q': 'q',2 => 'q',1",
        ]
    );
}

#[test]
fn under_nocase_another_case_is_another_key() {
    for kind in ["", "WITHOUT ROWID"] {
        let (old, new) = changed(
            &format!(
                "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY, b) {kind}; INSERT INTO t VALUES('a', 1)"
            ),
            "UPDATE t SET a = 'A'",
        );
        let mut lines = diff_all(&old, &new).lines();
        lines.sort();
        assert_eq!(lines, ["delete t 'a': 'a',1 => -", "insert t 'A': - => 'A',1"], "{kind}");
        let keys = Ranges::Keys(vec![vec![text("A")], vec![text("a")]]);
        if !kind.is_empty() {
            let mut lines = diff_within(&old, &new, &only("t", keys)).lines();
            lines.sort();
            assert_eq!(lines, ["delete t 'a': 'a',1 => -", "insert t 'A': - => 'A',1"]);
        }
    }
}

#[test]
fn a_row_with_null_in_its_key_is_named_by_its_rowid() {
    let (old, new) = changed(
        "CREATE TABLE t(a TEXT, b, v, PRIMARY KEY(a, b));
         INSERT INTO t VALUES(NULL, 1, 'x'), (NULL, 1, 'x'), ('k', 1, 'y'), ('m', NULL, 'z')",
        "UPDATE t SET v = 'X' WHERE rowid = 2; UPDATE t SET a = 'named' WHERE rowid = 1; UPDATE t SET b = NULL WHERE a = 'k'",
    );
    let mut lines = diff_all(&old, &new).lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "delete t #1: NULL,1,'x' => -",
            "delete t 'k',1: 'k',1,'y' => -",
            "insert t #3: - => 'k',NULL,'y'",
            "insert t 'named',1: - => 'named',1,'x'",
            "update t #2: NULL,1,'x' => NULL,1,'X'",
        ]
    );
}

#[test]
fn values_are_compared_bit_for_bit() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         INSERT INTO t VALUES(1, 0.0), (2, 1), (3, 'a'), (4, x'00'), (5, 'A'), (6, 1.0), (7, 'same'), (8, NULL)",
        "UPDATE t SET v = 1.0 WHERE id = 2; UPDATE t SET v = CAST('a' AS BLOB) WHERE id = 3;
         UPDATE t SET v = CAST(v AS TEXT) WHERE id = 4; UPDATE t SET v = 'a' WHERE id = 5;
         UPDATE t SET v = 1.0000000000000002 WHERE id = 6; UPDATE t SET v = 9e999 - 9e999 WHERE id = 8",
    );
    new.execute("UPDATE t SET v = ?1 WHERE id = 1", [-0.0_f64]).unwrap();
    let found = diff_all(&old, &new);
    assert_eq!(found.rows.len(), 6, "{:?}", found.lines());
    assert_eq!(found.lines()[0], "update t 1: 1,0.0 => 1,-0.0");
    // NaN is stored as NULL, so that row 8 is as it was.
    assert!(!found.lines().iter().any(|line| line.contains(" 8:") || line.contains(" 7:")));
}

#[test]
fn an_integer_in_a_real_column_is_the_real_that_sqlite_shows() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v REAL); INSERT INTO t VALUES(1, 5), (2, 5.5);
         CREATE TABLE w(k REAL PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES(1, 'a'), (2.5, 'b')",
        "UPDATE t SET v = 6 WHERE id = 1; UPDATE w SET v = 'c' WHERE k = 1",
    );
    assert_eq!(
        diff_all(&old, &new).lines(),
        ["update t 1: 1,5.0 => 1,6.0", "update w 1.0: 1.0,'a' => 1.0,'c'"]
    );
    // In the record the key is the integer 1; both forms of it are one key.
    let keys = Ranges::Keys(vec![vec![Value::Integer(1)], vec![Value::Real(1.0)], vec![Value::Real(2.5)]]);
    assert_eq!(diff_within(&old, &new, &only("w", keys)).lines(), ["update w 1.0: 1.0,'a' => 1.0,'c'"]);
}

#[test]
fn only_what_may_differ_is_looked_at() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i, i FROM n;
         CREATE TABLE w(id INTEGER PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w SELECT * FROM t",
        "UPDATE t SET v = 'new'; UPDATE w SET v = 'new'",
    );
    let ranges = Ranges::Rowids(vec![5..=6, 9..=9, 99..=i64::MAX]);
    let found = diff_within(&old, &new, &only("t", ranges));
    assert_eq!(found.summary.tables.len(), 1);
    assert_eq!(found.rows.len(), 5);
    let keys = Ranges::Keys([7, 8, 500].map(|key| vec![Value::Integer(key)]).to_vec());
    assert_eq!(diff_within(&old, &new, &only("w", keys)).rows.len(), 2);
    assert!(diff_within(&old, &new, &Touched::default()).summary.is_empty());
}

#[test]
fn a_sink_that_wants_no_more_gets_no_more() {
    let (old, new) = changed(
        "CREATE TABLE t(a)",
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i FROM n",
    );
    let mut seen = 0;
    let summary = diff(&old, &new, &all(), &mut |_| {
        seen += 1;
        Ok(if seen == 10 { Go::Stop } else { Go::On })
    });
    let summary = summary.unwrap();
    assert_eq!((seen, summary.stopped, summary.tables["t"].inserted), (10, true, 10));
    assert!(old.is_autocommit() && new.is_autocommit());
}

#[test]
fn generated_columns_follow_and_are_not_compared() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b AS (a * 2), c AS (a * 3) STORED); INSERT INTO t(a) VALUES(1), (2)",
        "UPDATE t SET a = 5 WHERE id = 2",
    );
    assert_eq!(diff_all(&old, &new).lines(), ["update t 2: 2,2 => 2,5"]);
}

#[test]
fn texts_in_utf16_are_compared_bit_for_bit_even_where_they_are_no_texts() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        // A lone surrogate, a byte order mark at the beginning, a zero, half a unit.
        let (old, new) = changed(
            &format!(
                "PRAGMA encoding = '{encoding}'; CREATE TABLE t(k PRIMARY KEY, v) WITHOUT ROWID;
                 CREATE TABLE r(v);
                 INSERT INTO t VALUES(CAST(x'fffe4100' AS TEXT), 1), (CAST(x'feff0041' AS TEXT), 2),
                     (CAST(x'd8000041' AS TEXT), 3), ('', 4);
                 INSERT INTO r VALUES(CAST(x'00d8' AS TEXT)), (CAST(x'd800' AS TEXT)), (CAST(x'41000000' AS TEXT))"
            ),
            "UPDATE t SET v = -v; UPDATE r SET v = CAST(x'01d8' AS TEXT) WHERE rowid = 1",
        );
        let found = diff_all(&old, &new);
        assert_eq!(count(&found, Op::Update), 5, "{encoding}: {:?}", found.lines());
        assert_eq!(found.rows.len(), 5, "{encoding}: {:?}", found.lines());
        let first = found.rows.iter().find(|change| change.table.name == "r").unwrap();
        assert_eq!(first.before.as_ref().unwrap().values, [Value::Text(vec![0, 0xd8])]);
        assert_eq!(first.after.as_ref().unwrap().values, [Value::Text(vec![1, 0xd8])]);
    }
}

#[test]
fn text_that_is_no_utf8_is_kept_as_it_is() {
    let (old, new) = changed(
        "CREATE TABLE t(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t VALUES(CAST(x'ff00fe' AS TEXT), 1)",
        "UPDATE t SET v = CAST(x'80' AS TEXT)",
    );
    let found = diff_all(&old, &new);
    assert_eq!(
        found.rows[0].after.as_ref().unwrap().values,
        [Value::Text(vec![0xff, 0, 0xfe]), Value::Text(vec![0x80])]
    );
}

#[test]
fn databases_of_different_encodings_are_compared_in_the_encoding_of_the_new_one() {
    let script = "CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES('é', '😀'), ('b', 'x');
                  CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w SELECT * FROM t;";
    let old = database(script);
    let new = database(&format!("PRAGMA encoding = 'UTF-16be'; {script} UPDATE t SET v = 'y' WHERE k = 'b'"));
    let found = diff_within(&old, &new, &Touched::default());
    assert_eq!(found.lines(), ["update t 'b': 'b','x' => 'b','y'"]);
    assert_eq!(found.summary.read_more, Some("the two have different text encodings"));
}

#[test]
fn databases_of_different_page_sizes_are_compared() {
    let script =
        "CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES('a', zeroblob(9000)), ('b', 'x');";
    let old = database(&format!("PRAGMA page_size = 1024; {script}"));
    let new = database(&format!("PRAGMA page_size = 16384; {script} DELETE FROM t WHERE k = 'b'"));
    assert_eq!(diff_all(&old, &new).lines(), ["delete t 'b': 'b','x' => -"]);
}

#[test]
fn a_table_whose_rowid_no_name_reaches_is_compared_by_key_or_left_out() {
    let (old, new) = changed(
        "CREATE TABLE k(rowid, _rowid_, oid, v, PRIMARY KEY(v)); INSERT INTO k VALUES(1, 1, 1, 'a'), (2, 2, 2, 'b'), (0, 0, 0, NULL);
         CREATE TABLE n(rowid, _rowid_, oid); INSERT INTO n VALUES(1, 1, 1);
         CREATE TABLE same(rowid, _rowid_, oid); INSERT INTO same VALUES(1, 1, 1)",
        "UPDATE k SET oid = 9 WHERE v = 'b'; UPDATE n SET oid = 2",
    );
    let found = diff_all(&old, &new);
    assert_eq!(found.lines(), ["update k 'b': 2,2,2,'b' => 2,2,9,'b'"]);
    let left: Vec<&str> = found.summary.left_out.iter().map(|left| &*left.table).collect();
    assert_eq!(left, ["k", "n"]);
}

#[test]
fn a_transaction_that_is_open_stays_open() {
    let (old, new) = changed("CREATE TABLE t(a)", "");
    new.execute_batch("BEGIN; INSERT INTO t VALUES(1)").unwrap();
    assert_eq!(diff_all(&old, &new).rows.len(), 1);
    assert!(!new.is_autocommit());
    let rows: i64 = new.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn an_error_of_the_sink_ends_the_diff() {
    let (old, new): (Connection, Connection) = changed("CREATE TABLE t(a)", "INSERT INTO t VALUES(1)");
    let result = diff(&old, &new, &all(), &mut |change| match change {
        Change::Row(_) => Err(std::io::Error::other("full").into()),
        Change::Schema(_) => Ok(Go::On),
    });
    assert!(result.is_err());
}

#[test]
fn no_row_is_left_out_after_heavy_ones() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         INSERT INTO t SELECT column1, zeroblob(1100000) FROM
             (VALUES (-9223372036854775808), (1), (2), (4), (5), (9223372036854775807))",
        "UPDATE t SET v = zeroblob(1100001) WHERE id NOT IN (2, 4); DELETE FROM t WHERE id = 4;
         INSERT INTO t VALUES (3, zeroblob(1100000)), (9, 'light')",
    );
    let named = |found: Found| -> Vec<String> {
        found.rows.iter().map(|row| format!("{} {:?}", row.op().as_str(), row.key)).collect()
    };
    let key = |op: &str, rowid: i64| format!("{op} {:?}", Key::Declared(vec![Value::Integer(rowid)]));
    let mut expected = vec![
        key("update", i64::MIN),
        key("update", 1),
        key("insert", 3),
        key("delete", 4),
        key("update", 5),
        key("insert", 9),
        key("update", i64::MAX),
    ];
    assert_eq!(named(diff_all(&old, &new)), expected);
    let ranges = Ranges::Rowids(vec![i64::MIN..=2, 5..=8, i64::MAX..=i64::MAX]);
    expected.retain(|line| line.starts_with("update"));
    assert_eq!(named(diff_within(&old, &new, &only("t", ranges))), expected);
}

/// The most memory that this process has had, in bytes.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn memory_is_a_few_times_the_largest_row() {
    const ROW: usize = 50_000_000;
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, len: usize| {
        let database = Connection::open(folder.path().join(name)).unwrap();
        let sql = format!(
            "PRAGMA synchronous = OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, zeroblob({len})), (2, zeroblob({len}))"
        );
        database.execute_batch(&sql).unwrap();
        database
    };
    let (old, new) = (make("old", ROW), make("new", ROW + 1));
    let before = most_memory();
    let mut seen = 0;
    diff(&old, &new, &all(), &mut |_| {
        seen += 1;
        Ok(Go::On)
    })
    .unwrap();
    let taken = most_memory() - before;
    println!("{taken} bytes more than {before}");
    assert_eq!(seen, 2);
    // Two to three times; other tests may run in this process meanwhile.
    assert!(taken < 8 * ROW, "{taken}");
}
