//! What merging leaves goes in time, and not before: not while anything is made from it, or may be.

use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_repository::{
    Candidate, ClientKey, Error, KeepOptions, Manifest, Replica, Standing, SweepOptions, SweepReport,
};

use crate::kept::{assert_content, receive};
use crate::sides::{Sides, by, overlap, pushed};
use crate::support::*;

const ROWS: &[u8] = b"rows\n";

/// Sweeps so many days and hours from now, as one of several processes.
fn sweep(sides: &Sides, days: i64, hours: i64) -> SweepReport {
    let now = Timestamp::now() + SignedDuration::from_hours(24 * days + hours);
    sides.repository.sweep_at(SweepOptions::default(), now).unwrap()
}

fn is_there(replica: &Replica, candidate: &Candidate) -> bool {
    replica.candidate(candidate.id).unwrap().is_some()
}

/// Two pushes of one client, each merged: the second is made from the first.
fn two_merged(sides: &Sides) -> (Candidate, Candidate, Database) {
    let first = sides.mine();
    sides.merge_mine(&first).unwrap().unwrap();
    let mut later = sides.mine.clone();
    later.set(9, 9);
    let second = sides.keep(4, &later, (&sides.mine, &first.content));
    let mut result = sides.both.clone();
    result.set(9, 9);
    let latest = sides.version(3);
    sides.merge(&second, (&latest, (&sides.both, &latest)), &result, None).unwrap().unwrap();
    (first, second, later)
}

#[test]
fn a_merged_candidate_goes_when_its_client_has_pushed_again_a_month_ago() {
    let sides = Sides::in_memory();
    let (first, second, later) = two_merged(&sides);
    // The second is counted from the first; neither is named by anything else.
    sweep(&sides, 29, 0);
    assert!(is_there(&sides.replica, &first));
    let found = || sides.replica.candidate_by_root(first.content.root).unwrap();
    assert!(found().is_some());
    sweep(&sides, 31, 0);
    assert!(is_there(&sides.replica, &first) && found().is_none(), "it is marked");
    sweep(&sides, 31, 20);
    assert!(is_there(&sides.replica, &first));
    let removed = sweep(&sides, 32, 4);
    assert_eq!(removed.objects_removed, 2, "it and what says which root it has");
    assert!(!is_there(&sides.replica, &first) && is_there(&sides.replica, &second));
    // Its segments: the second lists those too.
    assert_eq!(sweep(&sides, 40, 0).objects_removed, 0);
    assert_content(&sides.replica, &second.content, &later);
    assert_sound(&sides.repository);
    // A client's last one waits for it for more than a year.
    sweep(&sides, 399, 0);
    assert!(sides.replica.candidate_by_root(later.root()).unwrap().is_some());
    for days in [402, 404, 410] {
        sweep(&sides, days, 0);
    }
    assert!(!is_there(&sides.replica, &second));
    assert_sound(&sides.repository);
    assert_holds(&sides.replica, 3, &sides.both);
}

#[test]
fn a_push_made_from_a_candidate_that_is_being_removed_is_refused_and_can_be_made_otherwise() {
    let sides = Sides::in_memory();
    let (first, ..) = two_merged(&sides);
    let mut next = sides.mine.clone();
    next.set(20, 20);
    let push = || Push { base: Some((&sides.mine, None)), ..Push::of(&next) }.id(8);
    let mut received = receive(&push(), &sides.replica).unwrap();
    sweep(&sides, 31, 0);
    assert!(matches!(received.keep(KeepOptions::default()), Err(Error::BaseRemoved)));
    let latest = sides.replica.latest().unwrap();
    assert!(matches!(received.commit_after(latest.as_ref()), Err(Error::BaseRemoved)));
    drop(received);
    sweep(&sides, 33, 0);
    assert!(!is_there(&sides.replica, &first));
    Push::of(&next).id(8).run(&sides.replica).unwrap();
    assert_holds(&sides.replica, 5, &next);
    assert_sound(&sides.repository);
}

#[test]
fn what_a_client_record_or_an_open_conflict_names_stays_and_is_found_again() {
    let sides = Sides::in_memory();
    let (first, second, _) = two_merged(&sides);
    let mut other = sides.mine.clone();
    other.set(11, 11);
    let waiting = sides.keep(6, &other, (&sides.mine, &first.content));
    let by_root = || sides.replica.candidate_by_root(first.content.root).unwrap().is_some();
    sides.replica.open_conflict(&waiting, overlap(&waiting), ROWS, by("me")).unwrap();
    // The one in the conflict is counted from the first.
    sweep(&sides, 100, 0);
    sweep(&sides, 103, 0);
    for candidate in [&first, &waiting] {
        assert!(is_there(&sides.replica, candidate));
    }
    assert!(by_root() && !is_there(&sides.replica, &second));
    let conflict = sides.replica.conflicts(true, None, 9).unwrap().conflicts.remove(0);
    assert_eq!(sides.replica.conflict_rows(&conflict.overlap).unwrap().unwrap(), ROWS);
    // A mark is taken back where somebody comes to name it.
    let sides = Sides::in_memory();
    let (first, ..) = two_merged(&sides);
    sweep(&sides, 31, 0);
    assert!(sides.replica.candidate_by_root(first.content.root).unwrap().is_none());
    pushed(&sides.replica, &ClientKey::any_file("old"), &first).unwrap();
    sweep(&sides, 33, 0);
    assert!(sides.replica.candidate_by_root(first.content.root).unwrap().is_some());
    assert_sound(&sides.repository);
}

