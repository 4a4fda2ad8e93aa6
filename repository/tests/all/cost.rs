//! What versions cost. The figures of the benchmark are measured with the real programs; these tests
//! hold what they rest on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use sqlrsync_protocol::content::{ChangedPages, Content};
use sqlrsync_protocol::exchange::{Form, OriginPages, Since, Wanted};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::Repository;

use crate::merged::Sides;
use crate::support::*;

/// A database of any size in little memory: its pages are one of 64.
fn repeating(size: PageSize, pages: u32) -> Database {
    let some: Vec<Page> = (0..64).map(|n| content(size, n + 1)).collect();
    Database { size, pages: (0..pages as usize).map(|n| some[n % 64].clone()).collect() }
}

fn stored_bytes(store: &InMemory) -> u64 {
    let list = store.list(None).map_ok(|meta| meta.size);
    runtime().block_on(list.try_fold(0, |sum, size| async move { Ok(sum + size) })).unwrap()
}

#[test]
fn a_hundred_versions_of_a_changed_row_take_little_more_than_one() {
    let store = Arc::new(InMemory::new());
    let replica = Repository::over(store.clone(), runtime(), None).replica(&id());
    // A tenth of the benchmark's database.
    let mut database = repeating(PageSize::from_log2(12).unwrap(), 26_000);
    Push::of(&database).run(&replica).unwrap();
    let one = stored_bytes(&store);
    for n in 2..=100u64 {
        let old = database.clone();
        database.set((n * 7919 % 26_000) as u32 + 1, n);
        Push::of(&database).on(&old, n - 1).run(&replica).unwrap();
    }
    let hundred = stored_bytes(&store);
    // What a version adds does not grow with the database but for a node a level: ten times the
    // database would have ten times `one` and the same difference.
    let added = (hundred - one) / 99;
    assert!(added < 20_000, "{added} bytes a version");
    assert!(hundred - one < one * 10 / 20, "{one} bytes became {hundred}");
}

/// Reads and bytes that a push of one page costs, with nothing cached.
fn cost_of_one_page(pages: u32) -> (u64, u64, u64) {
    let store = Arc::new(InMemory::new());
    let database = repeating(PageSize::MIN, pages);
    Push::of(&database).run(&Repository::over(store.clone(), runtime(), None).replica(&id())).unwrap();
    let before = stored_bytes(&store);
    let (watched, counts) = Watched::new(store.clone());
    let replica = Repository::over(watched, runtime(), None).replica(&id());
    let mut changed = database.clone();
    changed.set(pages / 2, 9);
    Push::of(&changed).on(&database, 1).run(&replica).unwrap();
    let reads = counts.reads.load(Ordering::SeqCst);
    (reads, counts.segment_bytes.load(Ordering::SeqCst), stored_bytes(&store) - before)
}

#[test]
fn a_push_of_one_page_costs_the_same_in_a_small_and_in_a_large_database() {
    let (small, large) = (cost_of_one_page(2_000), cost_of_one_page(200_000));
    // Another level of the tree, and no more.
    assert!(large.0 <= small.0 + 6, "reads: {} and {}", small.0, large.0);
    assert!(large.1 <= small.1 + 40_000, "bytes read: {} and {}", small.1, large.1);
    assert!(large.2 <= 2 * small.2, "bytes stored: {} and {}", small.2, large.2);
}

#[test]
fn a_pull_of_one_changed_page_reads_a_few_nodes_and_the_page() {
    let store = Arc::new(InMemory::new());
    let replica = Repository::over(store.clone(), runtime(), None).replica(&id());
    let database = repeating(PageSize::MIN, 100_000);
    Push::of(&database).run(&replica).unwrap();
    let mut changed = database.clone();
    changed.set(70_000, 9);
    Push::of(&changed).on(&database, 1).run(&replica).unwrap();
    let (watched, counts) = Watched::new(store);
    let replica = Repository::over(watched, runtime(), None).replica(&id());
    let base = replica.manifest(number(1)).unwrap().unwrap().as_base();
    let latest = replica.latest().unwrap().unwrap();
    let pages = pull_blocks(&replica, &latest, Since::Base(base)).unwrap();
    assert_eq!(pages.len(), 1);
    let bytes = counts.segment_bytes.load(Ordering::SeqCst);
    assert!(bytes < 150_000, "{bytes} bytes read");
}

