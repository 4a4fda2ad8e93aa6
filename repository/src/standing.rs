//! What became of a candidate: told from the versions and conflicts that name it, and from nothing else, so
//! that two servers on one store, and a server that was killed in between, all find the same.

use sqlrsync_protocol::exchange::Committed;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::candidate::{AddsTo, Candidate, KeepOptions, MergeBase};
use crate::conflict::Conflict;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::replica::{Replica, VERSIONS_SEARCHED_MAX};

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet: its push was cut short, or is still being merged.
    Kept,
    /// Its changes are in this version.
    Merged(VersionNumber),
    /// It waits in this conflict.
    InConflict(ConflictNumber),
    /// Its conflict is over, and ended with this version.
    Settled(ConflictNumber, VersionNumber),
}

impl Replica {
    /// What became of a candidate.
    pub fn standing(&self, candidate: &Candidate) -> Result<Standing, Error> {
        let at_hand = self.conflict_at_hand(candidate)?;
        let in_it = |conflict: &&Conflict| conflict.overlap.candidate == candidate.id;
        if let Some(conflict) = at_hand.as_ref().filter(in_it) {
            return self.standing_in(conflict);
        }
        // A version that ended a conflict is a merge too: its manifest says so, though the conflict's last
        // step may still be missing, or be about a later candidate.
        let merged = self.merge_of(candidate)?;
        if let Some((version, merge)) = merged.and_then(|version| Some((version.number, version.merge?))) {
            return Ok(match merge.ends {
                Some(ends) => Standing::Settled(ends.conflict, version),
                None => Standing::Merged(version),
            });
        }
        // Last, since there may be thousands of conflicts that were settled long ago.
        let conflict = match at_hand {
            Some(conflict) => Some(conflict),
            None => self.conflict_opened_by(candidate)?,
        };
        match conflict {
            Some(conflict) => self.standing_in(&conflict),
            None => Ok(Standing::Kept),
        }
    }

    /// Whether what somebody has is in no version and in no conflict: a candidate whose push was cut off before it
    /// was merged. A file that has it is the only place where its changes count, until its next push.
    pub(crate) fn is_nowhere_else(&self, content: &Manifest) -> Result<bool, Error> {
        let candidate = content.candidate.map(|id| self.candidate(id)).transpose()?.flatten();
        let Some(candidate) = candidate else { return Ok(false) };
        Ok(self.standing(&candidate)? == Standing::Kept && self.find_root(content.root)?.is_none())
    }

    fn standing_in(&self, conflict: &Conflict) -> Result<Standing, Error> {
        Ok(match self.ended_by(conflict)? {
            Some(version) => Standing::Settled(conflict.number, version.number),
            None => Standing::InConflict(conflict.number),
        })
    }

    /// The version that ended a conflict. The conflict's last step says so, unless whoever made the version
    /// was stopped before writing it: the version's own manifest does as well.
    pub fn ended_by(&self, conflict: &Conflict) -> Result<Option<Manifest>, Error> {
        if let Some(version) = conflict.version() {
            return self.version(version).map(Some);
        }
        let in_it = conflict.overlap.candidate;
        let ends = |version: &Manifest| {
            let Some(merge) = version.merge else { return false };
            let ends =
                merge.ends.is_some_and(|ends| (ends.conflict, ends.candidate) == (conflict.number, in_it));
            ends || merge.candidate == in_it
        };
        // What was looked at before is not looked at again.
        let (key, latest) = ((self.id(), conflict.number), self.latest_number()?);
        let known = self.shared().conflicts_open.get(&key).filter(|(candidate, _)| *candidate == in_it);
        let after = known.map_or(conflict.overlap.theirs, |(_, looked)| looked.max(conflict.overlap.theirs));
        let found = self.search(Some(after), ends)?;
        if let (None, Some(latest)) = (&found, latest) {
            self.shared().conflicts_open.put(key, (in_it, latest), size_of_val(&key) + 32);
        }
        Ok(found)
    }

