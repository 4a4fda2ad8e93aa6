//! A new tree from a base and the pages that changed.

use super::{Entry, FANOUT, NodeId, ReadTree, WriteTree, children, height, read_node, top};
use crate::hash::{PageHash, Root, node_hash};
use crate::page::{Geometry, PageCount, PageNumber};

/// Keeps nothing: for computing a root only.
#[derive(Debug, Default, Clone, Copy)]
pub struct HashOnly;

impl WriteTree<PageHash> for HashOnly {
    type Error = std::convert::Infallible;

    fn put(&mut self, _: NodeId, children: &[PageHash]) -> Result<PageHash, Self::Error> {
        Ok(node_hash(children))
    }
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<R, W> {
    /// The base tree could not be read.
    #[error(transparent)]
    Read(R),
    /// A new node could not be kept.
    #[error(transparent)]
    Write(W),
    /// Pages are to come in ascending order, each at most once, none past the page count.
    #[error("page {0} is out of order or past the end")]
    OutOfOrder(PageNumber),
    /// The base does not have this page, and it was not given.
    #[error("page {0} is missing: the base does not have it")]
    Missing(PageNumber),
}

/// A node being made: the children so far.
struct Open<E> {
    index: u32,
    /// The base's children of this node, where it has the node.
    base: Vec<E>,
    /// The new children; what is past the end is still as in the base.
    new: Vec<E>,
}

/// A new tree made from a base and the pages that changed, given in ascending order. It keeps one
/// open node a level and writes each new node once; nodes without a change are neither read nor written.
///
/// ```text
/// TreeUpdate::new(base, geometry) → set(page, entry)* → finish() → (top entry, root)
/// ```
pub struct TreeUpdate<'b, B: ReadTree> {
    base: Option<&'b mut B>,
    base_pages: PageCount,
    geometry: Geometry,
    /// The open node of each level, level 1 first.
    open: Vec<Option<Open<B::Entry>>>,
    /// Index of the first page that may still be set.
    next: u32,
}

impl<'b, B: ReadTree> TreeUpdate<'b, B> {
    /// An update of `base` (or of nothing) that ends as a tree of `geometry`. A base of another page
    /// size is no base: the caller passes `None`.
    pub fn new(base: Option<&'b mut B>, geometry: Geometry) -> Self {
        let base_pages = base.as_ref().map_or(PageCount::ZERO, |base| base.geometry().page_count);
        let height = height(geometry.page_count);
        TreeUpdate { base, base_pages, geometry, open: (0..height).map(|_| None).collect(), next: 0 }
    }

    /// Sets a page's entry. Pages come in ascending order.
    pub fn set<W: WriteTree<B::Entry>>(
        &mut self,
        page: PageNumber,
        entry: B::Entry,
        out: &mut W,
    ) -> Result<(), UpdateError<B::Error, W::Error>> {
        if page.index() < self.next || !self.geometry.page_count.contains(page) {
            return Err(UpdateError::OutOfOrder(page));
        }
        self.next = page.index() + 1;
        self.put(1, page.index(), entry, out)
    }

    /// Writes what is still open and returns the top node's entry and the root.
    pub fn finish<W: WriteTree<B::Entry>>(
        mut self,
        out: &mut W,
    ) -> Result<(B::Entry, Root), UpdateError<B::Error, W::Error>> {
        let height = height(self.geometry.page_count);
        // A changed page count changes the last node of every level, with or without a changed page.
        if self.geometry.page_count != self.base_pages || self.open.iter().all(Option::is_none) {
            if let Some(last) = self.geometry.page_count.last() {
                self.open_at(1, last.index() / FANOUT, out)?;
            } else {
                self.open_at(1, 0, out)?;
            }
        }
        for level in 1..height {
            self.close(level, out)?;
        }
        let top = match self.open[usize::from(height) - 1].take() {
            Some(open) => self.write(height, open, out)?,
            // Unreachable: closing the level below opened this one, and level 1 was opened above.
            None => return Err(UpdateError::Missing(PageNumber::FIRST)),
        };
        let root = Root::of(self.geometry, top.hash());
        Ok((top, root))
    }

