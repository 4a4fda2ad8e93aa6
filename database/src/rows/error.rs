//! Why rows could not be read, compared or written out.

use std::io;

use rusqlite::ErrorCode;

/// Why rows could not be read, compared or written out. Both databases may come from somebody hostile, so
/// most of these say that a database is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite could not do it: the database is damaged, time is up, or memory is.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: String,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// More of something than is worked with.
    #[error("the database has more than {most} {what}: it is not compared row by row")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Something in the database's schema cannot be.
    #[error("the database's schema is damaged: {0}")]
    Schema(&'static str),
    /// A table is kept in an order that only its application knows.
    #[error(
        "the table {table} is WITHOUT ROWID and ordered by the collation {collation}, which only the application \
         that made it has: its rows cannot be found here"
    )]
    Collation {
        /// The table.
        table: String,
        /// The collation.
        collation: String,
    },
    /// Stored bytes are no key, no row.
    #[error("stored bytes are no {0}: they were damaged, or written by a later version of this program")]
    Encoding(&'static str),
    /// Stored rows could not be read.
    #[error("reading stored rows: {0}")]
    Read(#[source] io::Error),
    /// What a form of export cannot say.
    #[error("{0}")]
    Export(String),
    /// What differs does not fit where it is kept while it is compared.
    #[error("what differs takes more temporary space than it may have")]
    NoRoom,
    /// Where it is kept while it is compared failed: the disk is full, or worse.
    #[error(
        "keeping rows that moved: the temporary database failed ({0}): is there room in the folder for temporary \
         files?"
    )]
    Temporary(#[source] rusqlite::Error),
    /// The rows could not be written to where they were to go.
    #[error("writing the rows: {0}")]
    Write(#[from] io::Error),
}

impl Error {
    /// Whether a database is damaged, or was made so that it cannot be read.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            Error::Schema(_) => true,
            _ => false,
        }
    }

    /// Whether it says something of what is in a database: the same comes of it whenever it is tried again, and
    /// wherever. All others say that a disk, memory or time was short.
    pub fn is_of_database(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => is_of_database(source),
            Error::TooMany { .. } | Error::Schema(_) | Error::Collation { .. } => true,
            Error::Encoding(_)
            | Error::Read(_)
            | Error::Export(_)
            | Error::NoRoom
            | Error::Temporary(_)
            | Error::Write(_) => false,
        }
    }
}

/// Whether SQLite's error comes from what is in the database: damage, a function or a collation that this
/// program does not have, a value beyond a limit.
pub(crate) fn is_of_database(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::Unknown
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
                | ErrorCode::ConstraintViolation
                | ErrorCode::SchemaChanged
                | ErrorCode::AuthorizationForStatementDenied
                | ErrorCode::ParameterOutOfRange
        )
    )
}
