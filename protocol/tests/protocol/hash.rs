//! The sponge against every recorded hash (`recordings/hash.json`).

use sqlrsync_protocol::sponge::{Hash20, hash20};

#[derive(serde::Deserialize)]
struct Entry {
    fill: String,
    len: usize,
    hash: String,
}

fn fill(kind: &str, len: usize) -> Vec<u8> {
    match kind {
        "zero" => vec![0; len],
        "counter" => (0..len).map(|i| i as u8).collect(),
        "lcg" => {
            let mut s = 12345u32.wrapping_add(len as u32);
            let next = || {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 24) as u8
            };
            std::iter::repeat_with(next).take(len).collect()
        }
        other => panic!("unknown fill {other}"),
    }
}

#[test]
fn every_recorded_hash_is_computed() {
    let entries: Vec<Entry> = serde_json::from_str(include_str!("recordings/hash.json")).unwrap();
    assert!(entries.len() > 50);
    for entry in entries {
        let expected: Hash20 = entry.hash.parse().unwrap();
        assert_eq!(hash20(&fill(&entry.fill, entry.len)), expected, "{} {}", entry.fill, entry.len);
    }
}
