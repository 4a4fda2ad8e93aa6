//! Why rows could not be read, compared or written out.

use std::io;

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
    /// What a form of export cannot say.
    #[error("{0}")]
    Export(String),
    /// The rows could not be written to where they were to go.
    #[error("writing the rows: {0}")]
    Write(#[from] io::Error),
}
