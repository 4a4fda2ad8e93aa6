//! Rows of tables whose definition changed.

use super::support::*;
use crate::btree::Touched;
use crate::rows::{Error, Go, ObjectKind, diff};

#[test]
fn a_table_on_one_side_only_has_all_its_rows_inserted_or_deleted() {
    let (old, new) = changed(
        "CREATE TABLE gone(a INTEGER PRIMARY KEY); INSERT INTO gone VALUES(1), (2)",
        "DROP TABLE gone; CREATE TABLE came(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO came VALUES('x', 1)",
    );
    // Even where nobody says that they are touched.
    let found = diff_within(&old, &new, &Touched::default());
    assert_eq!(
        found.lines(),
        ["insert came 'x': - => 'x',1", "delete gone 1: 1 => -", "delete gone 2: 2 => -"]
    );
    assert_eq!(found.schema.len(), 2);
}

#[test]
fn an_added_column_changes_only_rows_that_have_not_its_default() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 'x'), (2, 'y'), (3, 'z')",
        "ALTER TABLE t ADD COLUMN b TEXT DEFAULT 5; UPDATE t SET b = '6' WHERE id = 2",
    );
    let found = diff_all(&old, &new);
    assert_eq!(found.lines(), ["update t 2: 2,'y' => 2,'y','6'"]);
    assert_eq!(found.schema[0].kind, ObjectKind::Table);
    assert_eq!((found.rows[0].table.columns.len(), found.rows[0].table_before.columns.len()), (3, 2));
}

#[test]
fn a_dropped_column_changes_no_row() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES(1, 'x', 1), (2, 'y', 2)",
        "ALTER TABLE t DROP COLUMN a; UPDATE t SET b = 3 WHERE id = 2",
    );
    assert_eq!(diff_all(&old, &new).lines(), ["update t 2: 2,'y',2 => 2,3"]);
}

#[test]
fn a_renamed_column_changes_every_row_though_no_leaf_changed() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 'x'), (2, NULL)",
        "ALTER TABLE t RENAME COLUMN a TO b",
    );
    let touched = only("t", crate::btree::Ranges::Rowids(Vec::new()));
    // A NULL counts as well: nobody can tell it from one that was written since.
    assert_eq!(
        diff_within(&old, &new, &touched).lines(),
        ["update t 1: 1,'x' => 1,'x'", "update t 2: 2,NULL => 2,NULL"]
    );
}

#[test]
fn a_rebuilt_table_is_compared_by_the_names_of_its_columns() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES(1, 'x', 1), (2, 'y', 2)",
        "CREATE TABLE t2(b, id INTEGER PRIMARY KEY, A TEXT NOT NULL); INSERT INTO t2(id, a, b) SELECT id, a, b FROM t;
         DROP TABLE t; ALTER TABLE t2 RENAME TO t; UPDATE t SET b = 'new' WHERE id = 1",
    );
    assert_eq!(diff_all(&old, &new).lines(), ["update t 1: 1,'x',1 => 'new',1,'x'"]);
}

#[test]
fn the_same_key_in_another_kind_of_table_pairs_and_another_key_does_not() {
    let before = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'a'), (2, 'b')";
    let rebuilt = |definition: &str| {
        let script = format!(
            "CREATE TABLE u({definition}; INSERT INTO u SELECT * FROM t; DROP TABLE t; ALTER TABLE u RENAME TO t;
             UPDATE t SET v = 'B' WHERE id = 2"
        );
        let (old, new) = changed(before, &script);
        diff_all(&old, &new).lines()
    };
    for same in ["id INTEGER PRIMARY KEY, v) WITHOUT ROWID", "id INT PRIMARY KEY, v)"] {
        assert_eq!(rebuilt(same), ["update t 2: 2,'b' => 2,'B'"], "{same}");
    }
    let other = rebuilt("id, v PRIMARY KEY)");
    assert_eq!(
        other,
        [
            "delete t 1: 1,'a' => -",
            "delete t 2: 2,'b' => -",
            "insert t 'a': - => 1,'a'",
            "insert t 'B': - => 2,'B'"
        ]
    );
}

#[test]
fn the_counter_of_autoincrement_is_a_row_and_statistics_are_not() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE INDEX i ON t(v); INSERT INTO t(v) VALUES(1)",
        "INSERT INTO t(v) VALUES(2); ANALYZE",
    );
    let found = diff_all(&old, &new);
    assert_eq!(found.lines(), ["update sqlite_sequence 't': 't',1 => 't',2", "insert t 2: - => 2,2"]);
    assert!(found.schema.is_empty());
}

#[test]
fn a_virtual_table_is_seen_in_its_shadow_tables() {
    let (old, new) = changed(
        "CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES('one two')",
        "INSERT INTO docs VALUES('three'); DELETE FROM docs WHERE rowid = 1",
    );
    let found = diff_all(&old, &new);
    let content: Vec<String> =
        found.lines().into_iter().filter(|line| line.contains(" docs_content ")).collect();
    assert_eq!(content, ["delete docs_content 1: 1,'one two' => -", "insert docs_content 2: - => 2,'three'"]);
    assert!(found.rows.iter().all(|change| change.table.shadow_of.as_deref() == Some("docs")));
}

#[test]
fn the_numbers_of_the_header_are_changes_of_the_schema() {
    let (old, new) = changed("CREATE TABLE t(a)", "PRAGMA user_version = 7; PRAGMA application_id = -2");
    let found = diff_all(&old, &new);
    let said: Vec<_> = found.schema.iter().map(|change| (change.kind, change.after.as_deref())).collect();
    assert_eq!(said, [(ObjectKind::ApplicationId, Some("-2")), (ObjectKind::UserVersion, Some("7"))]);
}

#[test]
fn a_collation_that_nobody_here_has_is_in_the_way_of_tables_without_rowid_only() {
    let make = |script: &str| {
        let rename =
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'BINARY', 'theirs')";
        copy(&database(&format!("{script}; {rename}")))
    };
    let rowids = "CREATE TABLE t(k TEXT COLLATE BINARY PRIMARY KEY, v COLLATE BINARY); INSERT INTO t VALUES('a', 'b'), ('c', 'd');";
    let (old, new) = (
        make(rowids),
        make(&format!("{rowids} UPDATE t SET v = 'new' WHERE k = 'a'; DELETE FROM t WHERE k = 'c'")),
    );
    let mut lines = diff_all(&old, &new).lines();
    lines.sort();
    assert_eq!(lines, ["delete t 'c': 'c','d' => -", "update t 'a': 'a','b' => 'a','new'"]);
    let without =
        make("CREATE TABLE w(k TEXT COLLATE BINARY PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES('a')");
    let failed = diff(&without, &without, &all(), &mut |_| Ok(Go::On)).unwrap_err();
    assert!(matches!(failed, Error::Collation { .. }), "{failed}");
}
