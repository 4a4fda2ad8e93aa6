//! Bodies of the fuzz targets: each takes any bytes, must not panic, and what it accepts must come back
//! as it was when it is written again. Unit tests call them over `fuzz/corpus/`; `docs/fuzzing.md` says
//! how to fuzz for longer. Not part of the public interface.
//!
//! A checksum would keep a fuzzer out of all that is behind it. So each reader gets the bytes as they are,
//! and once more with their checksum in front, as a hostile author would seal them.

#![allow(clippy::unwrap_used, reason = "a panic is how a target says that it found something")]

use std::hint::black_box;

use bytes::Bytes;
use serde_json::Value;
use sqlrsync_protocol::fuzzing::Target;
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageSize, VersionNumber};

use crate::candidate::{Candidate, Pointer};
use crate::client::ClientRecord;
use crate::conflict;
use crate::hashes20::Hashes20;
use crate::id::{Name, ReplicaId, SegmentId};
use crate::manifest::Manifest;
use crate::parents;
use crate::sealed::check_of;
use crate::segment::format::{Footer, HEADER_LEN, decode_header, decode_index, decode_top};
use crate::segment::node;
use crate::staged::StagedRecord;

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("manifest", manifest),
    ("merging_objects", merging_objects),
    ("object_name", object_name),
    ("segment", segment),
    ("side_objects", side_objects),
    ("tree_node", tree_node),
];

/// The content with its checksum in front.
fn sealed(content: &[u8]) -> Vec<u8> {
    [&check_of(content)[..], content].concat()
}

/// The parts of a segment around its blocks: header, index, top and footer.
pub fn segment(bytes: &[u8]) {
    segment_part(bytes);
    segment_part(&sealed(bytes));
    // A header has its checksum at its end.
    let _ = black_box(decode_header(&[bytes, &check_of(bytes)[..]].concat()));
}

fn segment_part(bytes: &[u8]) {
    let _ = black_box(decode_header(bytes.get(..HEADER_LEN).unwrap_or(bytes)));
    let _ = black_box(decode_index(bytes));
    let _ = black_box(decode_top(bytes));
    if let Ok((footer, check)) = Footer::decode(bytes) {
        assert_eq!(footer.encode(), (bytes.to_vec(), check));
    }
}

/// A node of the page tree.
pub fn tree_node(bytes: &[u8]) {
    for bytes in [bytes, &sealed(bytes)] {
        if let Ok((place, children)) = node::decode(bytes) {
            let again = node::encode(place, &children);
            assert_eq!(node::decode(&again), Ok((place, children)));
        }
    }
}

/// A manifest, or the JSON that stands in one.
pub fn manifest(bytes: &[u8]) {
    one_manifest(bytes);
    if let Some(body) = with_root(bytes) {
        let line = format!("sqlrsync manifest 1 {}\n", blake3::hash(&body).to_hex());
        one_manifest(&[line.as_bytes(), &body].concat());
    }
}

fn one_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        let again = manifest.encode().ok().map(|again| Manifest::decode(&again));
        assert_eq!(again, Some(Ok(manifest)));
    }
}

/// The JSON with the root that follows from its other fields, which no fuzzer would find.
fn with_root(json: &[u8]) -> Option<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(json).ok()?;
    let number = |name: &str| json.get(name)?.as_u64().and_then(|n| u32::try_from(n).ok());
    let page_size = PageSize::from_bytes(number("page_size")?)?;
    let page_count = PageCount(number("page_count")?);
    let top: PageHash = json.get("top")?.get("hash")?.as_str()?.parse().ok()?;
    let root = Root::of(Geometry { page_size, page_count }, top);
    json.as_object_mut()?.insert("root".to_owned(), root.to_string().into());
    serde_json::to_vec(&json).ok()
}

/// The objects beside a segment: 20-byte hashes and staged records.
pub fn side_objects(bytes: &[u8]) {
    let id = SegmentId([1; 16]);
    for bytes in [bytes, &sealed(bytes)] {
        if let Ok(hashes) = Hashes20::decode(bytes, id) {
            assert_eq!(Hashes20::decode(&hashes.encode(id), id), Ok(hashes));
        }
        if let Ok(record) = StagedRecord::decode(bytes) {
            assert_eq!(StagedRecord::decode(&record.encode()), Ok(record));
        }
    }
}

