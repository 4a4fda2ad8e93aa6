//! The conflicts of a replica: a list of them, or one of them row by row.

use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_protocol::text::printable;

use super::rest::Rest;
use super::{Run, goes_on, state_name};
use crate::error::Error;
use crate::outcome::{json_text, print_line};
use crate::plan::{Access, Conflicts};
use crate::rows::cell::Cell;
use crate::rows::conflict::{ConflictRow, legend};
use crate::rows::style::{Paint, Style};
use crate::rows::table::aligned;
use crate::state::Seen;

/// How many conflicts or rows are asked for at once.
const PAGE_MAX: u64 = 500;

/// How many conflicts are listed for people, at most: the widths of the columns need all of them at once.
const LISTED_MAX: usize = 10_000;

/// How much of what is wrong besides rows is shown in a list, in characters.
const PROBLEM_WIDTH_MAX: usize = 60;

/// How many of a conflict's tables are named in a list.
const TABLES_SHOWN: usize = 5;

/// A conflict, with whatever else the server says about it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// Its number.
    pub id: u64,
    /// When it was opened.
    #[serde(default)]
    opened: String,
    /// Who pushed.
    #[serde(default)]
    by: String,
    /// The tables whose rows overlap.
    #[serde(default)]
    tables: Vec<String>,
    /// How many rows overlap.
    #[serde(default)]
    rows: u64,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

/// A page of the list.
#[derive(Debug, Deserialize)]
struct ConflictsPage {
    conflicts: Vec<Conflict>,
    next_after: Option<u64>,
}

/// A page of a conflict's rows.
#[derive(Debug, Deserialize)]
struct RowsPage {
    rows: Vec<ConflictRow>,
    next_after: Option<Value>,
}

pub fn show(run: &Run, plan: &Conflicts) -> Result<(), Error> {
    run.warn_of_plain_text(&plan.access);
    let mut rest = Rest::new(&plan.access)?;
    match plan.number {
        Some(number) => {
            let seen = seen(run, &plan.access, &plan.remote, number);
            show_rows(run, &mut rest, &plan.remote, number, plan.limit, &seen)
        }
        None => list(run, &mut rest, plan),
    }
}

fn list(run: &Run, rest: &mut Rest, plan: &Conflicts) -> Result<(), Error> {
    let mut left = plan.limit.unwrap_or(u64::MAX);
    let mut after: Option<u64> = None;
    let mut found = Vec::new();
    while left > 0 && found.len() < LISTED_MAX && !run.cancel.is_cancelled() {
        let mut query = vec![("limit", left.min(PAGE_MAX).to_string())];
        query.extend(plan.all.then(|| ("all", "true".to_owned())));
        query.extend(after.map(|after| ("after", after.to_string())));
        let page: ConflictsPage = rest.get(&plan.remote, "conflicts", &query)?;
        left = left.saturating_sub(page.conflicts.len() as u64);
        if run.output.json {
            for conflict in &page.conflicts {
                print_line(&json_text(conflict)?)?;
            }
        } else {
            found.extend(page.conflicts);
        }
        // A server that does not go on to other conflicts would keep us here for ever.
        match page.next_after {
            Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
            _ => break,
        }
    }
    if run.output.json {
        return Ok(());
    }
    for line in lines(&found, &plan.remote.to_string(), plan.all) {
        print_line(&line)?;
    }
    Ok(())
}

/// The list for people.
fn lines(conflicts: &[Conflict], remote: &str, all: bool) -> Vec<String> {
    if conflicts.is_empty() {
        let what = if all { "has had no conflict" } else { "has no conflict that waits to be settled" };
        return vec![format!("{remote} {what}")];
    }
    let mut names = vec!["conflict", "opened", "who", "rows", "tables"];
    names.extend(all.then_some("state"));
    let mut rows = vec![names.into_iter().map(str::to_owned).collect()];
    rows.extend(conflicts.iter().map(|conflict| conflict.row(all)));
    let mut lines = aligned(&rows, &[true, false, false, true]);
    if let [only] = conflicts {
        lines.push(format!("sqlrsync conflicts {remote} {} shows its rows", only.id));
    }
    lines
}

impl Conflict {
    fn row(&self, all: bool) -> Vec<String> {
        let mut row = vec![
            self.id.to_string(),
            time_text(&self.opened),
            printable(&self.by),
            self.rows.to_string(),
            self.tables_text(),
        ];
        row.extend(all.then(|| printable(self.text("state"))));
        row
    }