#[test]
fn of_a_client_that_pushes_all_the_time_the_last_ones_stay() {
    let sides = Sides::in_memory();
    let mut at: (Database, Manifest) = (sides.mine.clone(), sides.mine().content);
    let mut both = sides.theirs.clone();
    let mut kept = Vec::new();
    for n in 0..80u64 {
        let mut next = at.0.clone();
        next.set(50, n + 1);
        let push = Push { base: Some((&at.0, None)), ..Push::of(&next) };
        let push = Push { push_id: Some(PushId(u128::from(n + 99).to_be_bytes())), ..push };
        let mut received = receive(&push, &sides.replica).unwrap();
        let options = sides.replica.keep_options(received.agreed()).unwrap();
        let candidate = received.keep(options).unwrap();
        let latest = sides.replica.latest().unwrap().unwrap();
        let before = both.clone();
        both.set(50, n + 1);
        sides.merge(&candidate, (&latest, (&before, &latest)), &both, None).unwrap().unwrap();
        at = (next, candidate.content.clone());
        // Named by its client's record, it does not keep all that came before it.
        pushed(&sides.replica, &ClientKey::any_file("me"), &candidate).unwrap();
        kept.push(candidate);
    }
    assert_eq!(sweep(&sides, 0, 0).objects_removed, 0);
    // The very first push was never merged, and what still may be is not too many.
    sweep(&sides, 0, 2);
    sweep(&sides, 1, 10);
    let left: Vec<bool> = kept.iter().map(|candidate| is_there(&sides.replica, candidate)).collect();
    assert_eq!(left.iter().filter(|there| **there).count(), 64);
    assert!(left[16..].iter().all(|there| *there), "the oldest go");
    sweep(&sides, 9, 0);
    assert_sound(&sides.repository);
    assert_content(&sides.replica, &kept[79].content, &at.0);
}

#[test]
fn a_month_after_a_conflict_its_rows_and_its_candidate_go_and_its_steps_stay() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    let conflict = sides.replica.open_conflict(&candidate, overlap(&candidate), ROWS, by("me")).unwrap();
    let latest = sides.version(2);
    let version = sides.merge(&candidate, (&latest, (&sides.theirs, &latest)), &sides.both, Some(&conflict));
    let version = version.unwrap().unwrap();
    sides.replica.end_conflict(&conflict, &version, "{}".into(), by("you")).unwrap().unwrap();
    // The client has pushed again since.
    let mut next = sides.both.clone();
    next.set(1, 1);
    sides.keep(7, &next, (&sides.both, &version));
    let rows = || sides.replica.conflict_rows(&conflict.overlap).unwrap();
    sweep(&sides, 29, 0);
    assert!(rows().is_some() && is_there(&sides.replica, &candidate));
    sweep(&sides, 31, 0);
    sweep(&sides, 33, 0);
    assert!(rows().is_none() && !is_there(&sides.replica, &candidate));
    sweep(&sides, 40, 0);
    let over = sides.replica.conflict(conflict.number).unwrap().unwrap();
    assert_eq!((over.version(), over.overlap.tables.len()), (Some(number(3)), 1));
    assert_sound(&sides.repository);
    assert_holds(&sides.replica, 3, &sides.both);
}

#[test]
fn a_push_that_was_never_merged_waits_for_a_month() {
    let sides = Sides::in_memory();
    let orphan = sides.mine();
    let mut other = sides.mine.clone();
    other.set(8, 8);
    sides.keep(9, &other, (&sides.base, &sides.version(1)));
    sweep(&sides, 29, 0);
    assert_eq!(sides.replica.standing(&orphan).unwrap(), Standing::Kept);
    assert!(sides.replica.candidate_by_root(orphan.content.root).unwrap().is_some());
    sweep(&sides, 31, 0);
    sweep(&sides, 33, 0);
    assert!(!is_there(&sides.replica, &orphan));
    let segments = sweep(&sides, 34, 0).objects_removed;
    assert!(segments > 0, "what it alone referred to");
    assert_sound(&sides.repository);
}

#[test]
fn what_stands_beside_goes_with_its_version_and_what_nobody_writes_again_in_time() {
    let sides = Sides::in_memory();
    let (first, second) = (sides.version(1), sides.version(2));
    sides.replica.put_parents(&first, b"1").unwrap();
    let mut gone = second.clone();
    gone.number = number(9);
    sides.replica.put_parents(&gone, b"9").unwrap();
    pushed(&sides.replica, &ClientKey::any_file("x"), &sides.mine()).unwrap();
    assert_eq!(sweep(&sides, 0, 1).objects_removed, 0);
    assert_eq!(sweep(&sides, 9, 0).objects_removed, 1);
    assert_eq!(sides.replica.with_parents().unwrap(), [number(1)]);
    let client = || sides.replica.client_record(&ClientKey::any_file("x")).unwrap();
    assert!(client().is_some());
    assert_eq!(sweep(&sides, 401, 0).objects_removed, 1);
    assert!(client().is_none());
    assert_sound(&sides.repository);
}
