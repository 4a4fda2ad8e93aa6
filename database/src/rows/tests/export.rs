//! What is written out, and that it does what it says.

use rusqlite::Connection;

use super::session;
use super::support::*;
use crate::rows::{Changeset, Error, JsonLines, LeftOut, Schema, SqlScript, diff, diff_of};

fn json(old: &Connection, new: &Connection) -> Vec<String> {
    let mut lines = JsonLines::new(Vec::new());
    diff(old, new, &all(), &mut |change| lines.change(&change).map(|()| crate::rows::Go::On)).unwrap();
    String::from_utf8(lines.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn json_lines_are_what_scripts_rely_on() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w); INSERT INTO t VALUES(1, 'a\"\\' || char(10, 7, 155, 8238, 983041), NULL), (2, x'00ff', 5);
         CREATE TABLE n(_rowid_, rowid); INSERT INTO n VALUES(1, 2);
         CREATE TABLE k(a, b, PRIMARY KEY(b, a)); INSERT INTO k VALUES(1, 2), (NULL, 3)",
        "UPDATE t SET w = 1.0 WHERE id = 1; DELETE FROM t WHERE id = 2;
         INSERT INTO t VALUES(3, 9e999, -9e999), (4, CAST(x'ff' AS TEXT), 1e300);
         UPDATE n SET rowid = 3; UPDATE k SET a = 4; ALTER TABLE t ADD COLUMN x",
    );
    new.execute("INSERT INTO t VALUES(5, ?1, 123456789012345678, NULL)", [-0.0_f64]).unwrap();
    assert_eq!(
        json(&old, &new),
        [
            r#"{"schema":"table","name":"t","op":"update","before":"CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)","after":"CREATE TABLE t(id INTEGER PRIMARY KEY, v, w, x)"}"#,
            r#"{"table":"k","key":{"rowid":2},"op":"delete","before":{"a":null,"b":3},"after":null}"#,
            r#"{"table":"k","key":{"b":2,"a":1},"op":"delete","before":{"a":1,"b":2},"after":null}"#,
            r#"{"table":"k","key":{"b":2,"a":4},"op":"insert","before":null,"after":{"a":4,"b":2}}"#,
            r#"{"table":"k","key":{"b":3,"a":4},"op":"insert","before":null,"after":{"a":4,"b":3}}"#,
            r#"{"table":"n","key":{"oid":1},"op":"update","before":{"_rowid_":1,"rowid":2},"after":{"_rowid_":1,"rowid":3}}"#,
            r#"{"table":"t","key":{"id":1},"op":"update","before":{"id":1,"v":"a\"\\\n\u0007\u009b\u202e\udb80\udc01","w":null},"after":{"id":1,"v":"a\"\\\n\u0007\u009b\u202e\udb80\udc01","w":1.0,"x":null}}"#,
            r#"{"table":"t","key":{"id":2},"op":"delete","before":{"id":2,"v":{"$blob":"00ff"},"w":5},"after":null}"#,
            r#"{"table":"t","key":{"id":3},"op":"insert","before":null,"after":{"id":3,"v":{"$real":"inf"},"w":{"$real":"-inf"},"x":null}}"#,
            r#"{"table":"t","key":{"id":4},"op":"insert","before":null,"after":{"id":4,"v":{"$text":"ff"},"w":1e300,"x":null}}"#,
            r#"{"table":"t","key":{"id":5},"op":"insert","before":null,"after":{"id":5,"v":-0.0,"w":123456789012345678,"x":null}}"#,
        ]
    );
    for line in json(&old, &new) {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }
}

