//! A query that somebody wrote, over an open version: one statement that reads, bounded in time and result.
//!
//! Three things keep it from writing, and each would do: the authorizer, what SQLite says of the statement, and
//! `query_only`. If all failed, it would write into an overlay that nobody reads.

use std::ffi::{CStr, c_char, c_int};
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ffi};

use super::error::VersionError;
use super::harden::VALUE_MAX;
use super::shared::Mode;
use super::{Shared, VersionDatabase};
use crate::rows::Value;

/// The longest query, in bytes.
const QUERY_MAX: usize = 100_000;

/// The longest value that a query may make, in bytes: it may make many of them at once.
const QUERY_VALUE_MAX: i32 = 32 << 20;

/// The longest time for compiling it, as far as SQLite asks: it puts the text of views into that of the query
/// first, without asking anybody, up to 65,535 times each, and in memory that only `limit_heap` bounds.
const COMPILE_TIME: Duration = Duration::from_secs(1);

/// What a value counts for besides its own bytes.
const VALUE_LEN: u64 = 16;

/// Within what a query runs.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimits {
    /// How long it may take.
    pub time: Duration,
    /// How many rows are given.
    pub rows: u64,
    /// How many bytes these may be; each value counts for 16 more than it has.
    pub bytes: u64,
    /// How much it may sort and set aside on the way, in bytes, within what the open version may.
    pub scratch: u64,
}

impl Default for QueryLimits {
    /// What a person looks at: 10 seconds, 10,000 rows, 16 MiB, and 1 GiB to sort.
    fn default() -> QueryLimits {
        QueryLimits { time: Duration::from_secs(10), rows: 10_000, bytes: 16 << 20, scratch: 1 << 30 }
    }
}

/// One row of a result.
#[derive(Debug)]
pub struct QueryRow<'q> {
    /// The names of the columns; two may be the same.
    pub columns: &'q [String],
    /// As many values. Texts are UTF-8, whatever the database's encoding (an expression has none), and may
    /// still be no valid text.
    pub values: Vec<Value>,
}

/// What came of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryOutcome {
    /// The names of the columns, also where there is no row.
    pub columns: Vec<String>,
    /// How many rows were given.
    pub rows: u64,
    /// Whether there is more, and only a limit or whoever took the rows ended it.
    pub more: bool,
}

/// Runs one statement that reads, and gives its rows to `sink` until that breaks off. `sink` does not use the
/// database meanwhile. What the database's views and the query itself do stands under the same limits.
///
/// # Errors
/// Where the query is not one statement that reads, is wrong, takes too long, or the version cannot be read.
pub fn query(
    db: &VersionDatabase,
    sql: &str,
    limits: QueryLimits,
    sink: &mut dyn FnMut(QueryRow<'_>) -> ControlFlow<()>,
) -> Result<QueryOutcome, VersionError> {
    db.check()?;
    if sql.len() > QUERY_MAX {
        return Err(VersionError::Query(format!("it is longer than {QUERY_MAX} bytes")));
    }
    if sql.contains('\0') {
        return Err(VersionError::Query("it has a zero character in it".into()));
    }
    let querying = Querying::begin(db, &limits)?;
    let statement = Statement::only(db, sql)?;
    querying.shared.stop.set_query_time(Some(limits.time));
    let columns = statement.columns()?;
    let mut outcome = QueryOutcome { columns, rows: 0, more: false };
    let mut bytes = 0u64;
    while statement.step()? {
        let len = statement.len();
        bytes = bytes.saturating_add(len);
        if outcome.rows == limits.rows || bytes > limits.bytes {
            outcome.more = true;
            break;
        }
        let row = QueryRow { columns: &outcome.columns, values: statement.values()? };
        outcome.rows += 1;
        if sink(row).is_break() {
            outcome.more = true;
            break;
        }
    }
    db.check()?;
    Ok(outcome)
}

/// The connection is set for a query until this is dropped.
struct Querying<'d> {
    connection: &'d Connection,
    shared: &'d Shared,
}

