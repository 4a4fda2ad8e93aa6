//! Versions 1 and 2: pages, the page count, the end. Nothing proves the whole, so what can be known
//! is checked here: no page past the end, none twice, none missing.

use roaring::RoaringBitmap;

use super::hashes::Common;
use super::{ReplicaAnswer, ReplicaIo, ReplicaRequest, State, unexpected};
use crate::conversation::io::Stop;
use crate::conversation::{Fidelity, Violation};
use crate::exchange::{End, Ground};
use crate::message::OriginMessage;
use crate::page::{PageCount, PageNumber};

/// Taking pages.
pub(super) struct Receiving {
    common: Common,
    /// The first message, while the pages are asked to accept.
    first: Option<OriginMessage>,
    /// Pages taken, and the highest of them.
    taken: u64,
    highest: Option<PageNumber>,
    /// Pages taken that the replica did not have.
    new: RoaringBitmap,
    /// The page count, once ORIGIN_TXN came.
    count: Option<PageCount>,
}

impl Receiving {
    pub(super) fn start(common: Common, message: OriginMessage, io: &mut ReplicaIo) -> Result<State, Stop> {
        let ground = match common.held {
            PageCount::ZERO => Ground::Nothing { recognised: false },
            _ => Ground::Compared,
        };
        io.ask(ReplicaRequest::Accept { ground, push: None });
        Ok(State::Receiving(Receiving {
            common,
            first: Some(message),
            taken: 0,
            highest: None,
            new: RoaringBitmap::new(),
            count: None,
        }))
    }

    pub(super) fn on_message(self, message: OriginMessage, io: &mut ReplicaIo) -> Result<State, Stop> {
        match message {
            OriginMessage::Page { number, page } if self.count.is_none() => {
                let receiving = self.on_page(number)?;
                io.ask(ReplicaRequest::TakePage { number, page });
                Ok(State::Receiving(receiving))
            }
            OriginMessage::Txn(count) if self.count.is_none() => Ok(State::Receiving(self.on_count(count)?)),
            OriginMessage::End => match self.count {
                Some(count) => {
                    io.ask(ReplicaRequest::Finish(End::PageCount(count)));
                    Ok(State::Receiving(self))
                }
                None => Err(unexpected(&State::Receiving(self), &OriginMessage::End)),
            },
            message => Err(unexpected(&State::Receiving(self), &message)),
        }
    }

    fn on_page(mut self, number: PageNumber) -> Result<Self, Violation> {
        if number == self.common.origin.page_size.lock_page() {
            return Err(Violation::LockPage(number));
        }
        self.taken += 1;
        self.highest = self.highest.max(Some(number));
        // Different pages, in whatever order, are never more than their highest number.
        if self.highest.is_some_and(|highest| self.taken > u64::from(highest.get())) {
            return Err(Violation::Repeated(number));
        }
        if !self.common.held.contains(number) {
            self.new.insert(number.get());
        }
        Ok(self)
    }

    fn on_count(mut self, count: PageCount) -> Result<Self, Violation> {
        if let Some(page) = self.highest.filter(|highest| !count.contains(*highest)) {
            return Err(Violation::PastEnd { page, count });
        }
        if let Some(page) = self.missing(count).filter(|_| self.common.fidelity == Fidelity::Whole) {
            return Err(Violation::Missing(page));
        }
        self.count = Some(count);
        Ok(self)
    }

    /// The first page that the replica did not have and that did not come.
    fn missing(&mut self, count: PageCount) -> Option<PageNumber> {
        let past = self.common.held.get().checked_add(1).filter(|past| *past <= count.get())?;
        let lock_page = self.common.origin.page_size.lock_page().get();
        if (past..=count.get()).contains(&lock_page) {
            self.new.insert(lock_page);
        }
        if self.new.len() == u64::from(count.get() - past) + 1 {
            return None;
        }
        let first_gap = self.new.iter().zip(past..).find(|(there, expected)| there != expected);
        let number =
            first_gap.map_or_else(|| u64::from(past) + self.new.len(), |(_, expected)| expected.into());
        u32::try_from(number).ok().and_then(PageNumber::new)
    }

    pub(super) fn on_answer(mut self, answer: ReplicaAnswer, io: &mut ReplicaIo) -> Result<State, Violation> {
        match (answer, self.first.take()) {
            (ReplicaAnswer::Accepted(true), Some(message)) => {
                self.on_message(message, io).map_err(|stop| match stop {
                    Stop::Violation(violation) => violation,
                    Stop::Peer { .. } | Stop::Closed => Violation::Misused("an error without a cause"),
                })
            }
            (ReplicaAnswer::Accepted(false), _) => Err(Violation::Misused("what is there was not accepted")),
            (ReplicaAnswer::Taken, None) => Ok(State::Receiving(self)),
            (ReplicaAnswer::Finished(committed), None) => {
                io.finish(committed);
                Ok(State::Over)
            }
            _ => Err(Violation::Misused("an answer that nobody asked for")),
        }
    }
}
