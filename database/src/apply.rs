//! One write transaction that makes a live file what arrived. The order of things, each found by what
//! broke without it:
//!
//! - Everything has arrived and is proved before the transaction begins.
//! - Inside of it the file is checked to be still what the pages are a difference to.
//! - Pages go through `sqlite_dbpage`, for which DEFENSIVE is off. The lock page is never written.
//! - Page 1 comes last but for the truncation: an insert after a truncation cancels it in silence. So
//!   does a statement of several rows, or a savepoint: as they end SQLite takes the page count from the
//!   header that has just arrived, and finds nothing to cut off.
//! - Page 1 keeps the replica's journal mode and change counter, which are about this file and not its
//!   content. Its schema cookie moves on: whoever has the file open must read the schema again,
//!   or his cached statements write into the wrong table. It moves far ([`next_cookie`]), so that a backup
//!   of before is known for one. `PRAGMA schema_version` sets it at the very end; a changed cookie on page 1 would have the truncation compiled anew, against a schema of which
//!   half is of before and half has just arrived.
//! - A file in auto-vacuum mode would have its pages moved about as the transaction commits: it is
//!   switched to incremental for the transaction.
//! - The connection is closed afterwards: what it knows of the schema is of before.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::ffi;
use rusqlite::types::Null;
use rusqlite::{Connection, params};
use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::Error;
use crate::fingerprint::{Fingerprint, Wal};
use crate::handle::has_moved;
use crate::image::{Compare, Job, Select, run};
use crate::legacy::LegacyHashes;
use crate::page_hashes::PageHashes;
use crate::pages::Pages;
use crate::receive::Received;
use crate::snapshot::{InTransaction, blame, connect, look, settled_fingerprint, wal_of};

/// SQLite's page cache for an apply. What fits is written at the commit alone; more would have to be
/// written in between, for which readers must be kept out from the beginning (rollback mode).
const APPLY_CACHE_LEN: u64 = 16 << 20;

/// How far an apply moves the schema cookie on at least.
const COOKIE_STEP: u32 = 8;

/// What the clock's part of a schema cookie counts from: 2026-01-01, in seconds after 1970.
const COOKIE_EPOCH: u64 = 1_767_225_600;

/// What the pages that arrived are a difference to.
pub(crate) enum Held<'h> {
    /// To the content with this page tree.
    Tree(&'h PageHashes, &'h Fingerprint),
    /// To the content with these hashes (versions 1 and 2).
    Legacy(&'h LegacyHashes),
    /// To nothing: every page arrived.
    Nothing,
}

/// A file as it is after an apply.
pub(crate) struct Applied {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) fields: HeaderFields,
}

/// Makes the file what arrived, or leaves it as it is.
pub(crate) fn apply(
    path: &Path,
    held: &Held<'_>,
    received: &Received,
    geometry: Geometry,
    temp_dir: &Path,
) -> Result<Applied, Error> {
    let sqlite = |error| Error::sqlite(path, error);
    let before = Fingerprint::of(path).map_err(gone(path))?;
    let bytes = received.pages.len() * geometry.page_size.bytes() as u64;
    let open = || -> Result<Connection, Error> {
        let mut connection = connect(path)?;
        begin(&connection, bytes).map_err(sqlite)?;
        check_still_held(path, &mut connection, held, temp_dir)?;
        check_in_place(path, &connection)?;
        Ok(connection)
    };
    // Nothing of ours is written yet: what shows a write is somebody else's.
    let connection = open().map_err(|error| gone(path)(blame(path, &before, error)))?;
    let version = data_version(&connection).map_err(sqlite)?;
    write_pages(path, &connection, received, geometry)?;
    connection.execute_batch("COMMIT").map_err(sqlite)?;
    // Pages in the cache come with what SQLite has made of them before they were written through
    // sqlite_dbpage: a page 1 with fewer tables in it would now seem damaged.
    connection.release_memory().map_err(sqlite)?;
    committed(path, &connection, version)
}

/// Opens the write transaction, after waiting for writers and, where many pages come, for readers.
fn begin(connection: &Connection, bytes: u64) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    sync_everything(connection)?;
    connection.pragma_update(None, "cache_size", -((APPLY_CACHE_LEN >> 10) as i64))?;
    let wal = journal_mode(connection)? == "wal";
    let large = bytes * 2 > APPLY_CACHE_LEN;
    connection.execute_batch(if large && !wal { "BEGIN EXCLUSIVE" } else { "BEGIN IMMEDIATE" })?;
    Ok(())
}

