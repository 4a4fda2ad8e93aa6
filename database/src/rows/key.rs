//! Keys, rows and changes of rows, and their form as bytes.
//!
//! A row is named by its **key**: the values of the declared PRIMARY KEY, bit for bit, or its rowid where
//! none is declared or one of those values is NULL. Bit for bit means that under `COLLATE NOCASE` a key
//! that goes from 'a' to 'A' is another key: the row 'a' is deleted and the row 'A' inserted. The same
//! holds for 1 and 1.0 in a column without a type, and for 0.0 and -0.0.
//!
//! The bytes are for temporary tables and for what a repository keeps; equal keys have equal bytes and
//! different keys have different ones. They are decoded as if somebody hostile had written them: nothing is
//! allocated that the bytes do not hold.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use super::error::Error;
use super::schema::{Encoding, Table};
use super::value::Value;

/// Values in one row or key, at most: what SQLite can be built to allow.
pub const MAX_VALUES: usize = 32_767;

/// What names a row within its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The values of the declared PRIMARY KEY, in the order of the key. None is NULL.
    Declared(Vec<Value>),
    /// The rowid.
    Rowid(i64),
}

/// The values of a row, one for each of [`Table::columns`].
#[derive(Clone, Debug)]
pub struct Row {
    /// The rowid, where the table has one that SQL can name. Rows are equal whatever it is: where it does
    /// not belong to the key, it is SQLite's own business.
    pub rowid: Option<i64>,
    /// The values.
    pub values: Vec<Value>,
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.values == other.values
    }
}

impl Eq for Row {}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// It was not there.
    Insert,
    /// Its values are others.
    Update,
    /// It is gone.
    Delete,
}

impl Op {
    /// As JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The table as the new database has it; as the old one had it where the new one has none.
    pub table: Arc<Table>,
    /// The table that `before` belongs to: another one than `table` where the columns changed.
    pub table_before: Arc<Table>,
    /// The encoding of all texts in here, whatever encoding their database has.
    pub encoding: Encoding,
    /// Which row.
    pub key: Key,
    /// What it was, for [`RowChange::table_before`]; `None` for an insert.
    pub before: Option<Row>,
    /// What it is, for [`RowChange::table`]; `None` for a delete.
    pub after: Option<Row>,
}

impl RowChange {
    /// What happened to the row.
    pub const fn op(&self) -> Op {
        match (&self.before, &self.after) {
            (None, _) => Op::Insert,
            (_, None) => Op::Delete,
            _ => Op::Update,
        }
    }
}

impl Key {
    /// Its bytes. Different keys have different ones.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Key::Rowid(rowid) => {
                let mut bytes = vec![KEY_ROWID];
                bytes.extend_from_slice(&rowid.to_be_bytes());
                bytes
            }
            Key::Declared(values) => {
                let mut bytes = Vec::with_capacity(1 + encoded_len(values));
                bytes.push(KEY_DECLARED);
                // A vector takes whatever is written to it.
                let _ = put_values(&mut bytes, values);
                bytes
            }
        }
    }

    /// A key from its bytes.
    ///
    /// # Errors
    /// [`Error::Encoding`] where they are not what [`Key::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Key, Error> {
        let mut input = Input { rest: bytes, left: bytes.len() as u64, what: "key" };
        let key = match input.byte()? {
            KEY_ROWID => Key::Rowid(i64::from_be_bytes(input.array()?)),
            KEY_DECLARED => Key::Declared(input.values()?),
            _ => return Err(input.wrong()),
        };
        input.end(key)
    }
}

impl Row {
    /// The key that this row has in a table; `None` where neither its values nor a rowid name it.
    pub fn key(&self, table: &Table) -> Option<Key> {
        let values = || table.key.iter().map(|&column| self.values.get(column).unwrap_or(&Value::Null));
        if !table.key.is_empty() && !values().any(Value::is_null) {
            return Some(Key::Declared(values().cloned().collect()));
        }
        self.rowid.map(Key::Rowid)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes_len());
        // A vector takes whatever is written to it.
        let _ = self.write_to(&mut bytes);
        bytes
    }

    /// How many bytes [`Row::to_bytes`] makes.
    pub fn bytes_len(&self) -> usize {
        1 + self.rowid.map_or(0, |_| 8) + encoded_len(&self.values)
    }

    /// Writes its bytes, without having them all in memory a second time.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        match self.rowid {
            None => out.write_all(&[0])?,
            Some(rowid) => {
                out.write_all(&[1])?;
                out.write_all(&rowid.to_be_bytes())?;
            }
        }
        put_values(out, &self.values)
    }

    /// A row from its bytes.
    ///
    /// # Errors
    /// [`Error::Encoding`] where they are not what [`Row::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Row, Error> {
        Row::read_from(bytes, bytes.len() as u64)
    }

    /// A row from `len` bytes that are read, so that they are in memory once.
    ///
    /// # Errors
    /// [`Error::Encoding`] where they are not what [`Row::to_bytes`] makes; [`Error::Read`] where they cannot be
    /// read.
    pub fn read_from(input: impl Read, len: u64) -> Result<Row, Error> {
        let mut input = Input { rest: input, left: len, what: "row" };
        let rowid = match input.byte()? {
            0 => None,
            1 => Some(i64::from_be_bytes(input.array()?)),
            _ => return Err(input.wrong()),
        };
        let values = input.values()?;
        input.end(Row { rowid, values })
    }

    /// What it takes in memory, about.
    pub fn weight(&self) -> usize {
        self.values.iter().map(|value| size_of::<Value>() + value.len()).sum::<usize>() + size_of::<Row>()
    }
}

