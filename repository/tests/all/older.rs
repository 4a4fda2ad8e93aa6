//! Versions 1 and 2 of the protocol: single pages in any order, and hash rounds that read no page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use sqlrsync_protocol::canonical::empty_database;
use sqlrsync_protocol::exchange::{Committed, End, Ground, OriginPages, ReplicaPages};
use sqlrsync_protocol::page::{PageCount, PageSize};
use sqlrsync_protocol::sponge::{Hash20, group_hash, hash20};
use sqlrsync_repository::{Error, PeerFault, Replica, Repository};

use crate::support::*;

/// Pushes pages one by one, in the order given.
fn push_pages(replica: &Replica, database: &Database, order: &[u32]) -> Result<Committed, Error> {
    let mut push = replica.push(options())?;
    let held = push.begin(database.geometry(), 2)?;
    let ground = if held.base.is_some() { Ground::Compared } else { Ground::Nothing { recognised: false } };
    assert!(push.accept(ground, None)?);
    for &n in order {
        push.take_page(page(n), &database.pages[n as usize - 1])?;
    }
    push.finish(End::PageCount(database.geometry().page_count))
}

fn all(database: &Database) -> Vec<u32> {
    (1..=database.pages.len() as u32).collect()
}

fn expected(database: &Database, first: u32, count: u32) -> Hash20 {
    let last = (first + count - 1).min(database.pages.len() as u32);
    let hashes: Vec<Hash20> = (first..=last).map(|n| hash20(&database.pages[n as usize - 1])).collect();
    if count == 1 { hashes[0] } else { group_hash(&hashes) }
}

/// Asks for hashes as sqlite3_rsync does, and for some that it does not ask for.
fn assert_hashes(database: &Database, mut ask: impl FnMut(u32, u32) -> Hash20) {
    let count = database.pages.len() as u32;
    for n in 1..=count {
        assert_eq!(ask(n, 1), expected(database, n, 1), "page {n}");
    }
    for (first, group) in [(1, 2), (1, 1000), (2, 30), (2, 1000), (count, 5), (1, u32::MAX)] {
        let last = first.saturating_add(group - 1).min(count);
        assert_eq!(
            ask(first, group),
            expected(database, first, (last - first + 1).max(2)),
            "{first}, {group}"
        );
    }
    assert_eq!(ask(count + 1, 30), group_hash([]));
}

#[test]
fn pages_that_come_one_by_one_become_a_version() {
    let repository = memory();
    let replica = repository.replica(&id());
    let mut database = Database::new(PageSize::MIN, 2000, 1);
    let done = push_pages(&replica, &database, &all(&database)).unwrap();
    assert_eq!(done.version, Some(number(1)));
    assert_holds(&replica, 1, &database);
    let mut push = replica.push(options()).unwrap();
    push.begin(database.geometry(), 2).unwrap();
    assert_hashes(&database, |first, count| push.group_hash(page(first), count).unwrap());
    // A change to the fields that are not content is none.
    let unchanged = database.clone();
    Arc::make_mut(&mut database.pages[0])[27] ^= 1;
    assert!(push_pages(&replica, &database, &[1]).unwrap().unchanged);
    database = unchanged;
    database.set(5, 50);
    database.pages.truncate(1500);
    push_pages(&replica, &database, &[5]).unwrap();
    assert_holds(&replica, 2, &database);
    let mut origin = replica.origin(&replica.latest().unwrap().unwrap()).unwrap();
    assert_hashes(&database, |first, count| origin.group_hash(page(first), count).unwrap());
    assert_sound(&repository);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn pages_may_come_in_any_order_and_the_last_one_counts(
        order in prop::collection::vec(1..900u32, 0..1500),
    ) {
        let repository = memory();
        let replica = repository.replica(&id());
        let wrong = Database::new(PageSize::MIN, 900, 1);
        let right = Database::new(PageSize::MIN, 900, 2);
        let mut push = replica.push(options()).unwrap();
        push.begin(right.geometry(), 1).unwrap();
        for n in order {
            push.take_page(page(n), &wrong.pages[n as usize - 1]).unwrap();
        }
        for n in (1..=900).rev() {
            push.take_page(page(n), &right.pages[n as usize - 1]).unwrap();
        }
        push.finish(End::PageCount(PageCount(900))).unwrap();
        assert_holds(&replica, 1, &right);
        let mut push = replica.push(options()).unwrap();
        push.begin(right.geometry(), 2).unwrap();
        assert_hashes(&right, |first, count| push.group_hash(page(first), count).unwrap());
        assert_sound(&repository);
    }
}

