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
