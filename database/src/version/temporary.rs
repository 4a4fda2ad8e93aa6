//! A temporary database of this program's own, over the files of [`vfs`](super::vfs): bounded to the byte, with all
//! that SQLite sorts and sets aside for it.
//!
//! What its files fail with has two meanings, and is never taken for the other: `SQLITE_FULL` says that it has all
//! the room that it may have, an I/O error that the disk has no more, or failed. Over SQLite's own file system both
//! would be `SQLITE_FULL`.

use std::ops::Deref;
use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use super::error::Trouble;
use super::scratch::Space;
use super::shared::Shared;
use super::stop::Stop;
use super::vfs::Registered;

/// An empty database without a name, which is gone when this is dropped.
pub(crate) struct TemporaryDatabase {
    connection: Connection,
    // After the connection, which uses it until it is closed.
    registered: Registered,
}

impl TemporaryDatabase {
    /// One of `bytes_max` at most on disk, in `folder`, or where the system has temporary files.
    pub(crate) fn new(bytes_max: u64, folder: Option<PathBuf>) -> rusqlite::Result<TemporaryDatabase> {
        let shared = Shared::without_database(Space::new(bytes_max, folder), Stop::new(None, None));
        let registered = Registered::new(shared)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // The empty path is a file that SQLite makes when it needs it.
        let connection = Connection::open_with_flags_and_vfs("", flags, registered.name())?;
        connection.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        Ok(TemporaryDatabase { connection, registered })
    }
}

impl Deref for TemporaryDatabase {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for TemporaryDatabase {
    fn drop(&mut self) {
        // SQLite's own error says that a file failed, and not why.
        if let Some(Trouble::Disk { doing, source }) = self.registered.shared().take_trouble() {
            tracing::error!(error = %source, "a temporary file could not be {doing}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::*;

    /// Rows that do not fit into SQLite's cache, until something fails.
    fn fill(database: &Connection) -> rusqlite::Error {
        database.execute_batch("PRAGMA cache_size = 10; CREATE TABLE t (x)").unwrap();
        let insert = || database.execute("INSERT INTO t VALUES (zeroblob(100000))", []);
        (0..100).map(|_| insert()).find_map(Result::err).expect("it is bounded")
    }

    #[test]
    fn the_limit_and_a_disk_that_fails_are_told_apart() {
        let database = TemporaryDatabase::new(1 << 20, None).unwrap();
        assert_eq!(fill(&database).sqlite_error_code(), Some(ErrorCode::DiskFull));
        let nowhere = tempfile::tempdir().unwrap().path().join("none");
        let database = TemporaryDatabase::new(u64::MAX, Some(nowhere)).unwrap();
        assert_eq!(fill(&database).sqlite_error_code(), Some(ErrorCode::SystemIoFailure));
    }

    #[test]
    fn what_it_sorts_stands_under_the_limit_too() {
        let database = TemporaryDatabase::new(4 << 20, None).unwrap();
        let sorts = "PRAGMA cache_size = 10;
             CREATE TABLE t AS SELECT n FROM (
                 WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 20000)
                 SELECT randomblob(500) AS n FROM n) ORDER BY n";
        let error = database.execute_batch(sorts).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull), "{error}");
    }
}
