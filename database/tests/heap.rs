//! How much memory SQLite may have is said of a whole process, so that this test is alone in one.

#![allow(clippy::unwrap_used, reason = "a failing test is what a panic is for here")]

use rusqlite::{Connection, ErrorCode};
use sqlrsync_database::version::limit_heap;

/// The length of a value that is put together in memory, of so many megabytes.
fn build(connection: &Connection, megabytes: u64) -> rusqlite::Result<u64> {
    // It is done while the statement runs, and not as it is compiled.
    let sql = "SELECT length(hex(zeroblob(?1 * 500000)))";
    connection.query_row(sql, [megabytes.cast_signed()], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

#[test]
fn a_statement_that_needs_more_memory_than_there_may_be_fails_and_the_next_one_does_not() {
    let connection = Connection::open_in_memory().unwrap();
    assert_eq!(build(&connection, 100), Ok(100_000_000));
    limit_heap(64 << 20);
    let failed = build(&connection, 100).unwrap_err();
    assert_eq!(failed.sqlite_error_code(), Some(ErrorCode::OutOfMemory), "{failed:?}");
    assert_eq!(build(&connection, 10), Ok(10_000_000));
    assert!(build(&Connection::open_in_memory().unwrap(), 100).is_err(), "whatever the connection");
}
