//! Whatever happens to a database, and whatever map of its pages there is: each row that differs is found.

use std::collections::BTreeSet;

use super::random::Subject;
use super::support::{Image, Two, changed, find, look, roots};
use crate::btree::find::{NO_MAP, NO_SOUND_MAP};
use crate::btree::{ParentMap, Ranges, Roots, Touched, touched_of_unknown};
use crate::random::Random;
use crate::rows::{Change, Go, RowChange, diff};

/// So many seeds in an ordinary run. `SQLRSYNC_SEEDS` asks for more.
const SEEDS: u64 = 60;

fn seeds() -> impl Iterator<Item = u64> {
    let count = std::env::var("SQLRSYNC_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let first = std::env::var("SQLRSYNC_FIRST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    first..first + count
}

/// What a version is.
struct Version {
    image: Image,
    roots: Roots,
}

fn version(subject: &Subject) -> Version {
    Version { image: Image::of(&subject.database), roots: roots(&subject.database) }
}

fn found(old: &Version, new: &Version, parents: ParentMap, seed: u64, what: &str) -> Two {
    let context = format!("seed {seed}, {what}");
    find(old.image.clone(), new.image.clone(), (&old.roots, &new.roots), parents, &context)
}

/// Keys are found in no particular order.
fn in_order(mut found: Touched) -> Touched {
    for ranges in found.tables.values_mut() {
        if let Ranges::Keys(keys) = ranges {
            keys.sort_by_key(|key| format!("{key:?}"));
        }
    }
    found
}

/// The map was that of the old content: the walk along it came to every page that changed.
fn assert_map_fits(two: &Two, map: &str, seed: u64) {
    let read_more = two.found.read_more;
    assert!(![Some(NO_MAP), Some(NO_SOUND_MAP)].contains(&read_more), "seed {seed}, {map}: {read_more:?}");
}

#[test]
fn every_row_that_differs_is_found_along_the_map_of_the_old_content() {
    for seed in seeds() {
        let mut subject = Subject::new(seed);
        let old = version(&subject);
        for _ in 0..1 + subject.random.below(5) {
            subject.step();
        }
        let new = version(&subject);
        let parents = ParentMap::build(&mut old.image.clone()).unwrap();
        let two = found(&old, &new, parents, seed, "its own map");
        assert_map_fits(&two, "its own", seed);
        let (mut first, mut second) = (old.image.clone(), new.image.clone());
        let unknown = touched_of_unknown(&mut first, &mut second, (&old.roots, &new.roots)).unwrap();
        assert_eq!(in_order(unknown), in_order(two.found.clone()), "seed {seed}: nobody knew what changed");
        // What came out is the map of the new content: it leads back as well.
        let back = found(&new, &old, two.parents, seed, "back along the map that came out");
        assert_map_fits(&back, "back", seed);
    }
}

#[test]
fn a_map_brought_through_twenty_versions_still_leads_to_every_row() {
    for seed in seeds().step_by(12) {
        let mut subject = Subject::new(seed);
        let mut first = version(&subject);
        let mut old = version(&subject);
        let built = ParentMap::build(&mut old.image.clone()).unwrap();
        let (mut by_pages, mut came_out) = (built.clone(), built.clone());
        for _ in 0..20 {
            subject.step();
            let new = version(&subject);
            let two = found(&old, &new, came_out, seed, "the map that came out last time");
            // The last table was dropped, and VACUUM then takes the format back to none.
            if two.found.everything {
                break;
            }
            assert_map_fits(&two, "came out", seed);
            came_out = ParentMap::decode(&two.parents.encode()).unwrap();
            let two = look(two.old, two.new, (&old.roots, &new.roots), by_pages.clone());
            assert_map_fits(&two, "by pages", seed);
            let pages = changed(&old.image, &new.image);
            by_pages.bring(&mut old.image, &mut new.image.clone(), &pages).unwrap();
            old = new;
        }
        let mut at_once = built;
        let pages = changed(&first.image, &old.image);
        at_once.bring(&mut first.image, &mut old.image, &pages).unwrap();
        let two = found(&old, &first, at_once, seed, "a map brought over twenty versions at once");
        if !two.found.everything {
            assert_map_fits(&two, "at once", seed);
        }
    }
}

#[test]
fn a_map_that_is_wrong_costs_reading_and_no_row() {
    for seed in seeds().step_by(3) {
        let mut subject = Subject::new(seed);
        let stale = ParentMap::build(&mut Image::of(&subject.database)).unwrap();
        for _ in 0..4 {
            subject.step();
        }
        let old = version(&subject);
        subject.step();
        let new = version(&subject);
        found(&old, &new, stale.clone(), seed, "a stale map");
        found(&old, &new, ParentMap::unknown(), seed, "no map");
        let random = random_map(&mut subject.random, old.image.geometry.page_count.get());
        found(&old, &new, random, seed, "a random map");
        let mut blob = stale.encode();
        let at = subject.random.below(blob.len() as u64) as usize;
        blob[at] ^= 1 << subject.random.below(8);
        found(&old, &new, ParentMap::decode(&blob).unwrap_or_default(), seed, "a damaged map");
    }
}

fn random_map(random: &mut Random, page_count: u32) -> ParentMap {
    let mut map = ParentMap::unknown();
    for page in 1..=page_count {
        let parent = random.below(u64::from(page_count) * 2) as u32;
        map.set(page, if random.chance(5) { u32::MAX } else { parent });
    }
    map
}

/// The rows that differ, as the row diff finds them within what may differ.
fn differences(two: &Two, within: &Touched) -> BTreeSet<String> {
    let mut differences = BTreeSet::new();
    let (old, new) = (two.old.open(), two.new.open());
    let mut sink = |change| {
        if let Change::Row(RowChange { table, key, before, after, .. }) = change {
            differences.insert(format!("{}: {key:?}: {before:?} -> {after:?}", table.name));
        }
        Ok(Go::On)
    };
    diff(&old, &new, within, &mut sink).unwrap();
    differences
}

#[test]
fn the_row_diff_within_what_is_found_is_the_row_diff_of_everything() {
    for seed in seeds() {
        let mut subject = Subject::new(seed);
        let old = version(&subject);
        for _ in 0..1 + subject.random.below(5) {
            subject.step();
        }
        let parents = ParentMap::build(&mut old.image.clone()).unwrap();
        let new = version(&subject);
        let two = look(old.image, new.image, (&old.roots, &new.roots), parents);
        let all = differences(&two, &Touched::everything("to compare"));
        let within = differences(&two, &two.found);
        let lost: Vec<_> = all.symmetric_difference(&within).take(3).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
    }
}
