//! Version 3: the plan, the batches and the proof.

use super::{ReplicaAnswer, ReplicaIo, ReplicaRequest, State, unexpected};
use crate::block::Block;
use crate::conversation::Violation;
use crate::conversation::io::{Event, Stop};
use crate::exchange::{End, Proof};
use crate::message::{OriginMessage, ReplicaMessage};
use crate::page::{PageNumber, PageSize};

/// The ground is settled: the plan comes next.
pub(super) struct Planning {
    pub(super) page_size: PageSize,
    /// How many staged blocks were named.
    pub(super) staged: u32,
}

impl Planning {
    pub(super) fn on_plan(
        self,
        pages: Option<u32>,
        reused: Vec<u32>,
        io: &mut ReplicaIo,
    ) -> Result<State, Stop> {
        if let Some(place) = reused.last().filter(|place| **place >= self.staged) {
            return Err(Violation::Reused(*place).into());
        }
        if let Some(pages) = pages {
            io.event(Event::Total(pages.into()));
        }
        if self.staged > 0 {
            io.ask(ReplicaRequest::Reuse(reused));
        }
        Ok(State::Batches(Batches { page_size: self.page_size, last: None }))
    }
}

/// Taking blocks.
pub(super) struct Batches {
    page_size: PageSize,
    /// The last page that came.
    last: Option<PageNumber>,
}

impl Batches {
    pub(super) fn on_message(mut self, message: OriginMessage, io: &mut ReplicaIo) -> Result<State, Stop> {
        match message {
            OriginMessage::Batch(block) => {
                self.check(&block)?;
                self.last = Some(block.last());
                io.ask(ReplicaRequest::TakeBlock(block));
            }
            OriginMessage::Proof(proof) => self.on_proof(proof, io)?,
            message => return Err(unexpected(&State::Batches(self), &message)),
        }
        Ok(State::Batches(self))
    }

    fn check(&self, block: &Block) -> Result<(), Violation> {
        if self.last.is_some_and(|last| block.first() <= last) {
            return Err(Violation::Repeated(block.first()));
        }
        let lock_page = self.page_size.lock_page();
        if (block.first()..=block.last()).contains(&lock_page) && block.pages().any(|page| page == lock_page)
        {
            return Err(Violation::LockPage(lock_page));
        }
        Ok(())
    }

    fn on_proof(&self, proof: Proof, io: &mut ReplicaIo) -> Result<(), Violation> {
        if let Some(page) = self.last.filter(|last| !proof.page_count.contains(*last)) {
            return Err(Violation::PastEnd { page, count: proof.page_count });
        }
        io.ask(ReplicaRequest::Finish(End::Proof(proof)));
        Ok(())
    }

    pub(super) fn on_answer(self, answer: ReplicaAnswer, io: &mut ReplicaIo) -> Result<State, Violation> {
        match answer {
            ReplicaAnswer::Taken => Ok(State::Batches(self)),
            ReplicaAnswer::Finished(committed) => {
                ReplicaMessage::Done(committed).encode(&mut io.out);
                io.finish(committed);
                Ok(State::Over)
            }
            _ => Err(Violation::Misused("an answer that nobody asked for")),
        }
    }
}
