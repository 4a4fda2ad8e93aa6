//! Peers that send what they may not: each gets a clear error, is told of it, and nothing has changed.

use std::convert::Infallible;

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::*;
use sqlrsync_protocol::block::{Block, BlockBuilder, Effort};
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, Quiet, ReplicaOptions, Violation, run_origin, run_replica,
};
use sqlrsync_protocol::exchange::{Base, Ground, Proof, StagedBlock};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::memory::{Content, MemoryError, MemoryOrigin, MemoryReplica};
use sqlrsync_protocol::message::{Opening, OriginMessage, ReplicaMessage, limits};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

use crate::support::{Random, Script, random_content};

const SIZE: PageSize = PageSize::MIN;

fn number(number: u32) -> PageNumber {
    PageNumber::new(number).unwrap()
}

fn held() -> Content {
    random_content(SIZE, 130, &mut Random(4))
}

fn begin(version: u8) -> OriginMessage {
    OriginMessage::Begin { version, geometry: Geometry { page_size: SIZE, page_count: PageCount(131) } }
}

fn page(n: u32) -> OriginMessage {
    OriginMessage::Page { number: number(n), page: vec![1; SIZE.bytes()].into() }
}

fn block(pages: &[u32]) -> Block {
    let mut builder = BlockBuilder::new(SIZE);
    pages.iter().for_each(|n| builder.push(number(*n), &[3; 512]));
    builder.finish(Effort::Fast).unwrap()
}

fn proof(pages: u32) -> OriginMessage {
    let fields = HeaderFields::default();
    OriginMessage::Proof(Proof { page_count: PageCount(pages), root: Root([3; 32]), fields })
}

fn base(ground: Ground) -> OriginMessage {
    OriginMessage::Base { ground, push_id: None }
}

fn plan(reused: &[u32]) -> OriginMessage {
    OriginMessage::Plan { pages: None, reused: reused.to_vec() }
}

fn node(level: u8, index: u32) -> NodeId {
    NodeId { level, index }
}

fn detail(first: u32, count: u32) -> OriginMessage {
    OriginMessage::Detail { first: number(first), count }
}

fn origin_bytes(messages: &[OriginMessage]) -> Vec<u8> {
    let mut out = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out.to_vec()
}

fn replica_bytes(messages: &[ReplicaMessage]) -> Vec<u8> {
    let mut out = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out.to_vec()
}

/// What a replica says of an origin that sends this; it tells the origin the same.
fn replica_says(stream: &[u8]) -> String {
    let mut pages = MemoryReplica::of([held()]);
    let mut script = Script::of(stream, |len| len);
    let outcome = run_replica(ReplicaOptions::default(), &mut pages, &mut script, &mut Quiet);
    let text = outcome.unwrap_err().to_string();
    assert!(script.sent.ends_with(text.as_bytes()), "not told: {text}");
    assert_eq!(pages.versions.len(), 1);
    text
}

/// What an origin says of a replica that sends this.
fn origin_says(version_max: u8, stream: &[u8]) -> String {
    let mut script = Script::of(stream, |len| len);
    let options = OriginOptions { version_max, ..OriginOptions::default() };
    let outcome = run_origin(options, &mut MemoryOrigin::new(held()), &mut script, &mut Quiet);
    let text = outcome.unwrap_err().to_string();
    assert!(script.sent.ends_with(text.as_bytes()), "not told: {text}");
    text
}

fn replica_refuses(messages: &[OriginMessage], because: &str) {
    assert_eq!(replica_says(&origin_bytes(messages)), because);
}

fn origin_refuses(version: u8, messages: &[ReplicaMessage], because: &str) {
    assert_eq!(origin_says(version, &replica_bytes(messages)), because);
}

