//! Two sides of ours, joined through wires in memory, each on a thread of its own.

use bytes::Bytes;
use proptest::prelude::*;
use sqlrsync_protocol::conversation::{
    ExchangeError, Fidelity, OriginOptions, Quiet, ReplicaOptions, Wire, run_origin, run_replica,
};
use sqlrsync_protocol::exchange::{Base, Refusal};
use sqlrsync_protocol::memory::{Content, MemoryOrigin, MemoryReplica, wires};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};

use crate::support::{Random, Script, changed, exchange, exchange_over, random_content, random_page, told};

fn options(origin: u8, replica: u8) -> (OriginOptions, ReplicaOptions) {
    (
        OriginOptions { version_max: origin, ..OriginOptions::default() },
        ReplicaOptions { version_max: replica, ..ReplicaOptions::default() },
    )
}

const KIB: PageSize = PageSize::from_log2(10).unwrap();

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Any database ends as any other, whatever the two sides speak and the wire holds.
    #[test]
    fn the_replica_ends_as_the_origin(
        seed: u64,
        origin_speaks in 1u8..=3,
        replica_speaks in 1u8..=3,
        held in prop_oneof![Just(0u32), 1..40u32, 90..130u32, 250..400u32, 1000..1100u32],
        pages in prop_oneof![1..40u32, 90..130u32, 250..400u32, 1000..1100u32],
        changes in 0usize..60,
        piece in 1usize..5000,
        room in 0usize..3,
    ) {
        let mut random = Random(seed);
        let old = random_content(PageSize::MIN, held, &mut random);
        let new = changed(&old, pages, changes, &mut random);
        let mut replica = MemoryReplica::of((held > 0).then(|| old.clone()));
        let mut origin = MemoryOrigin::new(new.clone());
        let (near, far) = exchange_over(
            options(origin_speaks, replica_speaks), &mut origin, &mut replica, wires(piece, room));
        prop_assert_eq!((told(&near), told(&far)), ("done".to_string(), "done".to_string()));
        prop_assert_eq!(replica.content().map(Content::root), Some(new.root()));
        let (near, far) = (near.unwrap(), far.unwrap());
        prop_assert_eq!(near.version, origin_speaks.min(replica_speaks));
        prop_assert_eq!((near.bytes_sent, near.bytes_received), (far.bytes_received, far.bytes_sent));
        prop_assert_eq!(near.pages_sent, far.pages_received);
        // No page is sent twice, and in version 3 none that was there.
        let differ = new.changed_since(&old).count() as u64;
        prop_assert!(near.pages_sent <= u64::from(pages));
        if near.version == 3 {
            prop_assert_eq!(near.pages_sent, differ);
        }
    }
}

#[test]
fn a_wire_is_told_the_version_once_it_is_settled() {
    for (origin, replica, agreed) in [(3, 3, 3), (3, 2, 2), (2, 3, 2), (3, 1, 1), (1, 3, 1)] {
        let content = random_content(KIB, 3, &mut Random(1));
        let (near, mut far) = wires(100, 1);
        let (origin_options, replica_options) = options(origin, replica);
        std::thread::scope(move |scope| {
            // Each end goes with its side, also where that panics: the other one waits for it.
            let mut near = near;
            scope.spawn(move || {
                let mut pages = MemoryReplica::empty();
                let quiet = &mut Quiet;
                run_replica(replica_options, &mut pages, &mut far, quiet).unwrap();
                assert_eq!(far.version, Some(agreed));
                drop(far);
            });
            let mut pages = MemoryOrigin::new(content);
            let quiet = &mut Quiet;
            run_origin(origin_options, &mut pages, &mut near, quiet).unwrap();
            assert_eq!(near.version, Some(agreed));
            // It is this closure's own so, and ends with it also where it fails: the other side waits for that.
            drop(near);
        });
    }
}

/// 65,536-byte pages up to past 2^30: the page of the lock byte has junk in the origin.
#[test]
fn the_lock_page_is_neither_compared_nor_sent() {
    let page_size = PageSize::MAX;
    let lock_page = page_size.lock_page();
    let page_count = PageCount(lock_page.get() + 2);
    let mut random = Random(5);
    let mut held = Content::zeros(Geometry { page_size, page_count: PageCount(page_count.get() - 1) });
    held.set(PageNumber::FIRST, &random_page(page_size, &mut random));
    let mut content = held.clone();
    content.resize(page_count);
    content.set(lock_page, &vec![7; page_size.bytes()]);
    for number in [1, 40, lock_page.get() + 1, lock_page.get() + 2] {
        content.set(PageNumber::new(number).unwrap(), &random_page(page_size, &mut random));
    }
    for version in [2, 3] {
        let mut replica = MemoryReplica::of([held.clone()]);
        let mut origin = MemoryOrigin::new(content.clone());
        let (near, far) =
            exchange_over(options(version, version), &mut origin, &mut replica, wires(70_000, 4));
        assert_eq!((told(&near), told(&far)), ("done".into(), "done".into()));
        assert_eq!(near.unwrap().pages_sent, 4);
        assert!(replica.content().unwrap().page(lock_page).iter().all(|byte| *byte == 0));
        assert_eq!(replica.content().unwrap().root(), content.root());
    }
}