#[test]
fn hash_rounds_read_no_page_from_the_second_on() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let mut database = Database::new(PageSize::MIN, 4000, 1);
    // The first version comes by version 3: nobody asked for these hashes yet.
    Push::of(&database).run(&Repository::over(store.clone(), runtime(), None).replica(&id())).unwrap();
    // A page is only in segments; so are nodes, a few reads of at most 16 KiB each.
    let pages = 4000 * 512 / 2;
    let (mut asked, mut bytes) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let (watched, counts) = Watched::new(store.clone());
        let replica = Repository::over(watched, runtime(), None).replica(&id());
        let mut push = replica.push(options()).unwrap();
        push.begin(database.geometry(), 2).unwrap();
        assert_hashes(&database, |first, count| push.group_hash(page(first), count).unwrap());
        drop(push);
        asked.push(counts.segment_reads.load(Ordering::SeqCst));
        bytes.push(counts.segment_bytes.load(Ordering::SeqCst));
        database.set(3000, round + 10);
        push_pages(&replica, &database, &[3000]).unwrap();
    }
    assert!(bytes[0] > pages, "{bytes:?} bytes of segments");
    for round in 1..3 {
        // 17 nodes of the tree, and the ends of the segments that they are in.
        assert!(asked[round] < 40 && bytes[round] < 300_000, "{asked:?} reads of segments, {bytes:?} bytes");
    }
}

#[test]
fn a_replica_with_nothing_or_another_page_size_counts_as_empty() {
    let replica = memory().replica(&id());
    let size = PageSize::from_log2(12).unwrap();
    let empty = Database { size, pages: vec![Arc::new(empty_database(size))] };
    let mut push = replica.push(options()).unwrap();
    assert_eq!(push.begin(empty.geometry(), 2).unwrap().geometry, None);
    assert_eq!(push.group_hash(page(1), 1).unwrap(), expected(&empty, 1, 1));
    assert_eq!(push.group_hash(page(2), 30).unwrap(), group_hash([]));
    // Its page 1 may be what the origin has: then no page comes at all.
    push_pages(&replica, &empty, &[]).unwrap();
    assert_holds(&replica, 1, &empty);
    let other = Database::new(PageSize::MIN, 20, 1);
    let mut push = replica.push(options()).unwrap();
    let held = push.begin(other.geometry(), 2).unwrap();
    assert_eq!((held.geometry, held.base), (None, None));
    push_pages(&replica, &other, &all(&other)).unwrap();
    assert_holds(&replica, 2, &other);
}

#[test]
fn pages_that_may_not_be_sent_are_refused() {
    let replica = memory().replica(&id());
    let database = Database::new(PageSize::MIN, 20, 1);
    let mut small = options();
    small.database_bytes_max = 20 * 512;
    let mut push = replica.push(small).unwrap();
    push.begin(database.geometry(), 1).unwrap();
    assert!(matches!(push.take_page(page(21), &[0; 512]), Err(Error::TooLarge { .. })));
    assert!(matches!(push.take_page(page(2), &[0; 511]), Err(Error::Peer(PeerFault::PageLength(_)))));
    for n in [2, 2, 2] {
        push.take_page(page(n), &[0; 512]).unwrap();
    }
    // One page again and again takes no more room than the database may.
    let mut count = 0;
    while push.take_page(page(2), &[0; 512]).is_ok() {
        count += 1;
        assert!(count < 30);
    }
    let mut push = replica.push(options()).unwrap();
    push.begin(database.geometry(), 1).unwrap();
    let lock = PageSize::MIN.lock_page();
    assert!(matches!(push.take_page(lock, &[0; 512]), Err(Error::Peer(PeerFault::LockPage(_)))));
    let error = push_pages(&replica, &database, &[1, 2, 20]).unwrap_err();
    assert!(matches!(error, Error::Peer(PeerFault::Missing(n)) if n.get() == 3), "{error}");
    assert_eq!(replica.latest().unwrap(), None);
}
