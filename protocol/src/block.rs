//! A block: some pages compressed together, with the list of their numbers and a checksum.
//!
//! It is the unit that travels in version 3 (one block a batch) and that a segment stores, the same
//! bytes in both places, so that nobody compresses twice. All integers are big-endian.
//!
//! ```text
//! check    16  the first 16 bytes of BLAKE3 over all that follows
//! codec     1  0 stored, 1 zstd
//! runs      2  number of runs, 1 to 512
//! run       6  first page u32, number of pages u16 (not 0); ascending, not touching nor overlapping
//! data         the pages' canonical bytes in order, encoded by the codec; to the end
//! ```
//!
//! A block holds [`BLOCK_RAW_MAX`] bytes of pages at most, before compression. What decompression may
//! yield is known from the header, and more is an error.

use std::cell::RefCell;

use bytes::Bytes;

use crate::page::{PageNumber, PageSize};

/// The most bytes of pages in a block, before compression.
pub const BLOCK_RAW_MAX: usize = 256 * 1024;

/// The most bytes of an encoded block. No codec is let to make its data longer than the raw pages.
pub const BLOCK_ENCODED_MAX: usize = BLOCK_RAW_MAX + HEADER_LEN + RUN_LEN * RUNS_MAX;

/// The most runs: as many as there are pages of 512 bytes in a block.
pub const RUNS_MAX: usize = BLOCK_RAW_MAX / 512;

const CHECK_LEN: usize = 16;
const HEADER_LEN: usize = CHECK_LEN + 3;
const RUN_LEN: usize = 6;

/// How a block's data is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Codec {
    /// As it is.
    Stored = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// How much time is spent on making a block small. It is not seen in the block: a block that does not
/// become smaller is stored as it is, whatever the effort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// None: the pages are stored as they are.
    None,
    /// zstd level -7: keeps up with a disk and with a fast network.
    Fast,
    /// zstd level 1: for what goes over a slow network.
    Small,
}

impl Effort {
    /// zstd's compression level; `None` where zstd is not used.
    const fn zstd_level(self) -> Option<i32> {
        match self {
            Effort::None => None,
            Effort::Fast => Some(-7),
            Effort::Small => Some(1),
        }
    }
}

/// Why bytes are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Longer than [`BLOCK_ENCODED_MAX`], or its pages are more than [`BLOCK_RAW_MAX`] bytes.
    #[error("block is larger than the maximum")]
    TooLarge,
    /// Ends before its header does.
    #[error("block is cut short")]
    Truncated,
    /// The checksum is not that of the content.
    #[error("block has a wrong checksum")]
    Checksum,
    /// A codec that is not known.
    #[error("block has an unknown codec {0}")]
    Codec(u8),
    /// Runs are missing, empty, not ascending or past the last page number.
    #[error("block has a wrong page list")]
    Runs,
    /// The data does not decode to exactly the pages listed.
    #[error("block does not decompress to the pages it lists")]
    Data,
}

/// A block whose checksum and header have been verified. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Bytes,
    page_size: PageSize,
    codec: Codec,
    page_count: u32,
    first: PageNumber,
    last: PageNumber,
}

