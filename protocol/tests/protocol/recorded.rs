//! Each side, fed the recorded other side, sends the recorded bytes, however the input is cut.

use sqlrsync_protocol::conversation::{
    ExchangeError, Fidelity, OriginOptions, Quiet, ReplicaOptions, Violation, run_origin, run_replica,
};
use sqlrsync_protocol::memory::{Content, MemoryOrigin, MemoryReplica};
use sqlrsync_protocol::page::PageNumber;

use crate::support::{Case, Random, Script, cases};

/// Whole, byte by byte, and cut at random three times.
fn scripts(bytes: &[u8]) -> Vec<Script> {
    let mut scripts = vec![Script::of(bytes, |len| len), Script::of(bytes, |_| 1)];
    for seed in 1..=3 {
        let mut random = Random(seed);
        scripts.push(Script::of(bytes, |_| 1 + random.below(300)));
    }
    scripts
}

fn play_origin(case: &Case, fidelity: Fidelity, script: &mut Script) -> Result<(), String> {
    let options = OriginOptions { version_max: case.protocol, fidelity, ..OriginOptions::default() };
    let mut pages = MemoryOrigin::new(case.origin.clone());
    run_origin(options, &mut pages, script, &mut Quiet).map(drop).map_err(|error| error.to_string())
}

fn play_replica(case: &Case, fidelity: Fidelity, script: &mut Script) -> (MemoryReplica, Result<(), String>) {
    let options = ReplicaOptions { version_max: 2, fidelity, ..ReplicaOptions::default() };
    let mut pages = MemoryReplica::of(case.replica_before.clone());
    let outcome = run_replica(options, &mut pages, script, &mut Quiet);
    (pages, outcome.map(drop).map_err(|error| error.to_string()))
}

const MISMATCH: &str = "page size mismatch; origin is 1024 bytes and replica is 4096 bytes";

#[test]
fn the_origin_sends_the_recorded_bytes() {
    for case in cases() {
        for mut script in scripts(&case.replica_bytes) {
            let outcome = play_origin(&case, Fidelity::AsRecorded, &mut script);
            assert!(script.sent == case.origin_bytes, "{}", case.name);
            match case.name.as_str() {
                "page-size-mismatch" => assert_eq!(outcome, Err(MISMATCH.into())),
                name => assert_eq!(outcome, Ok(()), "{name}"),
            }
        }
    }
}

#[test]
fn the_replica_sends_the_recorded_bytes_and_ends_with_the_recorded_content() {
    for case in cases() {
        for mut script in scripts(&case.origin_bytes) {
            let (pages, outcome) = play_replica(&case, Fidelity::AsRecorded, &mut script);
            assert!(script.sent == case.replica_bytes, "{}", case.name);
            if case.name == "page-size-mismatch" {
                assert_eq!(outcome, Err(MISMATCH.into()));
                continue;
            }
            // The recorded replica of `grown-512` lacks a page; ours has no way to invent it either.
            assert_eq!(pages.content().map(Content::root), Some(case.replica_after.root()), "{}", case.name);
        }
    }
}

/// The recording `grown-512` shows sqlite3_rsync losing page 293: the replica's is all zeros.
#[test]
fn sqlite3_rsync_loses_a_page_where_a_database_grew() {
    let case = cases().into_iter().find(|case| case.name == "grown-512").unwrap();
    let lost: Vec<u32> = case.origin.changed_since(&case.replica_after).map(PageNumber::get).collect();
    assert_eq!(lost, [293]);
    assert!(case.replica_after.page(PageNumber::new(293).unwrap()).iter().all(|byte| *byte == 0));
}

#[test]
fn by_default_the_bytes_differ_only_where_a_page_would_be_lost() {
    for case in cases() {
        let mut script = Script::of(&case.replica_bytes, |len| len);
        let _ = play_origin(&case, Fidelity::Whole, &mut script);
        assert_eq!(script.sent == case.origin_bytes, case.name != "grown-512", "{}", case.name);
        let mut script = Script::of(&case.origin_bytes, |len| len);
        let _ = play_replica(&case, Fidelity::Whole, &mut script);
        let sent = script.sent == case.replica_bytes;
        assert_eq!(sent, case.name != "grown-512", "{}", case.name);
    }
}

#[test]
fn our_origin_sends_the_page_that_sqlite3_rsync_would_lose() {
    let case = cases().into_iter().find(|case| case.name == "grown-512").unwrap();
    let mut script = Script::of(&case.replica_bytes, |len| len);
    play_origin(&case, Fidelity::Whole, &mut script).unwrap();
    // What the origin sent, given to a replica that is as the recorded one was.
    let mut fed = Script::of(&script.sent, |len| len);
    let (pages, outcome) = play_replica(&case, Fidelity::AsRecorded, &mut fed);
    assert_eq!(outcome, Ok(()));
    assert_eq!(pages.content().map(Content::root), Some(case.origin.root()));
}

#[test]
fn our_replica_refuses_to_end_with_a_page_lost() {
    let case = cases().into_iter().find(|case| case.name == "grown-512").unwrap();
    let mut script = Script::of(&case.origin_bytes, |len| len);
    let mut pages = MemoryReplica::of(case.replica_before.clone());
    let outcome = run_replica(ReplicaOptions::default(), &mut pages, &mut script, &mut Quiet);
    let missing = Violation::Missing(PageNumber::new(293).unwrap());
    assert!(matches!(outcome, Err(ExchangeError::Protocol(violation)) if violation == missing));
    assert_eq!(pages.versions.len(), 1);
}

/// Whatever the byte at which the peer closes, the other side says so and has not finished.
#[test]
fn a_recorded_session_cut_at_any_byte_finishes_nothing() {
    let case = cases().into_iter().find(|case| case.name == "one-row-512").unwrap();
    for len in 0..case.origin_bytes.len() {
        let mut script = Script::of(&case.origin_bytes[..len], |len| len);
        let mut pages = MemoryReplica::of(case.replica_before.clone());
        let outcome = run_replica(ReplicaOptions::default(), &mut pages, &mut script, &mut Quiet);
        assert!(matches!(outcome, Err(ExchangeError::Closed)), "{len} bytes");
        assert_eq!(pages.versions.len(), 1);
    }
    for len in (0..case.replica_bytes.len()).step_by(13) {
        let mut script = Script::of(&case.replica_bytes[..len], |len| len);
        let options = OriginOptions { version_max: 2, ..OriginOptions::default() };
        let mut pages = MemoryOrigin::new(case.origin.clone());
        let outcome = run_origin(options, &mut pages, &mut script, &mut Quiet);
        assert!(matches!(outcome, Err(ExchangeError::Closed)), "{len} bytes");
    }
}
