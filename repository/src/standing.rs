//! What became of a candidate: told from the versions and conflicts that name it, and from nothing else, so
//! that two servers on one store, and a server that was killed in between, all find the same.

use sqlrsync_protocol::exchange::Committed;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::candidate::Candidate;
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
        if let Some(version) = self.merge_of(candidate)? {
            return Ok(Standing::Merged(version.number));
        }
        Ok(Standing::Kept)
    }

    /// The version that a candidate was merged as, outside of any conflict. It is made right after the candidate,
    /// or after a restart that may be long ago: the versions after the candidate are searched, and the latest.
    fn merge_of(&self, candidate: &Candidate) -> Result<Option<Manifest>, Error> {
        let is_it = |version: &Manifest| version.merge.is_some_and(|merge| merge.candidate == candidate.id);
        let Some(latest) = self.latest_number()? else { return Ok(None) };
        let mut number = Some(candidate.content.number);
        for _ in 0..VERSIONS_SEARCHED_MAX {
            let Some(at) = number.filter(|at| *at <= latest) else { return Ok(None) };
            let version = self.version(at)?;
            if is_it(&version) {
                return Ok(Some(version));
            }
            number = at.next();
        }
        self.search(number.and_then(|number| number.back(1)), is_it)
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