#[test]
fn a_page_size_of_another_kind_is_refused_on_both_sides_in_version_2() {
    let mut replica = MemoryReplica::of([random_content(PageSize::MIN, 4, &mut Random(1))]);
    let mut origin = MemoryOrigin::new(random_content(KIB, 4, &mut Random(2)));
    let (near, far) = exchange_over(options(2, 3), &mut origin, &mut replica, wires(100, 1));
    let text = "page size mismatch; origin is 1024 bytes and replica is 512 bytes";
    assert_eq!(told(&near), format!("peer: Failed {text}"));
    assert_eq!(told(&far), format!("protocol: {text}"));
}

#[test]
fn an_origin_need_not_wait_for_the_wire_to_close() {
    let content = random_content(KIB, 3, &mut Random(1));
    // The other end answers as a replica that has nothing would, and stays open.
    let mut origin = MemoryOrigin::new(content);
    let script = Script::of(&[&[0x64; 21][..], &[0x65]].concat(), |len| len);
    let mut wire = StaysOpen(script);
    let options = OriginOptions { version_max: 2, await_close: false, ..OriginOptions::default() };
    let quiet = &mut Quiet;
    let summary = run_origin(options, &mut origin, &mut wire, quiet).unwrap();
    assert_eq!(summary.pages_sent, 3);
}

struct StaysOpen(Script);

impl Wire for StaysOpen {
    type Error = std::convert::Infallible;

    fn send(&mut self, bytes: Bytes) -> Result<(), Self::Error> {
        self.0.send(bytes)
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Self::Error> {
        Ok(Some(self.0.input.pop_front().expect("nothing more is to be read")))
    }
}

/// The origin sends on while the replica refuses and closes: it reports the replica's reason, and not
/// a broken wire.
#[test]
fn a_refusal_is_heard_although_the_wire_broke() {
    let old = random_content(KIB, 300, &mut Random(1));
    let new = changed(&old, 3000, 300, &mut Random(2));
    let mut replica = MemoryReplica::of([old]).keeping_unknown();
    let mut origin = MemoryOrigin::new(new);
    let (near, far) = exchange(&mut origin, &mut replica);
    assert_eq!(told(&far), "local: the replica was changed locally");
    assert!(
        matches!(&near, Err(ExchangeError::Peer { refusal: Refusal::Failed, text }) if text == "the replica was changed locally")
    );
    assert_eq!(replica.versions.len(), 1);
}

#[test]
fn to_the_letter_of_sqlite3_rsync_a_grown_database_loses_a_page_and_by_default_it_does_not() {
    let old = random_content(PageSize::MIN, 200, &mut Random(1));
    let new = changed(&old, 260, 10, &mut Random(2));
    for (near, far, whole) in [
        (Fidelity::AsRecorded, Fidelity::AsRecorded, false),
        (Fidelity::Whole, Fidelity::AsRecorded, true),
        (Fidelity::AsRecorded, Fidelity::Whole, true),
    ] {
        let origin_options = OriginOptions { version_max: 2, fidelity: near, ..OriginOptions::default() };
        let replica_options = ReplicaOptions { version_max: 2, fidelity: far, ..ReplicaOptions::default() };
        let mut replica = MemoryReplica::of([old.clone()]);
        let mut origin = MemoryOrigin::new(new.clone());
        let outcome =
            exchange_over((origin_options, replica_options), &mut origin, &mut replica, wires(500, 2));
        assert_eq!((told(&outcome.0), told(&outcome.1)), ("done".into(), "done".into()));
        assert_eq!(replica.content().unwrap().root() == new.root(), whole);
    }
}

#[test]
fn a_base_is_of_no_use_to_an_older_replica() {
    let old = random_content(KIB, 20, &mut Random(1));
    let new = changed(&old, 22, 3, &mut Random(2));
    let base = Base { version: None, root: old.root() };
    let mut origin = MemoryOrigin::new(new.clone()).with_base(base, old.clone());
    let mut replica = MemoryReplica::of([old]);
    let (near, _) = exchange_over(options(3, 2), &mut origin, &mut replica, wires(500, 2));
    assert_eq!(near.unwrap().version, 2);
    assert_eq!(replica.content().unwrap().root(), new.root());
}
