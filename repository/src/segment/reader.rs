//! Reads parts of segments. Footers and index parts are kept in a cache that all replicas share; a
//! part is verified against the index, and the index against the footer, each time it is read.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sqlrsync_protocol::block::{Block, BlockError};
use sqlrsync_protocol::page::{PageNumber, PageSize};
use sqlrsync_protocol::tree::NodeId;

use super::format::{
    FOOTER_LEN, Footer, HEADER_LEN, PartEntry, Stretch, TopEntry, decode_header, decode_index, decode_top,
};
use super::node::{self, StoredEntry};
use crate::cache::Cache;
use crate::error::{Damage, Error};
use crate::id::{Name, ReplicaId, SegmentId};
use crate::sealed::Check;
use crate::store::Store;

/// How much is read from the end of a segment to begin with: all of one that a push of a page makes, which has a
/// node a level, up to 9 KB each. With less, its header would be read by itself.
const TAIL_LEN: u64 = 32 << 10;

/// How much is read at once where parts are read one after the other.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// How many stretches read ahead are kept: one for each segment that is being read in turn.
const READ_AHEAD_MAX: usize = 6;

/// What is known of a segment once its end is read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) footer: Footer,
    /// The footer's own checksum, which manifests repeat.
    pub(crate) check: Check,
    pub(crate) page_size: PageSize,
    pub(crate) top: Vec<TopEntry>,
}

/// Footers and index parts of any replica's segments; an index part is named by its offset.
#[derive(Debug)]
pub(crate) struct IndexCache {
    opened: Cache<SegmentId, Arc<Opened>>,
    parts: Cache<(SegmentId, u64), Arc<Vec<PartEntry>>>,
}

impl IndexCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        IndexCache { opened: Cache::new(bytes_max / 4), parts: Cache::new(bytes_max / 4 * 3) }
    }
}

/// The segments of a replica. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    store: Store,
    replica: ReplicaId,
    cache: Arc<IndexCache>,
}

impl Segments {
    pub(crate) fn new(store: Store, replica: ReplicaId, cache: Arc<IndexCache>) -> Self {
        Segments { store, replica, cache }
    }

    pub(crate) fn object(&self, id: SegmentId) -> String {
        Name::Segment(id).path(self.replica).to_string()
    }

    pub(crate) fn damaged(&self, id: SegmentId, damage: Damage) -> Error {
        Error::damaged(self.object(id), damage)
    }

    /// Reads and verifies footer, header and top index, unless that was done before.
    pub(crate) fn open(&self, id: SegmentId) -> Result<Arc<Opened>, Error> {
        if let Some(opened) = self.cache.opened.get(&id) {
            return Ok(opened);
        }
        let opened = Arc::new(self.read_opened(id)?);
        let bytes = size_of::<Opened>() + opened.top.len() * size_of::<TopEntry>();
        self.cache.opened.put(id, opened.clone(), bytes);
        Ok(opened)
    }

