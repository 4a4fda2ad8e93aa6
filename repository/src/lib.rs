//! Versions of databases in an object store: a local folder, memory, or a bucket.
//!
//! A version is a few immutable objects: segments with pages and page tree nodes, and a manifest that
//! refers to them. Creating the manifest, if it does not exist, is the commit; nothing else is.
//!
//! - [`Repository`] opens a store, checks and sweeps it. [`Replica`] is one database's versions.
//! - [`VersionOrigin`] gives a stored version's pages to a conversation, [`PushReplica`] takes those of
//!   a push: the two traits of `sqlrsync_protocol::exchange`.
//!
//! The layout of all objects is in `docs/repository-format.md`.
//!
//! All calls block on a tokio runtime with several threads, and must not be made from its async threads.

mod cache;
mod candidate;
mod check;
mod client;
mod conflict;
mod content;
mod envelope;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod groups20;
mod hashes20;
mod id;
mod manifest;
mod numbers;
mod origin;
mod pages;
mod parents;
mod push;
mod rebuilt;
mod replica;
mod repository;
mod sealed;
mod segment;
mod staged;
mod standing;
mod store;
mod sweep;
mod tree;

pub use candidate::{AddsTo, CANDIDATE_TIME, CANDIDATES_MAX, Candidate, KeepOptions, MergeBase};
pub use check::{CheckProgress, CheckReport, Problem};
pub use client::{ClientKey, ClientRecord, PULLED_MAX};
pub use conflict::{
    CHOICES_BYTES_MAX, CONFLICT_REASONS_MAX, CONFLICT_ROWS_BYTES_MAX, CONFLICT_STEPS_MAX,
    CONFLICT_TABLES_MAX, CONFLICT_TEXT_BYTES_MAX, Conflict, ConflictPage, Overlap, SETTLED_TIME, Step,
    StepKind, TableRows,
};
#[doc(hidden)]
pub use content::BlocksTaken;
pub use content::VersionContent;
pub use error::{Damage, Error, PeerFault};
pub use id::{NotReplicaId, ReplicaId};
pub use manifest::{EndOfConflict, MANIFEST_BYTES_MAX, MESSAGE_BYTES_MAX, Manifest, MergeOf, TEXT_BYTES_MAX};
pub use origin::VersionOrigin;
pub use parents::PARENTS_BYTES_MAX;
pub use push::{Described, MergePages, MergedPages, Permission, PushOptions, PushReplica, Received};
pub use replica::{About, Replica, VERSIONS_SEARCHED_MAX};
pub use repository::Repository;
pub use standing::Standing;
pub use sweep::{SweepOptions, SweepReport};
