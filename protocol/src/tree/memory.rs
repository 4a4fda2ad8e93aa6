//! A whole tree in memory.

use super::{Entry, NodeId, ReadTree, TreeUpdate, WriteTree};
use crate::hash::{PageHash, Root, node_hash};
use crate::page::{Geometry, PageNumber};

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
