//! Candidates: contents that were pushed and are no version. A push that is not made from the latest version
//! is kept as one before it is merged: what the pusher sent is then its next push's base, whatever the merge
//! makes of it, and waits whole where it has to be settled.
//!
//! A candidate is an object as a manifest is, created after all it refers to is durable, and never changed.
//! Its list of segments has all that its tree needs and that no version lists: those of the candidate that
//! it was a difference to as well. A small object beside it, `candidate-roots/{root}`, says which candidate
//! has a root; it is written first, so that a candidate is always found by its root.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::envelope;
use crate::error::{Damage, Error};
use crate::id::{Name, ReplicaId, hex16};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, Stored, hex};
use crate::numbers::Row;
use crate::replica::{Replica, VERSIONS_SEARCHED_MAX};
use crate::store::Create;

/// The most candidates of a replica. Beyond it nothing is kept until some are settled or swept.
pub const CANDIDATES_MAX: usize = 32_768;

/// How long a candidate is kept that nothing refers to any more.
pub const CANDIDATE_TIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How many versions after a candidate its merge is late. Half of those that are searched for it: others may be
/// first for a while.
const LATE_MERGE: u64 = VERSIONS_SEARCHED_MAX as u64 / 2;

/// The most bytes of a candidate's object.
const CANDIDATE_BYTES_MAX: u64 = MANIFEST_BYTES_MAX + (4 << 10);

/// The most bytes of the object that says which candidate has a root.
const POINTER_BYTES_MAX: u64 = 1 << 10;

/// A content that was pushed and is no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The id of its push, or a random one where the peer has none.
    pub id: PushId,
    /// What it is, and who pushed it, when and from where.
    pub content: Manifest,
    /// What its changes are counted from; `None` where nothing is known that both sides had.
    pub merge_base: Option<MergeBase>,
    /// The conflict that it adds to, since it is made from the candidate that is in it.
    pub adds_to: Option<AddsTo>,
    /// How many conflicts there were when it was kept: one that it opened has a higher number.
    pub(crate) conflicts_before: u64,
}

/// A content that changes are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeBase {
    /// What it hashes to.
    pub root: Root,
    /// The version that it is; `None` where it is a candidate.
    pub version: Option<VersionNumber>,
    /// The candidate that it is.
    pub candidate: Option<PushId>,
}

impl MergeBase {
    /// A version or a candidate.
    pub fn of(content: &Manifest) -> MergeBase {
        MergeBase { root: content.root, version: content.as_base().version, candidate: content.candidate }
    }
}

/// How to keep what was received.
#[derive(Clone, Debug, Default)]
pub struct KeepOptions {
    /// What its changes are counted from.
    pub merge_base: Option<MergeBase>,
    /// The open conflict that it adds to.
    pub adds_to: Option<AddsTo>,
}

