//! Versions come back as they were pushed, and differences between them are right.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use roaring::RoaringBitmap;
use sqlrsync_protocol::exchange::{
    Base, End, Fault, Form, Ground, OriginPages, Refusal, ReplicaPages, Since, Wanted,
};
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{PageCount, PageSize};
use sqlrsync_repository::{About, Error, PeerFault};

use crate::support::*;

#[test]
fn a_version_comes_back_and_so_does_the_next() {
    let repository = memory();
    let replica = repository.replica(&id());
    assert_eq!(replica.latest().unwrap(), None);
    let first = Database::new(PageSize::MIN, 3000, 1);
    let done = Push::of(&first).run(&replica).unwrap();
    assert_eq!((done.version, done.unchanged, done.overtook), (Some(number(1)), false, false));
    let mut second = first.clone();
    second.set(1, 77);
    second.set(2999, 78);
    second.pages.push(content(PageSize::MIN, 79));
    let done = Push::of(&second).on(&first, 1).run(&replica).unwrap();
    assert_eq!((done.version, done.overtook), (Some(number(2)), false));
    assert_holds(&replica, 1, &first);
    assert_holds(&replica, 2, &second);
    let latest = replica.latest().unwrap().unwrap();
    assert_eq!(latest.pages_changed, 3);
    assert_eq!(latest.parents, [first.root()]);
    assert_eq!(latest.base, Some(Base { version: Some(number(1)), root: first.root() }));
    assert_sound(&repository);
}

#[test]
fn an_empty_database_is_a_version_too() {
    let repository = memory();
    let replica = repository.replica(&id());
    let empty = Database::new(PageSize::MAX, 0, 0);
    Push::of(&empty).run(&replica).unwrap();
    assert_holds(&replica, 1, &empty);
    let one = Database::new(PageSize::MAX, 1, 1);
    Push::of(&one).on(&empty, 1).run(&replica).unwrap();
    Push::of(&empty).on(&one, 2).run(&replica).unwrap();
    assert_holds(&replica, 2, &one);
    assert_holds(&replica, 3, &empty);
    assert_sound(&repository);
}

#[test]
fn the_same_content_again_is_no_new_version() {
    let repository = memory();
    let replica = repository.replica(&id());
    let database = Database::new(PageSize::MIN, 10, 1);
    Push::of(&database).run(&replica).unwrap();
    for push in [Push::of(&database), Push::of(&database).on(&database, 1)] {
        let again = push.run(&replica).unwrap();
        assert_eq!((again.version, again.unchanged), (Some(number(1)), true));
    }
    assert_eq!(replica.history(None, 10).unwrap().len(), 1);
    assert_eq!(repository.sweep(at_once()).unwrap().objects_removed, 0);
}

/// All that nothing refers to goes, however young it is.
pub fn at_once() -> sqlrsync_repository::SweepOptions {
    sqlrsync_repository::SweepOptions { grace: jiff::SignedDuration::ZERO }
}

#[test]
fn a_push_repeated_after_a_lost_answer_makes_no_second_version() {
    let replica = memory().replica(&id());
    let first = Database::new(PageSize::MIN, 10, 1);
    let second = Database::new(PageSize::MIN, 11, 2);
    let third = Database::new(PageSize::MIN, 12, 3);
    Push::of(&first).id(1).run(&replica).unwrap();
    Push::of(&second).on(&first, 1).id(2).run(&replica).unwrap();
    Push::of(&third).on(&second, 2).id(3).run(&replica).unwrap();
    // The answer to the second was lost; its pusher still has the first for its base.
    let again = Push::of(&second).on(&first, 1).id(2).run(&replica).unwrap();
    assert_eq!((again.version, again.unchanged), (Some(number(2)), false));
    assert_eq!(replica.latest().unwrap().unwrap().number, number(3));
    // So it is where the pusher knows no base: everything comes again.
    let again = Push::of(&second).id(2).run(&replica).unwrap();
    assert_eq!((again.version, again.unchanged), (Some(number(2)), false));
    // The same id with another content is another push.
    let other = Database::new(PageSize::MIN, 13, 4);
    let done = Push::of(&other).on(&first, 1).id(2).run(&replica).unwrap();
    assert_eq!((done.version, done.overtook), (Some(number(4)), true));
}

