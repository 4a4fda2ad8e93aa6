//! Rows of ordinary tables.

use sqlrsync_database::merge::{Error, Reason, Side};
use sqlrsync_database::rows::{Key, Value};

use crate::support::{Three, counts, dump, id, reasons, strings, text};

const PEOPLE: &str = "CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT, town TEXT);
    INSERT INTO people VALUES (1, 'ann', 'oslo'), (2, 'bob', 'rome'), (3, 'cy', 'york')";

#[test]
fn rows_that_one_side_alone_changed_merge() {
    let three = Three::new(
        PEOPLE,
        "UPDATE people SET town = 'bonn' WHERE id = 1; INSERT INTO people VALUES (4, 'dee', 'lyon')",
        "DELETE FROM people WHERE id = 2; UPDATE people SET name = 'cyd' WHERE id = 3;
         INSERT INTO people VALUES (9, 'eve', 'kiev')",
    );
    let merged = three.merged();
    assert_eq!(merged.on, Side::Theirs);
    let expected = ["1|ann|bonn", "3|cyd|york", "4|dee|lyon", "9|eve|kiev"];
    assert_eq!(merged.rows("SELECT * FROM people ORDER BY id"), expected);
    let summary = &merged.summary;
    assert_eq!((summary.inserted, summary.updated, summary.deleted), (1, 1, 1));
    assert_eq!(three.swapped().merged().rows("SELECT * FROM people ORDER BY id"), expected);
}

#[test]
fn a_side_that_did_nothing_leaves_the_other_as_it_is() {
    let change = "DELETE FROM people WHERE id = 1; ANALYZE; PRAGMA user_version = 7";
    let three = Three::new(PEOPLE, change, "");
    let before = dump(&three.open("theirs"));
    let merged = three.merged();
    assert_eq!((merged.on, merged.summary.is_empty()), (Side::Theirs, true));
    assert_eq!(dump(&merged.db), before);
    let three = Three::new(PEOPLE, "", change);
    let before = dump(&three.open("mine"));
    let merged = three.merged();
    assert_eq!((merged.on, merged.summary.is_empty()), (Side::Mine, true));
    assert_eq!(dump(&merged.db), before);
    assert!(Three::new(PEOPLE, "", "").merged().summary.is_empty());
}

#[test]
fn the_same_change_on_both_sides_is_no_conflict() {
    let same = "UPDATE people SET town = 'bonn' WHERE id = 1; DELETE FROM people WHERE id = 2;
        INSERT INTO people VALUES (4, 'dee', 'lyon')";
    let merged =
        Three::new(PEOPLE, same, &format!("{same}; INSERT INTO people VALUES (5, 'eve', '')")).merged();
    assert_eq!(merged.rows("SELECT id FROM people"), ["1", "3", "4", "5"]);
    assert_eq!((merged.summary.inserted, merged.summary.updated, merged.summary.deleted), (1, 0, 0));
}

#[test]
fn a_row_that_both_changed_is_in_conflict_with_all_three_of_it() {
    let conflict = Three::new(
        PEOPLE,
        "UPDATE people SET town = 'bonn' WHERE id = 1; DELETE FROM people WHERE id = 2",
        "UPDATE people SET town = 'kiev' WHERE id = 1; UPDATE people SET name = 'rob' WHERE id = 2;
         DELETE FROM people WHERE id = 3",
    )
    .conflict();
    assert_eq!(conflict.reasons, [Reason::Overlap]);
    assert_eq!((conflict.row_count, counts(&conflict)), (2, vec![("people", 2)]));
    let row = &conflict.rows[0];
    assert_eq!((&row.key, &row.differing[..]), (&id(1), &[2][..]));
    let town = |row: &Option<sqlrsync_database::rows::Row>| row.as_ref().unwrap().values[2].clone();
    let value = |text: &str| Value::Text(text.into());
    assert_eq!(town(&row.base), value("oslo"));
    assert_eq!(town(&row.theirs), value("bonn"));
    assert_eq!(town(&row.mine), value("kiev"));
    assert!(conflict.rows[1].theirs.is_none() && conflict.rows[1].mine.is_some());
}

