//! Why a version could not be opened, asked or written to: what is wrong, whose fault it is, what to do next.

use std::io;

use rusqlite::ErrorCode;
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::page::PageSize;

/// Why a version could not be used as a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// A page could not be read from where the content is. This is the cause, and not what SQLite made of it.
    #[error("a page of the stored version cannot be read: {0}")]
    Content(ContentError),
    /// The bytes are what was pushed, and SQLite cannot make sense of them.
    #[error(
        "the stored version is no database that SQLite can read ({0}): whoever pushed it, check the file with \
         PRAGMA integrity_check and push a sound one"
    )]
    Corrupt(#[source] rusqlite::Error),
    /// Page 1 and what is known of the content contradict each other.
    #[error(
        "the stored version is damaged: it has pages of {stored} bytes, and its first page says otherwise. \
         Whoever pushed it, check the file with PRAGMA integrity_check and push a sound one"
    )]
    PageSize {
        /// What the content has.
        stored: PageSize,
    },
    /// Its schema is longer than any that people make.
    #[error(
        "the schema of the stored version is longer than the {max} bytes that are read of one: it is kept, but cannot \
         be opened here"
    )]
    Schema {
        /// What is read, in bytes.
        max: u64,
    },
    /// The time that was allowed is over.
    #[error("it was not done in the time that is allowed for it: ask for less, or allow more time")]
    Deadline,
    /// Somebody said stop.
    #[error("cancelled")]
    Cancelled,
    /// What is written, sorted and journalled takes more room than is allowed.
    #[error("it needs more than the {max} bytes of temporary space that are allowed for it")]
    Scratch {
        /// What is allowed, in bytes.
        max: u64,
    },
    /// A temporary file failed.
    #[error("a temporary file could not be {doing}: {source}. Check the folder for temporary files")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// SQLite's memory is used up.
    #[error("SQLite has used all the memory that is allowed for it: ask for less, or try again later")]
    Memory,
    /// A row or a value is longer than is allowed here.
    #[error("a value or a row is longer than is allowed here: leave it out")]
    TooLong,
    /// A change was neither made nor taken back, since reading or writing failed in the middle of it.
    #[error(
        "a change was cut off in the middle by an error before, and nothing of it can be used: start again"
    )]
    Unsettled,
    /// Something in this process went wrong that never should.
    #[error("reading or writing the stored version failed for a bug in this program")]
    Bug,
    /// The text of a query.
    #[error("the query is not right: {0}")]
    Query(String),
    /// A query that is none, or several.
    #[error("give one SELECT statement: this is {0}")]
    NotOneQuery(&'static str),
    /// SQLite failed otherwise.
    #[error("SQLite failed: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

impl VersionError {
    /// From what SQLite said, where nothing is known besides.
    pub(super) fn of_sqlite(error: rusqlite::Error) -> VersionError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => VersionError::Corrupt(error),
            Some(ErrorCode::OutOfMemory) => VersionError::Memory,
            Some(ErrorCode::TooBig) => VersionError::TooLong,
            Some(ErrorCode::OperationInterrupted) => VersionError::Cancelled,
            _ => VersionError::Sqlite(error),
        }
    }
}

impl Fault for VersionError {
    fn refusal(&self) -> Refusal {
        match self {
            VersionError::Content(error) => error.refusal(),
            VersionError::Corrupt(_) | VersionError::PageSize { .. } => Refusal::Integrity,
            VersionError::Deadline | VersionError::Memory => Refusal::TryLater,
            VersionError::Query(_) | VersionError::NotOneQuery(_) | VersionError::TooLong => Refusal::Invalid,
            _ => Refusal::Failed,
        }
    }

    fn public_text(&self) -> String {
        match self {
            VersionError::Content(error) => error.public_text(),
            VersionError::Corrupt(_) | VersionError::PageSize { .. } => {
                "the stored version is damaged: check the pushed file with PRAGMA integrity_check".into()
            }
            VersionError::Disk { .. } => "the server has no room for temporary files".into(),
            VersionError::Sqlite(_) | VersionError::Unsettled | VersionError::Bug => {
                "the stored version could not be read or changed".into()
            }
            other => other.to_string(),
        }
    }
}

/// What went wrong below SQLite, which has a number for it and nothing more.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The content.
    Content(ContentError),
    /// No more room is allowed.
    Full { max: u64 },
    /// The schema is too long.
    Schema { max: u64 },
    /// A temporary file.
    Disk { doing: &'static str, source: io::Error },
    /// A panic, caught before it reached SQLite.
    Bug,
}

impl From<Trouble> for VersionError {
    fn from(trouble: Trouble) -> VersionError {
        match trouble {
            Trouble::Content(error) => VersionError::Content(error),
            Trouble::Full { max } => VersionError::Scratch { max },
            Trouble::Schema { max } => VersionError::Schema { max },
            Trouble::Disk { doing, source } => VersionError::Disk { doing, source },
            Trouble::Bug => VersionError::Bug,
        }
    }
}