/// Makes a commit outlast a power cut: in rollback mode it is the removal of the journal, and one that comes back
/// takes back what was said to be there.
pub(crate) fn sync_everything(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "EXTRA")
}

/// Keeps SQLite from moving pages about as the transaction commits. It notes the change on page 1: what
/// is to stay of that has been read before.
fn hold_auto_vacuum(connection: &Connection) -> rusqlite::Result<()> {
    if connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, u32>(0))? == 1 {
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    Ok(())
}

pub(crate) fn journal_mode(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))
}

/// Changes whenever another connection commits, and not by one's own commits.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// The file that is open is still the one under its name. SQLite sees to that in rollback mode alone.
pub(crate) fn check_in_place(path: &Path, connection: &Connection) -> Result<(), Error> {
    if has_moved(connection) { Err(Error::ChangedMeanwhile { path: path.to_path_buf() }) } else { Ok(()) }
}

/// That a file is missing which was there as the pages came.
pub(crate) fn gone(path: &Path) -> impl FnOnce(Error) -> Error {
    let path = path.to_path_buf();
    move |error| match error {
        Error::Missing { .. } => Error::ChangedMeanwhile { path },
        error => error,
    }
}

/// Nobody wrote since the file was looked at: told by the fingerprint, or else by reading it again.
fn check_still_held(
    path: &Path,
    connection: &mut Connection,
    held: &Held<'_>,
    temp_dir: &Path,
) -> Result<(), Error> {
    let changed = || Error::ChangedMeanwhile { path: path.to_path_buf() };
    let now = Fingerprint::of(path)?;
    let (compare, then) = match held {
        Held::Tree(_, then) if then.proves_unchanged(&now) => return Ok(()),
        Held::Legacy(hashes) if hashes.proves_unchanged(&now) => return Ok(()),
        Held::Nothing => return Ok(()),
        Held::Tree(tree, _) => (Compare::Tree(Some(tree.reader())), tree.geometry()),
        Held::Legacy(hashes) => (Compare::Legacy(hashes.reader()?), hashes.geometry()),
    };
    let raw = matches!(compare, Compare::Legacy(_));
    let seen = look(connection).map_err(|error| Error::sqlite(path, error))?;
    let geometry =
        seen.map(|(geometry, _)| geometry).filter(|geometry| *geometry == then).ok_or_else(changed)?;
    let source = InTransaction { path, connection, geometry };
    let job = Job { read: Pages::All, compare, select: Select::default(), raw };
    let outcome = run(source, job, None, temp_dir)?;
    if outcome.changed == 0 { Ok(()) } else { Err(changed()) }
}

/// Writes all pages but the first, then the first and the truncation.
fn write_pages(
    path: &Path,
    connection: &Connection,
    received: &Received,
    geometry: Geometry,
) -> Result<(), Error> {
    let sqlite = |error| Error::sqlite(path, error);
    let sql = "SELECT data FROM sqlite_dbpage WHERE pgno = 1";
    let own: Vec<u8> = connection.query_row(sql, [], |row| row.get(0)).map_err(sqlite)?;
    hold_auto_vacuum(connection).map_err(sqlite)?;
    let before: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(sqlite)?;
    let sql = "INSERT INTO sqlite_dbpage (pgno, data) VALUES (?1, ?2)";
    let mut insert = connection.prepare(sql).map_err(sqlite)?;
    received.each(|number, page| {
        if !geometry.page_count.contains(number) || number == geometry.page_size.lock_page() {
            return Err(Error::Invalid("a page past the end"));
        }
        if number != PageNumber::FIRST {
            insert.execute(params![number.get(), page]).map_err(sqlite)?;
        }
        Ok(())
    })?;
    let mut page = own.clone();
    if received.pages.contains(PageNumber::FIRST.get()) {
        page.resize(geometry.page_size.bytes(), 0);
        received.read(PageNumber::FIRST, &mut page)?;
        make_canonical(&mut page);
    }
    let fields = HeaderFields::of(&own);
    fields.put(&mut page);
    insert.execute(params![1, page]).map_err(sqlite)?;
    if before > geometry.page_count.get() {
        insert.execute(params![i64::from(geometry.page_count.get()) + 1, Null]).map_err(sqlite)?;
    }
    let cookie = next_cookie(fields.schema_cookie(), SystemTime::now()).cast_signed();
    connection.pragma_update(None, "schema_version", cookie).map_err(sqlite)
}

