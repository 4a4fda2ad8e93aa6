//! A version that many small pushes made: its pages are in as many segments, one here and one there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use sqlrsync_protocol::block::{BLOCK_RAW_MAX, Block};
use sqlrsync_protocol::exchange::{Form, OriginPages, Since, Wanted};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Manifest, Replica, Repository};

use crate::cost::repeating;
use crate::support::*;

/// A database of `pages`, and then so many pushes of one page each, at equal distances.
fn pushed(store: &Arc<InMemory>, size: PageSize, pages: u32, pushes: u32) -> Database {
    let replica = Repository::over(store.clone(), runtime(), None).replica(&id());
    let mut database = repeating(size, pages);
    Push::of(&database).run(&replica).unwrap();
    for n in 0..pushes {
        let old = database.clone();
        database.set(n * (pages / pushes) + 3, 1000 + u64::from(n));
        Push::of(&database).on(&old, u64::from(n) + 1).run(&replica).unwrap();
    }
    database
}

fn blocks(replica: &Replica, version: &Manifest, since: Since) -> Vec<Block> {
    let mut origin = replica.origin(version).unwrap();
    origin.begin(Wanted { since, staged: Vec::new(), form: Form::Blocks }).unwrap();
    std::iter::from_fn(|| origin.next_block().unwrap()).collect()
}

#[test]
fn what_small_pushes_left_goes_out_in_full_blocks() {
    let (size, pages, pushes) = (PageSize::from_log2(12).unwrap(), 256, 32);
    let store = Arc::new(InMemory::new());
    let database = pushed(&store, size, pages, pushes);
    let replica = Repository::over(store, runtime(), None).replica(&id());
    assert_holds(&replica, u64::from(pushes) + 1, &database);
    let latest = replica.latest().unwrap().unwrap();
    let full = pages as usize * size.bytes() / BLOCK_RAW_MAX;
    assert_eq!(blocks(&replica, &latest, Since::Nothing).len(), full);
    let since = |version| Since::Base(replica.manifest(number(version)).unwrap().unwrap().as_base());
    let changed = blocks(&replica, &latest, since(1));
    assert_eq!(changed.iter().map(Block::page_count).collect::<Vec<_>>(), [pushes]);
    // The only one that is wanted is the one that is stored.
    let one = blocks(&replica, &latest, since(u64::from(pushes)));
    assert_eq!(one.iter().map(Block::page_count).collect::<Vec<_>>(), [1]);
}

/// Reads of segments while all of the latest version is pulled, with nothing cached.
fn reads(store: &Arc<InMemory>) -> u64 {
    let (watched, counts) = Watched::new(store.clone());
    let replica = Repository::over(watched, runtime(), None).replica(&id());
    blocks(&replica, &replica.latest().unwrap().unwrap(), Since::Nothing);
    counts.segment_reads.load(Ordering::SeqCst)
}

#[test]
fn a_small_push_costs_a_later_pull_two_reads_and_no_reading_ahead() {
    let (size, pages, pushes) = (PageSize::from_log2(12).unwrap(), 1024, 128);
    let store = Arc::new(InMemory::new());
    pushed(&store, size, pages, 0);
    let first = reads(&store);
    let store = Arc::new(InMemory::new());
    pushed(&store, size, pages, pushes);
    let all = reads(&store);
    // The end of its segment, with index and header, and its page. The nodes are in the last few of them.
    assert!(all <= first + 2 * u64::from(pushes) + 8, "{first} reads became {all}");
}

#[test]
fn a_segment_of_one_page_is_opened_with_one_read() {
    // Two nodes of nearly as many children as there can be, and the page.
    let (pages, pushes) = (60_000, 6);
    let store = Arc::new(InMemory::new());
    pushed(&store, PageSize::MIN, pages, pushes);
    let (watched, counts) = Watched::new(store);
    let replica = Repository::over(watched, runtime(), None).replica(&id());
    let base = replica.manifest(number(1)).unwrap().unwrap().as_base();
    blocks(&replica, &replica.latest().unwrap().unwrap(), Since::Base(base));
    let reads = counts.segment_reads.load(Ordering::SeqCst);
    // Each: the end of its segment, its node, the node before it, its page. All: the first segment and both tops.
    assert!(reads <= 4 * u64::from(pushes) + 5, "{reads} reads");
}
