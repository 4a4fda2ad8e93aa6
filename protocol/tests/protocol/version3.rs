//! Version 3: every ground, resuming, and the proof.

use proptest::prelude::*;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::conversation::{ExchangeError, Summary};
use sqlrsync_protocol::exchange::{Base, Ground, PushId, Refusal};
use sqlrsync_protocol::memory::{Content, MemoryOrigin, MemoryReplica, wires};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize, VersionNumber};

use crate::support::{Random, changed, copies, exchange, exchange_over, random_content, random_page, told};

const KIB: PageSize = PageSize::from_log2(10).unwrap();

fn version(number: u64) -> Option<VersionNumber> {
    VersionNumber::new(number)
}

/// Three states of a database, each some pages apart from the one before.
fn history(pages: u32) -> [Content; 3] {
    let mut random = Random(u64::from(pages));
    let first = random_content(KIB, pages, &mut random);
    let second = changed(&first, pages + 3, 5, &mut random);
    let third = changed(&second, pages + 1, 4, &mut random);
    [first, second, third]
}

fn differ(new: &Content, old: &Content) -> u64 {
    new.changed_since(old).count() as u64
}

#[test]
fn nothing_held_everything_sent() {
    let [content, ..] = history(700);
    let (mut origin, mut replica) = (MemoryOrigin::new(content.clone()), MemoryReplica::empty());
    let (near, far) = copies(&mut origin, &mut replica, &content);
    assert_eq!((near.pages_sent, near.hash_rounds, far.pages_received), (700, 0, 700));
    assert_eq!(replica.ground, Some(Ground::Nothing { recognised: false }));
    assert_eq!(origin.committed, Some(near.committed));
    assert_eq!((near.committed.version, near.committed.unchanged), (version(1), false));
    // The fields that the canonical form leaves out have travelled beside it.
    assert_eq!(replica.content(), Some(&content));
}

#[test]
fn an_equal_replica_takes_neither_a_hash_nor_a_page() {
    let [content, ..] = history(700);
    let mut origin = MemoryOrigin::new(content.clone());
    let mut replica = MemoryReplica::of([content.clone()]);
    let (near, _) = copies(&mut origin, &mut replica, &content);
    assert_eq!((near.pages_sent, near.hash_rounds), (0, 0));
    assert!(near.committed.unchanged);
    assert!(near.bytes_sent + near.bytes_received < 300);
}

#[test]
fn a_base_known_to_both_takes_no_hash_and_what_changed() {
    let [old, new, _] = history(700);
    let mut origin = MemoryOrigin::new(new.clone()).knowing(old.clone());
    let mut replica = MemoryReplica::of([old.clone()]);
    let (near, _) = copies(&mut origin, &mut replica, &new);
    assert_eq!((near.pages_sent, near.hash_rounds), (differ(&new, &old), 0));
    assert_eq!(replica.ground, Some(Ground::Held));
    assert!(!near.committed.overtook);
}

#[test]
fn a_base_that_is_not_the_latest_is_proposed_and_taken() {
    let [base, theirs, _] = history(700);
    let mine = changed(&base, 702, 3, &mut Random(77));
    let push_id = PushId([9; 16]);
    let said = Base { version: version(1), root: base.root() };
    let mut origin = MemoryOrigin::new(mine.clone()).with_base(said, base.clone()).with_push_id(push_id);
    let mut replica = MemoryReplica::of([base.clone(), theirs]);
    let (near, _) = copies(&mut origin, &mut replica, &mine);
    assert_eq!((near.pages_sent, near.hash_rounds), (differ(&mine, &base), 0));
    assert_eq!(replica.ground, Some(Ground::Proposed(said)));
    assert_eq!(replica.push_id, Some(push_id));
    assert_eq!((near.committed.version, near.committed.overtook), (version(3), true));
}

#[test]
fn a_base_that_the_replica_lost_is_refused_and_trees_are_compared() {
    let [base, theirs, mine] = history(700);
    let said = Base { version: version(1), root: base.root() };
    let mut origin = MemoryOrigin::new(mine.clone()).with_base(said, base).with_push_id(PushId([8; 16]));
    let mut replica = MemoryReplica::of([theirs.clone()]);
    let (near, far) = copies(&mut origin, &mut replica, &mine);
    assert_eq!(near.pages_sent, differ(&mine, &theirs));
    assert!(near.hash_rounds > 0 && near.hash_rounds == far.hash_rounds);
    assert_eq!(replica.ground, Some(Ground::Compared));
    assert_eq!(replica.push_id, Some(PushId([8; 16])));
}

