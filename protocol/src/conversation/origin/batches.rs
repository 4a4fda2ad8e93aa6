//! Version 3: the plan, the batches and the proof.

use super::{Facts, OriginAnswer, OriginIo, OriginRequest, State};
use crate::message::{OriginMessage, put_block};

/// Sending.
pub(super) struct Batches {
    /// How many blocks the replica has staged.
    staged: usize,
}

impl Batches {
    pub(super) fn new(staged: usize) -> Self {
        Batches { staged }
    }

    pub(super) fn on_answer(
        self,
        answer: OriginAnswer<'_>,
        facts: &Facts,
        io: &mut OriginIo,
    ) -> Result<State, &'static str> {
        match answer {
            OriginAnswer::Begun { reused, pages } => {
                let named = reused.last().is_none_or(|last| (*last as usize) < self.staged);
                if !named || !reused.is_sorted_by(|a, b| a < b) {
                    return Err("staged blocks that are not there");
                }
                OriginMessage::Plan { pages, reused }.encode(&mut io.out);
                io.ask(OriginRequest::NextBlock);
            }
            OriginAnswer::Block(Some(block)) => {
                if block.page_size() != facts.geometry.page_size {
                    return Err("a block of another page size than was announced");
                }
                put_block(&mut io.out, &block);
                io.ask(OriginRequest::NextBlock);
            }
            OriginAnswer::Block(None) => io.ask(OriginRequest::Proof),
            OriginAnswer::Proof(proof) => {
                OriginMessage::Proof(proof).encode(&mut io.out);
                return Ok(State::AwaitingDone);
            }
            _ => return Err("an answer that nobody asked for"),
        }
        Ok(State::Batches(self))
    }
}
