//! A database in memory that takes pages.

use std::collections::BTreeMap;

use super::{Content, MemoryError};
use crate::block::Block;
use crate::exchange::{Base, Committed, End, Ground, Held, PushId, ReplicaPages, StagedBlock, staged_hash};
use crate::hash::PageHash;
use crate::page::{Geometry, PageNumber, VersionNumber};
use crate::sponge::Hash20;
use crate::tree::NodeId;

/// A replica in memory. It keeps every content that it had as a numbered version.
#[derive(Clone, Debug, Default)]
pub struct MemoryReplica {
    /// Versions 1, 2, ...
    pub versions: Vec<Content>,
    /// Blocks that a cut push left.
    pub staged: Vec<Block>,
    keeps_unknown: bool,
    /// What the last exchange was a difference to.
    pub ground: Option<Ground>,
    /// The push id that the origin named.
    pub push_id: Option<PushId>,
    origin: Option<Geometry>,
    base: Option<Content>,
    pages: BTreeMap<PageNumber, Vec<u8>>,
}

impl MemoryReplica {
    /// A replica that has nothing.
    pub fn empty() -> MemoryReplica {
        MemoryReplica::default()
    }

    /// A replica that had these contents, the last being what it has.
    pub fn of(versions: impl IntoIterator<Item = Content>) -> MemoryReplica {
        MemoryReplica { versions: versions.into_iter().collect(), ..MemoryReplica::default() }
    }

    /// Lets it refuse to lose a content that the origin does not know.
    pub fn keeping_unknown(self) -> MemoryReplica {
        MemoryReplica { keeps_unknown: true, ..self }
    }

    /// What it has.
    pub fn content(&self) -> Option<&Content> {
        self.versions.last()
    }

    fn number(&self) -> Option<VersionNumber> {
        VersionNumber::new(self.versions.len() as u64)
    }

    fn take(&mut self, block: &Block) -> Result<(), MemoryError> {
        let mut raw = Vec::new();
        block.decode(&mut raw).map_err(|_| MemoryError::Block)?;
        for (number, page) in block.pages().zip(raw.chunks_exact(block.page_size().bytes())) {
            self.pages.insert(number, page.to_vec());
        }
        Ok(())
    }
}

impl ReplicaPages for MemoryReplica {
    type Error = MemoryError;

    fn begin(&mut self, origin: Geometry, version: u8) -> Result<Held, MemoryError> {
        self.origin = Some(origin);
        self.pages.clear();
        let base = self.content().filter(|_| version == 3);
        Ok(Held {
            geometry: self.content().map(Content::geometry),
            base: base.map(|content| Base { version: self.number(), root: content.root() }),
        })
    }

    fn staged(&mut self) -> Result<Vec<StagedBlock>, MemoryError> {
        let page_size = self.origin.ok_or(MemoryError::Order)?.page_size;
        self.staged.retain(|block| block.page_size() == page_size);
        let mut raw = Vec::new();
        let mut staged = Vec::new();
        for block in &self.staged {
            block.decode(&mut raw).map_err(|_| MemoryError::Block)?;
            let hashes: Vec<PageHash> = raw.chunks_exact(page_size.bytes()).map(PageHash::of).collect();
            let runs = block.pages().map(|number| (number, 1)).collect();
            staged.push(StagedBlock { runs, hash: staged_hash(&hashes) });
        }
        Ok(staged)
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, MemoryError> {
        Ok(self.content().ok_or(MemoryError::Order)?.group_hash(first, count))
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, MemoryError> {
        Ok(self.content().ok_or(MemoryError::Order)?.node(node))
    }

    fn accept(&mut self, ground: Ground, push: Option<PushId>) -> Result<bool, MemoryError> {
        let changed = match ground {
            Ground::Compared => true,
            Ground::Nothing { recognised } => !recognised && self.content().is_some(),
            Ground::Held | Ground::Proposed(_) => false,
        };
        if changed && self.keeps_unknown {
            return Err(MemoryError::Changed);
        }
        self.base = match ground {
            Ground::Nothing { .. } => None,
            Ground::Held | Ground::Compared => self.content().cloned(),
            Ground::Proposed(base) => {
                let Some(content) = self.versions.iter().find(|content| content.root() == base.root) else {
                    return Ok(false);
                };
                Some(content.clone())
            }
        };
        self.ground = Some(ground);
        self.push_id = push;
        Ok(true)
    }

    fn reuse(&mut self, staged: &[u32]) -> Result<(), MemoryError> {
        for place in staged {
            let block = self.staged.get(*place as usize).cloned().ok_or(MemoryError::Order)?;
            self.take(&block)?;
        }
        Ok(())
    }

    fn take_page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), MemoryError> {
        self.pages.insert(number, page.to_vec());
        Ok(())
    }

    fn take_block(&mut self, block: Block) -> Result<(), MemoryError> {
        self.take(&block)?;
        self.staged.push(block);
        Ok(())
    }

    fn finish(&mut self, end: End) -> Result<Committed, MemoryError> {
        let page_size = self.origin.ok_or(MemoryError::Order)?.page_size;
        let page_count = match end {
            End::PageCount(page_count) => page_count,
            End::Proof(proof) => proof.page_count,
        };
        let base = self.base.take();
        let mut new = base.unwrap_or_else(|| Content::zeros(Geometry { page_size, page_count }));
        new.resize(page_count);
        for (number, page) in std::mem::take(&mut self.pages) {
            new.set(number, &page);
        }
        if let End::Proof(proof) = end {
            if new.root() != proof.root {
                return Err(MemoryError::Root);
            }
            if page_count.get() > 0 {
                let mut first = new.page(PageNumber::FIRST).into_owned();
                proof.fields.put(&mut first);
                new.set(PageNumber::FIRST, &first);
            }
        }
        let overtook = matches!(self.ground, Some(Ground::Proposed(_)));
        let unchanged = self.content().is_some_and(|old| old.root() == new.root());
        if !unchanged {
            self.versions.push(new);
        }
        self.staged.clear();
        Ok(Committed { version: self.number(), unchanged, overtook, ..Committed::default() })
    }
}
