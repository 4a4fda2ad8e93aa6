//! The walk through the trees of one content, down from their roots.
//!
//! Nothing is believed that was not read on the way: a page belongs to a tree because the walk came to it.
//! The parent map only says which pages are worth going into.

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::ContentError;

use super::layout::Layout;
use super::page::{Kind, Malformed, Page, Trouble, u32_at};
use super::pages::Pages;
use super::parents::ParentMap;
use super::rows::{Budget, Rows};

/// SQLite itself goes no deeper (`BTCURSOR_MAX_DEPTH`).
pub(crate) const DEPTH_MAX: usize = 20;

/// Which pages the walk goes into.
pub(crate) enum Marks {
    /// These.
    Only(RoaringBitmap),
    /// All.
    All,
}

impl Marks {
    fn contains(&self, page: u32) -> bool {
        match self {
            Marks::Only(pages) => pages.contains(page),
            Marks::All => true,
        }
    }
}

/// Where a tree begins.
#[derive(Clone, Copy)]
pub(crate) struct Root {
    pub(crate) page: u32,
    /// Whether it is ordered by keys: an index or a WITHOUT ROWID table.
    pub(crate) is_index: bool,
}

/// Which way a walk takes.
pub(crate) struct Way<'y> {
    pub(crate) marks: &'y Marks,
    /// What the pages lead to is noted here.
    pub(crate) parents: &'y mut ParentMap,
}

/// What the walk noted of a tree.
#[derive(Clone, Default)]
pub(crate) struct Shape {
    /// The children of those interior pages that changed or were expanded; by their depth, the root's is 0.
    pub(crate) children: Vec<RoaringBitmap>,
    /// The depth of the leaves, where one was read.
    pub(crate) leaves: Option<usize>,
}

impl Shape {
    fn child(&mut self, depth: usize, page: u32) {
        if self.children.len() <= depth {
            self.children.resize(depth + 1, RoaringBitmap::new());
        }
        self.children[depth].insert(page);
    }
}

/// One content, and where in it the walk has been.
pub(crate) struct Walk<'w> {
    pub(crate) pages: Pages<'w>,
    /// The pages in which the two contents differ.
    changed: &'w RoaringBitmap,
    /// Pages that a tree or a chain led to. Nothing may lead to one twice, so no walk is endless.
    seen: RoaringBitmap,
    /// The same for [`Walk::expand`].
    expanded: RoaringBitmap,
    /// The list of free pages, once it was needed.
    free: Option<RoaringBitmap>,
}

