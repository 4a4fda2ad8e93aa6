//! The bytes of a segment around its parts. All integers are big-endian.
//!
//! ```text
//! header   magic "sqlrsync segment" 16, format version u8, log2(page size) u8, segment id 16, check 16
//! parts    blocks of pages (protocol::block) and tree nodes, each with its check in front
//! index    parts of up to 512 entries, in the order of (level, first):
//!            check 16, 'I', count u16, entries: level u8 (0: a block), first u32, last u32,
//!            offset u64, length u32, check 16
//! top      check 16, 'T', count u16, an entry for each index part: level u8, first u32, offset u64,
//!            length u32, check 16
//! footer   check 16, magic "sqlrsync footer." 16, format version u8, top: offset u64, length u32,
//!            check 16; header check 16, segment id 16, object length u64, blocks u32, nodes u32, pages u32
//! ```
//!
//! `first` and `last` are page numbers for a block, and both the node's index for a node.

use sqlrsync_protocol::block::BLOCK_ENCODED_MAX;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_protocol::tree::MAX_HEIGHT;

use super::node::NODE_BYTES_MAX;
use crate::error::Damage;
use crate::id::SegmentId;
use crate::sealed::{CHECK_LEN, Check, Fields, check_of, seal, unseal};

/// The format that this code writes, and the only one it reads.
const FORMAT_VERSION: u8 = 1;

const HEADER_MAGIC: &[u8; 16] = b"sqlrsync segment";
const FOOTER_MAGIC: &[u8; 16] = b"sqlrsync footer.";

/// Length of the header in bytes.
pub(crate) const HEADER_LEN: usize = 16 + 2 + SegmentId::LEN + CHECK_LEN;

/// Length of the footer in bytes.
pub(crate) const FOOTER_LEN: usize =
    CHECK_LEN + 16 + 1 + 8 + 4 + CHECK_LEN + CHECK_LEN + SegmentId::LEN + 8 + 3 * 4;

/// A segment is closed, and a push goes on in another, when its parts are this many bytes: small
/// enough that a cut push loses little and that one is made durable while the next is filled.
pub(crate) const SEGMENT_BYTES_FULL: u64 = 64 << 20;

/// The most bytes of a segment: one more part after it was not yet full, and the index.
pub(crate) const SEGMENT_BYTES_MAX: u64 = SEGMENT_BYTES_FULL + (8 << 20);

/// The most parts of a segment, so that its index is bounded whatever blocks a peer sends.
pub(crate) const SEGMENT_PARTS_MAX: usize = 65_536;

/// A segment is closed when it has this many pages, so that a list with an item a page is bounded.
pub(crate) const SEGMENT_PAGES_FULL: u32 = 262_144;

/// The most pages of a segment: one more block after it was not yet full.
pub(crate) const SEGMENT_PAGES_MAX: u32 = SEGMENT_PAGES_FULL + 512;

/// The most entries of an index part.
const INDEX_ENTRIES_MAX: usize = 512;

const INDEX_ENTRY_LEN: usize = 1 + 4 + 4 + 8 + 4 + CHECK_LEN;
const LIST_HEADER_LEN: usize = CHECK_LEN + 1 + 2;

/// The most index parts.
const INDEX_PARTS_MAX: usize = SEGMENT_PARTS_MAX / INDEX_ENTRIES_MAX;

/// The most bytes of an index part, and of the top.
const LIST_BYTES_MAX: usize = LIST_HEADER_LEN + INDEX_ENTRIES_MAX * INDEX_ENTRY_LEN;

/// The most bytes of a part.
const PART_BYTES_MAX: usize =
    if BLOCK_ENCODED_MAX > NODE_BYTES_MAX { BLOCK_ENCODED_MAX } else { NODE_BYTES_MAX };

/// A stretch of the object, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) check: Check,
}

impl Stretch {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// Where a part is, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartEntry {
    /// 0 for a block, else the node's level.
    pub(crate) level: u8,
    /// First page number, or the node's index.
    pub(crate) first: u32,
    /// Last page number, or the node's index.
    pub(crate) last: u32,
    pub(crate) at: Stretch,
}

/// Where an index part is, and what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopEntry {
    pub(crate) level: u8,
    pub(crate) first: u32,
    pub(crate) at: Stretch,
}

/// The end of a segment: all that is needed to read the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) id: SegmentId,
    pub(crate) top: Stretch,
    pub(crate) header_check: Check,
    pub(crate) bytes: u64,
    pub(crate) blocks: u32,
    pub(crate) nodes: u32,
    pub(crate) pages: u32,
}

