//! A cut push leaves what it brought, and a later one of the same hand goes on from there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::memory::InMemory;
use sqlrsync_protocol::exchange::{End, Ground, ReplicaPages, StagedBlock, staged_hash};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Error, PeerFault, PushReplica, Replica, Repository};

use crate::support::*;
use crate::versions::at_once;

/// The pages of a staged block.
fn numbers(block: &StagedBlock) -> Vec<u32> {
    block.runs.iter().flat_map(|(first, len)| (0..u32::from(*len)).map(move |n| first.get() + n)).collect()
}

/// Pushes as an origin does that reuses what it can; says how many pages it did not have to send.
fn resume(replica: &Replica, database: &Database, scope: &str) -> u32 {
    let (mut push, rest, reused) = reopen(replica, database, scope);
    send(&mut push, database, &rest).unwrap();
    push.finish(End::Proof(database.proof())).unwrap();
    reused
}

/// Opens a push that reuses what it can; what is left to send, and how many pages were reused.
fn reopen(replica: &Replica, database: &Database, scope: &str) -> (PushReplica, Vec<u32>, u32) {
    let mut options = options();
    options.stage_scope = Some(scope.into());
    let mut push = replica.push(options).unwrap();
    push.begin(database.geometry(), 3).unwrap();
    let staged = push.staged().unwrap();
    assert!(push.accept(Ground::Nothing { recognised: false }, None).unwrap());
    let mut rest: BTreeSet<u32> = (1..=database.pages.len() as u32).collect();
    let mut reused = Vec::new();
    for (place, block) in (0u32..).zip(&staged) {
        let pages = numbers(block);
        let hashes: Vec<PageHash> = pages
            .iter()
            .filter(|n| **n <= database.pages.len() as u32)
            .map(|n| PageHash::of(&database.canonical(*n)))
            .collect();
        if staged_hash(&hashes) == block.hash && pages.iter().all(|n| rest.contains(n)) {
            reused.push(place);
            pages.iter().for_each(|n| {
                rest.remove(n);
            });
        }
    }
    let count = database.pages.len() - rest.len();
    push.reuse(&reused).unwrap();
    (push, rest.into_iter().collect(), count as u32)
}

#[test]
fn a_cut_push_is_continued_wherever_it_was_cut() {
    for cut in [0, 1, 511, 512, 513, 2000, 2999] {
        let repository = memory();
        let replica = repository.replica(&id());
        let database = Database::new(PageSize::MIN, 3000, 1);
        let mut push = Push::of(&database).open(&replica).unwrap();
        send(&mut push, &database, &(1..=cut).collect::<Vec<_>>()).unwrap();
        drop(push);
        assert_eq!(replica.latest().unwrap(), None);
        assert_sound(&repository);
        // Meanwhile some pages changed: their blocks are sent again, the others are not.
        let mut later = database.clone();
        later.set(3, 99);
        let reused = resume(&replica, &later, "key");
        let expected = if cut < 3 { cut } else { cut.saturating_sub(512) };
        assert_eq!(reused, expected, "cut after {cut} pages");
        assert_holds(&replica, 1, &later);
        assert_sound(&repository);
    }
}

#[test]
fn a_push_that_is_cut_again_and_again_sends_nothing_twice() {
    let repository = memory();
    let replica = repository.replica(&id());
    let database = Database::new(PageSize::MIN, 5120, 1);
    let mut sent = 0;
    loop {
        let (mut push, rest, _) = reopen(&replica, &database, "key");
        let part = rest.get(..1024).unwrap_or(&rest);
        send(&mut push, &database, part).unwrap();
        sent += part.len();
        assert!(sent <= 5120, "what had arrived was sent again");
        if part.len() == rest.len() {
            push.finish(End::Proof(database.proof())).unwrap();
            break;
        }
    }
    assert_eq!(sent, 5120);
    assert_holds(&replica, 1, &database);
    assert_sound(&repository);
    // What was staged belongs to the version now.
    assert_eq!(repository.sweep(at_once()).unwrap().objects_removed, 0);
    assert_holds(&replica, 1, &database);
}