impl<'d> Querying<'d> {
    fn begin(db: &'d VersionDatabase, limits: &QueryLimits) -> Result<Querying<'d>, VersionError> {
        let querying = Querying { connection: db.connection(), shared: db.shared() };
        querying.set(true).map_err(|error| db.explain(error))?;
        querying.shared.stop.set_query_time(Some(limits.time.min(COMPILE_TIME)));
        querying.shared.space.allow(Some(limits.scratch));
        querying.shared.set_mode(Mode::Query);
        Ok(querying)
    }

    fn set(&self, on: bool) -> rusqlite::Result<()> {
        self.connection.execute_batch(if on { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" })?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, on)?;
        let value_max = if on { QUERY_VALUE_MAX } else { VALUE_MAX };
        self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, value_max).map(drop)
    }
}

impl Drop for Querying<'_> {
    fn drop(&mut self) {
        self.shared.set_mode(Mode::Own);
        self.shared.stop.set_query_time(None);
        self.shared.space.allow(None);
        if let Err(error) = self.set(false) {
            // What stays is stricter than it should be.
            tracing::warn!(%error, "a version cannot be set back after a query");
        }
    }
}

/// A statement by SQLite's own functions: rusqlite's panic on a column's name that is not UTF-8, and where
/// memory is short.
struct Statement<'d> {
    db: &'d VersionDatabase,
    raw: NonNull<ffi::sqlite3_stmt>,
}

impl<'d> Statement<'d> {
    /// The only statement of `sql`.
    fn only(db: &'d VersionDatabase, sql: &str) -> Result<Statement<'d>, VersionError> {
        let (first, rest) = Statement::first(db, sql)?;
        let statement = first.ok_or(VersionError::NotOneQuery("none"))?;
        if let (Some(_), _) = Statement::first(db, rest)? {
            return Err(VersionError::NotOneQuery("several"));
        }
        // SAFETY: the statement is not finalized before `drop`.
        let (reads, columns) = unsafe {
            let raw = statement.raw.as_ptr();
            (ffi::sqlite3_stmt_readonly(raw) != 0, ffi::sqlite3_column_count(raw))
        };
        match (reads, columns) {
            (false, _) => Err(VersionError::NotOneQuery("one that writes")),
            (true, 0) => Err(VersionError::NotOneQuery("one without a result")),
            _ => Ok(statement),
        }
    }

    /// The first statement and what follows it; `None` where only comments are left.
    fn first<'s>(
        db: &'d VersionDatabase,
        mut sql: &'s str,
    ) -> Result<(Option<Statement<'d>>, &'s str), VersionError> {
        while !sql.is_empty() {
            let start = sql.as_ptr().cast::<c_char>();
            let (mut raw, mut tail) = (std::ptr::null_mut(), start);
            let len = c_int::try_from(sql.len()).map_err(|_| VersionError::TooLong)?;
            // SAFETY: the handle is open while `db` is borrowed, the text has `len` bytes, and the last two are
            // places to write to.
            let code =
                unsafe { ffi::sqlite3_prepare_v2(db.connection().handle(), start, len, &mut raw, &mut tail) };
            if code != ffi::SQLITE_OK {
                return Err(failed(db, code));
            }
            let used = (tail as usize).saturating_sub(start as usize);
            sql = sql.get(used.max(1)..).unwrap_or_default();
            if let Some(raw) = NonNull::new(raw) {
                return Ok((Some(Statement { db, raw }), sql));
            }
        }
        Ok((None, sql))
    }