#[test]
fn two_rows_inserted_under_one_generated_rowid_are_in_conflict() {
    let base = "CREATE TABLE log(line TEXT); INSERT INTO log VALUES ('a')";
    let three = Three::new(base, "INSERT INTO log VALUES ('b')", "INSERT INTO log VALUES ('c')");
    let conflict = three.conflict();
    assert_eq!((counts(&conflict), &conflict.rows[0].key), (vec![("log", 1)], &Key::Rowid(2)));
}

#[test]
fn a_row_that_stands_twice_in_a_table_without_a_key_is_two_rows() {
    let base = "CREATE TABLE log(line TEXT); INSERT INTO log VALUES ('a'), ('a'), ('b')";
    let three = Three::new(
        base,
        "DELETE FROM log WHERE rowid = 1",
        "INSERT INTO log VALUES ('a'); DELETE FROM log WHERE rowid = 3",
    );
    assert_eq!(three.merged().rows("SELECT rowid, line FROM log"), ["2|a", "4|a"]);
    // Both added the very same line at the very same place: that is one change.
    let both = Three::new(base, "INSERT INTO log VALUES ('z')", "INSERT INTO log VALUES ('z')");
    assert_eq!(both.merged().rows("SELECT count(*) FROM log"), ["4"]);
}

#[test]
fn a_rowid_that_is_taken_is_replaced_where_the_table_has_a_key() {
    let base = "CREATE TABLE t(name TEXT PRIMARY KEY, n INT); INSERT INTO t VALUES ('a', 1)";
    let three = Three::new(base, "INSERT INTO t VALUES ('b', 2)", "INSERT INTO t VALUES ('c', 3), ('d', 4)");
    let merged = three.merged();
    assert_eq!(merged.rows("SELECT name, n FROM t ORDER BY name"), ["a|1", "b|2", "c|3", "d|4"]);
    assert_eq!(merged.summary.moved, 2, "c went to where d was, and d behind it");
}

#[test]
fn a_key_change_is_a_delete_and_an_insert() {
    let three = Three::new(
        PEOPLE,
        "UPDATE people SET id = 7 WHERE id = 1",
        "UPDATE people SET town = 'bonn' WHERE id = 2",
    );
    assert_eq!(three.merged().rows("SELECT * FROM people"), ["2|bob|bonn", "3|cy|york", "7|ann|oslo"]);
    // The row that one side moved and the other changed is gone on one side, and changed on the other.
    let three = Three::new(
        PEOPLE,
        "UPDATE people SET id = 7 WHERE id = 1",
        "UPDATE people SET town = 'bonn' WHERE id = 1",
    );
    assert_eq!(three.conflict().rows[0].key, id(1));
}

#[test]
fn tables_without_rowid_and_with_composite_keys_merge() {
    let base = "CREATE TABLE t(a TEXT, b INT, c, PRIMARY KEY(b, a)) WITHOUT ROWID;
        INSERT INTO t VALUES ('x', 1, 'p'), ('y', 1, 'q'), ('x', 2, 'r')";
    let three = Three::new(
        base,
        "UPDATE t SET c = 'P' WHERE a = 'x' AND b = 1; INSERT INTO t VALUES ('z', 3, 's')",
        "DELETE FROM t WHERE a = 'y'; INSERT INTO t VALUES ('z', 4, 's')",
    );
    let expected = ["x|1|P", "x|2|r", "z|3|s", "z|4|s"];
    assert_eq!(three.merged().rows("SELECT * FROM t ORDER BY b, a"), expected);
    let three = Three::new(base, "UPDATE t SET c = 1 WHERE b = 2", "UPDATE t SET c = 2 WHERE b = 2");
    let key = Key::Declared(vec![Value::Integer(2), Value::Text(b"x".to_vec())]);
    assert_eq!(three.conflict().rows[0].key, key);
}

