//! Tables for people: columns as wide as what is in them.

use std::io::{self, Write};

use super::cell::Cell;
use super::style::{Paint, Style};
use super::width;

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
            rows.iter().filter_map(|row| row.get(column)).map(|cell| width::of(cell)).max().unwrap_or(0)
        })
        .collect();
    rows.iter().map(|row| one_line(row, &widths, right)).collect()
}

fn one_line(cells: &[String], widths: &[usize], right: &[bool]) -> String {
    let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
        if right.get(column).copied().unwrap_or_default() {
            width::to_the_right(cell, width)
        } else {
            width::to_the_left(cell, width)
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
    /// How many rows were printed as records.
    records: u64,
}

#[derive(Debug)]
enum Layout {
    /// A row a line.
    Columns { widths: Vec<usize>, right: Vec<bool> },
    /// A value a line, behind the name of its column: for so many columns that nothing of them would be left in
    /// the width of the terminal.
    Records { names: usize, values: usize },
}

impl Streamed {
    /// One with these columns.
    pub fn new(style: Style, names: &[String]) -> Streamed {
        let names = names.iter().map(|name| Cell::Text(name.clone()).plain(Some(COLUMN_WIDTH_MAX))).collect();
        Streamed { style, names, sample: Vec::new(), sample_bytes: 0, layout: None, records: 0 }
    }

    /// Takes a row, and prints what can be printed.
    ///
    /// # Errors
    /// Where `out` cannot be written.
    pub fn row(&mut self, row: Vec<Cell>, out: &mut impl Write) -> io::Result<()> {
        if self.layout.is_some() {
            return self.print(&row, out);
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
            if let Layout::Columns { widths, right } = &layout {
                let names = self.names.iter().zip(widths);
                let heading: Vec<_> =
                    names.map(|(name, &width)| width::cut(name, width).to_owned()).collect();
                let heading = one_line(&heading, widths, right);
                writeln!(out, "{}", self.style.paint(Paint::Bold, &heading))?;
            }
            self.layout = Some(layout);
        }
        std::mem::take(&mut self.sample).iter().try_for_each(|row| self.print(row, out))
    }

    fn print(&mut self, row: &[Cell], out: &mut impl Write) -> io::Result<()> {
        match &self.layout {
            Some(Layout::Columns { widths, right }) => {
                let cells = row.iter().zip(widths).map(|(cell, &width)| cell.plain(Some(width)));
                writeln!(out, "{}", one_line(&cells.collect::<Vec<_>>(), widths, right))
            }
            Some(Layout::Records { names, values }) => {
                self.records += 1;
                let heading = format!("row {}", self.records);
                writeln!(out, "{}", self.style.paint(Paint::Bold, &heading))?;
                self.names.iter().zip(row).try_for_each(|(name, cell)| {
                    let name = width::to_the_left(width::cut(name, *names), *names);
                    writeln!(out, "  {name}  {}", cell.plain(Some(*values)))
                })
            }
            None => Ok(()),
        }
    }
}

impl Layout {
    fn of(names: &[String], rows: &[Vec<Cell>], style: Style) -> Layout {
        let widest = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| width::of(&cell.plain(Some(COLUMN_WIDTH_MAX)))).max();
            width::of(&names[column]).max(cells.unwrap_or_default()).max(1)
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
            let wanted = widths.iter().sum::<usize>();
            if wanted > room && room < COLUMN_WIDTH_MIN * widths.len() && !rows.is_empty() {
                return Layout::records(names, style);
            }
            if room >= COLUMN_WIDTH_MIN * widths.len() {
                widths = fitted(&widths, room);
            }
        }
        Layout::Columns { widths, right }
    }

    fn records(names: &[String], style: Style) -> Layout {
        let widest = names.iter().map(|name| width::of(name)).max().unwrap_or_default();
        let names = widest.min(style.width / 2 - 4);
        Layout::Records { names, values: style.width - names - 4 }
    }
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
    fn wide_characters_leave_the_columns_where_they_are() {
        let text = printed(&["a", "b"], &["[\"日本\",1]", "[\"abcde\",2]"]);
        assert_eq!(text, "a      b\n日本   1\nabcde  2\n");
    }

    #[test]
    fn more_columns_than_a_line_holds_stand_below_each_other() {
        let names: Vec<_> = (0..50).map(|n| format!("column_{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let row = format!("[{}]", vec!["\"some value\""; 50].join(","));
        let text = printed(&names, &[&row, &row]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 102);
        assert_eq!(lines[..3], ["row 1", "  column_0   some value", "  column_1   some value"]);
        assert_eq!(lines[51], "row 2");
        // One place each is enough for them.
        let row = format!("[{}]", vec!["1"; 20].join(","));
        assert_eq!(printed(&["a"; 20], &[&row]).lines().count(), 2);
    }

    #[test]
    fn later_rows_keep_the_widths_of_the_first() {
        let rows: Vec<_> = (0..SAMPLE_ROWS).map(|_| "[\"ab\",1]".to_owned()).collect();
        let mut rows: Vec<_> = rows.iter().map(String::as_str).collect();
        rows.push("[\"abcdef\",2]");
        assert!(printed(&["a", "b"], &rows).ends_with("a…  2\n"));
    }
}
