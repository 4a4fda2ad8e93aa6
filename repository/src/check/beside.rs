//! What a check reads beside versions, candidates and segments: conflicts, and objects that stand for
//! themselves.

use std::collections::{BTreeMap, BTreeSet};

use sqlrsync_protocol::page::ConflictNumber;

use super::{Check, Objects};
use crate::conflict::{Step, StepKind};
use crate::error::{Damage, Error};
use crate::id::{Name, SegmentId};
use crate::replica::Replica;

impl Check<'_> {
    pub(super) fn beside(&mut self, replica: &Replica, objects: &Objects) -> Result<(), Error> {
        let mut steps: BTreeMap<ConflictNumber, BTreeSet<u64>> = BTreeMap::new();
        for (conflict, step) in &objects.steps {
            steps.entry(*conflict).or_default().insert(*step);
        }
        let last = objects.steps.last().map_or(0, |(conflict, _)| conflict.get());
        for number in (1..=last).filter_map(ConflictNumber::new) {
            let steps = steps.remove(&number).unwrap_or_default();
            self.conflict(replica, number, &steps)?;
        }
        for id in &objects.rows {
            let rows = replica.read_rows(*id).map(drop);
            self.note(replica, rows, None)?;
        }
        for name in &objects.beside {
            let outcome = match *name {
                Name::CandidateRoot(root) => replica.pointer(root).map(drop),
                Name::Client(hash) => replica.read_client(hash).map(drop),
                Name::Parents(number) => replica.read_parents(number).map(drop),
                _ => Ok(()),
            };
            self.note(replica, outcome, None)?;
        }
        Ok(())
    }

    /// A conflict's steps have no gaps, one that ends it is the last, and what it is about is there.
    fn conflict(
        &mut self,
        replica: &Replica,
        number: ConflictNumber,
        steps: &BTreeSet<u64>,
    ) -> Result<(), Error> {
        let object = |step| Name::Conflict(number, step).path(replica.id()).to_string();
        let last = steps.last().copied().unwrap_or(1);
        let mut before: Option<Step> = None;
        for at in 1..=last {
            let outcome = replica.read_step(number, at).and_then(|step| match step {
                None => Err(Error::damaged(object(at), Damage::Gap)),
                Some(step) => Ok(step),
            });
            let step = match outcome {
                Ok(step) => step,
                Err(error) => {
                    self.note(replica, Err(error), None)?;
                    before = None;
                    continue;
                }
            };
            if before.as_ref().is_some_and(|before| before.kind.ended().is_some()) {
                self.problem(Some(replica), object(at), Damage::Structure, None);
            }
            before = Some(step);
        }
        match before {
            Some(step) if lacks_something(replica, &step)? => {
                self.problem(Some(replica), object(last), Damage::Incomplete, None);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether what the last step of a conflict refers to is gone. The store is asked: a listing takes a while, and
/// conflicts may come into being meanwhile.
fn lacks_something(replica: &Replica, last: &Step) -> Result<bool, Error> {
    let names = match &last.kind {
        StepKind::Opened(overlap) | StepKind::Replaced(overlap) => {
            let rows = overlap.rows.map(|rows| Name::ConflictRows(SegmentId(rows.hash)));
            [Some(Name::Candidate(overlap.candidate.0)), rows]
        }
        StepKind::Settled { version, .. } | StepKind::Merged { version } => {
            [Some(Name::Manifest(*version)), None]
        }
    };
    for name in names.into_iter().flatten() {
        if !replica.shared().store.exists(&name.path(replica.id()))? {
            return Ok(true);
        }
    }
    Ok(false)
}