#[test]
fn rows_with_a_null_in_their_key_are_named_by_rowid() {
    let base = "CREATE TABLE t(a TEXT PRIMARY KEY, b); INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('x', 3)";
    let three = Three::new(
        base,
        "UPDATE t SET b = 10 WHERE rowid = 1",
        "UPDATE t SET b = 20 WHERE rowid = 2; INSERT INTO t VALUES (NULL, 4)",
    );
    let expected = ["NULL|10", "NULL|20", "x|3", "NULL|4"];
    assert_eq!(three.merged().rows("SELECT a, b FROM t ORDER BY rowid"), expected);
}

#[test]
fn every_value_comes_over_bit_for_bit() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let base = format!(
            "PRAGMA encoding = '{encoding}'; CREATE TABLE t(k TEXT PRIMARY KEY, v);
             CREATE TABLE u(id INTEGER PRIMARY KEY, i INTEGER, r REAL, n NUMERIC, x TEXT); INSERT INTO t VALUES ('k', 0)"
        );
        let mine = "INSERT INTO t VALUES ('neg0', -0.0), ('one', 1.0), ('int', 1), ('inf', 9e999), ('null', NULL),
             ('blob', x'00ff'), ('bad', CAST(x'ff00fe' AS TEXT)), ('nul', 'a' || char(0) || 'b'),
             ('bom', char(0xfeff) || 'x'), ('astral', char(0x1f600)), ('max', 9223372036854775807), ('empty', ''), ('zero', x'');
             INSERT INTO u VALUES (1, 1.5, 3, '4x', 5), (2, 'abc', 'abc', 1e300, x'61')";
        let three = Three::new(&base, "UPDATE t SET v = 1 WHERE k = 'k'", mine);
        let all = "SELECT k, v, typeof(v), hex(v), length(v) FROM t WHERE k <> 'k' ORDER BY k";
        let expected = strings(&three.open("mine"), all);
        let more = "SELECT *, typeof(i), typeof(r), typeof(n), typeof(x) FROM u";
        let more_expected = strings(&three.open("mine"), more);
        let merged = three.merged();
        assert_eq!(merged.rows(all), expected, "{encoding}");
        assert_eq!(merged.rows(more), more_expected, "{encoding}");
        assert_eq!(merged.rows("SELECT v FROM t WHERE k = 'k'"), ["1"]);
    }
}

#[test]
fn generated_columns_and_strict_tables_merge() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b INT AS (a * 2) VIRTUAL, c TEXT AS ('x' || a) STORED, d INT) STRICT;
        CREATE INDEX by_b ON t(b); CREATE INDEX by_expression ON t(a + d) WHERE a > 1;
        INSERT INTO t(id, a, d) VALUES (1, 1, 1), (2, 2, 2)";
    let three = Three::new(
        base,
        "UPDATE t SET a = 5 WHERE id = 1",
        "UPDATE t SET a = 6, d = NULL WHERE id = 2;
        INSERT INTO t(id, a) VALUES (3, 7)",
    );
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|5|10|x5|1", "2|6|12|x6|NULL", "3|7|14|x7|NULL"]);
}

#[test]
fn names_that_need_quotes_are_quoted() {
    let base = "CREATE TABLE \"a \"\"t\"(\"select\" TEXT PRIMARY KEY, \"x'y\", rowid, [b]c]); "
        .replace("[b]c]", "\"b]c\"");
    let three = Three::new(
        &base,
        "INSERT INTO \"a \"\"t\" VALUES ('a', 1, 2, 3)",
        "INSERT INTO \"a \"\"t\" VALUES ('b', 4, 5, 6)",
    );
    assert_eq!(three.merged().rows("SELECT * FROM \"a \"\"t\" ORDER BY 1"), ["a|1|2|3", "b|4|5|6"]);
}

