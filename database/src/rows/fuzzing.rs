//! Bodies of the fuzz targets of this folder; `fuzzing.rs` of the crate says what they are.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection};

use super::key::{Key, Row};
use super::sql_text::{end_of, is_literal, is_one_statement, is_strict, module_of, quoted};

/// Stored keys and rows: what is accepted comes back the same.
pub(crate) fn stored_row(bytes: &[u8]) {
    if let Ok(key) = Key::from_bytes(bytes) {
        assert_eq!(key.to_bytes(), bytes);
    }
    if let Ok(row) = Row::from_bytes(bytes) {
        assert_eq!(row.to_bytes(), bytes);
    }
}

/// The SQL of a schema. What is taken for one statement is one to SQLite, in a script that goes on after it;
/// what is taken for a literal is one; a quoted name is a name.
pub(crate) fn schema_sql(bytes: &[u8]) {
    let Ok(sql) = std::str::from_utf8(bytes) else { return };
    let _ = (is_strict(sql), module_of(sql));
    let Ok(connection) = Connection::open_in_memory() else { return };
    // For triggers.
    let _ = connection.execute_batch("CREATE TABLE base(a, b)");
    let statements = |script: &str| -> Option<usize> {
        let mut batch = Batch::new(&connection, script);
        let mut count = 0;
        while batch.next().ok()?.is_some() {
            count += 1;
        }
        Some(count)
    };
    // Only what SQLite takes into a schema comes to a script.
    let create = |rest: &str| {
        let start = sql.trim_start().get(..rest.len()).is_some_and(|start| start.eq_ignore_ascii_case(rest));
        start && statements(sql).is_some()
    };
    let trigger = create("create trigger");
    if (trigger || create("create table") || create("create view")) && is_one_statement(sql, trigger) {
        assert_eq!(statements(&format!("{sql}{}SELECT 'marker'", end_of(sql))), Some(2), "{sql}");
    }
    if is_literal(sql) {
        let table = format!("CREATE TABLE t(a DEFAULT {sql}); SELECT 'marker'");
        // A word that is a keyword is no literal, and no statement either.
        assert!(matches!(statements(&table), None | Some(2)), "{sql}");
    }
    if !sql.contains('\0') {
        assert_eq!(statements(&format!("SELECT 1 AS {}", quoted(sql))), Some(1));
    }
}
