//! A push that is received and not yet committed: all of it is proved and durable, and nothing refers to it.
//! What becomes of it is decided here: a version, a candidate, or nothing.
//!
//! Its segments are pinned while this lives. Dropped before anything was made of it, it is as if the push had
//! been cut.

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::exchange::{Base, Committed, PushId};
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{Geometry, VersionNumber};

use super::commit::{create_as, random, unchanged};
use super::{Open, PushOptions};
use crate::candidate::{Candidate, KeepOptions};
use crate::error::Error;
use crate::manifest::{Manifest, MergeOf};
use crate::replica::Replica;

/// How many other pushes may come first before this one gives up.
const ATTEMPTS_MAX: u32 = 64;

/// What was made of the same push, or of the same content, before.
#[derive(Debug)]
pub(super) enum Already {
    /// A version.
    Committed(Committed),
    /// A candidate.
    Kept(Box<Candidate>),
}

/// What is to become of the stored pages when this goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Nothing was made of them: what a later push can take over stays.
    ForLater,
    /// Nothing may be made of them.
    Nothing,
    /// Something refers to them, or may: nothing is removed.
    All,
}

/// A push that is received and not yet committed.
#[derive(Debug)]
pub struct Received {
    replica: Replica,
    options: PushOptions,
    open: Open,
    /// Without its number.
    content: Manifest,
    committed: Option<Committed>,
    kept: Option<Box<Candidate>>,
    leave: Leave,
}

impl Received {
    pub(super) fn new(
        replica: Replica,
        options: PushOptions,
        open: Open,
        content: Manifest,
        already: Option<Already>,
    ) -> Received {
        let mut received =
            Received { replica, options, open, content, committed: None, kept: None, leave: Leave::ForLater };
        match already {
            None => {}
            Some(Already::Committed(committed)) => {
                received.committed = Some(committed);
                received.is_not_needed();
            }
            Some(Already::Kept(candidate)) => {
                // It goes on from there: what arrived this time is the same and is not needed.
                let Manifest { nonce, time, .. } = received.content;
                received.content = Manifest { candidate: None, nonce, time, ..candidate.content.clone() };
                received.kept = Some(candidate);
                received.is_not_needed();
            }
        }
        received
    }

    /// What arrived is there already.
    fn is_not_needed(&mut self) {
        self.open.collector.forget();
        self.open.tidy(&self.replica);
        self.leave = Leave::All;
    }

    /// The replica that is pushed to.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Page size and page count.
    pub fn geometry(&self) -> Geometry {
        self.content.geometry
    }

    /// What it hashes to.
    pub fn root(&self) -> Root {
        self.content.root
    }

    /// What canonical page 1 leaves out.
    pub fn fields(&self) -> HeaderFields {
        self.content.fields
    }

    /// What was received, as [`Replica::content`] and [`Replica::changed_pages`] take it. It has no number
    /// that means anything. Its pages are there while this is.
    pub fn content(&self) -> &Manifest {
        &self.content
    }

    /// The base as the pusher named it; `None` where it named none.
    pub fn named(&self) -> Option<Base> {
        self.open.named
    }

    /// The content that the pusher says it last agreed on, a version or a candidate. `None` where it said
    /// nothing of the kind, as versions 1 and 2 never do.
    pub fn agreed(&self) -> Option<&Manifest> {
        self.open.agreed.as_ref()
    }

    /// The push's id, where the pusher chose one.
    pub fn push_id(&self) -> Option<PushId> {
        self.open.push_id
    }

    /// The version of the protocol that is spoken.
    pub fn protocol_version(&self) -> u8 {
        self.open.version
    }

    /// What is to be answered without making anything: the push was made before and has its outcome, or its
    /// content is that of the latest version.
    pub fn already(&self) -> Result<Option<Committed>, Error> {
        match (&self.committed, &self.kept) {
            (Some(committed), _) => Ok(Some(*committed)),
            (None, Some(candidate)) => self.replica.answer_again(candidate),
            (None, None) => Ok(None),
        }
    }

    /// The candidate that it is kept as, by this or by an earlier attempt of the same push.
    pub fn kept(&self) -> Option<&Candidate> {
        self.kept.as_deref()
    }

    /// Whether, committed after `latest`, it would go on top of what its pusher does not know.
    pub fn overtakes(&self, latest: Option<&Manifest>) -> bool {
        let expected = self.open.base.as_ref().or(self.open.latest.as_ref()).map(|base| base.root);
        latest.map(|latest| latest.root) != expected
    }

