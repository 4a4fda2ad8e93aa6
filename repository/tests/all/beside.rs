//! What stands beside versions and is no more than a hint: what clients were last seen to have, and what was
//! worked out about a version.

use jiff::Timestamp;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_repository::{ClientKey, ClientRecord, Described, MergeBase, PARENTS_BYTES_MAX, PULLED_MAX};

use crate::sides::Sides;
use crate::support::*;

fn versions(numbers: impl Iterator<Item = u64>) -> Vec<VersionNumber> {
    numbers.map(number).collect()
}

fn key(path: &str) -> ClientKey {
    ClientKey { client_id: "client".into(), host: "host".into(), local_path: path.into() }
}

#[test]
fn what_a_client_was_last_seen_to_have_is_known_by_client_host_and_file() {
    let sides = Sides::in_memory();
    let replica = &sides.replica;
    assert_eq!(replica.client_record(&key("/a")).unwrap(), None);
    let candidate = sides.mine();
    let record = |pulled: &[u64]| ClientRecord {
        time: Timestamp::UNIX_EPOCH,
        pushed: Some(MergeBase::of(&candidate.content)),
        pulled: versions(pulled.iter().copied()),
    };
    for pulled in [&[][..], &[1, 2, 1]] {
        replica.put_client_record(&key("/a"), &record(pulled)).unwrap();
        assert_eq!(replica.client_record(&key("/a")).unwrap(), Some(record(pulled)));
    }
    // Other files, and the same letters divided otherwise, are others.
    assert_eq!(replica.client_record(&key("/b")).unwrap(), None);
    let divided = ClientKey { client_id: "clienth".into(), host: "ost".into(), local_path: "/a".into() };
    assert_eq!(replica.client_record(&divided).unwrap(), None);
    assert_eq!(replica.client_record(&ClientKey::any_file("client")).unwrap(), None);
    assert_sound(&sides.repository);
}

#[test]
fn a_record_has_the_last_versions_only_and_no_long_texts() {
    let sides = Sides::in_memory();
    let pulled = versions(1..=PULLED_MAX as u64 + 10);
    let record = ClientRecord { time: Timestamp::UNIX_EPOCH, pushed: None, pulled };
    sides.replica.put_client_record(&ClientKey::any_file("x"), &record).unwrap();
    let found = sides.replica.client_record(&ClientKey::any_file("x")).unwrap().unwrap();
    assert_eq!((found.pulled.len(), found.pulled[0]), (PULLED_MAX, number(11)));
    assert!(sides.replica.put_client_record(&key(&"x".repeat(5000)), &record).is_err());
    assert_eq!(ClientKey::of(&sides.version(1)), ClientKey::default());
    assert_eq!(Described::of_version(&sides.version(1)).author, "test");
}

#[test]
fn what_is_kept_beside_a_version_comes_back_for_that_version_only() {
    let sides = Sides::in_memory();
    let replica = &sides.replica;
    let [first, second] = [1, 2].map(|n| sides.version(n));
    assert_eq!(replica.parents(&first).unwrap(), None);
    assert!(replica.put_parents(&first, b"one").unwrap());
    assert!(replica.put_parents(&second, b"").unwrap());
    assert_eq!(replica.parents(&first).unwrap().unwrap(), b"one"[..]);
    assert_eq!(replica.parents(&second).unwrap().unwrap(), b""[..]);
    assert_eq!(replica.with_parents().unwrap(), [number(1), number(2)]);
    assert!(replica.put_parents(&first, b"two").unwrap());
    assert_eq!(replica.parents(&first).unwrap().unwrap(), b"two"[..]);
    assert!(!replica.put_parents(&first, &vec![0; PARENTS_BYTES_MAX + 1]).unwrap());
    // A candidate has no number of its own.
    let candidate = sides.mine();
    assert!(!replica.put_parents(&candidate.content, b"three").unwrap());
    assert_eq!(replica.parents(&candidate.content).unwrap(), None);
    replica.remove_parents(number(1)).unwrap();
    assert_eq!(replica.parents(&first).unwrap(), None);
    assert_sound(&sides.repository);
}