#[test]
fn a_base_that_is_not_the_latest_is_said_to_be_overtaken() {
    let replica = memory().replica(&id());
    let first = Database::new(PageSize::MIN, 400, 1);
    let mut ours = first.clone();
    ours.set(7, 70);
    let mut theirs = first.clone();
    theirs.set(300, 71);
    Push::of(&first).run(&replica).unwrap();
    Push::of(&theirs).on(&first, 1).run(&replica).unwrap();
    let done = Push::of(&ours).on(&first, 1).run(&replica).unwrap();
    assert_eq!((done.version, done.overtook), (Some(number(3)), true));
    assert_holds(&replica, 3, &ours);
}

#[test]
fn a_base_is_looked_up_in_this_replica_only() {
    let repository = memory();
    let replica = repository.replica(&id());
    let other = repository.replica(&sqlrsync_repository::ReplicaId::random().unwrap());
    let database = Database::new(PageSize::MIN, 10, 1);
    Push::of(&database).run(&other).unwrap();
    let mut push = replica.push(options()).unwrap();
    assert_eq!(push.begin(database.geometry(), 3).unwrap().base, None);
    for version in [None, Some(number(1))] {
        let base = Base { version, root: database.root() };
        assert!(!push.accept(Ground::Proposed(base), None).unwrap());
    }
    Push::of(&database).run(&replica).unwrap();
    let mut push = replica.push(options()).unwrap();
    push.begin(database.geometry(), 3).unwrap();
    for (version, root, known) in [
        (Some(number(1)), database.root(), true),
        (None, database.root(), true),
        (Some(number(2)), database.root(), false),
        (Some(number(1)), Root([1; 32]), false),
    ] {
        assert_eq!(push.accept(Ground::Proposed(Base { version, root }), None).unwrap(), known);
    }
}

#[test]
fn what_does_not_hash_to_its_root_is_refused_and_leaves_nothing() {
    let repository = memory();
    let replica = repository.replica(&id());
    let database = Database::new(PageSize::MIN, 100, 1);
    let mut push = Push::of(&database).open(&replica).unwrap();
    send(&mut push, &database, &Push::of(&database).numbers()).unwrap();
    let mut proof = database.proof();
    proof.root = Root([3; 32]);
    let error = push.finish(End::Proof(proof)).unwrap_err();
    assert_eq!(error.refusal(), Refusal::Integrity);
    assert_eq!(replica.latest().unwrap(), None);
    drop(push);
    assert_eq!(repository.sweep(at_once()).unwrap().objects_removed, 0);
}

#[test]
fn hostile_pushes_are_refused() {
    let replica = memory().replica(&id());
    let database = Database::new(PageSize::MIN, 100, 1);
    let size = PageSize::MIN;
    let lock = size.lock_page();
    let fault = |push: &mut sqlrsync_repository::PushReplica, numbers: &[u32]| {
        let mut builder = sqlrsync_protocol::block::BlockBuilder::new(size);
        numbers.iter().for_each(|n| builder.push(page(*n), &[7; 512]));
        let block = builder.finish(sqlrsync_protocol::block::Effort::None).unwrap();
        match push.take_block(block) {
            Err(Error::Peer(fault)) => Some(fault),
            Err(Error::TooLarge { .. }) => Some(PeerFault::TooScattered),
            _ => None,
        }
    };
    let mut push = Push::of(&database).open(&replica).unwrap();
    assert_eq!(fault(&mut push, &[2, 3]), None);
    assert_eq!(fault(&mut push, &[3, 4]), Some(PeerFault::Order(page(3))));
    assert_eq!(fault(&mut push, &[4, lock.get()]), Some(PeerFault::LockPage(lock)));
    let mut push = Push::of(&database).open(&replica).unwrap();
    assert_eq!(fault(&mut push, &[1]), Some(PeerFault::NotCanonical));
    // Missing pages, and pages past the end.
    let mut push = Push::of(&database).open(&replica).unwrap();
    send(&mut push, &database, &[1, 2, 4]).unwrap();
    let error = push.finish(End::Proof(database.proof())).unwrap_err();
    assert!(matches!(error, Error::Peer(PeerFault::Missing(n)) if n.get() == 3), "{error}");
    let mut push = Push::of(&database).open(&replica).unwrap();
    send(&mut push, &database, &(1..=100).collect::<Vec<_>>()).unwrap();
    let mut proof = database.proof();
    proof.page_count = PageCount(99);
    let error = push.finish(End::Proof(proof)).unwrap_err();
    assert!(matches!(error, Error::Peer(PeerFault::PastEnd(n)) if n.get() == 100), "{error}");
    // Larger than allowed: as announced, as sent, and as proved.
    let mut small = options();
    small.database_bytes_max = 50 * 512;
    let mut push = replica.push(small.clone()).unwrap();
    assert!(matches!(push.begin(database.geometry(), 3), Err(Error::TooLarge { .. })));
    let announced = Database::new(size, 10, 1);
    let mut push = Push { options: small, ..Push::of(&announced) }.open(&replica).unwrap();
    assert_eq!(fault(&mut push, &[51]), Some(PeerFault::TooScattered));
    let error = push.finish(End::Proof(database.proof())).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert_eq!(replica.latest().unwrap(), None);
}

