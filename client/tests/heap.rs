//! What SQLite may have in memory is set for a whole process. The program runs in this one, so that it can be asked
//! afterwards; the test is alone in it.

#![allow(clippy::unwrap_used, reason = "a failing test is what a panic is for here")]

use std::ffi::OsString;

use rusqlite::Connection;

/// What `docs/versions-as-databases.md` says of the client, in bytes.
const LIMIT: i64 = 1 << 30;

/// What SQLite may have, in bytes; 0 for as much as there is.
fn limit(connection: &Connection) -> i64 {
    connection.query_row("PRAGMA hard_heap_limit", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_run_bounds_what_sqlite_takes_for_files_that_come_from_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one.db", "other.db"].map(|name| folder.path().join(name));
    for path in [&one, &other] {
        Connection::open(path).unwrap().execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    }
    let connection = Connection::open_in_memory().unwrap();
    assert_eq!(limit(&connection), 0);
    let words = ["sqlrsync".into(), "diff".into(), one.into_os_string(), other.into_os_string()];
    let exit_code = sqlrsync::program::main(words.map(|word: OsString| word).to_vec());
    assert_eq!(format!("{exit_code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
    assert_eq!(limit(&connection), LIMIT);
}
