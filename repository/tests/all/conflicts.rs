//! Conflicts: opened once, added to, and over once, whoever was first and wherever a process was stopped.

use sqlrsync_protocol::page::ConflictNumber;
use sqlrsync_repository::{
    Candidate, Conflict, Described, Error, Manifest, MergeBase, MergePages, Permission, Standing, StepKind,
};

use crate::kept::{assert_content, receive};
use crate::sides::{ROWS, Sides, by, conflict_number, overlap};
use crate::support::*;
use crate::versions::at_once;

/// Both sides, mine kept, and the conflict that it waits in.
fn in_conflict() -> (Sides, Candidate, Conflict) {
    let sides = Sides::in_memory();
    let first = sides.mine();
    let conflict = sides.replica.open_conflict(&first, overlap(&first), ROWS, by("me")).unwrap();
    (sides, first, conflict)
}

#[test]
fn a_conflict_is_opened_once_and_read_back_with_its_rows() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    let open = || sides.replica.open_conflict(&candidate, overlap(&candidate), ROWS, by("me")).unwrap();
    let conflict = open();
    assert_eq!((conflict.number, conflict.is_open()), (conflict_number(1), true));
    assert_eq!(open(), conflict, "opened again, it is the same");
    assert_eq!(sides.replica.conflict(conflict_number(1)).unwrap(), Some(conflict.clone()));
    assert_eq!(sides.replica.conflict(conflict_number(2)).unwrap(), None);
    assert_eq!(conflict.opened.by, by("me"));
    assert_eq!((conflict.overlap.tables[0].rows, conflict.overlap.reasons.len()), (2, 1));
    sides.repository.sweep(at_once()).unwrap();
    assert_eq!(sides.replica.conflict_rows(&conflict.overlap).unwrap().unwrap(), ROWS);
    assert_eq!(sides.replica.standing(&candidate).unwrap(), Standing::InConflict(conflict_number(1)));
    let push = Push::of(&sides.mine).on(&sides.base, 1).id(3);
    let again = receive(&push, &sides.replica).unwrap().already().unwrap().unwrap();
    assert_eq!((again.version, again.conflict), (None, Some(conflict_number(1))));
    // Another process that would merge it finds that it may not.
    assert!(matches!(sides.merge_mine(&candidate), Err(Error::InConflict(_))));
    // Another candidate's conflict is the next one.
    let mut other = sides.mine.clone();
    other.set(8, 8);
    let other = sides.keep(4, &other, (&sides.base, &sides.version(1)));
    let second = sides.replica.open_conflict(&other, overlap(&other), b"", by("you")).unwrap();
    assert_eq!(second.number, conflict_number(2));
    assert_eq!(sides.replica.conflict_rows(&second.overlap).unwrap(), None);
    assert_sound(&sides.repository);
}

#[test]
fn what_was_merged_is_not_put_into_a_conflict() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    sides.merge_mine(&candidate).unwrap().unwrap();
    let opened = sides.replica.open_conflict(&candidate, overlap(&candidate), ROWS, by("me"));
    assert!(matches!(opened, Err(Error::MergedMeanwhile(version)) if version == number(3)));
    assert_eq!(sides.replica.conflict(conflict_number(1)).unwrap(), None);
}