#[test]
fn racing_pushes_each_become_a_version_of_their_own() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let first = Database::new(PageSize::MIN, 300, 1);
    let open = || sqlrsync_repository::Repository::over(store.clone(), runtime(), None).replica(&id());
    Push::of(&first).run(&open()).unwrap();
    let mut won = Vec::new();
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8u32)
            .map(|n| {
                let replica = open();
                let first = &first;
                scope.spawn(move || {
                    let mut database = first.clone();
                    database.set(n * 30 + 2, 100 + u64::from(n));
                    let done = Push::of(&database).on(first, 1).id(n as u8).run(&replica).unwrap();
                    (done.version.unwrap().get(), database)
                })
            })
            .collect();
        won.extend(racers.into_iter().map(|racer| racer.join().unwrap()));
    });
    let won: BTreeMap<u64, Database> = won.into_iter().collect();
    assert_eq!(won.keys().copied().collect::<Vec<_>>(), (2..=9).collect::<Vec<_>>());
    let replica = open();
    won.iter().for_each(|(version, database)| assert_holds(&replica, *version, database));
}

#[test]
fn racing_pushes_of_one_id_become_one_version() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let database = Database::new(PageSize::MIN, 300, 1);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let repository = sqlrsync_repository::Repository::over(store.clone(), runtime(), None);
            let (replica, database) = (repository.replica(&id()), &database);
            scope.spawn(move || {
                let done = Push::of(database).id(5).run(&replica).unwrap();
                assert_eq!(done.version, Some(number(1)));
            });
        }
    });
}

