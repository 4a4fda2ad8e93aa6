//! The hashes of the older protocol (20 bytes a page), kept beside a segment so that no page is read
//! to answer a hash round. Computed when first asked for, or while a peer that will ask is pushing.
//!
//! ```text
//! check 16, magic "sqlrsync hash20." 16, format version u8, segment id 16, runs u32,
//! run: first page u32, number of pages u32 (ascending); hashes: 20 for each page, in order
//! ```
//!
//! Page 1 is hashed in its canonical form here; what it hashes to with the header fields of a version
//! stands in the manifest.

use std::sync::Arc;

use bytes::Bytes;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::page::PageNumber;
use sqlrsync_protocol::sponge::{Hash20, hash20};

use crate::error::{Damage, Error};
use crate::id::{Name, SegmentId};
use crate::replica::Replica;
use crate::sealed::{CHECK_LEN, Fields, seal, unseal};
use crate::segment::format::{PartEntry, SEGMENT_PAGES_MAX};
use crate::segment::{BlockReader, Segments};

const MAGIC: &[u8; 16] = b"sqlrsync hash20.";
const FORMAT_VERSION: u8 = 1;
const HEADER_LEN: usize = CHECK_LEN + 16 + 1 + SegmentId::LEN + 4;
const RUN_LEN: usize = 8;

/// The most bytes of such an object.
pub(crate) const HASHES20_BYTES_MAX: usize =
    HEADER_LEN + SEGMENT_PAGES_MAX as usize * (RUN_LEN + Hash20::LEN);

/// The 20-byte hashes of a segment's pages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hashes20 {
    runs: Vec<Run>,
    hashes: Vec<Hash20>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    len: u32,
    /// Place of its first page in the list of hashes.
    at: u32,
}

impl Hashes20 {
    /// Adds a page, which comes after all that were added.
    pub(crate) fn push(&mut self, page: PageNumber, hash: Hash20) {
        match self.runs.last_mut() {
            Some(run) if run.first.checked_add(run.len) == Some(page.get()) => run.len += 1,
            _ => self.runs.push(Run { first: page.get(), len: 1, at: self.hashes.len() as u32 }),
        }
        self.hashes.push(hash);
    }

    /// Adds the pages of a block, decoded.
    pub(crate) fn push_block(&mut self, block: &Block, raw: &[u8]) {
        for (page, bytes) in block.pages().zip(raw.chunks_exact(block.page_size().bytes())) {
            self.push(page, hash20(bytes));
        }
    }

    pub(crate) fn get(&self, page: PageNumber) -> Option<Hash20> {
        let after = self.runs.partition_point(|run| run.first <= page.get());
        let run = self.runs.get(after.checked_sub(1)?)?;
        let within = page.get() - run.first;
        if within < run.len { self.hashes.get((run.at + within) as usize).copied() } else { None }
    }

    /// The memory it takes.
    fn bytes(&self) -> usize {
        self.runs.len() * size_of::<Run>() + self.hashes.len() * Hash20::LEN
    }

    pub(crate) fn encode(&self, segment: SegmentId) -> Bytes {
        let mut bytes = vec![0; CHECK_LEN];
        bytes.extend(MAGIC);
        bytes.push(FORMAT_VERSION);
        bytes.extend(segment.0);
        bytes.extend((self.runs.len() as u32).to_be_bytes());
        for run in &self.runs {
            bytes.extend(run.first.to_be_bytes());
            bytes.extend(run.len.to_be_bytes());
        }
        self.hashes.iter().for_each(|hash| bytes.extend(hash.0));
        seal(bytes).0.into()
    }

