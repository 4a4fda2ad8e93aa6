//! Version 3: what the replica has, the nodes of its tree, and what the batches are a difference to.

use super::batches::Planning;
use super::{ReplicaIo, ReplicaRequest, State, unexpected};
use crate::block::RUNS_MAX;
use crate::conversation::Violation;
use crate::conversation::io::Stop;
use crate::exchange::{Ground, Held, PushId, StagedBlock};
use crate::hash::PageHash;
use crate::message::limits::{STAGED_BLOCKS_MAX, STAGED_RUNS_MAX};
use crate::message::{Opening, OriginMessage, ReplicaMessage, put_node};
use crate::page::{PageCount, PageSize};
use crate::tree::{self, NodeId};

/// Asking what was staged.
pub(super) struct Opened {
    page_size: PageSize,
    held: Held,
}

impl Opened {
    pub(super) fn new(page_size: PageSize, held: Held) -> Self {
        // A root is of something.
        let base = held.base.filter(|_| held.geometry.is_some());
        Opened { page_size, held: Held { geometry: held.geometry, base } }
    }

    pub(super) fn on_staged(self, mut staged: Vec<StagedBlock>, io: &mut ReplicaIo) -> State {
        let mut runs = 0;
        // What is too much to be named is only sent again.
        let fit = staged.iter().take(STAGED_BLOCKS_MAX).take_while(|block| {
            runs += block.runs.len();
            runs <= STAGED_RUNS_MAX && (1..=RUNS_MAX).contains(&block.runs.len())
        });
        staged.truncate(fit.count());
        let count = staged.len() as u32;
        let Held { geometry, base } = self.held;
        ReplicaMessage::Open(Opening { geometry, base, staged: count }).encode(&mut io.out);
        ReplicaMessage::Staged(staged).encode(&mut io.out);
        let pages = geometry.map_or(PageCount::ZERO, |geometry| geometry.page_count);
        let nodes = (1..=tree::height(pages)).map(|level| u64::from(tree::width(pages, level))).sum();
        State::Settling(Settling {
            page_size: self.page_size,
            held: self.held,
            staged: count,
            nodes_left: nodes,
            proposed: false,
        })
    }
}

/// Answering what the origin wants to know, until it names a ground.
pub(super) struct Settling {
    page_size: PageSize,
    held: Held,
    staged: u32,
    /// How many nodes may still be asked for: no more than the tree has.
    nodes_left: u64,
    proposed: bool,
}

impl Settling {
    fn pages(&self) -> PageCount {
        self.held.geometry.map_or(PageCount::ZERO, |geometry| geometry.page_count)
    }

    pub(super) fn on_message(self, message: OriginMessage, io: &mut ReplicaIo) -> Result<State, Stop> {
        match message {
            OriginMessage::Nodes(nodes) => self.on_nodes(nodes, io),
            OriginMessage::Base { ground, push_id } => self.on_base(ground, push_id, io),
            message => Err(unexpected(&State::Settling(self), &message)),
        }
    }

    fn on_nodes(mut self, nodes: Vec<NodeId>, io: &mut ReplicaIo) -> Result<State, Stop> {
        let pages = self.pages();
        if let Some(node) = nodes.iter().find(|node| tree::children(pages, **node) == 0) {
            return Err(Violation::Node(*node).into());
        }
        match self.nodes_left.checked_sub(nodes.len() as u64) {
            Some(left) => self.nodes_left = left,
            None => return Err(Violation::TooMuch("nodes of the page tree").into()),
        }
        io.counts.hash_rounds += 1;
        Ok(Answering { settling: self, nodes: nodes.into_iter(), asked: None }.next(io))
    }

    fn on_base(mut self, ground: Ground, push: Option<PushId>, io: &mut ReplicaIo) -> Result<State, Stop> {
        let fits = match ground {
            Ground::Nothing { recognised } => !recognised || self.held.base.is_some(),
            Ground::Held => self.held.base.is_some(),
            Ground::Proposed(_) => !std::mem::replace(&mut self.proposed, true),
            Ground::Compared => self.held.geometry.is_some(),
        };
        if !fits {
            return Err(Violation::Ground.into());
        }
        io.ask(ReplicaRequest::Accept { ground, push });
        Ok(State::Accepting(Accepting { settling: self, proposed: matches!(ground, Ground::Proposed(_)) }))
    }
}

/// Looking up nodes.
pub(super) struct Answering {
    settling: Settling,
    nodes: std::vec::IntoIter<NodeId>,
    asked: Option<NodeId>,
}

impl Answering {
    fn next(mut self, io: &mut ReplicaIo) -> State {
        self.asked = self.nodes.next();
        match self.asked {
            Some(node) => {
                io.ask(ReplicaRequest::Node(node));
                State::Answering(self)
            }
            None => State::Settling(self.settling),
        }
    }

    pub(super) fn on_node(self, children: &[PageHash], io: &mut ReplicaIo) -> Result<State, Violation> {
        match self.asked {
            Some(node) if children.len() == tree::children(self.settling.pages(), node) as usize => {
                put_node(&mut io.out, node, children);
                Ok(self.next(io))
            }
            _ => Err(Violation::Misused("a node with a wrong number of children")),
        }
    }
}

/// Asking the pages whether they accept the ground.
pub(super) struct Accepting {
    settling: Settling,
    proposed: bool,
}

impl Accepting {
    pub(super) fn on_accepted(self, accepted: bool, io: &mut ReplicaIo) -> Result<State, Violation> {
        if self.proposed {
            ReplicaMessage::Base(accepted).encode(&mut io.out);
        } else if !accepted {
            return Err(Violation::Misused("what is there was not accepted"));
        }
        let Settling { page_size, staged, .. } = self.settling;
        if accepted {
            return Ok(State::Planning(Planning { page_size, staged }));
        }
        Ok(State::Settling(self.settling))
    }
}
