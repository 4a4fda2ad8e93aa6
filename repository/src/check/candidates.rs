//! The candidates' part of a check: each root is proved, as a version's is.

use std::collections::BTreeSet;

use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::VersionNumber;

use super::versions::Referenced;
use super::{Check, Objects};
use crate::candidate::Candidate;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::replica::Replica;

impl Check<'_> {
    /// Checks all candidates, and adds the segments that they name. Of one that is counted from a version that
    /// is proved, only what differs is read.
    pub(super) fn candidates(
        &mut self,
        replica: &Replica,
        objects: &Objects,
        referenced: &mut Referenced,
        proved: &BTreeSet<VersionNumber>,
    ) -> Result<(), Error> {
        for id in &objects.candidates {
            let candidate = match replica.candidate(PushId(*id)) {
                Ok(Some(candidate)) => candidate,
                // Removed since it was listed.
                Ok(None) => continue,
                Err(error) => {
                    self.note(replica, Err(error), None)?;
                    continue;
                }
            };
            for segment in &candidate.content.segments {
                referenced.entry(segment.id).or_insert((*segment, None));
            }
            self.report.candidates += 1;
            let before = proved_base(replica, &candidate, proved)?;
            if self.prove(replica, &candidate.content, before.as_ref())? {
                self.report.candidates_proved += 1;
            }
            self.read(0);
        }
        Ok(())
    }
}

/// The version that it is counted from, or through others that are counted from each other.
fn proved_base(
    replica: &Replica,
    candidate: &Candidate,
    proved: &BTreeSet<VersionNumber>,
) -> Result<Option<Manifest>, Error> {
    let version = candidate.merge_base.and_then(|base| base.version);
    // The version that was the latest when it was kept is as good: mostly they have nearly all in common.
    let near = version.or_else(|| candidate.content.number.back(1));
    match near.filter(|near| proved.contains(near)) {
        Some(near) => replica.read_manifest(near),
        None => Ok(None),
    }
}
