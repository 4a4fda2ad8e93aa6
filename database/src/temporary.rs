//! Temporary files: where they are, and the temporary databases that rows are kept in while they are compared or
//! merged.
//!
//! - None has a name for longer than it takes to open it: it is gone with the process, however that ends.
//! - Each is bounded: what a hostile database makes of it fails with an error and does not fill the disk.

use std::io;
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::version::TemporaryDatabase;

/// How much one temporary database may have, in bytes. As much as an open version may write.
pub(crate) const BYTES_MAX: u64 = crate::version::SCRATCH_MAX;

/// Why temporary files cannot be where they were to be.
#[derive(Debug, thiserror::Error)]
pub enum TemporaryError {
    /// SQLite takes no folder whose name is not UTF-8.
    #[error("the name of the folder is not valid UTF-8")]
    Name,
    /// It is said already, and something else.
    #[error("this process has another folder for them already")]
    Settled,
    /// SQLite cannot write there.
    #[error("SQLite cannot write to it: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Nothing can be made there.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Says where temporary files go that nobody gives a folder for, SQLite's own among them: of all this process, and
/// once. A server calls it as it starts, since the system's folder may be in memory and small. The folder has to
/// stay for as long as the process.
///
/// # Errors
/// Where that cannot be. Then they go where they went before.
pub fn keep_temporary_files_in(folder: &Path) -> Result<(), TemporaryError> {
    let name = folder.to_str().ok_or(TemporaryError::Name)?;
    drop(tempfile::tempfile_in(folder)?);
    // SQLite has it under a mutex of its own, so that this may be said at any time.
    Connection::open_in_memory()?.pragma_update(None, "temp_store_directory", name)?;
    tempfile::env::override_temp_dir(folder).map_err(|_| TemporaryError::Settled)
}

/// A database without a name: in SQLite's cache of so many KiB, and beyond that in files of `bytes_max` together.
pub(crate) fn database(cache_kib: u32, bytes_max: u64) -> rusqlite::Result<TemporaryDatabase> {
    let database = TemporaryDatabase::new(bytes_max, None)?;
    let page: u32 = database.pragma_query_value(None, "page_size", |row| row.get(0))?;
    // What is in the cache counts as well.
    let pages = i64::try_from(bytes_max / u64::from(page.max(1))).unwrap_or(i64::MAX);
    database.execute_batch(&format!("PRAGMA cache_size = -{cache_kib}; PRAGMA max_page_count = {pages};"))?;
    Ok(database)
}

/// Whether an error of such a database says that it has all the room that it may have. Of a disk that is full it is
/// another one.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
