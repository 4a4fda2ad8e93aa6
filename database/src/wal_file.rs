//! The `-wal` file: its header, its frames' headers and its checksum, as
//! <https://www.sqlite.org/fileformat2.html#the_write_ahead_log> has them.
//!
//! - It may be opened by hand, which the database file may not: SQLite's locks are on the database and
//!   on the `-shm`, and there are none here that closing a descriptor could drop.
//! - It may be written, started over, truncated or removed at any moment while it is read: what is read
//!   here proves nothing by itself.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

pub(crate) const WAL_HEADER_LEN: u64 = 32;
pub(crate) const FRAME_HEADER_LEN: u64 = 24;

/// How much of a frame's header its checksum covers; all of the page follows.
const SUMMED_LEN: usize = 8;

/// The magic, but for its last bit, which says how checksums read the bytes.
const MAGIC: u32 = 0x377f_0682;

/// The header of a WAL, with what `stat` says of the file.
pub(crate) struct WalHeader {
    pub(crate) inode: u64,
    len: u64,
    pub(crate) page_size: u64,
    pub(crate) salts: [u8; 8],
    bytes: [u8; WAL_HEADER_LEN as usize],
}

/// The header of a frame.
pub(crate) struct FrameHeader {
    /// The page that follows.
    pub(crate) page: u32,
    /// How many pages the database has after this frame, where the frame ends a transaction; else zero.
    pub(crate) committed_pages: u32,
    pub(crate) salts: [u8; 8],
    /// Of everything up to the end of the frame.
    pub(crate) checksum: [u8; 8],
}

impl WalHeader {
    /// `None` where there is none yet.
    pub(crate) fn read(file: &File) -> std::io::Result<Option<WalHeader>> {
        let metadata = file.metadata()?;
        let mut bytes = [0; WAL_HEADER_LEN as usize];
        if metadata.len() < WAL_HEADER_LEN {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0)?;
        let page_size = word(&bytes, 8);
        if !page_size.is_power_of_two() {
            return Ok(None);
        }
        let (inode, len, page_size) = (metadata.ino(), metadata.len(), u64::from(page_size));
        Ok(Some(WalHeader { inode, len, page_size, salts: eight(&bytes, 16), bytes }))
    }

    /// How many whole frames there is room for.
    pub(crate) fn room(&self) -> u32 {
        let frames = (self.len - WAL_HEADER_LEN) / self.frame_len();
        u32::try_from(frames).unwrap_or(u32::MAX)
    }

    pub(crate) fn frame_len(&self) -> u64 {
        FRAME_HEADER_LEN + self.page_size
    }

    /// Where the frame at `index`, counted from 0, begins.
    pub(crate) fn frame_at(&self, index: u32) -> u64 {
        WAL_HEADER_LEN + u64::from(index) * self.frame_len()
    }

    /// The header of the frame at `index`, counted from 0.
    pub(crate) fn frame(&self, file: &File, index: u32) -> std::io::Result<FrameHeader> {
        let mut bytes = [0; FRAME_HEADER_LEN as usize];
        file.read_exact_at(&mut bytes, self.frame_at(index))?;
        Ok(FrameHeader::parse(&bytes))
    }

    /// The checksum to go on from after the frame that has `checksum`, or from the header where no
    /// frame is given. `None` where this is no header of a WAL.
    pub(crate) fn sum_from(&self, checksum: Option<[u8; 8]>) -> Option<Sum> {
        let magic = word(&self.bytes, 0);
        if magic & !1 != MAGIC {
            return None;
        }
        let big_endian = magic & 1 == 1;
        let mut header = Sum { big_endian, words: [0; 2] };
        header.add(&self.bytes[..24]);
        if header.checksum() != eight(&self.bytes, 24) {
            return None;
        }
        Some(match checksum {
            Some(bytes) => Sum { big_endian, words: [word(&bytes, 0), word(&bytes, 4)] },
            None => header,
        })
    }
}

impl FrameHeader {
    pub(crate) fn parse(bytes: &[u8; FRAME_HEADER_LEN as usize]) -> FrameHeader {
        FrameHeader {
            page: word(bytes, 0),
            committed_pages: word(bytes, 4),
            salts: eight(bytes, 8),
            checksum: eight(bytes, 16),
        }
    }
}

/// The cumulative checksum of a WAL.
pub(crate) struct Sum {
    big_endian: bool,
    words: [u32; 2],
}

impl Sum {
    /// Goes on over a frame: its header, and the page behind it.
    pub(crate) fn add_frame(&mut self, frame: &[u8]) {
        let (header, page) = frame.split_at(FRAME_HEADER_LEN as usize);
        self.add(&header[..SUMMED_LEN]);
        self.add(page);
    }

    fn add(&mut self, bytes: &[u8]) {
        let read = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let [mut first, mut second] = self.words;
        let (pairs, _) = bytes.as_chunks::<8>();
        for pair in pairs {
            let [a, b, c, d, e, f, g, h] = *pair;
            first = first.wrapping_add(read([a, b, c, d])).wrapping_add(second);
            second = second.wrapping_add(read([e, f, g, h])).wrapping_add(first);
        }
        self.words = [first, second];
    }

    /// As it stands in a frame's header.
    pub(crate) fn checksum(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.words[0].to_be_bytes());
        bytes[4..].copy_from_slice(&self.words[1].to_be_bytes());
        bytes
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn eight(bytes: &[u8], at: usize) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    eight
}
