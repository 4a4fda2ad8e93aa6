//! What becomes of pushes that were made from an older version, and the audit log.

use std::net::IpAddr;

use sqlrsync_protocol::remote::RemoteName;

use super::{Backend, ClientSays, HISTORY_MAX};
use crate::access::Caller;
use crate::catalog::{Actor, Audit, AuditEntry, Policy, ReplicaRecord, Rule};
use crate::refused::{Refused, Why};

impl Backend {
    /// A replica that the caller has a key for.
    ///
    /// # Errors
    /// As [`Backend::pullable`], and [`Caller::may_see`].
    pub(super) fn seen(&self, caller: &Caller, name: &RemoteName) -> Result<ReplicaRecord, Refused> {
        let record = self.pullable(caller, Some(name), &ClientSays::default())?;
        caller.may_see(&record)?;
        Ok(record)
    }

    /// Whether the caller may look into a replica's versions and conflicts.
    ///
    /// # Errors
    /// As [`Backend::pullable`], and [`Caller::may_see`].
    pub fn may_look(&self, caller: &Caller, name: &RemoteName) -> Result<(), Refused> {
        self.seen(caller, name).map(drop)
    }

    /// Whether the caller may settle a replica's conflicts.
    ///
    /// # Errors
    /// As [`Backend::may_look`], and [`Caller::may_settle`].
    pub fn may_settle(&self, caller: &Caller, name: &RemoteName) -> Result<(), Refused> {
        caller.may_settle(&self.seen(caller, name)?)
    }

    /// What becomes of a push to a replica that was made from an older version.
    ///
    /// # Errors
    /// As [`Backend::pullable`]; who has no key for the replica is not told.
    pub fn policy(&self, caller: &Caller, name: &RemoteName) -> Result<Policy, Refused> {
        Ok(self.seen(caller, name)?.policy)
    }

    /// Changes what becomes of a push that was made from an older version.
    ///
    /// # Errors
    /// As [`Caller::may_rule`].
    pub fn set_policy(
        &self,
        caller: &Caller,
        name: &RemoteName,
        policy: Policy,
        address: Option<IpAddr>,
    ) -> Result<(), Refused> {
        let record = self.seen(caller, name)?;
        caller.may_rule(&record)?;
        if policy.rule != Rule::Merge && (policy.cells || policy.renumber) {
            return Err(Refused::new(Why::BadRequest, "cells and renumber are for the policy merge"));
        }
        let actor = actor(caller, address, &ClientSays::default());
        Ok(self.catalog.set_policy(&record.namespace, &record.path, policy, &actor)?)
    }

    /// At most `limit` entries of the audit log about a replica, newest first, and whether there are more.
    ///
    /// # Errors
    /// As [`Backend::policy`].
    pub fn audit(
        &self,
        caller: &Caller,
        name: &RemoteName,
        before: Option<i64>,
        limit: usize,
    ) -> Result<(Vec<AuditEntry>, bool), Refused> {
        let record = self.seen(caller, name)?;
        let limit = limit.clamp(1, HISTORY_MAX);
        let mut entries = self.catalog.audit_of(&record.id, before, limit as u32 + 1)?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        if caller.may_settle(&record).is_err() {
            entries.iter_mut().for_each(|entry| entry.address = None);
        }
        Ok((entries, more))
    }

    /// Notes down what has happened. It stands, whatever becomes of the note.
    pub(super) fn note(&self, audit: &Audit) {
        if let Err(error) = self.catalog.note(audit) {
            tracing::error!(%error, action = audit.action, subject = ?audit.subject, "the audit log misses it");
        }
    }
}

/// Who does something through the server.
pub(super) fn actor(caller: &Caller, address: Option<IpAddr>, says: &ClientSays) -> Actor {
    let key = caller.key();
    Actor {
        key: key.map(|key| key.id),
        label: key.map(|key| key.label.clone()).unwrap_or_default(),
        address,
        client_id: says.client_id.clone(),
        host: says.host.clone(),
        local_path: says.local_path.clone(),
    }
}