#[test]
fn messages_out_of_order_are_refused_by_a_replica() {
    let held = base(Ground::Held);
    let mut order = vec![
        (vec![page(1)], "a page came before the page size was known"),
        (vec![OriginMessage::End], "ORIGIN_END came where ORIGIN_BEGIN is expected"),
        (vec![begin(2), begin(2)], "ORIGIN_BEGIN came where ORIGIN_DETAIL or pages are expected"),
        (vec![begin(2), OriginMessage::End], "ORIGIN_END came where ORIGIN_DETAIL or pages are expected"),
        (
            vec![begin(2), detail(2, 30), page(1)],
            "ORIGIN_PAGE came where ORIGIN_DETAIL or pages are expected",
        ),
        (
            vec![begin(2), page(1), OriginMessage::End],
            "ORIGIN_END came where pages, ORIGIN_TXN or ORIGIN_END are expected",
        ),
        (vec![begin(2), proof(1)], "ORIGIN_PROOF is not part of the protocol version agreed on"),
        (vec![begin(1), detail(2, 30)], "ORIGIN_DETAIL is not part of the protocol version agreed on"),
        (vec![begin(3), page(1)], "ORIGIN_PAGE is not part of the protocol version agreed on"),
    ];
    let expected = "where ORIGIN_NODES or ORIGIN_BASE is expected";
    let (plan_came, batch_came, proof_came) = (
        format!("ORIGIN_PLAN came {expected}"),
        format!("ORIGIN_BATCH came {expected}"),
        format!("ORIGIN_PROOF came {expected}"),
    );
    order.extend([
        (vec![begin(3), plan(&[])], &*plan_came),
        (vec![begin(3), OriginMessage::Batch(block(&[1]))], &*batch_came),
        (vec![begin(3), proof(130)], &*proof_came),
        (vec![begin(3), held.clone(), held.clone()], "ORIGIN_BASE came where ORIGIN_PLAN is expected"),
        (
            vec![begin(3), held.clone(), OriginMessage::Batch(block(&[1]))],
            "ORIGIN_BATCH came where ORIGIN_PLAN is expected",
        ),
        (
            vec![begin(3), held, plan(&[]), plan(&[])],
            "ORIGIN_PLAN came where batches or ORIGIN_PROOF are expected",
        ),
    ]);
    for (messages, because) in order {
        replica_refuses(&messages, because);
    }
}

#[test]
fn messages_out_of_order_are_refused_by_an_origin() {
    let hash = ReplicaMessage::Hash(Hash20([1; 20]));
    let open = ReplicaMessage::Open(Opening { geometry: None, base: None, staged: 0 });
    let done = ReplicaMessage::Done(Default::default());
    let config = ReplicaMessage::Config { first: number(1), count: 2 };
    for (version, messages, because) in [
        (3, vec![hash.clone()], "REPLICA_HASH came where REPLICA_BEGIN, hashes or REPLICA_OPEN are expected"),
        (2, vec![open.clone()], "REPLICA_OPEN came where hashes are expected"),
        (1, vec![config], "REPLICA_CONFIG came where hashes are expected"),
        (2, vec![ReplicaMessage::Ready, hash], "REPLICA_HASH came after ORIGIN_END"),
        (3, vec![open.clone(), open.clone()], "REPLICA_OPEN came where REPLICA_DONE is expected"),
        (3, vec![done.clone()], "REPLICA_DONE came where REPLICA_BEGIN, hashes or REPLICA_OPEN are expected"),
        (3, vec![open, ReplicaMessage::Base(true)], "REPLICA_BASE came where REPLICA_DONE is expected"),
    ] {
        origin_refuses(version, &messages, because);
    }
}

#[test]
fn versions_that_do_not_exist_are_refused() {
    replica_refuses(&[begin(0)], "protocol version 0 was named; this side speaks 3 and lower");
    replica_refuses(&[begin(9), begin(4)], "protocol version 4 was named; this side speaks 3 and lower");
    for version in [0, 3, 200] {
        let because = format!("protocol version {version} was named; this side speaks 3 and lower");
        origin_refuses(3, &[ReplicaMessage::Begin(version)], &because);
    }
}

#[test]
fn unknown_codes_and_wrong_directions_are_refused() {
    assert_eq!(replica_says(&[0x00]), "a message begins with the byte 0x00, which is no code here");
    assert_eq!(replica_says(&[0x64]), "a message begins with the byte 0x64, which is no code here");
    assert_eq!(origin_says(3, &[0xff]), "a message begins with the byte 0xff, which is no code here");
}

#[test]
fn lengths_of_four_gigabytes_are_refused_before_memory_is_taken() {
    for (code, name, max) in [
        (0x43, "ORIGIN_ERROR", limits::TEXT_LEN_MAX),
        (0x46, "ORIGIN_MSG", limits::TEXT_LEN_MAX),
        (0x49, "ORIGIN_NODES", limits::NODES_MAX * 5),
        (0x4b, "ORIGIN_PLAN", 4 + 4 * limits::STAGED_BLOCKS_MAX),
        (0x4c, "ORIGIN_BATCH", sqlrsync_protocol::block::BLOCK_ENCODED_MAX),
    ] {
        let mut stream = origin_bytes(&[begin(3)]);
        stream.extend([code, 0xff, 0xff, 0xff, 0xff]);
        let because = format!("{name} claims a length of 4294967295 bytes; the maximum is {max}");
        assert_eq!(replica_says(&stream), because);
    }
}

