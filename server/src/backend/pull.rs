//! Pulls: which version is meant, and who may have it.

use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};
use sqlrsync_repository::{Manifest, Replica};

use super::{Backend, ClientSays};
use crate::access::Caller;
use crate::catalog::{ReplicaRecord, Scope};
use crate::refused::{Refused, Why};

/// A pull that may begin.
#[derive(Debug)]
pub struct PullPlan {
    /// Who pulls.
    pub caller: Caller,
    /// What the catalog has on the replica.
    pub record: ReplicaRecord,
    /// The replica.
    pub replica: Replica,
    /// The version.
    pub version: Manifest,
    /// It is our own client.
    pub own_client: bool,
}

impl Backend {
    /// The replica that a caller may pull.
    ///
    /// # Errors
    /// As [`Caller::may_pull`]; [`Why::BadRequest`] where none is named.
    pub fn pullable(
        &self,
        caller: &Caller,
        name: Option<&RemoteName>,
        says: &ClientSays,
    ) -> Result<ReplicaRecord, Refused> {
        if let Some(name) = name {
            let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
            let found = caller.may_pull(namespace, path, self.catalog.replica(namespace, path)?)?;
            return says.means(&found).map(|()| found);
        }
        match (self.replica_without_name(caller, says)?, caller.key()) {
            (Some(replica), _) => {
                let (namespace, path) = (replica.namespace.clone(), replica.path.clone());
                caller.may_pull(&namespace, &path, Some(replica))
            }
            (None, None) => Err(Refused::new(Why::NoKey, "a key is needed: none was given")),
            (None, Some(_)) => Err(Refused::new(Why::BadRequest, "name the replica: NAMESPACE/PATH")),
        }
    }

    /// The replica of a request without a name: the one that the key is for, or that the client knows
    /// by its id. An id that the caller has no business with counts as unknown.
    pub(super) fn replica_without_name(
        &self,
        caller: &Caller,
        says: &ClientSays,
    ) -> Result<Option<ReplicaRecord>, Refused> {
        let id = match (&says.replica_id, caller.key().map(|key| &key.scope)) {
            (_, Some(Scope::Replica { id, .. })) => id,
            (Some(id), _) => id,
            (None, _) => return Ok(None),
        };
        let found = self.catalog.replica_by_id(id)?;
        Ok(found.filter(|found| caller.may_pull(&found.namespace, &found.path, Some(found.clone())).is_ok()))
    }

    /// Finds the replica and the version.
    ///
    /// # Errors
    /// As [`Backend::pullable`]; [`Why::NotFound`] where there is no such version.
    pub fn plan_pull(
        &self,
        caller: Caller,
        name: Option<&RemoteName>,
        says: &ClientSays,
    ) -> Result<PullPlan, Refused> {
        let record = self.pullable(&caller, name, says)?;
        let replica = self.repository_replica(&record)?;
        let missing = |what: String| Refused::new(Why::NotFound, format!("{} {what}", record.name()));
        let latest = replica.latest()?.ok_or_else(|| missing("has no version yet".to_owned()))?;
        let number = says.version.resolve(latest.number).ok_or_else(|| {
            missing(match says.version {
                VersionSelector::Number(number) => format!("has no version {number}"),
                _ => format!("has {} versions and not so many", latest.number),
            })
        })?;
        let version = if number == latest.number { Some(latest) } else { replica.manifest(number)? };
        let version = version.ok_or_else(|| missing(format!("has no version {number}")))?;
        Ok(PullPlan { caller, record, replica, version, own_client: says.own_client })
    }

    /// The newest version's number; `None` where there is none yet.
    ///
    /// # Errors
    /// [`Why::Failed`].
    pub fn latest_version(&self, record: &ReplicaRecord) -> Result<Option<VersionNumber>, Refused> {
        Ok(self.repository_replica(record)?.latest()?.map(|latest| latest.number))
    }

    /// Finds the newest version, for those that listen for it.
    ///
    /// # Errors
    /// [`Why::Failed`].
    pub fn find_latest(&self, record: &ReplicaRecord) -> Result<(), Refused> {
        if let Some(version) = self.latest_version(record)? {
            self.notices.found(&record.name(), version);
        }
        Ok(())
    }

    /// The repository's handle of a replica.
    pub(super) fn repository_replica(&self, record: &ReplicaRecord) -> Result<Replica, Refused> {
        match record.id.parse() {
            Ok(id) => Ok(self.repository.replica(&id)),
            Err(_) => Err(crate::catalog::Error::Damaged("replica id").into()),
        }
    }
}