#[test]
fn stored_blocks_are_given_out_as_they_came() {
    let replica = memory().replica(&id());
    let database = Database::new(PageSize::MIN, 2048, 1);
    let mut push = Push::of(&database).open(&replica).unwrap();
    let mut builder = sqlrsync_protocol::block::BlockBuilder::new(PageSize::MIN);
    let mut sent = Vec::new();
    for n in 1..=2048 {
        builder.push(page(n), &database.canonical(n));
        if builder.is_full() {
            // A codec that no block made here would have.
            let block = builder.finish(sqlrsync_protocol::block::Effort::Fast).unwrap();
            sent.push(block.as_bytes().clone());
            sqlrsync_protocol::exchange::ReplicaPages::take_block(&mut push, block).unwrap();
        }
    }
    let proof = sqlrsync_protocol::exchange::End::Proof(database.proof());
    sqlrsync_protocol::exchange::ReplicaPages::finish(&mut push, proof).unwrap();
    let mut origin = replica.origin(&replica.latest().unwrap().unwrap()).unwrap();
    origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks }).unwrap();
    let mut given = Vec::new();
    while let Some(block) = origin.next_block().unwrap() {
        given.push(block.as_bytes().clone());
    }
    assert_eq!(given, sent);
}

/// Reads, writes and bytes read that a push of one page and its merge cost, with nothing cached: the push is
/// received and kept, what both sides changed is found, a page of each is read, and one is written over.
fn cost_of_a_merge(pages: u32) -> (u64, u64, u64) {
    let store = Arc::new(InMemory::new());
    let base = repeating(PageSize::MIN, pages);
    let (mut theirs, mut mine) = (base.clone(), base.clone());
    theirs.set(pages / 3, 8);
    mine.set(pages / 2, 9);
    let mut both = theirs.clone();
    both.set(pages / 2, 9);
    let replica = Repository::over(store.clone(), runtime(), None).replica(&id());
    Push::of(&base).run(&replica).unwrap();
    Push::of(&theirs).on(&base, 1).run(&replica).unwrap();
    let (watched, counts) = Watched::new(store);
    let repository = Repository::over(watched, runtime(), None);
    let sides = Sides { replica: repository.replica(&id()), repository, base, theirs, mine, both };
    let first = sides.version(1);
    let candidate = sides.keep(3, &sides.mine, (&sides.base, &first));
    let latest = sides.version(2);
    let mut bytes = vec![0; 512];
    for (content, changed) in [(&latest, pages / 3), (&candidate.content, pages / 2)] {
        let ChangedPages::Known(found) = sides.replica.changed_pages(&first, content).unwrap() else {
            panic!("nobody knows");
        };
        assert_eq!(found.iter().collect::<Vec<_>>(), [changed]);
        sides.replica.content(content).unwrap().read(page(changed), &mut bytes).unwrap();
        sides.replica.content(&first).unwrap().read(page(changed), &mut bytes).unwrap();
    }
    sides.merge_mine(&candidate).unwrap().unwrap();
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst);
    (load(&counts.reads), load(&counts.writes), load(&counts.segment_bytes))
}

#[test]
fn a_merge_of_one_page_costs_the_same_in_a_small_and_in_a_large_database() {
    let (small, large) = (cost_of_a_merge(20_000), cost_of_a_merge(100_000));
    assert!(large.0 <= small.0 + 12, "reads: {} and {}", small.0, large.0);
    // A segment, the candidate and its root; a segment and the version.
    assert_eq!((small.1, large.1), (5, 5), "writes");
    // Two blocks of other pages' neighbours, whatever they compress to, and a node a level.
    assert!(large.2 <= 2 * 262_144 + 200_000, "bytes read: {} and {}", small.2, large.2);
}