#[test]
fn pages_that_cannot_be_are_refused() {
    let lock = SIZE.lock_page().get();
    let txn = |count| OriginMessage::Txn(PageCount(count));
    replica_refuses(&[begin(2), page(lock)], &format!("page {lock} was sent, which SQLite keeps for locks"));
    replica_refuses(&[begin(2), page(132), txn(131)], "page 132 was sent for a database of 131 pages");
    replica_refuses(&[begin(2), page(1), page(1)], "page 1 was sent twice, or out of order");
    let missing = "page 131 was never sent (a fault of sqlite3_rsync where a database grew); start again";
    replica_refuses(&[begin(2), page(1), txn(131)], missing);
    let mut zero = origin_bytes(&[begin(2)]);
    zero.extend([0x44, 0, 0, 0, 0]);
    zero.extend([0; 512]);
    assert_eq!(replica_says(&zero), "ORIGIN_PAGE has a wrong page number");
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let sent = |blocks: &[&[u32]], end: u32| {
        let mut messages = vec![begin(3), base(Ground::Held), plan(&[])];
        messages.extend(blocks.iter().map(|pages| OriginMessage::Batch(block(pages))));
        messages.push(proof(end));
        messages
    };
    let lock = SIZE.lock_page().get();
    replica_refuses(&sent(&[&[5, 6], &[6, 7]], 130), "page 6 was sent twice, or out of order");
    replica_refuses(&sent(&[&[5, 6], &[1]], 130), "page 1 was sent twice, or out of order");
    replica_refuses(&sent(&[&[131]], 130), "page 131 was sent for a database of 130 pages");
    let because = format!("page {lock} was sent, which SQLite keeps for locks");
    replica_refuses(&sent(&[&[1, lock - 1, lock]], lock), &because);
    let mut damaged =
        origin_bytes(&[begin(3), base(Ground::Held), plan(&[]), OriginMessage::Batch(block(&[4]))]);
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(replica_says(&damaged), "damaged ORIGIN_BATCH: block has a wrong checksum");
}

#[test]
fn a_push_that_claims_another_root_is_refused() {
    let messages = [begin(3), base(Ground::Held), plan(&[]), OriginMessage::Batch(block(&[4])), proof(130)];
    replica_refuses(&messages, "the root is not what the origin claims");
}

#[test]
fn grounds_that_do_not_fit_are_refused() {
    let because = "the base named is not what the replica has";
    let unknown = Base { version: None, root: Root([5; 32]) };
    let proposed = base(Ground::Proposed(unknown));
    replica_refuses(&[begin(3), proposed.clone(), proposed], because);
    // A replica that has nothing was not asked what it has.
    for ground in [Ground::Held, Ground::Compared, Ground::Nothing { recognised: true }] {
        let stream = origin_bytes(&[begin(3), base(ground)]);
        let mut script = Script::of(&stream, |len| len);
        let mut pages = MemoryReplica::empty();
        let outcome = run_replica(ReplicaOptions::default(), &mut pages, &mut script, &mut Quiet);
        assert_eq!(outcome.unwrap_err().to_string(), because, "{ground:?}");
    }
    replica_refuses(&[begin(3), base(Ground::Held), plan(&[0])], "staged block 0 was never named");
}

#[test]
fn nodes_that_do_not_exist_or_without_end_are_refused() {
    let ask = |nodes: &[NodeId]| OriginMessage::Nodes(nodes.to_vec());
    replica_refuses(&[begin(3), ask(&[node(2, 0)])], "node 0 of level 2 of the page tree is not there");
    replica_refuses(&[begin(3), ask(&[node(1, 1)])], "node 1 of level 1 of the page tree is not there");
    let once = ask(&[node(1, 0)]);
    replica_refuses(&[begin(3), once.clone(), once], "nodes of the page tree without end");
    let mut stream = origin_bytes(&[begin(3)]);
    stream.extend([0x49, 0, 0, 0, 5, 0, 0, 0, 0, 0]);
    assert_eq!(replica_says(&stream), "ORIGIN_NODES has a wrong node level");
}

fn open(staged: u32) -> ReplicaMessage {
    let geometry = Geometry { page_size: SIZE, page_count: PageCount(130) };
    ReplicaMessage::Open(Opening { geometry: Some(geometry), base: None, staged })
}

