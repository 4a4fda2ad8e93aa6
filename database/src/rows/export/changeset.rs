//! A changeset as SQLite's session extension writes it: what `sqlite3changeset_apply` takes.
//!
//! It says less than a diff. Left out, and reported: tables without a declared key and rows with NULL in
//! their key (as the session extension leaves them out), tables that one side has not or whose columns
//! changed, `sqlite_sequence`, and changes of the schema. Text must be UTF-8: that of a UTF-16 database is
//! converted, and a row whose text cannot be is left out.
//!
//! The format, by table: `T`, the number of columns, for each its place in the key or 0, the name and a zero.
//! By row: the operation, 0 (not indirect), then the record before, the record after, or both. A value is
//! its type and what belongs to it; in an update, what did not change is left undefined, but for the key
//! before.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use rusqlite::ffi::{SQLITE_DELETE, SQLITE_INSERT, SQLITE_UPDATE};

use super::super::diff::LeftOut;
use super::super::error::Error;
use super::super::key::{Key, Row, RowChange};
use super::super::schema::{Change, Encoding, Schema, Table};
use super::super::value::Value;

const UNDEFINED: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;
const NULL: u8 = 5;

/// Writes changes as a changeset.
pub struct Changeset<W: Write> {
    into: W,
    /// The tables that a changeset can speak of.
    tables: BTreeSet<String>,
    /// The one whose header was written last.
    current: Option<Arc<Table>>,
    left_out: BTreeSet<LeftOut>,
}

impl<W: Write> Changeset<W> {
    /// Writes into something that is best buffered. The schemas are those of the two databases compared.
    pub fn new(into: W, old: &Schema, new: &Schema) -> Changeset<W> {
        let named = |table: &Table| -> Vec<String> {
            table.columns.iter().map(|column| column.name.to_ascii_lowercase()).collect()
        };
        let said = |table: &&Arc<Table>| {
            let before = old.table(&table.name);
            before.is_some_and(|before| named(before) == named(table) && before.key == table.key)
        };
        let tables = new.tables.values().filter(said).map(|table| table.name.clone()).collect();
        Changeset { into, tables, current: None, left_out: BTreeSet::new() }
    }

    /// Writes one change, or notes that it cannot be said.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be written.
    pub fn change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Row(change) => self.row(change),
            Change::Schema(change) => {
                self.leave_out(&change.name, "a changeset says nothing of the schema");
                Ok(())
            }
        }
    }

    /// What a changeset could not say, and what was written into.
    pub fn finish(self) -> (W, Vec<LeftOut>) {
        (self.into, self.left_out.into_iter().collect())
    }

    fn row(&mut self, change: &RowChange) -> Result<(), Error> {
        let table = &change.table;
        if let Some(why) = self.cannot_say(change) {
            self.leave_out(&table.name, why);
            return Ok(());
        }
        let texts = |row: &Option<Row>| row.as_ref().is_none_or(|row| all_utf8(&row.values, change.encoding));
        if !texts(&change.before) || !texts(&change.after) {
            self.leave_out(&table.name, "a row has a text that is not valid and has no form in UTF-8");
            return Ok(());
        }
        if !self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, table)) {
            self.header(table)?;
            self.current = Some(table.clone());
        }
        let Changeset { into, .. } = self;
        let encoding = change.encoding;
        match (&change.before, &change.after) {
            (Some(before), Some(after)) => update(table, before, after, encoding, into)?,
            (Some(row), None) => {
                into.write_all(&[SQLITE_DELETE as u8, 0])?;
                row.values.iter().try_for_each(|value| put(value, encoding, into))?;
            }
            (None, Some(row)) => {
                into.write_all(&[SQLITE_INSERT as u8, 0])?;
                row.values.iter().try_for_each(|value| put(value, encoding, into))?;
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn cannot_say(&self, change: &RowChange) -> Option<&'static str> {
        let table = &change.table;
        if table.is_internal() {
            Some("SQLite keeps it by itself")
        } else if table.key.is_empty() {
            Some("a table without a declared key is in no changeset")
        } else if matches!(change.key, Key::Rowid(_)) {
            Some("a row with NULL in its key is in no changeset")
        } else if !self.tables.contains(&table.name) {
            Some("the table is on one side only, or has other columns there")
        } else {
            None
        }
    }

    fn header(&mut self, table: &Table) -> io::Result<()> {
        self.into.write_all(b"T")?;
        varint(table.columns.len(), &mut self.into)?;
        for column in 0..table.columns.len() {
            let place = table.key.iter().position(|&key| key == column);
            // A key of more than 255 columns still has to say that they belong to it.
            let place = place.map_or(0, |place| u8::try_from(place + 1).unwrap_or(u8::MAX));
            self.into.write_all(&[place])?;
        }
        self.into.write_all(table.name.as_bytes())?;
        self.into.write_all(&[0])
    }

    fn leave_out(&mut self, table: &str, why: &'static str) {
        self.left_out.insert(LeftOut { table: table.to_owned(), why });
    }
}

