//! Registers what the repository holds and the catalog does not know: a catalog that was lost, or
//! restored from an older copy, loses no version.
//!
//! Who may see such a replica is not known any more, so it is private. Keys cannot come back: they are
//! made anew.

use sqlrsync_protocol::remote::{Namespace, ReplicaPath};
use sqlrsync_repository::{About, ReplicaId};

use super::Backend;
use crate::catalog::{Found, NewReplica, Visibility};
use crate::refused::Refused;

impl Backend {
    /// Registers every replica that has a name in the repository and none in the catalog. Returns how
    /// many those were.
    ///
    /// # Errors
    /// Where the catalog or the repository cannot be asked. A replica that is damaged is left out and
    /// logged.
    pub fn register_found(&self) -> Result<u64, Refused> {
        let mut registered = 0;
        for id in self.repository.replicas()? {
            if self.catalog.replica_by_id(&id.to_string())?.is_some() {
                continue;
            }
            let replica = self.repository.replica(&id);
            match (replica.about(), replica.latest()) {
                (Ok(Some(about)), Ok(Some(_))) => registered += u64::from(self.register_one(id, &about)?),
                // What a cut push left, before there was a version.
                (Ok(_), Ok(None)) => {}
                (Ok(None), Ok(Some(_))) => tracing::warn!(%id, "a replica without a name is not served"),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%id, %error, "a replica cannot be read and is not served");
                }
            }
        }
        Ok(registered)
    }

    fn register_one(&self, id: ReplicaId, about: &About) -> Result<bool, Refused> {
        let names = (about.namespace.parse::<Namespace>(), about.path.parse::<ReplicaPath>());
        let (Ok(namespace), Ok(path)) = names else {
            tracing::error!(%id, "a replica with a name that none may have is not served");
            return Ok(false);
        };
        self.catalog.create_namespace(namespace.as_str())?;
        let text = id.to_string();
        let new = NewReplica {
            id: &text,
            namespace: namespace.as_str(),
            path: path.as_str(),
            visibility: Visibility::Private,
            client_id: "",
            host: "",
            local_path: "",
        };
        match self.catalog.create_replica(&new)? {
            Found::Made(record) => {
                tracing::warn!(replica = record.name(), %id, "registered again, as private");
                Ok(true)
            }
            Found::Existing(record) => {
                let name = record.name();
                tracing::error!(%id, name, "a replica is not served: another one has its name");
                Ok(false)
            }
        }
    }
}
