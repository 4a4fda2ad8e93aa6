//! Putting a whole database over an existing file of another page size, or of no page at all: by
//! SQLite's backup interface, in one transaction of the file that is replaced. Whoever has that file
//! open goes on with the new content; a crash leaves the old or the new.
//!
//! A file in WAL mode leaves it for that time, since there its page size cannot change. It goes back
//! to it however this ends; only a kill in between leaves it in rollback mode.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::apply::{Applied, check_in_place, committed, data_version, gone, journal_mode, sync_everything};
use crate::error::Error;
use crate::snapshot::connect;

/// Makes the file at `path` what the database at `source` is. `vacant` says that it has no page yet,
/// and is left alone if it has one by now.
pub(crate) fn replace(path: &Path, source: &Path, vacant: bool) -> Result<Applied, Error> {
    let mut target = connect(path).map_err(gone(path))?;
    let wal = journal_mode(&target).map_err(|error| Error::sqlite(path, error))? == "wal";
    let version = match overwrite(path, &mut target, source, vacant) {
        Ok(version) => version,
        Err(error) => {
            // Its lock goes with it.
            drop(target);
            return_to_wal(path, wal);
            return Err(error);
        }
    };
    // Changing the mode is a commit of another connection than `target`, so that the fingerprint will
    // prove nothing: one scan more.
    return_to_wal(path, wal);
    committed(path, &target, version)
}

/// Does it, with the file for us alone. Returns the data version of what was committed.
fn overwrite(path: &Path, target: &mut Connection, source: &Path, vacant: bool) -> Result<i64, Error> {
    let sqlite = |error| Error::sqlite(path, error);
    sync_everything(target).and_then(|()| lock_out(target)).map_err(sqlite)?;
    check_in_place(path, target)?;
    let pages: u32 = target.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(sqlite)?;
    if vacant && pages > 0 {
        return Err(Error::ChangedMeanwhile { path: path.to_path_buf() });
    }
    let source = connect(source)?;
    let copied = Backup::new(&source, target).and_then(|backup| backup.step(-1)).map_err(sqlite)?;
    if copied != StepResult::Done {
        return Err(Error::Busy { path: path.to_path_buf() });
    }
    drop(source);
    let version = data_version(target).map_err(sqlite)?;
    // The lock goes with the next read.
    target.query_row("PRAGMA locking_mode = NORMAL", [], |_| Ok(())).map_err(sqlite)?;
    data_version(target).map_err(sqlite)?;
    Ok(version)
}

/// Takes the file for us alone until the connection is closed, in rollback mode. A file in WAL mode
/// does not leave that as long as anybody else has it open.
fn lock_out(target: &Connection) -> rusqlite::Result<()> {
    if journal_mode(target)? == "wal" {
        target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    }
    target.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    // Not committed: beginning to write makes the first page of a file that has none.
    target.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")
}

/// Puts a file that was in WAL mode back into it, by a new connection: one of before knows the schema and
/// the encoding of before. What was done, or why not, stands whether this succeeds or not.
fn return_to_wal(path: &Path, was_wal: bool) {
    if !was_wal {
        return;
    }
    let returned = connect(path).and_then(|connection| {
        connection
            .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
            .map_err(|error| Error::sqlite(path, error))
    });
    if let Err(error) = returned {
        tracing::warn!(
            file = %path.display(),
            %error,
            "was in WAL mode and is not any more: set it again with PRAGMA journal_mode = WAL"
        );
    }
}
