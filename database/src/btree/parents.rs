//! The parent map: for each page the page that leads to it.
//!
//! For a page of a B-tree that is the interior page that lists it, for an overflow page the one before it in
//! its chain, or the page with the cell that begins the chain. 0 is a page of which nothing is known: a
//! root, a free page, or one that the map has not learned of.
//!
//! - The map is a **hint**. It says where to look, and what is found there counts: [`super::touched()`] walks
//!   down from the roots and only picks its way by the map. A map that is old, damaged or made up costs
//!   reading, never a row.
//! - What makes it true is local: a page of a B-tree names its children and its overflow chains, an overflow
//!   page its successor. So the map of one content becomes that of another when only the pages that differ
//!   are read. Free pages keep what they once were and are not asked; what was free and is in use again with
//!   the same bytes is no page that differs, and is read as well.
//! - Its clones share what they have in common.

use std::sync::Arc;

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::{Content, ContentError};

use super::layout::Layout;
use super::page::{Kind, Malformed, Page, u32_at};
use super::pages::Pages;

mod blob;

pub(crate) use blob::seal;

/// Pages of a chunk, the piece in which the map is kept, decoded and shared.
const CHUNK_PAGES: usize = 16_384;

/// A chunk of the map.
#[derive(Clone, Debug)]
enum Chunk {
    /// Nothing is known of its pages.
    Unknown,
    /// The parents, one for each page.
    Known(Arc<Vec<u32>>),
    /// Still encoded.
    Encoded(blob::Piece),
}

/// For each page of a content the page that leads to it, where that is known.
#[derive(Clone, Debug, Default)]
pub struct ParentMap {
    page_count: u32,
    chunks: Vec<Chunk>,
}

impl ParentMap {
    /// A map that knows nothing. With it all that [`super::touched()`] finds costs a walk through everything.
    pub fn unknown() -> ParentMap {
        ParentMap::default()
    }

    /// Whether it knows nothing.
    pub fn is_unknown(&self) -> bool {
        self.chunks.iter().all(|chunk| matches!(chunk, Chunk::Unknown))
    }

    /// The map of a content. Every page is read once, in order.
    ///
    /// # Errors
    /// Where a page cannot be read.
    pub fn build(content: &mut dyn Content) -> Result<ParentMap, ContentError> {
        match Pages::open(content)? {
            Some(mut pages) => ParentMap::of(&mut pages),
            None => Ok(ParentMap::unknown()),
        }
    }

    /// Makes this map, which is that of `from`, the map of `to`; `changed` are the pages in which the two
    /// differ. Those and the lists of free pages are read.
    ///
    /// # Errors
    /// Where a page cannot be read. The map then is good for nothing but a hint.
    pub fn bring(
        &mut self,
        from: &mut dyn Content,
        to: &mut dyn Content,
        changed: &RoaringBitmap,
    ) -> Result<(), ContentError> {
        let Some(mut to) = Pages::open(to)? else {
            *self = ParentMap::unknown();
            return Ok(());
        };
        let free = to.free()?;
        let mut ask = changed.clone();
        if let Some(mut from) = Pages::open(from)? {
            ask |= from.free()?;
        }
        ask -= free;
        let layout = to.layout;
        let mut page = Vec::new();
        to.expect(&ask);
        for number in ask.iter().filter(|&number| layout.is_data(number)) {
            to.read(number, &mut page)?;
            self.learn(number, &page, layout);
        }
        self.resize(layout.page_count);
        Ok(())
    }

    /// The map of a content.
    pub(crate) fn of(pages: &mut Pages<'_>) -> Result<ParentMap, ContentError> {
        let mut map = ParentMap::unknown();
        let free = pages.free()?;
        let mut page = Vec::new();
        let layout = pages.layout;
        let mut ask = RoaringBitmap::from_iter(1..=layout.page_count);
        ask -= free;
        pages.expect(&ask);
        for number in ask.iter().filter(|&number| layout.is_data(number)) {
            pages.read(number, &mut page)?;
            map.learn(number, &page, layout);
        }
        map.resize(pages.layout.page_count);
        Ok(map)
    }

    /// Notes where a page leads to, which is in use.
    pub(crate) fn learn(&mut self, number: u32, page: &[u8], layout: Layout) {
        names(number, page, layout, |child| self.set(child, number));
    }
    /// The page that leads to `page`; 0: unknown.
    pub(crate) fn get(&mut self, page: u32) -> u32 {
        let (chunk, at) = place(page);
        match self.chunk(chunk) {
            Chunk::Known(parents) => parents.get(at).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Notes that `parent` leads to `page`.
    pub(crate) fn set(&mut self, page: u32, parent: u32) {
        let (chunk, at) = place(page);
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, Chunk::Unknown);
        }
        self.page_count = self.page_count.max(page);
        self.chunk(chunk);
        let known = &mut self.chunks[chunk];
        if !matches!(known, Chunk::Known(_)) {
            *known = Chunk::Known(Arc::new(vec![0; CHUNK_PAGES]));
        }
        if let Chunk::Known(parents) = known
            && parents.get(at).is_some_and(|&known| known != parent)
        {
            Arc::make_mut(parents)[at] = parent;
        }
    }

