//! Puts what arrives into segments, one after the other, and remembers where each page is.
//!
//! A segment that is full is made durable in the background while the next one fills, and is then
//! recorded as staged, so that even a killed process loses one segment's worth of a push at most.

use std::collections::VecDeque;

use jiff::Timestamp;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::exchange::{StagedBlock, staged_hash};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{PageCount, PageNumber, PageSize};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::{NodeId, WriteTree};

use super::records::{Merge, Records};
use crate::error::{Error, PeerFault};
use crate::hashes20::Hashes20;
use crate::id::{Name, Scope, SegmentId};
use crate::manifest::SEGMENTS_MAX;
use crate::replica::Replica;
use crate::segment::node::{StoredEntry, hash_of};
use crate::segment::{SegmentWriter, Written};
use crate::staged::{STAGED_TIME_MAX, StagedRecord};
use crate::store::Completing;

/// A page number, a place in the list of sources, a page hash.
const RECORD_LEN: usize = 4 + 4 + PageHash::LEN;

/// Segments that are being made durable while the next one fills.
const COMPLETING_MAX: usize = 1;

/// Where what a cut push leaves is kept, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staging {
    pub(super) scope: Scope,
    /// Bytes that may still be staged.
    pub(super) bytes_left: u64,
}

/// The segments of a push.
#[derive(Debug)]
pub(super) struct Collector {
    replica: Replica,
    page_size: PageSize,
    staging: Option<Staging>,
    /// Collect 20-byte hashes, for a peer that will ask for them.
    hashing20: bool,
    writer: Option<Open>,
    completing: VecDeque<(Written, Vec<StagedBlock>, Completing)>,
    /// Durable segments.
    done: Vec<Written>,
    /// Segments that this push wrote.
    own: Vec<SegmentId>,
    /// Segments with a staged record that this push wrote.
    recorded: Vec<SegmentId>,
    /// Where the pages of the records are.
    sources: Vec<SegmentId>,
    records: Records<RECORD_LEN>,
    /// The first so many sources have pages that the peer did not send.
    own_sources: usize,
    pinned: Vec<SegmentId>,
}

/// The segment that is being filled.
#[derive(Debug)]
struct Open {
    writer: SegmentWriter,
    source: u32,
    blocks: Vec<StagedBlock>,
    hashes20: Hashes20,
}

impl Collector {
    pub(super) fn new(
        replica: &Replica,
        page_size: PageSize,
        staging: Option<Staging>,
        hashing20: bool,
    ) -> Self {
        Collector {
            replica: replica.clone(),
            page_size,
            staging,
            hashing20,
            writer: None,
            completing: VecDeque::new(),
            done: Vec::new(),
            own: Vec::new(),
            recorded: Vec::new(),
            sources: Vec::new(),
            records: Records::new(),
            own_sources: 0,
            pinned: Vec::new(),
        }
    }

    /// Whether no page was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Stores a block, whose pages have these hashes. `hashes20` is there where they are collected.
    pub(super) fn take(
        &mut self,
        block: &Block,
        hashes: &[PageHash],
        hashes20: &[Hash20],
    ) -> Result<(), Error> {
        let staging = self.staging.is_some();
        let open = self.open(Some(block.first()))?;
        open.writer.add_block(block)?;
        for (page, hash) in block.pages().zip(hashes20) {
            open.hashes20.push(page, *hash);
        }
        if staging {
            open.blocks.push(StagedBlock { runs: runs_of(block), hash: staged_hash(hashes) });
        }
        let source = open.source;
        self.record(block.pages(), hashes, source)
    }

    /// What was taken so far did not come from the peer: of it, what is past the end counts for nothing.
    pub(super) fn begin_anew(&mut self) -> Result<(), Error> {
        self.close()?;
        self.own_sources = self.sources.len();
        Ok(())
    }

    /// Takes over a block of a segment that is there already.
    pub(super) fn take_over(
        &mut self,
        segment: Written,
        block: &Block,
        hashes: &[PageHash],
    ) -> Result<(), Error> {
        let source = match self.sources.iter().rposition(|source| *source == segment.id) {
            Some(source) => source as u32,
            None => {
                self.done.push(segment);
                self.source(segment.id)?
            }
        };
        self.record(block.pages(), hashes, source)
    }

