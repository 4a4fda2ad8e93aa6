//! `docs/protocol-v3.md` against the code: the table of codes, the hashes, and the session in it.

use std::fmt::Write as _;

use sqlrsync_protocol::block::Effort;
use sqlrsync_protocol::conversation::{OriginOptions, Quiet, ReplicaOptions, run_origin, run_replica};
use sqlrsync_protocol::exchange::{Base, PushId};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::memory::{Content, MemoryOrigin, MemoryReplica, wires};
use sqlrsync_protocol::message::{CODES, Layout};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize, VersionNumber};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol-v3.md")).unwrap()
}

/// Pages of 512 bytes, each of one byte.
fn content(bytes: &[u8]) -> Content {
    let page_count = PageCount(bytes.len() as u32);
    let mut content = Content::zeros(Geometry { page_size: PageSize::MIN, page_count });
    for (number, byte) in content.numbers().zip(bytes) {
        content.set(number, &[*byte; 512]);
    }
    content
}

/// What the origin and the replica send.
fn session() -> [Vec<u8>; 2] {
    let base = Base { version: VersionNumber::new(7), root: content(&[1]).root() };
    let mut origin = MemoryOrigin::new(content(&[1, 0x22, 3]))
        .with_base(base, content(&[1]))
        .with_push_id(PushId([0xaa; 16]))
        .with_effort(Effort::Fast);
    // Eight other versions before the one that it has.
    let mut versions: Vec<Content> = (10..18).map(|byte| content(&[byte])).collect();
    versions.push(content(&[1, 2]));
    let mut replica = MemoryReplica::of(versions);
    let (near, mut far) = wires(1 << 20, 8);
    std::thread::scope(move |scope| {
        // Each end goes with its side, also where that panics: the other one waits for it.
        let mut near = near;
        let far = scope.spawn(move || {
            run_replica(ReplicaOptions::default(), &mut replica, &mut far, &mut Quiet).unwrap();
            far.sent
        });
        run_origin(OriginOptions::default(), &mut origin, &mut near, &mut Quiet).unwrap();
        [near.sent, far.join().unwrap()]
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes in the document's session that this side sends.
fn documented(side: &str) -> String {
    let document = document();
    let chapter = document.split("A session\n").nth(1).unwrap();
    let session = chapter.split("```text").nth(1).unwrap().split("```").next().unwrap();
    let lines = session.lines().filter_map(|line| line.strip_prefix(side)?.strip_prefix(' '));
    lines.map(|line| line.split('#').next().unwrap().replace(' ', "")).collect()
}

#[test]
fn the_session_in_the_document_is_what_two_sides_say() {
    let [origin, replica] = session();
    assert_eq!(documented("O"), hex(&origin));
    assert_eq!(documented("R"), hex(&replica));
}

#[test]
fn the_hashes_in_the_document_are_what_is_computed() {
    let document = document();
    let replica = content(&[1, 2]);
    let page = |number| PageHash::of(&replica.canonical(PageNumber::new(number).unwrap()));
    for (what, hash) in [
        ("hash of canonical page 1", page(1).to_string()),
        ("hash of the replica's page 2", page(2).to_string()),
        ("hash of a page of zeros", PageHash::of(&[0; 512]).to_string()),
        ("top of the replica's tree", replica.levels()[1][0].to_string()),
        ("root of the replica", replica.root().to_string()),
        ("root of the origin", content(&[1, 0x22, 3]).root().to_string()),
        ("root of the base", content(&[1]).root().to_string()),
        ("root of a database of 512-byte pages that has none", content(&[]).root().to_string()),
    ] {
        assert!(document.contains(&format!("| {what} | `{hash}` |")), "| {what} | `{hash}` |");
    }
}

#[test]
fn the_table_of_codes_in_the_document_is_the_one_in_the_code() {
    let document = document();
    for code in CODES.iter().filter(|code| code.versions.1 == 3) {
        let longest = match code.layout {
            Layout::Long(max) => format!("{max} "),
            Layout::Fixed(_) | Layout::Page => String::new(),
        };
        let row = format!("| {:#04x} | {} | {longest}|", code.value, code.name);
        assert!(document.contains(&row), "{row}");
    }
}
