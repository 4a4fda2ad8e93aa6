//! The page tree: a Merkle tree over page number order, 256 children to a node.
//!
//! - Level 0 is the pages' hashes; node `i` of level `n` has the children `256 i ..= 256 i + 255` of
//!   level `n - 1`, as many of them as there are. A node's place does not depend on the tree's height.
//! - The top is the one node of the lowest level, 1 or higher, that has one node only. A database
//!   without pages has a top without children.
//! - The lock page is a leaf like any other; its hash is that of a page of zeros.
//! - Nothing here keeps a whole tree: an update holds one node for each level, a difference two.
//!
//! What a child is beside its hash (a repository adds where it is stored) is the store's affair.

use crate::hash::{PageHash, Root, node_hash};
use crate::page::{Geometry, PageCount, PageNumber};

/// Children of a node.
pub const FANOUT: u32 = 256;

/// The most levels a tree has: 256^4 pages are all there can be.
pub const MAX_HEIGHT: u8 = 4;

/// The place of a node: its level (1 to [`MAX_HEIGHT`]) and its index on that level.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId {
    /// 1 for the nodes whose children are pages.
    pub level: u8,
    /// Counted from 0.
    pub index: u32,
}

impl NodeId {
    /// The node above `page`.
    pub const fn of_page(page: PageNumber) -> NodeId {
        NodeId { level: 1, index: page.index() / FANOUT }
    }

    /// The node above this one.
    pub const fn parent(self) -> NodeId {
        NodeId { level: self.level + 1, index: self.index / FANOUT }
    }

    /// The child at `slot` (0 to 255); `None` for a node of level 1, whose children are pages.
    pub const fn child(self, slot: u32) -> Option<NodeId> {
        match self.level {
            0 | 1 => None,
            level => Some(NodeId { level: level - 1, index: self.index * FANOUT + slot }),
        }
    }

    /// The page at `slot` of a node of level 1.
    pub const fn page(self, slot: u32) -> Option<PageNumber> {
        PageNumber::from_index(self.index * FANOUT + slot)
    }

    /// Index, on the level below, of the first child.
    pub const fn first_child(self) -> u32 {
        self.index * FANOUT
    }
}

/// How many entries a tree of `pages` has on `level` (0: the pages themselves).
pub const fn width(pages: PageCount, level: u8) -> u32 {
    let mut width = pages.get();
    let mut at = 0;
    while at < level {
        width = width.div_ceil(FANOUT);
        at += 1;
    }
    width
}

/// The level of the top node, 1 to [`MAX_HEIGHT`].
pub const fn height(pages: PageCount) -> u8 {
    let mut level = 1;
    while width(pages, level) > 1 {
        level += 1;
    }
    level
}

/// The top node of a tree of `pages`.
pub const fn top(pages: PageCount) -> NodeId {
    NodeId { level: height(pages), index: 0 }
}

/// How many children the node has in a tree of `pages`; 0 where it is not in that tree.
pub const fn children(pages: PageCount, node: NodeId) -> u32 {
    if node.level == 0 || node.level > height(pages) {
        return 0;
    }
    let below = width(pages, node.level - 1);
    let first = node.index as u64 * FANOUT as u64;
    if first >= below as u64 {
        return 0;
    }
    let rest = below - first as u32;
    if rest < FANOUT { rest } else { FANOUT }
}

/// What a node holds of a child: at least its hash.
pub trait Entry: Clone {
    /// The child's hash.
    fn hash(&self) -> PageHash;
}

impl Entry for PageHash {
    fn hash(&self) -> PageHash {
        *self
    }
}

/// A tree that can be read, node by node.
pub trait ReadTree {
    /// What a node holds of each child.
    type Entry: Entry;
    /// Why a node could not be read.
    type Error;

    /// Page size and page count of the database that the tree is of.
    fn geometry(&self) -> Geometry;

    /// The top node's own entry.
    fn top(&mut self) -> Result<Self::Entry, Self::Error>;

    /// The children of `node`. The caller names only nodes that the tree has; `entry` is what the
    /// parent holds of it (or [`ReadTree::top`]), and the children must hash to it.
    fn node(&mut self, node: NodeId, entry: &Self::Entry) -> Result<Vec<Self::Entry>, Self::Error>;
}

/// Where an update puts the nodes it makes.
pub trait WriteTree<E> {
    /// Why a node could not be kept.
    type Error;

    /// Keeps a node and returns what its parent is to hold of it. Children come before parents, and
    /// the nodes of a level in the order of their index. The entry's hash is [`node_hash`] of the children's.
    fn put(&mut self, node: NodeId, children: &[E]) -> Result<E, Self::Error>;
}

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