/// The schema cookie of a file with this one that is written to at this time.
///
/// Whoever writes to a database counts its change counter up with each commit, and the cookie only with each change
/// of the schema. So a backup of before an apply that is copied over the file and written to soon has the counter
/// that the file had, and not its cookie ([`HeaderFields::is_put_back`]). The clock's seconds make that so for any
/// two backups, whichever of them was put back before; where it was set back, or there are many applies, the steps do.
fn next_cookie(cookie: u32, now: SystemTime) -> u32 {
    let next = cookie.wrapping_add(COOKIE_STEP);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(COOKIE_EPOCH);
    match u32::try_from(since) {
        // The short way round, as it is compared.
        Ok(clock) if clock.wrapping_sub(next).cast_signed() > 0 => clock,
        _ => next,
    }
}

/// After our own commit on `writer`, whose data version was `version` then: the WAL goes into the file if
/// nobody else needs it, and the fingerprint is taken of what we committed. If somebody has committed
/// since, it is one that proves nothing.
///
/// A second connection looks: what the first knows of the schema and the encoding is of before.
pub(crate) fn committed(path: &Path, writer: &Connection, version: i64) -> Result<Applied, Error> {
    let sqlite = |error| Error::sqlite(path, error);
    let reader = connect(path)?;
    writer.busy_timeout(Duration::ZERO).map_err(sqlite)?;
    checkpoint(writer);
    let before = settled_fingerprint(path)?;
    let look = || -> rusqlite::Result<_> {
        reader.execute_batch("BEGIN")?;
        let seen = look(&reader)?;
        // Asked after the reader's view was fixed: if nobody else committed by now, it is ours.
        Ok((seen, data_version(writer)? == version))
    };
    let (seen, ours) = look().map_err(sqlite)?;
    let fields = seen.map(|(_, fields)| fields).unwrap_or_default();
    // The file looked at is the one that was written, or another has taken its place since.
    let ours = ours && !has_moved(writer) && !has_moved(&reader);
    let wal = if ours { wal_of(path, &reader)? } else { Wal::Unknown };
    Ok(Applied { fingerprint: before.with_wal(wal), fields })
}

/// Empties the WAL, if there is one and that needs no waiting. The last to close would do it anyway, after
/// the fingerprint was taken. Not on another connection: to this one that would look as if somebody had
/// committed. And not by the pragma, which reads the schema first.
fn checkpoint(writer: &Connection) {
    let mode = ffi::SQLITE_CHECKPOINT_TRUNCATE;
    let none = std::ptr::null_mut();
    // SAFETY: the handle is open for as long as `writer` is borrowed, the name ends with a zero, and SQLite
    // takes null for counters that nobody wants.
    let _ = unsafe { ffi::sqlite3_wal_checkpoint_v2(writer.handle(), c"main".as_ptr(), mode, none, none) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_whose_place_another_was_put_is_not_written() {
        for mode in ["DELETE", "WAL"] {
            let dir = tempfile::tempdir().unwrap();
            let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
            for file in [&path, &other] {
                let sql = format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (a)");
                Connection::open(file).unwrap().execute_batch(&sql).unwrap();
            }
            let connection = connect(&path).unwrap();
            begin(&connection, 0).unwrap();
            check_in_place(&path, &connection).unwrap();
            std::fs::rename(&other, &path).unwrap();
            let error = check_in_place(&path, &connection).unwrap_err();
            assert!(matches!(error, Error::ChangedMeanwhile { .. }), "{mode}");
        }
    }

    #[test]
    fn a_cookie_goes_on_with_the_clock_and_without_it() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(next_cookie(5, at(COOKIE_EPOCH + 90_000)), 90_000);
        assert_eq!(next_cookie(90_000, at(COOKIE_EPOCH + 90_000)), 90_008, "within a second");
        assert_eq!(next_cookie(90_000, at(COOKIE_EPOCH + 60)), 90_008, "the clock was set back");
        assert_eq!(next_cookie(90_000, at(0)), 90_008, "there is none");
        assert_eq!(next_cookie(u32::MAX, at(0)), 7);
    }
}
