//! Which rows differ: between two versions on a server, which compares them, or between files here.

mod local;
mod printer;
mod whole;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Deserialize;
use serde_json::Value;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};
use sqlrsync_protocol::text::is_unseen;

use super::rest::{Rest, Stream};
use super::{Finish, Run};
use crate::error::Error;
use crate::outcome::print_line;
use crate::plan::{Access, Diff, DiffForm, DiffSides};
use crate::rows::difference::{Count, Counts, NOTHING, RowDifference, SchemaDifference};
use printer::Printer;
use whole::WholeFile;

/// A line of the server's answer.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Row(RowDifference),
    Schema(SchemaDifference),
    LeftOut(LeftOut),
    Broken(Broken),
}

/// What the server says where it could not finish the comparison.
#[derive(Debug, Deserialize)]
struct Broken {
    error: String,
    /// Of what kind; older servers do not say.
    #[serde(default)]
    refusal: u8,
}

impl Broken {
    fn into_error(self, rest: &Access) -> Error {
        let (who, refusal) = (format!("the server {}", rest.server), Refusal::from_u8(self.refusal));
        Error::Refused { who, refusal, text: self.error, retry_after: None }
    }
}

/// A table of which something differs, or may, that is not among what was printed.
#[derive(Debug, Deserialize)]
struct LeftOut {
    #[serde(rename = "left_out", alias = "table")]
    table: String,
    why: String,
}

/// What the server says after a script or a changeset, which do not say it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum End {
    All(Ended),
    Broken(Broken),
}

#[derive(Debug, Deserialize)]
struct Ended {
    differs: bool,
    left_out: Vec<LeftOut>,
    more_left_out: bool,
}

pub fn show(run: &Run, plan: &Diff) -> Result<Finish, Error> {
    if let DiffForm::Changeset(path) = &plan.form {
        // That it can be written nowhere is said before anything is compared.
        WholeFile::beside(run, path)?;
    }
    let differs = match &plan.sides {
        DiffSides::Versions { remote, from, to, access } => {
            run.warn_of_plain_text(access);
            let mut rest = Rest::new(access)?;
            let (from, to) = numbers(&mut rest, remote, *from, *to)?;
            versions(run, &mut rest, (remote, access), (from, to), &plan.form)?
        }
        DiffSides::Files { from, to } => local::files(run, from, to, &plan.form)?,
        DiffSides::FileAndVersion { local, remote, version, access, file_first } => {
            run.warn_of_plain_text(access);
            local::file_and_version(run, local, (remote, *version), access, *file_first, &plan.form)?
        }
    };
    Ok(if differs && plan.exit_code { Finish::Differs } else { Finish::Done })
}

/// The numbers of the versions that are meant. The server is asked only where that needs the latest.
pub fn numbers(
    rest: &mut Rest,
    remote: &RemoteName,
    from: VersionSelector,
    to: VersionSelector,
) -> Result<(VersionNumber, VersionNumber), Error> {
    if let (VersionSelector::Number(from), VersionSelector::Number(to)) = (from, to) {
        return Ok((from, to));
    }
    let status: Value = rest.get(remote, "status", &[])?;
    let latest = status["latest"].as_u64().and_then(VersionNumber::new);
    let number = |selector: VersionSelector| {
        let found = latest.and_then(|latest| selector.resolve(latest));
        found.ok_or_else(|| {
            let hint = format!("sqlrsync log {remote} lists its versions");
            Error::usage(format!("{remote} has no version that is meant by @{}", selector.to_header()), hint)
        })
    };
    Ok((number(from)?, number(to)?))
}

/// Has the server compare two versions, once. Says whether they differ, or may.
fn versions(
    run: &Run,
    rest: &mut Rest,
    (remote, access): (&RemoteName, &Access),
    (from, to): (VersionNumber, VersionNumber),
    form: &DiffForm,
) -> Result<bool, Error> {
    let format = match form {
        DiffForm::Stat => return stat(rest, remote, (from, to))?.print(run),
        DiffForm::Rows => "json",
        DiffForm::Sql => "sql",
        DiffForm::Changeset(_) => "changeset",
    };
    let mut query = vec![("from", from.to_string()), ("to", to.to_string()), ("format", format.to_owned())];
    if matches!(form, DiffForm::Sql | DiffForm::Changeset(_)) {
        query.push(("end", "1".to_owned()));
    }
    let mut stream = rest.get_stream(remote, "diff", &query)?;
    let end = match form {
        DiffForm::Rows | DiffForm::Stat => return rows(run, access, &mut stream, form),
        DiffForm::Sql => match sql(&mut stream) {
            // Nobody reads any more, of what begins with what differs.
            Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            end => end?,
        }
        .all(access)?,
        DiffForm::Changeset(file) => {
            let mut whole = WholeFile::beside(run, file)?;
            let end = stream.copy_to_end::<End>(&mut whole)?.all(access)?;
            whole.appear()?;
            end
        }
    };
    run.warn_of_left_out(&end.left_out);
    if end.more_left_out {
        run.warn("more tables than these are left out");
    }
    run.say_if_nothing_differs(end.differs);
    Ok(end.differs)
}