    /// How to keep a push that is made from `agreed`: what its changes are counted from, and the open conflict
    /// that they belong to.
    ///
    /// What a candidate's pusher agreed on is the candidate. Where its changes are in a version or were
    /// settled, what comes next is counted from it. Where they still wait, what comes next has them too, and is
    /// counted from what they are counted from.
    pub fn keep_options(&self, agreed: Option<&Manifest>) -> Result<KeepOptions, Error> {
        let Some(agreed) = agreed else { return Ok(KeepOptions::default()) };
        let Some(id) = agreed.candidate else {
            return Ok(KeepOptions { merge_base: Some(MergeBase::of(agreed)), adds_to: None });
        };
        let Some(candidate) = self.candidate(id)? else { return Ok(KeepOptions::default()) };
        Ok(match self.standing(&candidate)? {
            Standing::Merged(_) | Standing::Settled(..) => {
                KeepOptions { merge_base: Some(MergeBase::of(agreed)), adds_to: None }
            }
            Standing::InConflict(number) => {
                let conflict = self.conflict(number)?.filter(|conflict| conflict.overlap.candidate == id);
                // Another copy of the client may have pushed from it first: then this is another conflict.
                let adds_to = conflict.map(|_| AddsTo { conflict: number, candidate: id });
                KeepOptions { merge_base: candidate.merge_base, adds_to }
            }
            // Never merged, and nobody was told that it was.
            Standing::Kept => self.still_to_merge(&candidate)?,
        })
    }

    /// As [`Replica::keep_options`], for a candidate that was kept a while ago and has no outcome: the conflict
    /// that it was to add to may be over meanwhile, and what was in it is then dealt with.
    pub fn still_to_merge(&self, candidate: &Candidate) -> Result<KeepOptions, Error> {
        let kept = KeepOptions { merge_base: candidate.merge_base, adds_to: candidate.adds_to };
        let Some(to) = candidate.adds_to else { return Ok(kept) };
        let Some(conflict) = self.conflict(to.conflict)? else { return Ok(kept) };
        let Some(before) = self.candidate(to.candidate)? else { return Ok(kept) };
        Ok(match self.standing(&before)? {
            Standing::Merged(_) | Standing::Settled(..) => {
                KeepOptions { merge_base: Some(MergeBase::of(&before.content)), adds_to: None }
            }
            // Another one took its place.
            _ if conflict.overlap.candidate != to.candidate => KeepOptions { adds_to: None, ..kept },
            _ => kept,
        })
    }

    /// The version that a candidate was merged as. It is made soon after the candidate, or after a restart that
    /// may be long ago: then it is said beforehand from which version on it is.
    pub(crate) fn merge_of(&self, candidate: &Candidate) -> Result<Option<Manifest>, Error> {
        let (found, all) = self.merge_from(candidate, candidate.content.number)?;
        if found.is_some() || all {
            return Ok(found);
        }
        match self.merged_from(candidate)? {
            Some(from) => Ok(self.merge_from(candidate, from)?.0),
            None => Ok(None),
        }
    }

    /// The merge of a candidate among the versions from `from` on, and whether these were all that there are.
    fn merge_from(
        &self,
        candidate: &Candidate,
        from: VersionNumber,
    ) -> Result<(Option<Manifest>, bool), Error> {
        let Some(latest) = self.latest_number()? else { return Ok((None, true)) };
        let mut number = Some(from);
        for _ in 0..VERSIONS_SEARCHED_MAX {
            let Some(at) = number.filter(|at| *at <= latest) else { return Ok((None, true)) };
            let version = self.version(at)?;
            if version.merge.is_some_and(|merge| merge.candidate == candidate.id) {
                return Ok((Some(version), false));
            }
            number = at.next();
        }
        Ok((None, false))
    }

    /// The answer to a push whose content is kept as this candidate, where it has its outcome.
    pub(crate) fn answer_again(&self, candidate: &Candidate) -> Result<Option<Committed>, Error> {
        let merged = |version| Committed { version: Some(version), merged: true, ..Committed::default() };
        Ok(match self.standing(candidate)? {
            Standing::Kept => None,
            Standing::Merged(version) | Standing::Settled(_, version) => Some(merged(version)),
            Standing::InConflict(conflict) => {
                Some(Committed { conflict: Some(conflict), ..Committed::default() })
            }
        })
    }
}
