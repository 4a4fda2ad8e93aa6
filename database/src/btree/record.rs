//! The key at the beginning of a record (<https://www.sqlite.org/fileformat2.html#record_format>), read
//! out of the cell and as much of its overflow chain as it reaches into.

use super::cell::{Cell, take_varint};
use super::page::{Malformed, Trouble, u32_at};
use super::pages::Pages;
use crate::rows::Value;

/// A key longer than this is not read: more of the table is read instead.
const KEY_LEN_MAX: usize = 1 << 20;

/// The first `columns` columns of a record; [`Malformed`] too where they are too long to be read.
pub(crate) fn key(pages: &mut Pages<'_>, cell: &Cell<'_>, columns: usize) -> Result<Vec<Value>, Trouble> {
    let mut record = Record { len: cell.payload_len, bytes: cell.local.to_vec(), next: cell.overflow };
    // A varint is at most nine bytes long.
    record.reach(pages, record.len.min(9))?;
    let header_len = header_len(&record.bytes, record.len)?;
    record.reach(pages, header_len)?;
    let (types, body_len) = serial_types(&record.bytes[..header_len], columns)?;
    record.reach(pages, header_len.saturating_add(body_len))?;
    Ok(values(&types, &record.bytes[header_len..])?)
}

/// As much of a record as was read.
struct Record {
    len: usize,
    bytes: Vec<u8>,
    next: Option<u32>,
}

impl Record {
    /// Reads on until so many bytes of it are there.
    fn reach(&mut self, pages: &mut Pages<'_>, len: usize) -> Result<(), Trouble> {
        if len > self.len || len > KEY_LEN_MAX {
            return Err(Trouble::Malformed);
        }
        let mut page = Vec::new();
        while self.bytes.len() < len {
            let next = self.next.filter(|&next| pages.layout.is_data(next)).ok_or(Malformed)?;
            pages.read(next, &mut page)?;
            self.next = Some(u32_at(&page, 0)?);
            let part = pages.layout.usable.min(self.len - self.bytes.len() + 4);
            self.bytes.extend_from_slice(&page[4..part]);
        }
        Ok(())
    }
}

/// How long the header at the record's beginning is.
fn header_len(bytes: &[u8], record_len: usize) -> Result<usize, Malformed> {
    let mut at = 0;
    let len = take_varint(bytes, &mut at)?;
    usize::try_from(len).ok().filter(|&len| at <= len && len <= record_len).ok_or(Malformed)
}

/// The serial types of the first columns, and how many bytes their values take together.
fn serial_types(header: &[u8], columns: usize) -> Result<(Vec<u64>, usize), Malformed> {
    let mut at = 0;
    take_varint(header, &mut at)?;
    let mut types = Vec::new();
    let mut body_len = 0usize;
    for _ in 0..columns {
        let serial = take_varint(header, &mut at)?;
        body_len = body_len.checked_add(value_len(serial)?).ok_or(Malformed)?;
        types.push(serial);
    }
    Ok((types, body_len))
}

fn value_len(serial: u64) -> Result<usize, Malformed> {
    match serial {
        0 | 8 | 9 => Ok(0),
        1..=4 => Ok(serial as usize),
        5 => Ok(6),
        6 | 7 => Ok(8),
        10 | 11 => Err(Malformed),
        _ => usize::try_from((serial - 12) / 2).map_err(|_| Malformed),
    }
}

fn values(types: &[u64], mut body: &[u8]) -> Result<Vec<Value>, Malformed> {
    let value = |&serial: &u64| {
        let (bytes, rest) = body.split_at_checked(value_len(serial)?).ok_or(Malformed)?;
        body = rest;
        Ok(match serial {
            0 => Value::Null,
            1..=6 => Value::Integer(integer(bytes)),
            7 => real(integer(bytes) as u64),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            _ if serial % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(bytes.to_vec()),
        })
    };
    types.iter().map(value).collect()
}

/// A big-endian integer with a sign, of one to eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |value, &byte| value << 8 | i64::from(byte))
}

/// SQLite takes a stored NaN for NULL.
fn real(bits: u64) -> Value {
    let real = f64::from_bits(bits);
    if real.is_nan() { Value::Null } else { Value::Real(real) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_a_sign_whatever_their_length() {
        assert_eq!(integer(&[0xff]), -1);
        assert_eq!(integer(&[0x7f]), 127);
        assert_eq!(integer(&[0x80, 0, 0]), -8_388_608);
        assert_eq!(integer(&i64::MIN.to_be_bytes()), i64::MIN);
    }

    #[test]
    fn a_record_shorter_than_its_header_says_is_malformed() {
        assert_eq!(header_len(&[3, 1, 1], 2), Err(Malformed));
        assert_eq!(header_len(&[0], 1), Err(Malformed));
        assert_eq!(serial_types(&[2, 1], 2), Err(Malformed));
        assert_eq!(serial_types(&[2, 10], 1), Err(Malformed));
        assert_eq!(values(&[4], &[0, 0, 0]), Err(Malformed));
        assert_eq!(
            serial_types(&[11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 2),
            Err(Malformed)
        );
    }
}
