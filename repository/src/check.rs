//! Checking: reads every object, verifies every checksum, and proves every version's root from the
//! pages themselves.
//!
//! Of a version, what it shares with the one before it is not proved twice: its tree is compared with
//! that one's, and only entries that differ are followed. Where the version before could not be
//! proved, everything is followed. Memory: a few nodes, one segment's index, and the names of one
//! replica's objects.

mod beside;
mod candidates;
mod segments;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::error::{Damage, Error};
use crate::id::{Name, REPLICAS, ReplicaId, SegmentId};
use crate::replica::{About, Replica};
use crate::repository::Repository;
use crate::store::Listed;

/// The most problems that are named one by one.
const PROBLEMS_MAX: usize = 10_000;

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// The replica that is being read.
    pub replica: ReplicaId,
    /// Replicas done.
    pub replicas_done: usize,
    /// Replicas in all.
    pub replicas: usize,
    /// Versions proved in this replica so far.
    pub versions_done: u64,
    /// Versions of this replica.
    pub versions: u64,
    /// Bytes of objects read in all.
    pub bytes_read: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Replicas checked.
    pub replicas: usize,
    /// Versions whose root was proved.
    pub versions_proved: u64,
    /// Versions there are, expired ones aside.
    pub versions: u64,
    /// Candidates whose root was proved.
    pub candidates_proved: u64,
    /// Candidates there are.
    pub candidates: u64,
    /// Objects read.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// What is broken, each object and damage once; the first 10,000.
    pub problems: Vec<Problem>,
}

impl CheckReport {
    /// Whether nothing is broken.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Something that is broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The replica it belongs to; `None` for an object that belongs to none.
    pub replica: Option<ReplicaId>,
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub damage: Damage,
    /// The first version that is affected, where that is known.
    pub version: Option<VersionNumber>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.damage)?;
        match self.version {
            Some(version) => write!(f, " (version {version} and all that share it)"),
            None => Ok(()),
        }
    }
}

/// A check that runs.
struct Check<'p> {
    repository: Repository,
    progress: &'p mut dyn FnMut(CheckProgress),
    at: CheckProgress,
    report: CheckReport,
    /// Objects and damages that are named already.
    named: BTreeSet<(String, Damage)>,
}

/// The objects of a replica, by kind.
#[derive(Default)]
struct Objects {
    about: bool,
    manifests: BTreeSet<VersionNumber>,
    expired: BTreeSet<VersionNumber>,
    /// With their lengths.
    segments: BTreeMap<SegmentId, u64>,
    hashes20: BTreeSet<SegmentId>,
    staged: Vec<(crate::id::Scope, SegmentId)>,
    candidates: BTreeSet<[u8; 16]>,
    steps: BTreeSet<(ConflictNumber, u64)>,
    rows: BTreeSet<SegmentId>,
    /// Objects that stand for themselves.
    beside: Vec<Name>,
}

pub(crate) fn check(
    repository: &Repository,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<CheckReport, Error> {
    let repository = repository.uncached();
    let ids = repository.replicas()?;
    let at = CheckProgress {
        replica: ReplicaId::from_bytes([0; 16]),
        replicas_done: 0,
        replicas: ids.len(),
        versions_done: 0,
        versions: 0,
        bytes_read: 0,
    };
    let report = CheckReport { replicas: ids.len(), ..CheckReport::default() };
    let mut check = Check { repository, progress, at, report, named: BTreeSet::new() };
    check.foreign_folders()?;
    for id in ids {
        check.at = CheckProgress { replica: id, versions_done: 0, versions: 0, ..check.at };
        check.replica(id)?;
        check.at.replicas_done += 1;
    }
    check.report.problems.sort();
    Ok(check.report)
}

impl Check<'_> {
    /// Folders among the replicas that are none.
    fn foreign_folders(&mut self) -> Result<(), Error> {
        let folders = self.repository.shared().store.folders(&object_store::path::Path::from(REPLICAS))?;
        for folder in folders.iter().filter(|name| name.parse::<ReplicaId>().is_err()) {
            self.problem(None, format!("{REPLICAS}/{folder}"), Damage::ForeignName, None);
        }
        Ok(())
    }

    fn replica(&mut self, id: ReplicaId) -> Result<(), Error> {
        let replica = self.repository.replica(&id);
        let objects = self.objects(&replica)?;
        self.at.versions = objects.manifests.len() as u64;
        if objects.about {
            let about: Result<Option<About>, Error> = replica.about();
            self.note(&replica, about.map(drop), None)?;
        }
        let (mut segments, proved) = self.versions(&replica, &objects)?;
        self.candidates(&replica, &objects, &mut segments, &proved)?;
        self.beside(&replica, &objects)?;
        self.segments(&replica, &objects, &segments)
    }

    /// Lists a replica's objects, and names those that no repository makes.
    fn objects(&mut self, replica: &Replica) -> Result<Objects, Error> {
        let prefix = object_store::path::Path::from(format!("{REPLICAS}/{}", replica.id()));
        let mut objects = Objects::default();
        for Listed { path, bytes, .. } in self.repository.shared().store.list(&prefix)? {
            self.report.objects += 1;
            self.report.bytes += bytes;
            match Name::parse(&path) {
                None => self.problem(Some(replica), path.to_string(), Damage::ForeignName, None),
                Some((_, Name::About)) => objects.about = true,
                Some((_, Name::Manifest(number))) => {
                    objects.manifests.insert(number);
                }
                Some((_, Name::Expired(number))) => {
                    objects.expired.insert(number);
                }
                Some((_, Name::Segment(id))) => {
                    objects.segments.insert(id, bytes);
                }
                Some((_, Name::Hashes20(id))) => {
                    objects.hashes20.insert(id);
                }
                Some((_, Name::Staged(scope, id))) => objects.staged.push((scope, id)),
                Some((_, Name::Candidate(id))) => {
                    objects.candidates.insert(id);
                }
                Some((_, Name::Conflict(number, step))) => {
                    objects.steps.insert((number, step));
                }
                Some((_, Name::ConflictRows(id))) => {
                    objects.rows.insert(id);
                }
                Some((_, name @ (Name::CandidateRoot(_) | Name::Client(_) | Name::Parents(_)))) => {
                    objects.beside.push(name);
                }
            }
        }
        Ok(objects)
    }

    /// Puts damage into the report, and gives other errors back. Says whether all was well.
    fn note(
        &mut self,
        replica: &Replica,
        outcome: Result<(), Error>,
        version: Option<VersionNumber>,
    ) -> Result<bool, Error> {
        match outcome {
            Ok(()) => Ok(true),
            Err(Error::Damaged { object, damage }) => {
                self.problem(Some(replica), object, damage, version);
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    fn problem(
        &mut self,
        replica: Option<&Replica>,
        object: String,
        damage: Damage,
        version: Option<VersionNumber>,
    ) {
        if self.named.len() < PROBLEMS_MAX && self.named.insert((object.clone(), damage)) {
            let replica = replica.map(Replica::id);
            self.report.problems.push(Problem { replica, object, damage, version });
        }
    }

    fn read(&mut self, bytes: u64) {
        self.at.bytes_read += bytes;
        (self.progress)(self.at);
    }
}
