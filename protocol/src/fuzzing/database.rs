//! A small database in memory: what the conversations' targets move. Its pages are 512 bytes, each
//! filled with one byte, so page 1 has no header and is moved as it is, like any other.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::input::{Input, PAGES_MAX};
use crate::hash::{PageHash, Root};
use crate::page::{Geometry, PageCount, PageNumber, PageSize};
use crate::sponge::{Hash20, group_hash, hash20};
use crate::tree::{MemoryTree, NodeId, ReadTree};

pub(super) const PAGE_SIZE: PageSize = PageSize::MIN;

/// There are 256 pages: their hashes are computed once, which makes a target twenty times as fast.
static HASHES: LazyLock<Vec<(Hash20, PageHash)>> =
    LazyLock::new(|| (0..=255u8).map(|fill| (hash20(&[fill; 512]), PageHash::of(&[fill; 512]))).collect());

/// What each page is filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Database(pub(super) Vec<u8>);

impl Database {
    pub(super) fn new(input: &mut Input<'_>) -> Database {
        let (count, step) = (input.u16() % (PAGES_MAX + 1), input.u8());
        Database((0..count).map(|n| (n as u8).wrapping_mul(step)).collect())
    }

    /// Another database that has much in common with this one.
    pub(super) fn changed(&self, input: &mut Input<'_>) -> Database {
        let mut fills = self.0.clone();
        if input.flag() {
            fills.resize(usize::from(input.u16() % (PAGES_MAX + 1)), input.u8());
        }
        for _ in 0..input.u8() % 16 {
            let at = usize::from(input.u16()).checked_rem(fills.len()).unwrap_or(0);
            if let Some(fill) = fills.get_mut(at) {
                *fill = input.u8();
            }
        }
        Database(fills)
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry { page_size: PAGE_SIZE, page_count: PageCount(self.0.len() as u32) }
    }

    pub(super) fn page(&self, number: PageNumber) -> Option<[u8; 512]> {
        self.0.get(number.index() as usize).map(|fill| [*fill; 512])
    }

    /// The pages, overwritten and cut or extended with zeros.
    pub(super) fn with(&self, pages: &BTreeMap<PageNumber, u8>, count: PageCount) -> Database {
        let mut fills = self.0.clone();
        fills.resize(count.get() as usize, 0);
        for (number, fill) in pages {
            fills[number.index() as usize] = *fill;
        }
        Database(fills)
    }

    pub(super) fn group_hash(&self, first: PageNumber, count: u32) -> Hash20 {
        assert!(count > 0, "a group of no page");
        let start = first.index() as usize;
        let end = start.saturating_add(count as usize).min(self.0.len());
        let mut hashes =
            self.0.get(start..end).unwrap_or_default().iter().map(|fill| &HASHES[usize::from(*fill)].0);
        match count {
            1 => hashes.next().copied().unwrap_or_else(|| hash20(&[])),
            _ => group_hash(hashes),
        }
    }

    pub(super) fn page_hash(&self, number: PageNumber) -> Option<PageHash> {
        self.0.get(number.index() as usize).map(|fill| HASHES[usize::from(*fill)].1)
    }

    pub(super) fn tree(&self) -> MemoryTree {
        let hashes: Vec<PageHash> = self.0.iter().map(|fill| HASHES[usize::from(*fill)].1).collect();
        MemoryTree::new(self.geometry(), &hashes).unwrap()
    }

    pub(super) fn root(&self) -> Root {
        self.tree().root()
    }

    /// A node's children; empty where it has no such node.
    pub(super) fn node(&self, node: NodeId) -> Vec<PageHash> {
        let Ok(children) = self.tree().node(node, &PageHash([0; PageHash::LEN]));
        children
    }
}
