//! A store that stops at any step of a push that is kept, put into a conflict, added to and settled, and of
//! one that is merged: what was acknowledged is there, all of it can be repeated, and nothing is left behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use sqlrsync_repository::{Candidate, ClientKey, Conflict, Error, Manifest, Repository, Standing};

use crate::damage::objects_of;
use crate::kept::{assert_content, receive};
use crate::sides::{Sides, by, conflict_number, overlap, pushed};
use crate::support::*;
use crate::versions::at_once;

const ROWS: &[u8] = b"{\"table\":\"orders\",\"key\":{\"id\":1}}\n";

fn over(store: Arc<dyn ObjectStore>) -> Sides {
    // Small enough that the first version has several segments.
    Sides::sized(Repository::over(store, runtime(), None).with_segment_bytes(4_000).unwrap(), 60)
}

/// What was acknowledged before the store stopped.
#[derive(Default)]
struct Acknowledged {
    kept: Vec<Candidate>,
    conflict: Option<Conflict>,
    versions: Vec<Manifest>,
    ended: bool,
}

/// Keeps what was pushed, as a server does: also where it did so before.
fn kept(
    sides: &Sides,
    id: u8,
    database: &Database,
    (base, agreed): (&Database, &Manifest),
) -> Result<Candidate, Error> {
    let push = Push { base: Some((base, agreed.as_base().version)), ..Push::of(database) }.id(id);
    let mut received = receive(&push, &sides.replica)?;
    received.already()?;
    if let Some(candidate) = received.kept() {
        let candidate = candidate.clone();
        received.keep(Default::default())?;
        return Ok(candidate);
    }
    let options = sides.replica.keep_options(received.agreed())?;
    received.keep(options)
}

/// All of it, as far as it is not done yet.
fn run(sides: &Sides, done: &mut Acknowledged) -> Result<(), Error> {
    let replica = &sides.replica;
    let first = replica.manifest(number(1))?.unwrap();
    let mine = kept(sides, 3, &sides.mine, (&sides.base, &first))?;
    done.kept.push(mine.clone());
    let mut conflict = replica.open_conflict(&mine, overlap(&mine), ROWS, by("me"))?;
    done.conflict = Some(conflict.clone());
    let later = kept(sides, 4, &later_of(sides), (&sides.mine, &mine.content))?;
    done.kept.push(later.clone());
    if conflict.is_open() && conflict.overlap.candidate != later.id {
        let rows = b"other rows\n";
        conflict = replica.replace_in_conflict(&conflict, &later, overlap(&later), rows, by("me"))?.unwrap();
        done.conflict = Some(conflict.clone());
    }
    let latest = replica.latest()?.unwrap();
    if conflict.is_open() && replica.ended_by(&conflict)?.is_none() {
        let version =
            sides.merge(&later, (&latest, (&sides.theirs, &latest)), &settled_of(sides), Some(&conflict));
        done.versions.push(version?.unwrap());
    }
    if let (true, Some(version)) = (conflict.is_open(), replica.ended_by(&conflict)?) {
        replica.end_conflict(&conflict, &version, "{}".into(), by("you"))?.unwrap();
    }
    done.ended = true;
    let other = kept(sides, 5, &other_of(sides), (&sides.base, &first))?;
    done.kept.push(other.clone());
    let latest = replica.latest()?.unwrap();
    let merged = sides.merge(&other, (&latest, (&settled_of(sides), &latest)), &all_of(sides), None)?;
    done.versions.push(merged.unwrap());
    pushed(replica, &ClientKey::any_file("client"), &other)?;
    replica.put_parents(&first, b"parents").map(drop)
}

fn later_of(sides: &Sides) -> Database {
    let mut later = sides.mine.clone();
    later.set(9, 9);
    later
}

fn settled_of(sides: &Sides) -> Database {
    let mut settled = sides.both.clone();
    settled.set(9, 9);
    settled
}

fn other_of(sides: &Sides) -> Database {
    let mut other = sides.base.clone();
    other.set(50, 50);
    other
}

