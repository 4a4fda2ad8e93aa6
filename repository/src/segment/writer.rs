//! Writes a segment in one stream. Memory: one part of the upload and the index.

use bytes::Bytes;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::page::{PageNumber, PageSize};
use sqlrsync_protocol::tree::NodeId;

use super::format::{
    Footer, HEADER_LEN, PartEntry, SEGMENT_PAGES_FULL, SEGMENT_PARTS_MAX, Stretch, encode_header,
    encode_index,
};
use super::node::{self, StoredEntry};
use crate::error::Error;
use crate::id::{Name, ReplicaId, SegmentId};
use crate::sealed::{CHECK_LEN, Check};
use crate::store::{Completing, Store, Upload};

/// A segment whose bytes are all given: what a manifest says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
    /// The footer's checksum, from which a chain leads to every part.
    pub(crate) check: Check,
}

/// A segment being written. Dropped, nothing of it stays.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    id: SegmentId,
    upload: Upload,
    header_check: Check,
    offset: u64,
    entries: Vec<PartEntry>,
    blocks: u32,
    nodes: u32,
    pages: u32,
    last: Option<PageNumber>,
}

impl SegmentWriter {
    pub(crate) fn new(
        store: &Store,
        replica: ReplicaId,
        id: SegmentId,
        page_size: PageSize,
    ) -> Result<Self, Error> {
        let mut upload = Upload::new(store, Name::Segment(id).path(replica));
        let (header, header_check) = encode_header(id, page_size);
        upload.write(header.into())?;
        Ok(SegmentWriter {
            id,
            upload,
            header_check,
            offset: HEADER_LEN as u64,
            entries: Vec::new(),
            blocks: 0,
            nodes: 0,
            pages: 0,
            last: None,
        })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Whether the next part is to go into another segment, where one is to have `bytes_full` at most.
    pub(crate) fn is_full(&self, bytes_full: u64) -> bool {
        self.offset >= bytes_full
            || self.entries.len() >= SEGMENT_PARTS_MAX
            || self.pages >= SEGMENT_PAGES_FULL
    }

    /// The last page in it.
    pub(crate) fn last(&self) -> Option<PageNumber> {
        self.last
    }

    /// How many blocks are in it.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Adds a block, as it came. Its pages are after those that are in already.
    pub(crate) fn add_block(&mut self, block: &Block) -> Result<(), Error> {
        debug_assert!(self.last.is_none_or(|last| last < block.first()));
        self.add(0, block.first().get(), block.last().get(), block.as_bytes().clone())?;
        self.last = Some(block.last());
        self.blocks += 1;
        self.pages += block.page_count();
        Ok(())
    }

    /// Adds a node of the page tree.
    pub(crate) fn add_node(&mut self, node: NodeId, children: &[StoredEntry]) -> Result<(), Error> {
        self.nodes += 1;
        self.add(node.level, node.index, node.index, node::encode(node, children).into())
    }

    fn add(&mut self, level: u8, first: u32, last: u32, bytes: Bytes) -> Result<(), Error> {
        let mut check = [0; CHECK_LEN];
        check.copy_from_slice(&bytes[..CHECK_LEN]);
        let at = Stretch { offset: self.offset, len: bytes.len() as u32, check };
        self.entries.push(PartEntry { level, first, last, at });
        self.offset += bytes.len() as u64;
        self.upload.write(bytes)
    }

    /// Writes index and footer, and begins to make the object durable.
    pub(crate) fn finish(mut self) -> Result<(Written, Completing), Error> {
        let (index, top) = encode_index(&mut self.entries, self.offset);
        self.upload.write(index.into())?;
        let footer = Footer {
            id: self.id,
            top,
            header_check: self.header_check,
            bytes: top.end() + super::format::FOOTER_LEN as u64,
            blocks: self.blocks,
            nodes: self.nodes,
            pages: self.pages,
        };
        let (bytes, check) = footer.encode();
        self.upload.write(bytes.into())?;
        let written = Written { id: self.id, bytes: footer.bytes, check };
        Ok((written, self.upload.complete()))
    }
}
