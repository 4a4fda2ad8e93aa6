//! The page tree of a stored version, read node by node. Nodes are verified against their parents
//! when they are read, and kept in a cache with a budget that all replicas share.

use std::sync::Arc;

use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};
use sqlrsync_protocol::tree::{FANOUT, NodeId, ReadTree, children, read_node, top};

use crate::cache::Cache;
use crate::error::{Damage, Error};
use crate::id::SegmentId;
use crate::segment::Segments;
use crate::segment::node::StoredEntry;

/// Verified nodes, by what they hash to and where they are.
pub(crate) type NodeCache = Cache<(SegmentId, NodeId, PageHash), Arc<Vec<StoredEntry>>>;

/// A version's page tree. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct StoredTree {
    segments: Segments,
    nodes: Arc<NodeCache>,
    geometry: Geometry,
    top: StoredEntry,
    /// The node of level 1 that was used last, since pages are mostly asked for in order.
    leaf: Option<(u32, Arc<Vec<StoredEntry>>)>,
}

impl StoredTree {
    pub(crate) fn new(
        segments: Segments,
        nodes: Arc<NodeCache>,
        geometry: Geometry,
        top: StoredEntry,
    ) -> Self {
        StoredTree { segments, nodes, geometry, top, leaf: None }
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The entry of a page that the version has.
    pub(crate) fn page(&mut self, page: PageNumber) -> Result<StoredEntry, Error> {
        let node = NodeId::of_page(page);
        let leaf = match &self.leaf {
            Some((index, leaf)) if *index == node.index => leaf.clone(),
            _ => {
                let leaf = Arc::new(read_node(self, node)?);
                self.leaf = Some((node.index, leaf.clone()));
                leaf
            }
        };
        let entry = leaf.get((page.index() % FANOUT) as usize);
        entry.copied().ok_or_else(|| self.segments.damaged(self.top.segment, Damage::PageMissing(page)))
    }

    /// The hashes of a node's children; empty where the tree has no such node.
    pub(crate) fn hashes(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        if children(self.geometry.page_count, node) == 0 {
            return Ok(Vec::new());
        }
        Ok(read_node(self, node)?.iter().map(|entry| entry.hash).collect())
    }

    /// Reads the top, and so proves that the tree's first step is there.
    pub(crate) fn prove_top(&mut self) -> Result<(), Error> {
        let entry = self.top;
        self.node(top(self.geometry.page_count), &entry).map(drop)
    }
}

impl ReadTree for StoredTree {
    type Entry = StoredEntry;
    type Error = Error;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn top(&mut self) -> Result<StoredEntry, Error> {
        Ok(self.top)
    }

    fn node(&mut self, node: NodeId, entry: &StoredEntry) -> Result<Vec<StoredEntry>, Error> {
        let key = (entry.segment, node, entry.hash);
        if let Some(found) = self.nodes.get(&key) {
            return Ok(found.to_vec());
        }
        let read = self.segments.node(node, entry)?;
        // The hash says what the children are and not how many there should be.
        if read.len() != children(self.geometry.page_count, node) as usize {
            return Err(self.segments.damaged(entry.segment, Damage::Structure));
        }
        let bytes = size_of::<StoredEntry>() * read.len() + size_of_val(&key);
        self.nodes.put(key, Arc::new(read.clone()), bytes);
        Ok(read)
    }
}
