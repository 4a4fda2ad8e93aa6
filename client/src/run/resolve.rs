//! The settlement of a conflict: which rows stay theirs and which become mine.
//!
//! What was typed is matched with the conflict's rows first, so that a row that is not there is said before
//! anything is done. The server is told the version that the rows were last shown against: where the replica has
//! moved on since, and there is something new to choose, it settles nothing, and the rows are shown again.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::page::VersionNumber;

use super::conflicts::{self, each_row};
use super::rest::Rest;
use super::{Finish, Run};
use crate::cli::Keep;
use crate::error::Error;
use crate::outcome::{print_json, print_line};
use crate::plan::Resolve;
use crate::rows::selector::{Match, RowName};
use crate::state::Seen;

/// How many rows are named in a message.
const NAMED_MAX: usize = 5;

/// The most `--row` flags, and so the most rows that are held.
const ROWS_MAX: usize = 10_000;

/// What the server is asked for.
#[derive(Debug, Serialize)]
struct Settlement<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rows: &'a [SettledRow],
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    /// The version that the rows were compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<u64>,
}

#[derive(Debug, Serialize)]
struct SettledRow {
    #[serde(flatten)]
    name: RowName,
    keep: &'static str,
}

/// What it answers.
#[derive(Debug, Deserialize)]
struct Settled {
    version: Option<u64>,
}

pub fn resolve(run: &Run, plan: &Resolve) -> Result<Finish, Error> {
    run.warn_of_plain_text(&plan.access);
    let mut rest = Rest::new(&plan.access)?;
    let seen = conflicts::seen(run, &plan.access, &plan.remote, plan.number);
    let latest = seen.version().map(VersionNumber::get);
    let rows = chosen(&mut rest, plan)?;
    let settlement =
        Settlement { keep: plan.keep.map(Keep::as_str), rows: &rows, message: &plan.message, latest };
    let what = format!("conflicts/{}/settle", plan.number);
    match rest.post_for::<Settled>(&plan.remote, &what, &settlement) {
        Ok(settled) => {
            seen.forget();
            said(run, plan, settled.version).map(|()| Finish::Done)
        }
        Err(Error::Refused { refusal: Refusal::Conflict, text, .. }) => {
            moved_on(run, &mut rest, plan, &text, &seen)
        }
        Err(error) => Err(error),
    }
}

fn said(run: &Run, plan: &Resolve, version: Option<u64>) -> Result<(), Error> {
    let (remote, number) = (plan.remote.to_string(), plan.number.get());
    if run.output.json {
        return print_json(&json!({
            "outcome": "settled", "conflict": number, "version": version, "remote": remote,
        }));
    }
    if run.output.quiet {
        return Ok(());
    }
    let became = match version {
        Some(version) => format!("version {version} has what was kept"),
        None => "the replica stays as it is".to_owned(),
    };
    print_line(&format!("settled conflict {number} of {remote}: {became}; sqlrsync {remote} pulls it"))
}

/// The rows that were named, as the server names them.
fn chosen(rest: &mut Rest, plan: &Resolve) -> Result<Vec<SettledRow>, Error> {
    if plan.rows.len() > ROWS_MAX {
        return Err(Error::usage(format!("--row can be given {ROWS_MAX} times at most"), "use --keep"));
    }
    if plan.rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Option<(Match, RowName)>> = plan.rows.iter().map(|_| None).collect();
    let (mut unnamed, mut count) = (Vec::new(), 0_u64);
    each_row(rest, &plan.remote, plan.number, |row| {
        let name = RowName { table: row.table, key: row.key };
        let mut named = false;
        for ((selector, _), found) in plan.rows.iter().zip(&mut found) {
            let Some(fit) = selector.matches(&name.table, &name.key) else { continue };
            named = true;
            if found.as_ref().is_none_or(|(earlier, _)| fit > *earlier) {
                *found = Some((fit, name.clone()));
            }
        }
        // What breaks a constraint may be settled by another row of it: the server knows.
        if !named && row.why.is_none() {
            count += 1;
            if unnamed.len() < NAMED_MAX {
                unnamed.push(name.to_string());
            }
        }
        Ok(true)
    })?;
    let mut rows = Vec::new();
    for ((selector, keep), found) in plan.rows.iter().zip(found) {
        let Some((_, name)) = found else {
            return Err(Error::usage(
                format!("conflict {} of {} has no row {selector}", plan.number, plan.remote),
                format!(
                    "sqlrsync conflicts {} {} shows its rows as --row takes them",
                    plan.remote, plan.number
                ),
            ));
        };
        rows.push(SettledRow { name, keep: keep.as_str() });
    }
    if plan.keep.is_none() && count > 0 {
        let more = if count > unnamed.len() as u64 { ", ..." } else { "" };
        let rows = if count == 1 { "row" } else { "rows" };
        return Err(Error::usage(
            format!("conflict {} has {count} more {rows}: {}{more}", plan.number, unnamed.join(", ")),
            "name each with --row, or say with --keep what becomes of the others",
        ));
    }
    Ok(rows)
}

/// Nothing was settled, since the replica or the conflict is not what it was: says so, and shows the rows
/// as they are now.
fn moved_on(run: &Run, rest: &mut Rest, plan: &Resolve, text: &str, seen: &Seen) -> Result<Finish, Error> {
    let (remote, number) = (&plan.remote, plan.number);
    let text = sqlrsync_protocol::text::printable(text);
    if run.output.json {
        print_json(&json!({
            "outcome": "conflict", "conflict": number.get(), "version": null,
            "remote": remote.to_string(), "error": text,
        }))?;
        return Ok(Finish::Conflict);
    }
    eprintln!("sqlrsync: nothing was settled: {}", text.trim_start_matches("nothing was settled: "));
    if plan.keep.is_none() {
        eprintln!(
            "hint: name them with --row, or add --keep theirs or --keep mine for what it does not name"
        );
    }
    if conflicts::one(rest, remote, number)?.is_open() {
        conflicts::show_rows(run, rest, remote, number, None, seen)?;
    }
    Ok(Finish::Conflict)
}