/// What merging keeps: candidates and which of them has a root, steps of conflicts, client records, and what is
/// worked out about a version. As they are, or as the JSON that stands in one.
pub fn merging_objects(bytes: &[u8]) {
    one_merging_object(bytes);
    one_merging_object(&sealed(bytes));
    let json = with_roots(bytes);
    for kind in ["candidate", "candidate-root", "conflict", "client"] {
        for body in [bytes, json.as_deref().unwrap_or_default()] {
            let line = format!("sqlrsync {kind} 1 {}\n", blake3::hash(body).to_hex());
            one_merging_object(&[line.as_bytes(), body].concat());
        }
    }
}

fn one_merging_object(bytes: &[u8]) {
    if let Ok(candidate) = Candidate::decode(bytes) {
        let again = candidate.encode().ok().map(|again| Candidate::decode(&again));
        assert_eq!(again, Some(Ok(candidate)));
    }
    let (replica, root) = (ReplicaId::from_bytes([7; 16]), Root([7; 32]));
    if let Ok(pointer) = Pointer::decode(replica, root, bytes) {
        let again = pointer.encode(replica, root).ok().map(|again| Pointer::decode(replica, root, &again));
        assert_eq!(again, Some(Ok(pointer)));
    }
    if let Ok((replica, number, step)) = conflict::decode(bytes) {
        let again = conflict::encode(replica, number, &step).ok().map(|again| conflict::decode(&again));
        assert_eq!(again, Some(Ok((replica, number, step))));
    }
    if let Ok((replica, key, record)) = ClientRecord::decode(bytes) {
        let again = record.encode(replica, &key).ok().map(|again| ClientRecord::decode(&again));
        assert_eq!(again, Some(Ok((replica, key, record))));
    }
    let number = VersionNumber::FIRST;
    if let Ok((root, data)) = parents::decode(replica, number, &Bytes::copy_from_slice(bytes)) {
        assert_eq!(parents::encode(replica, number, root, &data), bytes);
    }
}

/// The JSON of a candidate with the root in its manifest that follows from the other fields.
fn with_roots(json: &[u8]) -> Option<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(json).ok()?;
    let content = with_root(&serde_json::to_vec(json.get("content")?).ok()?)?;
    json.as_object_mut()?.insert("content".to_owned(), serde_json::from_slice(&content).ok()?);
    serde_json::to_vec(&json).ok()
}

