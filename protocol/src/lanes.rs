//! BLAKE3 of many pages at once.
//!
//! BLAKE3 cuts its input into chunks of 1 KiB and hashes as many of them side by side as the processor has
//! lanes: sixteen with AVX-512, eight with AVX2. A page of 4 KiB has four chunks, so that a page hashed
//! alone leaves most lanes empty. Here the lanes are filled with the same chunk of several pages.
//!
//! `blake3` offers that only through a module that it calls unstable. The reason for using it all the same,
//! and what keeps that safe, is in `docs/adr/0045-many-pages-in-one-hash.md`.

use blake3::IncrementCounter;
use blake3::platform::Platform;

use crate::hash::PageHash;
use crate::page::PageSize;

/// Pages that are hashed side by side: as many as there are lanes in the widest processor.
const LANES: usize = 16;

/// Pages of so many chunks fill the lanes alone.
const CHUNKS_MAX: usize = 8;

const CHUNK_LEN: usize = blake3::CHUNK_LEN;
const CV_LEN: usize = blake3::OUT_LEN;

/// Length of the smallest page: one chunk that is not full.
const HALF_CHUNK_LEN: usize = CHUNK_LEN / 2;

// What follows is from the specification of BLAKE3, section 2.1 and table 3.

const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// Chaining values of one chunk, or of one node of the hash's tree, of each page.
type Values = [[u8; CV_LEN]; LANES];

/// The hash of each page of `pages`.
pub(crate) fn hash_each(pages: &[u8], size: PageSize) -> Vec<PageHash> {
    let page_len = size.bytes();
    if page_len > CHUNKS_MAX * CHUNK_LEN {
        return pages.chunks_exact(page_len).map(PageHash::of).collect();
    }
    let platform = Platform::detect();
    let mut hashes = Vec::with_capacity(pages.len() / page_len);
    for some in pages.chunks(LANES * page_len) {
        let count = some.len() / page_len;
        let values = hash_lanes(platform, some, page_len);
        hashes.extend(values[..count].iter().map(|value| PageHash(*value)));
    }
    hashes
}

/// The hashes of up to [`LANES`] pages; what is behind them is of no meaning.
fn hash_lanes(platform: Platform, pages: &[u8], page_len: usize) -> Values {
    let mut nodes = [[[0; CV_LEN]; LANES]; CHUNKS_MAX];
    if page_len == HALF_CHUNK_LEN {
        hash_chunks::<HALF_CHUNK_LEN>(platform, pages, page_len, 0, ROOT, &mut nodes[0]);
        return nodes[0];
    }
    let mut len = page_len / CHUNK_LEN;
    let root = if len == 1 { ROOT } else { 0 };
    for (index, values) in nodes[..len].iter_mut().enumerate() {
        hash_chunks::<CHUNK_LEN>(platform, pages, page_len, index, root, values);
    }
    let count = pages.len() / page_len;
    while len > 1 {
        len /= 2;
        let root = if len == 1 { ROOT } else { 0 };
        for index in 0..len {
            let (left, right) = (nodes[2 * index], nodes[2 * index + 1]);
            hash_parents(platform, &left[..count], &right[..count], root, &mut nodes[index]);
        }
    }
    nodes[0]
}

/// Hashes the chunk at `index` of each page.
fn hash_chunks<const N: usize>(
    platform: Platform,
    pages: &[u8],
    page_len: usize,
    index: usize,
    root: u8,
    out: &mut Values,
) {
    let mut chunks = [&[0; N]; LANES];
    let mut count = 0;
    for (slot, page) in chunks.iter_mut().zip(pages.chunks_exact(page_len)) {
        if let Some(chunk) = page[index * N..].first_chunk() {
            *slot = chunk;
            count += 1;
        }
    }
    let (start, end) = (CHUNK_START, CHUNK_END | root);
    let out = out.as_flattened_mut();
    platform.hash_many(&chunks[..count], &IV, index as u64, IncrementCounter::No, 0, start, end, out);
}

/// Hashes a node of the hash's tree for each page, of its two children.
fn hash_parents(
    platform: Platform,
    left: &[[u8; CV_LEN]],
    right: &[[u8; CV_LEN]],
    root: u8,
    out: &mut Values,
) {
    let mut blocks = [[0; 2 * CV_LEN]; LANES];
    for (block, (left, right)) in blocks.iter_mut().zip(left.iter().zip(right)) {
        block[..CV_LEN].copy_from_slice(left);
        block[CV_LEN..].copy_from_slice(right);
    }
    let blocks: [&[u8; 2 * CV_LEN]; LANES] = std::array::from_fn(|at| &blocks[at]);
    let (blocks, out) = (&blocks[..left.len()], out.as_flattened_mut());
    platform.hash_many(blocks, &IV, 0, IncrementCounter::No, PARENT | root, 0, 0, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pages_hash_as_each_of_them_alone() {
        let bytes: Vec<u8> =
            (0..40 * 65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for log2 in 9..=16 {
            let size = PageSize::from_log2(log2).unwrap();
            let len = size.bytes();
            for count in (0..=LANES + 1).chain([2 * LANES, 40]) {
                let pages = &bytes[..count * len];
                let alone: Vec<PageHash> = pages.chunks_exact(len).map(PageHash::of).collect();
                assert_eq!(hash_each(pages, size), alone, "{count} pages of {len}");
            }
        }
    }
}