const KEY_ROWID: u8 = 0;
const KEY_DECLARED: u8 = 1;

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

fn encoded_len(values: &[Value]) -> usize {
    let len = |value: &Value| match value {
        Value::Null => 1,
        Value::Integer(_) | Value::Real(_) => 9,
        Value::Text(bytes) | Value::Blob(bytes) => 5 + bytes.len(),
    };
    4 + values.iter().map(len).sum::<usize>()
}

fn put_values(out: &mut impl Write, values: &[Value]) -> std::io::Result<()> {
    out.write_all(&(values.len() as u32).to_be_bytes())?;
    for value in values {
        match value {
            Value::Null => out.write_all(&[NULL])?,
            Value::Integer(value) => {
                out.write_all(&[INTEGER])?;
                out.write_all(&value.to_be_bytes())?;
            }
            Value::Real(value) => {
                out.write_all(&[REAL])?;
                out.write_all(&value.to_bits().to_be_bytes())?;
            }
            Value::Text(text) => put_bytes(out, TEXT, text)?,
            Value::Blob(blob) => put_bytes(out, BLOB, blob)?,
        }
    }
    Ok(())
}

fn put_bytes(out: &mut impl Write, tag: u8, value: &[u8]) -> std::io::Result<()> {
    out.write_all(&[tag])?;
    // SQLite holds no value of 2^31 bytes or more.
    out.write_all(&(value.len() as u32).to_be_bytes())?;
    out.write_all(value)
}

/// What is left to decode, and of what it is.
struct Input<R> {
    rest: R,
    /// How many bytes of it.
    left: u64,
    what: &'static str,
}

impl<R: Read> Input<R> {
    fn wrong(&self) -> Error {
        Error::Encoding(self.what)
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.left = self.left.checked_sub(into.len() as u64).ok_or(Error::Encoding(self.what))?;
        self.rest.read_exact(into).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.wrong(),
            _ => Error::Read(error),
        })
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], Error> {
        let mut array = [0; LEN];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn values(&mut self) -> Result<Vec<Value>, Error> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        // Each takes a byte at least.
        if count > MAX_VALUES || count as u64 > self.left {
            return Err(self.wrong());
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn value(&mut self) -> Result<Value, Error> {
        Ok(match self.byte()? {
            NULL => Value::Null,
            INTEGER => Value::Integer(i64::from_be_bytes(self.array()?)),
            REAL => Value::Real(f64::from_bits(u64::from_be_bytes(self.array()?))),
            TEXT => Value::Text(self.bytes()?),
            BLOB => Value::Blob(self.bytes()?),
            _ => return Err(self.wrong()),
        })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        let len = u32::from_be_bytes(self.array()?);
        if u64::from(len) > self.left {
            return Err(self.wrong());
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn end<T>(&self, decoded: T) -> Result<T, Error> {
        if self.left == 0 { Ok(decoded) } else { Err(self.wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<Value> {
        vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Text(vec![0xff, 0]),
            Value::Blob(Vec::new()),
        ]
    }

    #[test]
    fn keys_and_rows_come_back_from_their_bytes() {
        for key in [Key::Rowid(-1), Key::Declared(values()), Key::Declared(Vec::new())] {
            assert_eq!(Key::from_bytes(&key.to_bytes()).unwrap(), key);
        }
        for rowid in [None, Some(7)] {
            let row = Row { rowid, values: values() };
            let bytes = row.to_bytes();
            assert_eq!(bytes.len(), row.bytes_len());
            let back = Row::from_bytes(&bytes).unwrap();
            assert_eq!((back.rowid, back.values), (rowid, values()));
        }
    }

    #[test]
    fn damaged_bytes_are_refused_and_nothing_is_allocated_for_them() {
        let whole = Key::Declared(values()).to_bytes();
        for len in 0..whole.len() {
            assert!(Key::from_bytes(&whole[..len]).is_err());
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(Key::from_bytes(&longer).is_err());
        // A text that claims four gigabytes, and more values than there are bytes.
        assert!(Key::from_bytes(&[1, 0, 0, 0, 1, 3, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Row::from_bytes(&[0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