/// The header's bytes and its checksum.
pub(crate) fn encode_header(id: SegmentId, page_size: PageSize) -> (Vec<u8>, Check) {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend(HEADER_MAGIC);
    bytes.extend([FORMAT_VERSION, page_size.log2()]);
    bytes.extend(id.0);
    let check = check_of(&bytes);
    bytes.extend(check);
    (bytes, check)
}

/// Reads a header: its segment, page size and checksum.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<(SegmentId, PageSize, Check), Damage> {
    let mut fields = Fields::new(bytes);
    let content = fields.bytes(HEADER_LEN - CHECK_LEN)?;
    let check = fields.array()?;
    fields.end()?;
    if check != check_of(content) {
        return Err(Damage::Checksum);
    }
    let mut fields = Fields::new(content);
    if fields.array()? != *HEADER_MAGIC || fields.u8()? != FORMAT_VERSION {
        return Err(Damage::Format);
    }
    let page_size = PageSize::from_log2(fields.u8()?).ok_or(Damage::Structure)?;
    Ok((SegmentId(fields.array()?), page_size, check))
}

/// The index parts, the top and what the footer says of it, for parts that end at `offset`.
pub(crate) fn encode_index(entries: &mut [PartEntry], offset: u64) -> (Vec<u8>, Stretch) {
    entries.sort_unstable_by_key(|entry| (entry.level, entry.first));
    let mut bytes = Vec::new();
    let mut top = Vec::new();
    for part in entries.chunks(INDEX_ENTRIES_MAX) {
        let mut list = list_header(b'I', part.len());
        for entry in part {
            list.push(entry.level);
            list.extend(entry.first.to_be_bytes());
            list.extend(entry.last.to_be_bytes());
            put_stretch(&mut list, &entry.at);
        }
        let (list, check) = seal(list);
        let at = Stretch { offset: offset + bytes.len() as u64, len: list.len() as u32, check };
        top.extend(part.first().map(|entry| TopEntry { level: entry.level, first: entry.first, at }));
        bytes.extend(list);
    }
    let mut list = list_header(b'T', top.len());
    for entry in &top {
        list.push(entry.level);
        list.extend(entry.first.to_be_bytes());
        put_stretch(&mut list, &entry.at);
    }
    let (list, check) = seal(list);
    let at = Stretch { offset: offset + bytes.len() as u64, len: list.len() as u32, check };
    bytes.extend(list);
    (bytes, at)
}

fn list_header(kind: u8, count: usize) -> Vec<u8> {
    let mut list = vec![0; CHECK_LEN];
    list.push(kind);
    list.extend((count as u16).to_be_bytes());
    list
}

fn put_stretch(bytes: &mut Vec<u8>, at: &Stretch) {
    bytes.extend(at.offset.to_be_bytes());
    bytes.extend(at.len.to_be_bytes());
    bytes.extend(at.check);
}

/// Reads the top of an index.
pub(crate) fn decode_top(bytes: &[u8]) -> Result<Vec<TopEntry>, Damage> {
    let (mut fields, count) = list(bytes, b'T', INDEX_PARTS_MAX)?;
    let mut entries: Vec<TopEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let level = fields.u8()?;
        let first = fields.u32()?;
        let at = stretch(&mut fields, LIST_BYTES_MAX)?;
        if entries.last().is_some_and(|last| (last.level, last.first) >= (level, first)) {
            return Err(Damage::Structure);
        }
        entries.push(TopEntry { level, first, at });
    }
    fields.end()?;
    Ok(entries)
}

/// Reads a part of an index.
pub(crate) fn decode_index(bytes: &[u8]) -> Result<Vec<PartEntry>, Damage> {
    let (mut fields, count) = list(bytes, b'I', INDEX_ENTRIES_MAX)?;
    let mut entries: Vec<PartEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let (level, first, last) = (fields.u8()?, fields.u32()?, fields.u32()?);
        let at = stretch(&mut fields, PART_BYTES_MAX)?;
        let sound = match level {
            0 => first >= 1 && first <= last,
            1..=MAX_HEIGHT => first == last,
            _ => false,
        };
        // Blocks hold different pages, nodes are there once.
        let after = entries.last().is_none_or(|before| (before.level, before.last) < (level, first));
        if !sound || !after {
            return Err(Damage::Structure);
        }
        entries.push(PartEntry { level, first, last, at });
    }
    fields.end()?;
    Ok(entries)
}

