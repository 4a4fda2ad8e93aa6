//! The versions of a replica, as the server's REST API lists them: a table, or an object a line; with
//! `--stat` the rows that each version changed stand under it, by table.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlrsync_protocol::text::printable;

use super::Run;
use super::rest::Rest;
use crate::error::Error;
use crate::outcome::{bytes_text, json_text};
use crate::plan::Log;
use crate::rows::difference::Count;
use crate::rows::selector::table_text;
use crate::rows::style::Style;
use crate::rows::width;

/// How many versions are asked for at once.
const PAGE_MAX: u32 = 500;

/// And how many whose rows are to be counted: the server gives as many of them as it has counted soon.
const STAT_PAGE_MAX: u32 = 100;

/// How many tables of a version are shown.
const TABLES_MAX: usize = 20;

/// The answer: versions, newest first.
#[derive(Debug, Deserialize)]
struct Answer {
    versions: Vec<Version>,
}

/// A version, with whatever else the server says about it.
#[derive(Debug, Serialize, Deserialize)]
struct Version {
    version: u64,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

impl Version {
    fn text(&self, name: &str) -> String {
        printable(self.more.get(name).and_then(Value::as_str).unwrap_or_default())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.more.get(name).and_then(Value::as_u64)
    }

    /// The rows that it changed, a line a table.
    fn stat(&self) -> Vec<String> {
        let rows = self.more.get("rows").cloned().unwrap_or_default();
        let Ok(Some(tables)) = serde_json::from_value::<Option<BTreeMap<String, Count>>>(rows) else {
            let what = if self.version == 1 {
                "the first version"
            } else {
                "the rows that it changed are not known"
            };
            return vec![what.to_owned()];
        };
        let changed: Vec<_> = tables.iter().filter(|(_, count)| !count.short().is_empty()).collect();
        if changed.is_empty() {
            return vec!["no row".to_owned()];
        }
        let mut lines: Vec<_> = changed
            .iter()
            .take(TABLES_MAX)
            .map(|(table, count)| format!("{}  {}", table_text(table), count.short()))
            .collect();
        let more = changed.len().saturating_sub(TABLES_MAX);
        lines.extend((more > 0).then(|| format!("and {more} more tables")));
        lines
    }

