//! Databases that somebody damaged on purpose: circles, pages that two trees share, pointers to anywhere.

use super::random::Subject;
use super::support::{Image, look, roots};
use crate::btree::{ParentMap, Ranges};
use crate::random::Random;

/// Damages an image as somebody would who knows the format.
fn damage(image: &mut Image, random: &mut Random) {
    let len = image.geometry.page_size.bytes();
    let pages = u64::from(image.geometry.page_count.get());
    for _ in 0..1 + random.below(4) {
        let page = random.below(pages) as usize * len;
        let other = random.below(pages) as usize * len;
        match random.below(5) {
            // One byte anywhere, or in a header.
            0 => image.bytes[page + random.below(len as u64) as usize] = random.next() as u8,
            1 => image.bytes[page + random.below(16) as usize] = random.next() as u8,
            // A page number anywhere.
            2 => {
                let at = page + random.below(len as u64 - 3) as usize;
                let number = 1 + random.below(pages) as u32;
                image.bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            // A page in place of another: all that it leads to is led to twice.
            3 => image.bytes.copy_within(page..page + len, other),
            // The list of free pages begins anywhere.
            _ => {
                let number = random.below(pages) as u32;
                image.bytes[32..36].copy_from_slice(&number.to_be_bytes());
            }
        }
    }
}

#[test]
fn a_damaged_database_costs_a_few_times_its_size_in_reading_and_no_panic() {
    for seed in 0..40 {
        let mut subject = Subject::new(seed);
        let (old, roots_old) = (Image::of(&subject.database), roots(&subject.database));
        subject.step();
        let (new, roots_new) = (Image::of(&subject.database), roots(&subject.database));
        for _ in 0..5 {
            let (mut old, mut new) = (old.clone(), new.clone());
            if subject.random.chance(50) {
                damage(&mut old, &mut subject.random);
            }
            damage(&mut new, &mut subject.random);
            let map = ParentMap::build(&mut old).unwrap();
            let map = if subject.random.chance(50) { map } else { ParentMap::unknown() };
            let two = look(old, new, (&roots_old, &roots_new), map);
            for ranges in two.found.tables.values() {
                if let Ranges::Rowids(ranges) = ranges {
                    assert!(ranges.windows(2).all(|two| two[0].end() < two[1].start()), "seed {seed}");
                }
            }
            for side in [&two.old, &two.new] {
                // Four walks, each with a chain for a key now and then, a map, and the list of free pages.
                let most = 12 * side.geometry.page_count.get() as usize + 2000;
                assert!(side.reads < most, "seed {seed}: {} reads, {most} at most", side.reads);
            }
        }
    }
}

#[test]
fn a_key_that_is_long_and_stands_in_a_page_thousands_of_times_is_not_read_each_time() {
    use super::support::{database, execute};
    let connection = database(65_536);
    execute(
        &connection,
        "CREATE TABLE t(k BLOB PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES (zeroblob(1000000));",
    );
    let roots = roots(&connection);
    let old = Image::of(&connection);
    let mut new = old.clone();
    let leaf = &mut new.bytes[65_536..2 * 65_536];
    // All pointers that there is room for, and each to the one cell.
    let cell: [u8; 2] = leaf[8..10].try_into().unwrap();
    let count = (u16::from_be_bytes(cell) - 8) / 2;
    leaf[3..5].copy_from_slice(&count.to_be_bytes());
    (0..usize::from(count)).for_each(|at| leaf[8 + 2 * at..10 + 2 * at].copy_from_slice(&cell));
    let map = ParentMap::build(&mut new.clone()).unwrap();
    let two = look(old, new, (&roots, &roots), map);
    assert_eq!(two.found.of("t"), Some(&Ranges::All));
    assert!(two.new.reads < 2500, "{} reads", two.new.reads);
}
