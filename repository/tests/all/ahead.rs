//! Pages that were said to be read next, and so are decoded ahead: they are, and whatever is said, what is read is
//! right.

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::Content;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{BlocksTaken, Manifest, Replica};

use crate::support::*;

const PAGES: u32 = 5000;

/// A replica whose latest version lies in the blocks of many, and that version.
fn of_many_versions() -> (Replica, Database, Manifest) {
    let replica = memory().replica(&id());
    let mut database = Database::new(PageSize::MIN, PAGES, 1);
    Push::of(&database).id(100).run(&replica).unwrap();
    for version in 1..=8u8 {
        let before = database.clone();
        for n in (u32::from(version)..=PAGES).step_by(37) {
            database.set(n, u64::from(version) * 100_000 + u64::from(n));
        }
        Push::of(&database).on(&before, u64::from(version)).id(version).run(&replica).unwrap();
    }
    let latest = replica.latest().unwrap().unwrap();
    (replica, database, latest)
}

/// Says that `expected` come next, and reads `read`.
fn assert_reads(content: &mut dyn Content, database: &Database, expected: &RoaringBitmap, read: &[u32]) {
    content.expect(expected);
    let mut bytes = vec![0; database.size.bytes()];
    for &n in read {
        content.read(page(n), &mut bytes).unwrap();
        assert!(bytes == *database.canonical(n), "page {n}");
    }
}

#[test]
fn what_is_read_is_right_whether_or_not_it_is_what_was_expected() {
    let (replica, database, latest) = of_many_versions();
    let all: Vec<u32> = (1..=PAGES).collect();
    let every: RoaringBitmap = all.iter().collect();
    let backwards: Vec<u32> = all.iter().rev().copied().collect();
    let some: RoaringBitmap = (2000..4000).chain([17, PAGES + 1, u32::MAX]).collect();
    for (expected, read) in [(&every, &all), (&every, &backwards), (&some, &all), (&some, &backwards)] {
        let mut content = replica.content(&latest).unwrap();
        assert_reads(&mut content, &database, expected, read);
        // Part of it, and then something else.
        assert_reads(&mut content, &database, expected, &read[..100]);
        assert_reads(&mut content, &database, &some, &[4000, 1, 3999]);
    }
}

/// How the blocks are had when these pages are said to come next, and all are read in order.
fn taken(replica: &Replica, latest: &Manifest, expected: &RoaringBitmap) -> BlocksTaken {
    let mut content = replica.content(latest).unwrap();
    content.expect(expected);
    let mut bytes = vec![0; PageSize::MIN.bytes()];
    (1..=PAGES).for_each(|n| content.read(page(n), &mut bytes).unwrap());
    content.blocks_taken()
}

#[test]
fn the_blocks_of_pages_that_were_expected_were_decoded_ahead_and_none_twice() {
    let every: RoaringBitmap = (1..=PAGES).collect();
    let (replica, _, latest) = of_many_versions();
    let BlocksTaken { ahead, when_asked } = taken(&replica, &latest, &every);
    // The first version has one for every 512 pages, and each later one at least one.
    assert!(ahead >= 9 + 8 && when_asked == 0, "{ahead} ahead, {when_asked} when asked for");
    assert_eq!(taken(&replica, &latest, &every), BlocksTaken::default(), "all are still decoded");

    // Nothing was said, and too little to be worth a thread.
    for expected in [RoaringBitmap::new(), (1..200).collect()] {
        let (replica, _, latest) = of_many_versions();
        let found = taken(&replica, &latest, &expected);
        assert_eq!(found, BlocksTaken { ahead: 0, when_asked: ahead }, "the same blocks");
    }
    // Half of it: the rest is decoded when it is asked for.
    let (replica, _, latest) = of_many_versions();
    let BlocksTaken { ahead: half, when_asked } = taken(&replica, &latest, &(PAGES / 2..=PAGES).collect());
    assert!(
        half > 0 && when_asked > 0 && half + when_asked == ahead,
        "{half} ahead, {when_asked} when asked for"
    );
}

#[test]
fn what_is_expected_and_never_read_ends_with_the_content() {
    let (replica, _, latest) = of_many_versions();
    for _ in 0..50 {
        let mut content = replica.content(&latest).unwrap();
        content.expect(&(1..=PAGES).collect());
    }
}
