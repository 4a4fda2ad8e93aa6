//! The candidates' part of a check: each root is proved, as a version's is. Of one that is made from something
//! that is proved, only what differs is read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::VersionNumber;

use super::versions::Referenced;
use super::{Check, Objects};
use crate::candidate::Candidate;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::replica::Replica;

/// What is proved and others may be compared with.
struct Proved<'v> {
    versions: &'v BTreeSet<VersionNumber>,
    /// Candidates, by their roots.
    candidates: BTreeMap<Root, PushId>,
}

impl Check<'_> {
    /// Checks all candidates, and adds the segments that they name.
    pub(super) fn candidates(
        &mut self,
        replica: &Replica,
        objects: &Objects,
        referenced: &mut Referenced,
        versions: &BTreeSet<VersionNumber>,
    ) -> Result<(), Error> {
        // What they are made from is older.
        let mut by_time: Vec<(Timestamp, PushId)> = Vec::new();
        for id in objects.candidates.iter().copied().map(PushId) {
            if let Some(candidate) = self.candidate(replica, id)? {
                by_time.push((candidate.content.time, id));
            }
        }
        by_time.sort_unstable_by_key(|(time, id)| (*time, id.0));
        let mut proved = Proved { versions, candidates: BTreeMap::new() };
        for (_, id) in by_time {
            let Some(candidate) = self.candidate(replica, id)? else { continue };
            for segment in &candidate.content.segments {
                referenced.entry(segment.id).or_insert((*segment, None));
            }
            self.report.candidates += 1;
            let before = proved.base_of(replica, &candidate)?;
            if self.prove(replica, &candidate.content, before.as_ref())? {
                self.report.candidates_proved += 1;
                proved.candidates.insert(candidate.content.root, id);
            }
            self.read(0);
        }
        Ok(())
    }

    /// A candidate; `None` where it was removed since it was listed, or is damaged, which is noted.
    fn candidate(&mut self, replica: &Replica, id: PushId) -> Result<Option<Candidate>, Error> {
        match replica.candidate(id) {
            Ok(found) => Ok(found),
            Err(error) => self.note(replica, Err(error), None).map(|_| None),
        }
    }
}

impl Proved<'_> {
    /// What a candidate has most in common with, as far as that is proved: what it was a difference to, or the
    /// version that was the latest when it was kept.
    fn base_of(&self, replica: &Replica, candidate: &Candidate) -> Result<Option<Manifest>, Error> {
        let content = &candidate.content;
        let made_from = content.parents.first().and_then(|root| self.candidates.get(root));
        if let Some(id) = made_from {
            return Ok(replica.candidate(*id)?.map(|candidate| candidate.content));
        }
        let named = content.base.and_then(|base| base.version);
        let latest = content.number.back(1);
        let version = [named, latest].into_iter().flatten().find(|number| self.versions.contains(number));
        match version {
            Some(number) => replica.read_manifest(number),
            None => Ok(None),
        }
    }
}
