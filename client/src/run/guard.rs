//! What stands between the pages and a conversation: a dry run that counts and stops, and a push
//! that would only bring back what the server has had before.

use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::{
    Base, Committed, End, Fault, Form, Ground, Held, OriginPages, Proof, PushId, Refusal, ReplicaPages,
    Since, StagedBlock, Wanted,
};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

/// What a dry run found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Pages that would move.
    pub pages: u64,
    /// Bytes of them, in the form in which they would travel.
    pub bytes: u64,
    /// Whether `bytes` is only the most that it can be: how far the other side would compress them,
    /// it alone knows.
    pub at_most: bool,
}

/// Why a guarded transfer ended.
#[derive(Debug, thiserror::Error)]
pub enum Halt<E: Fault> {
    /// The pages' own error.
    #[error(transparent)]
    Pages(E),
    /// It is known what would move.
    #[error("a dry run: nothing is to be changed")]
    Counted(Count),
    /// The file is as it was when both sides last agreed, and the other side has gone on since.
    #[error("nothing to push: the file has not changed, and there is a newer version")]
    Stale {
        /// What the other side has.
        latest: Base,
    },
}

impl<E: Fault> Fault for Halt<E> {
    fn refusal(&self) -> Refusal {
        match self {
            Halt::Pages(error) => error.refusal(),
            Halt::Counted(_) => Refusal::NotWanted,
            Halt::Stale { .. } => Refusal::Failed,
        }
    }

    fn public_text(&self) -> String {
        match self {
            Halt::Pages(error) => error.public_text(),
            other => other.to_string(),
        }
    }
}

/// How a transfer through a guard ended.
#[derive(Debug)]
pub enum Ended<S> {
    /// As any other.
    Done(S),
    /// A dry run has counted.
    Counted(Count),
    /// See [`Halt::Stale`].
    Stale {
        /// What the other side has.
        latest: Base,
    },
}

/// Takes the guard's own ends out of the errors.
pub fn ended<S, E: Fault, W: std::error::Error + 'static>(
    result: Result<S, ExchangeError<Halt<E>, W>>,
) -> Result<Ended<S>, ExchangeError<E, W>> {
    Err(match result {
        Ok(summary) => return Ok(Ended::Done(summary)),
        Err(ExchangeError::Local(Halt::Counted(count))) => return Ok(Ended::Counted(count)),
        Err(ExchangeError::Local(Halt::Stale { latest })) => return Ok(Ended::Stale { latest }),
        Err(ExchangeError::Local(Halt::Pages(error))) => ExchangeError::Local(error),
        Err(ExchangeError::Wire(error)) => ExchangeError::Wire(error),
        Err(ExchangeError::Peer { refusal, text }) => ExchangeError::Peer { refusal, text },
        Err(ExchangeError::Protocol(violation)) => ExchangeError::Protocol(violation),
        Err(ExchangeError::Closed) => ExchangeError::Closed,
    })
}

/// What a guard at an origin watches for.
#[derive(Clone, Copy, Debug)]
pub struct OriginGuard {
    /// Count, and stop before the first page.
    pub dry: bool,
    /// Stop where only old content would be brought back.
    pub stop_stale: bool,
}

/// An origin with a guard.
#[derive(Debug)]
pub struct GuardedOrigin<P> {
    pages: P,
    guard: OriginGuard,
    /// What the replica said it has, where the origin did not know it.
    theirs: Option<Base>,
    /// The base that the pages are a difference to.
    proposed: Option<Base>,
}

impl<P: OriginPages> GuardedOrigin<P> {
    pub fn new(pages: P, guard: OriginGuard) -> Self {
        GuardedOrigin { pages, guard, theirs: None, proposed: None }
    }

    /// The pages, when all is over.
    pub fn into_inner(self) -> P {
        self.pages
    }

    /// What the replica has, where what would be sent is the base itself: no change of ours, and so
    /// nothing but a step back.
    fn stale(&self, root: Root) -> Option<Base> {
        let base = self.proposed.filter(|base| base.root == root && self.guard.stop_stale)?;
        self.theirs.filter(|theirs| theirs.root != base.root)
    }

    /// Goes through all that would be sent.
    fn count(&mut self, form: Form) -> Result<(u64, u64), P::Error> {
        let (mut pages, mut bytes) = (0, 0);
        match form {
            Form::Pages => {
                let mut page = vec![0; self.pages.geometry()?.page_size.bytes()];
                while self.pages.next_page(&mut page)?.is_some() {
                    pages += 1;
                    bytes += page.len() as u64;
                }
            }
            Form::Blocks => {
                while let Some(block) = self.pages.next_block()? {
                    pages += u64::from(block.page_count());
                    bytes += block.as_bytes().len() as u64;
                }
            }
        }
        Ok((pages, bytes))
    }
}

impl<P: OriginPages> OriginPages for GuardedOrigin<P> {
    type Error = Halt<P::Error>;

    fn geometry(&mut self) -> Result<Geometry, Self::Error> {
        self.pages.geometry().map_err(Halt::Pages)
    }

