//! What the server does, without HTTP: who a key belongs to, which replica a name means, what it
//! holds. All calls block, on the catalog's disk or the repository's.

use std::sync::Arc;

use sqlrsync_protocol::key::Key;

use crate::access::Caller;
use crate::catalog::{self, Catalog};
use crate::refused::{Refused, Why};
use crate::sessions::Sessions;

/// The server's parts that all connections share.
pub struct Backend {
    /// Namespaces, replicas, keys.
    pub catalog: Catalog,
    /// The open WebSockets.
    pub sessions: Arc<Sessions>,
}

impl Backend {
    /// Who holds this key.
    ///
    /// # Errors
    /// [`Why::BadKey`] where nobody does (any more), [`Why::Failed`].
    pub fn authenticate(&self, key: Option<&Key>) -> Result<Caller, Refused> {
        let Some(key) = key else { return Ok(Caller::Anonymous) };
        match self.catalog.key_by_hash(&key.hash()) {
            Ok(Some(record)) if record.revoked.is_none() => Ok(Caller::Key(record)),
            Ok(_) => Err(Refused::new(Why::BadKey, "this key is not known here, or was revoked")),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Whether the parts answer that a request needs.
    ///
    /// # Errors
    /// [`Why::Failed`].
    pub fn ready(&self) -> Result<(), Refused> {
        self.catalog.ping().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &catalog::Error) -> Refused {
        Refused::failed("the catalog", error)
    }
}