fn list(bytes: &[u8], kind: u8, count_max: usize) -> Result<(Fields<'_>, usize), Damage> {
    let (_, content) = unseal(bytes)?;
    let mut fields = Fields::new(content);
    if fields.u8()? != kind {
        return Err(Damage::Format);
    }
    let count = usize::from(fields.u16()?);
    if count > count_max { Err(Damage::TooLarge) } else { Ok((fields, count)) }
}

/// A stretch that lies in a segment, behind its header, and is no longer than `len_max`.
fn stretch(fields: &mut Fields<'_>, len_max: usize) -> Result<Stretch, Damage> {
    let at = Stretch { offset: fields.u64()?, len: fields.u32()?, check: fields.array()? };
    if at.len as usize > len_max || at.offset > SEGMENT_BYTES_MAX {
        return Err(Damage::TooLarge);
    }
    if at.offset < HEADER_LEN as u64 || (at.len as usize) < CHECK_LEN {
        return Err(Damage::Structure);
    }
    Ok(at)
}

impl Footer {
    pub(crate) fn encode(&self) -> (Vec<u8>, Check) {
        let mut bytes = vec![0; CHECK_LEN];
        bytes.extend(FOOTER_MAGIC);
        bytes.push(FORMAT_VERSION);
        put_stretch(&mut bytes, &self.top);
        bytes.extend(self.header_check);
        bytes.extend(self.id.0);
        bytes.extend(self.bytes.to_be_bytes());
        for count in [self.blocks, self.nodes, self.pages] {
            bytes.extend(count.to_be_bytes());
        }
        seal(bytes)
    }

    /// Reads a footer and returns it with its own checksum.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Footer, Check), Damage> {
        if bytes.len() != FOOTER_LEN {
            return Err(Damage::Truncated);
        }
        let (check, content) = unseal(bytes)?;
        let mut fields = Fields::new(content);
        if fields.array()? != *FOOTER_MAGIC || fields.u8()? != FORMAT_VERSION {
            return Err(Damage::Format);
        }
        let top = stretch(&mut fields, LIST_BYTES_MAX)?;
        let footer = Footer {
            top,
            header_check: fields.array()?,
            id: SegmentId(fields.array()?),
            bytes: fields.u64()?,
            blocks: fields.u32()?,
            nodes: fields.u32()?,
            pages: fields.u32()?,
        };
        fields.end()?;
        if footer.bytes > SEGMENT_BYTES_MAX || footer.pages > SEGMENT_PAGES_MAX {
            return Err(Damage::TooLarge);
        }
        // The top is followed by the footer, and by nothing else.
        if footer.top.end() + FOOTER_LEN as u64 != footer.bytes {
            return Err(Damage::Structure);
        }
        Ok((footer, check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_are_what_is_written() {
        let id = SegmentId([1; 16]);
        let (header, header_check) = encode_header(id, PageSize::MIN);
        assert_eq!(header.len(), HEADER_LEN);
        let (_, top) = encode_index(&mut [], HEADER_LEN as u64);
        let bytes = top.end() + FOOTER_LEN as u64;
        let footer = Footer { id, top, header_check, bytes, blocks: 0, nodes: 0, pages: 0 };
        let (encoded, check) = footer.encode();
        assert_eq!(encoded.len(), FOOTER_LEN);
        assert_eq!(Footer::decode(&encoded), Ok((footer, check)));
    }

    #[test]
    fn the_largest_index_fits_its_maxima() {
        let at = Stretch { offset: 1 << 20, len: 100, check: [0; 16] };
        let mut entries: Vec<PartEntry> = (0..SEGMENT_PARTS_MAX as u32)
            .map(|n| PartEntry { level: 0, first: n + 1, last: n + 1, at })
            .collect();
        let (bytes, top) = encode_index(&mut entries, 1 << 20);
        assert!(bytes.len() < (4 << 20));
        let top = decode_top(&bytes[(top.offset - (1 << 20)) as usize..]).unwrap();
        assert_eq!(top.len(), INDEX_PARTS_MAX);
        let last = top[INDEX_PARTS_MAX - 1].at;
        let from = (last.offset - (1 << 20)) as usize;
        assert_eq!(decode_index(&bytes[from..from + last.len as usize]).unwrap().len(), INDEX_ENTRIES_MAX);
    }
}
