//! Merges and conflicts: what becomes of a candidate, told the same by everybody, whoever was first and
//! wherever a process was stopped.

use sqlrsync_protocol::exchange::{Base, OriginPages, PushId, Since};
use sqlrsync_protocol::page::{ConflictNumber, PageNumber, PageSize};
use sqlrsync_repository::{
    Candidate, ClientKey, ClientRecord, Conflict, Described, Error, Manifest, MergeBase, MergePages, Overlap,
    Permission, Replica, Repository, Standing, StepKind, TableRows,
};

use crate::kept::{assert_content, receive};
use crate::support::*;
use crate::versions::alone;

/// Two versions, and pushes that are made from the first.
pub struct Sides {
    pub repository: Repository,
    pub replica: Replica,
    pub base: Database,
    pub theirs: Database,
    pub mine: Database,
    /// The changes of both.
    pub both: Database,
}

impl Sides {
    pub fn new(repository: Repository) -> Sides {
        Sides::sized(repository, 300)
    }

    pub fn sized(repository: Repository, pages: u32) -> Sides {
        let base = Database::new(PageSize::MIN, pages, 1);
        let (mut theirs, mut mine, mut both) = (base.clone(), base.clone(), base.clone());
        theirs.set(7, 100);
        both.set(7, 100);
        for database in [&mut mine, &mut both] {
            database.set(pages * 2 / 3, 200);
            database.pages.push(content(PageSize::MIN, 301));
        }
        let replica = repository.replica(&id());
        Sides { repository, replica, base, theirs, mine, both }
    }

    pub fn in_memory() -> Sides {
        let sides = Sides::new(memory());
        sides.push_both().unwrap();
        sides
    }

    pub fn push_both(&self) -> Result<(), Error> {
        Push::of(&self.base).run(&self.replica)?;
        Push::of(&self.theirs).on(&self.base, 1).run(&self.replica).map(drop)
    }

    pub fn version(&self, n: u64) -> Manifest {
        self.replica.manifest(number(n)).unwrap().unwrap()
    }

    /// Keeps what was pushed, made from a version or a candidate.
    pub fn keep(&self, id: u8, database: &Database, agreed: (&Database, &Manifest)) -> Candidate {
        self.try_keep(id, database, agreed).unwrap()
    }

    pub fn try_keep(
        &self,
        id: u8,
        database: &Database,
        (base, agreed): (&Database, &Manifest),
    ) -> Result<Candidate, Error> {
        let push = Push { base: Some((base, agreed.as_base().version)), ..Push::of(database) }.id(id);
        let mut received = receive(&push, &self.replica)?;
        let options = self.replica.keep_options(received.agreed())?;
        received.keep(options)
    }

    pub fn mine(&self) -> Candidate {
        self.keep(3, &self.mine, (&self.base, &self.version(1)))
    }

    /// Commits `result` as the merge of a candidate on top of a version, written over `on`.
    pub fn merge(
        &self,
        candidate: &Candidate,
        (after, on): (&Manifest, (&Database, &Manifest)),
        result: &Database,
        ends: Option<&Conflict>,
    ) -> Result<Option<Manifest>, Error> {
        let merge = MergePages {
            after,
            candidate,
            on: on.1,
            geometry: result.geometry(),
            fields: result.fields(),
            ends,
            settled: ends.is_some(),
            described: Described::of(candidate),
            permission: Permission::default(),
        };
        let pages = result.changed_since(on.0);
        let mut pages = pages.into_iter().map(|n| Ok((page(n), result.canonical(n).to_vec())));
        self.replica.commit_merge(&merge, &mut pages)
    }

    pub fn merge_mine(&self, candidate: &Candidate) -> Result<Option<Manifest>, Error> {
        let latest = self.replica.latest()?.unwrap();
        self.merge(candidate, (&latest, (&self.theirs, &latest)), &self.both, None)
    }
}

pub fn conflict_number(n: u64) -> ConflictNumber {
    ConflictNumber::new(n).unwrap()
}

pub fn by(who: &str) -> Described {
    Described { author: who.into(), host: "host".into(), ..Described::default() }
}

pub fn overlap(candidate: &Candidate) -> Overlap {
    let mut overlap = Overlap::new(candidate.id, candidate.merge_base, number(2));
    overlap.tables.push(TableRows { table: "orders".into(), rows: 2 });
    overlap.reasons.push("rows of \"orders\" were changed by both".into());
    overlap
}

/// Notes what a client pushed.
pub fn pushed(replica: &Replica, key: &ClientKey, candidate: &Candidate) -> Result<(), Error> {
    let pushed = Some(MergeBase::of(&candidate.content));
    let time = jiff::Timestamp::now();
    replica.put_client_record(key, &ClientRecord { time, pushed, pulled: Vec::new() })
}

const ROWS: &[u8] = b"{\"table\":\"orders\",\"key\":{\"id\":1}}\n{\"table\":\"orders\",\"key\":{\"id\":2}}\n";

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
        sides.repository.sweep(alone()).unwrap();
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
    sides.repository.sweep(alone()).unwrap();
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
    sides.repository.sweep(alone()).unwrap();
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
    sides.repository.sweep(alone()).unwrap();
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
    let sides = Sides::in_memory();
    let first = sides.mine();
    let conflict = sides.replica.open_conflict(&first, overlap(&first), ROWS, by("me")).unwrap();
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
    sides.repository.sweep(alone()).unwrap();
    assert_content(&sides.replica, &later_on.content, &later);
    assert_content(&sides.replica, &clone.content, &clones);
    assert_sound(&sides.repository);
}

#[test]
fn what_comes_into_a_conflict_while_it_is_settled_keeps_it_open() {
    let sides = Sides::in_memory();
    let first = sides.mine();
    let conflict = sides.replica.open_conflict(&first, overlap(&first), ROWS, by("me")).unwrap();
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
    sides.repository.sweep(alone()).unwrap();
    assert_eq!(sides.replica.conflict(conflict.number).unwrap(), Some(replaced), "it is not over");
    assert_eq!(sides.replica.standing(&later_on).unwrap(), Standing::InConflict(conflict.number));
    assert_eq!(sides.replica.standing(&first).unwrap(), Standing::Settled(conflict.number, number(3)));
}

#[test]
fn a_conflict_that_goes_away_by_itself_ends_with_the_merge() {
    let sides = Sides::in_memory();
    let first = sides.mine();
    let conflict = sides.replica.open_conflict(&first, overlap(&first), ROWS, by("me")).unwrap();
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
    sides.repository.sweep(alone()).unwrap();
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
    assert_eq!(sides.repository.sweep(alone()).unwrap().objects_removed, 0);
    assert_eq!(sides.replica.latest().unwrap().unwrap().number, number(2));
}
