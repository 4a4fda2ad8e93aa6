//! Comparing files here, and a file here with a version from a server.
//!
//! - Both sides are read through one read transaction each, and nothing is written to either.
//! - Which rows may differ is told by the pages that do: both sides are read once, page by page, and only rows of
//!   pages that differ are looked at with SQL.
//! - A version is pulled into a temporary copy beside the state, which begins as a copy of the file here: what
//!   both have in common does not travel. It is deleted afterwards.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use sqlrsync_database::btree::{Roots, Touched, touched_of_unknown};
use sqlrsync_database::rows::{
    self, Change, Changeset, Encoding, Go, JsonLines, Key, LeftOut, RowChange, Schema, SchemaChange,
    SqlScript, Summary, Table, Value,
};
use sqlrsync_database::version::{Limits, LiveContent, VersionDatabase};
use sqlrsync_database::{FileReplica, FileReplicaOptions, Overwrite};
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::PageNumber;
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};
use tokio::task::JoinHandle;

use super::printer::Printer;
use super::{ForTerminal, into_file, quietly};
use crate::error::Error;
use crate::outcome::bytes_text;
use crate::plan::{Access, DiffForm, LocalFile, Pull};
use crate::rows::cell::{Cell, Cells};
use crate::rows::difference::{Op, RowDifference, SchemaDifference};
use crate::run::{Run, pull, state_name};
use crate::state::State;

/// How the folders of temporary copies begin.
const COPY_PREFIX: &str = "diff-";

/// How old one is when nobody can be at work in it any more.
const COPY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Compares two files. Says whether they differ.
pub fn files(run: &Run, from: &Path, to: &Path, form: &DiffForm) -> Result<bool, Error> {
    let stop = Stop::with(run);
    let compared = || compare(run, stop.content(from)?, stop.content(to)?, form, &stop);
    stop.or_cancelled(run, compared())
}

/// Compares a file with a version of a replica. Says whether they differ.
pub fn file_and_version(
    run: &Run,
    local: &LocalFile,
    version: (&RemoteName, VersionSelector),
    access: &Access,
    file_first: bool,
    form: &DiffForm,
) -> Result<bool, Error> {
    let stop = Stop::with(run);
    let compared = || {
        let mut here = stop.content(&local.path)?;
        let folder = copies_folder(run)?;
        let copy = folder.path().join("version.db");
        write_out(&mut here, &copy)?;
        pull_over(run, local, version, access, &copy)?;
        let there = stop.content(&copy)?;
        let (from, to) = if file_first { (here, there) } else { (there, here) };
        compare(run, from, to, form, &stop)
    };
    stop.or_cancelled(run, compared())
}

/// Makes of a copy of the file here what the version is.
fn pull_over(
    run: &Run,
    local: &LocalFile,
    (remote, version): (&RemoteName, VersionSelector),
    access: &Access,
    copy: &Path,
) -> Result<(), Error> {
    let state = State::open(run.folders.state(), &local.path, &state_name(&access.server, Some(remote)));
    let options = FileReplicaOptions {
        base: state.base(),
        // It is a copy of the file here, whatever that is.
        overwrite: Overwrite::Force,
        ..FileReplicaOptions::default()
    };
    let mut plan = Pull {
        remote: remote.clone(),
        version,
        replica_id: None,
        local: LocalFile { typed: local.typed.clone(), path: copy.to_owned() },
        access: access.clone(),
        request_keys: false,
        dry: false,
        force: true,
    };
    let pulled = pull::transfer(run, &mut plan, FileReplica::open(copy, options)?)?.outcome;
    if !run.output.quiet {
        let version = pulled.version.map(|version| format!("version {version} of ")).unwrap_or_default();
        let (pages, bytes) = (pulled.pages_received, bytes_text(pulled.bytes_received));
        let plural = if pages == 1 { "" } else { "s" };
        eprintln!("compared with {version}{remote}: {pages} page{plural}, {bytes} received");
    }
    Ok(())
}

/// Becomes true when the run is cancelled.
struct Stop {
    flag: Arc<AtomicBool>,
    watch: JoinHandle<()>,
}

impl Stop {
    fn with(run: &Run) -> Stop {
        let flag = Arc::new(AtomicBool::new(false));
        let (told, stop) = (run.cancel.clone(), Arc::clone(&flag));
        let watch = run.runtime.spawn(async move {
            told.cancelled().await;
            stop.store(true, Ordering::SeqCst);
        });
        Stop { flag, watch }
    }

    /// Opens a file, which is read until the run is cancelled.
    fn content(&self, path: &Path) -> Result<LiveContent, Error> {
        Ok(LiveContent::open(path)?.stopped_by(Arc::clone(&self.flag)))
    }

