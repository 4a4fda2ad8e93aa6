//! What stands beside versions and is no more than a hint: what clients were last seen to have, and what was
//! worked out about a version.

use sqlrsync_repository::{ClientKey, Described, MergeBase, PARENTS_BYTES_MAX, PULLED_MAX};

use crate::merged::Sides;
use crate::support::*;

fn key(path: &str) -> ClientKey {
    ClientKey { client_id: "client".into(), host: "host".into(), local_path: path.into() }
}

#[test]
fn what_a_client_was_last_seen_to_have_is_known_by_client_host_and_file() {
    let sides = Sides::in_memory();
    let replica = &sides.replica;
    assert_eq!(replica.client_record(&key("/a")).unwrap(), None);
    replica.client_pulled(&key("/a"), number(1)).unwrap();
    let candidate = sides.mine();
    replica.client_pushed(&key("/a"), &candidate.content).unwrap();
    for n in [1, 2, 1, 1] {
        replica.client_pulled(&key("/a"), number(n)).unwrap();
    }
    let record = replica.client_record(&key("/a")).unwrap().unwrap();
    assert_eq!(record.pushed, Some(MergeBase::of(&candidate.content)));
    assert_eq!(record.pulled, [number(2), number(1)], "the last one last, each once");
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
    for n in 1..=PULLED_MAX as u64 + 10 {
        sides.replica.client_pulled(&ClientKey::any_file("x"), number(n)).unwrap();
    }
    let record = sides.replica.client_record(&ClientKey::any_file("x")).unwrap().unwrap();
    assert_eq!((record.pulled.len(), record.pulled[0]), (PULLED_MAX, number(11)));
    let long = key(&"x".repeat(5000));
    assert!(sides.replica.client_pulled(&long, number(1)).is_err());
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
