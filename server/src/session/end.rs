//! How a session ends, as the close frame says it.

use std::borrow::Cow;

use sqlrsync_protocol::exchange::Refusal;

use crate::sessions::Signal;

/// Whose fault it is that a message was not taken; what follows is the limit.
const TOO_LONG: &str = "the client sent a message that is too long:";

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It did what it was for, or has told the peer why not.
    Done,
    /// The server stops.
    Stopping,
    /// The key was revoked.
    Revoked,
    /// The replica became private, and the right was that it was not.
    Private,
    /// The peer sent what it may not send.
    Invalid,
    /// The peer sent a message that is longer than this, in bytes.
    TooLong {
        /// The longest that is taken.
        max: usize,
    },
    /// The peer sent more messages than it could have a use for.
    TooMany,
    /// The peer stood still for too long.
    Idle,
    /// The peer was slower than the least rate for too long.
    Slow,
    /// The peer was so slow while others waited for their turn that it is theirs now.
    InTheWay,
    /// The server failed.
    Failed,
}

impl End {
    /// The close code (RFC 6455, section 7.4.1).
    pub const fn code(self) -> u16 {
        match self {
            End::Done => 1000,
            End::Stopping => 1001,
            End::Revoked | End::Private | End::Invalid | End::TooMany => 1008,
            End::Idle | End::Slow | End::InTheWay => 1008,
            End::TooLong { .. } => 1009,
            End::Failed => 1011,
        }
    }

    /// The reason, one line; no longer than the 123 bytes that a close frame has room for.
    pub fn reason(self) -> Cow<'static, str> {
        let reason = match self {
            End::TooLong { max } => return format!("{TOO_LONG} {max} bytes are the most here").into(),
            End::Done => "",
            End::Stopping => "server stopping, try again",
            End::Revoked => "the key was revoked",
            End::Private => "the replica became private: a key is needed",
            End::Invalid => "that message may not be sent here",
            End::TooMany => "too many messages",
            End::Idle => "nothing was heard for too long",
            End::Slow => "slower than the least rate that the server waits for: try again later",
            End::InTheWay => "too little came of this push while others waited to push: try again later",
            End::Failed => "the server failed",
        };
        reason.into()
    }

    /// What a transfer that ends so is refused as: whether it is worth another try.
    pub const fn refusal(self) -> Refusal {
        match self {
            End::Revoked | End::Private => Refusal::NotAllowed,
            End::Invalid | End::TooLong { .. } | End::TooMany => Refusal::Invalid,
            End::Failed => Refusal::Failed,
            End::Done | End::Stopping | End::Idle | End::Slow | End::InTheWay => Refusal::TryLater,
        }
    }

    /// What a signal means for a session that it ends.
    pub const fn of(signal: Signal) -> End {
        match signal {
            Signal::Revoked => End::Revoked,
            Signal::Private => End::Private,
            Signal::Go | Signal::Stopping | Signal::Stop => End::Stopping,
        }
    }
}
