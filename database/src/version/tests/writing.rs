//! Writing through the overlay: what comes out is what plain SQLite would have made of the file.

use super::*;

/// Writes, and gives the result to plain SQLite.
fn written_to(content: &memory::Content, sql: &str) -> (Connection, tempfile::TempDir) {
    let db = open(content);
    db.connection().execute_batch(sql).unwrap();
    let dir = tempfile::tempdir().unwrap();
    (reopened(content, db.written().unwrap(), &dir), dir)
}

fn dump(connection: &Connection) -> String {
    let sql =
        "SELECT group_concat(quote(id) || quote(name) || quote(data)) FROM (SELECT * FROM t ORDER BY id)";
    text(connection, sql)
}

/// Changes that grow, shrink and move.
const CHANGES: [&str; 6] = [
    "UPDATE t SET name = upper(name) || id WHERE id % 3 = 0",
    "DELETE FROM t WHERE id BETWEEN 100 AND 1800; DELETE FROM t WHERE id = 5000",
    "INSERT INTO t SELECT id + 10000, name || '+', zeroblob(3000) FROM t",
    "CREATE TABLE u AS SELECT * FROM t; DROP TABLE t; ALTER TABLE u RENAME TO t; CREATE INDEX i ON t (data)",
    "DELETE FROM t; INSERT INTO t VALUES (1, 'x', NULL)",
    // With auto-vacuum the file is cut off and grows again over what it had.
    "CREATE TABLE kept AS SELECT * FROM t; DELETE FROM t; DROP TABLE kept;
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
     INSERT INTO t SELECT i, i, zeroblob(500) FROM n",
];

#[test]
fn what_is_written_is_what_plain_sqlite_makes_of_the_file() {
    for setting in [
        "page_size = 512",
        "page_size = 4096",
        "page_size = 65536",
        "auto_vacuum = FULL",
        "encoding = 'UTF-16be'",
    ] {
        let start = format!("PRAGMA {setting}; {ROWS}");
        let content = content(&start);
        for change in CHANGES {
            let (result, _dir) = written_to(&content, change);
            let plain = Connection::open_in_memory().unwrap();
            plain.execute_batch(&start.replace("randomblob", "zeroblob")).unwrap();
            plain.execute_batch(change).unwrap();
            let ids = "SELECT group_concat(id || name || ifnull(length(data), -1)) FROM (SELECT * FROM t ORDER BY id)";
            assert_eq!(text(&result, ids), text(&plain, ids), "{setting}: {change}");
        }
    }
}

#[test]
fn nothing_written_is_no_page_and_the_same_fields() {
    let content = content(&format!("PRAGMA journal_mode = WAL; {ROWS}"));
    let db = open(&content);
    assert_eq!(number(db.connection(), "SELECT count(*) FROM t"), 2001);
    let mut written = db.written().unwrap();
    assert_eq!(written.pages().count(), 0);
    assert_eq!((written.geometry, written.fields), (content.geometry(), content.fields()));
}

#[test]
fn a_small_change_is_a_few_pages() {
    let content = content(ROWS);
    let db = open(&content);
    db.connection().execute("UPDATE t SET data = x'00' WHERE id = 1000", []).unwrap();
    let count = db.written().unwrap().pages().count();
    assert!((1..=3).contains(&count), "{count}");
}

#[test]
fn an_open_transaction_leaves_nothing() {
    let content = content(ROWS);
    let db = open(&content);
    db.connection().execute("DELETE FROM t WHERE id = 1", []).unwrap();
    db.connection()
        .execute_batch(
            "PRAGMA cache_size = 10; BEGIN; UPDATE t SET name = 'gone ' || id, data = zeroblob(9999)",
        )
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let result = reopened(&content, db.written().unwrap(), &dir);
    assert_eq!(number(&result, "SELECT count(*) FROM t WHERE name LIKE 'gone%'"), 0);
    assert_eq!(number(&result, "SELECT count(*) FROM t"), 2000);
}

