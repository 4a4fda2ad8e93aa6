//! The rows of a conflict, for people: base, theirs and mine side by side, with what differs marked.
//!
//! ```text
//! customers:17   theirs and mine changed it
//!      id    17       17           17
//! >    name  'Ada'    'Ada L.'     'Ada'
//! ```
//!
//! The mark in front of a column says who changed it: `<` theirs, `>` mine, `*` both, differently; `=` both,
//! to the same.

use serde::{Deserialize, Serialize};

use sqlrsync_protocol::text::printable;

use super::cell::{Cell, Cells};
use super::selector::{key_text, table_text};
use super::style::{Paint, Style};
use super::table::fitted;
use super::width;

/// The widest that the names of columns get, in characters.
const NAME_WIDTH_MAX: usize = 24;

/// The widest that a key gets, in characters. One that is cut cannot be copied into --row.
const KEY_WIDTH_MAX: usize = 120;

/// What is left between two columns.
const GAP: usize = 2;

/// A row of a conflict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConflictRow {
    /// Its table.
    pub table: String,
    /// Its key.
    #[serde(default)]
    pub key: Cells,
    /// What it was when both sides last agreed; `None`: it was not there.
    pub base: Option<Cells>,
    /// What it is in the replica; `None`: it is not there.
    pub theirs: Option<Cells>,
    /// What was pushed; `None`: it is not there.
    pub mine: Option<Cells>,
    /// The columns in which theirs and mine are not the same.
    #[serde(default, alias = "differing")]
    pub differs: Vec<String>,
    /// Columns of which only the beginning of the values is here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// What is wrong besides that both changed it: a constraint that would not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Who changed a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Theirs,
    Mine,
    /// To the same.
    BothAlike,
    /// Each to something else.
    Both,
}

impl Who {
    const fn mark(self) -> &'static str {
        match self {
            Who::Nobody => " ",
            Who::Theirs => "<",
            Who::Mine => ">",
            Who::BothAlike => "=",
            Who::Both => "*",
        }
    }
}

/// What the marks mean, in a line.
pub fn legend() -> &'static str {
    "changed by: < theirs (the replica), > mine (pushed), * both, = both alike"
}

impl ConflictRow {
    /// The lines in which it is shown.
    pub fn lines(&self, style: Style) -> Vec<String> {
        let name = format!("{}:{}", table_text(&self.table), key_text(&self.key, Some(KEY_WIDTH_MAX)));
        let mut lines = vec![format!("{}  {}", style.paint(Paint::Bold, &name), self.summary())];
        if let Some(why) = &self.why {
            lines.push(style.paint(Paint::Yellow, &format!("  {}", printable(why))));
        }
        let columns = self.columns();
        let name_width = columns.iter().map(|name| width::of(name)).max().unwrap_or_default();
        let name_width = name_width.clamp(1, NAME_WIDTH_MAX);
        let left = style.width.saturating_sub(2 + name_width + 3 * GAP);
        let wanted = self.wanted(&columns);
        let fitting = fitted(&wanted, left);
        let widths = std::array::from_fn(|side| fitting[side]);
        lines.push(line(
            " ",
            ("", name_width),
            &["base", "theirs", "mine"].map(str::to_owned),
            widths,
            |_, text| style.paint(Paint::Dim, text),
        ));
        for column in &columns {
            let who = self.who(column);
            let cells: [String; 3] = std::array::from_fn(|side| shown(self.side(side, column), widths[side]));
            let column = Cell::Text((*column).to_owned()).plain(Some(name_width));
            lines.push(line(who.mark(), (&column, name_width), &cells, widths, |side, text| {
                style.paint(colour(who, side), text)
            }));
        }
        if !self.cut.is_empty() {
            let names: Vec<_> = self.cut.iter().map(|name| printable(name)).collect();
            let text = format!("  long values are cut by the server: {}", names.join(", "));
            lines.push(style.paint(Paint::Dim, &text));
        }
        lines
    }

