//! What can go wrong in a repository, and whose fault it is: the peer's, the stored data's, the disk's
//! or the user's. The reply to the peer and the exit code follow from the type.

use sqlrsync_protocol::block::BlockError;
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{ConflictNumber, PageNumber, VersionNumber};

/// Why a repository could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store failed.
    #[error("the store failed on {object}: {source}")]
    Store {
        /// Name of the object.
        object: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// No room is left where the repository, or its scratch files, are kept.
    #[error("no room is left to write {object}: free some space and try again")]
    DiskFull {
        /// Name of the object.
        object: String,
    },
    /// A scratch file failed.
    #[error("a scratch file of the repository failed: {0}")]
    Scratch(#[source] std::io::Error),
    /// A stored object is missing or is not what it should be. `check` says how far it goes.
    #[error("{object} is damaged: {damage}. Run `check` to see what else is, and restore from a copy")]
    Damaged {
        /// Name of the object.
        object: String,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// The peer sent what it may not send.
    #[error("the peer sent {0}")]
    Peer(#[source] PeerFault),
    /// What arrived does not hash to what the peer said it would.
    #[error("what arrived hashes to {found} and not to {claimed}: the push is refused, push again")]
    WrongRoot {
        /// What the peer said.
        claimed: Root,
        /// What its pages hash to.
        found: Root,
    },
    /// The database is larger than this replica may be.
    #[error("a database of {bytes} bytes is more than the {bytes_max} that are allowed here")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A version that is not there.
    #[error("version {0} does not exist")]
    NoVersion(VersionNumber),
    /// A version whose pages were let go of.
    #[error("version {0} has expired: its pages were removed by the retention policy")]
    Expired(VersionNumber),
    /// A text that goes with a push is longer than its maximum.
    #[error("{what} is longer than {bytes_max} bytes")]
    TextTooLong {
        /// Which.
        what: &'static str,
        /// The maximum.
        bytes_max: usize,
    },
    /// Others committed again and again while this push tried to.
    #[error("{0} other pushes were committed while this one tried to: push again")]
    Contended(u32),
    /// The push began too long ago.
    #[error(
        "the push took more than {0} hours and comes too late: push again, it goes on from what has arrived"
    )]
    TookTooLong(i64),
    /// More pushes wait to be merged or settled than a replica may have.
    #[error("{0} pushes are kept for this database already: settle some of its conflicts, then push again")]
    TooManyCandidates(usize),
    /// The candidate that a push is made from is about to be removed.
    #[error("what this push is made from is about to be removed: push again, without it")]
    BaseRemoved,
    /// What was to be merged waits in a conflict, by way of another process.
    #[error("conflict {0} was opened for this push meanwhile: it waits to be settled")]
    InConflict(ConflictNumber),
    /// What was to be put into a conflict was merged, by way of another process.
    #[error("this push was merged meanwhile, as version {0}: push again to be told so")]
    MergedMeanwhile(VersionNumber),
    /// What was to be settled is settled.
    #[error("conflict {conflict} is over: it ended with version {version}")]
    ConflictIsOver {
        /// The conflict.
        conflict: ConflictNumber,
        /// The version that ended it.
        version: VersionNumber,
    },
    /// The pages of a merge could not be had from who made it.
    #[error("the pages of the merge could not be read: {0}")]
    Pages(ContentError),
    /// Who pushes may not any more.
    #[error("the right to push ended before the version was made: nothing was committed")]
    Withdrawn,
    /// A call that does not fit the state of the exchange: a bug of the caller.
    #[error("{0}: a call out of order, which is a bug of this program")]
    OutOfOrder(&'static str),
}

/// What is wrong with a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Damage {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is longer than any such object may be.
    #[error("it is larger than the maximum")]
    TooLarge,
    /// It ends too early.
    #[error("it is cut short")]
    Truncated,
    /// It begins with something else, or is of a format that is not known.
    #[error("it is no such object, or of an unknown format version")]
    Format,
    /// A checksum is wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is another object than its name says.
    #[error("it belongs under another name")]
    Misplaced,
    /// Its parts contradict each other.
    #[error("its parts do not fit together")]
    Structure,
    /// It has a page that hashes to something else than the page tree says.
    #[error("page {0} is not what the page tree says")]
    Page(PageNumber),
    /// It does not have a page that the page tree says it has.
    #[error("page {0} is missing in it")]
    PageMissing(PageNumber),
    /// It has a node that hashes to something else than its parent says.
    #[error("a node of the page tree is not what its parent says")]
    Node,
    /// It does not have a node that its parent says it has.
    #[error("a node of the page tree is missing in it")]
    NodeMissing,
    /// The page tree's top does not hash to the version's root.
    #[error("its root is not that of its page tree")]
    Root,
    /// A number below the last has no object.
    #[error("it is missing, and later ones exist")]
    Gap,
    /// What it refers to is not there.
    #[error("what it refers to is missing")]
    Incomplete,
    /// The name is none that a repository gives.
    #[error("no repository gives an object this name")]
    ForeignName,
}

/// What a peer sent that it may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// The page that holds the byte at 2^30.
    #[error("page {0}, which holds the byte at 2^30 and is never sent")]
    LockPage(PageNumber),
    /// Blocks that are not ascending.
    #[error("a block with page {0} after later pages")]
    Order(PageNumber),
    /// A page of another length than was agreed on.
    #[error("page {0} in a wrong length")]
    PageLength(PageNumber),
    /// Page 1 with fields that travel beside it.
    #[error("a page 1 that is not canonical")]
    NotCanonical,
    /// A page past the page count.
    #[error("page {0}, which is past the end of its database")]
    PastEnd(PageNumber),
    /// A page is neither in the base nor among those sent.
    #[error("a database without its page {0}")]
    Missing(PageNumber),
    /// More than a push may consist of.
    #[error("too many pages more than once, or out of order")]
    TooScattered,
    /// A staged block that was not offered.
    #[error("the number of a staged block that is not there")]
    NotStaged,
    /// A block that does not decode.
    #[error("a block that is none: {0}")]
    Block(#[source] BlockError),
}

impl Error {
    pub(crate) fn damaged(object: impl Into<String>, damage: Damage) -> Error {
        Error::Damaged { object: object.into(), damage }
    }

    pub(crate) fn store(object: impl Into<String>, source: object_store::Error) -> Error {
        let object = object.into();
        if is_disk_full(&source) { Error::DiskFull { object } } else { Error::Store { object, source } }
    }

    pub(crate) fn scratch(error: std::io::Error) -> Error {
        if is_full(&error) {
            Error::DiskFull { object: String::from("a scratch file") }
        } else {
            Error::Scratch(error)
        }
    }

    /// Whether a stored object is damaged or missing, as opposed to a store that could not be asked.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Damaged { .. })
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The store wraps the system's error several times over.
fn is_disk_full(error: &object_store::Error) -> bool {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if error.downcast_ref::<std::io::Error>().is_some_and(is_full) {
            return true;
        }
        at = error.source();
    }
    false
}

impl Fault for Error {
    fn refusal(&self) -> Refusal {
        match self {
            Error::Peer(_) | Error::TooLarge { .. } | Error::TextTooLong { .. } => Refusal::Invalid,
            Error::WrongRoot { .. } | Error::Damaged { .. } => Refusal::Integrity,
            Error::NoVersion(_) | Error::Expired(_) => Refusal::NotFound,
            Error::Withdrawn => Refusal::NotAllowed,
            Error::InConflict(_) | Error::ConflictIsOver { .. } => Refusal::Conflict,
            Error::Pages(error) => error.refusal(),
            Error::Contended(_)
            | Error::DiskFull { .. }
            | Error::TookTooLong(_)
            | Error::BaseRemoved
            | Error::MergedMeanwhile(_)
            | Error::TooManyCandidates(_) => Refusal::TryLater,
            Error::Store { .. } | Error::Scratch(_) | Error::OutOfOrder(_) => Refusal::Failed,
        }
    }

    fn public_text(&self) -> String {
        match self {
            Error::Store { .. } | Error::Scratch(_) => "the repository's store failed".into(),
            Error::DiskFull { .. } => "the repository has no room left".into(),
            Error::Damaged { .. } => "stored data is damaged; the operator has to run `check`".into(),
            Error::Pages(error) => error.public_text(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_however_deep_it_is_wrapped() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let wrap = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "test",
            source,
        };
        for error in [wrap(full().into()), wrap(Box::new(wrap(full().into())))] {
            let error = Error::store("object", error);
            assert!(matches!(error, Error::DiskFull { .. }), "{error}");
            assert_eq!(error.refusal(), Refusal::TryLater);
        }
        assert!(matches!(Error::scratch(full()), Error::DiskFull { .. }));
        let other = Error::store("object", wrap(std::io::Error::from_raw_os_error(5).into()));
        assert_eq!((other.refusal(), other.public_text().contains("object")), (Refusal::Failed, false));
    }
}
