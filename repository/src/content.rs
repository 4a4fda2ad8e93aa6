//! A stored content as something to look into, and what two of them do not have in common. Both take
//! versions and candidates alike.

mod ahead;

use std::sync::Arc;

use roaring::RoaringBitmap;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};
use sqlrsync_protocol::tree::{DiffError, ReadTree, TreeDiff};

use crate::cache::Cache;
use crate::error::{Damage, Error};
use crate::id::SegmentId;
use crate::manifest::Manifest;
use crate::replica::Replica;
use crate::segment::format::PartEntry;
use crate::segment::node::StoredEntry;
use crate::segment::{BlockReader, block_damage};
use crate::tree::StoredTree;

use ahead::Ahead;

/// Which block: its segment, and the first page in it.
type BlockKey = (SegmentId, u32);

/// Decoded blocks that all contents of a process share: those that are merged have most of theirs in common,
/// and who looks into a database comes back to the same pages again and again.
pub(crate) type DecodedBlocks = Cache<BlockKey, Arc<Decoded>>;

/// A decoded block. (Not the block itself: that may be a small part of what was read ahead.)
#[derive(Debug)]
pub(crate) struct Decoded {
    pages: Vec<PageNumber>,
    raw: Vec<u8>,
}

impl Decoded {
    /// The bytes that it takes up.
    fn bytes(&self) -> usize {
        size_of::<Decoded>() + self.raw.len() + self.pages.len() * size_of::<PageNumber>()
    }

    fn page(&self, page: PageNumber, size: PageSize) -> Option<&[u8]> {
        let place = self.pages.binary_search(&page).ok()?;
        self.raw.get(place * size.bytes()..(place + 1) * size.bytes())
    }
}

/// The blocks in which the pages of a content are.
#[derive(Debug)]
struct Blocks {
    tree: StoredTree,
    reader: BlockReader,
    decoded: Arc<DecodedBlocks>,
}

impl Blocks {
    fn new(tree: StoredTree, decoded: Arc<DecodedBlocks>) -> Blocks {
        Blocks { reader: BlockReader::new(tree.segments().clone()), tree, decoded }
    }

    /// What the tree says of a page, and the block with it; `None` for the lock page, which is in none.
    fn find(&mut self, page: PageNumber) -> Result<Option<(StoredEntry, PartEntry)>, Error> {
        let Geometry { page_size, page_count } = self.tree.geometry();
        if !page_count.contains(page) {
            return Err(Error::OutOfOrder("read of a page"));
        }
        if page == page_size.lock_page() {
            return Ok(None);
        }
        let entry = self.tree.page(page)?;
        let place = self.reader.find(entry.segment, page)?;
        Ok(Some((entry, place)))
    }

    fn is_decoded(&self, key: &BlockKey) -> bool {
        self.decoded.get(key).is_some()
    }

    /// Reads and decodes a block.
    fn decode(&mut self, entry: &StoredEntry, place: &PartEntry) -> Result<Arc<Decoded>, Error> {
        let id = entry.segment;
        let block = self.reader.block(id, place)?;
        let damaged = |damage| self.damaged(entry, damage);
        if block.page_size() != self.tree.geometry().page_size {
            return Err(damaged(Damage::Structure));
        }
        let mut raw = Vec::new();
        block.decode(&mut raw).map_err(|error| damaged(block_damage(error)))?;
        Ok(Arc::new(Decoded { pages: block.pages().collect(), raw }))
    }

    fn damaged(&self, entry: &StoredEntry, damage: Damage) -> Error {
        self.reader.segments().damaged(entry.segment, damage)
    }
}

/// A stored content, read page by page. Every page is verified before it is given out.
#[derive(Debug)]
pub struct VersionContent {
    fields: HeaderFields,
    blocks: Blocks,
    ahead: Option<Ahead>,
    taken: BlocksTaken,
}

/// Where the blocks came from that a content did not find decoded.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlocksTaken {
    /// From a thread that decoded them ahead.
    pub ahead: u64,
    /// Decoded when they were asked for.
    pub when_asked: u64,
}

impl VersionContent {
    /// How the blocks were had that were read so far: for tests, since what is read is the same either way.
    #[doc(hidden)]
    pub fn blocks_taken(&self) -> BlocksTaken {
        self.taken
    }

