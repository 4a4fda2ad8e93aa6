//! A replica of which something is missing: nothing of it is removed, read or committed to, and nothing that is
//! young is removed either, since what refers to it may be on its way.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Damage, Error, Repository, SweepOptions};

use crate::sides::{Sides, by, overlap};
use crate::support::*;
use crate::versions::at_once;

const VERSIONS: u64 = 5;

/// A repository in a folder with a replica of five versions.
struct Stored {
    folder: tempfile::TempDir,
    versions: Vec<Database>,
}

impl Stored {
    fn new() -> Stored {
        let stored = Stored { folder: tempfile::tempdir().unwrap(), versions: versions() };
        let replica = stored.open().replica(&id());
        Push::of(&stored.versions[0]).run(&replica).unwrap();
        for (n, pair) in (1..).zip(stored.versions.windows(2)) {
            Push::of(&pair[1]).on(&pair[0], n).run(&replica).unwrap();
        }
        stored
    }

    /// Of a process that has just been started.
    fn open(&self) -> Repository {
        Repository::local(self.folder.path(), runtime()).unwrap()
    }

    fn replica(&self) -> PathBuf {
        self.folder.path().join("replicas").join(id().to_string())
    }

    fn manifest(&self, number: u64) -> PathBuf {
        self.replica().join(format!("manifests/{number:020}"))
    }

    /// Takes a version's manifest away. Returns what puts it back.
    fn lose(&self, number: u64) -> impl FnOnce() + use<> {
        let (path, bytes) = (self.manifest(number), std::fs::read(self.manifest(number)).unwrap());
        std::fs::remove_file(&path).unwrap();
        move || std::fs::write(path, bytes).unwrap()
    }

    fn assert_whole(&self) {
        let repository = self.open();
        assert_sound(&repository);
        for (n, database) in (1..).zip(&self.versions) {
            assert_holds(&repository.replica(&id()), n, database);
        }
    }
}

fn versions() -> Vec<Database> {
    let mut all = vec![Database::new(PageSize::MIN, 40, 1)];
    for n in 1..VERSIONS {
        let mut next = all.last().unwrap().clone();
        next.set(n as u32 + 1, 100 + n);
        all.push(next);
    }
    all
}

