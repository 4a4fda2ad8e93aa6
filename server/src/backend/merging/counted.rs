//! The rows that each version changed, counted by table, for a list of versions.
//!
//! A version and the one before it never change, so what was counted is kept, within a budget. A page of the list
//! ends where counting has taken its time: its first versions come at once, and the next page goes on from there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{Error as Repository, Manifest, Replica, ReplicaId};
use utoipa::ToSchema;

use super::Error;
use super::given_up::GivenUp;
use super::look::{Difference, RowCounts};
use super::versions::Versions;
use crate::access::Caller;
use crate::backend::{Backend, VersionInfo};
use crate::refused::Refused;

/// The most versions in one answer.
const VERSIONS_MAX: usize = 100;

/// How long it may take to count for one answer. The version that is being counted then is the last of it.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// How long one version may take. Beyond that its rows are not known.
const VERSION_TIME: Duration = Duration::from_secs(60);

/// The most bytes of counts in one answer, about: a version may change thousands of tables.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// How much of what was counted is kept, in bytes, about.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What the count of a table takes beside its name, in bytes, about.
const COUNT_BYTES: usize = 128;

/// What a version changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionRows {
    /// By table.
    pub rows: BTreeMap<String, RowCounts>,
    /// Changes of the schema.
    pub schema: u64,
}

/// A version, with what it changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CountedVersion {
    /// The version.
    #[serde(flatten)]
    pub version: VersionInfo,
    /// The rows that differ from the version before it, by table; `null` for the first version, and where that cannot
    /// be told: a page is damaged or gone, it is no database, it took too long.
    pub rows: Option<BTreeMap<String, RowCounts>>,
    /// How many changes of the schema there are; `null` as well then.
    pub schema: Option<u64>,
}

/// Versions with what they changed, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CountedPage {
    /// `NAMESPACE/PATH`.
    pub replica: String,
    /// Its id.
    pub replica_id: String,
    /// The versions: at least one, where there is any, and as many as are counted soon.
    pub versions: Vec<CountedVersion>,
    /// What to give for `before` to read on; `null` at the end.
    pub next_before: Option<u64>,
}

/// What was counted lately; `None` of what is in a version and never becomes a count.
#[derive(Default)]
pub(in crate::backend) struct Counted {
    kept: Mutex<Kept>,
}

type Count = Option<Arc<VersionRows>>;

#[derive(Default)]
struct Kept {
    counts: HashMap<(ReplicaId, VersionNumber), Count>,
    /// The oldest first.
    order: VecDeque<(ReplicaId, VersionNumber)>,
    bytes: usize,
}

impl Counted {
    fn get(&self, of: &(ReplicaId, VersionNumber)) -> Option<Count> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).counts.get(of).cloned()
    }

    fn put(&self, of: (ReplicaId, VersionNumber), count: Count) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes_of(&count);
        if let Some(before) = kept.counts.insert(of, count) {
            // Counted twice at the same time.
            kept.bytes -= bytes_of(&before);
        } else {
            kept.order.push_back(of);
        }
        while kept.bytes > KEPT_BYTES_MAX {
            let oldest = kept.order.pop_front().and_then(|oldest| kept.counts.remove(&oldest));
            let Some(oldest) = oldest else { return };
            kept.bytes -= bytes_of(&oldest);
        }
    }
}

/// About what a count takes.
fn bytes_of(count: &Count) -> usize {
    let tables = count.iter().flat_map(|counted| counted.rows.keys());
    COUNT_BYTES + tables.map(|table| table.len() + COUNT_BYTES).sum::<usize>()
}

impl Backend {
    /// Versions before `before`, newest first, with the rows that each changed: as many as are counted soon, and
    /// `limit` at most. It stops when `cancel` becomes true.
    ///
    /// # Errors
    /// As [`Backend::policy`].
    pub fn counted_history(
        &self,
        caller: &Caller,
        name: &RemoteName,
        (before, limit): (Option<VersionNumber>, usize),
        cancel: &Arc<AtomicBool>,
    ) -> Result<CountedPage, Refused> {
        self.counted_within(caller, name, (before, limit), cancel, PAGE_TIME)
    }

    pub(super) fn counted_within(
        &self,
        caller: &Caller,
        name: &RemoteName,
        (before, limit): (Option<VersionNumber>, usize),
        cancel: &Arc<AtomicBool>,
        page_time: Duration,
    ) -> Result<CountedPage, Refused> {
        let begun = Instant::now();
        let record = self.seen(caller, name)?;
        let replica = self.repository_replica(&record)?;
        let found = replica.history(before, limit.clamp(1, VERSIONS_MAX))?;
        let (mut versions, mut bytes) = (Vec::new(), 0);
        for version in &found {
            let count = self.count(&replica, version, cancel)?;
            bytes += bytes_of(&count);
            versions.push(CountedVersion {
                version: VersionInfo::of(version, true),
                schema: count.as_ref().map(|counted| counted.schema),
                rows: count.map(|counted| counted.rows.clone()),
            });
            if begun.elapsed() >= page_time || bytes > PAGE_BYTES_MAX {
                break;
            }
        }
        let last = versions.last().map(|last| last.version.version);
        let next_before = last.filter(|last| *last > VersionNumber::FIRST.get());
        Ok(CountedPage { replica: record.name(), replica_id: record.id, versions, next_before })
    }

    /// What a version changed, where that can be told.
    fn count(&self, replica: &Replica, version: &Manifest, cancel: &Arc<AtomicBool>) -> Result<Count, Error> {
        let of = (replica.id(), version.number);
        if let Some(known) = self.counted.get(&of) {
            return Ok(known);
        }
        let before = version.number.back(1).map(|before| replica.manifest(before)).transpose()?.flatten();
        let Some(before) = before else { return Ok(None) };
        let versions = Versions::new(replica, &self.maps, VERSION_TIME).cancelled_by(cancel.clone());
        let count = match Difference::between(&versions, &before, version).and_then(|found| found.stat()) {
            Ok(stat) => Some(Arc::new(VersionRows { rows: stat.rows, schema: stat.schema })),
            // Asked again it may be told.
            Err(error) if error.given_up() == Some(GivenUp::Time) || is_gone(&error) => return Ok(None),
            Err(error) => error.stays_unknown().map(|()| None)?,
        };
        self.counted.put(of, count.clone());
        Ok(count)
    }
}

/// Whether it is for what is stored of this one version, and not for this machine.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Repository(Repository::Expired(_)))
        || matches!(error.refusal(), Refusal::Integrity | Refusal::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_kept_within_its_budget() {
        let counted = Counted::default();
        let replica = ReplicaId::random().unwrap();
        let of = |number| (replica, VersionNumber::new(number).unwrap());
        let rows = (0..1000).map(|table| (format!("{table:01000}"), RowCounts::default())).collect();
        let large = Arc::new(VersionRows { rows, schema: 0 });
        for number in 1..=20 {
            counted.put(of(number), Some(large.clone()));
            counted.put(of(number), Some(large.clone()));
        }
        assert!(counted.get(&of(1)).is_none() && counted.get(&of(20)).is_some());
        let kept = counted.kept.lock().unwrap();
        let sum: usize = kept.counts.values().map(bytes_of).sum();
        assert!(kept.bytes == sum && sum <= KEPT_BYTES_MAX, "{sum}");
        assert_eq!(kept.order.len(), kept.counts.len());
    }
}
