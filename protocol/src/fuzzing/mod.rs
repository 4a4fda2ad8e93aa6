//! Bodies of the fuzz targets: ordinary functions that take any bytes, feed them to a reader and check
//! what must hold of the outcome. They return where all is well and panic where it is not.
//!
//! The unit tests run each over its corpus in `fuzz/corpus/`; `docs/fuzzing.md` says how to fuzz for
//! longer. Not part of the public interface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a target says that it found something"
)]

mod conversation;
mod corpus;
mod database;
mod edges;
mod input;
mod pairing;

pub use conversation::{origin_conversation, origin_stream, replica_conversation, replica_stream};
pub use corpus::{corpus_of, run_over_corpora};
pub use edges::{block, control, cutter, duration, key, remote, subscription, text};
pub use pairing::exchange;

/// A fuzz target: the name of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("block", block),
    ("control", control),
    ("cutter", cutter),
    ("duration", duration),
    ("exchange", exchange),
    ("key", key),
    ("origin_conversation", origin_conversation),
    ("origin_stream", origin_stream),
    ("remote", remote),
    ("replica_conversation", replica_conversation),
    ("replica_stream", replica_stream),
    ("subscription", subscription),
    ("text", text),
];

/// Divides the input: each piece has its length in the byte before it; the last ends with the input.
/// Lengths from 0xf0 stand for ones around the limits of a binary message.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (&len, after) = rest.split_first()?;
        let len = match len {
            0xf0..=0xff => 4090 + usize::from(len - 0xf0),
            len => usize::from(len),
        };
        let (piece, after) = after.split_at(len.min(after.len()));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
