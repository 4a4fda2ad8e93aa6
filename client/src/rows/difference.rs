//! Differences for people: by table, a line a row with what changed in it; or numbers by table.
//!
//! ```text
//! customers
//! + 18  name 'Eve', city 'Rome'
//! ~ 17  name 'Ada' -> 'Ada L.'
//! - 3   name 'Bob', city 'Paris'
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Cells};
use super::selector::{key_text, table_text};
use super::style::{Paint, Style};
use super::table::aligned;
use super::width;

/// The widest that a key gets, in characters.
const KEY_WIDTH_MAX: usize = 32;

/// The widest that a value gets, in characters.
const VALUE_WIDTH_MAX: usize = 40;

/// What the numbers of a table take behind its name, where there are fewer than 10,000,000 of each.
const NUMBERS_WIDTH: usize = 30;

/// What is said where nothing differs.
pub const NOTHING: &str = "nothing differs: the rows and the schema are the same";

/// The most tables that are counted: more than that is no database.
const TABLES_MAX: usize = 65_536;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It is new.
    Insert,
    /// Its values are others.
    Update,
    /// It is gone.
    Delete,
}

impl Op {
    const fn mark(self) -> (&'static str, Paint) {
        match self {
            Op::Insert => ("+", Paint::Green),
            Op::Update => ("~", Paint::Yellow),
            Op::Delete => ("-", Paint::Red),
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowDifference {
    /// Its table.
    pub table: String,
    /// Its key.
    pub key: Cells,
    /// What happened to it.
    pub op: Op,
    /// What it was.
    pub before: Option<Cells>,
    /// What it is.
    pub after: Option<Cells>,
}

/// A difference of the schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SchemaDifference {
    /// Of what: `table`, `index`, `view`, `trigger`, or a number of the header.
    #[serde(rename = "schema")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub op: Op,
    /// Its SQL before, or the number.
    pub before: Option<String>,
    /// Its SQL after, or the number.
    pub after: Option<String>,
}

/// Shows rows as they come, and counts them.
#[derive(Debug)]
pub struct Shower {
    style: Style,
    /// The table whose heading was printed last.
    table: Option<String>,
    counts: Counts,
}

impl Shower {
    /// One that has shown nothing.
    pub fn new(style: Style) -> Shower {
        Shower { style, table: None, counts: Counts::default() }
    }

    /// The lines for a row.
    pub fn row(&mut self, row: &RowDifference) -> Vec<String> {
        let mut lines = Vec::new();
        if self.table.as_ref() != Some(&row.table) {
            lines.extend((!self.counts.is_empty()).then(String::new));
            lines.push(self.style.paint(Paint::Bold, &table_text(&row.table)));
            self.table = Some(row.table.clone());
        }
        self.counts.add(row);
        lines.extend(row.lines(self.style));
        lines
    }

    /// The lines for a change of the schema.
    pub fn schema(&mut self, change: &SchemaDifference) -> Vec<String> {
        let text = |sql: &Option<String>| {
            let sql = sql.as_ref().map(|sql| sql.split_whitespace().collect::<Vec<_>>().join(" "));
            sql.map(|sql| Cell::Text(sql).plain(Some(self.style.width.saturating_sub(6))))
        };
        let plain = |text: &str| Cell::Text(text.to_owned()).plain(Some(KEY_WIDTH_MAX));
        let (kind, name) = (plain(&change.kind), plain(&change.name));
        let (mark, paint) = change.op.mark();
        let mut lines = vec![self.style.paint(paint, &format!("{mark} {kind} {name}"))];
        lines.extend(text(&change.before).map(|sql| self.style.paint(Paint::Red, &format!("    - {sql}"))));
        lines.extend(text(&change.after).map(|sql| self.style.paint(Paint::Green, &format!("    + {sql}"))));
        self.counts.schema += 1;
        lines
    }

    /// What was shown, in a sentence.
    pub fn end(self) -> Counts {
        self.counts
    }
}

impl RowDifference {
    fn lines(&self, style: Style) -> Vec<String> {
        let (mark, paint) = self.op.mark();
        let parts = match self.op {
            Op::Insert => values(self.after.as_ref(), &self.key),
            Op::Delete => values(self.before.as_ref(), &self.key),
            Op::Update => self.changes(),
        };
        let head = format!("{mark} {}  ", key_text(&self.key, Some(KEY_WIDTH_MAX)));
        let indent = width::of(&head).min(style.width / 3);
        let mut lines = vec![head];
        for (index, part) in parts.iter().enumerate() {
            let part = if index + 1 < parts.len() { format!("{part}, ") } else { part.clone() };
            let Some(line) = lines.last_mut() else { break };
            let used = width::of(line);
            if used > indent && used + width::of(part.trim_end()) > style.width {
                lines.push(format!("{}{part}", " ".repeat(indent)));
            } else {
                line.push_str(&part);
            }
        }
        lines.iter().map(|line| style.paint(paint, line.trim_end())).collect()
    }

    /// What is not as it was.
    fn changes(&self) -> Vec<String> {
        let (none, text) = (Cells::default(), |cell: Option<&Cell>| {
            cell.map_or_else(|| "-".to_owned(), |cell| cell.literal(Some(VALUE_WIDTH_MAX)))
        });
        let (before, after) = (self.before.as_ref().unwrap_or(&none), self.after.as_ref().unwrap_or(&none));
        let gone =
            before.0.iter().enumerate().filter(|(place, (name, _))| after.get_near(*place, name).is_none());
        let both = after
            .0
            .iter()
            .enumerate()
            .chain(gone)
            .map(|(place, (name, _))| (name, before.get_near(place, name), after.get_near(place, name)));
        both.filter(|(_, before, after)| before != after)
            .map(|(name, before, after)| format!("{} {} -> {}", column(name), text(before), text(after)))
            .collect()
    }
}

/// The values of a row that its key does not say.
fn values(row: Option<&Cells>, key: &Cells) -> Vec<String> {
    let cells = row.into_iter().flat_map(|row| &row.0);
    let unsaid = cells.filter(|(name, cell)| key.get(name) != Some(cell));
    unsaid.map(|(name, cell)| format!("{} {}", column(name), cell.literal(Some(VALUE_WIDTH_MAX)))).collect()
}

fn column(name: &str) -> String {
    Cell::Text(name.to_owned()).plain(Some(VALUE_WIDTH_MAX))
}

/// How many rows differ, by table.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    tables: BTreeMap<String, Count>,
    /// Changes of the schema.
    pub schema: u64,
}

/// How many rows of a table differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// New ones.
    pub insert: u64,
    /// Other values.
    pub update: u64,
    /// Gone.
    pub delete: u64,
}