    /// Sets child `index` of level `level - 1` in the node above it.
    fn put<W: WriteTree<B::Entry>>(
        &mut self,
        level: u8,
        index: u32,
        entry: B::Entry,
        out: &mut W,
    ) -> Result<(), UpdateError<B::Error, W::Error>> {
        self.open_at(level, index / FANOUT, out)?;
        let Some(open) = self.open[usize::from(level) - 1].as_mut() else {
            return Err(UpdateError::Missing(PageNumber::FIRST));
        };
        let slot = (index % FANOUT) as usize;
        fill(open, slot, level)?;
        open.new.push(entry);
        Ok(())
    }

    /// Makes node `index` the open one of `level`, closing the one that is.
    fn open_at<W: WriteTree<B::Entry>>(
        &mut self,
        level: u8,
        index: u32,
        out: &mut W,
    ) -> Result<(), UpdateError<B::Error, W::Error>> {
        if self.open[usize::from(level) - 1].as_ref().is_some_and(|open| open.index == index) {
            return Ok(());
        }
        self.close(level, out)?;
        let base = self.base_children(NodeId { level, index }).map_err(UpdateError::Read)?;
        self.open[usize::from(level) - 1] =
            Some(Open { index, base, new: Vec::with_capacity(FANOUT as usize) });
        Ok(())
    }

    /// Writes the open node of `level`, if there is one, and sets it in its parent.
    fn close<W: WriteTree<B::Entry>>(
        &mut self,
        level: u8,
        out: &mut W,
    ) -> Result<(), UpdateError<B::Error, W::Error>> {
        let Some(open) = self.open[usize::from(level) - 1].take() else { return Ok(()) };
        let index = open.index;
        let entry = self.write(level, open, out)?;
        if level < height(self.geometry.page_count) {
            self.put(level + 1, index, entry, out)?;
        }
        Ok(())
    }

    /// Completes a node from the base and writes it.
    fn write<W: WriteTree<B::Entry>>(
        &mut self,
        level: u8,
        mut open: Open<B::Entry>,
        out: &mut W,
    ) -> Result<B::Entry, UpdateError<B::Error, W::Error>> {
        let node = NodeId { level, index: open.index };
        fill(&mut open, children(self.geometry.page_count, node) as usize, level)?;
        out.put(node, &open.new).map_err(UpdateError::Write)
    }

    /// The base's children of a node. Directly above the base's top there is one child, that top;
    /// what is higher still gets its children from this update, since its page count has grown.
    fn base_children(&mut self, node: NodeId) -> Result<Vec<B::Entry>, B::Error> {
        let Some(base) = self.base.as_deref_mut() else { return Ok(Vec::new()) };
        let top = top(self.base_pages);
        if node.level > top.level {
            let above = node.level == top.level + 1 && node.index == 0 && self.base_pages > PageCount::ZERO;
            return if above { Ok(vec![base.top()?]) } else { Ok(Vec::new()) };
        }
        if children(self.base_pages, node) == 0 {
            return Ok(Vec::new());
        }
        read_node(base, node)
    }
}

/// Copies the base's children up to `slot` into the open node.
fn fill<E: Entry, R, W>(open: &mut Open<E>, slot: usize, level: u8) -> Result<(), UpdateError<R, W>> {
    while open.new.len() < slot {
        match open.base.get(open.new.len()) {
            Some(entry) => open.new.push(entry.clone()),
            None => {
                // The first page below the child that is not there.
                let child = u64::from(open.index) * u64::from(FANOUT) + open.new.len() as u64;
                let page = child << (8 * u32::from(level - 1));
                let page = u32::try_from(page).ok().and_then(PageNumber::from_index);
                return Err(UpdateError::Missing(page.unwrap_or(PageNumber::FIRST)));
            }
        }
    }
    Ok(())
}