fn all_of(sides: &Sides) -> Database {
    let mut all = settled_of(sides);
    all.set(50, 50);
    all
}

/// How many objects of each kind there are.
fn kinds(store: &InMemory) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (path, _) in objects_of(store) {
        *kinds.entry(path.parts().nth(2).unwrap().as_ref().to_owned()).or_default() += 1;
    }
    kinds
}

#[test]
fn a_store_that_stops_at_any_step_of_a_merge_or_a_conflict_loses_nothing_and_keeps_nothing() {
    let clean = Arc::new(InMemory::new());
    let sides = over(clean.clone());
    sides.push_both().unwrap();
    run(&sides, &mut Acknowledged::default()).unwrap();
    sides.repository.sweep(at_once()).unwrap();
    let expected = kinds(&clean);
    let expected_kinds = [
        ("candidate-roots", 3),
        ("candidates", 3),
        ("clients", 1),
        ("conflict-rows", 1),
        ("conflicts", 3),
        ("manifests", 4),
        ("parents", 1),
    ];
    for (kind, count) in expected_kinds {
        assert_eq!(expected[kind], count, "{kind}");
    }
    let mut stopped = 0;
    for step in 1.. {
        for last_is_done in [false, true] {
            let store = Arc::new(InMemory::new());
            over(store.clone()).push_both().unwrap();
            let (watched, counts) = Watched::new(store.clone());
            counts.stop_at.store(step, Ordering::SeqCst);
            counts.last_is_done.store(last_is_done, Ordering::SeqCst);
            let mut done = Acknowledged::default();
            let outcome = run(&over(watched), &mut done);
            stopped += u32::from(outcome.is_err());
            after(&store, &done, &expected);
            if !counts.stopped.load(Ordering::SeqCst) {
                outcome.unwrap();
                assert!(stopped > 25, "{stopped} steps");
                return;
            }
        }
    }
}

/// Shows that what was acknowledged is there, that all can be repeated, and that nothing stays behind.
fn after(store: &Arc<InMemory>, done: &Acknowledged, expected: &BTreeMap<String, usize>) {
    let sides = over(store.clone());
    for _ in 0..2 {
        acknowledged(&sides, done);
        assert_sound(&sides.repository);
        sides.repository.sweep(at_once()).unwrap();
    }
    let mut again = Acknowledged::default();
    run(&sides, &mut again).unwrap();
    acknowledged(&sides, done);
    acknowledged(&sides, &again);
    assert_eq!(sides.replica.latest().unwrap().unwrap().number, number(4), "each was merged once");
    assert_holds(&sides.replica, 4, &all_of(&sides));
    assert!(again.ended && sides.replica.conflicts(true, None, 9).unwrap().conflicts.is_empty());
    sides.repository.sweep(at_once()).unwrap();
    assert_sound(&sides.repository);
    assert_eq!(&kinds(store), expected);
}

fn acknowledged(sides: &Sides, done: &Acknowledged) {
    let replica = &sides.replica;
    let contents = [sides.mine.clone(), later_of(sides), other_of(sides)];
    for (candidate, content) in done.kept.iter().zip(&contents) {
        assert_eq!(replica.candidate(candidate.id).unwrap().as_ref(), Some(candidate));
        assert_content(replica, &candidate.content, content);
        assert_eq!(replica.candidate_by_root(content.root()).unwrap().unwrap().id, candidate.id);
    }
    if let Some(conflict) = &done.conflict {
        let found = replica.conflict(conflict_number(1)).unwrap().unwrap();
        assert_eq!(found.opened, conflict.opened);
        assert!(found.last.number >= conflict.last.number);
        assert!(replica.conflict_rows(&found.overlap).unwrap().is_some());
        assert_ne!(replica.standing(&done.kept[0]).unwrap(), Standing::Kept);
    }
    for version in &done.versions {
        assert_eq!(replica.manifest(version.number).unwrap().as_ref(), Some(version));
    }
    if done.ended {
        let settled = Standing::Settled(conflict_number(1), number(3));
        for candidate in &done.kept[..2] {
            assert_eq!(replica.standing(candidate).unwrap(), settled);
        }
    }
}