#[test]
fn nodes_that_were_not_asked_for_are_refused() {
    let sent = |node, children| ReplicaMessage::Node { node, children: vec![[0; 16]; children] };
    let not_there = "node 0 of level 2 of the page tree is not there";
    origin_refuses(3, &[open(0), sent(node(2, 0), 1)], not_there);
    let wrong = "node 0 of level 1 of the page tree has a wrong number of children";
    origin_refuses(3, &[open(0), sent(node(1, 0), 129)], wrong);
}

#[test]
fn more_staged_blocks_than_announced_or_allowed_are_refused() {
    let block = StagedBlock { runs: vec![(number(1), 1)], hash: PageHash([1; 32]) };
    let many = ReplicaMessage::Staged(vec![block.clone(), block]);
    origin_refuses(3, &[open(1), many], "more staged blocks than there may be");
    let stream = replica_bytes(&[open(limits::STAGED_BLOCKS_MAX as u32 + 1)]);
    assert_eq!(origin_says(3, &stream), "REPLICA_OPEN has a wrong number of staged blocks");
    let block =
        StagedBlock { runs: (1..=512).map(|n| (number(n * 2), 1)).collect(), hash: PageHash([1; 32]) };
    let blocks = vec![block; limits::STAGED_RUNS_MAX / 512 + 1];
    let stream = replica_bytes(&[open(blocks.len() as u32), ReplicaMessage::Staged(blocks)]);
    assert_eq!(origin_says(3, &stream), "more staged blocks than there may be");
}

#[test]
fn hashes_and_details_without_end_are_refused() {
    // Each of these hashes is over all pages; each DETAIL asks for all of them again.
    let over_all =
        [ReplicaMessage::Config { first: number(1), count: 130 }, ReplicaMessage::Hash(Hash20([1; 20]))];
    let stream = vec![over_all; 1000].concat();
    origin_refuses(2, &stream, "hashes without end");
    let again = [detail(1, 131), OriginMessage::Ready];
    let stream = [vec![begin(2)], vec![again; 20].concat()].concat();
    replica_refuses(&stream, "details without end");
    replica_refuses(
        &[begin(2), detail(2, 30), detail(20, 30)],
        "hashes were asked for from page 20, which is past the end",
    );
    replica_refuses(
        &[begin(2), detail(130, 3)],
        "hashes were asked for from page 130, which is past the end",
    );
    replica_refuses(
        &[begin(2), detail(9, u32::MAX)],
        "hashes were asked for from page 9, which is past the end",
    );
}

#[test]
fn a_text_for_the_user_is_heard_at_any_time() {
    struct Heard(Vec<String>);
    impl sqlrsync_protocol::conversation::Observer for Heard {
        fn message(&mut self, text: &str) {
            self.0.push(text.into());
        }
    }
    let text = OriginMessage::Message("be\x1b[2Jware".into());
    let stream = origin_bytes(&[text.clone(), begin(3), text.clone(), base(Ground::Held), text]);
    let mut script = Script::of(&stream, |_| 1);
    let mut heard = Heard(Vec::new());
    let _ = run_replica(ReplicaOptions::default(), &mut MemoryReplica::of([held()]), &mut script, &mut heard);
    assert_eq!(heard.0, ["be [2Jware"; 3]);
}

/// Messages that are right in themselves, of an origin.
fn any_origin_message() -> impl Strategy<Value = OriginMessage> {
    let node_id = (1u8..=4, 0u32..3).prop_map(|(level, index)| node(level, index));
    prop_oneof![
        (0u8..5).prop_map(begin),
        (1u32..140).prop_map(page),
        (1u32..140, 1u32..140).prop_map(|(first, count)| detail(first, count)),
        (100u32..140).prop_map(|count| OriginMessage::Txn(PageCount(count))),
        (0u32..140).prop_map(proof),
        (1u32..140).prop_map(|n| OriginMessage::Batch(block(&[n]))),
        proptest::collection::vec(node_id, 1..4).prop_map(OriginMessage::Nodes),
        Just(plan(&[])),
        Just(OriginMessage::End),
        Just(OriginMessage::Ready),
        Just(base(Ground::Held)),
        Just(base(Ground::Compared)),
        Just(base(Ground::Nothing { recognised: false })),
        Just(base(Ground::Proposed(Base { version: None, root: Root([5; 32]) }))),
        Just(OriginMessage::Message("hello".into())),
    ]
}

