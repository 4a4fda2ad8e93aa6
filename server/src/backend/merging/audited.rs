//! The audit log of what is done in the repository: one entry for what happened, and none for what did not,
//! wherever the server is stopped.
//!
//! A push or a settlement is announced in the catalog before anything of it can be in the repository, and
//! concluded when its outcome is known. What is found announced later, with the replica's turn or at the start,
//! has nobody at work on it any more: what became of it is told from the repository, as for everything else here.

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_repository::{Candidate, Conflict, Manifest, MergeBase, Replica, ReplicaId, Standing, StepKind};

use super::Error;
use super::json::hex;
use crate::backend::Backend;
use crate::catalog::{self, Audit, Intent, Known, Pending, PendingId, Subject};

/// How many versions are looked through for what a push became. It was the next one, or one soon after.
const SEARCHED_MAX: usize = 1024;

/// Of how many steps of a conflict, the last ones, it is looked for which one a push made.
const STEPS_MAX: u64 = 1024;

/// What was done by one push or settlement, for the audit log.
#[derive(Default)]
pub(in crate::backend) struct Deed {
    pending: Option<PendingId>,
    done: Vec<(Timestamp, Audit)>,
    /// Its outcome is among them, and not only that something was kept.
    has_outcome: bool,
}

impl Deed {
    /// Says what is about to be done, once.
    pub fn announce(
        &mut self,
        backend: &Backend,
        pending: impl FnOnce() -> Pending,
    ) -> Result<(), catalog::Error> {
        if self.pending.is_none() {
            self.pending = Some(backend.catalog.announce(&pending())?);
        }
        Ok(())
    }

    /// A candidate was kept.
    pub fn kept(&mut self, entry: Audit) {
        self.done.push((Timestamp::now(), entry));
    }

    /// It came to its outcome.
    pub fn came_to(&mut self, entry: Audit) {
        self.done.push((Timestamp::now(), entry));
        self.has_outcome = true;
    }

    /// Puts it into the audit log. `is_over`: what was done is all of it.
    pub fn conclude(self, backend: &Backend, is_over: bool) {
        let Some(pending) = self.pending else { return };
        let known = match is_over || self.has_outcome {
            true => Known::All,
            false if self.done.is_empty() => return,
            false => Known::Kept,
        };
        if let Err(error) = backend.catalog.conclude(pending, &self.done, known) {
            tracing::error!(%error, "the audit log gets an entry with the next push, or after the next start");
        }
    }
}

impl Backend {
    /// Puts into the audit log what became of all that was announced and not concluded, of one replica or of all.
    /// The replica's turn is the caller's, or nothing is served yet.
    ///
    /// # Errors
    /// Where the catalog cannot be read.
    pub fn conclude_pending(&self, replica: Option<&str>) -> Result<(), catalog::Error> {
        let mut after = None;
        while let Some((id, pending)) = self.catalog.next_pending(replica, after)? {
            after = Some(id);
            match self.what_became(&pending) {
                Ok(done) => self.catalog.conclude(id, &done, Known::All)?,
                // It is tried again with the next push.
                Err(error) => tracing::error!(%error, ?pending, "the audit log may miss an entry"),
            }
        }
        Ok(())
    }

    /// What became of something that was announced.
    fn what_became(&self, pending: &Pending) -> Result<Vec<(Timestamp, Audit)>, Error> {
        let id = pending.subject.replica.as_ref().and_then(|(id, _)| id.parse::<ReplicaId>().ok());
        let Some(id) = id else { return Ok(Vec::new()) };
        let replica = self.repository.replica(&id);
        let mut found = Found { pending, done: Vec::new() };
        match pending.what {
            Intent::Settle => found.settlement(&replica)?,
            Intent::Merge | Intent::Overtake => found.push(&replica)?,
        }
        Ok(found.done)
    }
}

/// What is found of something that was announced.
struct Found<'a> {
    pending: &'a Pending,
    done: Vec<(Timestamp, Audit)>,
}