fn update(
    table: &Table,
    before: &Row,
    after: &Row,
    encoding: Encoding,
    into: &mut dyn Write,
) -> io::Result<()> {
    into.write_all(&[SQLITE_UPDATE as u8, 0])?;
    let changed = |column: usize| before.values.get(column) != after.values.get(column);
    for (column, value) in before.values.iter().enumerate() {
        if changed(column) || table.key.contains(&column) {
            put(value, encoding, into)?;
        } else {
            into.write_all(&[UNDEFINED])?;
        }
    }
    for (column, value) in after.values.iter().enumerate() {
        if changed(column) {
            put(value, encoding, into)?;
        } else {
            into.write_all(&[UNDEFINED])?;
        }
    }
    Ok(())
}

/// Whether all texts are in UTF-8, or can be converted. What a UTF-8 database has is handed on as it is,
/// valid or not: so does SQLite.
fn all_utf8(values: &[Value], encoding: Encoding) -> bool {
    encoding == Encoding::Utf8
        || values.iter().all(|value| !matches!(value, Value::Text(text) if encoding.decode(text).is_none()))
}

fn put(value: &Value, encoding: Encoding, into: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Null => into.write_all(&[NULL]),
        Value::Integer(value) => {
            into.write_all(&[INTEGER])?;
            into.write_all(&value.to_be_bytes())
        }
        Value::Real(value) => {
            into.write_all(&[REAL])?;
            into.write_all(&value.to_bits().to_be_bytes())
        }
        Value::Text(text) if encoding == Encoding::Utf8 => bytes(TEXT, text, into),
        Value::Text(text) => bytes(TEXT, encoding.decode(text).unwrap_or_default().as_bytes(), into),
        Value::Blob(blob) => bytes(BLOB, blob, into),
    }
}

fn bytes(kind: u8, value: &[u8], into: &mut dyn Write) -> io::Result<()> {
    into.write_all(&[kind])?;
    varint(value.len(), into)?;
    into.write_all(value)
}

/// SQLite's variable-length integer, for what is below 2^31: seven bits a byte, the highest first.
fn varint(value: usize, into: &mut dyn Write) -> io::Result<()> {
    let mut groups = [0_u8; 5];
    let mut at = groups.len();
    let mut rest = value;
    loop {
        at -= 1;
        let more = if at == groups.len() - 1 { 0 } else { 0x80 };
        groups[at] = (rest & 0x7f) as u8 | more;
        rest >>= 7;
        if rest == 0 || at == 0 {
            return into.write_all(&groups[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_sqlite_reads_them() {
        let written = |value| {
            let mut bytes = Vec::new();
            varint(value, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(127), [127]);
        assert_eq!(written(128), [0x81, 0]);
        assert_eq!(written(0x7fff_ffff), [0x87, 0xff, 0xff, 0xff, 0x7f]);
    }
}