    /// Goes to the next row; `false` where there is none.
    fn step(&self) -> Result<bool, VersionError> {
        // SAFETY: the statement is not finalized before `drop`, and its connection is used by this thread alone.
        match unsafe { ffi::sqlite3_step(self.raw.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(failed(self.db, code)),
        }
    }

    fn count(&self) -> c_int {
        // SAFETY: the statement is not finalized before `drop`.
        unsafe { ffi::sqlite3_column_count(self.raw.as_ptr()) }
    }

    fn columns(&self) -> Result<Vec<String>, VersionError> {
        let name = |column| {
            // SAFETY: there is such a column, and the name stays where it is until the statement is run.
            let name = unsafe { ffi::sqlite3_column_name(self.raw.as_ptr(), column) };
            // SAFETY: it ends with a zero, if it is there.
            let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
            name.map(|name| name.to_string_lossy().into_owned()).ok_or(VersionError::Memory)
        };
        (0..self.count()).map(name).collect()
    }

    /// What the row counts for, before anything of it is copied.
    fn len(&self) -> u64 {
        let len = |column| {
            // SAFETY: there is such a column, and a row. The type is asked for first: asking for the length of a
            // number makes a text of it.
            let bytes = unsafe {
                match ffi::sqlite3_column_type(self.raw.as_ptr(), column) {
                    ffi::SQLITE_TEXT | ffi::SQLITE_BLOB => {
                        ffi::sqlite3_column_bytes(self.raw.as_ptr(), column)
                    }
                    _ => 0,
                }
            };
            VALUE_LEN + u64::from(bytes.unsigned_abs())
        };
        (0..self.count()).map(len).sum()
    }

    fn values(&self) -> Result<Vec<Value>, VersionError> {
        (0..self.count()).map(|column| self.value(column)).collect()
    }

    fn value(&self, column: c_int) -> Result<Value, VersionError> {
        let raw = self.raw.as_ptr();
        // SAFETY: there is such a column, and a row. What a text or a blob points to stays until the next call
        // for the same column, and is as long as SQLite says after it was asked for.
        unsafe {
            Ok(match ffi::sqlite3_column_type(raw, column) {
                ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_column_int64(raw, column)),
                ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_column_double(raw, column)),
                ffi::SQLITE_TEXT => {
                    let text = ffi::sqlite3_column_text(raw, column);
                    let len = ffi::sqlite3_column_bytes(raw, column);
                    Value::Text(bytes(text, len).ok_or(VersionError::Memory)?)
                }
                ffi::SQLITE_BLOB => {
                    let blob = ffi::sqlite3_column_blob(raw, column).cast();
                    let len = ffi::sqlite3_column_bytes(raw, column);
                    Value::Blob(if len == 0 {
                        Vec::new()
                    } else {
                        bytes(blob, len).ok_or(VersionError::Memory)?
                    })
                }
                _ => Value::Null,
            })
        }
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: it is finalized once, here. What it gives says again what `step` said.
        unsafe { ffi::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

/// A copy; `None` where SQLite had no memory for it.
///
/// # Safety
/// `at` is null or has `len` bytes.
unsafe fn bytes(at: *const u8, len: c_int) -> Option<Vec<u8>> {
    let len = usize::try_from(len).ok()?;
    // SAFETY: see above.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at, len) }.to_vec())
}

/// What went wrong: with the version, or with the query.
fn failed(db: &VersionDatabase, code: c_int) -> VersionError {
    // SAFETY: the handle is open, and the message, which ends with a zero, stays until the next call.
    let text = unsafe {
        let text = ffi::sqlite3_errmsg(db.connection().handle());
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), text.clone());
    let error = match db.explain(error) {
        // What a virtual table or the authorizer makes of it says less.
        VersionError::Sqlite(error) => match db.shared().stop.stopped() {
            Some(stopped) => stopped,
            None => VersionError::Sqlite(error),
        },
        error => error,
    };
    match (error, code & 0xff) {
        (VersionError::Sqlite(_), ffi::SQLITE_READONLY) => VersionError::NotOneQuery("one that writes"),
        (VersionError::Sqlite(_), ffi::SQLITE_AUTH) => {
            VersionError::Query("it does what a query of a stored version may not".into())
        }
        (VersionError::Sqlite(_), _) => VersionError::Query(text.unwrap_or_default()),
        (error, _) => error,
    }
}
