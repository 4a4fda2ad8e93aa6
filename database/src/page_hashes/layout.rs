//! Where what stands in a file of page hashes, and what its header says.

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};
use sqlrsync_protocol::tree::{FANOUT, MAX_HEIGHT, NodeId};

/// Pages in a scan group.
pub(crate) const GROUP: u32 = 16;

/// What a scan compares: the hash of a group's canonical pages, one after the other.
pub(crate) fn group_hash(canonical_pages: &[u8]) -> PageHash {
    PageHash(*blake3::hash(canonical_pages).as_bytes())
}

/// The hash of a group that is not known.
pub(crate) const UNKNOWN: PageHash = PageHash([0; PageHash::LEN]);

const MAGIC: &[u8; 16] = b"sqlrsync hashes\0";
const FORMAT: u8 = 1;
pub(super) const CLEAN: u8 = 0;
pub(super) const DIRTY: u8 = 1;
pub(super) const HEADER_LEN: usize = 92;
const CHECK_AT: usize = HEADER_LEN - 16;
/// Where the first node begins.
const NODES_AT: u64 = 4096;

pub(super) const NODE_LEN: u64 = FANOUT as u64 * PageHash::LEN as u64;
const GROUPS_LEN: u64 = (FANOUT / GROUP) as u64 * PageHash::LEN as u64;

/// Length of a node's block: its hashes and all that is below it.
const fn block_len(level: u8) -> u64 {
    if level == 1 { NODE_LEN + GROUPS_LEN } else { NODE_LEN + FANOUT as u64 * block_len(level - 1) }
}

/// Where a node's hashes stand in the file.
pub(super) fn node_offset(node: NodeId) -> u64 {
    if node.level >= MAX_HEIGHT {
        return NODES_AT + u64::from(node.index) * block_len(MAX_HEIGHT);
    }
    let slot = u64::from(node.index % FANOUT);
    node_offset(node.parent()) + NODE_LEN + slot * block_len(node.level)
}

/// Where the hash of a scan group stands in the file.
pub(super) fn group_offset(group: u32) -> u64 {
    let groups = FANOUT / GROUP;
    let node = NodeId { level: 1, index: group / groups };
    node_offset(node) + NODE_LEN + u64::from(group % groups) * PageHash::LEN as u64
}

/// What stands in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) state: u8,
    pub(super) geometry: Geometry,
    pub(super) root: Root,
    pub(super) fields: HeaderFields,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..19].copy_from_slice(&[FORMAT, self.state, self.geometry.page_size.log2()]);
        bytes[20..24].copy_from_slice(&self.geometry.page_count.get().to_be_bytes());
        bytes[24..56].copy_from_slice(&self.root.0);
        bytes[56..74].copy_from_slice(&self.fields.to_bytes());
        let check = blake3::hash(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.as_bytes()[..16]);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Header> {
        let check = blake3::hash(&bytes[..CHECK_AT]);
        if bytes[..16] != *MAGIC || bytes[16] != FORMAT || bytes[CHECK_AT..] != check.as_bytes()[..16] {
            return None;
        }
        let mut root = Root([0; Root::LEN]);
        root.0.copy_from_slice(&bytes[24..56]);
        let mut fields = [0; HeaderFields::LEN];
        fields.copy_from_slice(&bytes[56..74]);
        let page_size = PageSize::from_log2(bytes[18])?;
        let page_count = PageCount(u32::from_be_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]));
        let geometry = Geometry { page_size, page_count };
        Some(Header { state: bytes[17], geometry, root, fields: HeaderFields::from_bytes(fields) })
    }
}
