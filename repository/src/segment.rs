//! Segments: the objects that hold pages and tree nodes. Written once, in one stream; read in parts.
//!
//! What always holds:
//! - A page is in one block of a segment at most, and its blocks are in page order.
//! - Every byte is covered by a checksum, and a chain of them leads from the footer to each part, so a
//!   part taken from elsewhere is noticed as well as a changed one.
//! - Whatever is read is verified before it is used; what a footer or an index claims meets a maximum
//!   before memory is allocated.
//!
//! The layout is in `docs/repository-format.md` and in [`mod@format`].

pub(crate) mod format;
pub(crate) mod node;
mod reader;
mod writer;

pub(crate) use reader::{BlockReader, IndexCache, Segments, block_damage};
pub(crate) use writer::{SegmentWriter, Written};