    /// The columns: number, time, who, pages and bytes changed, message.
    fn row(&self) -> [String; 6] {
        let time = self.text("time");
        let local =
            time.parse::<jiff::Timestamp>().map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        [
            self.version.to_string(),
            local.unwrap_or(time),
            self.text("author"),
            self.number("pages_changed").map(|pages| pages.to_string()).unwrap_or_default(),
            self.number("bytes_stored").map(bytes_text).unwrap_or_default(),
            self.text("message"),
        ]
    }
}

pub fn list(run: &Run, plan: &Log) -> Result<(), Error> {
    run.warn_of_plain_text(&plan.access);
    let mut rest = Rest::new(&plan.access)?;
    let mut left = plan.limit;
    let mut before: Option<u64> = None;
    let style = Style::of_stdout();
    let mut printer =
        Printer { json: run.output.json, stat: plan.stat, out: io::stdout().lock(), header: false, style };
    loop {
        let most = if plan.stat { STAT_PAGE_MAX } else { PAGE_MAX };
        let count = left.unwrap_or(most).min(most);
        if count == 0 || run.cancel.is_cancelled() {
            return Ok(());
        }
        let mut query = vec![("limit", count.to_string())];
        query.extend(before.map(|before| ("before", before.to_string())));
        let Answer { versions } = if plan.stat {
            query.push(("stat", "true".to_owned()));
            rest.get_patiently(&plan.remote, "versions", &query)?
        } else {
            rest.get(&plan.remote, "versions", &query)?
        };
        if !printer.print(&versions)? {
            return Ok(());
        }
        let oldest = versions.last().map(|version| version.version);
        // A server that does not come down to older versions would keep us here for ever.
        match oldest {
            Some(oldest) if oldest > 1 && before.is_none_or(|before| oldest < before) => {
                before = Some(oldest)
            }
            _ => return Ok(()),
        }
        left = left.map(|left| left.saturating_sub(versions.len() as u32));
    }
}

/// Prints versions as they come.
struct Printer<W> {
    json: bool,
    stat: bool,
    out: W,
    header: bool,
    style: Style,
}

/// Widths of the columns before the last.
const WIDTHS: [usize; 5] = [7, 23, 12, 7, 9];

impl<W: Write> Printer<W> {
    /// False where nobody reads any more.
    fn print(&mut self, versions: &[Version]) -> Result<bool, Error> {
        match versions.iter().try_for_each(|version| self.line(version)).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).map_err(Error::Output),
        }
    }

    fn line(&mut self, version: &Version) -> io::Result<()> {
        if self.json {
            return writeln!(self.out, "{}", json_text(version).map_err(io::Error::other)?);
        }
        if !self.header {
            self.header = true;
            let names = ["version", "time", "who", "pages", "bytes", "message"];
            self.columns(&names.map(str::to_owned))?;
        }
        self.columns(&version.row())?;
        let lines = if self.stat { version.stat() } else { Vec::new() };
        lines.iter().try_for_each(|line| writeln!(self.out, "{:>width$}  {line}", "", width = WIDTHS[0]))
    }

    fn columns(&mut self, columns: &[String; 6]) -> io::Result<()> {
        let [number, time, who, pages, bytes, message] = columns;
        let [a, b, c, d, e] = WIDTHS;
        let who = width::to_the_left(who, c);
        let line = format!("{number:>a$}  {time:b$}  {who}  {pages:>d$}  {bytes:>e$}");
        let style = self.style;
        // What would be broken at the edge of a terminal stands on a line of its own.
        if style.terminal && width::of(&line) + 2 + width::of(message) > style.width {
            return writeln!(self.out, "{}\n{:>a$}  {message}", line.trim_end(), "");
        }
        writeln!(self.out, "{}", format!("{line}  {message}").trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"versions":[
        {"version":2,"time":"2026-01-02T03:04:05.6Z","author":"ada","message":"two\u001b[2J","pages_changed":3,"bytes_stored":9100,
         "rows":{"orders":{"insert":2,"update":0,"delete":1},"t\u001b[2J":{"update":4},"same":{}}},
        {"version":1,"time":"2026-01-01T00:00:00Z","author":"ada","message":"","pages_changed":100,"bytes_stored":400000}]}"#;

    fn printed(json: bool) -> String {
        let answer: Answer = serde_json::from_str(ANSWER).unwrap();
        let style = Style::plain(100);
        let mut printer = Printer { json, stat: true, out: Vec::new(), header: false, style };
        assert!(printer.print(&answer.versions).unwrap());
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn a_table_for_people_that_no_message_can_break() {
        let text = printed(false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!(lines[2].trim(), "orders  +2 -1");
        assert_eq!(lines[3].trim(), "t\\u{1b}[2J  ~4");
        assert!(lines[5].ends_with("the first version"));
        assert!(lines[1].contains("2026-01-02 03:04:05 UTC") && lines[1].contains("9.1 KB"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_message_that_does_not_fit_the_terminal_has_a_line_of_its_own() {
        let answer = ANSWER.replace("two\\u001b[2J", &"日本".repeat(9));
        let answer: Answer = serde_json::from_str(&answer).unwrap();
        let style = Style::plain(80);
        let mut printer = Printer { json: false, stat: false, out: Vec::new(), header: false, style };
        assert!(printer.print(&answer.versions).unwrap());
        let text = String::from_utf8(printer.out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].ends_with("message") && lines[2] == format!("         {}", "日本".repeat(9)),
            "{text}"
        );
        assert!(lines.iter().all(|line| width::of(line) <= 80), "{text}");
    }

    #[test]
    fn an_object_a_line_for_programs() {
        let text = printed(true);
        let versions: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["version"].as_u64().unwrap())
            .collect();
        assert_eq!(versions, [2, 1]);
        assert!(!text.contains('\x1b'));
    }
}
