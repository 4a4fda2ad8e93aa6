//! Why a peer does not get what it asks for, in words that it may read.
//!
//! A text here goes to strangers: it names nothing that the peer did not say itself, no path of this
//! machine and no key.

use sqlrsync_protocol::exchange::{Fault, Refusal};

/// The kind of a refusal; status and exit code follow from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The request makes no sense.
    BadRequest,
    /// It needs a key and has none.
    NoKey,
    /// Its key is no key, is not known or was revoked.
    BadKey,
    /// Its key does not allow it.
    NotAllowed,
    /// There is no such replica or version.
    NotFound,
    /// Something waits to be settled, or is not what it was when somebody looked.
    Conflict,
    /// This address has too many connections.
    TooMany,
    /// A limit of the server, or it is stopping.
    TryLater,
    /// What is stored is not what it should be.
    Damaged,
    /// The server failed.
    Failed,
}

impl Why {
    /// As the wire and the exit codes have it.
    pub const fn refusal(self) -> Refusal {
        match self {
            Why::BadRequest => Refusal::Invalid,
            Why::NoKey | Why::BadKey | Why::NotAllowed => Refusal::NotAllowed,
            Why::NotFound => Refusal::NotFound,
            Why::Conflict => Refusal::Conflict,
            Why::TooMany | Why::TryLater => Refusal::TryLater,
            Why::Damaged => Refusal::Integrity,
            Why::Failed => Refusal::Failed,
        }
    }
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Why {
        match refusal {
            Refusal::Invalid => Why::BadRequest,
            Refusal::Conflict => Why::Conflict,
            Refusal::NotAllowed => Why::NotAllowed,
            Refusal::NotFound => Why::NotFound,
            Refusal::TryLater => Why::TryLater,
            Refusal::Integrity => Why::Damaged,
            Refusal::Failed | Refusal::NotWanted => Why::Failed,
        }
    }
}

/// A refusal with the line that the peer reads.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// Its kind.
    pub why: Why,
    /// One line.
    pub text: String,
}

impl Refused {
    /// A refusal of this kind; `text` is one line.
    pub fn new(why: Why, text: impl Into<String>) -> Refused {
        Refused { why, text: text.into() }
    }

    /// This server failed; the details are in its log and not for the peer.
    pub fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Refused {
        tracing::error!(error, "{what} failed");
        Refused::new(Why::Failed, "the server failed; its log says why")
    }
}

impl Fault for Refused {
    fn refusal(&self) -> Refusal {
        self.why.refusal()
    }

    fn public_text(&self) -> String {
        self.text.clone()
    }
}
