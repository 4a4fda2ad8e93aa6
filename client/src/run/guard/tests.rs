//! A push that would only undo what others pushed is held back; one with changes of its own is not.

use std::thread;

use sqlrsync_protocol::conversation::{
    OriginOptions, Quiet, ReplicaOptions, Summary, run_origin, run_replica,
};
use sqlrsync_protocol::memory::{Content, MemoryError, MemoryOrigin, MemoryReplica, WireCut, wires};
use sqlrsync_protocol::page::{PageCount, PageSize, VersionNumber};

use super::*;

type End<S> = Result<Ended<S>, ExchangeError<MemoryError, WireCut>>;

/// A content of forty pages; `change` is in one of them.
fn content(change: u8) -> Content {
    let page_size = PageSize::from_bytes(512).unwrap();
    let mut content = Content::zeros(Geometry { page_size, page_count: PageCount(40) });
    for number in 1..=40 {
        content.set(PageNumber::new(number).unwrap(), &[number as u8; 512]);
    }
    content.set(PageNumber::new(7).unwrap(), &[change; 512]);
    content
}

fn base_of(content: &Content, version: u64) -> Base {
    Base { version: VersionNumber::new(version), root: content.root() }
}

/// Sends `ours`, last agreed on as `base`, to a replica with these versions.
fn send(
    ours: Content,
    base: &Content,
    versions: Vec<Content>,
    guard: OriginGuard,
) -> (End<Summary>, MemoryReplica) {
    let origin = MemoryOrigin::new(ours).with_base(base_of(base, 1), base.clone());
    let mut guarded = GuardedOrigin::new(origin, guard);
    let mut replica = MemoryReplica::of(versions);
    let (here, there) = wires(4096, 1 << 20);
    let end = thread::scope(|scope| {
        // Each end goes with its side, also where that panics: the other one waits for it.
        let mut here = here;
        scope.spawn(|| {
            let mut there = there;
            let _ = run_replica(ReplicaOptions::default(), &mut replica, &mut there, &mut Quiet);
        });
        let end = run_origin(OriginOptions::default(), &mut guarded, &mut here, &mut Quiet);
        drop(here);
        end
    });
    (ended(end), replica)
}

const PUSH: OriginGuard = OriginGuard { dry: false, stop_stale: true };

#[test]
fn a_push_without_changes_does_not_undo_what_others_pushed() {
    let versions = vec![content(1), content(2)];
    let (end, replica) = send(content(1), &content(1), versions.clone(), PUSH);
    let Ok(Ended::Stale { latest }) = end else { panic!("{end:?}") };
    assert_eq!(latest.root, content(2).root());
    assert_eq!(replica.versions.len(), 2);
    let (end, replica) = send(content(1), &content(1), versions, OriginGuard { stop_stale: false, ..PUSH });
    assert!(matches!(end, Ok(Ended::Done(_))), "with --force it is: {end:?}");
    assert_eq!(replica.content().unwrap().root(), content(1).root());
}

#[test]
fn a_push_with_changes_goes_on_top_of_what_others_pushed() {
    let (end, replica) = send(content(3), &content(1), vec![content(1), content(2)], PUSH);
    assert!(matches!(end, Ok(Ended::Done(_))), "{end:?}");
    assert_eq!(replica.content().unwrap().root(), content(3).root());
}

#[test]
fn a_dry_push_counts_what_would_be_sent_and_sends_nothing() {
    let (end, replica) = send(content(3), &content(1), vec![content(1)], OriginGuard { dry: true, ..PUSH });
    let Ok(Ended::Counted(count)) = end else { panic!("{end:?}") };
    assert_eq!((count.pages, count.at_most), (1, false));
    assert!(count.bytes > 0);
    assert_eq!(replica.versions.len(), 1);
}

#[test]
fn a_dry_push_of_old_content_says_that_it_is_old() {
    let guard = OriginGuard { dry: true, ..PUSH };
    let (end, _) = send(content(1), &content(1), vec![content(1), content(2)], guard);
    assert!(matches!(end, Ok(Ended::Stale { .. })), "{end:?}");
}

#[test]
fn a_dry_pull_takes_nothing_and_says_so() {
    let mut origin = MemoryOrigin::new(content(2)).knowing(content(1));
    let mut guarded = GuardedReplica::new(MemoryReplica::of([content(1)]), true);
    let (here, there) = wires(4096, 1 << 20);
    let (end, told) = thread::scope(|scope| {
        let mut here = here;
        let origin = scope.spawn(|| {
            let mut there = there;
            run_origin(OriginOptions::default(), &mut origin, &mut there, &mut Quiet)
        });
        let end = run_replica(ReplicaOptions::default(), &mut guarded, &mut here, &mut Quiet);
        drop(here);
        (end, origin.join().unwrap())
    });
    let Ok(Ended::Counted(count)) = ended(end) else { panic!() };
    assert!(matches!(told, Err(ExchangeError::Peer { refusal: Refusal::NotWanted, .. })), "{told:?}");
    assert_eq!((count.pages, count.bytes, count.at_most), (1, 512, true));
    assert_eq!(guarded.into_inner().content().unwrap().root(), content(1).root());
}

#[test]
fn an_announced_number_of_pages_counts_over_those_that_came() {
    let count = Count { pages: 2, bytes: 1024, at_most: true };
    assert_eq!(count.of_announced(Some(10)), Count { pages: 10, bytes: 5120, at_most: true });
    assert_eq!(count.of_announced(None), count);
}
