//! What is tested from outside of the crate, and where:
//!
//! - `hash`: the hash of versions 1 and 2 against the recorded ones.
//! - `recorded`: each side against the recorded other side of sqlite3_rsync, whatever way it is cut.
//! - `exchange`: two sides of ours, over wires of every size, in every pair of versions.
//! - `version3`: the grounds, resuming and proofs of version 3.
//! - `hostile`: peers that send what they may not.
//! - `session`: `docs/protocol-v3.md` against the code: its session, its hashes, its table.
//!
//! `recordings/` holds the recorded sessions and hashes; `support` reads them and plays a script.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod exchange;
mod hash;
mod hostile;
mod recorded;
mod session;
mod support;
mod version3;