/// Reads a node of a tree, walking down to it from the top. The tree has the node.
pub fn read_node<T: ReadTree>(tree: &mut T, node: NodeId) -> Result<Vec<T::Entry>, T::Error> {
    let mut at = top(tree.geometry().page_count);
    let mut entry = tree.top()?;
    loop {
        let below = tree.node(at, &entry)?;
        if at.level <= node.level {
            return Ok(below);
        }
        let mut child = node;
        while child.level + 1 < at.level {
            child = child.parent();
        }
        match below.get((child.index % FANOUT) as usize) {
            Some(found) => entry = found.clone(),
            None => return Ok(Vec::new()),
        }
        at = child;
    }
}

/// The pages of one tree that another does not have or has otherwise, in ascending order. Equal
/// subtrees are not read. Memory: two nodes for each level.
pub struct TreeDiff<'t, O: ReadTree, N: ReadTree> {
    old: &'t mut O,
    new: &'t mut N,
    old_height: u8,
    started: bool,
    stack: Vec<Frame<O::Entry, N::Entry>>,
}

struct Frame<O, N> {
    node: NodeId,
    old: Vec<O>,
    new: Vec<N>,
    slot: u32,
}

/// Why a difference could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum DiffError<O, N> {
    /// The old tree could not be read.
    #[error(transparent)]
    Old(O),
    /// The new tree could not be read.
    #[error(transparent)]
    New(N),
}

impl<'t, O: ReadTree, N: ReadTree> TreeDiff<'t, O, N> {
    /// What changed from `old` to `new`. Both have the same page size.
    pub fn new(old: &'t mut O, new: &'t mut N) -> Self {
        let old_height = height(old.geometry().page_count);
        TreeDiff { old, new, old_height, started: false, stack: Vec::new() }
    }

    /// The next page that differs, with its entry in the new tree.
    #[expect(clippy::type_complexity)]
    pub fn next_page(&mut self) -> Result<Option<(PageNumber, N::Entry)>, DiffError<O::Error, N::Error>> {
        if !self.started {
            self.started = true;
            let node = top(self.new.geometry().page_count);
            let entry = self.new.top().map_err(DiffError::New)?;
            let old = self.old_entry(node).map_err(DiffError::Old)?;
            self.enter(node, old, entry)?;
        }
        while let Some(frame) = self.stack.last_mut() {
            let slot = frame.slot;
            let Some(new) = frame.new.get(slot as usize).cloned() else {
                self.stack.pop();
                continue;
            };
            frame.slot += 1;
            let node = frame.node;
            let old = frame.old.get(slot as usize).cloned();
            if old.as_ref().is_some_and(|old| old.hash() == new.hash()) {
                continue;
            }
            match node.child(slot) {
                None => {
                    if let Some(page) = node.page(slot) {
                        return Ok(Some((page, new)));
                    }
                }
                Some(child) => {
                    // Above the old tree's top its nodes do not exist, yet at their first child it begins.
                    let old = match old {
                        Some(old) => Some(old),
                        None => self.old_entry(child).map_err(DiffError::Old)?,
                    };
                    self.enter(child, old, new)?;
                }
            }
        }
        Ok(None)
    }

    /// The old tree's entry for a node that stands at or above its top's place.
    fn old_entry(&mut self, node: NodeId) -> Result<Option<O::Entry>, O::Error> {
        if self.old.geometry().page_count == PageCount::ZERO
            || node.index != 0
            || node.level > self.old_height
        {
            return Ok(None);
        }
        if node.level == self.old_height {
            return self.old.top().map(Some);
        }
        // The new tree is lower than the old one: its top is some first child of the old one's.
        let above = read_node(self.old, node.parent())?;
        Ok(above.first().cloned())
    }

    fn enter(
        &mut self,
        node: NodeId,
        old: Option<O::Entry>,
        new: N::Entry,
    ) -> Result<(), DiffError<O::Error, N::Error>> {
        if old.as_ref().is_some_and(|old| old.hash() == new.hash()) {
            return Ok(());
        }
        let old = match old {
            Some(entry) => self.old.node(node, &entry).map_err(DiffError::Old)?,
            None => Vec::new(),
        };
        let new = self.new.node(node, &new).map_err(DiffError::New)?;
        self.stack.push(Frame { node, old, new, slot: 0 });
        Ok(())
    }
}

/// A whole tree in memory, for tests and for small databases: 33 bytes a page.
#[derive(Debug, Clone)]
pub struct MemoryTree<E = PageHash> {
    geometry: Geometry,
    top: E,
    nodes: std::collections::HashMap<NodeId, Vec<E>>,
}

/// Collects the nodes of a [`MemoryTree`].
#[derive(Debug, Default)]
struct Collect(std::collections::HashMap<NodeId, Vec<PageHash>>);