    fn record(
        &mut self,
        pages: impl Iterator<Item = PageNumber>,
        hashes: &[PageHash],
        source: u32,
    ) -> Result<(), Error> {
        for (page, hash) in pages.zip(hashes) {
            let mut record = [0; RECORD_LEN];
            record[..4].copy_from_slice(&page.get().to_be_bytes());
            record[4..8].copy_from_slice(&source.to_be_bytes());
            record[8..].copy_from_slice(&hash.0);
            self.records.push(self.replica.shared(), record)?;
        }
        Ok(())
    }

    fn source(&mut self, id: SegmentId) -> Result<u32, Error> {
        if self.sources.len() >= SEGMENTS_MAX {
            return Err(Error::Peer(PeerFault::TooScattered));
        }
        self.pin(id);
        self.sources.push(id);
        Ok(self.sources.len() as u32 - 1)
    }

    /// Keeps a segment from being swept while this push runs.
    pub(super) fn pin(&mut self, id: SegmentId) {
        self.replica.shared().pins.add(id);
        self.pinned.push(id);
    }

    /// The segment that the next part goes into; a block that begins at `first` comes after its last page.
    fn open(&mut self, first: Option<PageNumber>) -> Result<&mut Open, Error> {
        let bytes_full = self.replica.shared().segment_bytes_full;
        let rotate = self.writer.as_ref().is_some_and(|open| {
            let behind = first.is_some_and(|first| open.writer.last().is_some_and(|last| first <= last));
            open.writer.is_full(bytes_full) || behind
        });
        if rotate {
            self.close()?;
        }
        if self.writer.is_none() {
            let id = SegmentId::random()
                .map_err(|error| Error::scratch(std::io::Error::other(error.to_string())))?;
            let source = self.source(id)?;
            let store = &self.replica.shared().store;
            let writer = SegmentWriter::new(store, self.replica.id(), id, self.page_size)?;
            self.writer = Some(Open { writer, source, blocks: Vec::new(), hashes20: Hashes20::default() });
        }
        self.writer.as_mut().ok_or(Error::OutOfOrder("open"))
    }

    /// Ends the open segment and begins to make it durable.
    fn close(&mut self) -> Result<(), Error> {
        let Some(open) = self.writer.take() else { return Ok(()) };
        let id = open.writer.id();
        self.own.push(id);
        let (written, completing) = open.writer.finish()?;
        self.completing.push_back((written, open.blocks, completing));
        if self.hashing20 {
            self.replica.keep_hashes20(id, &open.hashes20);
        }
        while self.completing.len() > COMPLETING_MAX {
            self.settle_one(true)?;
        }
        Ok(())
    }

    /// Waits until the oldest segment on its way is durable.
    fn settle_one(&mut self, record: bool) -> Result<(), Error> {
        let Some((written, blocks, completing)) = self.completing.pop_front() else { return Ok(()) };
        completing.wait()?;
        self.done.push(written);
        if record && !blocks.is_empty() {
            self.stage(written, blocks);
        }
        Ok(())
    }

    /// Records a durable segment as staged, where there is room for it. A push does not fail by it.
    fn stage(&mut self, segment: Written, blocks: Vec<StagedBlock>) {
        let Some(staging) = &mut self.staging else { return };
        let Some(bytes_left) = staging.bytes_left.checked_sub(segment.bytes) else { return };
        let Ok(expires) = Timestamp::now().checked_add(STAGED_TIME_MAX) else {
            return;
        };
        let record = StagedRecord { page_size: self.page_size, expires, segment, blocks };
        let path = Name::Staged(staging.scope, segment.id).path(self.replica.id());
        match self.replica.shared().store.put(&path, record.encode()) {
            Ok(()) => {
                staging.bytes_left = bytes_left;
                self.recorded.push(segment.id);
            }
            Err(error) => tracing::warn!(%error, "a segment of a running push could not be staged"),
        }
    }