    fn base(&mut self) -> Result<Option<Base>, Self::Error> {
        self.pages.base().map_err(Halt::Pages)
    }

    fn push_id(&mut self) -> Result<Option<PushId>, Self::Error> {
        self.pages.push_id().map_err(Halt::Pages)
    }

    fn knows(&mut self, base: &Base) -> Result<bool, Self::Error> {
        let knows = self.pages.knows(base).map_err(Halt::Pages)?;
        self.theirs = (!knows).then_some(*base);
        Ok(knows)
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Self::Error> {
        self.pages.group_hash(first, count).map_err(Halt::Pages)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Self::Error> {
        self.pages.node(node).map_err(Halt::Pages)
    }

    fn begin(&mut self, wanted: Wanted) -> Result<(), Self::Error> {
        let (form, staged) = (wanted.form, !wanted.staged.is_empty());
        self.proposed = match &wanted.since {
            Since::Base(base) => Some(*base),
            _ => None,
        };
        self.pages.begin(wanted).map_err(Halt::Pages)?;
        if self.guard.dry {
            if staged && form == Form::Blocks {
                self.pages.reused().map_err(Halt::Pages)?;
            }
            let (pages, bytes) = self.count(form).map_err(Halt::Pages)?;
            self.proof()?;
            return Err(Halt::Counted(Count { pages, bytes, at_most: false }));
        }
        Ok(())
    }

    fn reused(&mut self) -> Result<Vec<u32>, Self::Error> {
        self.pages.reused().map_err(Halt::Pages)
    }

    fn pages_to_send(&mut self) -> Result<Option<u32>, Self::Error> {
        self.pages.pages_to_send().map_err(Halt::Pages)
    }

    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, Self::Error> {
        self.pages.next_page(page).map_err(Halt::Pages)
    }

    fn next_block(&mut self) -> Result<Option<Block>, Self::Error> {
        self.pages.next_block().map_err(Halt::Pages)
    }

    fn proof(&mut self) -> Result<Proof, Self::Error> {
        let proof = self.pages.proof().map_err(Halt::Pages)?;
        match self.stale(proof.root) {
            Some(latest) => Err(Halt::Stale { latest }),
            None => Ok(proof),
        }
    }

    fn acknowledged(&mut self, committed: Committed) -> Result<(), Self::Error> {
        self.pages.acknowledged(committed).map_err(Halt::Pages)
    }
}

/// A replica that, on a dry run, takes nothing.
#[derive(Debug)]
pub struct GuardedReplica<P> {
    pages: P,
    dry: bool,
    taken: u64,
    page_len: u64,
}

impl<P: ReplicaPages> GuardedReplica<P> {
    pub fn new(pages: P, dry: bool) -> Self {
        GuardedReplica { pages, dry, taken: 0, page_len: 0 }
    }

    /// The pages, when all is over.
    pub fn into_inner(self) -> P {
        self.pages
    }

    fn counted(&self, pages: u64) -> Halt<P::Error> {
        Halt::Counted(Count { pages, bytes: pages * self.page_len, at_most: true })
    }
}

impl Count {
    /// The same with the number of pages that was announced.
    pub fn of_announced(self, pages: Option<u64>) -> Count {
        let Some(announced) = pages.filter(|_| self.pages > 0) else { return self };
        Count { pages: announced, bytes: self.bytes / self.pages * announced, ..self }
    }
}

impl<P: ReplicaPages> ReplicaPages for GuardedReplica<P> {
    type Error = Halt<P::Error>;

    fn begin(&mut self, origin: Geometry, version: u8) -> Result<Held, Self::Error> {
        self.page_len = origin.page_size.bytes() as u64;
        self.pages.begin(origin, version).map_err(Halt::Pages)
    }

    fn staged(&mut self) -> Result<Vec<StagedBlock>, Self::Error> {
        self.pages.staged().map_err(Halt::Pages)
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Self::Error> {
        self.pages.group_hash(first, count).map_err(Halt::Pages)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Self::Error> {
        self.pages.node(node).map_err(Halt::Pages)
    }

    fn accept(&mut self, ground: Ground, push: Option<PushId>) -> Result<bool, Self::Error> {
        self.pages.accept(ground, push).map_err(Halt::Pages)
    }

    fn reuse(&mut self, staged: &[u32]) -> Result<(), Self::Error> {
        self.pages.reuse(staged).map_err(Halt::Pages)
    }

    fn take_page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), Self::Error> {
        if self.dry {
            // The older versions do not say beforehand how many pages will come: they are counted.
            self.taken += 1;
            return Ok(());
        }
        self.pages.take_page(number, page).map_err(Halt::Pages)
    }

    fn take_block(&mut self, block: Block) -> Result<(), Self::Error> {
        if self.dry {
            return Err(self.counted(block.page_count().into()));
        }
        self.pages.take_block(block).map_err(Halt::Pages)
    }

    fn finish(&mut self, end: End) -> Result<Committed, Self::Error> {
        if self.dry {
            return Err(self.counted(self.taken));
        }
        self.pages.finish(end).map_err(Halt::Pages)
    }
}

#[cfg(test)]
#[path = "guard/tests.rs"]
mod tests;