/// A conflict that a candidate is to take the place in of one that it is made from, and so has all changes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddsTo {
    /// The conflict.
    pub conflict: ConflictNumber,
    /// The candidate that is in it.
    pub candidate: PushId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCandidate {
    id: String,
    merge_base: Option<StoredMergeBase>,
    adds_to: Option<StoredAddsTo>,
    conflicts_before: u64,
    content: Stored,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAddsTo {
    conflict: u64,
    candidate: String,
}

/// Also part of conflicts and of client records.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredMergeBase {
    root: String,
    version: Option<u64>,
    candidate: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPointer {
    replica: String,
    root: String,
    candidate: String,
    marked: Option<Timestamp>,
    merged_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<u64>,
}

impl StoredMergeBase {
    pub(crate) fn of(base: &MergeBase) -> StoredMergeBase {
        StoredMergeBase {
            root: base.root.to_string(),
            version: base.version.map(VersionNumber::get),
            candidate: base.candidate.map(|id| hex(&id.0)),
        }
    }

    pub(crate) fn parse(&self) -> Option<MergeBase> {
        // One of the two.
        if self.version.is_some() == self.candidate.is_some() {
            return None;
        }
        Some(MergeBase {
            root: self.root.parse().ok()?,
            version: self.version.map(VersionNumber::new).map_or(Some(None), |number| number.map(Some))?,
            candidate: self
                .candidate
                .as_deref()
                .map(hex16)
                .map_or(Some(None), |id| id.map(Some))?
                .map(PushId),
        })
    }
}

impl Candidate {
    pub(crate) fn encode(&self) -> Result<Bytes, Error> {
        let stored = StoredCandidate {
            id: hex(&self.id.0),
            merge_base: self.merge_base.as_ref().map(StoredMergeBase::of),
            adds_to: self
                .adds_to
                .map(|to| StoredAddsTo { conflict: to.conflict.get(), candidate: hex(&to.candidate.0) }),
            conflicts_before: self.conflicts_before,
            content: Stored::of(&self.content),
        };
        envelope::encode("candidate", &stored).map_err(|_| Error::OutOfOrder("candidate"))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Candidate, Damage> {
        if bytes.len() as u64 > CANDIDATE_BYTES_MAX {
            return Err(Damage::TooLarge);
        }
        envelope::decode::<StoredCandidate>("candidate", bytes)?.parse().ok_or(Damage::Structure)
    }
}

impl StoredCandidate {
    fn parse(self) -> Option<Candidate> {
        let id = PushId(hex16(&self.id)?);
        let content = self.content.parse()?;
        if content.merge.is_some() {
            return None;
        }
        let merge_base = match self.merge_base {
            None => None,
            Some(base) => Some(base.parse()?),
        };
        let adds_to = match self.adds_to {
            None => None,
            Some(to) => Some(AddsTo {
                conflict: ConflictNumber::new(to.conflict)?,
                candidate: PushId(hex16(&to.candidate)?),
            }),
        };
        let content = Manifest { candidate: Some(id), ..content };
        Some(Candidate { id, content, merge_base, adds_to, conflicts_before: self.conflicts_before })
    }
}

/// Which candidate has a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) candidate: PushId,
    /// Since when it is about to be removed: nothing is made from it any more.
    pub(crate) marked: Option<Timestamp>,
    /// The version from which on its merge is to be looked for, where that was not made soon after it.
    pub(crate) merged_from: Option<VersionNumber>,
    /// The conflict that it opened. A hint: that conflict's first step says whether it is so, and where there is
    /// none the conflicts are looked through.
    pub(crate) conflict: Option<ConflictNumber>,
}

impl Pointer {
    pub(crate) fn encode(&self, replica: ReplicaId, root: Root) -> Result<Bytes, Error> {
        let stored = StoredPointer {
            replica: replica.to_string(),
            root: root.to_string(),
            candidate: hex(&self.candidate.0),
            marked: self.marked,
            merged_from: self.merged_from.map(VersionNumber::get),
            conflict: self.conflict.map(ConflictNumber::get),
        };
        envelope::encode("candidate-root", &stored).map_err(|_| Error::OutOfOrder("candidate root"))
    }

    pub(crate) fn decode(replica: ReplicaId, root: Root, bytes: &[u8]) -> Result<Pointer, Damage> {
        let stored: StoredPointer = envelope::decode("candidate-root", bytes)?;
        if stored.replica != replica.to_string() || stored.root != root.to_string() {
            return Err(Damage::Misplaced);
        }
        let candidate = hex16(&stored.candidate).map(PushId).ok_or(Damage::Structure)?;
        let merged_from = match stored.merged_from {
            None => None,
            Some(number) => Some(VersionNumber::new(number).ok_or(Damage::Structure)?),
        };
        let conflict = match stored.conflict {
            None => None,
            Some(number) => Some(ConflictNumber::new(number).ok_or(Damage::Structure)?),
        };
        Ok(Pointer { candidate, marked: stored.marked, merged_from, conflict })
    }
}

impl Replica {
    /// The candidate of this id; `None` where there is none.
    pub fn candidate(&self, id: PushId) -> Result<Option<Candidate>, Error> {
        let path = Name::Candidate(id.0).path(self.id());
        let Some(bytes) = self.shared().store.get(&path, CANDIDATE_BYTES_MAX)? else { return Ok(None) };
        match Candidate::decode(&bytes) {
            Ok(found) if found.id == id && found.content.replica == self.id() => Ok(Some(found)),
            Ok(_) => Err(Error::damaged(path, Damage::Misplaced)),
            Err(damage) => Err(Error::damaged(path, damage)),
        }
    }

    /// The candidate that was last kept of this root.
    pub fn candidate_by_root(&self, root: Root) -> Result<Option<Candidate>, Error> {
        let pointer = match self.pointer(root) {
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "a candidate is not found by its root");
                None
            }
            pointer => pointer?.filter(|pointer| pointer.marked.is_none()),
        };
        let Some(pointer) = pointer else { return Ok(None) };
        Ok(self.candidate(pointer.candidate)?.filter(|found| found.content.root == root))
    }

    pub(crate) fn pointer(&self, root: Root) -> Result<Option<Pointer>, Error> {
        let path = Name::CandidateRoot(root).path(self.id());
        let Some(bytes) = self.shared().store.get(&path, POINTER_BYTES_MAX)? else { return Ok(None) };
        Pointer::decode(self.id(), root, &bytes).map(Some).map_err(|damage| Error::damaged(path, damage))
    }

    fn put_pointer(&self, root: Root, pointer: Pointer) -> Result<(), Error> {
        let bytes = pointer.encode(self.id(), root)?;
        self.shared().store.put(&Name::CandidateRoot(root).path(self.id()), bytes)
    }

    /// Says that a root is a candidate's, in place of another of the same content.
    pub(crate) fn point_to(&self, candidate: &Candidate) -> Result<(), Error> {
        match self.pointer(candidate.content.root) {
            Ok(Some(Pointer { candidate: named, marked: None, .. })) if named == candidate.id => {
                return Ok(());
            }
            Err(error) if !error.is_damage() => return Err(error),
            _ => {}
        }
        let pointer = Pointer { candidate: candidate.id, marked: None, merged_from: None, conflict: None };
        self.put_pointer(candidate.content.root, pointer)
    }

    /// Where a candidate is merged long after it was kept, says from which version on its merge is to be looked
    /// for: before the merge, so that it is found whenever it was made. Some versions before it will do, since
    /// another process may be merging the same one.
    pub(crate) fn before_late_merge(
        &self,
        candidate: &Candidate,
        number: VersionNumber,
    ) -> Result<(), Error> {
        let late = number.get().saturating_sub(candidate.content.number.get());
        if late < LATE_MERGE {
            return Ok(());
        }
        let merged_from = number.back(LATE_MERGE / 2);
        let conflict = self.opened_hint(candidate);
        let pointer = Pointer { candidate: candidate.id, marked: None, merged_from, conflict };
        self.put_pointer(candidate.content.root, pointer)
    }

    /// The version from which on a candidate's merge is to be looked for, where that is said.
    pub(crate) fn merged_from(&self, candidate: &Candidate) -> Result<Option<VersionNumber>, Error> {
        let pointer = self.pointer(candidate.content.root)?;
        Ok(pointer
            .filter(|pointer| pointer.candidate == candidate.id)
            .and_then(|pointer| pointer.merged_from))
    }

    /// The conflict that a candidate is said to have opened.
    pub(crate) fn opened_hint(&self, candidate: &Candidate) -> Option<ConflictNumber> {
        // Where it cannot be read nothing is lost.
        let pointer = self.pointer(candidate.content.root).ok().flatten()?;
        pointer.conflict.filter(|_| pointer.candidate == candidate.id)
    }

    /// Says which conflict a candidate opened, so that it is found without looking through all of them.
    pub(crate) fn hint_opened(&self, candidate: &Candidate, conflict: ConflictNumber) {
        let root = candidate.content.root;
        let hint = || match self.pointer(root)? {
            Some(pointer) if pointer.candidate == candidate.id => {
                self.put_pointer(root, Pointer { conflict: Some(conflict), ..pointer })
            }
            _ => Ok(()),
        };
        if let Err(error) = hint() {
            let error: &Error = &error;
            tracing::warn!(%error, "which conflict a candidate opened has to be looked for");
        }
    }

    /// Says that a candidate is about to be removed.
    pub(crate) fn mark(&self, candidate: PushId, root: Root, now: Timestamp) -> Result<(), Error> {
        let before = self.pointer(root)?.filter(|pointer| pointer.candidate == candidate);
        let (merged_from, conflict) =
            before.map(|pointer| (pointer.merged_from, pointer.conflict)).unwrap_or_default();
        self.put_pointer(root, Pointer { candidate, marked: Some(now), merged_from, conflict })
    }

    /// Takes that back.
    pub(crate) fn unmark(&self, candidate: PushId, root: Root) -> Result<(), Error> {
        match self.pointer(root)? {
            Some(pointer) if pointer.candidate == candidate && pointer.marked.is_some() => {
                self.put_pointer(root, Pointer { marked: None, ..pointer })
            }
            _ => Ok(()),
        }
    }

    /// What is made from a candidate may be kept or committed: it is not about to be removed.
    pub(crate) fn stays(&self, base: &Manifest) -> Result<(), Error> {
        let Some(id) = base.candidate else { return Ok(()) };
        match self.pointer(base.root)? {
            Some(pointer) if pointer.candidate != id || pointer.marked.is_none() => Ok(()),
            _ => Err(Error::BaseRemoved),
        }
    }

    /// The ids of all candidates, sorted.
    pub fn candidates(&self) -> Result<Vec<PushId>, Error> {
        let any = Name::Candidate([0; 16]).path(self.id());
        let folder: object_store::path::Path = any.parts().take(3).collect();
        let mut ids: Vec<[u8; 16]> = Vec::new();
        for listed in self.shared().store.list(&folder)? {
            if let Some((_, Name::Candidate(id))) = Name::parse(&listed.path) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids.into_iter().map(PushId).collect())
    }

    /// The content that changes are counted from; `None` where it is not there (any more).
    pub fn merge_base(&self, base: &MergeBase) -> Result<Option<Manifest>, Error> {
        let found = match (base.version, base.candidate) {
            (Some(number), _) => self.manifest(number)?,
            (None, Some(id)) => self.candidate(id)?.map(|candidate| candidate.content),
            (None, None) => None,
        };
        Ok(found.filter(|found| found.root == base.root))
    }

    /// There are fewer candidates than there may be, as far as this process knows: they are counted once and
    /// when sweeping.
    pub(crate) fn has_room_for_candidate(&self) -> Result<(), Error> {
        let count = match self.shared().candidates.get(&self.id()) {
            Some(count) => count,
            None => self.candidates()?.len(),
        };
        if count >= CANDIDATES_MAX {
            return Err(Error::TooManyCandidates(count));
        }
        self.candidates_counted(count + 1);
        Ok(())
    }

    pub(crate) fn candidates_counted(&self, count: usize) {
        self.shared().candidates.put(self.id(), count, size_of::<(ReplicaId, usize)>());
    }

    /// How many conflicts there ever were.
    pub(crate) fn conflict_count(&self) -> Result<u64, Error> {
        self.last_number(Row::Conflicts)
    }

    /// Stores a candidate, of which all segments are durable. False where another of its id is there.
    pub(crate) fn create_candidate(&self, candidate: &Candidate) -> Result<bool, Error> {
        let path = Name::Candidate(candidate.id.0).path(self.id());
        let outcome = self.shared().store.create(&path, candidate.encode()?);
        if matches!(outcome, Ok(Create::Created)) {
            return Ok(true);
        }
        // An error, and "it exists", may both be about our own write.
        match (self.candidate(candidate.id)?, outcome) {
            (Some(found), _) => Ok(found.content.nonce == candidate.content.nonce),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(Error::damaged(path, Damage::Missing)),
        }
    }
}
