//! Where temporary files go is said of a whole process, so that this test is alone in one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failing test is what a panic is for here")]

use std::path::Path;

use rusqlite::Connection;
use sqlrsync_database::keep_temporary_files_in;
use sqlrsync_database::version::{Limits, LiveContent, VersionDatabase};

/// How many files of a folder this process has open, with or without a name.
fn open_in(folder: &Path) -> usize {
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.path().read_link().ok());
    open.filter(|file| file.starts_with(folder)).count()
}

#[test]
fn temporary_files_of_versions_and_of_sqlite_are_where_they_are_said_to_be() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = other.path().join("app.db");
    let setup = "CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); INSERT INTO t VALUES(1, x'00')";
    Connection::open(&file).unwrap().execute_batch(setup).unwrap();
    keep_temporary_files_in(folder.path()).unwrap();

    let content = LiveContent::open(&file).unwrap();
    let version = VersionDatabase::open(Box::new(content), Limits::default()).unwrap();
    version.connection().execute("UPDATE t SET data = zeroblob(20000000)", []).unwrap();
    let overlay = open_in(folder.path());
    assert!(overlay > 0, "what is written over a version");

    let nameless = Connection::open("").unwrap();
    nameless.execute_batch("PRAGMA cache_size = -100; CREATE TABLE t(data BLOB)").unwrap();
    nameless.execute("INSERT INTO t VALUES(zeroblob(1000000))", []).unwrap();
    assert!(open_in(folder.path()) > overlay, "SQLite's own");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "none has a name");
}

#[test]
fn a_folder_that_is_not_there_is_refused() {
    keep_temporary_files_in(Path::new("/proc/nowhere")).unwrap_err();
}
