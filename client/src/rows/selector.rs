//! A row as it is named on the command line, and as it is shown so that it can be named: `TABLE:KEY`.
//!
//! - The table is written as it is; in double quotes, with `""` for a quote, where it has a `:` or a quote,
//!   or is empty.
//! - The key is one value, or several with commas between them. A value is written as in SQL: `17`, `1.5`,
//!   `'text'` with `''` for a quote, `x'00ff'`, `null`. A text that is not valid or that a terminal does not show as
//!   it is stands as its bytes, `CAST(x'0a' AS TEXT)`.
//! - A text need not be in quotes where it has none of `,` `=` `'` and does not look like one of the others:
//!   `ada`.
//! - Whoever names a row may leave the quotes out also where a text looks like a number: it is taken for
//!   the number first, and for the text where no row has the number for its key.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use sqlrsync_protocol::text::is_unseen;

use super::cell::{Cell, Cells};
use crate::cli::Keep;
use crate::error::Error;

/// How a row is named.
const USAGE: &str = "write --row TABLE:KEY=mine or --row TABLE:KEY=theirs, as in customers:17=mine; several values \
                     of a key have commas between them, and a text with , = or : in it stands in single quotes";

/// A row of a table, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    table: String,
    key: Vec<Part>,
}

/// A value of a key, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    cell: Cell,
    /// What else it may be: the text that was written without quotes.
    bare: Option<String>,
}

impl Selector {
    /// Reads `TABLE:KEY=mine` or `TABLE:KEY=theirs`.
    ///
    /// # Errors
    /// Usage, with the text that is none.
    pub fn parse_with_side(text: &str) -> Result<(Selector, Keep), Error> {
        let wrong = || Error::usage(format!("--row {text:?} names no row and side"), USAGE);
        let (table, rest) = table(text).ok_or_else(wrong)?;
        let (key, rest) = key(rest).ok_or_else(wrong)?;
        let keep = match rest.strip_prefix('=') {
            Some("mine") => Keep::Mine,
            Some("theirs") => Keep::Theirs,
            _ => return Err(wrong()),
        };
        Ok((Selector { table, key }, keep))
    }

    /// Whether it names this row: for certain, or only where bare words are taken for texts.
    pub fn matches(&self, table: &str, key: &Cells) -> Option<Match> {
        if self.table != table || self.key.len() != key.0.len() {
            return None;
        }
        let mut found = Match::Exact;
        for (part, (_, cell)) in self.key.iter().zip(&key.0) {
            if part.cell == *cell || is_the_text(&part.cell, cell) {
                continue;
            }
            match (&part.bare, cell) {
                (Some(bare), Cell::Text(text)) if bare == text => found = Match::AsText,
                _ => return None,
            }
        }
        Some(found)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<_> = self.key.iter().map(|part| part_text(&part.cell, None)).collect();
        write!(f, "{}:{}", table_text(&self.table), key.join(","))
    }
}

/// Whether bytes that were given for a text are a text that is shown as such.
fn is_the_text(given: &Cell, cell: &Cell) -> bool {
    matches!((given, cell), (Cell::OddText(digits), Cell::Text(text)) if digits.eq_ignore_ascii_case(&hex(text)))
}

/// The bytes of a text.
fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// How well a selector fits a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Where words without quotes are texts.
    AsText,
    /// As it is written.
    Exact,
}

/// The table, and what stands behind its colon.
fn table(text: &str) -> Option<(String, &str)> {
    match text.strip_prefix('"') {
        Some(rest) => {
            let (name, rest) = unquoted(rest, '"')?;
            Some((name, rest.strip_prefix(':')?))
        }
        None => {
            let (name, rest) = text.split_once(':')?;
            (!name.is_empty()).then(|| (name.to_owned(), rest))
        }
    }
}

/// The values of the key, and what stands behind them, from the `=`.
fn key(text: &str) -> Option<(Vec<Part>, &str)> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = part(rest)?;
        parts.push(part);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some((parts, after)),
        }
    }
}

fn part(text: &str) -> Option<(Part, &str)> {
    let exactly = |cell| Part { cell, bare: None };
    if let Some(rest) = text.strip_prefix('\'') {
        let (value, rest) = unquoted(rest, '\'')?;
        return Some((exactly(Cell::Text(value)), rest));
    }
    if let Some(rest) = text.strip_prefix("CAST(x'").or_else(|| text.strip_prefix("cast(x'")) {
        let (digits, rest) = bytes(rest)?;
        let rest = rest.strip_prefix(" AS TEXT)").or_else(|| rest.strip_prefix(" as text)"))?;
        return Some((exactly(Cell::OddText(digits)), rest));
    }
    if let Some(rest) = text.strip_prefix("x'").or_else(|| text.strip_prefix("X'")) {
        let (digits, rest) = bytes(rest)?;
        return Some((exactly(Cell::Blob(digits)), rest));
    }
    let end = text.find([',', '=']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.is_empty() || word.contains('\'') {
        return None;
    }
    Some(match literal(word) {
        Some(cell) => (Part { cell, bare: Some(word.to_owned()) }, rest),
        None => (exactly(Cell::Text(word.to_owned())), rest),
    })
}

/// Bytes in hexadecimal up to a quote, and what stands behind it.
fn bytes(text: &str) -> Option<(String, &str)> {
    let (digits, rest) = text.split_once('\'')?;
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| (digits.to_ascii_lowercase(), rest))
}

/// A word that is no text where it stands without quotes.
fn literal(word: &str) -> Option<Cell> {
    if word.eq_ignore_ascii_case("null") {
        return Some(Cell::Null);
    }
    if !word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    if let Ok(integer) = word.parse() {
        return Some(Cell::Integer(integer));
    }
    word.parse().ok().map(Cell::Real)
}

