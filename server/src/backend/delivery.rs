//! A version on its way to a client that may push, whose next push may then be made from it.
//!
//! A client that does not say what its push was made from is taken at what it pulled: see [`bases`]. That is noted
//! before anybody can have the version, since a pull that is cut may have arrived all the same; and not
//! sooner, since a pull that never came so far would only be in the way of that push.
//!
//! - In versions 1 and 2 a page may be used as it comes: noted before the first.
//! - In version 3 nothing is used that was not proved: noted before the proof.
//! - A client that says that it wants none of it (a dry run, a file with changes of its own) has been sent a small
//!   database by then, proof and all: the note is taken back, if nobody has looked at it since.
//!
//! [`bases`]: super::merging

use std::thread::JoinHandle;

use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::exchange::{Base, Committed, Fault, Form, OriginPages, Proof, PushId, Wanted};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber, VersionNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;
use sqlrsync_repository::Replica;

use super::PullPlan;
use super::merging::{self, PulledNote};

/// A version's pages, and the note that goes with them.
pub struct Delivery<O> {
    pages: O,
    /// Whom to note it of; `None` where the client can push nothing.
    puller: Option<Puller>,
    noted: Option<Noted>,
}

#[derive(Clone)]
struct Puller {
    replica: Replica,
    client_id: String,
    version: VersionNumber,
    /// It says itself what it has, as long as it knows: nobody waits for the note.
    aside: bool,
}

/// A note, or what is at work on it. `None` in either where there was nothing to note, or it failed.
enum Noted {
    Done(Option<PulledNote>),
    Aside(JoinHandle<Option<PulledNote>>),
}

impl Puller {
    /// A pull is not refused for it: without the note that push becomes a conflict, and nothing is lost.
    fn note(&self) -> Option<PulledNote> {
        merging::note_pulled(&self.replica, &self.client_id, self.version).unwrap_or_else(|error| {
            tracing::warn!(%error, replica = %self.replica.id(), "what a client pulls is not noted");
            None
        })
    }

    fn note_aside(self) -> Option<Noted> {
        let note = move || self.note();
        match std::thread::Builder::new().name("client note".to_owned()).spawn(note) {
            Ok(at_work) => Some(Noted::Aside(at_work)),
            Err(error) => {
                tracing::warn!(%error, "no thread to note what a client pulls");
                None
            }
        }
    }
}

impl<O> Delivery<O> {
    /// Of this pull, to a client that calls itself so.
    pub fn new(pages: O, plan: &PullPlan, client_id: &str) -> Delivery<O> {
        let pushes = plan.caller.key().is_some_and(|key| key.kind.may_push());
        let puller = pushes.then(|| Puller {
            replica: plan.replica.clone(),
            client_id: client_id.to_owned(),
            version: plan.version.number,
            aside: plan.own_client,
        });
        Delivery { pages, puller, noted: None }
    }

    fn note(&mut self) {
        let (Some(puller), None) = (&self.puller, &self.noted) else { return };
        self.noted =
            if puller.aside { puller.clone().note_aside() } else { Some(Noted::Done(puller.note())) };
    }

    /// The client has said that it wants none of it, and what it has is as it was.
    pub fn was_not_wanted(self) {
        let note = match self.noted {
            Some(Noted::Done(note)) => note,
            Some(Noted::Aside(at_work)) => at_work.join().ok().flatten(),
            None => None,
        };
        let (Some(puller), Some(note)) = (self.puller, note) else { return };
        if let Err(error) = merging::take_back_pulled(&puller.replica, &puller.client_id, &note) {
            tracing::warn!(%error, replica = %puller.replica.id(), "a pull that was not wanted stays noted");
        }
    }
}

impl<E: Fault, O: OriginPages<Error = E>> OriginPages for Delivery<O> {
    type Error = E;

    fn geometry(&mut self) -> Result<Geometry, E> {
        self.pages.geometry()
    }

    fn base(&mut self) -> Result<Option<Base>, E> {
        self.pages.base()
    }

    fn push_id(&mut self) -> Result<Option<PushId>, E> {
        self.pages.push_id()
    }

    fn knows(&mut self, base: &Base) -> Result<bool, E> {
        self.pages.knows(base)
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, E> {
        self.pages.group_hash(first, count)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, E> {
        self.pages.node(node)
    }

    fn begin(&mut self, wanted: Wanted) -> Result<(), E> {
        if wanted.form == Form::Pages {
            self.note();
        }
        self.pages.begin(wanted)
    }

    fn reused(&mut self) -> Result<Vec<u32>, E> {
        self.pages.reused()
    }

    fn pages_to_send(&mut self) -> Result<Option<u32>, E> {
        self.pages.pages_to_send()
    }

    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, E> {
        self.pages.next_page(page)
    }

    fn next_block(&mut self) -> Result<Option<Block>, E> {
        self.pages.next_block()
    }

    fn proof(&mut self) -> Result<Proof, E> {
        self.note();
        self.pages.proof()
    }

    fn acknowledged(&mut self, committed: Committed) -> Result<(), E> {
        self.pages.acknowledged(committed)
    }
}