    fn page(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), Error> {
        let size = self.blocks.tree.geometry().page_size;
        if into.len() != size.bytes() {
            return Err(Error::OutOfOrder("read of a page"));
        }
        let Some((entry, place)) = self.blocks.find(page)? else {
            into.fill(0);
            return Ok(());
        };
        let block = self.block(&entry, &place, page)?;
        let damaged = |damage| self.blocks.damaged(&entry, damage);
        let bytes = block.page(page, size).ok_or_else(|| damaged(Damage::PageMissing(page)))?;
        if PageHash::of(bytes) != entry.hash {
            return Err(damaged(Damage::Page(page)));
        }
        into.copy_from_slice(bytes);
        Ok(())
    }

    /// The block with this page, decoded.
    fn block(
        &mut self,
        entry: &StoredEntry,
        place: &PartEntry,
        page: PageNumber,
    ) -> Result<Arc<Decoded>, Error> {
        let key = (entry.segment, place.first);
        if let Some(found) = self.blocks.decoded.get(&key) {
            return Ok(found);
        }
        let ahead = self.ahead.as_mut().and_then(|ahead| ahead.block(page, key));
        let decoded = match ahead {
            Some(decoded) => {
                self.taken.ahead += 1;
                decoded
            }
            None => {
                self.taken.when_asked += 1;
                self.blocks.decode(entry, place)?
            }
        };
        self.blocks.decoded.put(key, decoded.clone(), decoded.bytes());
        Ok(decoded)
    }
}

impl Content for VersionContent {
    fn geometry(&self) -> Geometry {
        self.blocks.tree.geometry()
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        self.page(page, into).map_err(|error| Box::new(error) as ContentError)
    }

    fn expect(&mut self, pages: &RoaringBitmap) {
        let Blocks { tree, decoded, .. } = &self.blocks;
        self.ahead = Ahead::new(pages, || Blocks::new(tree.clone(), decoded.clone()));
    }
}

impl Replica {
    /// A version or a candidate as a database to look into.
    ///
    /// # Errors
    /// [`Error::Expired`] where the pages may be gone.
    pub fn content(&self, of: &Manifest) -> Result<VersionContent, Error> {
        self.not_expired(of)?;
        let mut tree = self.tree(of);
        tree.prove_top()?;
        let blocks = Blocks::new(tree, self.shared().decoded.clone());
        Ok(VersionContent { fields: of.fields, blocks, ahead: None, taken: BlocksTaken::default() })
    }

    /// The pages that two contents do not have in common: those that differ, and those that one of the two
    /// does not have. It reads what differs of the page trees, and no page.
    pub fn changed_pages(&self, old: &Manifest, new: &Manifest) -> Result<ChangedPages, Error> {
        if old.geometry.page_size != new.geometry.page_size {
            return Ok(ChangedPages::Unknown);
        }
        if old.root == new.root {
            return Ok(ChangedPages::Known(RoaringBitmap::new()));
        }
        self.not_expired(old)?;
        self.not_expired(new)?;
        let mut changed = changed(&mut self.tree(old), &mut self.tree(new))?;
        changed |= pages_after(new.geometry.page_count, old.geometry.page_count);
        Ok(ChangedPages::Known(changed))
    }
}

/// The pages of `new` that `old` has otherwise or does not have.
pub(crate) fn changed(old: &mut StoredTree, new: &mut StoredTree) -> Result<RoaringBitmap, Error> {
    let mut diff = TreeDiff::new(old, new);
    let mut changed = RoaringBitmap::new();
    loop {
        match diff.next_page() {
            Ok(Some((page, _))) => changed.insert(page.get()),
            Ok(None) => return Ok(changed),
            Err(DiffError::Old(error) | DiffError::New(error)) => return Err(error),
        };
    }
}

/// The pages behind the first `held`, up to `count`.
pub(crate) fn pages_after(held: PageCount, count: PageCount) -> RoaringBitmap {
    let mut pages = RoaringBitmap::new();
    if held < count {
        pages.insert_range(held.get() + 1..=count.get());
    }
    pages
}