impl<'w> Walk<'w> {
    pub(crate) fn new(pages: Pages<'w>, changed: &'w RoaringBitmap) -> Walk<'w> {
        Walk { pages, changed, seen: RoaringBitmap::new(), expanded: RoaringBitmap::new(), free: None }
    }

    /// Forgets where it has been.
    pub(crate) fn restart(&mut self) {
        self.seen.clear();
    }

    /// Walks a tree through the pages that are marked. Rows of pages that changed, or that have an overflow
    /// page that did, are added to `rows`.
    pub(crate) fn tree(
        &mut self,
        root: Root,
        way: &mut Way<'_>,
        mut rows: Option<(&mut Rows, &mut Budget)>,
    ) -> Result<Shape, Trouble> {
        let mut shape = Shape::default();
        let mut bytes = Vec::new();
        let mut level = RoaringBitmap::new();
        if way.marks.contains(root.page) {
            level.insert(root.page);
        }
        // Level by level and in order of page numbers: that is how they lie in a file and in a repository.
        for depth in 0..DEPTH_MAX {
            let mut next = RoaringBitmap::new();
            self.pages.expect(&level);
            for number in &level {
                if !self.seen.insert(number) {
                    return Err(Trouble::Malformed);
                }
                let page = self.page(number, root.is_index, &mut bytes)?;
                self.children(number, &page, depth, way, &mut shape, &mut next)?;
                let changed = self.chains(number, &page, way)? | self.changed.contains(number);
                if let Some((rows, budget)) = rows.as_mut().filter(|_| changed) {
                    rows.add(&page, &mut self.pages, budget)?;
                }
            }
            if next.is_empty() {
                return Ok(shape);
            }
            level = next;
        }
        Err(Trouble::Malformed)
    }

    /// A page of a tree of this kind.
    fn page<'p>(&mut self, number: u32, is_index: bool, bytes: &'p mut Vec<u8>) -> Result<Page<'p>, Trouble> {
        self.pages.read(number, bytes)?;
        let page = Page::decode(number, bytes, self.pages.layout)?;
        if page.kind().is_index() == is_index { Ok(page) } else { Err(Trouble::Malformed) }
    }

    /// Notes the children of a page, and puts those to be walked into `next`.
    fn children(
        &mut self,
        number: u32,
        page: &Page<'_>,
        depth: usize,
        way: &mut Way<'_>,
        shape: &mut Shape,
        next: &mut RoaringBitmap,
    ) -> Result<(), Malformed> {
        if !page.kind().is_interior() {
            shape.leaves = Some(depth);
        }
        let changed = self.changed.contains(number);
        for child in page.children()? {
            self.check_child(child)?;
            way.parents.set(child, number);
            if changed {
                shape.child(depth + 1, child);
            }
            if way.marks.contains(child) && !next.insert(child) {
                return Err(Malformed);
            }
        }
        Ok(())
    }

    /// Follows the chains that begin in a page as far as they are marked. Whether a page of one changed.
    fn chains(&mut self, number: u32, page: &Page<'_>, way: &mut Way<'_>) -> Result<bool, Trouble> {
        if page.kind() == Kind::TableInterior {
            return Ok(false);
        }
        let mut changed = false;
        for cell in page.cells() {
            let cell = cell?;
            let Some(first) = cell.overflow else { continue };
            self.check_child(first)?;
            way.parents.set(first, number);
            let len = self.pages.layout.chain_len(cell.payload_len - cell.local.len());
            changed |= self.chain(first, len, way)?;
        }
        Ok(changed)
    }

    fn chain(&mut self, first: u32, len: usize, way: &mut Way<'_>) -> Result<bool, Trouble> {
        let mut changed = false;
        let mut number = first;
        let mut bytes = Vec::new();
        for left in (0..len).rev() {
            if !way.marks.contains(number) {
                break;
            }
            if !self.seen.insert(number) {
                return Err(Trouble::Malformed);
            }
            changed |= self.changed.contains(number);
            // What the last one says of a next one means nothing.
            if left == 0 {
                break;
            }
            self.pages.read(number, &mut bytes)?;
            let next = u32_at(&bytes, 0)?;
            self.check_child(next)?;
            way.parents.set(next, number);
            number = next;
        }
        Ok(changed)
    }

    /// Looks into a page that stands in one of the two trees only, at this depth: adds its rows, and its
    /// children to the shape.
    pub(crate) fn expand(
        &mut self,
        number: u32,
        depth: usize,
        shape: &mut Shape,
        is_index: bool,
        (rows, budget): (&mut Rows, &mut Budget),
    ) -> Result<(), Trouble> {
        if depth >= DEPTH_MAX || !self.expanded.insert(number) {
            return Err(Trouble::Malformed);
        }
        let mut bytes = Vec::new();
        let page = self.page(number, is_index, &mut bytes)?;
        for child in page.children()? {
            self.check_child(child)?;
            shape.child(depth + 1, child);
        }
        rows.add(&page, &mut self.pages, budget)
    }

    /// The depth of a tree's leaves, by the way to the first one.
    pub(crate) fn depth(&mut self, root: u32) -> Result<usize, Trouble> {
        let mut bytes = Vec::new();
        let mut number = root;
        for depth in 0..DEPTH_MAX {
            self.pages.read(number, &mut bytes)?;
            let children = Page::decode(number, &bytes, self.pages.layout)?.children()?;
            let Some(&child) = children.first() else { return Ok(depth) };
            self.check_child(child)?;
            number = child;
        }
        Err(Trouble::Malformed)
    }

    /// The pages that changed and that no walk came to, though they could stand in a tree.
    pub(crate) fn missed(&mut self) -> Result<RoaringBitmap, ContentError> {
        let layout = self.pages.layout;
        let missed = self.changed - &self.seen;
        let mut missed: RoaringBitmap = missed.into_iter().filter(|&page| layout.is_data(page)).collect();
        if !missed.is_empty() {
            missed -= self.free()?;
        }
        Ok(missed)
    }

    /// The pages on the list of free ones.
    pub(crate) fn free(&mut self) -> Result<&RoaringBitmap, ContentError> {
        let free = match self.free.take() {
            Some(free) => free,
            None => self.pages.free()?,
        };
        Ok(self.free.insert(free))
    }

    /// A page that something leads to is there, and is not the first.
    fn check_child(&self, page: u32) -> Result<(), Malformed> {
        let layout: &Layout = &self.pages.layout;
        if page > 1 && layout.is_data(page) { Ok(()) } else { Err(Malformed) }
    }
}
