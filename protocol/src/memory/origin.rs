//! A database in memory that has pages.

use std::collections::{BTreeSet, VecDeque};

use super::{Content, MemoryError};
use crate::block::{Block, BlockBuilder, Effort};
use crate::exchange::{Base, Committed, OriginPages, Proof, PushId, Since, StagedBlock, Wanted, staged_hash};
use crate::hash::PageHash;
use crate::page::{Geometry, PageNumber};
use crate::sponge::Hash20;
use crate::tree::NodeId;

/// An origin in memory.
#[derive(Clone, Debug)]
pub struct MemoryOrigin {
    content: Content,
    /// Contents that it can tell the difference to.
    known: Vec<Content>,
    base: Option<Base>,
    push_id: Option<PushId>,
    effort: Effort,
    staged: Vec<StagedBlock>,
    to_send: VecDeque<PageNumber>,
    /// What the replica said at the end, in version 3.
    pub committed: Option<Committed>,
}

impl MemoryOrigin {
    /// An origin that has this content.
    pub fn new(content: Content) -> MemoryOrigin {
        MemoryOrigin {
            content,
            known: Vec::new(),
            base: None,
            push_id: None,
            effort: Effort::Fast,
            staged: Vec::new(),
            to_send: VecDeque::new(),
            committed: None,
        }
    }

    /// Lets it know a content.
    pub fn knowing(mut self, content: Content) -> Self {
        self.known.push(content);
        self
    }

    /// Lets it know a content and propose it as the base.
    pub fn with_base(self, base: Base, content: Content) -> Self {
        MemoryOrigin { base: Some(base), ..self.knowing(content) }
    }

    /// The push id that it names.
    pub fn with_push_id(self, push_id: PushId) -> Self {
        MemoryOrigin { push_id: Some(push_id), ..self }
    }

    /// How its blocks are encoded; zstd if nothing is said.
    pub fn with_effort(self, effort: Effort) -> Self {
        MemoryOrigin { effort, ..self }
    }

    fn find(&self, base: &Base) -> Option<&Content> {
        self.known.iter().chain([&self.content]).find(|content| content.root() == base.root)
    }
}

impl OriginPages for MemoryOrigin {
    type Error = MemoryError;

    fn geometry(&mut self) -> Result<Geometry, MemoryError> {
        Ok(self.content.geometry())
    }

    fn base(&mut self) -> Result<Option<Base>, MemoryError> {
        Ok(self.base)
    }

    fn push_id(&mut self) -> Result<Option<PushId>, MemoryError> {
        Ok(self.push_id)
    }

    fn knows(&mut self, base: &Base) -> Result<bool, MemoryError> {
        Ok(self.find(base).is_some())
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, MemoryError> {
        Ok(self.content.group_hash(first, count))
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, MemoryError> {
        Ok(self.content.node(node))
    }

    fn begin(&mut self, wanted: Wanted) -> Result<(), MemoryError> {
        let lock_page = self.content.geometry().page_size.lock_page();
        let numbers: Vec<PageNumber> = match &wanted.since {
            Since::Nothing => self.content.numbers().collect(),
            Since::Base(base) => {
                let old = self.find(base).ok_or(MemoryError::Order)?;
                self.content.changed_since(old).collect()
            }
            Since::Compared { differing, held } => {
                let wanted =
                    |number: &PageNumber| differing.contains(number.get()) || !held.contains(*number);
                self.content.numbers().filter(wanted).collect()
            }
        };
        self.to_send = numbers.into_iter().filter(|number| *number != lock_page).collect();
        self.staged = wanted.staged;
        Ok(())
    }

    fn reused(&mut self) -> Result<Vec<u32>, MemoryError> {
        let mut left: BTreeSet<PageNumber> = self.to_send.iter().copied().collect();
        let mut reused = Vec::new();
        for (place, block) in (0..).zip(&self.staged) {
            let pages = block.runs.iter().flat_map(|(first, count)| {
                (0..u32::from(*count)).filter_map(|n| PageNumber::new(first.get().checked_add(n)?))
            });
            let pages: Vec<PageNumber> = pages.collect();
            let hashes: Vec<PageHash> =
                pages.iter().map(|number| PageHash::of(&self.content.canonical(*number))).collect();
            if pages.iter().all(|number| left.contains(number)) && staged_hash(&hashes) == block.hash {
                pages.iter().for_each(|number| {
                    left.remove(number);
                });
                reused.push(place);
            }
        }
        self.to_send.retain(|number| left.contains(number));
        Ok(reused)
    }

    fn pages_to_send(&mut self) -> Result<Option<u32>, MemoryError> {
        Ok(Some(self.to_send.len() as u32))
    }

    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, MemoryError> {
        let Some(number) = self.to_send.pop_front() else { return Ok(None) };
        page.copy_from_slice(&self.content.page(number));
        Ok(Some(number))
    }

    fn next_block(&mut self) -> Result<Option<Block>, MemoryError> {
        let mut builder = BlockBuilder::new(self.content.geometry().page_size);
        while !builder.is_full() {
            let Some(number) = self.to_send.pop_front() else { break };
            builder.push(number, &self.content.canonical(number));
        }
        Ok(builder.finish(self.effort))
    }

    fn proof(&mut self) -> Result<Proof, MemoryError> {
        Ok(Proof {
            page_count: self.content.geometry().page_count,
            root: self.content.root(),
            fields: self.content.fields(),
        })
    }

    fn acknowledged(&mut self, committed: Committed) -> Result<(), MemoryError> {
        self.committed = Some(committed);
        Ok(())
    }
}
