//! A repository: an object store with replicas in it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::cache::Cache;
use crate::check::{CheckProgress, CheckReport};
use crate::conflict::Conflict;
use crate::content::DecodedBlocks;
use crate::error::Error;
use crate::hashes20::Hashes20;
use crate::id::{REPLICAS, ReplicaId, SegmentId};
use crate::manifest::Manifest;
use crate::numbers::Known;
use crate::replica::Replica;
use crate::segment::IndexCache;
use crate::segment::format::SEGMENT_BYTES_FULL;
use crate::store::Store;
use crate::sweep::{SweepOptions, SweepReport};
use crate::tree::NodeCache;

/// Budgets of the caches, in bytes. They are shared by all that runs in a process.
const INDEX_CACHE_BYTES_MAX: usize = 8 << 20;
const NODE_CACHE_BYTES_MAX: usize = 12 << 20;
const DECODED_CACHE_BYTES_MAX: usize = 24 << 20;
const MANIFEST_CACHE_BYTES_MAX: usize = 4 << 20;
const HASHES20_CACHE_BYTES_MAX: usize = 16 << 20;
const LATEST_CACHE_BYTES_MAX: usize = 1 << 20;
const CONFLICT_CACHE_BYTES_MAX: usize = 4 << 20;

/// Versions of databases in an object store. Cloning is cheap; clones share their caches.
///
/// All calls block and wait for the tokio runtime that was given, which has to be one with several
/// threads. They must not be made from its async threads (`spawn_blocking` is fine); dropping a
/// [`crate::PushReplica`] counts as a call.
#[derive(Clone, Debug)]
pub struct Repository {
    shared: Arc<Shared>,
}

/// What all handles of a repository share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) indexes: Arc<IndexCache>,
    pub(crate) nodes: Arc<NodeCache>,
    pub(crate) decoded: Arc<DecodedBlocks>,
    pub(crate) manifests: Cache<(ReplicaId, VersionNumber), Arc<Manifest>>,
    pub(crate) hashes20: Cache<SegmentId, Arc<Hashes20>>,
    /// The last version of each replica.
    pub(crate) latest: Cache<ReplicaId, Known>,
    /// How many candidates a replica has, about.
    pub(crate) candidates: Cache<ReplicaId, usize>,
    /// The last conflict of each replica.
    pub(crate) conflicts: Cache<ReplicaId, Known>,
    /// Conflicts that are over, and so do not change any more.
    pub(crate) conflicts_over: Cache<(ReplicaId, ConflictNumber), Arc<Conflict>>,
    /// The candidates that opened conflicts.
    pub(crate) openers: Cache<(ReplicaId, ConflictNumber), PushId>,
    /// Conflicts that were open, with the candidate in them, as of a version.
    pub(crate) conflicts_open: Cache<(ReplicaId, ConflictNumber), (PushId, VersionNumber)>,
    pub(crate) pins: Pins,
    /// A segment is closed when its parts are this many bytes.
    pub(crate) segment_bytes_full: u64,
    scratch: PathBuf,
}

