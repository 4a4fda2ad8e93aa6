//! One push, from received to answered.
//!
//! Every step can be taken again: a push that comes a second time, after the server was killed or the answer
//! was lost, finds what the first one left and goes on from there.

use std::sync::Arc;

use serde_json::json;
use sqlrsync_database::merge::{MergeOptions, Resolutions, Side, Summary};
use sqlrsync_database::version::Written;
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::exchange::Committed;
use sqlrsync_repository::{
    Candidate, Conflict, Described, KeepOptions, Manifest, MergeBase, MergePages, Permission, Received,
    Replica,
};

use super::audited::{Deed, base_json, kept_json};
use super::bases::{self, Ground};
use super::maps::Maps;
use super::overlap::{self, Found};
use super::versions::{Outcome, Three};
use super::{Error, Rejected};
use crate::backend::{Backend, ClientSays};
use crate::catalog::{Actor, Audit, Intent, Pending, Policy, ReplicaRecord, Rule, Subject};

/// How many others may be first before a push gives up.
const ATTEMPTS_MAX: u32 = 64;

/// A push that is received, and whose turn it is.
pub(in crate::backend) struct Push<'a> {
    /// The backend.
    pub backend: &'a Arc<Backend>,
    /// What the catalog has on the replica.
    pub record: &'a ReplicaRecord,
    /// Who pushes.
    pub actor: &'a Actor,
    /// What the client says of itself.
    pub says: &'a ClientSays,
    /// Whether what others did may be overtaken.
    pub force: bool,
    /// Whether the push may still be made.
    pub permission: Permission,
    /// What arrived.
    pub received: Received,
    /// What was done so far, for the audit log.
    pub deed: Deed,
}