#[test]
fn json_leaves_out_the_index_of_a_search_and_keeps_its_texts() {
    let (old, new) =
        changed("CREATE VIRTUAL TABLE docs USING fts5(body)", "INSERT INTO docs VALUES('one'), ('two')");
    let lines = json(&old, &new);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(r#"{"table":"docs_content","key":{"id":1},"op":"insert""#));
}

/// The script between two databases, and what it could not say.
pub(super) fn script(old: &Connection, new: &Connection) -> (String, Vec<LeftOut>) {
    let schemas = (Schema::read(old).unwrap(), Schema::read(new).unwrap());
    let mut script = SqlScript::new(Vec::new(), &schemas.0, &schemas.1).unwrap();
    diff_of(old, new, (&schemas.0, &schemas.1), &all(), &mut |change| {
        script.change(&change).map(|()| crate::rows::Go::On)
    })
    .unwrap();
    let (sql, left_out) = script.finish().unwrap();
    (String::from_utf8(sql).unwrap(), left_out)
}

/// The changeset between two databases, and what it could not say.
pub(super) fn changeset(old: &Connection, new: &Connection) -> (Vec<u8>, Vec<LeftOut>) {
    let schemas = (Schema::read(old).unwrap(), Schema::read(new).unwrap());
    let mut changeset = Changeset::new(Vec::new(), &schemas.0, &schemas.1);
    diff_of(old, new, (&schemas.0, &schemas.1), &all(), &mut |change| {
        changeset.change(&change).map(|()| crate::rows::Go::On)
    })
    .unwrap();
    changeset.finish()
}

/// Runs the script on a copy of the old database; the result must be the new one.
pub(super) fn check_script(old: &Connection, new: &Connection) -> String {
    let (sql, left_out) = script(old, new);
    assert_eq!(left_out, []);
    let result = copy(old);
    result.execute_batch(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    assert_eq!(dump(&result), dump(new), "{sql}");
    let check: String = result.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    sql
}

#[test]
fn the_script_turns_the_old_database_into_the_new_one() {
    let cases = [
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'it''s'), (2, x'00'), (3, NULL)",
            "DELETE FROM t WHERE id = 1; UPDATE t SET v = char(0, 7) WHERE id = 2; INSERT INTO t VALUES(-9223372036854775808, 9e999), (5, CAST(x'ff' AS TEXT))",
        ),
        ("CREATE TABLE t(a); INSERT INTO t VALUES('x'), ('x')", "DELETE FROM t WHERE rowid = 1; INSERT INTO t VALUES('y')"),
        (
            "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY, b REAL) WITHOUT ROWID; INSERT INTO t VALUES('a', 1), ('b', 2.5)",
            "UPDATE t SET a = 'A', b = 0.1 WHERE a = 'a'; DELETE FROM t WHERE a = 'b'",
        ),
        // Values that change places under UNIQUE.
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES(1, 'a'), (2, 'b'), (3, 'c')",
            "UPDATE t SET u = 'tmp' WHERE id = 1; UPDATE t SET u = 'a' WHERE id = 2; UPDATE t SET u = 'b' WHERE id = 1",
        ),
        // Triggers and cascades would change a second time what the rows already say.
        (
            "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE, n);
             CREATE TABLE log(what); INSERT INTO p VALUES(1), (2); INSERT INTO c VALUES(1, 1, 0), (2, 2, 0);
             CREATE TRIGGER r AFTER INSERT ON p BEGIN INSERT INTO log VALUES(new.id); END",
            "INSERT INTO p VALUES(3); UPDATE c SET p = 3, n = 1 WHERE id = 1; DELETE FROM p WHERE id = 1",
        ),
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO t(v) VALUES(1), (2), (3)",
            "DELETE FROM t; INSERT INTO t(v) VALUES('next')",
        ),
        ("CREATE TABLE t(v)", "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a VALUES(7); DELETE FROM a"),
        (
            "CREATE TABLE \"odd \"\" name\"(\"a \"\" b\" PRIMARY KEY, 'select' AS (1)); INSERT INTO \"odd \"\" name\" VALUES(1)",
            "UPDATE \"odd \"\" name\" SET \"a \"\" b\" = 'x'",
        ),
        ("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(a PRIMARY KEY, b); INSERT INTO t VALUES('é', 1), (CAST(x'00d8' AS TEXT), 2)",
         "UPDATE t SET b = char(0, 233); INSERT INTO t VALUES(CAST(x'01d8' AS TEXT), '😀')"),
        // Text and number of the same digits are two keys in a column without a type.
        ("CREATE TABLE t(a PRIMARY KEY, b); INSERT INTO t VALUES(1, 'n'), ('1', 't'), (char(49, 0), 'z')", "DELETE FROM t WHERE b = 't'; UPDATE t SET b = 'Z' WHERE b = 'z'"),
        ("CREATE TABLE t(a)", "PRAGMA user_version = -5; PRAGMA application_id = 77"),
    ];
    for (before, then) in cases {
        let (old, new) = changed(before, then);
        check_script(&old, &new);
        check_script(&new, &old);
    }
}

