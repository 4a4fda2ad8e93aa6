//! JSON, an object a line. The form is fixed, because scripts rely on it.
//!
//! A row: `{"table":…,"key":{…},"op":"insert"|"update"|"delete","before":{…}|null,"after":{…}|null}`. Keys and
//! rows are objects by column; a key that is a rowid is `{"rowid":…}`, or has the name of the rowid that no
//! column has. A change of the schema has `"schema"` (what it is of) in place of `"table"`, and SQL before
//! and after.
//!
//! Integers are JSON integers, reals always have a point or an exponent, infinities are `{"$real":"inf"}` and
//! `{"$real":"-inf"}`, blobs `{"$blob":"hex"}`, and text that is no valid text of its encoding
//! `{"$text":"hex"}`. Characters that could do something to a terminal are escaped.

use std::io::{self, Write};

use sqlrsync_protocol::text::is_unseen;

use super::super::error::Error;
use super::super::key::{Key, Row, RowChange};
use super::super::schema::{Change, Encoding, SchemaChange, Table};
use super::super::value::Value;

/// Writes changes as JSON lines.
pub struct JsonLines<W: Write> {
    into: W,
    search_indexes: bool,
}

impl<W: Write> JsonLines<W> {
    /// Writes into something that is best buffered. Rows of full-text indexes, which follow from what they
    /// index, are left out.
    pub const fn new(into: W) -> JsonLines<W> {
        JsonLines { into, search_indexes: false }
    }

    /// With the rows of full-text indexes too.
    #[must_use]
    pub const fn with_search_indexes(mut self) -> JsonLines<W> {
        self.search_indexes = true;
        self
    }

    /// Writes one change.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be written.
    pub fn change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Row(change) if change.table.is_search_index() && !self.search_indexes => return Ok(()),
            Change::Row(change) => row_json(change, &mut self.into)?,
            Change::Schema(change) => schema_json(change, &mut self.into)?,
        }
        Ok(self.into.write_all(b"\n")?)
    }

    /// What was written into.
    pub fn into_inner(self) -> W {
        self.into
    }
}

/// Writes a row that differs as one JSON object, without a line's end.
///
/// # Errors
/// What the writer says.
pub fn row_json(change: &RowChange, into: &mut dyn Write) -> io::Result<()> {
    let (table, before) = (&change.table, &change.table_before);
    into.write_all(b"{\"table\":")?;
    string(&table.name, into)?;
    into.write_all(b",\"key\":")?;
    let keyed = if change.after.is_some() { table } else { before };
    key_json(keyed, &change.key, change.encoding, into)?;
    write!(into, ",\"op\":\"{}\",\"before\":", change.op().as_str())?;
    optional(before, change.before.as_ref(), change.encoding, into)?;
    into.write_all(b",\"after\":")?;
    optional(table, change.after.as_ref(), change.encoding, into)?;
    into.write_all(b"}")
}

fn schema_json(change: &SchemaChange, into: &mut dyn Write) -> io::Result<()> {
    let op = match (&change.before, &change.after) {
        (None, _) => "insert",
        (_, None) => "delete",
        _ => "update",
    };
    write!(into, "{{\"schema\":\"{}\",\"name\":", change.kind.as_str())?;
    string(&change.name, into)?;
    write!(into, ",\"op\":\"{op}\"")?;
    for (name, sql) in [("before", &change.before), ("after", &change.after)] {
        write!(into, ",\"{name}\":")?;
        match sql {
            None => into.write_all(b"null")?,
            Some(sql) => string(sql, into)?,
        }
    }
    into.write_all(b"}")
}

fn key_json(table: &Table, key: &Key, encoding: Encoding, into: &mut dyn Write) -> io::Result<()> {
    match key {
        Key::Rowid(rowid) => {
            write!(into, "{{\"{}\":{rowid}}}", table.rowid.as_deref().unwrap_or("rowid"))
        }
        Key::Declared(values) => {
            let columns = table.key.iter().filter_map(|&column| table.columns.get(column));
            members(columns.map(|column| &*column.name).zip(values), encoding, into)
        }
    }
}

fn optional(table: &Table, row: Option<&Row>, encoding: Encoding, into: &mut dyn Write) -> io::Result<()> {
    let Some(row) = row else { return into.write_all(b"null") };
    members(table.columns.iter().map(|column| &*column.name).zip(&row.values), encoding, into)
}

fn members<'a>(
    members: impl Iterator<Item = (&'a str, &'a Value)>,
    encoding: Encoding,
    into: &mut dyn Write,
) -> io::Result<()> {
    into.write_all(b"{")?;
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            into.write_all(b",")?;
        }
        string(name, into)?;
        into.write_all(b":")?;
        value_json(value, encoding, into)?;
    }
    into.write_all(b"}")
}

/// Writes a value as JSON; its text has the encoding given.
///
/// # Errors
/// What the writer says.
pub fn value_json(value: &Value, encoding: Encoding, into: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Null => into.write_all(b"null"),
        Value::Integer(value) => write!(into, "{value}"),
        Value::Real(value) if value.is_infinite() => {
            write!(into, "{{\"$real\":\"{}\"}}", if *value > 0.0 { "inf" } else { "-inf" })
        }
        // SQLite stores no NaN; a value that somebody made of one is NULL.
        Value::Real(value) if value.is_nan() => into.write_all(b"null"),
        // The shortest digits that read back as the same number, always with a point or an exponent.
        Value::Real(value) => write!(into, "{value:?}"),
        Value::Text(bytes) if encoding == Encoding::Utf8 => match std::str::from_utf8(bytes) {
            Ok(text) => string(text, into),
            Err(_) => tagged("$text", bytes, into),
        },
        Value::Text(bytes) => match encoding.decode(bytes) {
            Some(text) => string(&text, into),
            None => tagged("$text", bytes, into),
        },
        Value::Blob(bytes) => tagged("$blob", bytes, into),
    }
}

fn tagged(tag: &str, bytes: &[u8], into: &mut dyn Write) -> io::Result<()> {
    write!(into, "{{\"{tag}\":\"")?;
    hex(bytes, into)?;
    into.write_all(b"\"}")
}

/// Writes bytes in hexadecimal, without a string of twice their length.
pub(super) fn hex(bytes: &[u8], into: &mut dyn Write) -> io::Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 1024];
    for piece in bytes.chunks(digits.len() / 2) {
        for (byte, pair) in piece.iter().zip(digits.chunks_exact_mut(2)) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        into.write_all(&digits[..2 * piece.len()])?;
    }
    Ok(())
}

fn string(text: &str, into: &mut dyn Write) -> io::Result<()> {
    into.write_all(b"\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(needs_escape) {
        into.write_all(&rest.as_bytes()[..at])?;
        let mut after = rest[at..].chars();
        match after.next() {
            Some('"') => into.write_all(b"\\\"")?,
            Some('\\') => into.write_all(b"\\\\")?,
            Some('\n') => into.write_all(b"\\n")?,
            Some('\t') => into.write_all(b"\\t")?,
            Some(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    write!(into, "\\u{unit:04x}")?;
                }
            }
            None => {}
        }
        rest = after.as_str();
    }
    into.write_all(rest.as_bytes())?;
    into.write_all(b"\"")
}

/// What JSON does not allow in a string, and what changes how a terminal shows the rest of a line.
fn needs_escape(character: char) -> bool {
    matches!(character, '"' | '\\') || is_unseen(character)
}