/// The name of an object in a listing.
pub fn object_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = object_store::path::Path::parse(text) else { return };
    if let Some((replica, name)) = Name::parse(&path) {
        assert_eq!(name.path(replica), path);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sqlrsync_protocol::exchange::StagedBlock;
    use sqlrsync_protocol::fuzzing::{corpus_of, run_over_corpora};
    use sqlrsync_protocol::page::{ConflictNumber, PageNumber};
    use sqlrsync_protocol::tree::NodeId;

    use super::*;
    use crate::sealed::CHECK_LEN;
    use crate::segment::Written;
    use crate::segment::format::{PartEntry, Stretch, encode_header, encode_index};
    use crate::segment::node::StoredEntry;

    fn all(bytes: &[u8]) {
        segment(bytes);
        tree_node(bytes);
        manifest(bytes);
        side_objects(bytes);
        merging_objects(bytes);
        object_name(bytes);
    }

    /// Something of each kind that is as it should be.
    fn corpus() -> Vec<Vec<u8>> {
        let id = SegmentId([1; 16]);
        let at = Stretch { offset: 1000, len: 100, check: [2; 16] };
        let mut parts = [PartEntry { level: 0, first: 1, last: 9, at }];
        let (index, top) = encode_index(&mut parts, 2000);
        let (header, header_check) = encode_header(id, PageSize::MIN);
        let bytes = top.end() + crate::segment::format::FOOTER_LEN as u64;
        let footer = Footer { id, top, header_check, bytes, blocks: 1, nodes: 0, pages: 9 };
        let child = StoredEntry { hash: PageHash([7; 32]), segment: id };
        let top_at = (top.offset - 2000) as usize;
        vec![
            header,
            index[..top_at].to_vec(),
            index[top_at..].to_vec(),
            footer.encode().0,
            node::encode(NodeId { level: 1, index: 3 }, &[child; 3]),
            Hashes20::default().encode(id).to_vec(),
            b"replicas/a4dqobyha4dqobyha4dqobyha4/about".to_vec(),
        ]
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_and_nothing_panics() {
        for bytes in corpus() {
            all(&bytes);
            for at in 0..bytes.len() {
                all(&bytes[..at]);
                for bit in [0, 7] {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1 << bit;
                    all(&changed);
                    // A hostile author seals what is wrong: the checks behind the checksum hold too.
                    if let Some((check, content)) = changed.split_first_chunk_mut::<CHECK_LEN>() {
                        *check = check_of(content);
                        all(&changed);
                    }
                }
            }
        }
    }

    #[test]
    fn every_target_holds_over_its_corpus() {
        run_over_corpora(TARGETS);
    }

    /// Writes the seeds: `cargo test -p sqlrsync-repository --lib -- --ignored write_seeds`.
    #[test]
    #[ignore = "writes into fuzz/corpus"]
    fn write_seeds() {
        let [header, index, top, footer, node, hashes, name] = corpus().try_into().unwrap();
        let unsealed = |bytes: Vec<u8>| bytes[CHECK_LEN..].to_vec();
        let header = header[..header.len() - CHECK_LEN].to_vec();
        let step_name = Name::Conflict(ConflictNumber::FIRST, 2).path(replica());
        let root_name = Name::CandidateRoot(Root([7; 32])).path(replica());
        let seeds = [
            ("segment", "header", header),
            ("segment", "index", unsealed(index)),
            ("segment", "top", unsealed(top)),
            ("segment", "footer", unsealed(footer)),
            ("tree_node", "node", unsealed(node)),
            ("side_objects", "hashes20", unsealed(hashes)),
            ("side_objects", "staged", unsealed(staged().encode().to_vec())),
            ("object_name", "about", name),
            (
                "object_name",
                "segment",
                Name::Segment(SegmentId([1; 16])).path(replica()).to_string().into_bytes(),
            ),
            (
                "object_name",
                "manifest",
                Name::Manifest(VersionNumber::FIRST).path(replica()).to_string().into_bytes(),
            ),
            ("manifest", "first", manifest_json().to_string().into_bytes()),
            ("manifest", "merge", merge_json().to_string().into_bytes()),
            ("object_name", "conflict", step_name.to_string().into_bytes()),
            ("object_name", "candidate-root", root_name.to_string().into_bytes()),
        ];
        let merging = merging_seeds().into_iter().map(|(name, bytes)| ("merging_objects", name, bytes));
        for (target, name, bytes) in seeds.into_iter().chain(merging) {
            let folder = corpus_of(target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
        }
    }

    #[test]
    fn the_seed_of_a_manifest_is_one() {
        for json in [manifest_json(), merge_json()] {
            let body = with_root(json.to_string().as_bytes()).unwrap();
            assert!(Manifest::decode(&enveloped("manifest", &body)).is_ok());
        }
    }

    #[test]
    fn the_seeds_of_what_merging_keeps_are_read() {
        let seeds: std::collections::BTreeMap<_, _> = merging_seeds().into_iter().collect();
        let candidate = with_roots(&seeds["candidate"]).unwrap();
        assert!(Candidate::decode(&enveloped("candidate", &candidate)).is_ok());
        let (replica, root) = (ReplicaId::from_bytes([7; 16]), Root([7; 32]));
        let pointer = enveloped("candidate-root", &seeds["candidate-root"]);
        assert!(Pointer::decode(replica, root, &pointer).is_ok());
        for step in ["opened", "settled"] {
            assert!(conflict::decode(&enveloped("conflict", &seeds[step])).is_ok(), "{step}");
        }
        assert!(ClientRecord::decode(&enveloped("client", &seeds["client"])).is_ok());
        let parents = sealed(&seeds["parents"]);
        assert!(parents::decode(replica, VersionNumber::FIRST, &parents.into()).is_ok());
    }

    #[test]
    fn what_merging_keeps_is_refused_where_it_is_cut_or_changed_and_nothing_panics() {
        for (_, bytes) in merging_seeds() {
            for at in (0..bytes.len()).step_by(4) {
                merging_objects(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 7);
                merging_objects(&changed);
            }
        }
    }

    fn enveloped(kind: &str, body: &[u8]) -> Vec<u8> {
        let line = format!("sqlrsync {kind} 1 {}\n", blake3::hash(body).to_hex());
        [line.as_bytes(), body].concat()
    }

    fn replica() -> ReplicaId {
        "a4dqobyha4dqobyha4dqobyha4".parse().unwrap()
    }

    fn staged() -> StagedRecord {
        let id = SegmentId([1; 16]);
        let runs = vec![(PageNumber::FIRST, 2), (PageNumber::new(9).unwrap(), 1)];
        StagedRecord {
            page_size: PageSize::MIN,
            expires: jiff::Timestamp::UNIX_EPOCH,
            segment: Written { id, bytes: 1000, check: [2; 16] },
            blocks: vec![StagedBlock { runs, hash: PageHash([3; 32]) }],
        }
    }

    fn manifest_json() -> Value {
        let (hash, id) = ("07".repeat(32), SegmentId([1; 16]));
        serde_json::json!({
            "replica": replica().to_string(), "number": 2, "time": "2026-03-01T12:00:00Z",
            "author": "a", "message": "m", "client_id": "c", "host": "h", "local_path": "/p",
            "page_size": 4096, "page_count": 3, "root": hash, "fields": "01".repeat(18),
            "parents": [hash], "base": {"version": 1, "root": hash}, "push_id": "01".repeat(16),
            "nonce": "02".repeat(16), "pages_changed": 1, "bytes_stored": 5000,
            "top": {"segment": id.to_string(), "hash": hash},
            "segments": [{"id": id.to_string(), "bytes": 5000, "check": "03".repeat(16)}],
            "first_hash20": "04".repeat(20),
        })
    }

    fn merge_json() -> Value {
        let mut json = manifest_json();
        let id = "05".repeat(16);
        json["merge"] = serde_json::json!({
            "candidate": id, "ends": {"conflict": 1, "candidate": id, "settled": true},
        });
        json
    }

    /// One of each, as what its checksum or its first line is about.
    fn merging_seeds() -> Vec<(&'static str, Vec<u8>)> {
        let (root, id) = ("07".repeat(32), "05".repeat(16));
        let of = ReplicaId::from_bytes([7; 16]);
        let base = serde_json::json!({"root": root, "version": 1, "candidate": null});
        let candidate = serde_json::json!({
            "id": id, "merge_base": base, "adds_to": {"conflict": 1, "candidate": id},
            "conflicts_before": 3, "content": manifest_json(),
        });
        let pointer = serde_json::json!({
            "replica": of.to_string(), "root": root, "candidate": id, "marked": "2026-03-01T12:00:00Z",
            "merged_from": 9,
        });
        let step = |step: u64, kind: Value| {
            serde_json::json!({
                "replica": of.to_string(), "conflict": 1, "step": step, "time": "2026-03-01T12:00:00Z",
                "author": "a", "message": "m", "client_id": "c", "host": "h", "local_path": "/p",
                "push_id": id, "nonce": id, "kind": kind,
            })
        };
        let overlap = serde_json::json!({
            "candidate": id, "merge_base": base, "theirs": 2, "tables": [{"table": "t", "rows": 2}],
            "reasons": ["r"], "rows": {"hash": id, "bytes": 10},
        });
        let opened = step(1, serde_json::json!({"opened": overlap}));
        let settled = step(2, serde_json::json!({"settled": {"version": 3, "choices": "{}"}}));
        let client = serde_json::json!({
            "replica": of.to_string(), "client_id": "c", "host": "h", "local_path": "/p",
            "time": "2026-03-01T12:00:00Z", "pushed": base, "pulled": [1, 2],
        });
        let json = [
            ("candidate", candidate),
            ("candidate-root", pointer),
            ("opened", opened),
            ("settled", settled),
            ("client", client),
        ];
        let mut seeds: Vec<_> =
            json.into_iter().map(|(name, json)| (name, json.to_string().into_bytes())).collect();
        let parents = parents::encode(of, VersionNumber::FIRST, Root([7; 32]), b"data");
        seeds.push(("parents", parents[CHECK_LEN..].to_vec()));
        seeds
    }
}
