//! What becomes of a push that was not made from the latest version: merged, kept as a conflict, refused, or
//! put on top. Here the repository, which has contents, and the database crate, which understands them, are
//! joined.
//!
//! What always holds:
//! - What was pushed is kept as a candidate, durably, before it is merged: whatever happens then, it is there,
//!   and it is what the pusher's next push is a difference to. (The merge is not: taken for the pusher's base
//!   it would make the next push delete what others did.)
//! - A version that a merge makes names the candidate. That is the only mark that it is done, so that a server
//!   that is killed anywhere finds out what is left to do when the push comes again.
//! - Nothing is guessed: where it is not known what a push was made from, and it matters, it is a conflict.

mod agree;
mod audited;
mod bases;
mod conflicts;
mod counted;
mod given_up;
mod json;
mod look;
mod maps;
mod overlap;
mod push;
mod settle;
mod shown;
#[cfg(test)]
mod tests;
mod undone;
mod until;
mod versions;

use sqlrsync_database::version::VersionError;
use sqlrsync_database::{merge, rows};
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_repository::Replica;

use super::Backend;
use crate::refused::{Refused, Why};

pub(super) use audited::Deed;
pub(super) use bases::{PulledNote, note_pulled, take_back_pulled};
pub use conflicts::{ConflictInfo, ConflictsPage, RowsPage};
pub(super) use counted::Counted;
pub use counted::{CountedPage, CountedVersion};
use given_up::GivenUp;
pub(super) use look::LookTimes;
pub use look::{
    DiffEnd, DiffFormat, DiffStat, Difference, QueryAnswer, Question, RowCounts, error_end, error_line,
};
pub(super) use maps::Maps;
pub(super) use push::Push;
pub use settle::{Chosen, Keep, Settlement};
pub(super) use shown::Recent;
use versions::Versions;
pub(super) use versions::{MERGE_TIME, Scratch};

impl Backend {
    /// The contents of a replica, for as long as a merge may take.
    fn to_merge<'a>(&'a self, replica: &'a Replica) -> Versions<'a> {
        Versions::new(replica, &self.maps, self.merge_time).within(self.merge_scratch.clone())
    }
}

/// Said where a disk of the server is full, or failed.
const NO_ROOM_ON_DISK: &str =
    "the server has no room on its disk, or cannot write to it: nothing was changed, try again later";

/// The push was not made from the latest version, and the replica takes no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this was not made from version {latest}, the latest, and the replica takes no other (its policy is \
     reject): pull version {latest}, make the changes there, and push again"
)]
pub struct Rejected {
    /// The latest version.
    pub latest: VersionNumber,
}

/// Why contents could not be compared or merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] sqlrsync_repository::Error),
    /// A page.
    #[error("a stored page cannot be read: {0}")]
    Pages(ContentError),
    /// A content is no database, or took too long.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The comparison.
    #[error(transparent)]
    Rows(#[from] rows::Error),
    /// The merge.
    #[error(transparent)]
    Merge(#[from] merge::Error),
    /// What is to be done could not be noted down, and was not done.
    #[error("what is to be done cannot be noted for the audit log: {0}")]
    Audit(#[from] crate::catalog::Error),
    /// The policy.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A settlement names a row of a table, or with a key, that there is not.
    #[error("there is no table {0:?}, or it has no key of that form")]
    NoSuchRow(String),
    /// A settlement says of one row that it is to be as either side has it.
    #[error("a row of the table {0:?} is chosen twice, once for each side: say which it is to be")]
    ChosenTwice(String),
    /// A settlement has to choose for more rows than it may.
    #[error("more than {0} rows differ: settle it with --keep theirs or --keep mine")]
    TooManyRows(usize),
    /// Rows cannot be chosen where their tables are not alike.
    #[error(
        "it is not known what the pushed database was made from, and its schema is another one: rows cannot be \
         chosen one by one, settle it with --keep theirs or --keep mine alone"
    )]
    SchemasDiffer,
    /// A settlement does not say what becomes of these.
    #[error("nothing was settled: {0} rows are left to choose")]
    LeftToChoose(u64),
}

impl Error {
    /// Whether it was given up for what it takes, and of what: trying again takes as much.
    fn given_up(&self) -> Option<GivenUp> {
        match self {
            Error::Merge(merge::Error::TimeUp) | Error::Version(VersionError::Deadline) => {
                Some(GivenUp::Time)
            }
            Error::Version(VersionError::Scratch { .. })
            | Error::Rows(rows::Error::NoRoom)
            | Error::Merge(merge::Error::NoRoom | merge::Error::Rows(rows::Error::NoRoom)) => {
                Some(GivenUp::Room)
            }
            _ => None,
        }
    }

