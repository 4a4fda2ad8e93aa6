//! One cell of a page: the child before it, its rowid, and where its record is
//! (<https://www.sqlite.org/fileformat2.html#b_tree_pages>, "B-tree Cell Format").

use super::layout::Layout;
use super::page::{Kind, Malformed, u32_at};

/// A record is at most this long (`SQLITE_MAX_LENGTH` can be no more).
const PAYLOAD_MAX: u64 = i32::MAX as u64;

/// A cell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cell<'p> {
    /// The child whose rows come before this cell; `None` on a leaf.
    pub(crate) left: Option<u32>,
    /// The rowid; `None` in an index.
    pub(crate) rowid: Option<i64>,
    /// How long the record is, wherever its parts are. 0 where the cell has none.
    pub(crate) payload_len: usize,
    /// The part of the record that is in the page.
    pub(crate) local: &'p [u8],
    /// The overflow page with the next part; `None` where all is in the page.
    pub(crate) overflow: Option<u32>,
}

impl<'p> Cell<'p> {
    /// From the bytes from its beginning to the usable page's end.
    pub(crate) fn decode(kind: Kind, bytes: &'p [u8], layout: &Layout) -> Result<Cell<'p>, Malformed> {
        let mut at = 0;
        let left = if kind.is_interior() {
            at = 4;
            Some(u32_at(bytes, 0)?)
        } else {
            None
        };
        let mut cell = Cell { left, rowid: None, payload_len: 0, local: &[], overflow: None };
        let mut payload_len = 0;
        if kind != Kind::TableInterior {
            payload_len = take_varint(bytes, &mut at)?;
        }
        if !kind.is_index() {
            // Rowids are the same 64 bits with a sign.
            cell.rowid = Some(take_varint(bytes, &mut at)? as i64);
        }
        if kind == Kind::TableInterior {
            return Ok(cell);
        }
        if payload_len > PAYLOAD_MAX {
            return Err(Malformed);
        }
        cell.payload_len = payload_len as usize;
        let local = layout.local_len(cell.payload_len, kind.is_index());
        cell.local = bytes.get(at..at + local).ok_or(Malformed)?;
        if local < cell.payload_len {
            cell.overflow = Some(u32_at(bytes, at + local)?);
        }
        Ok(cell)
    }
}

/// Reads a varint at `at` and moves `at` behind it.
pub(crate) fn take_varint(bytes: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for index in 0..9 {
        let byte = *bytes.get(*at).ok_or(Malformed)?;
        *at += 1;
        if index == 8 {
            return Ok(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Result<(u64, usize), Malformed> {
        let mut at = 0;
        take_varint(bytes, &mut at).map(|value| (value, at))
    }

    #[test]
    fn varints_are_big_endian_and_the_ninth_byte_counts_whole() {
        assert_eq!(varint(&[0x7f, 1]), Ok((0x7f, 1)));
        assert_eq!(varint(&[0x81, 0x00]), Ok((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Ok((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), Err(Malformed));
        assert_eq!(varint(&[]), Err(Malformed));
    }
}