#[test]
fn a_replica_that_keeps_what_is_unknown_refuses_before_a_page_is_sent() {
    let [theirs, mine, _] = history(700);
    let mut origin = MemoryOrigin::new(mine.clone());
    let mut replica = MemoryReplica::of([theirs.clone()]).keeping_unknown();
    let (near, far) = exchange(&mut origin, &mut replica);
    assert_eq!(told(&far), "local: the replica was changed locally");
    assert!(matches!(near, Err(ExchangeError::Peer { .. })));
    assert_eq!(replica.versions, std::slice::from_ref(&theirs));
    // What the origin knows for its own is not lost.
    let mut origin = MemoryOrigin::new(mine.clone()).knowing(theirs);
    copies(&mut origin, &mut replica, &mine);
}

#[test]
fn another_page_size_sends_everything_and_says_whether_the_content_is_known() {
    let old = random_content(PageSize::MIN, 50, &mut Random(1));
    let new = random_content(KIB, 30, &mut Random(2));
    for known in [false, true] {
        let origin = MemoryOrigin::new(new.clone());
        let mut origin = if known { origin.knowing(old.clone()) } else { origin };
        let mut replica = MemoryReplica::of([old.clone()]);
        let (near, _) = copies(&mut origin, &mut replica, &new);
        assert_eq!((near.pages_sent, near.hash_rounds), (30, 0));
        assert_eq!(replica.ground, Some(Ground::Nothing { recognised: known }));
    }
}

#[test]
fn an_emptied_database_empties_the_replica_and_back() {
    let [content, ..] = history(300);
    let empty = Content::zeros(Geometry { page_size: KIB, page_count: PageCount::ZERO });
    let mut replica = MemoryReplica::of([content.clone()]);
    copies(&mut MemoryOrigin::new(empty.clone()), &mut replica, &empty);
    copies(&mut MemoryOrigin::new(content.clone()), &mut replica, &content);
}

/// Trees of every pair of heights up to three, with few differences far apart.
#[test]
fn trees_of_different_heights_are_compared_node_by_node() {
    let counts = [1, 200, 256, 257, 5000, 65_536, 65_537, 66_000];
    let mut random = Random(3);
    for held in counts {
        for pages in counts {
            let geometry = |pages| Geometry { page_size: PageSize::MIN, page_count: PageCount(pages) };
            let old = Content::zeros(geometry(held));
            let mut new = Content::zeros(geometry(pages));
            for _ in 0..4 {
                let number = PageNumber::new(1 + random.below(pages as usize) as u32).unwrap();
                new.set(number, &random_page(PageSize::MIN, &mut random));
            }
            let mut replica = MemoryReplica::of([old.clone()]);
            let (near, _) = copies(&mut MemoryOrigin::new(new.clone()), &mut replica, &new);
            assert_eq!(near.pages_sent, differ(&new, &old), "{held} to {pages}");
            assert!(near.hash_rounds <= 3, "{held} to {pages}: {}", near.hash_rounds);
        }
    }
}

/// Cuts a first push after so many bytes and pushes again, with another content if `then` is one.
fn resumed(content: &Content, cut: usize, then: &Content) -> (usize, Summary) {
    let mut replica = MemoryReplica::empty();
    let (near, far) = wires(4096, 2);
    let wires = (near.cut_after(cut), far);
    let (near, far) =
        exchange_over(Default::default(), &mut MemoryOrigin::new(content.clone()), &mut replica, wires);
    assert!(near.is_err() && far.is_err());
    assert!(replica.versions.is_empty());
    let staged: usize = replica.staged.iter().map(|block: &Block| block.page_count() as usize).sum();
    let (near, _) = copies(&mut MemoryOrigin::new(then.clone()), &mut replica, then);
    (staged, near)
}

#[test]
fn a_cut_push_goes_on_with_what_had_arrived() {
    let [content, ..] = history(2000);
    let (staged, summary) = resumed(&content, 200_000, &content);
    assert!(staged >= 256, "{staged}");
    assert_eq!(summary.pages_sent, 2000 - staged as u64);
}

#[test]
fn a_cut_push_goes_on_although_the_database_has_changed() {
    let [content, ..] = history(2000);
    let mut then = content.clone();
    then.set(PageNumber::new(5).unwrap(), &random_page(KIB, &mut Random(1)));
    let (staged, summary) = resumed(&content, 200_000, &then);
    // The block that holds page 5 is of no use any more; the others are.
    assert_eq!(summary.pages_sent, 2000 - (staged as u64 - 256));
}