impl Found<'_> {
    fn add(&mut self, time: Timestamp, action: &'static str, subject: Subject, mut details: Json) {
        if let Some(details) = details.as_object_mut() {
            details.insert("recovered".to_owned(), true.into());
        }
        let actor = self.pending.actor.clone();
        self.done.push((time, Audit { actor, action, subject, details }));
    }

    fn settlement(&mut self, replica: &Replica) -> Result<(), Error> {
        let subject = self.pending.subject.clone();
        let number = subject.conflict.and_then(ConflictNumber::new);
        let conflict = number.map(|number| replica.conflict(number)).transpose()?.flatten();
        let version = conflict.map(|conflict| replica.ended_by(&conflict)).transpose()?.flatten();
        let is_it = |version: &Manifest| {
            let of = version.merge.filter(|of| of.ends.is_some_and(|ends| ends.settled));
            of.map(|of| of.candidate.0) == self.pending.candidate
                && version.number.get() > self.pending.latest
        };
        if let Some(version) = version.filter(|version| self.pending.candidate.is_some() && is_it(version)) {
            let subject = subject.version(version.number.get());
            self.add(version.time, "conflict-settled", subject, self.pending.details.clone());
        }
        Ok(())
    }

    fn push(&mut self, replica: &Replica) -> Result<(), Error> {
        let Some(candidate) = self.candidate(replica)? else {
            if let Some(version) = self.version(replica)? {
                self.overtook(&version);
            }
            return Ok(());
        };
        if !self.pending.kept {
            let details = kept_json(&candidate, self.pending.latest);
            self.add(candidate.content.time, "candidate-kept", self.pending.subject.clone(), details);
        }
        match replica.standing(&candidate)? {
            Standing::Kept => Ok(()),
            Standing::Merged(number) => self.merged(replica, &candidate, number),
            Standing::InConflict(number) => self.in_conflict(replica, &candidate, number),
            Standing::Settled(conflict, number) => {
                let version = replica.manifest(number)?;
                let merge = version.and_then(|version| version.merge);
                let by_itself = merge.is_some_and(|merge| {
                    merge.candidate == candidate.id && merge.ends.is_some_and(|ends| !ends.settled)
                });
                match by_itself {
                    true => self.merged(replica, &candidate, number),
                    // Whoever settled it did that later.
                    false => self.in_conflict(replica, &candidate, conflict),
                }
            }
        }
    }

    /// What the push was kept as.
    fn candidate(&self, replica: &Replica) -> Result<Option<Candidate>, Error> {
        let Pending { candidate, root, pushed, kept, .. } = self.pending;
        let found = candidate.map(|id| replica.candidate(PushId(id))).transpose()?.flatten();
        let found = found.filter(|found| found.content.root.to_string() == *root);
        let found = match (found, root.parse()) {
            (None, Ok(root)) => replica.candidate_by_root(root)?,
            (found, _) => found,
        };
        Ok(found.filter(|found| *kept || found.content.time.to_string() == *pushed))
    }

    /// The version that the push became as it is.
    fn version(&self, replica: &Replica) -> Result<Option<Manifest>, Error> {
        let mut number = VersionNumber::new(self.pending.latest.saturating_add(1));
        for _ in 0..SEARCHED_MAX {
            let version = number.map(|number| replica.manifest(number)).transpose()?.flatten();
            let Some(version) = version else { return Ok(None) };
            let Pending { root, pushed, .. } = self.pending;
            if version.root.to_string() == *root && version.time.to_string() == *pushed {
                return Ok(Some(version));
            }
            number = version.number.next();
        }
        Ok(None)
    }

    fn overtook(&mut self, version: &Manifest) {
        let subject = self.pending.subject.clone().version(version.number.get());
        self.add(version.time, "overtook", subject, self.pending.details.clone());
    }

    fn merged(
        &mut self,
        replica: &Replica,
        candidate: &Candidate,
        number: VersionNumber,
    ) -> Result<(), Error> {
        let Some(version) = replica.manifest(number)? else { return Ok(()) };
        if self.pending.what == Intent::Overtake {
            self.overtook(&version);
            return Ok(());
        }
        let mut subject = self.pending.subject.clone().version(number.get());
        if let Some(ends) = version.merge.and_then(|merge| merge.ends) {
            subject = subject.conflict(ends.conflict.get());
        }
        let onto = version.base.and_then(|base| base.version).map(VersionNumber::get);
        let details = json!({"onto": onto, "base": base_json(candidate.merge_base.as_ref())});
        self.add(version.time, "merged", subject, details);
        Ok(())
    }

    fn in_conflict(
        &mut self,
        replica: &Replica,
        candidate: &Candidate,
        number: ConflictNumber,
    ) -> Result<(), Error> {
        let Some(conflict) = replica.conflict(number)? else { return Ok(()) };
        let subject = self.pending.subject.clone().conflict(number.get());
        for at in steps_backwards(&conflict) {
            let Some(step) = replica.conflict_steps(number, at, 1)?.pop() else { continue };
            let (action, overlap) = match &step.kind {
                StepKind::Opened(overlap) => ("conflict-opened", overlap),
                StepKind::Replaced(overlap) => ("conflict-replaced", overlap),
                StepKind::Settled { .. } | StepKind::Merged { .. } => continue,
            };
            if overlap.candidate == candidate.id {
                let rows: u64 = overlap.tables.iter().map(|table| table.rows).sum();
                let details = json!({
                    "theirs": overlap.theirs.get(), "base": base_json(overlap.merge_base.as_ref()),
                    "rows": rows, "reasons": overlap.reasons,
                });
                self.add(step.time, action, subject, details);
                return Ok(());
            }
        }
        Ok(())
    }
}

fn steps_backwards(conflict: &Conflict) -> impl Iterator<Item = u64> {
    let last = conflict.last.number;
    (last.saturating_sub(STEPS_MAX).max(1)..=last).rev()
}

/// What is said of a candidate that was kept.
pub(super) fn kept_json(candidate: &Candidate, latest: u64) -> Json {
    let base = base_json(candidate.merge_base.as_ref());
    json!({"push": hex(&candidate.id.0), "latest": latest, "base": base})
}

pub(super) fn base_json(base: Option<&MergeBase>) -> Json {
    match base {
        None => Json::Null,
        Some(base) => json!({"version": base.version.map(VersionNumber::get), "root": base.root.to_string()}),
    }
}
