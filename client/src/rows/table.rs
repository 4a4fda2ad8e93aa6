//! Tables for people: columns as wide as what is in them.

use std::io::{self, Write};

use super::cell::Cell;
use super::style::{Paint, Style};

/// The widest that a column gets, in characters, while others want room, too.
const COLUMN_WIDTH_MAX: usize = 60;

/// The narrowest that columns are made to fit a terminal, in characters.
const COLUMN_WIDTH_MIN: usize = 6;

/// How many rows are looked at before the widths are fixed.
const SAMPLE_ROWS: usize = 200;

/// And how many bytes of them.
const SAMPLE_BYTES_MAX: usize = 1 << 20;

/// Lines with every column as wide as its widest cell; which columns stand to the right.
pub fn aligned(rows: &[Vec<String>], right: &[bool]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter().map(|row| one_line(row, &widths, right)).collect()
}

fn one_line(cells: &[String], widths: &[usize], right: &[bool]) -> String {
    let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
        if right.get(column).copied().unwrap_or_default() {
            format!("{cell:>width$}")
        } else {
            format!("{cell:width$}")
        }
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Widths that fit into `room`: who needs little gets it, the others share the rest alike.
pub fn fitted(wanted: &[usize], room: usize) -> Vec<usize> {
    let mut widths = wanted.to_vec();
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by_key(|&place| wanted[place]);
    let mut room = room;
    for (taken, &place) in order.iter().enumerate() {
        widths[place] = wanted[place].min(room / (order.len() - taken)).max(1);
        room = room.saturating_sub(widths[place]);
    }
    widths
}

/// A table of rows that come one after the other: the first of them say how wide the columns are.
#[derive(Debug)]
pub struct Streamed {
    style: Style,
    names: Vec<String>,
    /// Rows that wait for the widths to be known.
    sample: Vec<Vec<Cell>>,
    sample_bytes: usize,
    layout: Option<Layout>,
}

#[derive(Debug)]
struct Layout {
    widths: Vec<usize>,
    right: Vec<bool>,
}

impl Streamed {
    /// One with these columns.
    pub fn new(style: Style, names: &[String]) -> Streamed {
        let names = names.iter().map(|name| Cell::Text(name.clone()).plain(Some(COLUMN_WIDTH_MAX))).collect();
        Streamed { style, names, sample: Vec::new(), sample_bytes: 0, layout: None }
    }

    /// Takes a row, and prints what can be printed.
    ///
    /// # Errors
    /// Where `out` cannot be written.
    pub fn row(&mut self, row: Vec<Cell>, out: &mut impl Write) -> io::Result<()> {
        if let Some(layout) = &self.layout {
            return writeln!(out, "{}", layout.line(&row));
        }
        self.sample_bytes += row.iter().map(Cell::len).sum::<usize>();
        self.sample.push(row);
        if self.sample.len() >= SAMPLE_ROWS || self.sample_bytes >= SAMPLE_BYTES_MAX {
            self.flush(out)?;
        }
        Ok(())
    }

    /// Prints what has waited, and the heading before it.
    ///
    /// # Errors
    /// Where `out` cannot be written.
    pub fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.layout.is_none() {
            let layout = Layout::of(&self.names, &self.sample, self.style);
            let heading: Vec<_> =
                self.names.iter().zip(&layout.widths).map(|(name, &width)| cut(name, width)).collect();
            let heading = one_line(&heading, &layout.widths, &layout.right);
            writeln!(out, "{}", self.style.paint(Paint::Bold, &heading))?;
            self.layout = Some(layout);
        }
        if let Some(layout) = &self.layout {
            for row in std::mem::take(&mut self.sample) {
                writeln!(out, "{}", layout.line(&row))?;
            }
        }
        Ok(())
    }
}

impl Layout {
    fn of(names: &[String], rows: &[Vec<Cell>], style: Style) -> Layout {
        let widest = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| cell.plain(Some(COLUMN_WIDTH_MAX)).chars().count()).max();
            names[column].chars().count().max(cells.unwrap_or_default()).max(1)
        };
        let mut widths: Vec<_> = (0..names.len()).map(widest).collect();
        let right = (0..names.len()).map(|column| {
            let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| **cell != Cell::Null);
            rows.iter().filter_map(|row| row.get(column)).any(Cell::is_number) && cells.all(Cell::is_number)
        });
        let mut right: Vec<bool> = right.collect();
        // One alone may be as wide as the terminal, and stands where the others would begin.
        if let ([only], [right]) = (widths.as_mut_slice(), right.as_mut_slice()) {
            (*only, *right) = (style.width, false);
        } else if style.terminal {
            let gaps = 2 * widths.len().saturating_sub(1);
            let room = style.width.saturating_sub(gaps);
            // So many columns that nothing of them would be left are better broken.
            if room >= COLUMN_WIDTH_MIN * widths.len() {
                widths = fitted(&widths, room);
            }
        }
        Layout { widths, right }
    }

    fn line(&self, row: &[Cell]) -> String {
        let cells: Vec<_> =
            row.iter().zip(&self.widths).map(|(cell, &width)| cell.plain(Some(width))).collect();
        one_line(&cells, &self.widths, &self.right)
    }
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(names: &[&str], rows: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut table = Streamed::new(Style::plain(80), &names);
        let mut out = Vec::new();
        for row in rows {
            table.row(serde_json::from_str(row).unwrap(), &mut out).unwrap();
        }
        table.flush(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_stand_to_the_right_and_texts_to_the_left() {
        let text = printed(&["id", "name"], &["[1,\"Ada\"]", "[100,null]"]);
        assert_eq!(text, " id  name\n  1  Ada\n100  NULL\n");
        assert_eq!(printed(&["id"], &["[1]"]), "id\n1\n");
        assert_eq!(printed(&["id"], &[]), "id\n");
    }

    #[test]
    fn a_long_value_does_not_make_its_column_endless() {
        let text = printed(&["a", "b"], &[&format!("[\"{}\",1]", "x".repeat(1000))]);
        assert!(text.lines().all(|line| line.chars().count() <= 64), "{text}");
    }

    #[test]
    fn a_table_fits_the_terminal_while_something_of_each_column_is_left() {
        let text = "x".repeat(50);
        let row = format!("[1,\"{text}\",\"{text}\"]");
        let lines = printed(&["id", "a", "b"], &[&row]);
        assert!(lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
        assert!(lines.contains("xxx…"), "{lines}");
    }

    #[test]
    fn later_rows_keep_the_widths_of_the_first() {
        let rows: Vec<_> = (0..SAMPLE_ROWS).map(|_| "[\"ab\",1]".to_owned()).collect();
        let mut rows: Vec<_> = rows.iter().map(String::as_str).collect();
        rows.push("[\"abcdef\",2]");
        assert!(printed(&["a", "b"], &rows).ends_with("a…  2\n"));
    }
}