impl End {
    /// What it says, where all came before it.
    fn all(self, access: &Access) -> Result<Ended, Error> {
        match self {
            End::All(end) => Ok(end),
            End::Broken(broken) => Err(broken.into_error(access)),
        }
    }
}

impl Run {
    /// For what is written for programs, and does not say it itself.
    fn say_if_nothing_differs(&self, differs: bool) {
        if !differs && !self.output.quiet {
            eprintln!("{NOTHING}");
        }
    }

    fn warn_of_left_out(&self, left_out: &[LeftOut]) {
        for LeftOut { table, why } in left_out {
            self.warn(&format!("{table}: {why}"));
        }
    }
}

/// How two versions differ, in numbers.
fn stat(
    rest: &mut Rest,
    remote: &RemoteName,
    (from, to): (VersionNumber, VersionNumber),
) -> Result<Stat, Error> {
    let query = [("from", from.to_string()), ("to", to.to_string()), ("stat", "1".to_owned())];
    rest.get_patiently(remote, "diff", &query)
}

/// The server's numbers.
#[derive(Debug, Deserialize)]
struct Stat {
    /// By table.
    rows: BTreeMap<String, Count>,
    /// Changes of the schema.
    #[serde(default)]
    schema: u64,
    /// What is not counted.
    #[serde(default)]
    left_out: Vec<LeftOut>,
}

impl Stat {
    /// Prints them, and says whether anything differs, or may.
    fn print(self, run: &Run) -> Result<bool, Error> {
        let (counts, all) = (Counts::new(self.rows, self.schema), self.left_out.is_empty());
        run.warn_of_left_out(&self.left_out);
        let lines = printer::stat_lines(&counts, all, run.output.json)?;
        lines.iter().try_for_each(|line| print_line(line))?;
        Ok(!counts.is_empty() || !all)
    }
}

/// Prints rows as they come. Says whether any came.
fn rows(run: &Run, access: &Access, stream: &mut Stream, form: &DiffForm) -> Result<bool, Error> {
    let mut printer = Printer::new(run.output.json, form, BufWriter::new(io::stdout().lock()));
    let (mut differs, mut all) = (false, true);
    while let Some(line) = stream.object()? {
        let goes_on = match line {
            Line::Row(row) => printer.row(&row)?,
            Line::Schema(change) => printer.schema(&change)?,
            Line::LeftOut(left_out) => {
                run.warn_of_left_out(&[left_out]);
                all = false;
                true
            }
            Line::Broken(broken) => return Err(broken.into_error(access)),
        };
        differs = true;
        if !goes_on {
            return Ok(differs);
        }
        if run.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
    }
    printer.end(all)?;
    Ok(differs)
}

/// SQL goes out as it comes; on a terminal without what that would obey.
fn sql(stream: &mut Stream) -> Result<End, Error> {
    let mut out = script_out();
    let end = stream.copy_to_end(&mut out)?;
    out.flush().map_err(Error::Output)?;
    Ok(end)
}

/// Standard output for a script.
fn script_out() -> Box<dyn Write> {
    let stdout = io::stdout();
    match stdout.is_terminal() {
        true => Box::new(ForTerminal::new(stdout.lock())),
        false => Box::new(BufWriter::new(stdout.lock())),
    }
}

/// The longest piece of a line that is kept until its end.
const PIECE_MAX: usize = 64 << 10;

/// Writes lines without what a terminal would obey: a script holds names and SQL of whoever made the database.
struct ForTerminal<W: Write> {
    into: W,
    line: Vec<u8>,
}

impl<W: Write> ForTerminal<W> {
    const fn new(into: W) -> ForTerminal<W> {
        ForTerminal { into, line: Vec::new() }
    }

    fn end_line(&mut self, end: &str) -> io::Result<()> {
        let safe = String::from_utf8_lossy(&self.line).replace(|c| is_unseen(c) && c != '\t', "?");
        self.line.clear();
        write!(self.into, "{safe}{end}")
    }
}

impl<W: Write> Write for ForTerminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line("\n")?,
                byte => self.line.push(byte),
            }
            if self.line.len() >= PIECE_MAX {
                self.end_line("")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.end_line("")?;
        }
        self.into.flush()
    }
}

/// That nobody reads any more is no error.
fn quietly(written: Result<(), Error>) -> Result<(), Error> {
    match written {
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_on_a_terminal_has_nothing_that_a_terminal_would_obey() {
        let mut out = ForTerminal::new(Vec::new());
        // In pieces, as a script is written.
        for piece in ["SELECT 'é\u{1b}[2J", "\u{202e}'\t;\nCREA", "TE\r\n", "no end"] {
            out.write_all(piece.as_bytes()).unwrap();
        }
        out.flush().unwrap();
        assert_eq!(String::from_utf8(out.into).unwrap(), "SELECT 'é?[2J?'\t;\nCREATE?\nno end");
    }

    #[test]
    fn a_line_without_an_end_does_not_stay_in_memory() {
        let mut out = ForTerminal::new(Vec::new());
        out.write_all(&vec![b'x'; 10 * PIECE_MAX]).unwrap();
        assert!(out.line.len() < PIECE_MAX && out.into.len() >= 9 * PIECE_MAX);
    }
}
