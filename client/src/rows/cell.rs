//! One value of a row as it travels in JSON, and how it is written for people.
//!
//! | SQLite | JSON |
//! |---|---|
//! | NULL | `null` |
//! | integer | a number without point and exponent |
//! | real | a number with one; `{"$real":"inf"}` and `{"$real":"-inf"}` |
//! | text | a string; `{"$text":"hex"}` where it is no UTF-8 |
//! | blob | `{"$blob":"hex"}` |
//!
//! For people a value is a literal of SQL, so that 1, '1' and x'31' are told apart.

use std::fmt::Write;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlrsync_protocol::text::is_unseen;

use super::width;

/// The most columns that a row from a server may have: SQLite's own limit where it is compiled as high as
/// it goes.
pub const COLUMNS_MAX: usize = 32_767;

/// A value.
#[derive(Clone, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A real number; it may be infinite.
    Real(f64),
    /// A text.
    Text(String),
    /// A text that is no UTF-8: its bytes, as hexadecimal digits.
    OddText(String),
    /// A blob: its bytes, as hexadecimal digits.
    Blob(String),
}

impl PartialEq for Cell {
    /// Bit for bit: 1 is not 1.0, and 0.0 not -0.0.
    fn eq(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Null, Cell::Null) => true,
            (Cell::Integer(one), Cell::Integer(other)) => one == other,
            (Cell::Real(one), Cell::Real(other)) => one.to_bits() == other.to_bits(),
            (Cell::Text(one), Cell::Text(other)) => one == other,
            (Cell::OddText(one), Cell::OddText(other)) | (Cell::Blob(one), Cell::Blob(other)) => {
                one.eq_ignore_ascii_case(other)
            }
            _ => false,
        }
    }
}

impl Eq for Cell {}

impl Cell {
    /// What a JSON value stands for.
    ///
    /// # Errors
    /// Where it stands for none.
    pub fn from_json(value: Value) -> Result<Cell, &'static str> {
        Ok(match value {
            Value::Null => Cell::Null,
            Value::String(text) => Cell::Text(text),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Cell::Integer(integer),
                None if number.is_f64() => Cell::Real(number.as_f64().ok_or("a number that is none")?),
                None => return Err("an integer that SQLite does not have"),
            },
            Value::Object(object) => return Cell::from_object(object),
            Value::Bool(_) | Value::Array(_) => return Err("a value that SQLite does not have"),
        })
    }

    fn from_object(object: serde_json::Map<String, Value>) -> Result<Cell, &'static str> {
        let mut entries = object.into_iter();
        let (Some((name, Value::String(text))), None) = (entries.next(), entries.next()) else {
            return Err("an object that stands for no value");
        };
        let is_hex =
            |text: &str| text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (name.as_str(), text.as_str()) {
            ("$real", "inf") => Ok(Cell::Real(f64::INFINITY)),
            ("$real", "-inf") => Ok(Cell::Real(f64::NEG_INFINITY)),
            ("$text", digits) if is_hex(digits) => Ok(Cell::OddText(text)),
            ("$blob", digits) if is_hex(digits) => Ok(Cell::Blob(text)),
            _ => Err("an object that stands for no value"),
        }
    }

    /// As a literal of SQL, on one line, of at most about `width` characters; `None`: whole.
    pub fn literal(&self, width: Option<usize>) -> String {
        match self {
            Cell::Null => "NULL".to_owned(),
            Cell::Integer(value) => value.to_string(),
            Cell::Real(value) => real(*value),
            Cell::Text(text) => quoted(text, width),
            Cell::OddText(digits) => short_hex("CAST(x'", digits, "' AS TEXT)", width),
            Cell::Blob(digits) => short_hex("x'", digits, "'", width),
        }
    }

    /// As [`Cell::literal`], but a text without quotes: for a table, where the column says enough.
    pub fn plain(&self, width: Option<usize>) -> String {
        match self {
            Cell::Text(text) => shortened(&one_line(text, width), width::of(text), width),
            other => other.literal(width),
        }
    }

    /// Whether it is a number, which tables put to the right.
    pub const fn is_number(&self) -> bool {
        matches!(self, Cell::Integer(_) | Cell::Real(_))
    }

    /// What it takes in memory besides itself, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Cell::Text(text) | Cell::OddText(text) | Cell::Blob(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether it takes nothing besides itself.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A real number as SQLite reads it back: with a point or an exponent.
fn real(value: f64) -> String {
    if value == f64::INFINITY {
        return "9e999".to_owned();
    }
    if value == f64::NEG_INFINITY {
        return "-9e999".to_owned();
    }
    format!("{value:?}")
}

/// In single quotes. What is cut is said by a mark behind the quotes.
fn quoted(text: &str, width: Option<usize>) -> String {
    let room = width.map(|width| width.saturating_sub(2));
    let line = one_line(text, room).replace('\'', "''");
    format!("'{}'", shortened(&line, width::of(text), room))
}

fn short_hex(before: &str, digits: &str, after: &str, width: Option<usize>) -> String {
    let whole = before.len() + digits.len() + after.len();
    match width {
        Some(width) if whole > width => {
            let size = format!(" {} bytes", digits.len() / 2);
            let room = width.saturating_sub(before.len() + after.len() + size.len() + 1);
            format!("{before}{}…{after}{size}", &digits[..room.min(digits.len())])
        }
        _ => format!("{before}{digits}{after}"),
    }
}

