//! A question in SQL to a version of a replica, answered by the server: a table, or an object a row.

use std::io::{self, BufWriter, Write};

use serde::{Deserialize, Serialize};

use super::rest::Rest;
use super::{Run, diff};
use crate::error::Error;
use crate::outcome::json_text;
use crate::plan::Query;
use crate::rows::cell::{Cell, Cells};
use crate::rows::style::Style;
use crate::rows::table::Streamed;

#[derive(Debug, Serialize)]
struct Question<'a> {
    version: u64,
    sql: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// The answer.
#[derive(Debug, Deserialize)]
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
    /// There is more, and a limit ended it.
    #[serde(default)]
    more: bool,
}

pub fn ask(run: &Run, plan: &Query) -> Result<(), Error> {
    run.warn_of_plain_text(&plan.access);
    let mut rest = Rest::new(&plan.access)?;
    let (version, _) = diff::numbers(&mut rest, &plan.remote, plan.version, plan.version)?;
    let question = Question { version: version.get(), sql: &plan.sql, limit: plan.limit };
    let answer: Answer = rest.post_for(&plan.remote, "query", &question)?;
    let (more, rows) = (answer.more, answer.rows.len());
    let printed =
        print(answer, run.output.json, Style::of_stdout(), &mut BufWriter::new(io::stdout().lock()));
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        printed => printed.map_err(Error::Output)?,
    }
    if more && plan.limit.is_none_or(|limit| limit > rows as u64) && !run.output.quiet {
        eprintln!("note: there are more rows than the server gives at once; these are the first {rows}");
    }
    Ok(())
}

fn print(answer: Answer, json: bool, style: Style, out: &mut impl Write) -> io::Result<()> {
    if json {
        for row in answer.rows {
            let cells = Cells(answer.columns.iter().cloned().zip(row).collect());
            let text = json_text(&cells).map_err(io::Error::other)?;
            writeln!(out, "{text}")?;
        }
        return out.flush();
    }
    let mut table = Streamed::new(style, &answer.columns);
    for row in answer.rows {
        table.row(row, out)?;
    }
    table.flush(out)?;
    out.flush()
}
