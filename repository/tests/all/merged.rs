//! Merges: what becomes of a candidate that overlaps with nothing, told the same by everybody, whoever was first and
//! wherever a process was stopped.

use sqlrsync_protocol::exchange::{Base, OriginPages, PushId, Since};
use sqlrsync_protocol::page::{PageNumber, PageSize};
use sqlrsync_repository::{Described, Error, MergeBase, MergePages, Permission, Replica, Standing};

use crate::kept::{assert_content, receive};
use crate::sides::{ROWS, Sides, by, overlap};
use crate::support::*;
use crate::versions::at_once;

#[test]
fn a_merge_is_a_version_with_both_parents_and_says_of_which_candidate() {
    for on_candidate in [false, true] {
        let sides = Sides::in_memory();
        let candidate = sides.mine();
        let latest = sides.version(2);
        let on = if on_candidate { (&sides.mine, &candidate.content) } else { (&sides.theirs, &latest) };
        let merged = sides.merge(&candidate, (&latest, on), &sides.both, None).unwrap().unwrap();
        assert_eq!((merged.number, merged.root), (number(3), sides.both.root()));
        assert_eq!(merged.parents, [latest.root, candidate.content.root]);
        assert_eq!(merged.merge.map(|merge| (merge.candidate, merge.ends)), Some((candidate.id, None)));
        assert_eq!(merged.push_id, Some(PushId([3; 16])));
        assert_eq!(sides.replica.standing(&candidate).unwrap(), Standing::Merged(number(3)));
        sides.repository.sweep(at_once()).unwrap();
        assert_holds(&sides.replica, 3, &sides.both);
        assert_content(&sides.replica, &merged, &sides.both);
        assert_sound(&sides.repository);
    }
}

#[test]
fn a_push_that_was_merged_gets_the_same_answer_when_it_comes_again() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    sides.merge_mine(&candidate).unwrap().unwrap();
    let push = Push::of(&sides.mine).on(&sides.base, 1).id(3);
    let again = receive(&push, &sides.replica).unwrap().already().unwrap().unwrap();
    assert_eq!((again.version, again.merged, again.conflict), (Some(number(3)), true, None));
    // Also through `finish`, and long after.
    let mut at = sides.both.clone();
    for n in 4..30 {
        let before = at.clone();
        at.set(9, n);
        Push::of(&at).on(&before, n - 1).run(&sides.replica).unwrap();
    }
    let again = push.run(&sides.replica).unwrap();
    assert_eq!((again.version, again.merged), (Some(number(3)), true));
}

#[test]
fn a_merge_that_was_resumed_late_is_found_however_many_versions_follow() {
    let sides = Sides::sized(memory(), 30);
    sides.push_both().unwrap();
    let candidate = sides.mine();
    let mut at = sides.theirs.clone();
    let others = |count: u64, at: &mut Database| {
        for _ in 0..count {
            let (before, n) = (at.clone(), sides.replica.latest().unwrap().unwrap().number.get());
            at.set(11, n);
            Push::of(at).on(&before, n).run(&sides.replica).unwrap();
        }
    };
    others(300, &mut at);
    assert_eq!(sides.replica.standing(&candidate).unwrap(), Standing::Kept);
    let latest = sides.replica.latest().unwrap().unwrap();
    let mut both = at.clone();
    both.set(20, 200);
    sides.merge(&candidate, (&latest, (&at, &latest)), &both, None).unwrap().unwrap();
    others(300, &mut both);
    let merged = Standing::Merged(number(303));
    assert_eq!(sides.replica.standing(&candidate).unwrap(), merged);
    // Neither being kept again nor being marked takes that away.
    let push = Push::of(&sides.mine).on(&sides.base, 1).id(3);
    receive(&push, &sides.replica).unwrap().keep(Default::default()).unwrap();
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 401);
    sides.repository.sweep_at(Default::default(), later).unwrap();
    assert_eq!(sides.replica.standing(&candidate).unwrap(), merged);
}

