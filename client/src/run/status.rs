//! What a server knows of a replica: its latest version, who pushes it, who follows it, what fails.
//!
//! With `--json` the server's own object, on one line. For people a table, fitted to the terminal: when
//! things happened is said as "12 min ago", counted by the server's clock, so that a clock of ours that is
//! wrong tells nothing wrong.

use std::io::IsTerminal;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sqlrsync_protocol::text::printable;

use super::Run;
use super::rest::Rest;
use crate::error::Error;
use crate::outcome::{print_json, print_line};
use crate::plan::Status;

/// The narrowest terminal that the table is fitted to, in characters.
const WIDTH_MIN: usize = 60;

/// How much of a client id is shown: enough to tell machines apart.
const CLIENT_ID_SHOWN: usize = 8;

/// The least that a host's name is cut to, in characters.
const HOST_MIN: usize = 8;

/// What stands in a column where there is nothing.
const NOTHING: &str = "-";

pub fn show(run: &Run, plan: &Status) -> Result<(), Error> {
    run.warn_of_plain_text(&plan.access);
    let mut rest = Rest::new(&plan.access)?;
    let answer: Value = rest.get(&plan.remote, "status", &[])?;
    if run.output.json {
        return print_json(&answer);
    }
    let known: Known = serde_json::from_value(answer).map_err(|error| Error::NotThisServer {
        server: plan.access.server.to_string(),
        why: format!("its status cannot be read ({error})"),
    })?;
    for line in known.lines(&plan.remote.to_string(), width()) {
        print_line(&line)?;
    }
    Ok(())
}

/// How wide a line may be; what goes into a file or another program is not cut.
fn width() -> Option<usize> {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok()).flatten()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col).max(WIDTH_MIN))
}

/// The server's answer, as far as it is shown. What is missing shows as nothing.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Known {
    now: Timestamp,
    latest: Option<u64>,
    latest_time: Option<Timestamp>,
    clients: Vec<Client>,
}

impl Default for Known {
    fn default() -> Known {
        Known { now: Timestamp::now(), latest: None, latest_time: None, clients: Vec::new() }
    }
}

/// A client of the replica.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Client {
    client_id: String,
    host: String,
    last_push: Option<Timestamp>,
    last_push_version: Option<u64>,
    last_pull: Option<Timestamp>,
    last_pull_version: Option<u64>,
    push_due: Option<Timestamp>,
    overdue: bool,
    pushing: bool,
    following: bool,
    errors: Vec<Failure>,
}

/// A push that keeps failing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    error: String,
    attempts: u64,
    since: Option<Timestamp>,
    reported: Option<Timestamp>,
    host: String,
    local_path: String,
}

impl Known {
    fn lines(&self, remote: &str, width: Option<usize>) -> Vec<String> {
        let mut lines = vec![self.headline(remote)];
        if self.clients.is_empty() {
            lines.extend(
                self.latest.map(|_| "clients are shown to who has a key for this replica".to_owned()),
            );
        } else {
            lines.push(String::new());
            lines.extend(self.table(width));
        }
        let failures: Vec<_> = self.clients.iter().flat_map(|client| &client.errors).collect();
        if !failures.is_empty() {
            lines.push(String::new());
            lines.push("failing".to_owned());
            for failure in failures {
                lines.extend(failure.lines(self.now, width));
            }
        }
        lines
    }

    fn headline(&self, remote: &str) -> String {
        let Some(latest) = self.latest else { return format!("{remote}: no version yet") };
        match self.latest_time {
            Some(time) => {
                let day = time.strftime("%Y-%m-%d %H:%M:%S UTC");
                format!("{remote}: version {latest}, {} ({day})", ago(self.now, time))
            }
            None => format!("{remote}: version {latest}"),
        }
    }

