//! Versions as databases: contents in memory, opened and written to.

use std::path::Path;
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::content::Content;
use sqlrsync_protocol::memory;
use sqlrsync_protocol::page::{Geometry, PageNumber, PageSize};

use super::*;

mod hostile;
mod merging;
mod queries;
mod writing;

/// A database file as a content in memory.
pub(super) fn content_of(path: &Path) -> memory::Content {
    let bytes = std::fs::read(path).unwrap();
    let size = u32::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let page_size = PageSize::from_bytes(if size == 1 { 65_536 } else { size }).unwrap();
    memory::Content::from_file(page_size, &bytes)
}

/// What SQL makes of a new file, as a content in memory.
pub(super) fn content(sql: &str) -> memory::Content {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    content_of(&path)
}

/// Rows enough for a tree of some depth, with values that go over several pages.
pub(super) const ROWS: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO t SELECT i, 'name ' || i, zeroblob(i % 7 * 100) FROM n;
    INSERT INTO t VALUES (5000, 'long', randomblob(200000));";

pub(super) fn open(content: &memory::Content) -> VersionDatabase {
    VersionDatabase::open(Box::new(content.clone()), Limits::default()).unwrap()
}

/// The result as a file for plain SQLite: the content, with what was written over it.
pub(super) fn file_of(content: &memory::Content, mut written: Written, path: &Path) {
    let size = written.geometry.page_size;
    let mut bytes = Vec::new();
    for number in content.numbers() {
        bytes.extend_from_slice(&content.canonical(number));
    }
    bytes.resize(written.geometry.bytes() as usize, 0);
    let pages: Vec<_> = written.pages().map(Result::unwrap).collect();
    assert!(pages.is_sorted_by_key(|(number, _)| *number));
    for (number, page) in pages {
        let start = number.offset(size) as usize;
        bytes[start..start + size.bytes()].copy_from_slice(&page);
    }
    if !bytes.is_empty() {
        written.fields.put(&mut bytes);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Opens the result with plain SQLite, which finds nothing wrong.
pub(super) fn reopened(content: &memory::Content, written: Written, dir: &tempfile::TempDir) -> Connection {
    let path = dir.path().join("result.db");
    file_of(content, written, &path);
    let connection = Connection::open(&path).unwrap();
    assert_eq!(text(&connection, "PRAGMA integrity_check"), "ok");
    connection
}

pub(super) fn text(connection: &Connection, sql: &str) -> String {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub(super) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_live_file_that_is_written_past_sqlite_is_no_one_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(9000))").unwrap();
    let live = LiveContent::open(&path).unwrap();
    live.check().unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 4096]).unwrap();
    assert!(matches!(live.check(), Err(crate::Error::ChangedMeanwhile { .. })));
}

#[test]
fn a_version_opens_as_a_database_whatever_its_pages_are() {
    let settings = [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL",
        "PRAGMA page_size = 4096; PRAGMA encoding = 'UTF-16le'",
        "PRAGMA page_size = 8192; PRAGMA encoding = 'UTF-16be'; PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA page_size = 65536",
        "PRAGMA journal_mode = WAL",
    ];
    for setting in settings {
        let content = content(&format!("{setting};{ROWS}"));
        let db = open(&content);
        assert_eq!(number(db.connection(), "SELECT count(*) FROM t"), 2001, "{setting}");
        assert_eq!(text(db.connection(), "SELECT name FROM t WHERE name = 'name 77'"), "name 77");
        assert_eq!(text(db.connection(), "PRAGMA integrity_check"), "ok", "{setting}");
        db.check().unwrap();
    }
}

#[test]
fn a_version_with_reserved_bytes_opens() {
    let mut file = memory::Content::zeros(Geometry {
        page_size: PageSize::from_bytes(1024).unwrap(),
        page_count: PageCount(1),
    });
    // An empty database in which 32 bytes of each page are not SQLite's: the usable size is 992.
    let mut page = sqlrsync_protocol::canonical::empty_database(file.geometry().page_size);
    page[20] = 32;
    page[105..107].copy_from_slice(&992u16.to_be_bytes());
    page[44..48].copy_from_slice(&4u32.to_be_bytes());
    page[56..60].copy_from_slice(&1u32.to_be_bytes());
    file.set(PageNumber::FIRST, &page);
    let db = open(&file);
    db.connection().execute_batch(ROWS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plain = reopened(&file, db.written().unwrap(), &dir);
    assert_eq!(number(&plain, "SELECT count(*) FROM t"), 2001);
    drop(plain);
    assert_eq!(std::fs::read(dir.path().join("result.db")).unwrap()[20], 32);
}

#[test]
fn two_versions_are_two_files_on_as_many_threads_as_there_are() {
    let content = content(ROWS);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let content = &content;
            scope.spawn(move || {
                let db = open(content);
                let other = open(content);
                db.connection().execute("UPDATE t SET name = ?1 || id", [format!("{thread} ")]).unwrap();
                assert_eq!(text(db.connection(), "SELECT name FROM t WHERE id = 9"), format!("{thread} 9"));
                assert_eq!(text(other.connection(), "SELECT name FROM t WHERE id = 9"), "name 9");
            });
        }
    });
}

