//! The conversations of the page stream, versions 1 to 3, as state machines without I/O, and the one
//! loop that joins a conversation with pages and a wire.
//!
//! # How a side is driven
//!
//! ```text
//! loop {
//!     match side.poll()? {
//!         Send(bytes)   → put them on the wire
//!         Need(request) → do it, then side.answer(..)
//!         NeedInput     → side.handle_input(bytes) or side.handle_closed()
//!         Event(event)  → as you like
//!         Done          → over
//!     }
//! }
//! ```
//!
//! [`run_origin`] and [`run_replica`] are that loop. After an error the side is not polled again;
//! [`Conversation::farewell`] has the bytes to tell the peer with.
//!
//! # Why the two sides never wait for each other to read
//!
//! A deadlock needs both sides blocked in sending. Whatever the wire holds, that cannot happen,
//! because the conversation goes in turns: at each moment one side only may send, and the other is
//! receiving or working.
//!
//! | turn | who sends | it ends with |
//! |---|---|---|
//! | opening | origin | ORIGIN_BEGIN |
//! | hashes (1, 2) | replica | REPLICA_READY |
//! | details (2) | origin | ORIGIN_READY |
//! | pages (1, 2) | origin | ORIGIN_END, the last message there is |
//! | what the replica has (3) | replica | the last REPLICA_STAGED that REPLICA_OPEN counts |
//! | nodes wanted (3) | origin | ORIGIN_NODES, one message |
//! | nodes (3) | replica | as many REPLICA_NODE as were asked for |
//! | a base proposed (3) | origin | ORIGIN_BASE |
//! | the answer (3) | replica | REPLICA_BASE |
//! | batches (3) | origin | ORIGIN_PROOF |
//! | the end (3) | replica | REPLICA_DONE |
//!
//! An origin of version 2 does work for each hash while the replica sends on, but sends nothing
//! before REPLICA_READY; a replica asked for details reads them all (bounded by its page count) before
//! it hashes. The one message out of turn is an error: its sender stops reading and closes the wire,
//! which ends the other's blocked send; [`run_origin`] and [`run_replica`] then look whether an error
//! lies in what was received, and report that.
//!
//! # Memory
//!
//! A side holds a run of output (64 KiB and one message), one message's beginning, two bits at most for each
//! page that differs, and what [`crate::message::limits`] bounds: details, staged blocks, open nodes.

mod io;
mod origin;
mod replica;
mod run;
mod violation;

pub use io::{Conversation, Event, Step, Stop};
pub use origin::{Facts, Origin, OriginAnswer, OriginRequest};
pub use replica::{Replica, ReplicaAnswer, ReplicaRequest};
pub use run::{ExchangeError, Observer, Quiet, Summary, Wire, run_origin, run_replica};
pub use violation::Violation;

use crate::message::VERSION_MAX;

/// Whether versions 1 and 2 are spoken to the letter of sqlite3_rsync.
///
/// sqlite3_rsync loses a page where the origin has more pages than a replica of more than 100: the
/// replica's last group names one page more than there is, so the origin takes that page for compared,
/// while the finer hashes leave it out. It is never sent, and the replica ends with a page of zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fidelity {
    /// No page is lost, whatever the peer does. The bytes are those of sqlite3_rsync but where that
    /// would lose a page: a replica names one page less, an origin sends the page.
    #[default]
    Whole,
    /// The bytes of sqlite3_rsync, with its fault. For comparing with recordings.
    AsRecorded,
}

/// How an origin is to speak.
#[derive(Clone, Debug)]
pub struct OriginOptions {
    /// The highest version to speak, 1 to [`VERSION_MAX`].
    pub version_max: u8,
    /// Versions 1 and 2 end without an answer. True: wait until the replica has closed the wire, and
    /// hear its error if it has one (pipes, ssh). False: end after ORIGIN_END, and the caller closes
    /// (the public client waits for that).
    pub await_close: bool,
    /// See [`Fidelity`].
    pub fidelity: Fidelity,
    /// The other side knows a refusal in whatever version, and before one is agreed on: it said that it is our
    /// own program.
    pub knows_refusals: bool,
}

impl Default for OriginOptions {
    fn default() -> Self {
        OriginOptions {
            version_max: VERSION_MAX,
            await_close: true,
            fidelity: Fidelity::Whole,
            knows_refusals: false,
        }
    }
}

/// How a replica is to speak.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// The highest version to speak, 1 to [`VERSION_MAX`].
    pub version_max: u8,
    /// See [`Fidelity`].
    pub fidelity: Fidelity,
    /// See [`OriginOptions::knows_refusals`].
    pub knows_refusals: bool,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        ReplicaOptions { version_max: VERSION_MAX, fidelity: Fidelity::Whole, knows_refusals: false }
    }
}