impl Repository {
    /// A repository in a local folder, which is made where it does not exist. What is written is on
    /// the disk, with its folder, before a call returns.
    pub fn local(path: &Path, runtime: tokio::runtime::Handle) -> Result<Repository, Error> {
        let at = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::StorageFull => Error::DiskFull { object: path.display().to_string() },
            _ => {
                let source = object_store::Error::Generic { store: "local", source: source.into() };
                Error::Store { object: path.display().to_string(), source }
            }
        };
        std::fs::create_dir_all(path.join(REPLICAS)).map_err(at)?;
        let path = path.canonicalize().map_err(at)?;
        // The store syncs the folders that it makes; these two it finds. Without their entries on the
        // disk, a power cut could take all that was ever stored.
        for folder in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            sync_folder(folder).map_err(at)?;
        }
        let objects = LocalFileSystem::new_with_prefix(&path)
            .map_err(|source| Error::store(path.display().to_string(), source))?
            .with_fsync(true);
        Ok(Repository::over(Arc::new(objects), runtime, Some(path)))
    }

    /// A repository that is gone when it is dropped: for tests.
    pub fn memory(runtime: tokio::runtime::Handle) -> Repository {
        Repository::over(Arc::new(InMemory::new()), runtime, None)
    }

    /// A repository on any store that has the conditional create. `local` is the folder of a local
    /// one: where scratch files go, and where staging files are swept.
    pub fn over(
        objects: Arc<dyn ObjectStore>,
        runtime: tokio::runtime::Handle,
        local: Option<PathBuf>,
    ) -> Repository {
        // Next to the data, where there is room for it; a temporary folder is often memory.
        let scratch = local.clone().unwrap_or_else(std::env::temp_dir);
        let shared = Shared::new(Store::new(objects, runtime, local), scratch);
        Repository { shared: Arc::new(shared) }
    }

    /// With smaller segments than usual, so that a test need not write many megabytes to have several.
    #[doc(hidden)]
    pub fn with_segment_bytes(self, bytes: u64) -> Result<Repository, Error> {
        let mut shared = Arc::into_inner(self.shared).ok_or(Error::OutOfOrder("with_segment_bytes"))?;
        shared.segment_bytes_full = bytes.min(SEGMENT_BYTES_FULL);
        Ok(Repository { shared: Arc::new(shared) })
    }

    /// A handle on a replica, which need not exist: it does from its first version on.
    pub fn replica(&self, id: &ReplicaId) -> Replica {
        Replica::new(self.shared.clone(), *id)
    }

    /// All replicas, sorted. Folders with names that no replica has are left out; `check` names them.
    pub fn replicas(&self) -> Result<Vec<ReplicaId>, Error> {
        let folders = self.shared.store.folders(&object_store::path::Path::from(REPLICAS))?;
        let mut ids: Vec<ReplicaId> = folders.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads everything, proves every root, and names what is broken. `progress` is called often.
    /// An error means that the store could not be asked; damage is in the report.
    pub fn check(&self, progress: &mut dyn FnMut(CheckProgress)) -> Result<CheckReport, Error> {
        crate::check::check(self, progress)
    }

    /// Removes what nothing refers to: what cut pushes and killed processes left.
    pub fn sweep(&self, options: SweepOptions) -> Result<SweepReport, Error> {
        crate::sweep::sweep(self, options, Timestamp::now())
    }

    /// As [`Repository::sweep`] at another time, so that a test need not wait for it.
    #[doc(hidden)]
    pub fn sweep_at(&self, options: SweepOptions, now: Timestamp) -> Result<SweepReport, Error> {
        crate::sweep::sweep(self, options, now)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The same store with empty caches, so that what is read is what is stored now.
    pub(crate) fn uncached(&self) -> Repository {
        let shared = &self.shared;
        let shared = Shared {
            hashes20: Cache::new(0),
            segment_bytes_full: shared.segment_bytes_full,
            ..Shared::new(shared.store.clone(), shared.scratch.clone())
        };
        Repository { shared: Arc::new(shared) }
    }
}

impl Shared {
    /// A store of which nothing is known yet.
    fn new(store: Store, scratch: PathBuf) -> Shared {
        Shared {
            store,
            indexes: Arc::new(IndexCache::new(INDEX_CACHE_BYTES_MAX)),
            nodes: Arc::new(NodeCache::new(NODE_CACHE_BYTES_MAX)),
            decoded: Arc::new(DecodedBlocks::new(DECODED_CACHE_BYTES_MAX)),
            manifests: Cache::new(MANIFEST_CACHE_BYTES_MAX),
            hashes20: Cache::new(HASHES20_CACHE_BYTES_MAX),
            latest: Cache::new(LATEST_CACHE_BYTES_MAX),
            candidates: Cache::new(LATEST_CACHE_BYTES_MAX),
            conflicts: Cache::new(LATEST_CACHE_BYTES_MAX),
            conflicts_over: Cache::new(CONFLICT_CACHE_BYTES_MAX),
            openers: Cache::new(LATEST_CACHE_BYTES_MAX),
            conflicts_open: Cache::new(LATEST_CACHE_BYTES_MAX),
            pins: Pins::default(),
            segment_bytes_full: SEGMENT_BYTES_FULL,
            scratch,
        }
    }

    /// A file without a name, gone when it is closed.
    pub(crate) fn scratch_file(&self) -> Result<std::fs::File, Error> {
        tempfile::tempfile_in(&self.scratch).map_err(Error::scratch)
    }
}

/// Makes the entries of a folder durable. A folder that may not be opened was not made here.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Segments that pushes of this process have written or taken over and not yet committed. Sweeping
/// leaves them alone. (Other processes are kept apart by the grace period.)
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<HashMap<SegmentId, u32>>);

impl Pins {
    pub(crate) fn add(&self, id: SegmentId) {
        *self.lock().entry(id).or_default() += 1;
    }

    pub(crate) fn remove(&self, id: SegmentId) {
        let mut pins = self.lock();
        if let Some(count) = pins.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&id);
            }
        }
    }

    pub(crate) fn has(&self, id: SegmentId) -> bool {
        self.lock().contains_key(&id)
    }

    pub(crate) fn all(&self) -> BTreeSet<SegmentId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SegmentId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