impl Counts {
    /// Numbers that somebody else has counted.
    pub fn new(tables: BTreeMap<String, Count>, schema: u64) -> Counts {
        Counts { tables, schema }
    }

    /// Counts a row. Of more tables than there can be only the first are told apart.
    pub fn add(&mut self, row: &RowDifference) {
        if self.tables.len() >= TABLES_MAX && !self.tables.contains_key(&row.table) {
            return;
        }
        let count = self.tables.entry(row.table.clone()).or_default();
        match row.op {
            Op::Insert => count.insert += 1,
            Op::Update => count.update += 1,
            Op::Delete => count.delete += 1,
        }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.schema == 0
    }

    /// By table.
    pub fn tables(&self) -> impl Iterator<Item = (&str, Count)> {
        self.tables.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// A table with a line a table. On a terminal names are shortened that would push the numbers out of it.
    pub fn lines(&self, style: Style) -> Vec<String> {
        if self.tables.is_empty() {
            return vec![self.sentence()];
        }
        let mut rows = vec![["table", "inserted", "updated", "deleted"].map(str::to_owned).to_vec()];
        rows.extend(self.tables().map(|(name, count)| {
            let numbers = [count.insert, count.update, count.delete].map(|number| number.to_string());
            let name = table_text(name);
            let name = match style.terminal.then(|| style.width.saturating_sub(NUMBERS_WIDTH)) {
                Some(room) if width::of(&name) > room => format!("{}…", width::cut(&name, room.max(1) - 1)),
                _ => name,
            };
            std::iter::once(name).chain(numbers).collect()
        }));
        let mut lines = aligned(&rows, &[false, true, true, true]);
        lines.extend(
            (self.schema > 0).then(|| format!("the schema differs in {}", things(self.schema, "place"))),
        );
        lines
    }

    /// All of it in a sentence.
    pub fn sentence(&self) -> String {
        let sum = |of: fn(&Count) -> u64| self.tables.values().map(of).sum::<u64>();
        let (insert, update, delete) =
            (sum(|count| count.insert), sum(|count| count.update), sum(|count| count.delete));
        let schema = if self.schema > 0 {
            format!("the schema differs in {}", things(self.schema, "place"))
        } else {
            String::new()
        };
        if insert + update + delete == 0 {
            return if schema.is_empty() { NOTHING.to_owned() } else { format!("no row differs; {schema}") };
        }
        let rows = things(insert + update + delete, "row");
        let tables = things(self.tables.len() as u64, "table");
        let what = format!("{rows} in {tables}: {insert} inserted, {update} updated, {delete} deleted");
        if schema.is_empty() { what } else { format!("{what}; {schema}") }
    }
}

impl Count {
    /// In the fewest characters: `+1 ~2 -3`.
    pub fn short(&self) -> String {
        let parts = [("+", self.insert), ("~", self.update), ("-", self.delete)];
        let parts: Vec<_> =
            parts.iter().filter(|(_, n)| *n > 0).map(|(mark, n)| format!("{mark}{n}")).collect();
        parts.join(" ")
    }
}

fn things(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style::plain(60);

    fn row(json: &str) -> RowDifference {
        serde_json::from_str(json).unwrap()
    }

    fn rows() -> Vec<RowDifference> {
        [
            r#"{"table":"customers","key":{"id":3},"op":"delete","before":{"id":3,"name":"Bob"},"after":null}"#,
            r#"{"table":"customers","key":{"id":17},"op":"update","before":{"id":17,"name":"Ada","n":1},
                "after":{"id":17,"name":"Ada L.","n":1.0}}"#,
            r#"{"table":"o:x","key":{"a":9,"b":"it's"},"op":"insert","before":null,"after":{"a":9,"b":"it's","c":null}}"#,
        ]
        .map(row)
        .to_vec()
    }