impl Block {
    /// Takes bytes from a peer or a disk for a block of pages of `page_size`.
    pub fn parse(bytes: Bytes, page_size: PageSize) -> Result<Block, BlockError> {
        if bytes.len() > BLOCK_ENCODED_MAX {
            return Err(BlockError::TooLarge);
        }
        if bytes.len() < HEADER_LEN + RUN_LEN {
            return Err(BlockError::Truncated);
        }
        if bytes[..CHECK_LEN] != check(&bytes[CHECK_LEN..]) {
            return Err(BlockError::Checksum);
        }
        let codec = match bytes[CHECK_LEN] {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            other => return Err(BlockError::Codec(other)),
        };
        let runs = usize::from(u16::from_be_bytes([bytes[CHECK_LEN + 1], bytes[CHECK_LEN + 2]]));
        if runs == 0 || runs > RUNS_MAX {
            return Err(BlockError::Runs);
        }
        let end = HEADER_LEN + RUN_LEN * runs;
        if bytes.len() < end {
            return Err(BlockError::Truncated);
        }
        let mut page_count = 0u32;
        let mut free = 1u64;
        for run in bytes[HEADER_LEN..end].chunks_exact(RUN_LEN) {
            let (first, len) = decode_run(run);
            let past = u64::from(first) + u64::from(len);
            // A run that touches the one before should have been part of it; the first may begin at page 1.
            let touches = page_count > 0 && u64::from(first) == free;
            if len == 0 || u64::from(first) < free || touches || past > u64::from(u32::MAX) + 1 {
                return Err(BlockError::Runs);
            }
            free = past;
            page_count += u32::from(len);
        }
        if page_count as usize * page_size.bytes() > BLOCK_RAW_MAX {
            return Err(BlockError::TooLarge);
        }
        let (first, _) = decode_run(&bytes[HEADER_LEN..]);
        let (Some(first), Some(last)) = (PageNumber::new(first), PageNumber::new((free - 1) as u32)) else {
            return Err(BlockError::Runs);
        };
        Ok(Block { bytes, page_size, codec, page_count, first, last })
    }

    /// A block of canonical pages in a row, the first of which is `first`: what a [`BlockBuilder`] makes of
    /// them, without a copy. `None` where they are none, or too many.
    pub fn of_run(
        page_size: PageSize,
        first: PageNumber,
        canonical_pages: &[u8],
        effort: Effort,
    ) -> Option<Block> {
        if canonical_pages.len() > BLOCK_RAW_MAX {
            return None;
        }
        let len = u16::try_from(canonical_pages.len() / page_size.bytes()).ok().filter(|len| *len > 0)?;
        first.get().checked_add(u32::from(len - 1))?;
        encode(page_size, &[(first.get(), len)], canonical_pages, effort)
    }

    /// The encoded form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Size of its pages.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// How many pages it holds, at least one.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Its first page.
    pub fn first(&self) -> PageNumber {
        self.first
    }

    /// Its last page.
    pub fn last(&self) -> PageNumber {
        self.last
    }

    /// The numbers of its pages, ascending, in the order in which [`Block::decode`] gives the pages.
    pub fn pages(&self) -> impl Iterator<Item = PageNumber> + '_ {
        self.runs()
            .flat_map(|(first, len)| (0..u32::from(len)).map(move |n| first + n))
            .filter_map(PageNumber::new)
    }

    /// Whether it holds these pages and no others.
    pub fn holds_exactly(&self, pages: impl IntoIterator<Item = PageNumber>) -> bool {
        self.pages().eq(pages)
    }

    /// Puts the pages' canonical bytes into `out`, which is cleared first: `page_count` times the page size.
    pub fn decode(&self, out: &mut Vec<u8>) -> Result<(), BlockError> {
        let raw = self.page_count as usize * self.page_size.bytes();
        let data = &self.bytes[self.data_offset()..];
        out.clear();
        match self.codec {
            Codec::Stored => out.extend_from_slice(data),
            Codec::Zstd => {
                out.reserve_exact(raw);
                decompress(data, out)?;
            }
        }
        if out.len() == raw { Ok(()) } else { Err(BlockError::Data) }
    }

    fn runs(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        self.bytes[HEADER_LEN..self.data_offset()].chunks_exact(RUN_LEN).map(decode_run)
    }

    fn data_offset(&self) -> usize {
        let runs = u16::from_be_bytes([self.bytes[CHECK_LEN + 1], self.bytes[CHECK_LEN + 2]]);
        HEADER_LEN + RUN_LEN * usize::from(runs)
    }
}

fn decode_run(run: &[u8]) -> (u32, u16) {
    (u32::from_be_bytes([run[0], run[1], run[2], run[3]]), u16::from_be_bytes([run[4], run[5]]))
}