#[test]
fn of_two_that_merge_at_once_one_is_first_and_the_other_finds_what_it_did() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    let latest = sides.version(2);
    // Somebody else's version is first.
    let mut other = sides.theirs.clone();
    other.set(50, 50);
    Push::of(&other).on(&sides.theirs, 2).run(&sides.replica).unwrap();
    let late = sides.merge(&candidate, (&latest, (&sides.theirs, &latest)), &sides.both, None);
    assert_eq!(late.unwrap(), None);
    // With that one it goes well, and the other process that does the same finds it done.
    let mut all = sides.both.clone();
    all.set(50, 50);
    let latest = sides.version(3);
    let merge = || sides.merge(&candidate, (&latest, (&other, &latest)), &all, None).unwrap().unwrap();
    let merged = merge();
    assert_eq!(merge(), merged);
    assert_eq!(sides.replica.latest().unwrap(), Some(merged));
    sides.repository.sweep(at_once()).unwrap();
    assert_holds(&sides.replica, 4, &all);
    assert_sound(&sides.repository);
}

#[test]
fn what_comes_after_a_merge_is_counted_from_what_was_sent() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    let agreed = |replica: &Replica| replica.keep_options(Some(&candidate.content)).unwrap();
    // Not yet merged: its changes are still to be made.
    assert_eq!(agreed(&sides.replica).merge_base, candidate.merge_base);
    sides.merge_mine(&candidate).unwrap().unwrap();
    assert_eq!(agreed(&sides.replica).merge_base, Some(MergeBase::of(&candidate.content)));
    assert_eq!(agreed(&sides.replica).adds_to, None);
    let latest = sides.version(3);
    let from_version = sides.replica.keep_options(Some(&latest)).unwrap();
    assert_eq!(from_version.merge_base.unwrap().version, Some(number(3)));
    assert!(sides.replica.keep_options(None).unwrap().merge_base.is_none());
}

#[test]
fn a_pull_by_who_sent_a_candidate_brings_what_differs_from_it_once_it_counts() {
    let sent = |sides: &Sides| Base { version: None, root: sides.mine.root() };
    let knows = |sides: &Sides, base: &Base| {
        let latest = sides.replica.latest().unwrap().unwrap();
        sides.replica.origin(&latest).unwrap().knows(base).unwrap()
    };
    for merged in [true, false] {
        let sides = Sides::in_memory();
        let (candidate, sent) = (sides.mine(), sent(&sides));
        // Its push was cut off: taken for known, a pull would write over the only place where its changes are.
        assert!(!knows(&sides, &sent), "what is only kept");
        if merged {
            sides.merge_mine(&candidate).unwrap().unwrap();
        } else {
            sides.replica.open_conflict(&candidate, overlap(&candidate), ROWS, by("me")).unwrap();
        }
        assert!(knows(&sides, &sent));
        let latest = sides.replica.latest().unwrap().unwrap();
        let pages = pull_blocks(&sides.replica, &latest, Since::Base(sent)).unwrap();
        let differs: &[u32] = if merged { &[7] } else { &[7, 200] };
        assert_eq!(pages.iter().map(|(n, _)| *n).collect::<Vec<_>>(), differs);
        let unknown = Base { version: None, root: Database::new(PageSize::MIN, 3, 77).root() };
        assert!(!knows(&sides, &unknown));
    }
}

#[test]
fn pages_that_a_merge_may_not_have_are_refused_and_leave_nothing() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    let latest = sides.version(2);
    let merge = |permission: Permission, pages: &[(u32, usize)]| {
        let merge = MergePages {
            after: &latest,
            candidate: &candidate,
            on: &latest,
            geometry: sides.base.geometry(),
            fields: sides.base.fields(),
            ends: None,
            settled: false,
            described: Described::of(&candidate),
            permission,
        };
        let mut pages = pages.iter().map(|(n, bytes)| Ok((PageNumber::new(*n).unwrap(), vec![0xee; *bytes])));
        sides.replica.commit_merge(&merge, &mut pages)
    };
    for pages in [&[(301, 512)][..], &[(3, 512), (3, 512)], &[(2, 511)], &[(1, 512)]] {
        assert!(merge(Permission::default(), pages).is_err(), "{pages:?}");
    }
    assert!(matches!(merge(Permission::new(|| false), &[(2, 512)]), Err(Error::Withdrawn)));
    assert_eq!(sides.repository.sweep(at_once()).unwrap().objects_removed, 0);
    assert_eq!(sides.replica.latest().unwrap().unwrap().number, number(2));
}
