//! Version 3, where no base is known: which pages differ, by the two page trees.
//!
//! It begins at the lower of the two tops. A node whose hash differs is opened on both sides; the
//! pages that only one side has need no node, since those past the replica's end are sent anyway.
//! Open nodes wait on a stack, deepest first, and [`NODES_MAX`] of them go into one question, so that
//! memory stays bounded (a question's nodes, times a node's children, times the tree's height) and a
//! comparison of two quite different databases takes one turn for each 64 Ki pages.

use std::collections::VecDeque;

use roaring::RoaringBitmap;

use super::settle::settled;
use super::{Facts, OriginIo, OriginRequest, State};
use crate::conversation::Violation;
use crate::conversation::io::Stop;
use crate::exchange::{Ground, Since, StagedBlock};
use crate::hash::PageHash;
use crate::message::OriginMessage;
use crate::message::limits::{NODES_MAX, SHORT_HASH_LEN};
use crate::page::PageCount;
use crate::tree::{NodeId, children, height};

type ShortHash = [u8; SHORT_HASH_LEN];

/// Comparing two trees.
pub(super) struct Trees {
    held: PageCount,
    staged: Vec<StagedBlock>,
    /// Nodes known to differ, not yet asked for.
    open: Vec<NodeId>,
    /// Nodes asked for, in the order in which they will come.
    asked: VecDeque<NodeId>,
    /// The replica's node, while this side looks up its own.
    theirs: Option<(NodeId, Vec<ShortHash>)>,
    differing: RoaringBitmap,
}

impl Trees {
    pub(super) fn start(
        facts: &Facts,
        held: PageCount,
        staged: Vec<StagedBlock>,
        io: &mut OriginIo,
    ) -> State {
        let mut open = Vec::new();
        if facts.geometry.page_count > PageCount::ZERO {
            let level = height(facts.geometry.page_count).min(height(held));
            open.push(NodeId { level, index: 0 });
        }
        let trees = Trees {
            held,
            staged,
            open,
            asked: VecDeque::new(),
            theirs: None,
            differing: RoaringBitmap::new(),
        };
        trees.next(facts, io)
    }

    /// Asks for the next nodes, or goes on to the batches.
    fn next(mut self, facts: &Facts, io: &mut OriginIo) -> State {
        if !self.asked.is_empty() {
            return State::Trees(self);
        }
        if self.open.is_empty() {
            let mut differing = self.differing;
            differing.remove(facts.geometry.page_size.lock_page().get());
            // Past this side's own end nothing was compared: it may have grown by the time it begins.
            let held = self.held.min(facts.geometry.page_count);
            let since = Since::Compared { differing, held };
            return settled(Ground::Compared, since, self.staged, facts, io);
        }
        let nodes = self.open.split_off(self.open.len().saturating_sub(NODES_MAX));
        self.asked = nodes.iter().copied().collect();
        io.counts.hash_rounds += 1;
        OriginMessage::Nodes(nodes).encode(&mut io.out);
        State::Trees(self)
    }

    pub(super) fn on_node(
        mut self,
        node: NodeId,
        theirs: Vec<ShortHash>,
        io: &mut OriginIo,
    ) -> Result<State, Stop> {
        if self.asked.pop_front() != Some(node) {
            return Err(Violation::Node(node).into());
        }
        if theirs.len() != children(self.held, node) as usize {
            return Err(Violation::Children(node).into());
        }
        self.theirs = Some((node, theirs));
        io.ask(OriginRequest::Node(node));
        Ok(State::Trees(self))
    }

    pub(super) fn on_own(
        mut self,
        own: &[PageHash],
        facts: &Facts,
        io: &mut OriginIo,
    ) -> Result<State, &'static str> {
        let Some((node, theirs)) = self.theirs.take() else {
            return Err("a node that nobody asked for");
        };
        // A live file may have fewer pages by now than were announced, or more: what it does not have differs,
        // and what only it has is sent anyway.
        let mut own = own.iter();
        for (slot, theirs) in (0u32..).zip(&theirs) {
            if own.next().is_some_and(|own| own.0[..SHORT_HASH_LEN] == theirs[..]) {
                continue;
            }
            match (node.child(slot), node.page(slot)) {
                (Some(child), _) => self.open.push(child),
                (None, Some(page)) => {
                    self.differing.insert(page.get());
                }
                (None, None) => return Err("a page past the last page number"),
            }
        }
        Ok(self.next(facts, io))
    }
}
