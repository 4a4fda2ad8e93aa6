//! Candidates that nothing needs any more.
//!
//! A candidate stays while an open conflict, one that ended lately, or a client record names it, or another
//! candidate that stays is still to be merged and counted from it. (One that was merged is done with what it was
//! counted from: a client that never pulls would keep all that it ever pushed.) Of the others, a client's last one stays, since the client's next
//! push is made from it, and those before it for a while.
//!
//! A push that is made from a candidate may run anywhere while it is removed. So it goes in two steps: first
//! its root is marked, from when on no push is made from it and none that was is kept or committed; a day and
//! a bit later it goes, and what it alone referred to with the next sweep.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::hash::Root;

use super::{CLOCKS_APART_MAX, Sweep};
use crate::candidate::{CANDIDATE_TIME, Candidate};
use crate::client::ClientKey;
use crate::error::Error;
use crate::id::{Name, SegmentId};
use crate::push::PUSH_TIME_MAX;
use crate::replica::Replica;
use crate::standing::Standing;

/// How many candidates of a client stay at most that nothing names. It pushes again and again, and is made
/// from what it sent last.
const OF_CLIENT_MAX: usize = 64;

/// How long the last candidate of a client stays: as long as the client may be away.
const LAST_TIME: SignedDuration = SignedDuration::from_hours(400 * 24);

/// How old a candidate is at least that goes since its client has too many.
const BUSY_TIME: SignedDuration = SignedDuration::from_hours(1);

/// How long a candidate is marked before it goes: whoever saw it unmarked is done by then.
const MARKED_TIME: SignedDuration = SignedDuration::from_hours(CLOCKS_APART_MAX.as_hours() + 2);

/// What of a candidate decides whether it stays.
struct Brief {
    root: Root,
    time: Timestamp,
    client: [u8; 16],
    /// The candidate that it is counted from.
    base: Option<[u8; 16]>,
    /// The candidate whose place in a conflict it is to take.
    adds_to: Option<[u8; 16]>,
}

impl Brief {
    fn of(candidate: &Candidate) -> Brief {
        Brief {
            root: candidate.content.root,
            time: candidate.content.time,
            client: ClientKey::of(&candidate.content).hash(),
            base: candidate.merge_base.and_then(|base| base.candidate).map(|id| id.0),
            adds_to: candidate.adds_to.map(|to| to.candidate.0),
        }
    }
}

type Briefs = BTreeMap<[u8; 16], Brief>;

impl Sweep<'_> {
    /// Removes candidates that nothing needs, and adds the segments of all that were there to those in use.
    /// `named` are the candidates that conflicts and clients name.
    pub(super) fn candidates(
        &mut self,
        replica: &Replica,
        named: BTreeSet<[u8; 16]>,
        used: &mut BTreeSet<SegmentId>,
    ) -> Result<(), Error> {
        let mut briefs = Briefs::new();
        for id in replica.candidates()? {
            let Some(candidate) = replica.candidate(id)? else { continue };
            used.extend(candidate.content.segments.iter().map(|segment| segment.id));
            briefs.insert(id.0, Brief::of(&candidate));
        }
        let needed = needed(replica, &briefs, named)?;
        let mut by_client: Vec<(&[u8; 16], &Brief)> = briefs.iter().collect();
        by_client.sort_by_key(|(_, brief)| (brief.client, std::cmp::Reverse(brief.time)));
        let mut removed = 0;
        let (mut client, mut place) = (None, 0);
        for (id, brief) in by_client {
            place = if client == Some(brief.client) { place + 1 } else { 0 };
            client = Some(brief.client);
            if needed.contains(id) {
                replica.unmark(PushId(*id), brief.root)?;
            } else if self.is_due(replica, *id, brief, place)? && self.may_go(replica, *id, brief, &briefs)? {
                self.remove_candidate(replica, *id, brief)?;
                removed += 1;
            }
        }
        replica.candidates_counted(briefs.len() - removed);
        Ok(())
    }

    fn is_due(&self, replica: &Replica, id: [u8; 16], brief: &Brief, place: usize) -> Result<bool, Error> {
        let age = self.now.duration_since(brief.time);
        match place {
            0 => Ok(age > LAST_TIME),
            _ if age > CANDIDATE_TIME => Ok(true),
            _ if place < OF_CLIENT_MAX || age < BUSY_TIME => Ok(false),
            _ => {
                let Some(candidate) = replica.candidate(PushId(id))? else { return Ok(false) };
                let standing = replica.standing(&candidate)?;
                Ok(matches!(standing, Standing::Merged(_) | Standing::Settled(..)))
            }
        }
    }

    /// Marks a candidate, and says whether it has been marked for long enough.
    fn may_go(&self, replica: &Replica, id: [u8; 16], brief: &Brief, briefs: &Briefs) -> Result<bool, Error> {
        let (since, least) = match replica.pointer(brief.root)? {
            Some(pointer) if pointer.candidate.0 == id => match pointer.marked {
                Some(marked) => (marked, MARKED_TIME),
                None => {
                    replica.mark(PushId(id), brief.root, self.now)?;
                    (self.now, MARKED_TIME)
                }
            },
            pointer => match pointer.and_then(|pointer| briefs.get(&pointer.candidate.0)) {
                // A later candidate of the same content is found in its place.
                Some(later) => (later.time, MARKED_TIME + PUSH_TIME_MAX),
                None => {
                    replica.mark(PushId(id), brief.root, self.now)?;
                    (self.now, MARKED_TIME)
                }
            },
        };
        Ok(self.now.duration_since(since) > least)
    }

    fn remove_candidate(&mut self, replica: &Replica, id: [u8; 16], brief: &Brief) -> Result<(), Error> {
        let store = &self.repository.shared().store;
        store.delete(&Name::Candidate(id).path(replica.id()))?;
        self.report.objects_removed += 1;
        // One that stays behind has no candidate, and goes with what else is left.
        if replica.pointer(brief.root)?.is_some_and(|pointer| pointer.candidate.0 == id) {
            store.delete(&Name::CandidateRoot(brief.root).path(replica.id()))?;
            self.report.objects_removed += 1;
        }
        Ok(())
    }
}

/// Those that are named, and all that is still needed to merge them.
fn needed(
    replica: &Replica,
    briefs: &Briefs,
    named: BTreeSet<[u8; 16]>,
) -> Result<BTreeSet<[u8; 16]>, Error> {
    let mut open: Vec<[u8; 16]> = named.iter().copied().collect();
    let mut needed = named;
    while let Some(id) = open.pop() {
        let Some(brief) = briefs.get(&id).filter(|brief| brief.base.is_some() || brief.adds_to.is_some())
        else {
            continue;
        };
        let Some(candidate) = replica.candidate(PushId(id))? else { continue };
        let (base, adds_to) = match replica.standing(&candidate)? {
            Standing::Merged(_) | Standing::Settled(..) => (None, None),
            Standing::InConflict(_) => (brief.base, None),
            Standing::Kept => (brief.base, brief.adds_to),
        };
        open.extend(base.into_iter().chain(adds_to).filter(|id| needed.insert(*id)));
    }
    Ok(needed)
}