    /// Commits it as the version after `latest`, the newest there is. `None` where somebody was first.
    ///
    /// # Errors
    /// [`Error::Withdrawn`] where the right to push ended meanwhile. After any other error the version may
    /// be there all the same.
    pub fn commit_after(&mut self, latest: Option<&Manifest>) -> Result<Option<Committed>, Error> {
        if let Some(committed) = self.committed {
            return Ok(Some(committed));
        }
        if let Some(latest) = latest.filter(|latest| latest.root == self.content.root) {
            let committed = unchanged(latest);
            if self.kept.is_none() && self.leave == Leave::ForLater {
                self.is_not_needed();
            }
            self.committed = Some(committed);
            return Ok(Some(committed));
        }
        let next = latest.map_or(Some(VersionNumber::FIRST), |latest| latest.number.next());
        let number = next.ok_or(Error::OutOfOrder("the last version number"))?;
        let overtook = self.overtakes(latest);
        self.may_be_made()?;
        // Kept before: it says that the candidate's changes are in.
        let merge = self.kept.as_ref().map(|kept| MergeOf { candidate: kept.id, ends: None });
        let manifest = Manifest { number, merge, ..self.content.clone() };
        if let Some(kept) = &self.kept {
            self.replica.before_late_merge(kept, number)?;
        }
        if create_as(&self.replica, &manifest)? {
            self.open.tidy(&self.replica);
            let version = Some(manifest.number);
            self.committed = Some(Committed { version, overtook, ..Committed::default() });
            return Ok(self.committed);
        }
        let winner = self.replica.manifest(manifest.number)?;
        if let Some(winner) = winner.filter(|winner| {
            manifest.push_id.is_some() && winner.push_id == manifest.push_id && winner.root == manifest.root
        }) {
            // The same push, by way of another process.
            self.committed = Some(Committed { version: Some(winner.number), ..Committed::default() });
        }
        Ok(self.committed)
    }

    /// Commits it on top of whatever is the latest version.
    pub(super) fn commit(mut self) -> Result<Committed, Error> {
        if let Some(before) = self.already()? {
            return Ok(before);
        }
        for _ in 0..ATTEMPTS_MAX {
            let latest = self.replica.latest()?;
            if let Some(committed) = self.commit_after(latest.as_ref())? {
                return Ok(committed);
            }
        }
        Err(Error::Contended(ATTEMPTS_MAX))
    }

    /// Keeps it as a candidate: what its pusher sent stays whole, whatever comes of it. Where the same push
    /// was kept before, that candidate is given back.
    ///
    /// # Errors
    /// [`Error::TooManyCandidates`], and as [`Received::commit_after`].
    pub fn keep(&mut self, options: KeepOptions) -> Result<Candidate, Error> {
        if self.committed.is_some() {
            return Err(Error::OutOfOrder("keep"));
        }
        if let Some(candidate) = &self.kept {
            // The process before may have ended between the two.
            self.replica.point_to(candidate)?;
            return Ok(Candidate::clone(candidate));
        }
        self.replica.has_room_for_candidate()?;
        self.may_be_made()?;
        let id = match self.open.push_id {
            Some(id) => id,
            None => PushId(random()?),
        };
        let latest = self.replica.latest_number()?;
        let number = latest.map_or(Some(VersionNumber::FIRST), VersionNumber::next);
        let number = number.ok_or(Error::OutOfOrder("the last version number"))?;
        let mut candidate = Candidate {
            id,
            content: Manifest { number, candidate: Some(id), ..self.content.clone() },
            merge_base: options.merge_base,
            adds_to: options.adds_to,
            conflicts_before: self.replica.conflict_count()?,
        };
        if !self.replica.create_candidate(&candidate)? {
            match self.replica.candidate(id)? {
                // The same push, by way of another process.
                Some(found) if found.content.root == self.content.root => candidate = found,
                // The id was used for something else: it recognises nothing.
                _ => {
                    candidate.id = PushId(random()?);
                    candidate.content.candidate = Some(candidate.id);
                    if !self.replica.create_candidate(&candidate)? {
                        return Err(Error::OutOfOrder("a random id"));
                    }
                }
            }
        }
        self.replica.point_to(&candidate)?;
        self.open.tidy(&self.replica);
        self.kept = Some(Box::new(candidate.clone()));
        Ok(candidate)
    }

    /// Asked right before anything is made of it. From here on it may have been, whatever an answer says.
    fn may_be_made(&mut self) -> Result<(), Error> {
        let stays = || self.open.base.as_ref().map_or(Ok(()), |base| self.replica.stays(base));
        let outcome = self.options.permission.ask().and_then(|()| self.open.in_time()).and_then(|()| stays());
        match &outcome {
            Ok(()) => self.leave = Leave::All,
            Err(Error::Withdrawn) if self.leave == Leave::ForLater => self.leave = Leave::Nothing,
            Err(_) => {}
        }
        outcome
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        match self.leave {
            Leave::ForLater => self.open.collector.keep_for_later(true),
            Leave::Nothing => self.open.collector.forget(),
            Leave::All => {}
        }
    }
}