    /// What came of it: where the run was cancelled, what failed did so for that.
    fn or_cancelled<T>(&self, run: &Run, ended: Result<T, Error>) -> Result<T, Error> {
        if run.cancel.is_cancelled() { Err(Error::Cancelled) } else { ended }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// A folder of its own, deleted when it is dropped. Those that a killed run has left behind go as well.
fn copies_folder(run: &Run) -> Result<tempfile::TempDir, Error> {
    let folder = run.temp_folder()?;
    for old in left_behind(&folder) {
        let _ = fs::remove_dir_all(old);
    }
    let made = tempfile::Builder::new().prefix(COPY_PREFIX).tempdir_in(&folder);
    made.map_err(Error::file("make a folder in", &folder))
}

fn left_behind(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_old = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|data| data.modified()).ok();
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        age.is_some_and(|age| age > COPY_AGE_MAX)
    };
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(COPY_PREFIX));
    ours.map(|entry| entry.path()).filter(is_old).collect()
}

/// Writes a content into a new file, in rollback mode: nobody else will open it.
fn write_out(content: &mut LiveContent, path: &Path) -> Result<(), Error> {
    let geometry = content.geometry();
    let mut fields = content.fields().to_bytes();
    fields[..2].copy_from_slice(&[1, 1]);
    let mut page = vec![0; geometry.page_size.bytes()];
    let file = File::create_new(path).map_err(Error::file("make", path))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    for number in 1..=geometry.page_count.get() {
        let Some(number) = PageNumber::new(number) else { break };
        content.read(number, &mut page).map_err(unreadable)?;
        if number == PageNumber::FIRST {
            HeaderFields::from_bytes(fields).put(&mut page);
        }
        out.write_all(&page).map_err(Error::file("write", path))?;
    }
    out.flush().map_err(Error::file("write", path))
}

/// Compares two files row by row.
fn compare(
    run: &Run,
    mut from: LiveContent,
    mut to: LiveContent,
    form: &DiffForm,
    stop: &Stop,
) -> Result<bool, Error> {
    let temp_dir = Some(run.temp_folder()?);
    let limits = Limits { temp_dir, cancel: Some(Arc::clone(&stop.flag)), ..Limits::default() };
    let open = |content: &LiveContent| VersionDatabase::open(Box::new(content.clone()), limits.clone());
    let databases = (open(&from)?, open(&to)?);
    let schemas = (Schema::read(databases.0.connection())?, Schema::read(databases.1.connection())?);
    let touched = touched_of_unknown(&mut from, &mut to, (&roots(&schemas.0), &roots(&schemas.1)));
    let touched = touched.map_err(unreadable)?;
    if let Some(why) = touched.read_more {
        tracing::debug!("more rows are read than those of pages that differ: {why}");
    }
    let mut sides = Sides { run, databases, schemas: &schemas, touched, differs: false };
    match print(&mut sides, form) {
        Err(Error::Rows(rows::Error::Write(error))) => quietly(Err(Error::Output(error))),
        printed => quietly(printed),
    }?;
    if matches!(form, DiffForm::Sql | DiffForm::Changeset(_)) {
        run.say_if_nothing_differs(sides.differs);
    }
    Ok(sides.differs)
}

fn roots(schema: &Schema) -> Roots {
    Roots { tables: schema.table_roots(), indexes: schema.index_roots() }
}

fn unreadable(error: ContentError) -> Error {
    Error::Unreadable { why: error.to_string() }
}

fn print(sides: &mut Sides<'_>, form: &DiffForm) -> Result<(), Error> {
    let schemas = sides.schemas;
    match form {
        DiffForm::Rows if sides.run.output.json => {
            let mut lines = JsonLines::new(BufWriter::new(io::stdout().lock()));
            sides.each(|change| lines.change(change))?;
            lines.into_inner().flush().map_err(Error::Output)
        }
        DiffForm::Rows | DiffForm::Stat => shown(sides, form),
        DiffForm::Sql => {
            let stdout = io::stdout();
            let out: Box<dyn Write> = match stdout.is_terminal() {
                true => Box::new(ForTerminal::new(stdout.lock())),
                false => Box::new(BufWriter::new(stdout.lock())),
            };
            let mut script = SqlScript::new(out, &schemas.0, &schemas.1)?;
            sides.each(|change| script.change(change))?;
            let (mut out, left_out) = script.finish()?;
            sides.warn_of(&left_out);
            out.flush().map_err(Error::Output)
        }
        DiffForm::Changeset(file) => into_file(file, |out| {
            let mut changeset = Changeset::new(out, &schemas.0, &schemas.1);
            sides.each(|change| changeset.change(change))?;
            sides.warn_of(&changeset.finish().1);
            Ok(())
        }),
    }
}

