//! Which page leads to which, for the databases that are merged: what makes a merge of one row into a large
//! database cost one row.
//!
//! A map is a hint that is proved wherever it is used, so one that is old, lost or wrong costs time and nothing
//! else. The newest of each replica is kept in memory, within a budget.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlrsync_database::btree::ParentMap;
use sqlrsync_protocol::content::ChangedPages;
use sqlrsync_repository::{Manifest, Replica, ReplicaId};

use super::Error;

/// How many pages all maps in memory are of, at most; each takes four bytes.
const PAGES_MAX: u64 = 8 << 20;

/// The newest map of each replica.
#[derive(Default)]
pub(in crate::backend) struct Maps {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_replica: HashMap<ReplicaId, Map>,
    uses: u64,
}

/// A map and what it is of.
#[derive(Clone)]
struct Map {
    of: Manifest,
    map: ParentMap,
    used: u64,
}

impl Maps {
    /// The map of a content: the one at hand, brought to it, or a new one.
    pub fn of(&self, replica: &Replica, content: &Manifest) -> Result<ParentMap, Error> {
        if let Some(Map { of, mut map, .. }) = self.take(replica) {
            if of.root == content.root {
                return Ok(map);
            }
            // What the map is of may be gone by now.
            if let (Ok(ChangedPages::Known(changed)), Ok(mut from)) =
                (replica.changed_pages(&of, content), replica.content(&of))
            {
                let mut to = replica.content(content)?;
                map.bring(&mut from, &mut to, &changed).map_err(Error::Pages)?;
                return Ok(map);
            }
        }
        ParentMap::build(&mut replica.content(content)?).map_err(Error::Pages)
    }

    /// Keeps the map of a content in place of that of an older one.
    pub fn keep(&self, replica: &Replica, of: &Manifest, map: ParentMap) {
        let mut kept = self.lock();
        kept.uses += 1;
        let used = kept.uses;
        kept.by_replica.insert(replica.id(), Map { of: of.clone(), map, used });
        kept.shrink();
    }

    fn take(&self, replica: &Replica) -> Option<Map> {
        let mut kept = self.lock();
        kept.uses += 1;
        let used = kept.uses;
        let found = kept.by_replica.get_mut(&replica.id())?;
        found.used = used;
        Some(found.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets those that were used longest ago, until the rest is within the budget.
    fn shrink(&mut self) {
        let pages = |map: &Map| u64::from(map.of.geometry.page_count.get());
        let mut all: u64 = self.by_replica.values().map(pages).sum();
        while all > PAGES_MAX {
            let oldest = self.by_replica.iter().min_by_key(|(_, map)| map.used).map(|(id, _)| *id);
            let Some(gone) = oldest.and_then(|id| self.by_replica.remove(&id)) else { return };
            all -= pages(&gone);
        }
    }
}