    /// Who needs attention first: overdue, then failing; the others as the server has them.
    fn table(&self, width: Option<usize>) -> Vec<String> {
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_by_key(|client| (!client.overdue, client.errors.is_empty()));
        let mut rows = vec![["host", "client", "last push", "last pull", "now"].map(str::to_owned)];
        rows.extend(clients.iter().map(|client| client.row(self.now)));
        let mut widths = [0; 5];
        for (column, widest) in widths.iter_mut().enumerate() {
            *widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        }
        if let Some(width) = width {
            // The host's name is what can be long, and what can be told from its beginning.
            let all = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            widths[0] = widths[0].saturating_sub(all.saturating_sub(width)).max(HOST_MIN.min(widths[0]));
        }
        let line = |row: &[String; 5]| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", cut(cell, width)));
            cut(cells.collect::<Vec<_>>().join("  ").trim_end(), width.unwrap_or(usize::MAX))
        };
        rows.iter().map(line).collect()
    }
}

impl Client {
    fn row(&self, now: Timestamp) -> [String; 5] {
        [
            or_nothing(printable(&self.host)),
            or_nothing(cut(&printable(&self.client_id), CLIENT_ID_SHOWN + 1)),
            done(now, self.last_push, self.last_push_version),
            done(now, self.last_pull, self.last_pull_version),
            self.doing(now),
        ]
    }

    /// What it does, or is to do.
    fn doing(&self, now: Timestamp) -> String {
        let mut doing = Vec::new();
        if self.pushing {
            doing.push("pushing".to_owned());
        } else if let Some(due) = self.push_due {
            doing.push(match now.duration_since(due).as_secs() {
                late if self.overdue => format!("overdue {}", span(late)),
                late if late < 0 => format!("push in {}", span(-late)),
                _ => "push due".to_owned(),
            });
        }
        if self.following {
            doing.push("follows".to_owned());
        }
        if doing.is_empty() && !self.errors.is_empty() {
            doing.push("failing".to_owned());
        }
        doing.join(", ")
    }
}

impl Failure {
    /// Where, how often and since when; then the error, in as many lines as it takes.
    fn lines(&self, now: Timestamp, width: Option<usize>) -> Vec<String> {
        let (host, path) = (printable(&self.host), printable(&self.local_path));
        let place = [host, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let times = if self.attempts == 1 { "attempt" } else { "attempts" };
        let mut facts = vec![format!("{} {times}", self.attempts)];
        facts.extend(self.since.map(|since| format!("failing for {}", span(seconds(now, since)))));
        facts.extend(self.reported.map(|reported| format!("reported {}", ago(now, reported))));
        let head = format!("{}: {}", or_nothing(place), facts.join(", "));
        let width = width.unwrap_or(usize::MAX);
        let mut lines = wrap(&head, width, "  ");
        lines.extend(wrap(&printable(&self.error), width, "    "));
        lines
    }
}

fn done(now: Timestamp, time: Option<Timestamp>, version: Option<u64>) -> String {
    match (time, version) {
        (Some(time), Some(version)) => format!("v{version} {}", ago(now, time)),
        (Some(time), None) => ago(now, time),
        (None, _) => NOTHING.to_owned(),
    }
}

fn or_nothing(text: String) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text }
}

/// How long `time` is past; what is to come counts as now.
fn seconds(now: Timestamp, time: Timestamp) -> i64 {
    now.duration_since(time).as_secs().max(0)
}

fn ago(now: Timestamp, time: Timestamp) -> String {
    format!("{} ago", span(seconds(now, time)))
}

/// A length of time in its largest unit: what a glance at a status needs.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// At most `width` characters, with a mark where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Lines of at most `width` characters, broken between words where that can be, each after `indent`.
fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let room = width.saturating_sub(indent.len()).max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > room {
            lines.push(String::new());
            used = 0;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            lines.extend([word.iter().collect(), String::new()]);
            word = rest;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            used += word.len();
            line.extend(word);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.iter().map(|line| format!("{indent}{line}")).collect()
}

#[cfg(test)]
mod tests;