/// The first characters of a text with nothing in them that a terminal would obey, spaces kept. A line feed
/// shows as `\n`; what else is not seen as `\u{…}`.
fn one_line(text: &str, width: Option<usize>) -> String {
    let mut shown = String::new();
    for c in text.chars().take(width.unwrap_or(usize::MAX)) {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            ' ' => shown.push(' '),
            c if is_unseen(c) => {
                // Writing to a String does not fail.
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// `line`, cut where it or the text that it is the beginning of is longer than `width`.
fn shortened(line: &str, all: usize, width: Option<usize>) -> String {
    match width {
        Some(width) if all > width || width::of(line) > width => {
            format!("{}…", width::cut(line, width.saturating_sub(1)))
        }
        _ => line.to_owned(),
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = |serializer: S, name: &str, text: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(name, text)?;
            map.end()
        };
        match self {
            Cell::Null => serializer.serialize_unit(),
            Cell::Integer(value) => serializer.serialize_i64(*value),
            Cell::Real(value) if *value == f64::INFINITY => object(serializer, "$real", "inf"),
            Cell::Real(value) if *value == f64::NEG_INFINITY => object(serializer, "$real", "-inf"),
            Cell::Real(value) => serializer.serialize_f64(*value),
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::OddText(digits) => object(serializer, "$text", digits),
            Cell::Blob(digits) => object(serializer, "$blob", digits),
        }
    }
}

impl<'d> Deserialize<'d> for Cell {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Cell, D::Error> {
        Cell::from_json(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Columns and their values, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells(pub Vec<(String, Cell)>);

impl Cells {
    /// The value of a column.
    pub fn get(&self, column: &str) -> Option<&Cell> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, cell)| cell)
    }

    /// The same, where it is known at which place it stands most probably: a row may have 2,000 columns.
    pub fn get_near(&self, place: usize, column: &str) -> Option<&Cell> {
        match self.0.get(place) {
            Some((name, cell)) if name == column => Some(cell),
            _ => self.get(column),
        }
    }
}

impl Serialize for Cells {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, cell)| (name, cell)))
    }
}

impl<'d> Deserialize<'d> for Cells {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Cells, D::Error> {
        struct Columns;

        impl<'d> Visitor<'d> for Columns {
            type Value = Cells;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with the columns of a row")
            }

            fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Cells, A::Error> {
                let mut cells = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if cells.len() == COLUMNS_MAX {
                        return Err(A::Error::custom("a row of more columns than there can be"));
                    }
                    cells.push(entry);
                }
                Ok(Cells(cells))
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(json: &str) -> Cell {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn values_come_and_go_bit_for_bit() {
        let texts = [
            "null",
            "9223372036854775807",
            "1.0",
            "-0.0",
            "1e300",
            r#""text""#,
            r#"{"$text":"ff"}"#,
            r#"{"$blob":"00ff"}"#,
            r#"{"$real":"-inf"}"#,
        ];
        for text in texts {
            let again = serde_json::to_string(&cell(text)).unwrap();
            assert_eq!(cell(&again), cell(text), "{text} became {again}");
        }
        assert_ne!(cell("1"), cell("1.0"));
        assert_ne!(cell("0.0"), cell("-0.0"));
    }

    #[test]
    fn what_sqlite_does_not_have_is_refused() {
        for text in ["true", "[1]", "18446744073709551615", r#"{"$blob":"0"}"#, r#"{"$blob":"zz"}"#, "{}"] {
            assert!(serde_json::from_str::<Cell>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_literal_tells_storage_classes_apart() {
        let texts = ["1", "1.0", r#""1""#, r#"{"$blob":"31"}"#, "null", r#""it's""#];
        let literals = texts.map(|text| cell(text).literal(None));
        assert_eq!(literals, ["1", "1.0", "'1'", "x'31'", "NULL", "'it''s'"]);
    }

    #[test]
    fn a_text_cannot_steer_a_terminal_and_is_shortened() {
        let hostile = Cell::Text("a\x1b[2J\n\u{202e}b".into());
        assert_eq!(hostile.plain(None), "a\\u{1b}[2J\\n\\u{202e}b");
        assert_eq!(Cell::Text("abcdefgh".into()).literal(Some(6)), "'abc…'");
        assert_eq!(Cell::Text("abcdefgh".into()).plain(Some(6)), "abcde…");
        // What is escaped takes more room than it did, and the quotes are closed all the same.
        assert_eq!(Cell::Text("\u{200d}\u{200d}'".into()).literal(Some(12)), "'\\u{200d}\\…'");
        assert_eq!(Cell::Text("日本語".into()).literal(Some(7)), "'日本…'");
        let blob = Cell::Blob("00".repeat(1000)).literal(Some(24));
        assert!(blob.chars().count() <= 24 && blob.ends_with("1000 bytes"), "{blob}");
    }

    #[test]
    fn columns_keep_their_order() {
        let cells: Cells = serde_json::from_str(r#"{"z":1,"a":2}"#).unwrap();
        assert_eq!(serde_json::to_string(&cells).unwrap(), r#"{"z":1,"a":2}"#);
    }
}
