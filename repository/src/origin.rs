//! A stored version as something that has pages: what a pull is served from.
//!
//! Stored blocks go out as they are where all of their pages are wanted and still current; what is
//! left is collected into new blocks, which are compressed beside. So are blocks of a few pages: each of many small
//! pushes left one, and they would cut what is collected into pieces.

use std::collections::VecDeque;

use roaring::RoaringBitmap;
use sqlrsync_protocol::block::{BLOCK_RAW_MAX, Block, BlockBuilder};
use sqlrsync_protocol::exchange::{
    Base, Committed, Form, OriginPages, Proof, PushId, Since, StagedBlock, Wanted, staged_hash,
};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

use crate::content::{changed, pages_after};
use crate::error::Error;
use crate::groups20::Groups20;
use crate::manifest::Manifest;
use crate::pages::PageReader;
use crate::rebuilt::{ON_THEIR_WAY_MAX, Rebuilt, compress};
use crate::replica::Replica;

/// A stored block whose pages take less than this goes together with its neighbours.
const FEW_BYTES: usize = BLOCK_RAW_MAX / 4;

/// A version being read. It does not change, so that reading may take as long as it likes.
#[derive(Debug)]
pub struct VersionOrigin {
    replica: Replica,
    version: Manifest,
    pages: PageReader,
    groups: Option<Groups20>,
    /// Pages still to be sent.
    wanted: RoaringBitmap,
    staged: Vec<StagedBlock>,
    /// A page that is being put together.
    page: Vec<u8>,
    /// What was asked for is to be sent in blocks.
    in_blocks: bool,
    /// What is sent next.
    outgoing: VecDeque<Outgoing>,
    rebuilt: Rebuilt,
}

/// A block on its way out.
#[derive(Debug)]
enum Outgoing {
    Ready(Block),
    /// The next one of those that are rebuilt.
    Rebuilt,
}

impl VersionOrigin {
    pub(crate) fn new(replica: Replica, version: Manifest) -> Result<VersionOrigin, Error> {
        let mut tree = replica.tree(&version);
        tree.prove_top()?;
        Ok(VersionOrigin {
            pages: PageReader::new(tree),
            replica,
            version,
            groups: None,
            wanted: RoaringBitmap::new(),
            staged: Vec::new(),
            page: Vec::new(),
            in_blocks: false,
            outgoing: VecDeque::new(),
            rebuilt: Rebuilt::default(),
        })
    }

    /// The version that is read.
    pub fn version(&self) -> &Manifest {
        &self.version
    }

    fn count(&self) -> PageCount {
        self.version.geometry.page_count
    }

    /// The pages that changed since a base. One that is gone meanwhile is an error.
    fn changed_since(&mut self, base: &Base) -> Result<RoaringBitmap, Error> {
        let Some(old) = self.replica.find_base(base)? else {
            return Err(Error::NoVersion(base.version.unwrap_or(self.version.number)));
        };
        if old.root == self.version.root {
            return Ok(RoaringBitmap::new());
        }
        if old.geometry.page_size != self.version.geometry.page_size {
            return Ok(pages_after(PageCount::ZERO, self.count()));
        }
        changed(&mut self.replica.tree(&old), &mut self.pages.tree)
    }

    fn take_next(&mut self) -> Option<PageNumber> {
        let page = self.wanted.min()?;
        self.wanted.remove(page);
        PageNumber::new(page)
    }

    /// The stored block that begins with `page`, where it is exactly what is to be sent next.
    fn whole_block(&mut self, page: PageNumber) -> Result<Option<Block>, Error> {
        let id = self.pages.tree.page(page)?.segment;
        if !self.pages.begins_block(id, page)? {
            return Ok(None);
        }
        let block = self.pages.block(id, page)?;
        let (first, last) = (block.first().get(), block.last().get());
        let exact = self.wanted.range_cardinality(first..=last) == u64::from(block.page_count())
            && block.pages().all(|page| self.wanted.contains(page.get()));
        if !exact {
            return Ok(None);
        }
        for page in block.pages() {
            if self.pages.tree.page(page)?.segment != id {
                return Ok(None);
            }
        }
        Ok(Some(block))
    }

    /// Whether a block is to be sent by itself: it is not small, or nothing is there that it could go together with.
    fn stands_alone(&self, block: &Block, collected: &BlockBuilder) -> bool {
        let bytes = block.page_count() as usize * block.page_size().bytes();
        let all = collected.is_empty() && self.wanted.len() == u64::from(block.page_count());
        all || bytes >= FEW_BYTES
    }