    fn tables_text(&self) -> String {
        let shown: Vec<_> = self.tables.iter().take(TABLES_SHOWN).map(|table| printable(table)).collect();
        let more = self.tables.len().saturating_sub(TABLES_SHOWN);
        let shown = shown.join(", ");
        if shown.is_empty() {
            return Cell::Text(printable(self.text("problem"))).plain(Some(PROBLEM_WIDTH_MAX));
        }
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    }

    /// Something else that the server says of it; empty where it does not.
    pub fn text(&self, name: &str) -> &str {
        self.more.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The version that its rows are compared with.
    fn theirs(&self) -> Option<VersionNumber> {
        VersionNumber::new(self.more.get("theirs")?.as_u64()?)
    }

    /// Whether it waits to be settled.
    pub fn is_open(&self) -> bool {
        matches!(self.text("state"), "" | "open")
    }

    /// What stands above its rows.
    fn heading(&self, remote: &str) -> Vec<String> {
        let (opened, by) = (time_text(&self.opened), printable(&self.by));
        let mut lines = vec![format!("conflict {} of {remote}: opened {opened} by {by}", self.id)];
        if !self.is_open() {
            let by = Some(printable(self.text("ended_by"))).filter(|by| !by.is_empty());
            let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
            let version = self.more.get("version").and_then(Value::as_u64);
            let version = version.map(|version| format!(", as version {version}")).unwrap_or_default();
            lines.push(format!(
                "{} {}{by}{version}",
                printable(self.text("state")),
                time_text(self.text("ended"))
            ));
        }
        let place = [self.text("host"), self.text("local_path")].map(printable).join(" ");
        if !place.trim().is_empty() {
            lines.push(format!("pushed from {}", place.trim()));
        }
        for name in ["message", "problem"] {
            let text = printable(self.text(name));
            lines.extend((!text.is_empty()).then(|| format!("{name}: {text}")));
        }
        lines
    }
}

fn time_text(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => printable(time),
    }
}

/// What the server knows of a conflict.
pub fn one(rest: &mut Rest, remote: &RemoteName, number: ConflictNumber) -> Result<Conflict, Error> {
    rest.get_patiently(remote, &format!("conflicts/{number}"), &[])
}