    #[test]
    fn rows_stand_under_their_table_with_what_changed() {
        let mut shower = Shower::new(PLAIN);
        let lines: Vec<_> = rows().iter().flat_map(|row| shower.row(row)).collect();
        let expected = [
            "customers",
            "- 3  name 'Bob'",
            "~ 17  name 'Ada' -> 'Ada L.', n 1 -> 1.0",
            "",
            "\"o:x\"",
            "+ 9,'it''s'  c NULL",
        ];
        assert_eq!(lines, expected);
        assert_eq!(shower.end().sentence(), "3 rows in 2 tables: 1 inserted, 1 updated, 1 deleted");
    }

    #[test]
    fn a_wide_row_goes_on_in_the_next_line() {
        let columns: Vec<_> = (0..20).map(|n| format!(r#""column{n}":"value {n}""#)).collect();
        let wide = format!(
            r#"{{"table":"t","key":{{"id":1}},"op":"insert","before":null,"after":{{"id":1,{}}}}}"#,
            columns.join(",")
        );
        let lines = row(&wide).lines(PLAIN);
        assert!(lines.len() > 5 && lines.iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
        assert!(lines[1].starts_with("     column"), "{lines:#?}");
    }

    #[test]
    fn numbers_by_table() {
        let mut counts = Counts::default();
        rows().iter().for_each(|row| counts.add(row));
        assert_eq!(
            counts.lines(PLAIN),
            [
                "table      inserted  updated  deleted",
                "customers         0        1        1",
                "\"o:x\"             1        0        0",
            ]
        );
        assert_eq!(Counts::default().lines(PLAIN), ["nothing differs: the rows and the schema are the same"]);
    }

    #[test]
    fn a_long_name_leaves_the_numbers_in_the_terminal() {
        let count = Count { insert: 1, ..Count::default() };
        let counts = Counts::new([("長".repeat(50), count), ("t".to_owned(), count)].into(), 0);
        let lines = counts.lines(PLAIN);
        assert!(lines.iter().all(|line| width::of(line) <= 60 && line.ends_with(['0', 'd'])), "{lines:#?}");
        assert!(counts.lines(Style { terminal: false, ..PLAIN })[2].contains(&"長".repeat(50)));
    }

    #[test]
    fn a_change_of_the_schema_is_shown_as_one() {
        let change = SchemaDifference {
            kind: "table".into(),
            name: "t".into(),
            op: Op::Delete,
            before: Some("CREATE TABLE t (\n a\x1b[2J)".into()),
            after: None,
        };
        let mut shower = Shower::new(PLAIN);
        assert_eq!(shower.schema(&change), ["- table t", "    - CREATE TABLE t ( a\\u{1b}[2J)"]);
        assert_eq!(shower.end().sentence(), "no row differs; the schema differs in 1 place");
    }
}
