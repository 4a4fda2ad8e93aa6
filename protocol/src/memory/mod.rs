//! Databases in memory, as both sides of an exchange: for tests, fuzzing and examples. They do what
//! the traits say in the plainest way, so that what real sides do can be compared with them.

mod content;
mod origin;
mod replica;
mod wire;

pub use content::Content;
pub use origin::MemoryOrigin;
pub use replica::MemoryReplica;
pub use wire::{MemoryWire, WireCut, wires};

use crate::exchange::{Fault, Refusal};

/// Why a database in memory cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The pages of this side have another size.
    #[error("the page size differs")]
    PageSize,
    /// The content is not what the origin's proof says.
    #[error("the root is not what the origin claims")]
    Root,
    /// A block that does not decode.
    #[error("a block is damaged")]
    Block,
    /// The replica's own content would be lost.
    #[error("the replica was changed locally")]
    Changed,
    /// A call out of order.
    #[error("a call out of order")]
    Order,
}

impl Fault for MemoryError {
    fn refusal(&self) -> Refusal {
        match self {
            MemoryError::Root | MemoryError::Block => Refusal::Integrity,
            MemoryError::PageSize | MemoryError::Changed | MemoryError::Order => Refusal::Failed,
        }
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}