/// Goes through the rows of a conflict until `each` says that it is enough.
pub fn each_row(
    rest: &mut Rest,
    remote: &RemoteName,
    number: ConflictNumber,
    mut each: impl FnMut(ConflictRow) -> Result<bool, Error>,
) -> Result<(), Error> {
    let what = format!("conflicts/{number}/rows");
    let mut after: Option<Value> = None;
    loop {
        let mut query = vec![("limit", PAGE_MAX.to_string())];
        query.extend(after.as_ref().map(|after| ("after", plain(after))));
        let page: RowsPage = rest.get_patiently(remote, &what, &query)?;
        let some = !page.rows.is_empty();
        for row in page.rows {
            if !each(row)? {
                return Ok(());
            }
        }
        match page.next_after.filter(|next| some && !next.is_null() && after.as_ref() != Some(next)) {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// A place in a list as it stands in a query: a text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What is known here of who was shown a conflict.
pub fn seen(run: &Run, access: &Access, remote: &RemoteName, number: ConflictNumber) -> Seen {
    Seen::of(run.folders.state(), &state_name(&access.server, Some(remote)), number)
}

/// Shows a conflict row by row, at most so many rows, and notes down what they were compared with.
pub fn show_rows(
    run: &Run,
    rest: &mut Rest,
    remote: &RemoteName,
    number: ConflictNumber,
    limit: Option<u64>,
    seen: &Seen,
) -> Result<(), Error> {
    let conflict = one(rest, remote, number)?;
    let out = BufWriter::new(io::stdout().lock());
    let mut shower = Shower { json: run.output.json, style: Style::of_stdout(), out, shown: 0 };
    let name = remote.to_string();
    if !shower.heading(&conflict, &name)? {
        return Ok(());
    }
    let most = limit.unwrap_or(u64::MAX);
    let cancel = &run.cancel;
    each_row(rest, remote, number, |row| {
        Ok(shower.shown < most && !cancel.is_cancelled() && shower.row(&row)?)
    })?;
    if let Some(Err(error)) = conflict.theirs().map(|theirs| seen.note(theirs)) {
        run.warn(&format!("a settlement may have to be asked for twice: {error}"));
    }
    shower.end(&conflict, &name)
}

/// Prints a conflict as its rows come.
struct Shower<W> {
    json: bool,
    style: Style,
    out: W,
    shown: u64,
}

impl<W: Write> Shower<W> {
    fn heading(&mut self, conflict: &Conflict, remote: &str) -> Result<bool, Error> {
        if self.json {
            return Ok(true);
        }
        let mut lines = conflict.heading(remote);
        lines.extend((conflict.rows > 0).then(|| self.style.paint(Paint::Dim, legend())));
        self.lines(&lines)
    }

    /// False where nobody reads any more.
    fn row(&mut self, row: &ConflictRow) -> Result<bool, Error> {
        self.shown += 1;
        if self.json {
            return self.lines(&[json_text(row)?]);
        }
        let mut lines = vec![String::new()];
        lines.extend(row.lines(self.style));
        self.lines(&lines)
    }

    fn end(&mut self, conflict: &Conflict, remote: &str) -> Result<(), Error> {
        if !self.json && conflict.is_open() {
            self.what_to_type(conflict, remote)?;
        }
        goes_on(self.out.flush()).map(drop)
    }

    fn what_to_type(&mut self, conflict: &Conflict, remote: &str) -> Result<(), Error> {
        let mut lines = vec![String::new()];
        if self.shown < conflict.rows {
            lines.push(format!("{} of {} rows are shown", self.shown, conflict.rows));
        }
        let settle = format!("sqlrsync resolve {remote} {} --keep theirs|mine", conflict.id);
        lines.push(if conflict.rows > 0 {
            format!("{settle} settles all of them, --row TABLE:KEY=mine one")
        } else {
            format!("{settle} settles it: where the two do not go together, that side is kept")
        });
        self.lines(&lines).map(drop)
    }

    fn lines(&mut self, lines: &[String]) -> Result<bool, Error> {
        goes_on(lines.iter().try_for_each(|line| writeln!(self.out, "{line}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFLICT: &str = r#"{"id":3,"opened":"2026-01-02T03:04:05Z","by":"ada\u001b[2J","tables":["customers","orders"],
        "rows":12,"state":"open","host":"desk","local_path":"/srv/app.db","theirs":9}"#;

    fn conflict() -> Conflict {
        serde_json::from_str(CONFLICT).unwrap()
    }

    #[test]
    fn the_list_says_who_when_and_where() {
        let lines = lines(&[conflict()], "team/app.db", false);
        assert_eq!(
            lines,
            [
                "conflict  opened                   who      rows  tables",
                "       3  2026-01-02 03:04:05 UTC  ada [2J    12  customers, orders",
                "sqlrsync conflicts team/app.db 3 shows its rows",
            ]
        );
        assert_eq!(super::lines(&[], "a/b", false), ["a/b has no conflict that waits to be settled"]);
    }

    #[test]
    fn a_conflict_without_rows_says_what_is_wrong() {
        let text =
            r#"{"id":4,"opened":"","by":"ada","tables":[],"rows":0,"problem":"both changed the schema"}"#;
        let conflict: Conflict = serde_json::from_str(text).unwrap();
        assert!(
            lines(std::slice::from_ref(&conflict), "a/b", false)[1].ends_with("0  both changed the schema")
        );
        let mut shower = Shower { json: false, style: Style::plain(80), out: Vec::new(), shown: 0 };
        shower.heading(&conflict, "a/b").unwrap();
        shower.end(&conflict, "a/b").unwrap();
        let text = String::from_utf8(shower.out).unwrap();
        assert!(
            text.contains("problem: both changed the schema") && text.contains("that side is kept"),
            "{text}"
        );
        assert!(!text.contains(legend()), "{text}");
    }

    #[test]
    fn a_script_has_the_fields_that_it_relies_on() {
        let json: Value = serde_json::from_str(&json_text(&conflict()).unwrap()).unwrap();
        for field in ["id", "opened", "by", "tables", "rows"] {
            assert!(!json[field].is_null(), "{field}");
        }
        assert_eq!(json["theirs"], 9, "what else the server says goes through");
    }

    #[test]
    fn a_conflict_is_shown_with_where_it_came_from_and_what_to_type() {
        let style = Style::plain(80);
        let mut shower = Shower { json: false, style, out: Vec::new(), shown: 0 };
        shower.heading(&conflict(), "team/app.db").unwrap();
        shower.end(&conflict(), "team/app.db").unwrap();
        let text = String::from_utf8(shower.out).unwrap();
        assert!(
            text.starts_with("conflict 3 of team/app.db: opened 2026-01-02 03:04:05 UTC by ada [2J\n"),
            "{text}"
        );
        assert!(
            text.contains("pushed from desk /srv/app.db") && text.contains("resolve team/app.db 3"),
            "{text}"
        );
        assert!(text.contains("0 of 12 rows are shown") && !text.contains('\x1b'), "{text}");
    }
}
