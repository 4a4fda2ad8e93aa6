//! Runs every target over its corpus, and writes the seeds that a corpus begins with.

use std::fs;

use bytes::BytesMut;

use super::input::Input;
use super::{TARGETS, corpus_of, run_over_corpora};
use crate::block::{BlockBuilder, Effort};
use crate::control;
use crate::key::{Key, Kind, SECRET_LEN};
use crate::page::{PageNumber, PageSize};

#[test]
fn every_target_holds_over_its_corpus() {
    run_over_corpora(TARGETS);
}

/// Writes the seeds: `cargo test -p sqlrsync-protocol -- --ignored write_seeds`. What a fuzzer found is
/// added to the folders by hand and stays.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    for (target, seeds) in seeds() {
        let folder = corpus_of(target);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds {
            fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
        }
    }
}

type Seeds = Vec<(String, Vec<u8>)>;

fn seeds() -> Vec<(&'static str, Seeds)> {
    vec![
        ("block", blocks()),
        ("control", connections()),
        ("cutter", runs()),
        ("exchange", noise(12)),
        ("origin_conversation", noise(12)),
        ("replica_conversation", noise(12)),
        ("origin_stream", stream(|input, out| input.origin_message(PageSize::MIN, out))),
        ("replica_stream", stream(|input, out| input.replica_message(out))),
        ("duration", texts(&["90s", "1h30m", "1w2d", "4294967295s", "0s", "1.5h", "7102w"])),
        ("key", keys()),
        ("remote", texts(REMOTES)),
        ("subscription", texts(SUBSCRIPTIONS)),
        ("text", texts(TEXTS)),
    ]
}

/// Inputs of up to 1,500 bytes from a generator, the first few bytes small: they say which versions and
/// how many pages.
fn noise(count: u32) -> Seeds {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|n| (n.to_string(), (0..(n + 1) * 125).map(|_| next()).collect())).collect()
}

/// Messages of every kind, whole and cut.
fn stream(message: impl Fn(&mut Input<'_>, &mut BytesMut)) -> Seeds {
    let mut seeds = Vec::new();
    for (name, bytes) in noise(4) {
        let (mut input, mut out) = (Input(&bytes), BytesMut::new());
        while !input.is_empty() && out.len() < 4000 {
            message(&mut input, &mut out);
        }
        for piece_len in [9, 239] {
            let mut seed = vec![name.parse::<u8>().unwrap_or(0)];
            for piece in out.chunks(piece_len) {
                seed.push(piece.len() as u8);
                seed.extend_from_slice(piece);
            }
            seeds.push((format!("{name}-{piece_len}"), seed));
        }
    }
    seeds
}

const REMOTES: &[&str] = &[
    "team/app.db",
    "team/folder/app (1).db@latest-2",
    "team/ü/データ.db@v7",
    "me@host:/srv/app.db",
    "me@[::1]:~/app.db",
    "./a/../b",
    "team/../x",
    "-2",
    "C:\\data\\app.db",
];

const SUBSCRIPTIONS: &[&str] = &[
    "PING",
    r#"{"type":"SUBSCRIBE","data":{"replicaID":"abc-1"},"timestamp":"2026-03-01T12:00:00Z"}"#,
    r#"{"type":"LATEST_VERSION","data":{"version":"7"}}"#,
    r#"{"type":"ERROR","data":{"message":"a\u001b[2J\ud83e\udd80"}}"#,
    r#"{"type":"PONG","data":null}"#,
];

const TEXTS: &[&str] = &[
    r#"CONFIG={"replicaID":"abc","replicaPath":"team/app.db","committedVersionID":"7","keyType":"PUSH","newPullKey":"k","newPushKey":"k"}"#,
    r#"CONFIG={"keyType":"PULL","more":[1,{}]}"#,
    "MESSAGE=a\x1b[31m\u{202e}b",
    "ABORT=VERSION_CONFLICT:9",
    "ABORT=no",
];

fn texts(texts: &[&str]) -> Seeds {
    texts.iter().enumerate().map(|(n, text)| (n.to_string(), text.as_bytes().to_vec())).collect()
}

fn keys() -> Seeds {
    let keys =
        Kind::ALL.map(|kind| Key::new(kind, std::array::from_fn::<u8, SECRET_LEN, _>(|i| i as u8)).secret());
    texts(&keys.each_ref().map(String::as_str))
}

/// Page size, then a block without its checksum.
fn blocks() -> Seeds {
    [Effort::None, Effort::Fast, Effort::Small]
        .map(|effort| (format!("{effort:?}").to_lowercase(), block(effort)))
        .to_vec()
}

fn block(effort: Effort) -> Vec<u8> {
    let mut builder = BlockBuilder::new(PageSize::MIN);
    for number in [1, 2, 9] {
        let page: Vec<u8> = (0..512u32).map(|i| (i * i * number / 64) as u8).collect();
        builder.push(PageNumber::new(number).unwrap(), &page);
    }
    let block = builder.finish(effort).unwrap();
    [&[0], &block.as_bytes()[16..]].concat()
}

/// Direction, then messages with their lengths before them.
fn connection(direction: u8, messages: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![direction];
    for message in messages {
        bytes.push(message.len() as u8);
        bytes.extend_from_slice(message);
    }
    bytes
}

fn connections() -> Seeds {
    let begin: &[u8] = &[0x41, 2, 12, 0, 0, 0, 9];
    let message = control::commit_message("first").unwrap();
    let hash = [0x64; 21];
    let named = |name: &str, bytes| (name.to_owned(), bytes);
    vec![
        named("push", connection(0, &[begin, &control::config(), &control::key_request(), b"D\0\0\0\x01x"])),
        named("message", connection(0, &[&message, &control::config(), begin, b"\x51"])),
        named("changed", connection(0, &[&control::changed(5), &control::changed(1), begin])),
        named("pull", connection(1, &[&hash, &control::key_request(), &control::config(), &hash, b"\x53"])),
        named("new-version", connection(1, &[&control::new_replica_version(), b"\x42"])),
    ]
}

/// Rows of equal bytes, see [`super::cutter`]: a page of 8,192 bytes, and one that cannot be cut.
fn runs() -> Seeds {
    let begin = [[0x41, 0, 1], [2, 0, 1], [13, 0, 1], [0, 0, 4], [0x44, 0, 1], [1, 0, 4]];
    let page = |rows: &[[u8; 3]]| [begin.as_flattened(), rows.as_flattened(), &[[0x42, 0, 1]; 1][0]].concat();
    vec![
        ("page".to_owned(), page(&[[0x42, 0x0f, 0xff], [7, 0x10, 0x01]])),
        ("refused".to_owned(), page(&[[0x42, 0x20, 0x00]])),
        ("hashes".to_owned(), [[0x64, 0, 21]; 60].concat()),
    ]
}