    /// All pages from which the hints lead to these, and these: what has to be walked to reach them.
    pub(crate) fn with_ancestors(&mut self, pages: &RoaringBitmap) -> RoaringBitmap {
        let mut marked = pages.clone();
        for page in pages {
            let mut parent = self.get(page);
            // Each step marks a page, so a circle ends.
            while parent != 0 && marked.insert(parent) {
                parent = self.get(parent);
            }
        }
        marked
    }

    /// The chunk, decoded. One that cannot be is one of which nothing is known.
    fn chunk(&mut self, index: usize) -> &Chunk {
        const UNKNOWN: &Chunk = &Chunk::Unknown;
        let Some(chunk) = self.chunks.get_mut(index) else { return UNKNOWN };
        if let Chunk::Encoded(piece) = chunk {
            *chunk = match piece.decode(index) {
                Some(parents) => Chunk::Known(Arc::new(parents)),
                None => Chunk::Unknown,
            };
        }
        chunk
    }

    /// Forgets pages that the content has not.
    pub(crate) fn resize(&mut self, page_count: u32) {
        self.page_count = page_count;
        self.chunks.resize((page_count as usize).div_ceil(CHUNK_PAGES), Chunk::Unknown);
    }
}

/// Where a page's parent stands. Page 0 is none and is where page 1 is: nobody asks for it.
const fn place(page: u32) -> (usize, usize) {
    let index = page.saturating_sub(1) as usize;
    (index / CHUNK_PAGES, index % CHUNK_PAGES)
}

/// Calls `child` with each page that this one leads to, going by its bytes alone.
///
/// What page it is shows in its first byte: that of an overflow page is the highest byte of a page number,
/// and not one of a B-tree's before page 2^25. In a longer content one that can be decoded as a page of a
/// B-tree counts as one; where that is wrong the hint is, and no more.
fn names(number: u32, bytes: &[u8], layout: Layout, mut child: impl FnMut(u32)) {
    let child = |page: u32| {
        if page > 1 && layout.is_data(page) {
            child(page);
        }
    };
    match tree_names(number, bytes, layout) {
        Ok(pages) => pages.into_iter().for_each(child),
        Err(Malformed) => u32_at(bytes, 0).into_iter().for_each(child),
    }
}

/// The same of a page of a B-tree.
fn tree_names(number: u32, bytes: &[u8], layout: Layout) -> Result<Vec<u32>, Malformed> {
    let page = Page::decode(number, bytes, layout)?;
    let mut pages = page.children()?;
    if page.kind() != Kind::TableInterior {
        for cell in page.cells() {
            pages.extend(cell?.overflow);
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::canonical::empty_database;
    use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};

    use super::*;

    #[test]
    fn an_overflow_page_whose_next_has_a_high_number_is_not_taken_for_a_page_of_a_tree() {
        let geometry = Geometry { page_size: PageSize::MIN, page_count: PageCount(u32::MAX) };
        let layout = Layout::decode(geometry, &empty_database(PageSize::MIN)).unwrap();
        for next in [7u32, 0x0200_0001, 0x0500_0300, 0x0a00_0001, 0x0d12_3456] {
            // What a text leaves there is no header of a page.
            let mut page = [b'x'; 512];
            page[..4].copy_from_slice(&next.to_be_bytes());
            let mut children = Vec::new();
            names(9, &page, layout, |child| children.push(child));
            assert_eq!(children, [next], "{next:#x}");
        }
    }

    #[test]
    fn a_map_comes_back_from_its_bytes_and_clones_do_not_see_each_others_changes() {
        let mut map = ParentMap::unknown();
        let parent = |page: u32| match page % 5 {
            0 => 0,
            1 => page - 1,
            2 => u32::MAX,
            _ => page / 100 + 1,
        };
        (1..40_000).for_each(|page| map.set(page, parent(page)));
        let mut again = ParentMap::decode(&map.encode()).unwrap();
        let mut clone = map.clone();
        clone.set(17, 4000);
        for page in 1..40_000 {
            assert_eq!(again.get(page), parent(page), "{page}");
            assert_eq!(map.get(page), parent(page), "{page}");
        }
        assert_eq!((clone.get(17), again.get(50_000)), (4000, 0));
    }

    #[test]
    fn a_chunk_that_is_damaged_is_unknown_and_the_others_are_not() {
        let mut map = ParentMap::unknown();
        (1..=40_000).for_each(|page| map.set(page, page / 7 + 1));
        let mut blob = map.encode();
        let last = blob.len() - 1;
        blob[last] ^= 1;
        let mut damaged = ParentMap::decode(&blob).unwrap();
        assert_eq!((damaged.get(700), damaged.get(40_000)), (101, 0));
        // Cut off, or with another header, it is none.
        blob[17] ^= 1;
        assert!(ParentMap::decode(&blob).is_none());
        assert!(ParentMap::decode(&map.encode()[..60]).is_none());
    }
}
