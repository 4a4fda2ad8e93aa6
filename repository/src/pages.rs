//! The pages of a stored version: found through its tree, verified before they are given out.

use std::collections::VecDeque;

use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::PageNumber;
use sqlrsync_protocol::tree::ReadTree;

use crate::error::{Damage, Error};
use crate::id::SegmentId;
use crate::segment::node::StoredEntry;
use crate::segment::{BlockReader, block_damage};
use crate::tree::StoredTree;

/// Blocks kept decoded: a version that many pushes changed has its pages in as many segments, read
/// in turn. 256 KiB each.
const DECODED_MAX: usize = 48;

/// Reads pages and blocks of a version.
#[derive(Debug)]
pub(crate) struct PageReader {
    pub(crate) tree: StoredTree,
    blocks: BlockReader,
    /// Least lately used first.
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    id: SegmentId,
    block: Block,
    /// The pages, once one of them was asked for.
    raw: Option<Vec<u8>>,
}

impl Held {
    fn has(&self, id: SegmentId, page: PageNumber) -> bool {
        self.id == id && self.block.first() <= page && page <= self.block.last()
    }
}

impl PageReader {
    pub(crate) fn new(tree: StoredTree) -> Self {
        let blocks = BlockReader::new(tree.segments().clone());
        PageReader { tree, blocks, held: VecDeque::new() }
    }

    /// Appends a page's canonical bytes to `out`. The version has the page.
    pub(crate) fn append(&mut self, page: PageNumber, out: &mut Vec<u8>) -> Result<(), Error> {
        let entry = self.tree.page(page)?;
        self.append_entry(page, &entry, out)
    }

    /// As [`PageReader::append`], of a page whose entry is known.
    pub(crate) fn append_entry(
        &mut self,
        page: PageNumber,
        entry: &StoredEntry,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let start = out.len();
        let size = self.tree.geometry().page_size;
        if page == size.lock_page() {
            out.resize(start + size.bytes(), 0);
        } else {
            let held = self.hold(entry.segment, page)?;
            let place = held.block.pages().position(|held| held == page);
            let damaged = |damage| self.blocks.segments().damaged(entry.segment, damage);
            let place = place.ok_or_else(|| damaged(Damage::PageMissing(page)))?;
            let Some(held) = self.held.back_mut() else { return Err(damaged(Damage::PageMissing(page))) };
            let raw = match &mut held.raw {
                Some(raw) => raw,
                none => {
                    let mut raw = Vec::new();
                    let decoded = held.block.decode(&mut raw);
                    decoded.map_err(|error| {
                        self.blocks.segments().damaged(entry.segment, block_damage(error))
                    })?;
                    none.insert(raw)
                }
            };
            out.extend_from_slice(&raw[place * size.bytes()..(place + 1) * size.bytes()]);
        }
        if PageHash::of(&out[start..]) != entry.hash {
            out.truncate(start);
            return Err(self.blocks.segments().damaged(entry.segment, Damage::Page(page)));
        }
        Ok(())
    }

    /// The stored block that a page of this segment is in.
    pub(crate) fn block(&mut self, id: SegmentId, page: PageNumber) -> Result<Block, Error> {
        self.hold(id, page).map(|held| held.block.clone())
    }

    /// Whether `page` is the first of its block, by the index alone.
    pub(crate) fn begins_block(&self, id: SegmentId, page: PageNumber) -> Result<bool, Error> {
        Ok(self.blocks.find(id, page)?.first == page.get())
    }

    /// Makes the page's block the last of those held.
    fn hold(&mut self, id: SegmentId, page: PageNumber) -> Result<&Held, Error> {
        let held = match self.held.iter().rposition(|held| held.has(id, page)) {
            Some(place) => self.held.remove(place),
            None => None,
        };
        let held = match held {
            Some(held) => held,
            None => {
                let entry = self.blocks.find(id, page)?;
                let block = self.blocks.block(id, &entry)?;
                if block.page_size() != self.tree.geometry().page_size {
                    return Err(self.blocks.segments().damaged(id, Damage::Structure));
                }
                Held { id, block, raw: None }
            }
        };
        while self.held.len() >= DECODED_MAX {
            self.held.pop_front();
        }
        self.held.push_back(held);
        // Just pushed.
        self.held.back().ok_or_else(|| self.blocks.segments().damaged(id, Damage::PageMissing(page)))
    }
}