/// What stands before the closing quote, with doubled quotes as one, and what stands behind it.
fn unquoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let (inside, after) = rest.split_once(quote)?;
        out.push_str(inside);
        match after.strip_prefix(quote) {
            Some(next) => {
                out.push(quote);
                rest = next;
            }
            None => return Some((out, after)),
        }
    }
}

/// The table's name as it is written in a selector.
pub fn table_text(table: &str) -> String {
    let quoted = table.is_empty() || table.contains([':', '"']);
    let shown = Cell::Text(table.to_owned()).plain(None);
    if quoted { format!("\"{}\"", shown.replace('"', "\"\"")) } else { shown }
}

/// The key's values as they are written in a selector; shortened where they are long, and then none.
pub fn key_text(key: &Cells, width: Option<usize>) -> String {
    let texts: Vec<_> = key.0.iter().map(|(_, cell)| part_text(cell, width)).collect();
    texts.join(",")
}

fn part_text(cell: &Cell, width: Option<usize>) -> String {
    match cell {
        Cell::Text(text) if is_bare(text) => cell.plain(width),
        // Whoever copies it from a terminal has the same text again.
        Cell::Text(text) if text.chars().any(is_unseen) => Cell::OddText(hex(text)).literal(width),
        cell => cell.literal(width),
    }
}

/// Whether a text means itself without quotes.
fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && !text.contains([',', '=', '\'', ':'])
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.chars().any(is_unseen)
        && literal(text).is_none()
}

/// A row by table and key, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowName {
    /// The table.
    pub table: String,
    /// The values of its key.
    pub key: Cells,
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", table_text(&self.table), key_text(&self.key, None))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(table: &str, cells: &[Cell]) -> RowName {
        let key = cells.iter().enumerate().map(|(i, cell)| (format!("c{i}"), cell.clone())).collect();
        RowName { table: table.into(), key: Cells(key) }
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    /// How well what was typed fits that row.
    fn fit(typed: &str, row: &RowName) -> Option<Match> {
        let (selector, _) = Selector::parse_with_side(typed).unwrap();
        selector.matches(&row.table, &row.key)
    }

    #[test]
    fn a_row_is_named_by_table_and_key() {
        assert_eq!(Selector::parse_with_side("customers:17=mine").unwrap().1, Keep::Mine);
        assert_eq!(Selector::parse_with_side("customers:17=theirs").unwrap().1, Keep::Theirs);
        let exact = Some(Match::Exact);
        assert_eq!(fit("customers:17=mine", &row("customers", &[Cell::Integer(17)])), exact);
        assert_eq!(fit("customers:17=mine", &row("customers", &[Cell::Integer(18)])), None);
        assert_eq!(fit("customers:17=mine", &row("orders", &[Cell::Integer(17)])), None);
        assert_eq!(fit("t:ada=mine", &row("t", &[text("ada")])), exact);
        assert_eq!(fit("t:9,-3=mine", &row("t", &[Cell::Integer(9), Cell::Integer(-3)])), exact);
        assert_eq!(fit("t:x'00FF'=mine", &row("t", &[Cell::Blob("00ff".into())])), exact);
        assert_eq!(fit("t:1.5,null=mine", &row("t", &[Cell::Real(1.5), Cell::Null])), exact);
    }

    #[test]
    fn what_separates_stands_in_quotes() {
        let exact = Some(Match::Exact);
        let key = [text("a,b=c:d"), text("it's"), text("")];
        assert_eq!(fit("t:'a,b=c:d','it''s',''=mine", &row("t", &key)), exact);
        assert_eq!(fit("\"a:b\"\"c\":1=mine", &row("a:b\"c", &[Cell::Integer(1)])), exact);
        assert_eq!(fit("t:'mine=theirs'=mine", &row("t", &[text("mine=theirs")])), exact);
    }

    #[test]
    fn digits_are_a_number_first_and_a_text_where_there_is_no_such_number() {
        assert_eq!(fit("t:17=mine", &row("t", &[text("17")])), Some(Match::AsText));
        assert_eq!(fit("t:'17'=mine", &row("t", &[text("17")])), Some(Match::Exact));
        assert_eq!(fit("t:'17'=mine", &row("t", &[Cell::Integer(17)])), None);
    }

    #[test]
    fn what_names_no_row_is_usage() {
        for typed in
            ["", "t", "t:1", "t:=mine", ":1=mine", "t:1=yours", "t:'a=mine", "t:1,=mine", "t:x'0'=mine"]
        {
            assert_eq!(Selector::parse_with_side(typed).unwrap_err().exit_code(), 2, "{typed}");
        }
    }

    fn cells() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<i64>().prop_map(Cell::Integer),
            any::<f64>().prop_filter("a number", |value| value.is_finite()).prop_map(Cell::Real),
            "[ -~äé\n\t\u{200b}]{0,12}".prop_map(Cell::Text),
            "([0-9a-f]{2}){0,5}".prop_map(Cell::OddText),
            "([0-9a-f]{2}){0,5}".prop_map(Cell::Blob),
        ]
    }

    proptest! {
        #[test]
        fn a_row_as_it_is_shown_can_be_named_like_that(
            table in "[ -~ä]{1,10}", key in prop::collection::vec(cells(), 1..4),
        ) {
            let row = row(&table, &key);
            prop_assert_eq!(fit(&format!("{row}=theirs"), &row), Some(Match::Exact), "{}", row);
        }
    }
}
