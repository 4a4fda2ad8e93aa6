//! Which page leads to which, for the databases that are merged: what makes a merge of one row into a large
//! database cost one row.
//!
//! A map is a hint that is proved wherever it is used, so one that is old, lost or wrong costs time and nothing
//! else. Those of each replica that were used last are kept in memory, within a budget; that of a large database also
//! beside a version from time to time, for the next start. A large database gets its first one in the background.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlrsync_database::btree::ParentMap;
use sqlrsync_protocol::content::ChangedPages;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_repository::{Manifest, Replica, ReplicaId};

use super::Error;
use super::until::Until;
use crate::backend::Backend;

/// How many pages all maps in memory are of, at most; each takes four bytes, where no other map has the same.
const PAGES_MAX: u64 = 8 << 20;

/// How many maps of one replica are kept: who compares two versions, or merges, comes back to both.
const OF_A_REPLICA_MAX: usize = 4;

/// A database of no more pages gets its map when it is needed, and none is stored.
const SMALL_PAGES_MAX: u32 = 2048;

/// How many versions the stored map may be behind.
const STORED_BEHIND_MAX: u64 = 64;

/// How far a map that nobody waits for stands behind what somebody does.
#[cfg(target_os = "linux")]
const BEHIND_OTHERS: i32 = 10;

/// Some maps of each replica.
#[derive(Default)]
pub(in crate::backend) struct Maps {
    kept: Mutex<Kept>,
    /// A first one is being made in the background: one at a time.
    making: Arc<AtomicBool>,
}

#[derive(Default)]
struct Kept {
    by_replica: HashMap<ReplicaId, OfReplica>,
    uses: u64,
}

#[derive(Default)]
struct OfReplica {
    /// Used last: last.
    maps: Vec<Map>,
    /// The version beside which one is stored.
    stored: Option<VersionNumber>,
    used: u64,
}

/// A map and what it is of.
#[derive(Clone)]
struct Map {
    of: Manifest,
    map: ParentMap,
}

impl Maps {
    /// The map of a content: the one at hand, brought to it, or a new one.
    pub(super) fn of(
        &self,
        replica: &Replica,
        content: &Manifest,
        until: &Until,
    ) -> Result<ParentMap, Error> {
        let at_hand = match self.lock().nearest(replica.id(), content) {
            None if is_large(content) => stored(replica, content)?,
            found => found,
        };
        if let Some(Map { of, mut map }) = at_hand {
            if of.root == content.root {
                return Ok(map);
            }
            // What the map is of may be gone by now.
            if let (Ok(ChangedPages::Known(changed)), Ok(mut from)) =
                (replica.changed_pages(&of, content), replica.content(&of))
            {
                let mut to = replica.content(content)?;
                map.bring(&mut until.read(&mut from), &mut until.read(&mut to), &changed)
                    .map_err(|error| until.explain(error))?;
                return Ok(map);
            }
        }
        ParentMap::build(&mut until.read(&mut replica.content(content)?))
            .map_err(|error| until.explain(error))
    }

    /// Keeps the map of a version.
    pub fn keep(&self, replica: &Replica, of: &Manifest, map: ParentMap) {
        // What comes of two contents whose pages have nothing to do with each other.
        if map.is_unknown() {
            return;
        }
        let before = self.lock().by_replica.get(&replica.id()).and_then(|known| known.stored);
        let stored = self.store(replica, of, &map, before).unwrap_or_else(|error| {
            // It is made again after the next start.
            tracing::warn!(%error, "a map of pages was not stored");
            before
        });
        self.lock().put(replica.id(), Map { of: of.clone(), map }, stored);
    }

    /// Stores the map of a large database, where the one that is stored is old.
    fn store(
        &self,
        replica: &Replica,
        of: &Manifest,
        map: &ParentMap,
        before: Option<VersionNumber>,
    ) -> Result<Option<VersionNumber>, sqlrsync_repository::Error> {
        let behind = |before: VersionNumber| of.number.get().saturating_sub(before.get());
        if !is_large(of) || of.candidate.is_some() {
            return Ok(before);
        }
        let known = match before {
            None => replica.with_parents()?.pop(),
            before => before,
        };
        if known.is_some_and(|known| behind(known) < STORED_BEHIND_MAX) {
            return Ok(known);
        }
        if !replica.put_parents(of, &map.encode())? {
            return Ok(known);
        }
        if let Some(old) = known.filter(|old| *old != of.number) {
            replica.remove_parents(old)?;
        }
        Ok(Some(of.number))
    }

