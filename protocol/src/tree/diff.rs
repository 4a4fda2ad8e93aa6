//! The pages in which two trees differ.

use super::{Entry, NodeId, ReadTree, height, read_node, top};
use crate::page::{PageCount, PageNumber};

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