    /// Puts the next block behind those on their way out: a stored one, or what is wanted before it.
    fn gather(&mut self) -> Result<(), Error> {
        let mut pages = BlockBuilder::new(self.version.geometry.page_size);
        while let (false, Some(page)) = (pages.is_full(), self.wanted.min().and_then(PageNumber::new)) {
            let whole = self.whole_block(page)?;
            if let Some(block) = whole.filter(|block| self.stands_alone(block, &pages)) {
                // What was collected so far goes before it.
                if pages.is_empty() {
                    self.wanted.remove_range(block.first().get()..=block.last().get());
                    self.outgoing.push_back(Outgoing::Ready(block));
                    return Ok(());
                }
                break;
            }
            self.page.clear();
            self.pages.append(page, &mut self.page)?;
            pages.push(page, &self.page);
            self.wanted.remove(page.get());
        }
        // The only one is not worth a thread.
        let alone = self.wanted.is_empty() && self.outgoing.is_empty();
        let ready = if alone { compress(pages) } else { self.rebuilt.give(pages) };
        self.outgoing.push_back(ready.map_or(Outgoing::Rebuilt, Outgoing::Ready));
        Ok(())
    }
}

impl OriginPages for VersionOrigin {
    type Error = Error;

    fn geometry(&mut self) -> Result<Geometry, Error> {
        Ok(self.version.geometry)
    }

    fn base(&mut self) -> Result<Option<Base>, Error> {
        Ok(None)
    }

    fn push_id(&mut self) -> Result<Option<PushId>, Error> {
        Ok(None)
    }

    fn knows(&mut self, base: &Base) -> Result<bool, Error> {
        if base.root == self.version.root {
            return Ok(true);
        }
        match self.replica.find_base(base)? {
            Some(known) if self.replica.is_nowhere_else(&known)? => Ok(false),
            Some(known) => Ok(!self.replica.is_expired(&known)?),
            None => Ok(false),
        }
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        let groups = self.groups.get_or_insert_with(|| Groups20::new(&self.replica, &self.version));
        groups.group_hash(first, count)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        self.pages.tree.hashes(node)
    }

    fn begin(&mut self, wanted: Wanted) -> Result<(), Error> {
        let count = self.count();
        let mut pages = match wanted.since {
            Since::Nothing => pages_after(PageCount::ZERO, count),
            Since::Base(base) if base.root == self.version.root => RoaringBitmap::new(),
            Since::Base(base) => self.changed_since(&base)?,
            Since::Compared { mut differing, held } => {
                // A page past the end is never sent, whatever the peer asks for.
                differing.remove(0);
                if count.get() < u32::MAX {
                    differing.remove_range(count.get() + 1..);
                }
                differing | pages_after(held, count)
            }
        };
        pages.remove(self.version.geometry.page_size.lock_page().get());
        pages.optimize();
        self.wanted = pages;
        self.staged = wanted.staged;
        self.in_blocks = wanted.form == Form::Blocks;
        (self.outgoing, self.rebuilt) = (VecDeque::new(), Rebuilt::default());
        Ok(())
    }

    fn reused(&mut self) -> Result<Vec<u32>, Error> {
        let mut reused = Vec::new();
        for (place, staged) in (0u32..).zip(std::mem::take(&mut self.staged)) {
            let numbers = staged.runs.iter().flat_map(|(first, len)| {
                (0..u32::from(*len)).filter_map(move |n| PageNumber::new(first.get().checked_add(n)?))
            });
            let numbers: Vec<PageNumber> = numbers.collect();
            if numbers.is_empty() || !numbers.iter().all(|page| self.wanted.contains(page.get())) {
                continue;
            }
            let mut hashes = Vec::with_capacity(numbers.len());
            for page in &numbers {
                hashes.push(self.pages.tree.page(*page)?.hash);
            }
            if staged_hash(&hashes) == staged.hash {
                numbers.iter().for_each(|page| {
                    self.wanted.remove(page.get());
                });
                reused.push(place);
            }
        }
        Ok(reused)
    }

    fn pages_to_send(&mut self) -> Result<Option<u32>, Error> {
        Ok(u32::try_from(self.wanted.len()).ok())
    }

    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, Error> {
        let Some(number) = self.take_next() else { return Ok(None) };
        self.page.clear();
        self.pages.append(number, &mut self.page)?;
        if number == PageNumber::FIRST {
            self.version.fields.put(&mut self.page);
        }
        if page.len() != self.page.len() {
            return Err(Error::OutOfOrder("next_page"));
        }
        page.copy_from_slice(&self.page);
        Ok(Some(number))
    }

    fn next_block(&mut self) -> Result<Option<Block>, Error> {
        if !self.in_blocks {
            return Err(Error::OutOfOrder("next_block"));
        }
        loop {
            let no_more = self.wanted.is_empty() || self.outgoing.len() >= ON_THEIR_WAY_MAX;
            match self.outgoing.pop_front() {
                Some(Outgoing::Ready(block)) => return Ok(Some(block)),
                Some(Outgoing::Rebuilt) if no_more => {
                    return self.rebuilt.take().map(Some).ok_or(Error::OutOfOrder("a rebuilt block"));
                }
                Some(rebuilt) => self.outgoing.push_front(rebuilt),
                None if no_more => return Ok(None),
                None => {}
            }
            self.gather()?;
        }
    }

    fn proof(&mut self) -> Result<Proof, Error> {
        let Manifest { geometry, root, fields, .. } = self.version;
        Ok(Proof { page_count: geometry.page_count, root, fields })
    }

    fn acknowledged(&mut self, _: Committed) -> Result<(), Error> {
        Ok(())
    }
}