    /// As [`Segments::open`], reading anew.
    pub(crate) fn read_opened(&self, id: SegmentId) -> Result<Opened, Error> {
        let path = Name::Segment(id).path(self.replica);
        let damaged = |damage| self.damaged(id, damage);
        let (tail, size) = self.store.get_tail(&path, TAIL_LEN)?.ok_or_else(|| damaged(Damage::Missing))?;
        if size < (HEADER_LEN + FOOTER_LEN) as u64 || tail.len() < FOOTER_LEN {
            return Err(damaged(Damage::Truncated));
        }
        let (footer, check) = Footer::decode(&tail[tail.len() - FOOTER_LEN..]).map_err(damaged)?;
        if footer.bytes != size {
            return Err(damaged(Damage::Truncated));
        }
        let tail_offset = size - tail.len() as u64;
        let part = |offset: u64, len: u64| -> Result<Bytes, Error> {
            match offset.checked_sub(tail_offset) {
                Some(from) => Ok(tail.slice(from as usize..(from + len) as usize)),
                None => self.store.get_range(&path, offset..offset + len),
            }
        };
        let header = part(0, HEADER_LEN as u64)?;
        let (named, page_size, header_check) = decode_header(&header).map_err(damaged)?;
        if named != id || footer.id != id {
            return Err(damaged(Damage::Misplaced));
        }
        if header_check != footer.header_check {
            return Err(damaged(Damage::Structure));
        }
        let top = part(footer.top.offset, u64::from(footer.top.len))?;
        check_is(&top, &footer.top).map_err(damaged)?;
        let top = decode_top(&top).map_err(damaged)?;
        // Index parts follow each other up to the top.
        let mut end = footer.top.offset;
        for entry in top.iter().rev() {
            if entry.at.end() != end {
                return Err(damaged(Damage::Structure));
            }
            end = entry.at.offset;
        }
        // What came with the tail is not read a second time.
        for entry in top.iter().filter(|entry| entry.at.offset >= tail_offset) {
            let bytes = part(entry.at.offset, u64::from(entry.at.len))?;
            self.keep_index(id, entry, &bytes)?;
        }
        Ok(Opened { footer, check, page_size, top })
    }

    fn keep_index(&self, id: SegmentId, top: &TopEntry, bytes: &[u8]) -> Result<Arc<Vec<PartEntry>>, Error> {
        let damaged = |damage| self.damaged(id, damage);
        check_is(bytes, &top.at).map_err(damaged)?;
        let entries = decode_index(bytes).map_err(damaged)?;
        let begins =
            entries.first().is_some_and(|entry| (entry.level, entry.first) == (top.level, top.first));
        // A part lies before the index, as a whole.
        if !begins || entries.iter().any(|entry| entry.at.end() > top.at.offset) {
            return Err(damaged(Damage::Structure));
        }
        let entries = Arc::new(entries);
        let bytes = entries.len() * size_of::<PartEntry>();
        self.cache.parts.put((id, top.at.offset), entries.clone(), bytes);
        Ok(entries)
    }

    /// A part of the index.
    pub(crate) fn index(&self, id: SegmentId, top: &TopEntry) -> Result<Arc<Vec<PartEntry>>, Error> {
        if let Some(entries) = self.cache.parts.get(&(id, top.at.offset)) {
            return Ok(entries);
        }
        let bytes = self.read(id, &top.at)?;
        self.keep_index(id, top, &bytes)
    }

    /// The entry of the block with a page (level 0), or of a node.
    fn find(&self, id: SegmentId, level: u8, key: u32) -> Result<Option<PartEntry>, Error> {
        let opened = self.open(id)?;
        let after = opened.top.partition_point(|entry| (entry.level, entry.first) <= (level, key));
        let Some(top) = after.checked_sub(1).and_then(|at| opened.top.get(at)) else { return Ok(None) };
        let entries = self.index(id, top)?;
        let after = entries.partition_point(|entry| (entry.level, entry.first) <= (level, key));
        let found = after.checked_sub(1).and_then(|at| entries.get(at));
        Ok(found.filter(|entry| entry.level == level && entry.last >= key).copied())
    }

    /// Reads a stretch that the index, or the footer, vouches for.
    pub(crate) fn read(&self, id: SegmentId, at: &Stretch) -> Result<Bytes, Error> {
        let path = Name::Segment(id).path(self.replica);
        let bytes = self.store.get_range(&path, at.offset..at.end())?;
        check_is(&bytes, at).map_err(|damage| self.damaged(id, damage))?;
        Ok(bytes)
    }

    /// Reads a node, which hashes to what its entry says.
    pub(crate) fn node(&self, node: NodeId, entry: &StoredEntry) -> Result<Vec<StoredEntry>, Error> {
        let id = entry.segment;
        let found = self.find(id, node.level, node.index)?;
        let found = found.ok_or_else(|| self.damaged(id, Damage::NodeMissing))?;
        let bytes = self.read(id, &found.at)?;
        let (place, children) = node::decode(&bytes).map_err(|damage| self.damaged(id, damage))?;
        if place != node {
            return Err(self.damaged(id, Damage::Structure));
        }
        if node::hash_of(&children) != entry.hash {
            return Err(self.damaged(id, Damage::Node));
        }
        Ok(children)
    }
}