#[test]
fn a_statement_that_fails_and_a_savepoint_are_taken_back() {
    let content = content(ROWS);
    let db = open(&content);
    let connection = db.connection();
    // So small a cache puts pages into the overlay long before the commit.
    connection.execute_batch("PRAGMA cache_size = 10; BEGIN; DELETE FROM t WHERE id = 3").unwrap();
    let before = dump(connection);
    let failed = connection.execute(
        "UPDATE t SET name = CASE id WHEN 1999 THEN 'name 2000' ELSE name || '!' END, data = zeroblob(2000)",
        [],
    );
    assert_eq!(failed.unwrap_err().sqlite_error_code(), Some(ErrorCode::ConstraintViolation));
    assert!(dump(connection) == before, "the statement left something");
    connection.execute_batch("SAVEPOINT s; UPDATE t SET name = name || '?', data = zeroblob(3000); CREATE TABLE u (x); ROLLBACK TO s; RELEASE s").unwrap();
    assert!(dump(connection) == before, "the savepoint left something");
    connection.execute_batch("COMMIT").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let result = reopened(&content, db.written().unwrap(), &dir);
    assert!(dump(&result) == before);
}

#[test]
fn a_database_is_made_of_nothing() {
    for bytes in [512, 4096, 65536] {
        let page_size = PageSize::from_bytes(bytes).unwrap();
        let nothing = memory::Content::zeros(Geometry { page_size, page_count: PageCount::ZERO });
        let untouched = open(&nothing).written().unwrap();
        assert_eq!(untouched.geometry, nothing.geometry());
        let (result, _dir) = written_to(&nothing, ROWS);
        assert_eq!(number(&result, "SELECT count(*) FROM t"), 2001);
        assert_eq!(number(&result, "PRAGMA page_size"), i64::from(bytes));
    }
}

#[test]
fn a_vacuum_shrinks_the_file() {
    let content = content(&format!("{ROWS} DELETE FROM t WHERE id > 10"));
    let db = open(&content);
    // Temporary ones are attached; nothing else can be.
    db.connection().set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_ATTACHED, 1).unwrap();
    db.connection().execute_batch("VACUUM").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("other.db");
    assert!(db.connection().execute("VACUUM INTO ?1", [into.to_str().unwrap()]).is_err());
    assert!(db.connection().execute("ATTACH ?1 AS other", [into.to_str().unwrap()]).is_err());
    let written = db.written().unwrap();
    assert!(written.geometry.page_count < PageCount(10), "{:?}", written.geometry);
    let result = reopened(&content, written, &dir);
    assert_eq!(number(&result, "SELECT count(*) FROM t"), 10);
    assert!(!into.exists());
}

#[test]
fn another_page_size_is_refused() {
    let content = content(ROWS);
    let db = open(&content);
    db.connection().set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_ATTACHED, 1).unwrap();
    db.connection().execute_batch("PRAGMA page_size = 1024; VACUUM").unwrap();
    assert!(matches!(db.written(), Err(VersionError::PageSize { .. })));
}

#[test]
fn shadow_tables_are_written_once_that_is_said() {
    let content = content("CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('some words')");
    let db = open(&content);
    let sql = "UPDATE f_content SET c0 = 'other words'";
    assert!(db.connection().execute(sql, []).is_err());
    db.set_defensive(false).unwrap();
    db.connection().execute(sql, []).unwrap();
    db.set_defensive(true).unwrap();
    assert!(db.connection().execute(sql, []).is_err());
}

#[test]
fn the_page_at_two_to_the_thirty_is_stepped_over() {
    // A gigabyte of free pages but for the first, so that the next page goes past the lock page.
    let page_size = PageSize::MAX;
    let made = content("PRAGMA page_size = 65536; CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)");
    let mut content = memory::Content::zeros(made.geometry());
    let lock_page = page_size.lock_page();
    content.resize(PageCount(lock_page.get() - 1));
    for number in made.numbers() {
        content.set(number, &made.page(number));
    }
    let mut first = made.page(PageNumber::FIRST).into_owned();
    first[28..32].copy_from_slice(&(lock_page.get() - 1).to_be_bytes());
    content.set(PageNumber::FIRST, &first);
    let db = open(&content);
    db.connection().execute("INSERT INTO t VALUES (1, zeroblob(200000))", []).unwrap();
    assert_eq!(number(db.connection(), "SELECT length(data) FROM t"), 200_000);
    let mut written = db.written().unwrap();
    assert!(written.geometry.page_count.get() > lock_page.get());
    let numbers: Vec<_> = written.pages().map(|page| page.unwrap().0).collect();
    assert!(!numbers.contains(&lock_page));
    assert!(numbers.iter().any(|number| *number > lock_page));
    let mut page = vec![1; page_size.bytes()];
    written.read(lock_page, &mut page).unwrap();
    assert!(page.iter().all(|byte| *byte == 0));
    let again = VersionDatabase::open(Box::new(written), Limits::default()).unwrap();
    assert_eq!(number(again.connection(), "SELECT length(data) FROM t"), 200_000);
}
