//! The parent map as bytes, to be kept beside a version and thrown away whenever somebody likes.
//!
//! ```text
//! magic        16  "sqlrsync parents" (ASCII)
//! format        4  1
//! page count    4
//! for each chunk of 16,384 pages, in order:
//!   length      4  of its encoded parents; 0: nothing is known of its pages
//!   check      16  the first bytes of the BLAKE3 hash of its encoded parents
//! check        16  the first bytes of the BLAKE3 hash of all before
//! encoded parents of each chunk, one after the other
//! ```
//!
//! Numbers are little-endian. The parents of a chunk are one token for each page, compressed with zstd. A
//! token is an unsigned LEB128 number:
//!
//! ```text
//! 0     the same parent as the last page that was not of token 1 (0 before the first)
//! 1     the page before: a chain that lies in a row
//! 2+n   n is the zigzag of how much further the parent is than the last one not of token 1
//! ```
//!
//! The leaves of a table that was filled in order so are runs of zeros, and a blob's chain a run of ones.
//!
//! Whoever reads it believes nothing: what does not decode is unknown, and what decodes is a hint.

use std::ops::Range;
use std::sync::Arc;

use super::{CHUNK_PAGES, Chunk, ParentMap};

const MAGIC: &[u8; 16] = b"sqlrsync parents";
const FORMAT: u32 = 1;
const CHECK_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + 8;
const ENTRY_LEN: usize = 4 + CHECK_LEN;

/// A token takes no more than this: 2 + a zigzag of 33 bits.
const TOKEN_LEN_MAX: usize = 5;
const TOKENS_LEN_MAX: usize = CHUNK_PAGES * TOKEN_LEN_MAX;

/// The level is not worth more: the next one makes a map of random leaves 1 % smaller in twice the time.
const LEVEL: i32 = 1;

/// An encoded chunk in the bytes of the whole.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    blob: Arc<[u8]>,
    range: Range<usize>,
    check: [u8; CHECK_LEN],
}

impl Piece {
    fn bytes(&self) -> Option<&[u8]> {
        let bytes = self.blob.get(self.range.clone())?;
        (check_of(bytes) == self.check).then_some(bytes)
    }

    /// The parents of the chunk at `index`; `None` where the bytes are damaged.
    pub(super) fn decode(&self, index: usize) -> Option<Vec<u32>> {
        let tokens = zstd::bulk::decompress(self.bytes()?, TOKENS_LEN_MAX).ok()?;
        parents_of(&tokens, first_page(index))
    }
}

impl ParentMap {
    /// The map as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let pieces: Vec<Vec<u8>> =
            self.chunks.iter().enumerate().map(|(index, chunk)| encode_chunk(index, chunk)).collect();
        let mut out = Vec::from(MAGIC);
        out.extend(FORMAT.to_le_bytes());
        out.extend(self.page_count.to_le_bytes());
        for piece in &pieces {
            // At most TOKENS_LEN_MAX and what zstd adds.
            out.extend((piece.len() as u32).to_le_bytes());
            out.extend(check_of(piece));
        }
        out.extend(check_of(&out));
        pieces.iter().for_each(|piece| out.extend(piece));
        out
    }

    /// A map from its bytes; `None` where they are none of this format. A part of it that is damaged is
    /// found when it is needed, and counts as unknown.
    pub fn decode(blob: &[u8]) -> Option<ParentMap> {
        let header = blob.get(..HEADER_LEN)?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic != MAGIC || u32_at(numbers, 0)? != FORMAT {
            return None;
        }
        let page_count = u32_at(numbers, 4)?;
        let entries = (page_count as usize).div_ceil(CHUNK_PAGES);
        let index_end = HEADER_LEN + entries * ENTRY_LEN;
        let check = blob.get(index_end..index_end + CHECK_LEN)?;
        if check_of(&blob[..index_end]) != check {
            return None;
        }
        let shared: Arc<[u8]> = blob.into();
        let mut at = index_end + CHECK_LEN;
        let mut chunks = Vec::with_capacity(entries);
        for entry in blob[HEADER_LEN..index_end].chunks_exact(ENTRY_LEN) {
            let len = u32_at(entry, 0)? as usize;
            let range = at..at.checked_add(len)?;
            at = range.end;
            let check = entry[4..].try_into().ok()?;
            chunks.push(match len {
                0 => Chunk::Unknown,
                _ => Chunk::Encoded(Piece { blob: Arc::clone(&shared), range, check }),
            });
        }
        Some(ParentMap { page_count, chunks })
    }
}

fn encode_chunk(index: usize, chunk: &Chunk) -> Vec<u8> {
    match chunk {
        Chunk::Unknown => Vec::new(),
        // Damaged ones become unknown.
        Chunk::Encoded(piece) => piece.bytes().unwrap_or_default().to_vec(),
        Chunk::Known(parents) => {
            zstd::bulk::compress(&tokens_of(parents, first_page(index)), LEVEL).unwrap_or_default()
        }
    }
}

/// The number of the first page of a chunk.
const fn first_page(index: usize) -> u32 {
    (index * CHUNK_PAGES) as u32 + 1
}

/// For each page of a chunk the number of the page before it.
fn pages_before(first: u32) -> impl Iterator<Item = u32> {
    // The last chunk of all ends with a page that no number is left for.
    (0..CHUNK_PAGES as u32).map(move |at| first.wrapping_add(at) - 1)
}

fn tokens_of(parents: &[u32], first: u32) -> Vec<u8> {
    let mut tokens = Vec::with_capacity(parents.len());
    let mut last = 0u32;
    for (before, &parent) in pages_before(first).zip(parents) {
        let token = if parent == last {
            0
        } else if parent == before {
            1
        } else {
            let further = i64::from(parent) - i64::from(last);
            2 + (further << 1 ^ further >> 63) as u64
        };
        if token != 1 {
            last = parent;
        }
        put_leb128(token, &mut tokens);
    }
    tokens
}

fn parents_of(mut tokens: &[u8], first: u32) -> Option<Vec<u32>> {
    let mut parents = Vec::with_capacity(CHUNK_PAGES);
    let mut last = 0u32;
    for before in pages_before(first) {
        let parent = match take_leb128(&mut tokens)? {
            0 => last,
            1 => before,
            token => {
                let zigzag = token - 2;
                let further = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                u32::try_from(i64::from(last).checked_add(further)?).ok()?
            }
        };
        last = if parent == before { last } else { parent };
        parents.push(parent);
    }
    tokens.is_empty().then_some(parents)
}

fn put_leb128(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..TOKEN_LEN_MAX {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Makes the checksums right, as a hostile author would, so that what is behind them is tried as well.
pub(crate) fn seal(blob: &mut [u8]) {
    let Some(page_count) = blob.get(..HEADER_LEN).and_then(|header| u32_at(header, MAGIC.len() + 4)) else {
        return;
    };
    let index_end = HEADER_LEN + (page_count as usize).div_ceil(CHUNK_PAGES) * ENTRY_LEN;
    let Some((index, pieces)) = blob.split_at_mut_checked(index_end) else { return };
    let Some((check, mut pieces)) = pieces.split_at_mut_checked(CHECK_LEN) else { return };
    for entry in index[HEADER_LEN..].chunks_exact_mut(ENTRY_LEN) {
        let len = u32_at(entry, 0).map_or(0, |len| len as usize);
        let Some((piece, rest)) = std::mem::take(&mut pieces).split_at_mut_checked(len) else { break };
        entry[4..].copy_from_slice(&check_of(piece));
        pieces = rest;
    }
    check.copy_from_slice(&check_of(index));
}

fn check_of(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    check
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