    /// What happened to it, in words. Where values are cut it cannot be told whether a row is the base's.
    fn summary(&self) -> &'static str {
        let is_base = |side: &Option<Cells>| self.cut.is_empty() && *side == self.base;
        match (&self.base, &self.theirs, &self.mine) {
            (None, Some(_), Some(_)) => "both inserted it",
            (Some(_), None, Some(_)) if is_base(&self.mine) => "theirs deleted it",
            (Some(_), Some(_), None) if is_base(&self.theirs) => "mine deleted it",
            (Some(_), None, Some(_)) => "theirs deleted it, mine changed it",
            (Some(_), Some(_), None) => "theirs changed it, mine deleted it",
            (Some(_), Some(_), Some(_)) if is_base(&self.mine) => "theirs changed it",
            (Some(_), Some(_), Some(_)) if is_base(&self.theirs) => "mine changed it",
            (Some(_), Some(_), Some(_)) => "both changed it",
            (None, Some(_), None) => "theirs inserted it",
            (None, None, Some(_)) => "mine inserted it",
            (Some(_), None, None) => "both deleted it",
            (None, None, None) => "it is on no side",
        }
    }

    /// Every column that one of the sides has, in its order.
    fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for (name, _) in
            [&self.base, &self.theirs, &self.mine].into_iter().flatten().flat_map(|cells| &cells.0)
        {
            if known.insert(name.as_str()) {
                columns.push(name);
            }
        }
        columns
    }

    fn side(&self, side: usize, column: &str) -> Option<&Cell> {
        [&self.base, &self.theirs, &self.mine].get(side)?.as_ref()?.get(column)
    }

    fn who(&self, column: &str) -> Who {
        let [base, theirs, mine] = [0, 1, 2].map(|side| self.side(side, column));
        let cut = self.cut.iter().any(|name| name == column);
        match (theirs != base, mine != base) {
            // Where only the beginnings are here, only who compared the whole can tell.
            _ if cut && theirs == mine && self.differs.iter().any(|name| name == column) => Who::Both,
            (false, false) => Who::Nobody,
            (true, false) => Who::Theirs,
            (false, true) => Who::Mine,
            (true, true) if theirs == mine => Who::BothAlike,
            (true, true) => Who::Both,
        }
    }

    /// How wide each side would be if it could.
    fn wanted(&self, columns: &[&str]) -> [usize; 3] {
        std::array::from_fn(|side| {
            let widths = columns.iter().map(|column| {
                // Only as much of a value as could be shown is looked at.
                width::of(&shown(self.side(side, column), super::style::WIDTH_ELSEWHERE))
            });
            widths.max().unwrap_or_default().max("theirs".len())
        })
    }
}

fn shown(cell: Option<&Cell>, width: usize) -> String {
    cell.map_or_else(|| "-".to_owned(), |cell| cell.literal(Some(width)))
}

/// A line of the table; `paint` paints a cell after it was padded, so that colours move nothing.
fn line(
    mark: &str,
    (name, name_width): (&str, usize),
    cells: &[String; 3],
    widths: [usize; 3],
    paint: impl Fn(usize, &str) -> String,
) -> String {
    let gap = " ".repeat(GAP);
    let mut line = format!("{mark} {}", width::to_the_left(name, name_width));
    for (side, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = width::cut(cell, width);
        let padded = if side == 2 { cell.to_owned() } else { width::to_the_left(cell, width) };
        line.push_str(&gap);
        line.push_str(&paint(side, &padded));
    }
    line.trim_end().to_owned()
}