#[test]
fn a_key_with_a_collation_finds_its_row_and_no_other() {
    let base =
        "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2)";
    let three = Three::new(base, "UPDATE t SET v = 10 WHERE k = 'a'", "UPDATE t SET k = 'B' WHERE k = 'b'");
    assert_eq!(three.merged().rows("SELECT * FROM t ORDER BY k"), ["a|10", "B|2"]);
    let three = Three::new(base, "INSERT INTO t VALUES ('c', 3)", "INSERT INTO t VALUES ('C', 4)");
    assert_eq!(reasons(&three.conflict()), ["together they break UNIQUE of t (k)"]);
    let three = Three::new(base, "UPDATE t SET k = 'A' WHERE k = 'a'", "UPDATE t SET v = 5 WHERE k = 'a'");
    assert_eq!(three.conflict().rows[0].key, text("a"));
}

#[test]
fn ten_thousand_overlapping_rows_are_counted_and_come_by_pages() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO t SELECT i, 0 FROM n";
    let mut three = Three::new(base, "UPDATE t SET v = 1", "UPDATE t SET v = 2");
    three.options.limits.rows = 50;
    let conflict = three.conflict();
    assert_eq!((conflict.row_count, conflict.rows.len()), (10_000, 50));
    three.options.limits.first_row = 9_980;
    let conflict = three.conflict();
    assert_eq!((conflict.row_count, conflict.rows.len()), (10_000, 20));
    assert_eq!(conflict.rows[19].key, id(10_000));
}

#[test]
fn a_row_of_fifty_megabytes_merges_and_is_cut_in_a_conflict() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES (1, zeroblob(50000000)), (2, 'x')";
    let mine = "UPDATE t SET v = zeroblob(50000001) WHERE id = 1";
    let three = Three::new(base, "UPDATE t SET v = 'y' WHERE id = 2", mine);
    assert_eq!(three.merged().rows("SELECT id, length(v) FROM t"), ["1|50000001", "2|1"]);
    let three = Three::new(base, "UPDATE t SET v = zeroblob(49999999) WHERE id = 1", mine);
    let row = &three.conflict().rows[0];
    assert_eq!(row.cut, [1]);
    assert!(row.theirs.as_ref().unwrap().weight() < 100_000);
}

#[test]
fn a_merge_whose_time_is_up_changes_nothing() {
    let mut three = Three::new(PEOPLE, "DELETE FROM people WHERE id = 1", "DELETE FROM people WHERE id = 2");
    three.options.limits.deadline = Some(std::time::Instant::now());
    assert!(matches!(three.fails(|_| ()), Error::TimeUp));
}

#[test]
fn a_merge_does_not_join_a_transaction() {
    let three = Three::new(PEOPLE, "DELETE FROM people WHERE id = 1", "DELETE FROM people WHERE id = 2");
    let error = three.fails(|theirs| theirs.execute_batch("BEGIN").unwrap());
    assert!(matches!(error, Error::InTransaction));
}

#[test]
fn a_table_of_as_many_columns_as_there_can_be_merges() {
    let columns: Vec<String> = (1..2000).map(|number| format!("c{number}")).collect();
    let base = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, {}); INSERT INTO t(id, c1) VALUES (1, 'a'), (2, 'b')",
        columns.join(", ")
    );
    let three = Three::new(
        &base,
        "UPDATE t SET c1999 = 5 WHERE id = 1",
        "DELETE FROM t WHERE id = 2; INSERT INTO t(id) VALUES (3)",
    );
    assert_eq!(three.merged().rows("SELECT id, c1999 FROM t"), ["1|5", "3|NULL"]);
    let conflict = Three::new(&base, "UPDATE t SET c1999 = 5", "UPDATE t SET c2 = 6 WHERE id = 1").conflict();
    assert_eq!(counts(&conflict), [("t", 1)]);
}