#[test]
fn the_script_changes_the_schema_too() {
    let before =
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b DEFAULT 'd'); CREATE INDEX i ON t(a);
        CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END;
        INSERT INTO t(a) VALUES('x'), ('y'), ('z'); DELETE FROM t WHERE id = 3;
        CREATE TABLE k(a TEXT PRIMARY KEY, b); INSERT INTO k VALUES('p', 1), (NULL, 2), ('q', 3)";
    for then in [
        "ALTER TABLE t ADD COLUMN c DEFAULT 5; UPDATE t SET c = 6 WHERE id = 1",
        "ALTER TABLE t RENAME COLUMN b TO c",
        "DROP INDEX i; ALTER TABLE k DROP COLUMN b",
        // The same index, with its root on another page.
        "DROP INDEX i; CREATE TABLE elsewhere(a); CREATE INDEX i ON t(a); INSERT INTO t(a) VALUES('w')",
        "DROP VIEW v; DROP TRIGGER r; DROP TABLE t; CREATE TABLE t(a PRIMARY KEY, z) WITHOUT ROWID; INSERT INTO t VALUES(1, 2)",
        // A NOT NULL column without a default, and a CHECK that the old rows do not pass.
        "CREATE TABLE t2(id INTEGER PRIMARY KEY AUTOINCREMENT, a CHECK (a > 'y'), n NOT NULL); INSERT INTO t2 SELECT id, 'z' || a, id FROM t;
         DROP VIEW v; DROP TABLE t; ALTER TABLE t2 RENAME TO t; CREATE VIEW v AS SELECT a, n FROM t",
        "CREATE TABLE k2(a TEXT PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO k2 SELECT * FROM k WHERE a NOT NULL; DROP TABLE k; ALTER TABLE k2 RENAME TO k",
        "DROP TABLE k; CREATE TABLE k(b INTEGER PRIMARY KEY, a TEXT) STRICT; INSERT INTO k VALUES(5, 'five')",
        "ALTER TABLE k RENAME TO kk; CREATE UNIQUE INDEX u ON kk(b); CREATE VIEW w AS SELECT * FROM v -- to the end",
    ] {
        let (old, new) = changed(before, then);
        check_script(&old, &new);
        check_script(&new, &old);
    }
}

#[test]
fn the_script_makes_drops_and_changes_virtual_tables() {
    let fts = "CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES('one two'), ('three');";
    let rtree =
        "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1); INSERT INTO box VALUES(1, 0, 1), (2, 5, 6);";
    for (before, then) in [
        ("", fts),
        ("", rtree),
        (fts, "INSERT INTO docs VALUES('four'); DELETE FROM docs WHERE rowid = 1"),
        (rtree, "INSERT INTO box VALUES(3, 7, 8); DELETE FROM box WHERE id = 1"),
    ] {
        let (old, new) = changed(before, then);
        check_script(&old, &new);
        check_script(&new, &old);
        let (sql, _) = script(&old, &new);
        let result = copy(&old);
        result.execute_batch(&sql).unwrap();
        let result = copy(&result);
        let of = |database: &Connection, sql: &str| -> i64 {
            database.query_row(sql, [], |row| row.get(0)).unwrap_or(-1)
        };
        for sql in ["SELECT count(*) FROM docs('three OR four')", "SELECT count(*) FROM box WHERE x0 > 4"] {
            assert_eq!(of(&result, sql), of(&new, sql), "{sql}");
        }
    }
}