impl WriteTree<PageHash> for Collect {
    type Error = std::convert::Infallible;

    fn put(&mut self, node: NodeId, children: &[PageHash]) -> Result<PageHash, Self::Error> {
        self.0.insert(node, children.to_vec());
        Ok(node_hash(children))
    }
}

impl MemoryTree {
    /// A tree over the pages' hashes in order. Panics never: `hashes` is as long as the page count says,
    /// else `None`.
    pub fn new(geometry: Geometry, hashes: &[PageHash]) -> Option<MemoryTree> {
        if hashes.len() != geometry.page_count.get() as usize {
            return None;
        }
        let mut nodes = Collect::default();
        let mut update = TreeUpdate::<MemoryTree>::new(None, geometry);
        for (index, hash) in (0u32..).zip(hashes) {
            update.set(PageNumber::from_index(index)?, *hash, &mut nodes).ok()?;
        }
        let (top, _) = update.finish(&mut nodes).ok()?;
        Some(MemoryTree { geometry, top, nodes: nodes.0 })
    }

    /// The root.
    pub fn root(&self) -> Root {
        Root::of(self.geometry, self.top)
    }
}

impl<E: Entry> ReadTree for MemoryTree<E> {
    type Entry = E;
    type Error = std::convert::Infallible;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn top(&mut self) -> Result<E, Self::Error> {
        Ok(self.top.clone())
    }

    fn node(&mut self, node: NodeId, _: &E) -> Result<Vec<E>, Self::Error> {
        Ok(self.nodes.get(&node).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PageSize;

    fn geometry(pages: u32) -> Geometry {
        Geometry { page_size: PageSize::MIN, page_count: PageCount(pages) }
    }

    fn hashes(pages: u32, salt: u8) -> Vec<PageHash> {
        (0..pages).map(|n| PageHash::of(&[&n.to_be_bytes()[..], &[salt]].concat())).collect()
    }

    fn tree(hashes: &[PageHash]) -> MemoryTree {
        MemoryTree::new(geometry(hashes.len() as u32), hashes).unwrap()
    }

    const COUNTS: [u32; 12] = [0, 1, 2, 255, 256, 257, 300, 511, 513, 65_535, 65_537, 66_000];

    #[test]
    fn an_update_equals_a_tree_made_anew() {
        for from in COUNTS {
            for to in COUNTS {
                let mut new = hashes(from.min(to), 0);
                new.extend(&hashes(to, 1)[new.len()..]);
                let kept = from.min(to);
                let mut changed: Vec<u32> =
                    [0, 1, 255, 256, 299, 65_535].into_iter().filter(|&n| n < kept).collect();
                if to == from && to == 300 {
                    changed.clear();
                }
                for &n in &changed {
                    new[n as usize] = PageHash::of(b"changed");
                }
                let mut base = tree(&hashes(from, 0));
                let mut update = TreeUpdate::new(Some(&mut base), geometry(to));
                for n in changed.iter().copied().chain(kept..to) {
                    update.set(PageNumber::from_index(n).unwrap(), new[n as usize], &mut HashOnly).unwrap();
                }
                let (_, root) = update.finish(&mut HashOnly).unwrap();
                assert_eq!(root, tree(&new).root(), "from {from} to {to} pages");
            }
        }
    }

    #[test]
    fn a_difference_names_exactly_the_pages_that_differ() {
        for from in COUNTS {
            for to in COUNTS {
                let old = hashes(from, 0);
                let mut new = hashes(to, 0);
                for n in [0u32, 254, 256, 65_536] {
                    if n < to {
                        new[n as usize] = PageHash::of(b"changed");
                    }
                }
                let expected: Vec<u32> =
                    (0..to).filter(|&n| old.get(n as usize) != Some(&new[n as usize])).collect();
                let (mut old, mut new) = (tree(&old), tree(&new));
                let mut diff = TreeDiff::new(&mut old, &mut new);
                let mut found = Vec::new();
                while let Some((page, _)) = diff.next_page().unwrap() {
                    found.push(page.index());
                }
                assert_eq!(found, expected, "from {from} to {to} pages");
            }
        }
    }

    #[test]
    fn an_update_without_the_pages_it_needs_is_refused() {
        let mut base = tree(&hashes(10, 0));
        let update = TreeUpdate::new(Some(&mut base), geometry(12));
        let missing = update.finish(&mut HashOnly).unwrap_err();
        assert!(matches!(missing, UpdateError::Missing(page) if page.get() == 11), "{missing:?}");
        let mut update = TreeUpdate::<MemoryTree>::new(None, geometry(2));
        update.set(PageNumber::new(2).unwrap(), PageHash::of(b""), &mut HashOnly).unwrap_err();
    }
}