impl Push<'_> {
    /// Decides what becomes of it, and notes what its pusher has now.
    pub fn run(mut self) -> Result<Committed, Error> {
        // What an earlier one has left has nobody at work on it: this one has the turn.
        self.backend.conclude_pending(Some(&self.record.id))?;
        let decided = self.decide();
        // Of what failed it is not known yet whether it was done all the same.
        std::mem::take(&mut self.deed).conclude(self.backend, decided.is_ok());
        let committed = decided?;
        let replica = self.replica();
        let content = match (self.received.kept(), committed.version) {
            (Some(candidate), _) => Some(candidate.content.clone()),
            (None, Some(version)) if committed.as_sent() => replica.manifest(version)?,
            // What it has is what it had.
            (None, _) => None,
        };
        if let Some(content) = content {
            let knows = self.received.agreed().is_some();
            bases::note_pushed(self.says, &replica, &content, knows);
            if content.candidate.is_none() && !committed.unchanged {
                Maps::prepare(self.backend, &replica, &content);
            }
        }
        Ok(committed)
    }

    fn decide(&mut self) -> Result<Committed, Error> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.received.already()? {
                return Ok(done);
            }
            let latest = self.replica().latest()?;
            if let Some(done) = self.attempt(latest.as_ref())? {
                return Ok(done);
            }
        }
        Err(sqlrsync_repository::Error::Contended(ATTEMPTS_MAX).into())
    }

    fn replica(&self) -> Replica {
        self.received.replica().clone()
    }

    /// For the audit log: before anything of it can be in the repository.
    fn announce(&mut self, what: Intent, latest: &Manifest) -> Result<(), Error> {
        let Push { backend, record, actor, force, received, deed, .. } = self;
        let latest = latest.number.get();
        let details = match what {
            Intent::Overtake => json!({"latest": latest, "force": force}),
            Intent::Merge | Intent::Settle => json!({}),
        };
        let kept = received.kept().map(|kept| kept.id);
        let pending = || Pending {
            what,
            actor: actor.clone(),
            subject: Subject::replica(record),
            latest,
            candidate: kept.or(received.push_id()).map(|id| id.0),
            kept: kept.is_some(),
            root: received.root().to_string(),
            pushed: received.content().time.to_string(),
            details,
        };
        Ok(deed.announce(backend, pending)?)
    }

    fn entry(&self, action: &'static str, subject: Subject, details: serde_json::Value) -> Audit {
        Audit { actor: self.actor.clone(), action, subject, details }
    }

    fn policy(&self) -> Policy {
        self.record.policy
    }

    /// `None` where somebody was first, and it has to be looked at again.
    fn attempt(&mut self, latest: Option<&Manifest>) -> Result<Option<Committed>, Error> {
        let rule = if self.force { Rule::LatestWins } else { self.policy().rule };
        let Some(latest) = latest else { return Ok(self.received.commit_after(None)?) };
        if latest.root == self.received.root() || rule == Rule::LatestWins {
            if latest.root != self.received.root() && self.received.overtakes(Some(latest)) {
                self.announce(Intent::Overtake, latest)?;
            }
            let done = self.received.commit_after(Some(latest))?;
            if let Some(Committed { version: Some(version), overtook: true, .. }) = &done {
                let subject = Subject::replica(self.record).version(version.get());
                let details = json!({"latest": latest.number.get(), "force": self.force});
                self.deed.came_to(self.entry("overtook", subject, details));
            }
            return Ok(done);
        }
        if self.received.kept().is_some() {
            // An earlier attempt got so far. What becomes of its changes does not depend on the policy now.
            // It may have ended before the candidate could be found by its content, as the next push needs it.
            self.announce(Intent::Merge, latest)?;
            let kept = self.received.keep(KeepOptions::default())?;
            return self.merge(&kept, latest);
        }
        let ground = bases::ground(self, latest)?;
        match (ground, rule) {
            (Ground::Latest, _) => Ok(self.received.commit_after(Some(latest))?),
            (Ground::Unchanged, _) => Ok(Some(Committed {
                version: Some(latest.number),
                unchanged: true,
                merged: true,
                ..Committed::default()
            })),
            (_, Rule::Reject) => {
                let subject = Subject::replica(self.record).version(latest.number.get());
                let details = json!({"latest": latest.number.get()});
                self.backend.note(&self.entry("push-rejected", subject, details));
                Err(Error::Rejected(Rejected { latest: latest.number }))
            }
            (Ground::Older(options), _) => self.keep_and_merge(options, latest),
            (Ground::Unknown, _) => self.keep_and_merge(KeepOptions::default(), latest),
        }
    }

    fn keep_and_merge(
        &mut self,
        options: KeepOptions,
        latest: &Manifest,
    ) -> Result<Option<Committed>, Error> {
        self.announce(Intent::Merge, latest)?;
        let candidate = self.received.keep(options)?;
        let details = kept_json(&candidate, latest.number.get());
        self.deed.kept(self.entry("candidate-kept", Subject::replica(self.record), details));
        self.merge(&candidate, latest)
    }

    fn merge(&mut self, candidate: &Candidate, latest: &Manifest) -> Result<Option<Committed>, Error> {
        let replica = self.replica();
        let KeepOptions { merge_base, adds_to } = replica.still_to_merge(candidate)?;
        let open = adds_to.map(|to| replica.conflict(to.conflict)).transpose()?.flatten();
        let base = merge_base.as_ref().map(|base| replica.merge_base(base)).transpose()?.flatten();
        let found = match &base {
            None => {
                let versions = self.backend.to_merge(&replica);
                Found::without_base(&versions, latest, &candidate.content)
            }
            Some(base) => {
                let versions = self.backend.to_merge(&replica);
                let options = MergeOptions {
                    cells: self.policy().cells,
                    renumber: self.policy().renumber,
                    limits: overlap::limits(),
                };
                let three = Three { base, theirs: latest, mine: &candidate.content };
                match versions.merge(three, &options, &Resolutions::default()) {
                    Ok(Outcome::Merged { on, written, summary, .. }) => {
                        return self.commit(candidate, open.as_ref(), latest, (on, *written, summary));
                    }
                    Ok(Outcome::Conflict(conflict, encoding)) => Ok(Found::of(&conflict, encoding)),
                    // Tried again it would take as much: it is kept for somebody to settle.
                    Err(error) => match error.given_up() {
                        Some(given_up) => Ok(given_up.found()),
                        None => error.of_a_content().map(|why| Found::because(&why)),
                    },
                }
            }
        };
        self.keep_as_conflict((candidate, merge_base), open, latest, &found?)
    }

    fn commit(
        &mut self,
        candidate: &Candidate,
        ends: Option<&Conflict>,
        latest: &Manifest,
        (on, mut written, summary): (Side, Written, Summary),
    ) -> Result<Option<Committed>, Error> {
        let replica = self.replica();
        let merge = MergePages {
            after: latest,
            candidate,
            on: if on == Side::Theirs { latest } else { &candidate.content },
            geometry: written.geometry,
            fields: written.fields,
            ends,
            settled: false,
            described: Described::of(candidate),
            permission: self.permission.clone(),
        };
        let mut pages = written.pages().map(|page| page.map_err(|error| Box::new(error) as ContentError));
        let version = match replica.commit_merge(&merge, &mut pages) {
            Ok(Some(version)) => version,
            Ok(None) => return Ok(None),
            Err(error) => return another_way(error),
        };
        let mut subject = Subject::replica(self.record).version(version.number.get());
        if let Some(conflict) = ends {
            subject = subject.conflict(conflict.number.get());
        }
        let Summary { inserted, updated, deleted, .. } = summary;
        let details = json!({
            "onto": latest.number.get(),
            "base": base_json(candidate.merge_base.as_ref()),
            "inserted": inserted, "updated": updated, "deleted": deleted,
        });
        self.deed.came_to(self.entry("merged", subject, details));
        if let Some(conflict) = ends {
            replica.end_conflict(conflict, &version, String::new(), Described::of(candidate))?;
        }
        let merged = version.root != candidate.content.root;
        Ok(Some(Committed { version: Some(version.number), merged, ..Committed::default() }))
    }

    fn keep_as_conflict(
        &mut self,
        (candidate, merge_base): (&Candidate, Option<MergeBase>),
        open: Option<Conflict>,
        latest: &Manifest,
        found: &Found,
    ) -> Result<Option<Committed>, Error> {
        let replica = self.replica();
        let overlap = found.overlap(candidate, merge_base, latest.number);
        let by = Described::of(candidate);
        let (number, action) = match open {
            Some(conflict) => {
                match replica.replace_in_conflict(&conflict, candidate, overlap, &found.rows, by) {
                    Ok(Some(conflict)) => (conflict.number, "conflict-replaced"),
                    Ok(None) => return Ok(None),
                    Err(error) => return another_way(error),
                }
            }
            None => match replica.open_conflict(candidate, overlap, &found.rows, by) {
                Ok(conflict) => (conflict.number, "conflict-opened"),
                Err(error) => return another_way(error),
            },
        };
        let subject = Subject::replica(self.record).conflict(number.get());
        let details = json!({
            "theirs": latest.number.get(),
            "base": base_json(merge_base.as_ref()),
            "rows": found.row_count, "reasons": found.reasons,
        });
        self.deed.came_to(self.entry(action, subject, details));
        Ok(Some(Committed { conflict: Some(number), ..Committed::default() }))
    }
}

/// Where another process came to another outcome meanwhile, that is looked at; any other error is one.
fn another_way(error: sqlrsync_repository::Error) -> Result<Option<Committed>, Error> {
    use sqlrsync_repository::Error;
    match error {
        Error::InConflict(_) | Error::ConflictIsOver { .. } | Error::MergedMeanwhile(_) => Ok(None),
        error => Err(error.into()),
    }
}