#[test]
fn a_virtual_table_with_another_definition_is_left_out_and_said() {
    let (old, new) = changed(
        "CREATE VIRTUAL TABLE docs USING fts5(body); INSERT INTO docs VALUES('one')",
        "DROP TABLE docs; CREATE VIRTUAL TABLE docs USING fts5(body, title); INSERT INTO docs VALUES('one', 'two')",
    );
    let (_, left_out) = script(&old, &new);
    assert!(left_out.iter().any(|left| left.table == "docs"));
}

#[test]
fn a_schema_that_would_take_in_what_follows_makes_no_script() {
    let (old, new) = changed(
        "CREATE TABLE t(a)",
        "CREATE TABLE u(a); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = sql || ' /* until here' WHERE name = 'u'; PRAGMA writable_schema = RESET",
    );
    let schemas = (Schema::read(&old).unwrap(), Schema::read(&new).unwrap());
    assert!(matches!(SqlScript::new(Vec::new(), &schemas.0, &schemas.1), Err(Error::Export(_))));
}

#[test]
fn the_changeset_applied_by_sqlite_turns_old_into_new() {
    let (old, new) = changed(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w); INSERT INTO t VALUES(1, 'a', 1), (2, 'b', 2), (3, x'00', 3);
         CREATE TABLE c(a, b, c, PRIMARY KEY(c, a)); INSERT INTO c VALUES(1, 2, 'x'), (2, 3, 'y');
         CREATE TABLE w(a TEXT PRIMARY KEY, g AS (b || '!'), b) WITHOUT ROWID; INSERT INTO w VALUES('p', 1)",
        "DELETE FROM t WHERE id = 1; UPDATE t SET v = 9e999 WHERE id = 2; INSERT INTO t VALUES(4, NULL, zeroblob(300));
         UPDATE c SET b = 0.1 WHERE a = 1; DELETE FROM c WHERE a = 2; UPDATE w SET b = 'é'",
    );
    let (bytes, left_out) = changeset(&old, &new);
    assert_eq!(left_out, []);
    // The session extension takes a table with a generated column for one that changed.
    let tables = ["t", "c"].map(str::to_owned);
    let said: Vec<_> = session::read(&bytes).into_iter().filter(|said| said.table != "w").collect();
    assert_eq!(said, session::read(&session::session_diff(&old, &new, &tables)));
    let result = copy(&old);
    assert_eq!(session::apply(&result, &bytes), 0);
    assert_eq!(dump(&result), dump(&new));
}

#[test]
fn what_a_changeset_cannot_say_is_said() {
    let (old, new) = changed(
        "CREATE TABLE nokey(a); CREATE TABLE nulls(a PRIMARY KEY, b); CREATE TABLE cols(a PRIMARY KEY);
         CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT);
         INSERT INTO nulls VALUES(NULL, 1); INSERT INTO auto VALUES(1)",
        "INSERT INTO nokey VALUES(1); UPDATE nulls SET b = 2; ALTER TABLE cols ADD COLUMN b; INSERT INTO cols VALUES(1, 2);
         CREATE TABLE came(a PRIMARY KEY); INSERT INTO came VALUES(1); INSERT INTO auto VALUES(2)",
    );
    let (bytes, left_out) = changeset(&old, &new);
    let said = session::read(&bytes);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].table, "auto");
    let mut tables: Vec<&str> = left_out.iter().map(|left| &*left.table).collect();
    tables.sort_unstable();
    tables.dedup();
    assert_eq!(tables, ["came", "cols", "nokey", "nulls", "sqlite_sequence"]);
}

#[test]
fn a_changeset_of_a_utf16_database_is_in_utf8() {
    let (old, new) = changed(
        "PRAGMA encoding = 'UTF-16be'; CREATE TABLE t(a TEXT PRIMARY KEY, b); INSERT INTO t VALUES('é', 'a')",
        "UPDATE t SET b = '😀'; INSERT INTO t VALUES('bad', CAST(x'd800' AS TEXT))",
    );
    let (bytes, left_out) = changeset(&old, &new);
    assert_eq!(left_out.len(), 1);
    let said = session::read(&bytes);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].new, [None, Some(text("😀"))]);
}
