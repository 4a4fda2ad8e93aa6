//! A server without HTTP and sockets, for tests: a backend on a folder, and a key for all of its namespace `team`.

use std::sync::Arc;

use sqlrsync_protocol::key::{Key, Kind};
use sqlrsync_repository::Repository;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Activity, Backend};
use crate::access::Caller;
use crate::catalog::{ActivityTable, Catalog, ReplicaRecord};
use crate::new_key::{self, Wish};
use crate::settings::Settings;

/// It runs for as long as this is there. Several can share a folder.
pub(super) struct Bench {
    pub(super) runtime: Runtime,
    pub(super) backend: Arc<Backend>,
    key: Key,
}

impl Bench {
    pub(super) fn on(folder: &TempDir) -> Bench {
        Bench::with(folder, |_| ())
    }

    /// With a backend that is changed before it is used.
    pub(super) fn with(folder: &TempDir, change: impl FnOnce(&mut Backend)) -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let path = folder.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        catalog.create_namespace("team").unwrap();
        let wish =
            Wish { kind: Kind::AccountAdmin, namespace: "team", replica: None, label: "admin", parent: None };
        let (_, key) = new_key::create(&catalog, &wish).unwrap();
        let repository = Repository::local(folder.path(), runtime.handle().clone()).unwrap();
        let activity = Activity::new(ActivityTable::open(&path).unwrap());
        let mut backend = Backend::new(catalog, repository, activity, Arc::default(), &Settings::default());
        change(&mut backend);
        Bench { runtime, backend: Arc::new(backend), key }
    }

    pub(super) fn caller(&self) -> Caller {
        self.backend.authenticate(Some(&self.key)).unwrap()
    }

    /// What the catalog has of `team/app.db`.
    pub(super) fn record(&self) -> Option<ReplicaRecord> {
        self.backend.catalog.replica("team", "app.db").unwrap()
    }
}