#[test]
fn what_was_staged_is_not_offered_to_another_hand() {
    let repository = memory();
    let replica = repository.replica(&id());
    let database = Database::new(PageSize::MIN, 2048, 1);
    let mut push = Push::of(&database).open(&replica).unwrap();
    send(&mut push, &database, &(1..=1024).collect::<Vec<_>>()).unwrap();
    drop(push);
    assert_eq!(reopen(&replica, &database, "another key").2, 0);
    let other = repository.replica(&sqlrsync_repository::ReplicaId::random().unwrap());
    assert_eq!(reopen(&other, &database, "key").2, 0);
    assert_eq!(reopen(&replica, &database, "key").2, 1024);
}

#[test]
fn what_is_staged_has_a_quota() {
    let repository = memory();
    let replica = repository.replica(&id());
    let database = Database::new(PageSize::MIN, 2048, 1);
    let mut push = Push::of(&database);
    push.options.stage_bytes_max = 100_000;
    let mut open = push.open(&replica).unwrap();
    send(&mut open, &database, &(1..=1024).collect::<Vec<_>>()).unwrap();
    drop(open);
    assert_eq!(reopen(&replica, &database, "key").2, 0);
    assert_eq!(repository.sweep(at_once()).unwrap().objects_removed, 0);
    push.options.stage_scope = None;
    let mut open = push.open(&replica).unwrap();
    send(&mut open, &database, &(1..=1024).collect::<Vec<_>>()).unwrap();
    drop(open);
    assert_eq!(repository.sweep(at_once()).unwrap().objects_removed, 0);
}

#[test]
fn a_block_that_was_not_offered_is_not_reused() {
    let replica = memory().replica(&id());
    let database = Database::new(PageSize::MIN, 2048, 1);
    let (mut push, ..) = reopen(&replica, &database, "key");
    assert!(matches!(push.reuse(&[0]), Err(Error::Peer(PeerFault::NotStaged))));
}

#[test]
fn a_running_push_is_not_swept_from_under() {
    let repository = memory();
    let replica = repository.replica(&id());
    let database = Database::new(PageSize::MIN, 2048, 1);
    let mut push = Push::of(&database).open(&replica).unwrap();
    send(&mut push, &database, &(1..=1024).collect::<Vec<_>>()).unwrap();
    drop(push);
    let (mut push, rest, reused) = reopen(&replica, &database, "key");
    assert_eq!(reused, 1024);
    // Another push of the same hand commits, after which nothing refers to what was staged.
    Push::of(&Database::new(PageSize::MIN, 5, 2)).run(&replica).unwrap();
    repository.sweep(at_once()).unwrap();
    send(&mut push, &database, &rest).unwrap();
    push.finish(End::Proof(database.proof())).unwrap();
    assert_holds(&replica, 2, &database);
    assert_sound(&repository);
}

#[test]
fn a_killed_push_loses_the_segments_that_were_not_durable_and_no_more() {
    let store = Arc::new(InMemory::new());
    let (watched, counts) = Watched::new(store.clone());
    let database = Database::new(PageSize::MIN, 5120, 1);
    let repository = Repository::over(watched, runtime(), None).with_segment_bytes(100_000).unwrap();
    let replica = repository.replica(&id());
    let mut push = Push::of(&database).open(&replica).unwrap();
    send(&mut push, &database, &(1..=4608).collect::<Vec<_>>()).unwrap();
    counts.stopped.store(true, Ordering::SeqCst);
    drop(push);
    // Of nine blocks of 512 pages, each in a segment of its own, the last but one was being made
    // durable and the last was being filled.
    let replica = Repository::over(store, runtime(), None).replica(&id());
    let (mut push, rest, reused) = reopen(&replica, &database, "key");
    assert_eq!(reused, 7 * 512);
    send(&mut push, &database, &rest).unwrap();
    push.finish(End::Proof(database.proof())).unwrap();
    assert_holds(&replica, 1, &database);
}
