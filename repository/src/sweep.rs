//! Sweeping: removes what nothing refers to. What a manifest or a candidate refers to, what waits to be continued
//! and what a running push has in hand stays.
//!
//! What refers to something can only be told where all is there and understood. A replica is left alone where
//! a version, a conflict or a step of one is missing (which the listing shows, and no search from below could) or
//! cannot be read, and where an object has a name that no repository gives. And what would refer to something may
//! still be on its way: nothing goes before it has been there for the grace period.

mod age;
mod beside;
mod candidates;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::page::ConflictNumber;

use crate::error::{Damage, Error};
use crate::id::{Name, REPLICAS, ReplicaId, SegmentId};
use crate::numbers::Row;
use crate::push::PUSH_TIME_MAX;
use crate::replica::Replica;
use crate::repository::Repository;
use crate::staged::STAGED_TIME_MAX;
use crate::store::Listed;

/// The grace period beside other processes. A segment may be offered to another push up to the end of
/// its staged life, that push may take as long as any and be another process's, and clocks differ.
const GRACE_DEFAULT: SignedDuration = SignedDuration::from_hours(
    STAGED_TIME_MAX.as_hours() + PUSH_TIME_MAX.as_hours() + CLOCKS_APART_MAX.as_hours(),
);

/// The grace period where no other process uses the repository: for whoever copies one back, segments first, and
/// starts a server meanwhile. That the newest manifests are not there yet cannot be seen.
const GRACE_ALONE: SignedDuration = SignedDuration::from_hours(24);

/// How far the clocks of two machines and of the store may be apart.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_hours(24);

/// How to sweep.
#[derive(Debug, Clone, Copy)]
pub struct SweepOptions {
    /// For how long what nothing refers to has to have been there.
    pub grace: SignedDuration,
}

impl SweepOptions {
    /// No other process uses the repository, as a server knows at its start.
    pub const ALONE: SweepOptions = SweepOptions { grace: GRACE_ALONE };
}

impl Default for SweepOptions {
    /// Other processes may use the repository: longer than the life of what is staged and the longest push
    /// together.
    fn default() -> Self {
        SweepOptions { grace: GRACE_DEFAULT }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Objects removed.
    pub objects_removed: u64,
    /// Bytes of these.
    pub bytes_removed: u64,
    /// Staging files of a local store removed.
    pub staging_files_removed: u64,
    /// Replicas left alone because something in them is missing, damaged or foreign: `check` says what.
    pub replicas_skipped: Vec<ReplicaId>,
}

pub(crate) fn sweep(
    repository: &Repository,
    options: SweepOptions,
    now: Timestamp,
) -> Result<SweepReport, Error> {
    let mut sweep = Sweep { repository, options, now, report: SweepReport::default() };
    for id in repository.replicas()? {
        match sweep.replica(&repository.replica(&id)) {
            Ok(()) => {}
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, replica = %id, "a damaged replica is not swept: run `check`");
                sweep.report.replicas_skipped.push(id);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(local) = repository.shared().store.local() {
        sweep.staging_files(&local.join(REPLICAS));
    }
    Ok(sweep.report)
}

struct Sweep<'r> {
    repository: &'r Repository,
    options: SweepOptions,
    now: Timestamp,
    report: SweepReport,
}

impl Sweep<'_> {
    fn replica(&mut self, replica: &Replica) -> Result<(), Error> {
        let prefix = object_store::path::Path::from(format!("{REPLICAS}/{}", replica.id()));
        // The order matters. A segment that is listed belongs to a push that still runs, and is pinned;
        // or to one that was committed before its pin went, and so stands in a manifest read later; or
        // to another process's, and is younger than the grace period.
        let named = named(self.repository.shared().store.list(&prefix)?)?;
        nothing_is_missing(replica, &named)?;
        replica.mend_conflicts()?;
        let pinned = self.repository.shared().pins.all();
        // Before the manifests: a push that takes over what is staged commits first and drops the record
        // after that, so its segment is found in one of the two.
        let staged: Vec<_> = named
            .iter()
            .filter_map(|(name, listed)| match *name {
                Name::Staged(scope, id) => Some((id, listed, replica.staged_record(scope, id))),
                _ => None,
            })
            .collect();
        let mut used = self.referenced(replica)?;
        let by = self.named_by(replica, &named)?;
        self.candidates(replica, by.candidates, &mut used)?;
        for (id, listed, record) in staged {
            match record {
                Ok(Some(record)) if record.expires > self.now && !used.contains(&id) => {
                    used.insert(id);
                }
                Ok(None) => {}
                Ok(Some(_)) if pinned.contains(&id) => {}
                // Expired, or committed.
                Ok(Some(_)) => self.remove_unless_pinned(id, listed)?,
                Err(error) if error.is_damage() => self.remove_if_old(id, listed)?,
                Err(error) => return Err(error),
            }
        }
        used.extend(pinned);
        for (name, listed) in &named {
            match *name {
                Name::Segment(id) if !used.contains(&id) => self.remove_if_old(id, listed)?,
                Name::Hashes20(id) if !used.contains(&id) => self.remove_if_old(id, listed)?,
                _ => {}
            }
        }
        self.beside(replica, &named, &by.rows)
    }

