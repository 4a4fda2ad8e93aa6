//! A stored node of the page tree: of each child its hash and the segment that holds it.
//!
//! ```text
//! check    16
//! 'N'       1
//! level u8, index u32
//! children u16   0 to 256
//! segments u16   how many different ones
//! segment  16    each
//! places    1    for each child, where there is more than one segment: which of them
//! hashes   32    for each child
//! ```
//!
//! Not compressed: hashes do not compress, and there is little else. Segments are named and not
//! located, so that what a segment held can later be found in another.

use sqlrsync_protocol::hash::{PageHash, node_hash};
use sqlrsync_protocol::tree::{Entry, FANOUT, MAX_HEIGHT, NodeId};

use crate::error::Damage;
use crate::id::SegmentId;
use crate::sealed::{CHECK_LEN, Fields, seal, unseal};

/// The most bytes of a node.
pub(crate) const NODE_BYTES_MAX: usize =
    CHECK_LEN + 1 + 1 + 4 + 2 + 2 + FANOUT as usize * (SegmentId::LEN + 1 + PageHash::LEN);

/// What a node holds of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredEntry {
    pub(crate) hash: PageHash,
    /// Where the page, or the node, is. [`SegmentId::NONE`] for the page at 2^30.
    pub(crate) segment: SegmentId,
}

impl Entry for StoredEntry {
    fn hash(&self) -> PageHash {
        self.hash
    }
}

/// What the children hash to.
pub(crate) fn hash_of(children: &[StoredEntry]) -> PageHash {
    node_hash(children.iter().map(|child| &child.hash))
}

/// A node's bytes. It has 256 children at most.
pub(crate) fn encode(node: NodeId, children: &[StoredEntry]) -> Vec<u8> {
    let mut segments: Vec<SegmentId> = Vec::new();
    let mut places = Vec::with_capacity(children.len());
    for child in children {
        let known = segments.iter().rposition(|segment| *segment == child.segment);
        let place = known.unwrap_or_else(|| {
            segments.push(child.segment);
            segments.len() - 1
        });
        places.push(place as u8);
    }
    let mut bytes = Vec::with_capacity(NODE_BYTES_MAX);
    bytes.resize(CHECK_LEN, 0);
    bytes.extend([b'N', node.level]);
    bytes.extend(node.index.to_be_bytes());
    bytes.extend((children.len() as u16).to_be_bytes());
    bytes.extend((segments.len() as u16).to_be_bytes());
    segments.iter().for_each(|segment| bytes.extend(segment.0));
    if segments.len() > 1 {
        bytes.extend(places);
    }
    children.iter().for_each(|child| bytes.extend(child.hash.0));
    seal(bytes).0
}

/// Reads a node: its place and its children.
pub(crate) fn decode(bytes: &[u8]) -> Result<(NodeId, Vec<StoredEntry>), Damage> {
    if bytes.len() > NODE_BYTES_MAX {
        return Err(Damage::TooLarge);
    }
    let (_, content) = unseal(bytes)?;
    let mut fields = Fields::new(content);
    if fields.u8()? != b'N' {
        return Err(Damage::Format);
    }
    let node = NodeId { level: fields.u8()?, index: fields.u32()? };
    let (count, segment_count) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
    if count > FANOUT as usize || segment_count > count {
        return Err(Damage::TooLarge);
    }
    if node.level == 0 || node.level > MAX_HEIGHT || (segment_count == 0) != (count == 0) {
        return Err(Damage::Structure);
    }
    let mut segments = Vec::with_capacity(segment_count);
    for _ in 0..segment_count {
        segments.push(SegmentId(fields.array()?));
    }
    let places = if segment_count > 1 { Some(fields.bytes(count)?) } else { None };
    let mut children = Vec::with_capacity(count);
    for child in 0..count {
        let place = places.map_or(0, |places| usize::from(places[child]));
        let segment = *segments.get(place).ok_or(Damage::Structure)?;
        children.push(StoredEntry { hash: PageHash(fields.array()?), segment });
    }
    fields.end()?;
    Ok((node, children))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(count: u32, segments: u32) -> Vec<StoredEntry> {
        let entry = |n: u32| StoredEntry {
            hash: PageHash::of(&n.to_be_bytes()),
            segment: SegmentId([(n % segments) as u8 + 1; 16]),
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn nodes_come_back_as_they_were() {
        let node = NodeId { level: 2, index: 77 };
        for (count, segments) in [(0, 1), (1, 1), (256, 1), (255, 2), (256, 200)] {
            let made = children(count, segments);
            let bytes = encode(node, &made);
            assert!(bytes.len() <= NODE_BYTES_MAX);
            assert_eq!(decode(&bytes), Ok((node, made)));
        }
    }

    #[test]
    fn a_node_of_one_segment_is_little_more_than_its_hashes() {
        assert!(encode(NodeId { level: 1, index: 0 }, &children(256, 1)).len() < 256 * 32 + 64);
    }
}
