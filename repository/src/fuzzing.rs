//! Bodies of fuzz targets: each takes any bytes, must not panic, and what it accepts must come back
//! as it was when it is written again. Unit tests call them over a corpus.

use std::hint::black_box;

use crate::hashes20::Hashes20;
use crate::id::{Name, SegmentId};
use crate::manifest::Manifest;
use crate::segment::format::{Footer, HEADER_LEN, decode_header, decode_index, decode_top};
use crate::segment::node;
use crate::staged::StagedRecord;

/// The parts of a segment around its blocks: header, index, top and footer.
pub fn segment(bytes: &[u8]) {
    let _ = black_box(decode_header(bytes.get(..HEADER_LEN).unwrap_or(bytes)));
    let _ = black_box(decode_index(bytes));
    let _ = black_box(decode_top(bytes));
    if let Ok((footer, check)) = Footer::decode(bytes) {
        assert_eq!(footer.encode(), (bytes.to_vec(), check));
    }
}

/// A node of the page tree.
pub fn tree_node(bytes: &[u8]) {
    if let Ok((place, children)) = node::decode(bytes) {
        let again = node::encode(place, &children);
        assert_eq!(node::decode(&again), Ok((place, children)));
    }
}

/// A manifest.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        let again = manifest.encode().ok().map(|again| Manifest::decode(&again));
        assert_eq!(again, Some(Ok(manifest)));
    }
}

/// The objects beside a segment: 20-byte hashes and staged records.
pub fn side_objects(bytes: &[u8]) {
    let id = SegmentId([1; 16]);
    if let Ok(hashes) = Hashes20::decode(bytes, id) {
        assert_eq!(Hashes20::decode(&hashes.encode(id), id), Ok(hashes));
    }
    if let Ok(record) = StagedRecord::decode(bytes) {
        assert_eq!(StagedRecord::decode(&record.encode()), Ok(record));
    }
}

/// The name of an object in a listing.
pub fn object_name(text: &str) {
    let Ok(path) = object_store::path::Path::parse(text) else { return };
    if let Some((replica, name)) = Name::parse(&path) {
        assert_eq!(name.path(replica), path);
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::hash::PageHash;
    use sqlrsync_protocol::page::PageSize;
    use sqlrsync_protocol::tree::NodeId;

    use super::*;
    use crate::sealed::{CHECK_LEN, check_of};
    use crate::segment::format::{PartEntry, Stretch, encode_header, encode_index};
    use crate::segment::node::StoredEntry;

    fn all(bytes: &[u8]) {
        segment(bytes);
        tree_node(bytes);
        manifest(bytes);
        side_objects(bytes);
        if let Ok(text) = std::str::from_utf8(bytes) {
            object_name(text);
        }
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
            node::encode(NodeId { level: 1, index: 3 }, &[child; 200]),
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
                for bit in 0..8 {
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
}
