//! Why it could not be told whether two sides merge.

use crate::rows::error::is_of_database;
use crate::{rows, temporary};

/// Why it could not be told whether two sides merge. Neither side was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The time that the merge was given is over.
    #[error("merging took longer than it may, and was given up: nothing was changed")]
    TimeUp,
    /// A database could not be read or compared.
    #[error("merging: {0}")]
    Rows(#[from] rows::Error),
    /// SQLite failed on one of the databases.
    #[error("merging: {0}")]
    Sqlite(#[source] rusqlite::Error),
    /// What both sides changed does not fit into the merge's own temporary database.
    #[error("what both sides changed takes more temporary space than it may have")]
    NoRoom,
    /// The merge's own temporary database failed: the disk is full, or worse.
    #[error("merging: the temporary database failed ({0}): is there room in the folder for temporary files?")]
    Temporary(#[source] rusqlite::Error),
    /// The merge's own temporary database does not have what was put in.
    #[error("merging: {0} is missing in the temporary database")]
    Store(&'static str),
    /// The connections are not as they must be: a transaction is open.
    #[error("merging: the databases must not be in a transaction")]
    InTransaction,
    /// A full-text index cannot be made again. [`super::merge`] makes a conflict of it.
    #[error("the full-text index {table} cannot be made again: {why}")]
    Rebuild {
        /// The index.
        table: String,
        /// Why not.
        why: String,
    },
    /// The database cannot be merged; what is in the way, in words. [`super::merge`] makes a conflict of it.
    #[error("this database cannot be merged: {0}")]
    Unsupported(String),
}

impl Error {
    /// From an error of the store.
    pub(super) fn store(source: rusqlite::Error) -> Error {
        if temporary::is_full(&source) {
            return Error::NoRoom;
        }
        Error::Temporary(source)
    }

    /// From an error of the store, of a row that is written or read piece by piece.
    pub(super) fn piece(error: std::io::Error) -> Error {
        // All others would say that the row is longer or shorter than it was.
        error.downcast().map_or(Error::Store("a row"), Error::store)
    }

    /// What it says of the database, where it says something of the database and nothing of the machine.
    ///
    /// # Errors
    /// Itself, where it does not.
    pub(super) fn unsupported(self) -> Result<String, Error> {
        match self {
            Error::Unsupported(why) => Ok(why),
            Error::Sqlite(source) if is_of_database(&source) => Ok(source.to_string()),
            Error::Rows(error) if error.is_of_database() => Ok(error.to_string()),
            error => Err(error),
        }
    }
}