fn check(content: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(content).as_bytes()[..CHECK_LEN]);
    check
}

/// Collects pages for a block, in ascending order.
#[derive(Debug)]
pub struct BlockBuilder {
    page_size: PageSize,
    runs: Vec<(u32, u16)>,
    raw: Vec<u8>,
}

impl BlockBuilder {
    /// An empty builder for pages of `page_size`.
    pub fn new(page_size: PageSize) -> Self {
        BlockBuilder { page_size, runs: Vec::new(), raw: Vec::with_capacity(BLOCK_RAW_MAX) }
    }

    /// Whether no page was added since the last block.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether there is no room for another page: [`BlockBuilder::finish`] comes next.
    pub fn is_full(&self) -> bool {
        self.raw.len() + self.page_size.bytes() > BLOCK_RAW_MAX
    }

    /// Adds a canonical page. It comes after those already in, and the builder is not full.
    pub fn push(&mut self, number: PageNumber, canonical_page: &[u8]) {
        debug_assert!(!self.is_full() && canonical_page.len() == self.page_size.bytes());
        match self.runs.last_mut() {
            Some((first, len)) if first.checked_add(u32::from(*len)) == Some(number.get()) => *len += 1,
            last => {
                debug_assert!(last.is_none_or(|(first, _)| *first < number.get()));
                self.runs.push((number.get(), 1));
            }
        }
        self.raw.extend_from_slice(canonical_page);
    }

    /// The raw pages so far.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Encodes what was added and empties the builder; `None` where nothing was added.
    pub fn finish(&mut self, effort: Effort) -> Option<Block> {
        let block = encode(self.page_size, &self.runs, &self.raw, effort);
        self.runs.clear();
        self.raw.clear();
        block
    }
}

/// A block of `raw`, the pages of `runs` one after the other; `None` without a page.
fn encode(page_size: PageSize, runs: &[(u32, u16)], raw: &[u8], effort: Effort) -> Option<Block> {
    let (first, _) = *runs.first()?;
    let (last_run, last_len) = *runs.last()?;
    let data_at = HEADER_LEN + RUN_LEN * runs.len();
    let (codec, bytes) = SCRATCH.with_borrow_mut(|scratch| {
        // It only grows, so that it is filled with zeros once.
        if scratch.len() < data_at + raw.len() {
            scratch.resize(data_at + raw.len(), 0);
        }
        let (header, data) = scratch.split_at_mut(data_at);
        let (codec, len) = encode_data(raw, effort, &mut data[..raw.len()]);
        header[CHECK_LEN] = codec as u8;
        header[CHECK_LEN + 1..HEADER_LEN].copy_from_slice(&(runs.len() as u16).to_be_bytes());
        for (slot, (first, len)) in header[HEADER_LEN..].chunks_exact_mut(RUN_LEN).zip(runs) {
            slot[..4].copy_from_slice(&first.to_be_bytes());
            slot[4..].copy_from_slice(&len.to_be_bytes());
        }
        let bytes = &mut scratch[..data_at + len];
        let check = check(&bytes[CHECK_LEN..]);
        bytes[..CHECK_LEN].copy_from_slice(&check);
        (codec, Bytes::copy_from_slice(bytes))
    });
    Some(Block {
        bytes,
        page_size,
        codec,
        page_count: (raw.len() / page_size.bytes()) as u32,
        first: PageNumber::new(first)?,
        last: PageNumber::new(last_run + u32::from(last_len - 1))?,
    })
}

/// Puts the data into `out`, which is as long as `raw`, compressed where that makes it shorter. Says which
/// it is, and the length.
fn encode_data(raw: &[u8], effort: Effort, out: &mut [u8]) -> (Codec, usize) {
    let compressed = effort.zstd_level().and_then(|level| compress(raw, out, level));
    match compressed.filter(|&len| len < raw.len()) {
        Some(len) => (Codec::Zstd, len),
        None => {
            out.copy_from_slice(raw);
            (Codec::Stored, raw.len())
        }
    }
}

