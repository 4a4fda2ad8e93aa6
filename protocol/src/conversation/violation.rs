//! What a peer can do wrong, once its messages are messages.

use crate::block::BlockError;
use crate::exchange::Refusal;
use crate::message::MessageError;
use crate::page::{PageCount, PageNumber, PageSize};
use crate::tree::NodeId;

/// A peer that does not keep to the protocol. Its text is also what the peer is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message that is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message at a time when it may not come.
    #[error("{message} came {at}")]
    OutOfOrder {
        /// The message.
        message: &'static str,
        /// What the conversation was at.
        at: &'static str,
    },
    /// The two sides have no version in common, or one side negotiates without end.
    #[error("protocol version {theirs} was named; this side speaks {ours} and lower")]
    Version {
        /// What the peer named.
        theirs: u8,
        /// The highest that this side speaks, or offered.
        ours: u8,
    },
    /// Versions 1 and 2 cannot change the page size of a replica (the words are sqlite3_rsync's).
    #[error("page size mismatch; origin is {origin} bytes and replica is {replica} bytes")]
    PageSize {
        /// The origin's.
        origin: PageSize,
        /// The replica's.
        replica: PageSize,
    },
    /// A page past the page count.
    #[error("page {page} was sent for a database of {count} pages")]
    PastEnd {
        /// The page.
        page: PageNumber,
        /// The page count.
        count: PageCount,
    },
    /// A page that was sent before.
    #[error("page {0} was sent twice, or out of order")]
    Repeated(PageNumber),
    /// The page that holds the byte at 2^30.
    #[error("page {0} was sent, which SQLite keeps for locks")]
    LockPage(PageNumber),
    /// A page that the replica does not have was not sent.
    #[error("page {0} was never sent (a fault of sqlite3_rsync where a database grew); start again")]
    Missing(PageNumber),
    /// A group of hashes or a range of details that reaches past what there is.
    #[error("hashes were asked for from page {0}, which is past the end")]
    DetailPastEnd(PageNumber),
    /// More work than any database of this size needs.
    #[error("{0} without end")]
    TooMuch(&'static str),
    /// A node that the tree does not have, or not the one that was asked for.
    #[error("node {} of level {} of the page tree is not there", .0.index, .0.level)]
    Node(NodeId),
    /// A node with another number of children than its tree has.
    #[error("node {} of level {} of the page tree has a wrong number of children", .0.index, .0.level)]
    Children(NodeId),
    /// More staged blocks than were announced, or than there may be.
    #[error("more staged blocks than there may be")]
    Staged,
    /// A staged block that the replica did not name.
    #[error("staged block {0} was never named")]
    Reused(u32),
    /// A ground that does not fit what the replica said it has.
    #[error("the base named is not what the replica has")]
    Ground,
    /// This side's own pages or caller did not keep to their part. Not the peer's fault.
    #[error("internal error: {0}")]
    Misused(&'static str),
}

impl Violation {
    /// What kind of refusal the peer is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Violation::Misused(_) => Refusal::Failed,
            Violation::Message(MessageError::Block(BlockError::Checksum)) => Refusal::Integrity,
            _ => Refusal::Invalid,
        }
    }
}
