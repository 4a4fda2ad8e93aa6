//! All that touches a SQLite file: a snapshot of a live one, applying pages to a live one, page hashes
//! and fingerprints that tell what changed; and a stored version as a database.
//!
//! What always holds here:
//! - Nothing but SQLite opens a database file. Closing a descriptor of it anywhere in the process would
//!   drop the POSIX locks that SQLite holds on it. By hand there is `stat`, and reading and syncing the `-wal`.
//! - A snapshot is one read transaction. It ends as soon as what is to be sent is spooled, and no
//!   connection stays open between two exchanges.
//! - A write transaction begins when all that it writes has arrived and is proved. A file that does not
//!   exist is written beside its place and linked into it. There is no third way to write one.
//! - Memory does not grow with the database.
//!
//! `docs/live-files.md` explains the rules, each with what breaks without it.

mod agreed;
mod apply;
pub mod btree;
mod content_now;
mod delta;
mod durable;
mod error;
mod file_replica;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod image;
mod legacy;
mod library;
mod live_origin;
pub mod merge;
mod new_file;
mod page_hashes;
mod pages;
mod parallel;
#[cfg(test)]
mod random;
mod receive;
mod replace;
pub mod rows;
mod scan;
mod sending;
mod snapshot;
mod spool;
mod staged;
mod temporary;
pub mod version;
mod wal;
mod wal_file;

pub use agreed::Agreed;
pub use content_now::{Look, NowOptions, root_now};
pub use error::Error;
pub use file_replica::{Beside, FileReplica, FileReplicaOptions, Overwrite};
pub use fingerprint::{Fingerprint, SHOWS_AFTER};
pub use library::check_library;
pub use live_origin::{LiveOrigin, LiveOriginOptions};
pub use page_hashes::PageHashes;
pub use snapshot::is_wal;
pub use temporary::{TemporaryError, keep_temporary_files_in};