/// The files in a folder, below it too.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn is_gap<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    match outcome {
        Err(Error::Damaged { damage: Damage::Gap | Damage::Missing, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replica_that_lacks_a_version_is_not_swept_whichever_it_is() {
    let stored = Stored::new();
    for lost in 1..VERSIONS {
        let put_back = stored.lose(lost);
        let before = files(stored.folder.path());
        let report = stored.open().sweep(at_once()).unwrap();
        assert_eq!((report.replicas_skipped, report.objects_removed), (vec![id()], 0), "{lost}");
        assert_eq!(files(stored.folder.path()), before, "{lost}");
        let problems = stored.open().check(&mut |_| {}).unwrap().problems;
        assert!(problems.iter().any(|found| found.damage == Damage::Gap), "{problems:?}");
        put_back();
    }
    stored.assert_whole();
}

#[test]
fn a_replica_that_lacks_a_version_is_neither_read_nor_committed_to_whichever_it_is() {
    let stored = Stored::new();
    let mut next = stored.versions.last().unwrap().clone();
    next.set(30, 7);
    for lost in 1..VERSIONS {
        let put_back = stored.lose(lost);
        let before = files(stored.folder.path());
        let replica = stored.open().replica(&id());
        is_gap(replica.latest());
        is_gap(replica.history(None, 9));
        is_gap(replica.manifest(number(lost)));
        is_gap(Push::of(&next).run(&replica));
        is_gap(Push::of(&next).on(stored.versions.last().unwrap(), VERSIONS).run(&replica));
        assert_eq!(files(stored.folder.path()), before, "{lost}");
        put_back();
        // Put back, it is whole again, and nothing has to be started anew.
        assert_eq!(replica.latest().unwrap().unwrap().number, number(VERSIONS));
    }
    stored.assert_whole();
}

#[test]
fn what_goes_missing_under_a_process_is_noticed_by_its_next_sweep_the_newest_too() {
    let stored = Stored::new();
    for lost in 1..=VERSIONS {
        let repository = stored.open();
        let replica = repository.replica(&id());
        assert_eq!(replica.latest().unwrap().unwrap().number, number(VERSIONS));
        let put_back = stored.lose(lost);
        assert_eq!(repository.sweep(at_once()).unwrap().replicas_skipped, [id()], "{lost}");
        is_gap(replica.latest());
        assert_eq!(repository.sweep(at_once()).unwrap().replicas_skipped, [id()], "{lost}, again");
        put_back();
        assert_eq!(repository.sweep(at_once()).unwrap().replicas_skipped, []);
        assert_eq!(replica.latest().unwrap().unwrap().number, number(VERSIONS));
    }
    stored.assert_whole();
}

/// Nothing says that there was one more: its segment stays for the grace period, which begins when it is put
/// there, whatever time it says it is of.
#[test]
fn what_only_the_newest_version_referred_to_stays_for_a_day() {
    let stored = Stored::new();
    for file in files(&stored.replica()) {
        let old = SystemTime::UNIX_EPOCH;
        std::fs::File::options().append(true).open(file).unwrap().set_modified(old).unwrap();
    }
    let put_back = stored.lose(VERSIONS);
    let sweep = |hours| {
        let now = Timestamp::now() + SignedDuration::from_hours(hours);
        stored.open().sweep_at(SweepOptions::ALONE, now).unwrap()
    };
    // A clock that was set back does no harm.
    for hours in [0, -9000, 23] {
        assert_eq!(sweep(hours).objects_removed, 0, "{hours}");
    }
    put_back();
    stored.assert_whole();
    drop(stored.lose(VERSIONS));
    assert_eq!(sweep(25).objects_removed, 1);
}

#[test]
fn a_copy_that_is_put_back_in_any_order_outlasts_the_sweeps_meanwhile() {
    let stored = Stored::new();
    let all = files(&stored.replica());
    let mut orders = vec![all.clone(), all.iter().rev().cloned().collect()];
    // Manifests among segments, the newest first and the oldest first.
    orders.push(all.iter().rev().step_by(2).chain(all.iter().rev().skip(1).step_by(2)).cloned().collect());
    orders.push(all.iter().step_by(2).chain(all.iter().skip(1).step_by(2)).cloned().collect());
    for order in orders {
        let content: Vec<Vec<u8>> = all.iter().map(|path| std::fs::read(path).unwrap()).collect();
        all.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        // A server that runs throughout, and one that is started at each step.
        let runs = stored.open();
        for path in &order {
            let place = all.iter().position(|one| one == path).unwrap();
            std::fs::write(path, &content[place]).unwrap();
            runs.sweep(SweepOptions::default()).unwrap();
            stored.open().sweep(SweepOptions::ALONE).unwrap();
        }
        stored.assert_whole();
        assert_eq!(runs.replica(&id()).latest().unwrap().unwrap().number, number(VERSIONS));
    }
}

#[test]
fn a_file_with_a_foreign_name_stops_the_sweep_of_its_replica() {
    let stored = Stored::new();
    let put_back = stored.lose(VERSIONS);
    // As a tool calls what it has not finished copying.
    let foreign = stored.replica().join(format!("manifests/.{VERSIONS:020}.Xa9f3b"));
    std::fs::write(&foreign, b"half").unwrap();
    let report = stored.open().sweep(at_once()).unwrap();
    assert_eq!((report.replicas_skipped, report.objects_removed), (vec![id()], 0));
    std::fs::remove_file(&foreign).unwrap();
    put_back();
    stored.assert_whole();
}

/// Two conflicts, the first of which was settled.
#[test]
fn a_replica_that_lacks_a_step_of_a_conflict_is_not_swept_and_opens_no_other_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let local = || Repository::local(folder.path(), runtime()).unwrap();
    let sides = Sides::sized(local(), 30);
    sides.push_both().unwrap();
    let (first, second) = (sides.mine(), {
        let mut mine = sides.base.clone();
        mine.set(20, 1000);
        sides.keep(9, &mine, (&sides.base, &sides.version(1)))
    });
    let open = |candidate| sides.replica.open_conflict(candidate, overlap(candidate), &[], by("me")).unwrap();
    let (one, _) = (open(&first), open(&second));
    let latest = sides.version(2);
    let on = (&sides.theirs, &latest);
    let version = sides.merge(&first, (&latest, on), &sides.both, Some(&one)).unwrap().unwrap();
    sides.replica.end_conflict(&one, &version, String::new(), by("me")).unwrap().unwrap();
    let conflicts = folder.path().join("replicas").join(id().to_string()).join("conflicts");
    let one = conflicts.join(format!("{:020}", 1));
    for lost in [one.clone(), one.join(format!("{:020}", 1))] {
        let away = folder.path().join("away");
        std::fs::rename(&lost, &away).unwrap();
        let before = files(folder.path());
        assert_eq!(local().sweep(at_once()).unwrap().replicas_skipped, [id()], "{}", lost.display());
        assert_eq!(files(folder.path()), before);
        is_gap(local().replica(&id()).conflicts(false, None, 9));
        std::fs::rename(&away, &lost).unwrap();
    }
    assert_sound(&local());
}