/// Compresses into `out` and returns the length; `None` where it does not fit.
fn compress(raw: &[u8], out: &mut [u8], level: i32) -> Option<usize> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(zstd::bulk::Compressor::new(level).ok()?),
        };
        compressor.set_compression_level(level).ok()?;
        compressor.compress_to_buffer(raw, out).ok()
    })
}

/// Decompresses into `out` up to its capacity: more than that is an error.
fn decompress(data: &[u8], out: &mut Vec<u8>) -> Result<(), BlockError> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new().map_err(|_| BlockError::Data)?),
        };
        decompressor.decompress_to_buffer(data, out).map(drop).map_err(|_| BlockError::Data)
    })
}

thread_local! {
    /// Where a thread encodes. A block then takes the memory of its bytes and no more: many of them wait
    /// in queues, and what they were encoded in is twice as long.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };

    /// zstd's working memory, kept: making it takes a tenth of the time of using it.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(effort: Effort, numbers: &[u32]) -> Block {
        let mut builder = BlockBuilder::new(PageSize::MIN);
        for &n in numbers {
            builder.push(PageNumber::new(n).unwrap(), &[n as u8; 512]);
        }
        builder.finish(effort).unwrap()
    }

    #[test]
    fn a_block_comes_back_as_it_was_made() {
        for effort in [Effort::None, Effort::Fast, Effort::Small] {
            let made = block(effort, &[1, 2, 7, u32::MAX]);
            let read = Block::parse(made.as_bytes().clone(), PageSize::MIN).unwrap();
            assert_eq!(read.pages().map(PageNumber::get).collect::<Vec<_>>(), [1, 2, 7, u32::MAX]);
            assert_eq!((read.first().get(), read.last().get(), read.page_count()), (1, u32::MAX, 4));
            let mut raw = Vec::new();
            read.decode(&mut raw).unwrap();
            assert_eq!(raw, [[1; 512], [2; 512], [7; 512], [255; 512]].concat());
        }
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let made = block(Effort::Fast, &[3, 4]);
        for at in 0..made.as_bytes().len() {
            let mut bytes = made.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(Block::parse(bytes.into(), PageSize::MIN).is_err(), "byte {at}");
            assert!(Block::parse(made.as_bytes().slice(..at), PageSize::MIN).is_err(), "cut at {at}");
        }
    }

    /// A header by hand, with a right checksum, as a hostile peer would make it.
    fn forged(codec: u8, runs: &[(u32, u16)], data: &[u8]) -> Result<Block, BlockError> {
        let mut content = vec![codec];
        content.extend((runs.len() as u16).to_be_bytes());
        for (first, len) in runs {
            content.extend(first.to_be_bytes());
            content.extend(len.to_be_bytes());
        }
        content.extend(data);
        Block::parse([&check(&content)[..], &content].concat().into(), PageSize::MIN)
    }

    #[test]
    fn hostile_page_lists_are_refused() {
        for runs in [
            &[(0, 1)][..],
            &[(1, 0)],
            &[(2, 1), (1, 1)],
            &[(1, 1), (2, 1)],
            &[(1, 2), (2, 1)],
            &[(u32::MAX, 2)],
        ] {
            assert_eq!(forged(0, runs, &[0; 1024]).unwrap_err(), BlockError::Runs, "{runs:?}");
        }
        assert_eq!(forged(0, &[(1, u16::MAX)], &[]).unwrap_err(), BlockError::TooLarge);
        assert_eq!(forged(9, &[(1, 1)], &[]).unwrap_err(), BlockError::Codec(9));
    }

    #[test]
    fn a_decompression_bomb_yields_an_error_and_no_memory() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let block = forged(1, &[(1, 1)], &bomb).unwrap();
        let mut out = Vec::new();
        assert_eq!(block.decode(&mut out), Err(BlockError::Data));
        assert!(out.capacity() <= 1024);
    }
}