#[test]
fn a_closed_version_leaves_no_file_system_behind() {
    let content = content(ROWS);
    let db = open(&content);
    let name = db.registered.name().to_owned();
    // SAFETY: the name ends with a zero.
    let found = |name: &std::ffi::CStr| unsafe { !ffi::sqlite3_vfs_find(name.as_ptr()).is_null() };
    assert!(found(&name));
    // Who knows the name has nothing: the file is open already.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    for file in ["version", "other", "version-journal"] {
        let second =
            Connection::open_with_flags_and_vfs(file, flags, name.as_c_str()).and_then(|connection| {
                connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            });
        assert_eq!(second.unwrap_err().sqlite_error_code(), Some(ErrorCode::CannotOpen), "{file}");
    }
    db.written().unwrap();
    assert!(!found(&name));
}

#[test]
fn a_live_file_is_a_content_as_one_transaction_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("live.db");
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch(&format!("PRAGMA journal_mode = WAL; {ROWS}")).unwrap();
    let live = LiveContent::open(&path).unwrap();
    writer.execute("DELETE FROM t", []).unwrap();
    let db = VersionDatabase::open(Box::new(live), Limits::default()).unwrap();
    assert_eq!(number(db.connection(), "SELECT count(*) FROM t"), 2001);
    assert_eq!(number(&writer, "SELECT count(*) FROM t"), 0);
    assert_eq!(text(db.connection(), "PRAGMA integrity_check"), "ok");
}

#[test]
fn pages_of_a_live_file_are_the_same_in_a_row_and_at_random_and_in_clones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("live.db");
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch(&format!("PRAGMA journal_mode = WAL; {ROWS}")).unwrap();
    let mut live = LiveContent::open(&path).unwrap();
    let mut other = live.clone();
    writer.execute("UPDATE t SET data = NULL", []).unwrap();
    let geometry = Content::geometry(&live);
    let count = geometry.page_count.get();
    let read = |content: &mut LiveContent, index: u32| {
        let mut page = vec![0; geometry.page_size.bytes()];
        content.read(PageNumber::from_index(index).unwrap(), &mut page).unwrap();
        page
    };
    let in_a_row: Vec<_> = (0..count).map(|index| read(&mut live, index)).collect();
    assert!(count > 100, "more than is read at once");
    for step in [1, 7, 31] {
        let indexes = (0..count).map(|index| index * step % count).filter(|index| index % 3 != 1);
        for index in indexes.chain([count - 1, 0, 1, count - 1]) {
            assert!(read(&mut other, index) == in_a_row[index as usize], "{index}");
        }
    }
}

#[test]
fn a_live_file_is_read_no_further_when_somebody_says_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("live.db");
    Connection::open(&path).unwrap().execute_batch(ROWS).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut live = LiveContent::open(&path).unwrap().stopped_by(Arc::clone(&stop));
    let mut page = vec![0; Content::geometry(&live).page_size.bytes()];
    live.read(PageNumber::FIRST, &mut page).unwrap();
    stop.store(true, Ordering::Relaxed);
    let last = PageNumber::new(Content::geometry(&live).page_count.get()).unwrap();
    assert_eq!(live.read(last, &mut page).unwrap_err().to_string(), "stopped");
}

#[test]
fn what_was_written_is_a_content_as_well() {
    let content = content(&format!("PRAGMA journal_mode = WAL; {ROWS}"));
    let db = open(&content);
    db.connection().execute("UPDATE t SET data = NULL WHERE id > 1000", []).unwrap();
    let mut written = db.written().unwrap();
    assert!(Content::fields(&written).is_wal());
    let mut first = vec![0; written.geometry.page_size.bytes()];
    written.read(PageNumber::FIRST, &mut first).unwrap();
    assert_eq!(make_canonical(&mut first.clone()).to_bytes(), [0; 18]);
    let again = VersionDatabase::open(Box::new(written), Limits::default()).unwrap();
    assert_eq!(number(again.connection(), "SELECT count(*) FROM t WHERE data IS NULL"), 1001);
    assert_eq!(text(again.connection(), "PRAGMA integrity_check"), "ok");
}
