//! Putting a whole database over an existing file of another page size, or of no page at all: by
//! SQLite's backup interface, in one transaction of the file that is replaced. Whoever has that file
//! open goes on with the new content; a crash leaves the old or the new.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::apply::{Applied, committed, data_version, journal_mode};
use crate::error::Error;
use crate::snapshot::connect;

/// Makes the file at `path` what the database at `source` is. `vacant` says that it has no page yet,
/// and is left alone if it has one by now.
pub(crate) fn replace(path: &Path, source: &Path, vacant: bool) -> Result<Applied, Error> {
    let sqlite = |error| Error::sqlite(path, error);
    let mut target = connect(path)?;
    let wal = lock_out(&target).map_err(sqlite)?;
    let pages: u32 = target.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(sqlite)?;
    if vacant && pages > 0 {
        return Err(Error::ChangedMeanwhile { path: path.to_path_buf() });
    }
    let source = connect(source)?;
    let copied = Backup::new(&source, &mut target).and_then(|backup| backup.step(-1)).map_err(sqlite)?;
    if copied != StepResult::Done {
        return Err(Error::Busy { path: path.to_path_buf() });
    }
    drop(source);
    let version = data_version(&target).map_err(sqlite)?;
    // The lock goes with the next read.
    target.query_row("PRAGMA locking_mode = NORMAL", [], |_| Ok(())).map_err(sqlite)?;
    data_version(&target).map_err(sqlite)?;
    if wal {
        // By a new connection: this one knows the schema and the encoding of before. Changing the mode is
        // a commit of another connection to `target`, so the fingerprint will prove nothing: one scan more.
        let connection = connect(path)?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(sqlite)?;
    }
    committed(path, &target, version)
}

/// Takes the file for us alone until the connection is closed. A file in WAL mode leaves it for that
/// time, since there its page size cannot change: that fails as long as anybody has it open.
fn lock_out(target: &Connection) -> rusqlite::Result<bool> {
    let wal = journal_mode(target)? == "wal";
    if wal {
        target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    }
    target.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    // Not committed: beginning to write makes the first page of a file that has none.
    target.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
    Ok(wal)
}