    /// The segments that manifests refer to. A manifest that cannot be read ends it.
    fn referenced(&self, replica: &Replica) -> Result<BTreeSet<SegmentId>, Error> {
        let mut used = BTreeSet::new();
        let mut number = replica.latest_number()?;
        while let Some(at) = number {
            let missing = || Error::damaged(Name::Manifest(at).path(replica.id()), Damage::Gap);
            let manifest = replica.read_manifest(at)?.ok_or_else(missing)?;
            used.extend(manifest.segments.iter().map(|segment| segment.id));
            number = at.back(1);
        }
        Ok(used)
    }

    fn remove_unless_pinned(&mut self, id: SegmentId, listed: &Listed) -> Result<(), Error> {
        if self.repository.shared().pins.has(id) { Ok(()) } else { self.remove(listed) }
    }

    fn remove_if_old(&mut self, id: SegmentId, listed: &Listed) -> Result<(), Error> {
        if self.is_old(listed) { self.remove_unless_pinned(id, listed) } else { Ok(()) }
    }

    fn remove(&mut self, listed: &Listed) -> Result<(), Error> {
        self.repository.shared().store.delete(&listed.path)?;
        self.report.objects_removed += 1;
        self.report.bytes_removed += listed.bytes;
        Ok(())
    }

    /// A local store writes `name#1` and renames it. A killed process leaves such files, which the
    /// store's own listing does not show.
    fn staging_files(&mut self, folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.staging_files(&entry.path());
            } else if kind.is_file() && is_staging_name(&entry.file_name()) && self.is_left(&entry) {
                // One that is gone meanwhile was finished.
                if std::fs::remove_file(entry.path()).is_ok() {
                    self.report.staging_files_removed += 1;
                }
            }
        }
    }

    fn is_left(&self, entry: &std::fs::DirEntry) -> bool {
        entry.metadata().is_ok_and(|file| self.is_old_file(&file))
    }
}

/// The names of what was listed.
fn named(listed: Vec<Listed>) -> Result<Vec<(Name, Listed)>, Error> {
    let name = |listed: Listed| match Name::parse(&listed.path) {
        Some((_, name)) => Ok((name, listed)),
        None => Err(Error::damaged(listed.path, Damage::ForeignName)),
    };
    listed.into_iter().map(name).collect()
}

/// None of the numbered objects is missing among those that were listed.
fn nothing_is_missing(replica: &Replica, listed: &[(Name, Listed)]) -> Result<(), Error> {
    let mut versions = BTreeSet::new();
    let mut conflicts: BTreeMap<ConflictNumber, BTreeSet<u64>> = BTreeMap::new();
    for (name, _) in listed {
        match *name {
            Name::Manifest(number) => {
                versions.insert(number.get());
            }
            Name::Conflict(number, step) => {
                conflicts.entry(number).or_default().insert(step);
            }
            _ => {}
        }
    }
    replica.look_at_row(Row::Versions, &versions)?;
    replica.look_at_row(Row::Conflicts, &conflicts.keys().map(|number| number.get()).collect())?;
    for (number, steps) in &conflicts {
        replica.last_listed(steps, 0, |step| Some(Name::Conflict(*number, step)))?;
    }
    Ok(())
}

fn is_staging_name(name: &std::ffi::OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.rsplit_once('#'));
    parts.is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}