#[test]
fn the_latest_is_found_among_many_with_one_listing_for_all_times() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let repository = sqlrsync_repository::Repository::over(store.clone(), runtime(), None);
    let replica = repository.replica(&id());
    let mut database = Database::new(PageSize::MIN, 2, 1);
    Push::of(&database).run(&replica).unwrap();
    for n in 2..=150u64 {
        let old = database.clone();
        database.set(2, n);
        Push::of(&database).on(&old, n - 1).run(&replica).unwrap();
    }
    let (watched, counts) = Watched::new(store);
    let repository = sqlrsync_repository::Repository::over(watched, runtime(), None);
    let replica = repository.replica(&id());
    assert_eq!(replica.latest().unwrap().unwrap().number, number(150));
    let reads = counts.reads.load(std::sync::atomic::Ordering::SeqCst);
    assert!(reads <= 4, "{reads} reads");
    let numbers = |before, limit| -> Vec<u64> {
        let found = replica.history(before, limit).unwrap();
        found.iter().map(|manifest| manifest.number.get()).collect()
    };
    assert_eq!(numbers(None, 3), [150, 149, 148]);
    assert_eq!(numbers(Some(number(3)), 10), [2, 1]);
    assert_eq!(numbers(Some(number(1)), 10), [] as [u64; 0]);
    assert_eq!(numbers(Some(number(9000)), 1), [150]);
    assert_eq!(replica.manifest(number(9000)).unwrap(), None);
    assert_eq!(counts.listings.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_replica_says_what_it_is_called() {
    let repository = memory();
    let replica = repository.replica(&id());
    assert_eq!(replica.about().unwrap(), None);
    let about = About {
        namespace: "team".into(),
        path: "folder/app.db".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    replica.set_about(&about).unwrap();
    assert_eq!(replica.about().unwrap(), Some(about));
    assert_eq!(repository.replicas().unwrap(), [id()]);
    assert_sound(&repository);
}

#[test]
fn the_page_at_2_to_the_30_is_neither_taken_nor_given() {
    // The largest pages reach it soonest; all but the last few share their content.
    let size = PageSize::MAX;
    let count = size.lock_page().get() + 2;
    let fives = Arc::new(vec![5; size.bytes()]);
    let mut database = Database { size, pages: vec![fives; count as usize] };
    database.pages[count as usize - 3] = Arc::new(vec![0; size.bytes()]);
    database.set(1, 1);
    let repository = memory();
    let replica = repository.replica(&id());
    Push::of(&database).run(&replica).unwrap();
    let version = replica.latest().unwrap().unwrap();
    assert_eq!(version.root, database.root());
    let mut origin = replica.origin(&version).unwrap();
    let wanted = Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks };
    origin.begin(wanted).unwrap();
    let mut given = 0;
    while let Some(block) = origin.next_block().unwrap() {
        assert!(block.pages().all(|n| n != size.lock_page()));
        given += block.page_count();
    }
    assert_eq!(given, count - 1);
    let differing: RoaringBitmap = [1, size.lock_page().get(), count, count + 1].into_iter().collect();
    origin
        .begin(Wanted {
            since: Since::Compared { differing, held: version.geometry.page_count },
            staged: Vec::new(),
            form: Form::Blocks,
        })
        .unwrap();
    assert_eq!(origin.pages_to_send().unwrap(), Some(2));
    // Shrinking below it and growing past it again.
    let mut small = database.clone();
    small.pages.truncate(5);
    Push::of(&small).on(&database, 1).run(&replica).unwrap();
    Push::of(&database).on(&small, 2).run(&replica).unwrap();
    assert_eq!(replica.latest().unwrap().unwrap().root, database.root());
    assert_sound(&repository);
}

#[test]
fn blocks_that_later_pushes_changed_are_rebuilt_among_those_that_are_whole() {
    let replica = memory().replica(&id());
    let mut database = Database::new(PageSize::MIN, 20 * 512 + 100, 1);
    Push::of(&database).run(&replica).unwrap();
    for version in 1..=3 {
        let base = database.clone();
        // Whole are the eighth to the tenth block, and the last but one.
        let changed = (0..7 * 512).chain(10 * 512..19 * 512).step_by(97 + version as usize);
        changed.for_each(|page| database.set(page + 1, version));
        Push::of(&database).on(&base, version).run(&replica).unwrap();
    }
    assert_holds(&replica, 4, &database);
    let mut origin = replica.origin(&replica.latest().unwrap().unwrap()).unwrap();
    let everything = Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks };
    for _ in 0..2 {
        // Given up in the middle, and begun again.
        origin.begin(everything.clone()).unwrap();
        let block = origin.next_block().unwrap().unwrap();
        assert_eq!((block.first(), block.page_count()), (page(1), 512));
    }
}

