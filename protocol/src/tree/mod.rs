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

mod diff;
mod memory;
mod update;

pub use diff::{DiffError, TreeDiff};
pub use memory::MemoryTree;
pub use update::{HashOnly, TreeUpdate, UpdateError};

use crate::hash::PageHash;
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
    /// the nodes of a level in the order of their index. The entry's hash is [`crate::hash::node_hash`] of the children's.
    fn put(&mut self, node: NodeId, children: &[E]) -> Result<E, Self::Error>;
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