    /// Whether a file failed that something is kept in meanwhile: the disk is full, most likely, and what is tried
    /// later may find room.
    fn is_of_the_disk(&self) -> bool {
        match self {
            Error::Version(VersionError::Disk { .. })
            | Error::Rows(rows::Error::Temporary(_))
            | Error::Merge(merge::Error::Temporary(_) | merge::Error::Rows(rows::Error::Temporary(_))) => {
                true
            }
            Error::Audit(error) => error.is_full(),
            _ => false,
        }
    }

    /// That the answer is not known and will not be: for what is in a content, or as it was given up.
    ///
    /// # Errors
    /// Itself, where it may be known another time.
    fn stays_unknown(self) -> Result<(), Error> {
        if self.given_up().is_some() { Ok(()) } else { self.of_a_content().map(drop) }
    }

    /// Why nothing can be merged, where that is for what is in a content and not for this machine.
    ///
    /// # Errors
    /// Itself, where it is for anything else.
    fn of_a_content(self) -> Result<String, Error> {
        match self {
            Error::Version(
                error @ (VersionError::Corrupt(_)
                | VersionError::PageSize { .. }
                | VersionError::Schema { .. }
                | VersionError::TooLong),
            ) => Ok(error.to_string()),
            Error::Rows(error) if error.is_of_database() => Ok(error.to_string()),
            error => Err(error),
        }
    }
}

impl Fault for Error {
    fn refusal(&self) -> Refusal {
        match self {
            Error::Repository(error) => error.refusal(),
            Error::Pages(error) => error.refusal(),
            error if error.is_of_the_disk() => Refusal::TryLater,
            error if error.given_up() == Some(GivenUp::Room) => Refusal::Invalid,
            Error::Merge(merge::Error::TimeUp) => Refusal::TryLater,
            Error::Version(error) => error.refusal(),
            Error::Rejected(_) | Error::LeftToChoose(_) => Refusal::Conflict,
            Error::NoSuchRow(_) | Error::ChosenTwice(_) | Error::TooManyRows(_) | Error::SchemasDiffer => {
                Refusal::Invalid
            }
            Error::Rows(error) if error.is_damage() => Refusal::Integrity,
            Error::Rows(_) | Error::Merge(_) | Error::Audit(_) => Refusal::Failed,
        }
    }

    fn public_text(&self) -> String {
        match self {
            Error::Repository(error) => error.public_text(),
            Error::Pages(error) => error.public_text(),
            error if error.is_of_the_disk() => NO_ROOM_ON_DISK.to_owned(),
            error if error.given_up() == Some(GivenUp::Room) => {
                "what differs takes more temporary space than the server allows for it".to_owned()
            }
            Error::Merge(merge::Error::TimeUp) => {
                "merging took longer than it may: try again later".to_owned()
            }
            Error::Version(error) => error.public_text(),
            Error::Rejected(_)
            | Error::NoSuchRow(_)
            | Error::ChosenTwice(_)
            | Error::TooManyRows(_)
            | Error::SchemasDiffer
            | Error::LeftToChoose(_) => self.to_string(),
            Error::Audit(_) => "the server cannot write its audit log".to_owned(),
            Error::Rows(error) if error.is_damage() => {
                format!(
                    "the stored version is damaged ({error}): check the pushed file with PRAGMA integrity_check"
                )
            }
            // It is the same whoever compares them, and says nothing that is not in the versions.
            Error::Rows(error) if error.is_of_database() => {
                format!("these versions cannot be compared: {error}")
            }
            Error::Rows(_) | Error::Merge(_) => "the server could not compare the versions".to_owned(),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        let why = Why::from(error.refusal());
        if matches!(error, Error::Version(VersionError::Cancelled)) {
            tracing::debug!("whoever asked is gone");
        } else if matches!(why, Why::Failed | Why::Damaged | Why::TryLater) {
            tracing::error!(%error, "versions could not be compared or merged");
        }
        Refused::new(why, error.public_text())
    }
}

#[cfg(test)]
mod refused {
    use super::*;

    #[test]
    fn what_cannot_be_compared_for_what_is_in_it_says_so() {
        let damaged = Error::Rows(rows::Error::Schema("a table has no columns"));
        assert_eq!(damaged.refusal(), Refusal::Integrity);
        assert!(damaged.public_text().contains("damaged (the database's schema is damaged: a table has"));
        let many = Error::Rows(rows::Error::TooMany { what: "tables", most: 3 });
        assert_eq!(many.refusal(), Refusal::Failed);
        assert!(many.public_text().contains("more than 3 tables"));
        let disk = Error::Rows(rows::Error::Read(std::io::Error::other("the path of a file")));
        assert_eq!(disk.public_text(), "the server could not compare the versions");
    }
}
