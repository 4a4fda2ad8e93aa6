//! What is read of a schema.

use rusqlite::Connection;

use crate::rows::{Encoding, Error, ObjectKind, Schema, TableKind};

fn schema(sql: &str) -> Schema {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(sql).unwrap();
    Schema::read(&connection).unwrap()
}

#[test]
fn keys_are_found_in_every_kind_of_table() {
    let schema = schema(
        "CREATE TABLE none(a, b);
         CREATE TABLE alias(a, id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TABLE no_alias(id INT PRIMARY KEY, b);
         CREATE TABLE descending(id INTEGER PRIMARY KEY DESC, b);
         CREATE TABLE composite(a, b, c, PRIMARY KEY(c, a));
         CREATE TABLE without(a, b TEXT COLLATE NOCASE, PRIMARY KEY(b, a)) WITHOUT ROWID;
         CREATE TABLE integer_without(id INTEGER PRIMARY KEY, b) WITHOUT ROWID",
    );
    let key = |name: &str| {
        let table = schema.table(name).unwrap();
        (table.key.clone(), table.rowid_column, table.is_without_rowid())
    };
    assert_eq!(key("none"), (vec![], None, false));
    assert_eq!(key("alias"), (vec![1], Some(1), false));
    assert_eq!(key("no_alias"), (vec![0], None, false));
    assert_eq!(key("descending"), (vec![0], None, false));
    assert_eq!(key("composite"), (vec![2, 0], None, false));
    assert_eq!(key("without"), (vec![1, 0], None, true));
    assert_eq!(key("integer_without"), (vec![0], None, true));
    assert!(schema.table("alias").unwrap().autoincrement && !schema.table("none").unwrap().autoincrement);
    assert_eq!(key("sqlite_sequence"), (vec![0], None, false));
    let without = schema.table("without").unwrap();
    let collations: Vec<&str> = without.key_parts.iter().map(|part| &*part.collation).collect();
    assert_eq!(collations, ["NOCASE", "BINARY"]);
}

#[test]
fn a_key_column_that_stands_twice_counts_as_its_index_has_it() {
    let schema = schema("CREATE TABLE t(a, b, PRIMARY KEY(a, a, a COLLATE NOCASE)) WITHOUT ROWID");
    let table = schema.table("t").unwrap();
    assert_eq!(table.key, [0]);
    assert_eq!(table.key_parts.len(), 2);
    assert_eq!(schema.table_roots()[0].key_columns, Some(2));
}

#[test]
fn the_rowid_goes_by_a_name_that_no_column_has() {
    let schema = schema(
        "CREATE TABLE a(x);
         CREATE TABLE b(RowId, x);
         CREATE TABLE c(rowid, _rowid_, x);
         CREATE TABLE d(rowid, _rowid_, x, oid AS (x));
         CREATE TABLE e(rowid, _rowid_, oid, \"the \"\" id\" INTEGER PRIMARY KEY);
         CREATE TABLE f(x PRIMARY KEY) WITHOUT ROWID;",
    );
    let name = |table: &str| schema.table(table).unwrap().rowid.clone();
    assert_eq!(name("a").as_deref(), Some("rowid"));
    assert_eq!(name("b").as_deref(), Some("_rowid_"));
    assert_eq!(name("c").as_deref(), Some("oid"));
    assert_eq!(name("d"), None);
    assert_eq!(name("e").as_deref(), Some("\"the \"\" id\""));
    assert_eq!(name("f"), None);
}

#[test]
fn generated_columns_are_no_columns_of_a_row() {
    let schema = schema(
        "CREATE TABLE t(a INT, b INT AS (a + 1), c INT AS (a + 2) STORED, d REAL NOT NULL DEFAULT 1.5) STRICT",
    );
    let table = schema.table("t").unwrap();
    let names: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
    assert_eq!((names, &table.generated[..]), (vec!["a", "d"], &["b".to_owned(), "c".to_owned()][..]));
    let column = &table.columns[1];
    assert_eq!((&*column.declared, column.not_null, column.default.as_deref()), ("REAL", true, Some("1.5")));
    assert!(table.strict);
}

#[test]
fn virtual_tables_have_shadows_and_their_code_is_not_run() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE VIRTUAL TABLE Docs USING fts5(body);
             CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
             CREATE TABLE docs_other(x);
             -- A module that nobody has: to run it would be an error.
             PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema VALUES('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING no_such(x)');
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();
    let schema = Schema::read(&connection).unwrap();
    let owner = |table: &str| schema.table(table).unwrap().shadow_of.clone();
    for shadow in ["Docs_data", "Docs_idx", "Docs_content", "Docs_docsize", "Docs_config"] {
        assert_eq!(owner(shadow).as_deref(), Some("Docs"), "{shadow}");
    }
    assert_eq!(owner("box_node").as_deref(), Some("box"));
    assert_eq!(owner("docs_other"), None);
    let kind = |table: &str| schema.table(table).unwrap().kind.clone();
    assert_eq!(kind("Docs"), TableKind::Virtual { module: "fts5".into() });
    assert_eq!(kind("odd"), TableKind::Virtual { module: "no_such".into() });
    assert!(schema.table_roots().iter().all(|root| root.name != "Docs" && root.name != "odd"));
}

#[test]
fn what_changed_in_a_schema_is_said_in_the_order_in_which_it_can_be_done() {
    let old = schema("CREATE TABLE a(x); CREATE TABLE b(x); CREATE INDEX i ON a(x); PRAGMA user_version = 3");
    let new =
        schema("CREATE TABLE b(x, y); CREATE TABLE c(x); CREATE VIEW v AS SELECT 1; PRAGMA user_version = 4");
    let changes = old.changes_to(&new);
    let short: Vec<_> = changes
        .iter()
        .map(|change| (change.kind, &*change.name, change.before.is_some(), change.after.is_some()))
        .collect();
    assert_eq!(
        short,
        [
            (ObjectKind::UserVersion, "user_version", true, true),
            (ObjectKind::Table, "a", true, false),
            (ObjectKind::Index, "i", true, false),
            (ObjectKind::Table, "b", true, true),
            (ObjectKind::Table, "c", false, true),
            (ObjectKind::View, "v", false, true),
        ]
    );
    assert!(old.changes_to(&old).is_empty());
}

#[test]
fn a_schema_beyond_the_limits_is_refused() {
    let connection = Connection::open_in_memory().unwrap();
    let long = "x".repeat(1 << 20);
    connection.execute_batch(&format!("CREATE TABLE t(a /* {long} */)")).unwrap();
    assert!(matches!(Schema::read(&connection), Err(Error::TooMany { .. })));
}

#[test]
fn texts_are_decoded_in_all_three_encodings() {
    for encoding in [Encoding::Utf8, Encoding::Utf16le, Encoding::Utf16be] {
        let bytes = encoding.encode("\u{feff}é😀");
        assert_eq!(encoding.decode(&bytes).as_deref(), Some("\u{feff}é😀"));
        assert_eq!(encoding.decode(&bytes[..bytes.len() - 1]), None);
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(&format!("PRAGMA encoding = '{}'", encoding.as_str())).unwrap();
        assert_eq!(Schema::read(&database).unwrap().encoding, encoding);
    }
}
