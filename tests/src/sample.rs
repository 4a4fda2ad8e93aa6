//! Small databases for tests, and what it means that two are the same.

use std::path::Path;

use rusqlite::{Connection, params};
use sqlrsync_protocol::canonical::make_canonical;

/// How a sample is made.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Bytes of a page.
    pub page_size: u32,
    /// `wal` or `delete`.
    pub journal: &'static str,
    /// `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: &'static str,
    /// Rows of its table.
    pub rows: u32,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample { page_size: 4096, journal: "wal", encoding: "UTF-8", rows: 500 }
    }
}

impl Sample {
    /// Makes it as a new file: `notes(id, text, at)` with an index.
    pub fn create(&self, path: &Path) {
        let mut database = Connection::open(path).expect("a database can be made");
        database
            .execute_batch(&format!(
                "PRAGMA page_size = {}; PRAGMA encoding = '{}'; PRAGMA journal_mode = {};
                 CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL, at REAL);
                 CREATE INDEX notes_by_text ON notes(text);",
                self.page_size, self.encoding, self.journal
            ))
            .expect("a schema can be made");
        let transaction = database.transaction().expect("a transaction can begin");
        for row in 0..self.rows {
            transaction
                .execute(
                    "INSERT INTO notes(text, at) VALUES(?, ?)",
                    params![format!("note {row} {}", "lorem ipsum ".repeat(12)), f64::from(row) * 1.5],
                )
                .expect("a row can be inserted");
        }
        transaction.commit().expect("a transaction can be committed");
    }
}

/// Makes the default sample as a new file.
pub fn create(path: &Path) {
    Sample::default().create(path);
}

/// Runs SQL on a database.
pub fn execute(path: &Path, sql: &str) {
    let database = Connection::open(path).expect("the database opens");
    database.busy_timeout(std::time::Duration::from_secs(10)).expect("a timeout can be set");
    database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Changes the text of one row.
pub fn change(path: &Path, row: u32, text: &str) {
    execute(path, &format!("UPDATE notes SET text = '{text}' WHERE id = {row}"));
}

/// One number from a database.
pub fn number(path: &Path, sql: &str) -> i64 {
    let database = Connection::open(path).expect("the database opens");
    database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// One text from a database.
pub fn text(path: &Path, sql: &str) -> String {
    let database = Connection::open(path).expect("the database opens");
    database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The text of a row of `notes`.
pub fn note(path: &Path, row: u32) -> String {
    text(path, &format!("SELECT text FROM notes WHERE id = {row}"))
}

/// A database's content as sqlrsync compares it: the canonical form of its file, WAL included.
pub fn content(path: &Path) -> Vec<u8> {
    let database = Connection::open(path).expect("the database opens");
    let _ = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(check, "ok", "{}", path.display());
    let page_size: usize = database
        .query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))
        .map(|bytes| bytes as usize)
        .expect("it has a page size");
    drop(database);
    let mut bytes = std::fs::read(path).expect("the file can be read");
    if !bytes.is_empty() {
        make_canonical(&mut bytes[..page_size]);
    }
    bytes
}

/// Two databases must have the same content, and both must be whole.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let same = content(one) == content(other);
    assert!(same, "{} and {} differ", one.display(), other.display());
}
