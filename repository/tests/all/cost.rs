//! What versions cost. The figures of the benchmark are measured with the real programs; these tests
//! hold what they rest on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use sqlrsync_protocol::content::{ChangedPages, Content};
use sqlrsync_protocol::exchange::{Form, OriginPages, Since, Wanted};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Candidate, Repository, Standing};

use crate::kept::keep;
use crate::sides::{Sides, by, conflict_number, overlap};
use crate::support::*;

/// A database of any size in little memory: its pages are one of 64.
pub fn repeating(size: PageSize, pages: u32) -> Database {
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

/// A replica of which one candidate was merged and one waits in conflict 1, and then so many conflicts were opened
/// and settled, and two more opened.
struct Settled {
    store: Arc<InMemory>,
    merged: Candidate,
    waits: Candidate,
}

impl Settled {
    fn new(conflicts: u64) -> Settled {
        let store = Arc::new(InMemory::new());
        let sides = Sides::sized(Repository::over(store.clone(), runtime(), None), 30);
        sides.push_both().unwrap();
        let first = sides.version(1);
        let keep = |seed: u64| {
            let mut mine = sides.base.clone();
            mine.set(20, 1000 + seed);
            let push = Push { base: Some((&sides.base, Some(number(1)))), ..Push::of(&mine) };
            (keep(&push, &sides.replica, &first), mine)
        };
        let open = |candidate: &Candidate| {
            sides.replica.open_conflict(candidate, overlap(candidate), &[], by("ada")).unwrap()
        };
        let (merged, _) = keep(1);
        sides.merge_mine(&merged).unwrap().unwrap();
        let (waits, _) = keep(2);
        open(&waits);
        for seed in 3..conflicts + 3 {
            let (candidate, mine) = keep(seed);
            let conflict = open(&candidate);
            let latest = sides.replica.latest().unwrap().unwrap();
            let on = (&mine, &candidate.content);
            let version = sides.merge(&candidate, (&latest, on), &mine, Some(&conflict)).unwrap().unwrap();
            sides.replica.end_conflict(&conflict, &version, String::new(), by("ada")).unwrap().unwrap();
        }
        for seed in [conflicts + 3, conflicts + 4] {
            open(&keep(seed).0);
        }
        Settled { store, merged, waits }
    }

    /// Reads of the store that it takes to know what became of a candidate, with nothing cached, and then again.
    fn reads(&self, candidate: &Candidate) -> ([u64; 2], Standing) {
        let (watched, counts) = Watched::new(self.store.clone());
        let replica = Repository::over(watched, runtime(), None).replica(&id());
        let standing = replica.standing(candidate).unwrap();
        let first = counts.reads.load(Ordering::SeqCst);
        assert_eq!(replica.standing(candidate).unwrap(), standing);
        ([first, counts.reads.load(Ordering::SeqCst) - first], standing)
    }
}

#[test]
fn what_became_of_a_candidate_costs_the_same_however_many_conflicts_were_settled_since() {
    let (few, many) = (Settled::new(4), Settled::new(60));
    let waits = [few.reads(&few.waits), many.reads(&many.waits)];
    let merged = [few.reads(&few.merged), many.reads(&many.merged)];
    assert_eq!((waits[0].1, merged[0].1), (waits[1].1, merged[1].1));
    // The number of the last conflict is searched by halves, and that of the last version.
    let alike = |few: u64, many: u64| assert!(many <= few + 10, "reads: {few} and {many}");
    alike(merged[0].0[0], merged[1].0[0]);
    alike(merged[0].0[1], merged[1].0[1]);
    // The first time, whether one of the versions since ended it is asked of each of them, 256 at most.
    alike(waits[0].0[1], waits[1].0[1]);
    assert!(waits[1].0[0] <= waits[0].0[0] + 10 + (60 - 4), "{waits:?}");
}

#[test]
fn the_conflict_that_a_candidate_waits_in_is_found_though_nothing_says_which_it_is() {
    let settled = Settled::new(4);
    let path = format!("replicas/{}/candidate-roots/{}", id(), settled.waits.content.root);
    let path = object_store::path::Path::from(path);
    let delete = async { settled.store.delete(&path).await };
    runtime().block_on(delete).unwrap();
    assert_eq!(settled.reads(&settled.waits).1, Standing::InConflict(conflict_number(1)));
}