    /// The pages with their entries, ascending.
    pub(super) fn pages(&mut self, count: PageCount) -> Result<Pages, Error> {
        let records = std::mem::replace(&mut self.records, Records::new());
        let merge = records.merge(self.replica.shared())?;
        Ok(Pages { merge, sources: self.sources.clone(), own_sources: self.own_sources, count })
    }

    /// Makes everything durable and returns the segments that the version needs.
    pub(super) fn complete(&mut self) -> Result<&[Written], Error> {
        self.close()?;
        while !self.completing.is_empty() {
            self.settle_one(false)?;
        }
        Ok(&self.done)
    }

    /// The segments that were recorded as staged while the push ran.
    pub(super) fn recorded(&self) -> &[SegmentId] {
        &self.recorded
    }

    /// The push will not be committed: keeps what a later one can take over, within its limits.
    /// `uncommitted` says that this is certain, so that the rest can be removed at once.
    pub(super) fn keep_for_later(&mut self, uncommitted: bool) {
        let useful = self.staging.is_some() && self.writer.as_ref().is_some_and(|w| w.writer.blocks() > 0);
        let mut outcome = if useful { self.close() } else { Ok(()) };
        self.writer = None;
        while !self.completing.is_empty() {
            outcome = outcome.and(self.settle_one(true));
        }
        if let Err(error) = outcome {
            tracing::warn!(%error, "what a cut push sent last is not kept");
        }
        if uncommitted {
            self.remove_unrecorded();
        }
    }

    /// The push will not be committed, and nothing of it is worth keeping.
    pub(super) fn forget(&mut self) {
        if let Some(staging) = self.staging.take() {
            for id in &self.recorded {
                // The segment may have been offered to another push meanwhile: sweeping decides.
                self.remove(Name::Staged(staging.scope, *id));
            }
        }
        self.keep_for_later(true);
    }

    /// Removes the segments that nobody but this push knows of.
    fn remove_unrecorded(&mut self) {
        for id in self.own.iter().filter(|id| !self.recorded.contains(id)) {
            self.remove(Name::Segment(*id));
            if self.hashing20 {
                self.remove(Name::Hashes20(*id));
            }
        }
    }

    fn remove(&self, name: Name) {
        let path = name.path(self.replica.id());
        if let Err(error) = self.replica.shared().store.delete(&path) {
            tracing::warn!(%error, "what a push left is not removed; sweeping will");
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        for id in self.pinned.drain(..) {
            self.replica.shared().pins.remove(id);
        }
    }
}

/// Nodes of the new tree go into the segments, behind the pages.
impl WriteTree<StoredEntry> for Collector {
    type Error = Error;

    fn put(&mut self, node: NodeId, children: &[StoredEntry]) -> Result<StoredEntry, Error> {
        let open = self.open(None)?;
        open.writer.add_node(node, children)?;
        Ok(StoredEntry { hash: hash_of(children), segment: open.writer.id() })
    }
}

/// The pages of a push, ascending, each once, with the entry that the tree is to have for it.
#[derive(Debug)]
pub(super) struct Pages {
    merge: Merge<RECORD_LEN>,
    sources: Vec<SegmentId>,
    own_sources: usize,
    count: PageCount,
}

impl Pages {
    pub(super) fn next(&mut self) -> Result<Option<(PageNumber, StoredEntry)>, Error> {
        let (page, record, source) = loop {
            let Some((page, record)) = self.merge.next()? else { return Ok(None) };
            let source = u32::from_be_bytes([record[4], record[5], record[6], record[7]]) as usize;
            if self.count.contains(page) || source >= self.own_sources {
                break (page, record, source);
            }
        };
        let segment = *self.sources.get(source).ok_or(Error::OutOfOrder("source of a page"))?;
        let mut hash = PageHash([0; PageHash::LEN]);
        hash.0.copy_from_slice(&record[8..]);
        Ok(Some((page, StoredEntry { hash, segment })))
    }
}

fn runs_of(block: &Block) -> Vec<(PageNumber, u16)> {
    let mut runs: Vec<(PageNumber, u16)> = Vec::new();
    for page in block.pages() {
        match runs.last_mut() {
            Some((first, len)) if first.get() + u32::from(*len) == page.get() => *len += 1,
            _ => runs.push((page, 1)),
        }
    }
    runs
}