    pub(crate) fn decode(bytes: &[u8], segment: SegmentId) -> Result<Hashes20, Damage> {
        if bytes.len() > HASHES20_BYTES_MAX {
            return Err(Damage::TooLarge);
        }
        let (_, content) = unseal(bytes)?;
        let mut fields = Fields::new(content);
        if fields.array()? != *MAGIC || fields.u8()? != FORMAT_VERSION {
            return Err(Damage::Format);
        }
        if fields.array()? != segment.0 {
            return Err(Damage::Misplaced);
        }
        let count = fields.u32()? as usize;
        // The runs are there before room is made for them.
        let mut list = Fields::new(fields.bytes(count.checked_mul(RUN_LEN).ok_or(Damage::TooLarge)?)?);
        let mut runs: Vec<Run> = Vec::with_capacity(count);
        let (mut free, mut pages) = (1u64, 0u64);
        for _ in 0..count {
            let (first, len) = (list.u32()?, list.u32()?);
            if len == 0 || u64::from(first) < free {
                return Err(Damage::Structure);
            }
            runs.push(Run { first, len, at: pages as u32 });
            free = u64::from(first) + u64::from(len);
            pages += u64::from(len);
            if pages > u64::from(SEGMENT_PAGES_MAX) {
                return Err(Damage::TooLarge);
            }
        }
        let mut list = Fields::new(fields.bytes(pages as usize * Hash20::LEN)?);
        let mut hashes = Vec::with_capacity(pages as usize);
        for _ in 0..pages {
            hashes.push(Hash20(list.array()?));
        }
        fields.end()?;
        Ok(Hashes20 { runs, hashes })
    }
}

impl Replica {
    /// The hashes of a segment's pages: kept, stored, or computed and then stored.
    pub(crate) fn hashes20(&self, id: SegmentId) -> Result<Arc<Hashes20>, Error> {
        let shared = self.shared();
        if let Some(found) = shared.hashes20.get(&id) {
            return Ok(found);
        }
        let path = Name::Hashes20(id).path(self.id());
        let found = match shared.store.get(&path, HASHES20_BYTES_MAX as u64)? {
            Some(bytes) => {
                Hashes20::decode(&bytes, id).map_err(|damage| Error::damaged(path.as_ref(), damage))?
            }
            None => {
                let computed = compute(&self.segments(), id)?;
                self.keep_hashes20(id, &computed);
                computed
            }
        };
        let found = Arc::new(found);
        shared.hashes20.put(id, found.clone(), found.bytes());
        Ok(found)
    }

    /// Stores hashes. They can be computed again, so that failing to is no more than a warning.
    pub(crate) fn keep_hashes20(&self, id: SegmentId, hashes: &Hashes20) {
        let path = Name::Hashes20(id).path(self.id());
        if let Err(error) = self.shared().store.put(&path, hashes.encode(id)) {
            tracing::warn!(%error, segment = %id, "could not keep the 20-byte hashes of a segment");
        }
    }
}

/// Reads all pages of a segment and hashes them.
pub(crate) fn compute(segments: &Segments, id: SegmentId) -> Result<Hashes20, Error> {
    let mut hashes = Hashes20::default();
    for_each_block(segments, id, &mut |block, raw| {
        hashes.push_block(block, raw);
        Ok(())
    })?;
    Ok(hashes)
}

/// Calls `take` with each block of a segment and its decoded pages.
pub(crate) fn for_each_block(
    segments: &Segments,
    id: SegmentId,
    take: &mut dyn FnMut(&Block, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut reader = BlockReader::new(segments.clone());
    let mut raw = Vec::new();
    let opened = segments.open(id)?;
    for top in &opened.top {
        let entries = segments.index(id, top)?;
        let blocks = entries.iter().filter(|entry: &&PartEntry| entry.level == 0);
        for entry in blocks {
            let block = reader.block(id, entry)?;
            block
                .decode(&mut raw)
                .map_err(|error| segments.damaged(id, crate::segment::block_damage(error)))?;
            take(&block, &raw)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_back_and_are_found_by_page() {
        let id = SegmentId([9; 16]);
        let pages = [1u32, 2, 3, 9, 11, 12, u32::MAX];
        let mut made = Hashes20::default();
        for &page in &pages {
            made.push(PageNumber::new(page).unwrap(), hash20(&page.to_be_bytes()));
        }
        let bytes = made.encode(id);
        let read = Hashes20::decode(&bytes, id).unwrap();
        assert_eq!(read, made);
        for page in [1u32, 2, 3, 4, 8, 9, 10, 11, 12, 13, u32::MAX] {
            let expected = pages.contains(&page).then(|| hash20(&page.to_be_bytes()));
            assert_eq!(read.get(PageNumber::new(page).unwrap()), expected, "{page}");
        }
        assert_eq!(Hashes20::decode(&bytes, SegmentId([8; 16])), Err(Damage::Misplaced));
    }
}