    /// Sees to it that a large database that was just pushed has a map when it is first needed.
    pub fn prepare(backend: &Arc<Backend>, replica: &Replica, version: &Manifest) {
        let maps = &backend.maps;
        let has_one = maps.lock().by_replica.contains_key(&replica.id());
        if has_one || !is_large(version) {
            return;
        }
        let Some(making) = Making::begin(&maps.making) else { return };
        let (backend_, replica, version) = (backend.clone(), replica.clone(), version.clone());
        let make = move || {
            let _making = making;
            // Nobody waits for it, and others may need the machine. Elsewhere it would be said of the process.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::nice(BEHIND_OTHERS);
            match backend_.maps.of(&replica, &version, &Until::done()) {
                Ok(map) => backend_.maps.keep(&replica, &version, map),
                Err(error) => tracing::warn!(%error, "no map of the pages of a version was made"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("page map".to_owned()).spawn(make) {
            tracing::warn!(%error, "no thread for a map of pages");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this is there a map is being made. It says that it is done however that ends: a panic over one database
/// must not keep all others from theirs.
struct Making(Arc<AtomicBool>);

impl Making {
    /// `None` where another one is being made.
    fn begin(making: &Arc<AtomicBool>) -> Option<Making> {
        (!making.swap(true, Ordering::AcqRel)).then(|| Making(Arc::clone(making)))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn is_large(content: &Manifest) -> bool {
    content.geometry.page_count.get() > SMALL_PAGES_MAX
}

/// The stored map that is nearest to a content.
fn stored(replica: &Replica, content: &Manifest) -> Result<Option<Map>, Error> {
    let numbers = replica.with_parents()?;
    let nearest = numbers.into_iter().min_by_key(|number| number.get().abs_diff(content.number.get()));
    let Some(of) = nearest.map(|number| replica.manifest(number)).transpose()?.flatten() else {
        return Ok(None);
    };
    let map = replica.parents(&of)?.and_then(|bytes| ParentMap::decode(&bytes));
    Ok(map.map(|map| Map { of, map }))
}

impl Kept {
    /// The map of a content, or of one that is near to it.
    fn nearest(&mut self, replica: ReplicaId, content: &Manifest) -> Option<Map> {
        self.uses += 1;
        let of_replica = self.by_replica.get_mut(&replica)?;
        of_replica.used = self.uses;
        let behind = |map: &Map| map.of.number.get().abs_diff(content.number.get());
        let maps = &mut of_replica.maps;
        let nearest =
            (0..maps.len()).min_by_key(|&at| (maps[at].of.root != content.root, behind(&maps[at])))?;
        let found = maps.remove(nearest);
        maps.push(found.clone());
        Some(found)
    }

    fn put(&mut self, replica: ReplicaId, map: Map, stored: Option<VersionNumber>) {
        self.uses += 1;
        let of_replica = self.by_replica.entry(replica).or_default();
        of_replica.maps.retain(|known| known.of.root != map.of.root);
        if of_replica.maps.len() >= OF_A_REPLICA_MAX {
            of_replica.maps.remove(0);
        }
        of_replica.maps.push(map);
        (of_replica.stored, of_replica.used) = (stored, self.uses);
        self.shrink();
    }

    /// Forgets those of the replicas that were used longest ago, until the rest is within the budget.
    fn shrink(&mut self) {
        let pages = |maps: &OfReplica| {
            maps.maps.iter().map(|map| u64::from(map.of.geometry.page_count.get())).sum::<u64>()
        };
        let mut all: u64 = self.by_replica.values().map(pages).sum();
        while all > PAGES_MAX {
            let oldest = self.by_replica.iter().min_by_key(|(_, maps)| maps.used).map(|(id, _)| *id);
            let Some(gone) = oldest.and_then(|id| self.by_replica.remove(&id)) else { return };
            all -= pages(&gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_panicked_keeps_no_other_from_being_made() {
        let making = Arc::default();
        let first = Making::begin(&making).unwrap();
        assert!(Making::begin(&making).is_none(), "one at a time");
        let made = std::thread::spawn(move || {
            let _first = first;
            panic!("a hostile database");
        });
        made.join().unwrap_err();
        assert!(Making::begin(&making).is_some());
    }
}