/// For people, and numbers.
fn shown(sides: &mut Sides<'_>, form: &DiffForm) -> Result<(), Error> {
    let mut printer = Printer::new(sides.run.output.json, form, BufWriter::new(io::stdout().lock()));
    let mut failed = None;
    let summary = sides.each_until(&mut |change: Change| {
        let goes_on = match change {
            // They follow from what they index, and are for nobody to read.
            Change::Row(row) if row.table.is_search_index() => Ok(true),
            Change::Row(row) => printer.row(&row_difference(&row)),
            Change::Schema(schema) => printer.schema(&schema_difference(schema)),
        };
        Ok(match goes_on {
            Ok(true) => Go::On,
            Ok(false) => Go::Stop,
            Err(error) => {
                failed = Some(error);
                Go::Stop
            }
        })
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if summary.stopped {
        return Ok(());
    }
    sides.warn_of(&summary.left_out);
    printer.end(summary.left_out.is_empty())
}

/// Two databases that nobody writes.
struct Sides<'a> {
    run: &'a Run,
    databases: (VersionDatabase, VersionDatabase),
    schemas: &'a (Schema, Schema),
    touched: Touched,
    /// Whether something was found that is not the same.
    differs: bool,
}

impl Sides<'_> {
    /// Goes through all differences.
    fn each(&mut self, mut change: impl FnMut(&Change) -> Result<(), rows::Error>) -> Result<(), Error> {
        let summary = self.each_until(&mut |one| change(&one).map(|()| Go::On))?;
        self.warn_of(&summary.left_out);
        Ok(())
    }

    fn each_until(
        &mut self,
        sink: &mut dyn FnMut(Change) -> Result<Go, rows::Error>,
    ) -> Result<Summary, rows::Error> {
        let Sides { databases: (from, to), schemas, touched, differs, .. } = self;
        let mut sink = |change: Change| {
            *differs |= !matches!(&change, Change::Row(row) if row.table.is_search_index());
            sink(change)
        };
        let schemas = (&schemas.0, &schemas.1);
        let summary = rows::diff_of(from.connection(), to.connection(), schemas, touched, &mut sink)?;
        *differs |= !summary.left_out.is_empty();
        Ok(summary)
    }

    /// Says what differs, or may, that is not among what was printed.
    fn warn_of(&self, left_out: &[LeftOut]) {
        for LeftOut { table, why } in left_out {
            self.run.warn(&format!("{table}: {why}"));
        }
    }
}

fn schema_difference(change: SchemaChange) -> SchemaDifference {
    let SchemaChange { kind, name, before, after, .. } = change;
    let op = match (&before, &after) {
        (None, _) => Op::Insert,
        (_, None) => Op::Delete,
        _ => Op::Update,
    };
    SchemaDifference { kind: kind.as_str().to_owned(), name, op, before, after }
}

fn row_difference(change: &RowChange) -> RowDifference {
    let cells = |table: &Table, values: &[Value]| {
        let columns = table.columns.iter().map(|column| column.name.clone());
        Cells(columns.zip(values.iter().map(|value| cell(value, change.encoding))).collect())
    };
    let keyed = if change.after.is_some() { &change.table } else { &change.table_before };
    let key = match &change.key {
        Key::Rowid(rowid) => {
            let name = keyed.rowid.as_deref().unwrap_or("rowid");
            Cells(vec![(name.to_owned(), Cell::Integer(*rowid))])
        }
        Key::Declared(values) => {
            let columns = keyed.key.iter().filter_map(|&column| keyed.columns.get(column));
            let names = columns.map(|column| column.name.clone());
            Cells(names.zip(values.iter().map(|value| cell(value, change.encoding))).collect())
        }
    };
    RowDifference {
        table: change.table.name.clone(),
        key,
        op: match change.op() {
            rows::Op::Insert => Op::Insert,
            rows::Op::Update => Op::Update,
            rows::Op::Delete => Op::Delete,
        },
        before: change.before.as_ref().map(|row| cells(&change.table_before, &row.values)),
        after: change.after.as_ref().map(|row| cells(&change.table, &row.values)),
    }
}

fn cell(value: &Value, encoding: Encoding) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Integer(value) => Cell::Integer(*value),
        Value::Real(value) => Cell::Real(*value),
        Value::Text(bytes) => match encoding.decode(bytes) {
            Some(text) => Cell::Text(text),
            None => Cell::OddText(hex(bytes)),
        },
        Value::Blob(bytes) => Cell::Blob(hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
