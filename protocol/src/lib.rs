//! Frames and conversations of the SQLRsync page stream.
//!
//! No I/O, no SQLite, no clock and no randomness: input goes in, output is asked for, and pages are
//! asked for and handed over as data. So every conversation can be driven from a test, a fuzzer or a
//! recording.

pub mod block;
pub mod canonical;
pub mod content;
pub mod control;
pub mod conversation;
pub mod cutter;
pub mod duration;
pub mod exchange;
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod key;
mod lanes;
pub mod memory;
pub mod message;
pub mod page;
pub mod possible_base;
pub mod remote;
pub mod sponge;
pub mod subscription;
pub mod text;
pub mod tree;