#[test]
fn an_expired_version_is_not_read_and_no_base() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let repository = sqlrsync_repository::Repository::over(store.clone(), runtime(), None);
    let replica = repository.replica(&id());
    let first = Database::new(PageSize::MIN, 10, 1);
    let second = Database::new(PageSize::MIN, 10, 2);
    Push::of(&first).run(&replica).unwrap();
    Push::of(&second).run(&replica).unwrap();
    let mark = object_store::path::Path::from(format!("replicas/{}/expired/{:020}", id(), 1));
    runtime().block_on(object_store::ObjectStoreExt::put(&*store, &mark, "".into())).unwrap();
    let expired = replica.manifest(number(1)).unwrap().unwrap();
    let error = replica.origin(&expired).unwrap_err();
    assert_eq!(error.refusal(), Refusal::NotFound, "{error}");
    let mut origin = replica.origin(&replica.latest().unwrap().unwrap()).unwrap();
    assert!(!origin.knows(&expired.as_base()).unwrap());
    let mut push = replica.push(options()).unwrap();
    push.begin(second.geometry(), 3).unwrap();
    assert!(!push.accept(Ground::Proposed(expired.as_base()), None).unwrap());
    let report = repository.check(&mut |_| {}).unwrap();
    assert_eq!((report.versions, report.versions_proved, report.problems), (1, 1, Vec::new()));
}

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    Change(Vec<u16>),
    Grow(u16),
    Shrink(u16),
    Replace(u8, u16),
    /// Goes on from an earlier version than the latest.
    Back(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(any::<u16>(), 1..40).prop_map(Step::Change),
        2 => (1..700u16).prop_map(Step::Grow),
        2 => any::<u16>().prop_map(Step::Shrink),
        1 => (9..=12u8, 0..300u16).prop_map(|(log2, pages)| Step::Replace(log2, pages)),
        1 => any::<u8>().prop_map(Step::Back),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_kept_and_any_difference_is_right(
        start in 0..1200u32,
        steps in prop::collection::vec(step(), 1..8),
    ) {
        let repository = memory();
        let replica = repository.replica(&id());
        let mut versions = vec![Database::new(PageSize::MIN, start, 1)];
        Push::of(&versions[0]).run(&replica).unwrap();
        let (mut at, mut seed) = (0, 1000);
        for step in steps {
            let mut next = versions[at].clone();
            let count = next.pages.len() as u32;
            seed += 1000;
            match step {
                Step::Change(pages) => for n in pages.into_iter().filter(|_| count > 0) {
                    seed += 1;
                    next.set(u32::from(n) % count + 1, seed);
                },
                Step::Grow(by) => for _ in 0..by {
                    seed += 1;
                    next.pages.push(content(next.size, seed));
                },
                Step::Shrink(to) => next.pages.truncate(usize::from(to) % (count as usize + 1)),
                Step::Replace(log2, pages) => {
                    next = Database::new(PageSize::from_log2(log2).unwrap(), u32::from(pages), seed);
                }
                Step::Back(to) => {
                    at = usize::from(to) % versions.len();
                    continue;
                }
            }
            let base = &versions[at];
            let mut push = Push::of(&next);
            if base.size == next.size {
                push = push.on(base, at as u64 + 1);
            }
            let done = push.run(&replica).unwrap();
            if done.unchanged {
                at = done.version.unwrap().get() as usize - 1;
                continue;
            }
            versions.push(next);
            at = versions.len() - 1;
            prop_assert_eq!(done.version, Some(number(versions.len() as u64)));
        }
        for (n, database) in (1..).zip(&versions) {
            assert_holds(&replica, n, database);
        }
        let manifest = |n: usize| replica.manifest(number(n as u64 + 1)).unwrap().unwrap();
        for (n, new) in versions.iter().enumerate() {
            for (m, old) in versions.iter().enumerate() {
                let pages = pull_blocks(&replica, &manifest(n), Since::Base(manifest(m).as_base())).unwrap();
                let expected = new.changed_since(old);
                prop_assert_eq!(pages.iter().map(|(n, _)| *n).collect::<Vec<_>>(), expected);
                for (n, bytes) in pages {
                    prop_assert!(bytes == *new.canonical(n));
                }
            }
        }
        assert_sound(&repository);
    }
}

#[test]
fn growing_past_a_node_and_shrinking_again_is_read_back_and_checked() {
    let repository = memory();
    let replica = repository.replica(&id());
    let first = Database::new(PageSize::MIN, 41, 1);
    let mut second = first.clone();
    for n in 42..=257 {
        second.pages.push(content(PageSize::MIN, n));
    }
    Push::of(&first).run(&replica).unwrap();
    Push::of(&second).on(&first, 1).run(&replica).unwrap();
    Push::of(&first).on(&second, 2).run(&replica).unwrap();
    assert_holds(&replica, 1, &first);
    assert_holds(&replica, 2, &second);
    assert_sound(&repository);
}
