//! What is there: the versions of a replica, and the replicas of a namespace.

use serde::Serialize;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::Manifest;
use utoipa::ToSchema;

use super::{Backend, ClientSays};
use crate::access::Caller;
use crate::catalog::{Scope, Visibility};
use crate::refused::{Refused, Why};

/// The most versions, or replicas, in one answer.
pub const HISTORY_MAX: usize = 1000;

/// A version as it is told.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionInfo {
    /// Its number.
    pub version: u64,
    /// When it was committed, RFC 3339.
    pub time: String,
    /// The key's label; empty for who has no key for the replica.
    pub author: String,
    /// What the pusher said of it.
    pub message: String,
    /// Where it was pushed from; empty for who has no key for the replica.
    pub host: String,
    /// Pages that the push brought.
    pub pages_changed: u64,
    /// What it takes in the repository, in bytes.
    pub bytes_stored: u64,
    /// Size of the database, in bytes.
    pub database_bytes: u64,
    /// Size of a page, in bytes.
    pub page_size: u64,
    /// Pages of the database.
    pub page_count: u32,
    /// What its content hashes to.
    pub root: String,
    /// The version that the push was based on; `null` where it was based on none, or on one that has
    /// no number.
    pub base: Option<u64>,
}

/// Versions, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HistoryPage {
    /// `NAMESPACE/PATH`.
    pub replica: String,
    /// Its id.
    pub replica_id: String,
    /// The versions.
    pub versions: Vec<VersionInfo>,
    /// What to give for `before` to read on; `null` at the end.
    pub next_before: Option<u64>,
}

/// A replica as it is told.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ListedReplica {
    /// `NAMESPACE/PATH`.
    pub replica: String,
    /// Its id.
    pub replica_id: String,
    /// `private`, `unlisted` or `public`.
    pub visibility: &'static str,
    /// When it was registered, RFC 3339.
    pub created: String,
}

impl Backend {
    /// At most `limit` versions before `before`, newest first. Who may pull may read them.
    ///
    /// # Errors
    /// As [`Backend::pullable`].
    pub fn history(
        &self,
        caller: &Caller,
        name: &RemoteName,
        before: Option<VersionNumber>,
        limit: usize,
    ) -> Result<HistoryPage, Refused> {
        let record = self.pullable(caller, Some(name), &ClientSays::default())?;
        let found = self.repository_replica(&record)?.history(before, limit.clamp(1, HISTORY_MAX))?;
        // Machines and people are not for everybody who may read.
        let whole = caller.is_for(&record);
        let next_before = found.last().map(|last| last.number.get()).filter(|last| *last > 1);
        Ok(HistoryPage {
            replica: record.name(),
            replica_id: record.id,
            versions: found.iter().map(|version| VersionInfo::of(version, whole)).collect(),
            next_before,
        })
    }

    /// The replicas that a key opens, in order of path, from the one after `after` on.
    ///
    /// # Errors
    /// [`Why::NoKey`], [`Why::Failed`].
    pub fn replicas(
        &self,
        caller: &Caller,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ListedReplica>, Refused> {
        let Some(key) = caller.key() else {
            return Err(Refused::new(Why::NoKey, "a key is needed to list replicas: none was given"));
        };
        let found = match &key.scope {
            Scope::Namespace(namespace) => {
                self.catalog.replicas(namespace, after, limit.clamp(1, HISTORY_MAX) as u32)?
            }
            Scope::Replica { id, .. } => self.catalog.replica_by_id(id)?.into_iter().collect(),
        };
        let listed = |record: crate::catalog::ReplicaRecord| ListedReplica {
            replica: record.name(),
            visibility: Visibility::as_str(record.visibility),
            replica_id: record.id,
            created: record.created,
        };
        Ok(found.into_iter().map(listed).collect())
    }
}

impl VersionInfo {
    pub(super) fn of(version: &Manifest, whole: bool) -> VersionInfo {
        let shown = |text: &str| if whole { text.to_owned() } else { String::new() };
        VersionInfo {
            version: version.number.get(),
            time: version.time.to_string(),
            author: shown(&version.author),
            message: version.message.clone(),
            host: shown(&version.host),
            pages_changed: version.pages_changed,
            bytes_stored: version.bytes_stored,
            database_bytes: version.geometry.bytes(),
            page_size: version.geometry.page_size.bytes() as u64,
            page_count: version.geometry.page_count.get(),
            root: version.root.to_string(),
            base: version.base.and_then(|base| base.version).map(VersionNumber::get),
        }
    }
}