fn colour(who: Who, side: usize) -> Paint {
    match (who, side) {
        (Who::Nobody, _) => Paint::Dim,
        (Who::Theirs | Who::Both | Who::BothAlike, 1) => Paint::Yellow,
        (Who::Mine | Who::Both | Who::BothAlike, 2) => Paint::Green,
        _ => Paint::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style::plain(80);

    fn row(json: &str) -> ConflictRow {
        serde_json::from_str(json).unwrap()
    }

    fn update() -> ConflictRow {
        row(r#"{"table":"customers","key":{"id":17},"differs":["name"],
               "base":{"id":17,"name":"Ada","city":"Rome","note":null},
               "theirs":{"id":17,"name":"Ada L.","city":"Paris","note":null},
               "mine":{"id":17,"name":"Ada Lovelace","city":"Rome","note":null}}"#)
    }

    #[test]
    fn a_conflict_at_eighty_columns() {
        let expected = [
            "customers:17  both changed it",
            "        base    theirs    mine",
            "  id    17      17        17",
            "* name  'Ada'   'Ada L.'  'Ada Lovelace'",
            "< city  'Rome'  'Paris'   'Rome'",
            "  note  NULL    NULL      NULL",
        ];
        assert_eq!(update().lines(PLAIN), expected);
    }

    #[test]
    fn long_values_are_shortened_and_no_line_is_wider_than_the_terminal() {
        let long = "x".repeat(5000);
        let text = format!(
            r#"{{"table":"t","key":{{"id":1}},"base":{{"id":1,"a":"{long}","b":"short"}},
                "theirs":{{"id":1,"a":"{long}1","b":{{"$blob":"{}"}}}},"mine":{{"id":1,"a":"{long}2","b":"short"}}}}"#,
            "00".repeat(4000)
        );
        for width in [40, 80, 200] {
            let lines = row(&text).lines(Style::plain(width));
            assert!(lines.iter().all(|line| super::width::of(line) <= width), "{lines:#?}");
            assert!(lines.iter().any(|line| line.contains("bytes")) || width < 80, "{lines:#?}");
        }
    }

    #[test]
    fn wide_characters_leave_the_columns_where_they_are() {
        let text = r#"{"table":"日本","key":{"鍵":"一"},"base":{"鍵":"一","値":"a"},
            "theirs":{"鍵":"一","値":"値段"},"mine":{"鍵":"一","値":"b"}}"#;
        assert_eq!(
            row(text).lines(PLAIN)[1..],
            ["      base    theirs  mine", "  鍵  '一'    '一'    '一'", "* 値  'a'     '値段'  'b'"]
        );
        let long = text.replace("値段", &"値".repeat(100));
        let lines = row(&long).lines(PLAIN);
        assert!(lines.iter().all(|line| super::width::of(line) <= 80), "{lines:#?}");
        assert!(lines[3].contains("値…'  ") && lines[3].ends_with("  'b'"), "{lines:#?}");
    }

    #[test]
    fn a_difference_past_what_is_here_is_marked_all_the_same() {
        let row = row(
            r#"{"table":"t","key":{"id":1},"base":{"id":1,"a":"beginning"},"cut":["a"],"differing":["a"],
                         "theirs":{"id":1,"a":"beginning"},"mine":{"id":1,"a":"beginning"},
                         "why":"UNIQUE constraint failed: t.a"}"#,
        );
        let lines = row.lines(PLAIN);
        assert_eq!(lines[1], "  UNIQUE constraint failed: t.a");
        assert!(lines[4].starts_with("* a"), "{lines:#?}");
        assert_eq!(lines[5], "  long values are cut by the server: a");
        assert!(serde_json::to_string(&row).unwrap().contains(r#""differs":["a"]"#));
    }

    #[test]
    fn a_row_that_is_gone_on_one_side_has_no_values_there() {
        let mut gone = update();
        gone.theirs = None;
        let lines = gone.lines(PLAIN);
        assert!(lines[0].ends_with("theirs deleted it, mine changed it"), "{lines:#?}");
        assert!(lines[3].starts_with("* name  'Ada'   -"), "{lines:#?}");
        let mut new = update();
        new.base = None;
        assert!(new.lines(PLAIN)[0].ends_with("both inserted it"));
    }

    #[test]
    fn colour_moves_nothing_and_a_server_cannot_steer_the_terminal() {
        let coloured = update().lines(Style { colour: true, ..Style::plain(80) });
        let bare: Vec<_> = coloured.iter().map(|line| without_colour(line)).collect();
        assert_eq!(bare.iter().map(|line| line.trim_end()).collect::<Vec<_>>(), update().lines(PLAIN));
        assert!(
            coloured[3].contains("\x1b[33m'Ada L.'  \x1b[0m") || coloured[3].contains("\x1b[33m'Ada L.'")
        );

        let hostile = row(r#"{"table":"t\u001b[2J","key":{"i\u001b[1md":"\u001b[2J"},"base":null,
                "theirs":{"\u001b[2J":"\u001b[2J"},"mine":{"\u001b[2J":"\u009b2J"}}"#);
        let lines = hostile.lines(PLAIN).join("\n");
        assert!(!lines.chars().any(|c| c != '\n' && c.is_control()), "{lines:?}");
    }

    fn without_colour(line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('\x1b') {
            out.push_str(before);
            rest = after.split_once('m').map_or("", |(_, rest)| rest);
        }
        out + rest
    }
}