/// Messages that are right in themselves, of a replica.
fn any_replica_message() -> impl Strategy<Value = ReplicaMessage> {
    prop_oneof![
        (0u8..5).prop_map(ReplicaMessage::Begin),
        any::<u8>().prop_map(|byte| ReplicaMessage::Hash(Hash20([byte; 20]))),
        (1u32..400, 1u32..400)
            .prop_map(|(first, count)| ReplicaMessage::Config { first: number(first), count }),
        (0u32..2).prop_map(open),
        (1u8..=4, 0u32..3, 0usize..256).prop_map(|(level, index, children)| {
            ReplicaMessage::Node { node: node(level, index), children: vec![[1; 16]; children] }
        }),
        any::<bool>().prop_map(ReplicaMessage::Base),
        Just(ReplicaMessage::Ready),
        Just(ReplicaMessage::End),
        Just(ReplicaMessage::Done(Default::default())),
        Just(ReplicaMessage::Staged(vec![StagedBlock {
            runs: vec![(number(1), 3)],
            hash: PageHash([1; 32])
        }])),
    ]
}

/// The state that a side is in before the stream of the peer comes; the fault is the peer's, whatever
/// it is, and a replica that fails has changed nothing.
fn feed_replica(version_max: u8, versions: usize, keeps: bool, mut script: Script) {
    let mut pages = MemoryReplica::of([held(), held()].into_iter().take(versions));
    if keeps {
        pages = pages.keeping_unknown();
    }
    let options = ReplicaOptions { version_max, ..ReplicaOptions::default() };
    let outcome = run_replica(options, &mut pages, &mut script, &mut Quiet).map(drop);
    assert!(outcome.is_ok() || pages.versions.len() == versions);
    judge(outcome);
}

fn feed_origin(version_max: u8, proposes: bool, mut script: Script) {
    let mut pages = MemoryOrigin::new(held());
    if proposes {
        let old = random_content(SIZE, 9, &mut Random(8));
        pages = pages.with_base(Base { version: None, root: old.root() }, old);
    }
    let options = OriginOptions { version_max, ..OriginOptions::default() };
    judge(run_origin(options, &mut pages, &mut script, &mut Quiet).map(drop));
}

fn judge(outcome: Result<(), ExchangeError<MemoryError, Infallible>>) {
    match outcome {
        Err(ExchangeError::Protocol(Violation::Misused(what))) => panic!("{what}"),
        Err(ExchangeError::Local(MemoryError::Order)) => panic!("a call out of order"),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(
        data in proptest::collection::vec(any::<u8>(), 0..600), version in 1u8..=3, piece in 1usize..90,
    ) {
        for data in [data.clone(), [origin_bytes(&[begin(version)]), data.clone()].concat()] {
            feed_replica(3, 1, false, Script::of(&data, |_| piece));
        }
        feed_origin(version, true, Script::of(&data, |_| piece));
    }

    #[test]
    fn messages_in_any_order_do_no_harm_to_a_replica(
        opens in proptest::option::of(1u8..=3),
        messages in proptest::collection::vec(any_origin_message(), 0..12),
        versions in 0usize..3,
        keeps: bool,
        piece in 1usize..2000,
    ) {
        let messages: Vec<_> = opens.map(begin).into_iter().chain(messages).collect();
        feed_replica(opens.unwrap_or(3), versions, keeps, Script::of(&origin_bytes(&messages), |_| piece));
    }

    #[test]
    fn messages_in_any_order_do_no_harm_to_an_origin(
        version in 1u8..=3,
        proposes: bool,
        messages in proptest::collection::vec(any_replica_message(), 0..12),
        piece in 1usize..2000,
    ) {
        feed_origin(version, proposes, Script::of(&replica_bytes(&messages), |_| piece));
    }
}

/// Staged blocks that need several frames arrive as they were.
#[test]
fn many_staged_blocks_travel_in_several_frames() {
    let blocks: Vec<StagedBlock> = (1..=3000)
        .map(|n| StagedBlock {
            runs: vec![(number(n), 1), (number(n + 9), 7)],
            hash: PageHash([n as u8; 32]),
        })
        .collect();
    let mut out = BytesMut::new();
    ReplicaMessage::Staged(blocks.clone()).encode(&mut out);
    out.put_u8(0x65);
    let mut decoder = sqlrsync_protocol::message::Decoder::<ReplicaMessage>::new();
    decoder.feed(out.freeze());
    let (mut read, mut frames) = (Vec::new(), 0);
    while let Some(ReplicaMessage::Staged(some)) = decoder.next_message().unwrap() {
        read.extend(some);
        frames += 1;
    }
    assert!(frames > 1);
    assert_eq!(read, blocks);
}