/// Sealed bytes that an index refers to are those it was written for. Their own checksum is verified
/// when they are decoded.
pub(crate) fn check_is(bytes: &[u8], at: &Stretch) -> Result<(), Damage> {
    match bytes.starts_with(&at.check) && bytes.len() == at.len as usize {
        true => Ok(()),
        false => Err(Damage::Checksum),
    }
}

/// Reads blocks, ahead where they are read one after the other.
#[derive(Debug)]
pub(crate) struct BlockReader {
    segments: Segments,
    /// Newest last.
    ahead: VecDeque<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    id: SegmentId,
    offset: u64,
    bytes: Bytes,
}

impl Ahead {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl BlockReader {
    pub(crate) fn new(segments: Segments) -> Self {
        BlockReader { segments, ahead: VecDeque::new() }
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Where the block with this page is in the segment.
    pub(crate) fn find(&self, id: SegmentId, page: PageNumber) -> Result<PartEntry, Error> {
        let found = self.segments.find(id, 0, page.get())?;
        found.ok_or_else(|| self.segments.damaged(id, Damage::PageMissing(page)))
    }

    /// Reads a block, and verifies its checksum and header.
    pub(crate) fn block(&mut self, id: SegmentId, entry: &PartEntry) -> Result<Block, Error> {
        let bytes = self.stretch(id, &entry.at)?;
        let damaged = |damage| self.segments.damaged(id, damage);
        check_is(&bytes, &entry.at).map_err(damaged)?;
        let page_size = self.segments.open(id)?.page_size;
        let block = Block::parse(bytes, page_size).map_err(|error| damaged(block_damage(error)))?;
        if (block.first().get(), block.last().get()) != (entry.first, entry.last) {
            return Err(damaged(Damage::Structure));
        }
        Ok(block)
    }

    fn stretch(&mut self, id: SegmentId, at: &Stretch) -> Result<Bytes, Error> {
        let held = self
            .ahead
            .iter()
            .position(|ahead| ahead.id == id && ahead.offset <= at.offset && at.offset <= ahead.end());
        let mut end = at.end();
        if let Some(place) = held {
            let Some(ahead) = self.ahead.remove(place) else { return self.segments.read(id, at) };
            let from = (at.offset - ahead.offset) as usize;
            if end <= ahead.end() {
                let bytes = ahead.bytes.slice(from..from + at.len as usize);
                self.ahead.push_back(ahead);
                return Ok(bytes);
            }
            // The parts are being read in order: go on with a longer stretch.
            let opened = self.segments.open(id)?;
            let parts_end = opened.top.first().map_or(end, |top| top.at.offset);
            end = end.max((at.offset + READ_AHEAD_BYTES).min(parts_end));
        }
        let path = Name::Segment(id).path(self.segments.replica);
        let bytes = self.segments.store.get_range(&path, at.offset..end)?;
        let wanted = bytes.slice(..at.len as usize);
        // Nothing follows the only block: many small pushes must not take the place of what is read in order.
        if self.segments.open(id)?.footer.blocks == 1 {
            return Ok(wanted);
        }
        if self.ahead.len() >= READ_AHEAD_MAX {
            self.ahead.pop_front();
        }
        self.ahead.push_back(Ahead { id, offset: at.offset, bytes });
        Ok(wanted)
    }
}

/// What a block's error says of the object it is in.
pub(crate) fn block_damage(error: BlockError) -> Damage {
    match error {
        BlockError::TooLarge => Damage::TooLarge,
        BlockError::Truncated => Damage::Truncated,
        BlockError::Checksum => Damage::Checksum,
        BlockError::Codec(_) => Damage::Format,
        BlockError::Runs | BlockError::Data => Damage::Structure,
    }
}