#[test]
fn a_session_cut_at_any_byte_of_either_direction_finishes_nothing() {
    let [old, new, _] = history(40);
    let start = || (MemoryOrigin::new(new.clone()), MemoryReplica::of([old.clone()]));
    let (mut origin, mut replica) = start();
    let (near, _) = exchange(&mut origin, &mut replica);
    let lens = (near.as_ref().unwrap().bytes_sent as usize, near.unwrap().bytes_received as usize);
    for len in 0..lens.0 {
        let (mut origin, mut replica) = start();
        let (near, far) = wires(1 << 20, 8);
        let outcome =
            exchange_over(Default::default(), &mut origin, &mut replica, (near.cut_after(len), far));
        assert!(outcome.0.is_err() && outcome.1.is_err(), "{len} of {}", lens.0);
        assert_eq!(replica.versions.len(), 1);
    }
    for len in 0..lens.1 {
        let (mut origin, mut replica) = start();
        let (near, far) = wires(1 << 20, 8);
        let outcome =
            exchange_over(Default::default(), &mut origin, &mut replica, (near, far.cut_after(len)));
        assert!(outcome.0.is_err(), "{len} of {}", lens.1);
        // Only the answer was lost where all but it was sent: then the push id tells a repeated push.
        assert!(origin.committed.is_none());
    }
}

#[test]
fn an_error_of_the_replica_reaches_the_origin_with_its_kind() {
    let [content, ..] = history(10);
    let mut replica = MemoryReplica::empty();
    let mut lying = Lying(MemoryOrigin::new(content));
    let outcomes = exchange(&mut lying, &mut replica);
    assert!(matches!(&outcomes.0, Err(ExchangeError::Peer { refusal: Refusal::Integrity, .. })));
    assert_eq!(told(&outcomes.1), "local: the root is not what the origin claims");
    assert!(replica.versions.is_empty());
}

/// An origin that claims another root than what it sends has.
struct Lying(MemoryOrigin);

mod lying {
    use sqlrsync_protocol::block::Block;
    use sqlrsync_protocol::exchange::{Base, Committed, OriginPages, Proof, PushId, Wanted};
    use sqlrsync_protocol::hash::{PageHash, Root};
    use sqlrsync_protocol::memory::MemoryError;
    use sqlrsync_protocol::page::{Geometry, PageNumber};
    use sqlrsync_protocol::sponge::Hash20;
    use sqlrsync_protocol::tree::NodeId;

    type Result<T> = std::result::Result<T, MemoryError>;

    impl OriginPages for super::Lying {
        type Error = MemoryError;

        fn geometry(&mut self) -> Result<Geometry> {
            self.0.geometry()
        }
        fn base(&mut self) -> Result<Option<Base>> {
            self.0.base()
        }
        fn push_id(&mut self) -> Result<Option<PushId>> {
            self.0.push_id()
        }
        fn knows(&mut self, base: &Base) -> Result<bool> {
            self.0.knows(base)
        }
        fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20> {
            self.0.group_hash(first, count)
        }
        fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>> {
            self.0.node(node)
        }
        fn begin(&mut self, wanted: Wanted) -> Result<()> {
            self.0.begin(wanted)
        }
        fn reused(&mut self) -> Result<Vec<u32>> {
            self.0.reused()
        }
        fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>> {
            self.0.next_page(page)
        }
        fn next_block(&mut self) -> Result<Option<Block>> {
            self.0.next_block()
        }
        fn proof(&mut self) -> Result<Proof> {
            Ok(Proof { root: Root([1; 32]), ..self.0.proof()? })
        }
        fn acknowledged(&mut self, committed: Committed) -> Result<()> {
            self.0.acknowledged(committed)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever each side knows of the other, the replica ends as the origin and no page is sent in vain.
    #[test]
    fn every_state_of_knowledge_ends_in_the_same_content(
        seed: u64,
        pages in 1u32..600,
        knows: bool,
        proposes: bool,
        held in 0usize..4,
    ) {
        let mut random = Random(seed);
        let first = random_content(KIB, pages, &mut random);
        let second = changed(&first, pages + 2, 3, &mut random);
        let third = changed(&second, pages + 1, 3, &mut random);
        let mine = changed(&first, pages, 4, &mut random);
        let versions = [first.clone(), second.clone(), third.clone()];
        let mut origin = MemoryOrigin::new(mine.clone());
        if knows {
            origin = origin.knowing(third).knowing(second);
        }
        if proposes {
            origin = origin.with_base(Base { version: version(1), root: first.root() }, first);
        }
        let mut replica = MemoryReplica::of(versions.into_iter().take(held));
        let (near, _) = copies(&mut origin, &mut replica, &mine);
        prop_assert!(near.pages_sent <= u64::from(pages));
    }
}