#[test]
fn racing_processes_open_one_conflict_for_one_candidate_and_one_for_each() {
    let sides = Sides::in_memory();
    let candidates: Vec<Candidate> = (0..4u8)
        .map(|n| {
            let mut mine = sides.mine.clone();
            mine.set(100 + u32::from(n), 1);
            sides.keep(10 + n, &mine, (&sides.base, &sides.version(1)))
        })
        .collect();
    let numbers: Vec<(usize, ConflictNumber)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|n| {
                let (replica, candidate) = (&sides.replica, &candidates[n % 4]);
                scope.spawn(move || {
                    let opened = replica.open_conflict(candidate, overlap(candidate), ROWS, by("x"));
                    (n % 4, opened.unwrap().number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (of, conflict) in &numbers {
        let first = numbers.iter().find(|(other, _)| other == of).unwrap().1;
        assert_eq!(*conflict, first);
    }
    let page = sides.replica.conflicts(true, None, 10).unwrap();
    assert_eq!((page.conflicts.len(), page.before), (4, None));
}

#[test]
fn a_settlement_is_a_version_that_ends_the_conflict_once() {
    let sides = Sides::in_memory();
    let candidate = sides.mine();
    let conflict = sides.replica.open_conflict(&candidate, overlap(&candidate), ROWS, by("me")).unwrap();
    let latest = sides.version(2);
    let settle = |after: &Manifest| {
        sides.merge(&candidate, (after, (&sides.theirs, after)), &sides.both, Some(&conflict))
    };
    let version = settle(&latest).unwrap().unwrap();
    // The process is stopped before the last step is written: the version itself says that it is over.
    assert_eq!(sides.replica.standing(&candidate).unwrap(), Standing::Settled(conflict.number, number(3)));
    let again = sides.merge(&candidate, (&version, (&sides.both, &version)), &sides.both, Some(&conflict));
    assert!(matches!(again, Err(Error::ConflictIsOver { .. })), "{again:?}");
    // Sweeping writes it.
    assert!(sides.replica.conflict(conflict.number).unwrap().unwrap().is_open());
    sides.repository.sweep(at_once()).unwrap();
    let over = sides.replica.conflict(conflict.number).unwrap().unwrap();
    assert_eq!(over.version(), Some(number(3)));
    assert!(matches!(over.last.kind, StepKind::Settled { .. }));
    let end = sides.replica.end_conflict(&conflict, &version, "{}".into(), by("you")).unwrap();
    assert_eq!(end, None, "somebody was first");
    let end = sides.replica.end_conflict(&over, &version, "{}".into(), by("you"));
    assert!(matches!(end, Err(Error::ConflictIsOver { .. })));
    assert!(sides.replica.conflicts(true, None, 10).unwrap().conflicts.is_empty());
    assert_eq!(sides.replica.conflicts(false, None, 10).unwrap().conflicts, [over]);
    let push = Push::of(&sides.mine).on(&sides.base, 1).id(3);
    let again = receive(&push, &sides.replica).unwrap().already().unwrap().unwrap();
    assert_eq!((again.version, again.merged, again.conflict), (Some(number(3)), true, None));
    assert_sound(&sides.repository);
}

#[test]
fn a_later_push_takes_its_forerunners_place_and_a_clones_push_does_not() {
    let (sides, first, conflict) = in_conflict();
    let mut later = sides.mine.clone();
    later.set(9, 9);
    let mut clones = sides.mine.clone();
    clones.set(10, 10);
    let agreed = (&sides.mine, &first.content);
    let later_on = sides.keep(4, &later, agreed);
    let clone = sides.keep(5, &clones, agreed);
    for candidate in [&later_on, &clone] {
        // What still waits is counted from where it began.
        assert_eq!(candidate.merge_base, first.merge_base);
        assert_eq!(candidate.adds_to.unwrap().conflict, conflict.number);
    }
    let replace = |candidate: &Candidate| {
        let conflict = sides.replica.conflict(conflict.number).unwrap().unwrap();
        let overlap = overlap(candidate);
        sides.replica.replace_in_conflict(&conflict, candidate, overlap, ROWS, by("me")).unwrap()
    };
    let replaced = replace(&later_on).unwrap();
    assert_eq!((replaced.last.number, replaced.overlap.candidate), (2, later_on.id));
    assert_eq!(replaced.opened, conflict.opened);
    // The clone does not have the changes of the one that was first.
    assert_eq!(replace(&clone), None);
    let options = sides.replica.still_to_merge(&clone).unwrap();
    assert_eq!((options.merge_base, options.adds_to), (first.merge_base, None));
    let second = sides.replica.open_conflict(&clone, overlap(&clone), ROWS, by("me")).unwrap();
    assert_eq!(second.number, conflict_number(2));
    for (candidate, n) in [(&first, 1), (&later_on, 1), (&clone, 2)] {
        let standing = sides.replica.standing(candidate).unwrap();
        assert_eq!(standing, Standing::InConflict(conflict_number(n)));
    }
    assert_eq!(sides.replica.conflict_steps(conflict.number, 1, 9).unwrap().len(), 2);
    sides.repository.sweep(at_once()).unwrap();
    assert_content(&sides.replica, &later_on.content, &later);
    assert_content(&sides.replica, &clone.content, &clones);
    assert_sound(&sides.repository);
}

#[test]
fn what_comes_into_a_conflict_while_it_is_settled_keeps_it_open() {
    let (sides, first, conflict) = in_conflict();
    let mut later = sides.mine.clone();
    later.set(9, 9);
    let later_on = sides.keep(4, &later, (&sides.mine, &first.content));
    let replaced =
        sides.replica.replace_in_conflict(&conflict, &later_on, overlap(&later_on), ROWS, by("me"));
    let replaced = replaced.unwrap().unwrap();
    // Who settles has read the conflict before that.
    let latest = sides.version(2);
    let settled =
        sides.merge(&first, (&latest, (&sides.theirs, &latest)), &sides.both, Some(&conflict)).unwrap();
    let settled = settled.unwrap();
    assert_eq!(sides.replica.end_conflict(&conflict, &settled, String::new(), by("you")).unwrap(), None);
    sides.repository.sweep(at_once()).unwrap();
    assert_eq!(sides.replica.conflict(conflict.number).unwrap(), Some(replaced), "it is not over");
    assert_eq!(sides.replica.standing(&later_on).unwrap(), Standing::InConflict(conflict.number));
    assert_eq!(sides.replica.standing(&first).unwrap(), Standing::Settled(conflict.number, number(3)));
}

#[test]
fn a_conflict_that_goes_away_by_itself_ends_with_the_merge() {
    let (sides, first, conflict) = in_conflict();
    let mut later = sides.mine.clone();
    later.set(9, 9);
    let later_on = sides.keep(4, &later, (&sides.mine, &first.content));
    let latest = sides.version(2);
    let mut result = sides.both.clone();
    result.set(9, 9);
    let merge = MergePages {
        after: &latest,
        candidate: &later_on,
        on: &later_on.content,
        geometry: result.geometry(),
        fields: result.fields(),
        ends: Some(&conflict),
        settled: false,
        described: Described::of(&later_on),
        permission: Permission::default(),
    };
    let pages = result.changed_since(&later);
    let mut pages = pages.into_iter().map(|n| Ok((page(n), result.canonical(n).to_vec())));
    let version = sides.replica.commit_merge(&merge, &mut pages).unwrap().unwrap();
    let over = sides.replica.end_conflict(&conflict, &version, String::new(), by("me")).unwrap().unwrap();
    assert_eq!(over.last.kind, StepKind::Merged { version: number(3) });
    for candidate in [&first, &later_on] {
        let standing = sides.replica.standing(candidate).unwrap();
        assert_eq!(standing, Standing::Settled(conflict.number, number(3)));
        let options = sides.replica.keep_options(Some(&candidate.content)).unwrap();
        assert_eq!(options.merge_base, Some(MergeBase::of(&candidate.content)));
    }
    sides.repository.sweep(at_once()).unwrap();
    assert_holds(&sides.replica, 3, &result);
    assert_sound(&sides.repository);
}

#[test]
fn listings_have_pages_and_texts_have_maxima() {
    let sides = Sides::in_memory();
    for n in 0..5u8 {
        let mut mine = sides.mine.clone();
        mine.set(20, u64::from(n));
        let candidate = sides.keep(10 + n, &mine, (&sides.base, &sides.version(1)));
        sides.replica.open_conflict(&candidate, overlap(&candidate), b"", by("x")).unwrap();
    }
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = sides.replica.conflicts(true, before, 2).unwrap();
        assert!(page.conflicts.len() <= 2);
        seen.extend(page.conflicts.iter().map(|conflict| conflict.number.get()));
        assert!(seen.len() <= 5, "a page comes again: {seen:?}");
        before = page.before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    let candidate = sides.mine();
    let open = |overlap, rows: &[u8], by| sides.replica.open_conflict(&candidate, overlap, rows, by);
    let mut long = overlap(&candidate);
    long.reasons = vec!["x".repeat(2000)];
    assert!(matches!(open(long, b"", by("x")), Err(Error::TextTooLong { .. })));
    let mut many = overlap(&candidate);
    many.reasons = vec![String::new(); 5000];
    assert!(open(many, b"", by("x")).is_err());
    assert!(
        open(overlap(&candidate), &vec![0; sqlrsync_repository::CONFLICT_ROWS_BYTES_MAX + 1], by("x"))
            .is_err()
    );
    assert!(matches!(open(overlap(&candidate), b"", by(&"x".repeat(5000))), Err(Error::TextTooLong { .. })));
    assert_eq!(sides.replica.standing(&candidate).unwrap(), Standing::Kept);
}
