//! Comparing files here, and a file here with a version from a server.
//!
//! - Both sides are read through one read transaction each, and nothing is written to either. Who writes to one past
//!   SQLite, as `cp` does, is noticed at the end: what differed then is a mixture, and so is what could not be read.
//! - Which rows may differ is told by the pages that do, and only their rows are looked at with SQL. Of two files both
//!   are read once to find those pages; of a file and a version they are known.
//! - A version is pulled beside the file, as the difference of it: what both have in common does not travel, and is not
//!   copied. What arrives is in a temporary file without a name.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlrsync_database::btree::{Roots, Touched, touched_without_map};
use sqlrsync_database::rows::{
    self, Change, Changeset, Encoding, Go, JsonLines, Key, LeftOut, RowChange, Schema, SchemaChange,
    SqlScript, Summary, Table, Value,
};
use sqlrsync_database::version::{Limits, LiveContent, VersionDatabase, VersionError};
use sqlrsync_database::{Beside, Error as DatabaseError, FileReplica, FileReplicaOptions};
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};
use tokio::task::JoinHandle;

use super::printer::Printer;
use super::whole::WholeFile;
use super::{quietly, script_out};
use crate::error::Error;
use crate::outcome::bytes_text;
use crate::plan::{Access, DiffForm, KeysWanted, LocalFile, Pull};
use crate::rows::cell::{Cell, Cells};
use crate::rows::difference::{Op, RowDifference, SchemaDifference};
use crate::run::{Run, pull, state_name};
use crate::state::{FileLock, State};

/// How often a version is pulled where somebody writes to the file meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// Compares two files. Says whether they differ.
pub fn files(run: &Run, from: &LocalFile, to: &LocalFile, form: &DiffForm) -> Result<bool, Error> {
    let stop = Stop::with(run);
    let open = |file: &LocalFile| -> Result<Named<LiveContent>, Error> {
        Ok(Named { content: stop.content(LiveContent::open(&file.path)?), name: file.shown() })
    };
    let compared = || {
        let (from, to) = (open(from)?, open(to)?);
        let looked_at = [from.content.clone(), to.content.clone()];
        compare(run, from, to, (&looked_at, &ChangedPages::Unknown), form, &stop)
    };
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
        let name = format!("{}@{}", version.0, version.1);
        let Beside { file, version, changed } = pull_beside(run, local, version, access)?;
        let looked_at = [file.clone()];
        let file = Named { content: stop.content(file), name: local.shown() };
        let version = Named { content: version, name };
        match file_first {
            true => compare(run, file, version, (&looked_at, &changed), form, &stop),
            false => compare(run, version, file, (&looked_at, &changed), form, &stop),
        }
    };
    stop.or_cancelled(run, compared())
}

/// Pulls a version beside a file, again where that was written to meanwhile.
fn pull_beside(
    run: &Run,
    local: &LocalFile,
    (remote, version): (&RemoteName, VersionSelector),
    access: &Access,
) -> Result<Beside, Error> {
    let mut plan = Pull {
        remote: remote.clone(),
        version,
        replica_id: None,
        local: local.clone(),
        access: access.clone(),
        request_keys: KeysWanted::No,
        dry: false,
        force: true,
    };
    let mut attempt = 1;
    loop {
        match pull_once(run, &mut plan)?.beside() {
            Err(DatabaseError::ChangedMeanwhile { .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(DatabaseError::ChangedMeanwhile { .. }) => {
                return Err(Error::NeverStill { path: local.typed.clone() });
            }
            beside => return Ok(beside?),
        }
    }
}

/// Has the version come, as the difference of what the file is, and says what that took.
fn pull_once(run: &Run, plan: &mut Pull) -> Result<FileReplica, Error> {
    let (folder, path) = (run.folders.state(), &plan.local.path);
    let state = State::open(folder, path, &state_name(&plan.access.server, Some(&plan.remote)));
    // Who has the lock may be writing to the hashes.
    let lock = FileLock::take_if_free(folder, path)?;
    let options = FileReplicaOptions {
        hashes: lock.as_ref().map(|_| state.hashes_if_any()),
        known: state.known(),
        base: state.base(),
        temp_dir: Some(run.temp_folder()?),
        ..FileReplicaOptions::default()
    };
    let replica = FileReplica::open_beside(path, options)?;
    let pulled = pull::transfer(run, plan, replica)?;
    if !run.output.quiet {
        let outcome = &pulled.outcome;
        let version = outcome.version.map(|version| format!("version {version} of ")).unwrap_or_default();
        let (pages, bytes) = (outcome.pages_received, bytes_text(outcome.bytes_received));
        let plural = if pages == 1 { "" } else { "s" };
        eprintln!("compared with {version}{}: {pages} page{plural}, {bytes} received", plan.remote);
    }
    pulled.into_replica().ok_or(Error::Database(DatabaseError::NothingAgreed))
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

    /// A file that is read until the run is cancelled.
    fn content(&self, content: LiveContent) -> LiveContent {
        content.stopped_by(Arc::clone(&self.flag))
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

/// A content, and what it is called in what is said to people.
struct Named<C> {
    content: C,
    name: String,
}

impl<C: Content + Clone + 'static> Named<C> {
    fn open(&self, limits: &Limits) -> Result<VersionDatabase, Error> {
        VersionDatabase::open(Box::new(self.content.clone()), limits.clone()).map_err(|error| {
            let what = self.name.clone();
            match error {
                VersionError::Corrupt(why) => Error::Damaged { what, why: why.to_string() },
                source => Error::Version { what, source },
            }
        })
    }
}

/// Compares two contents row by row, which may differ in those pages. What was looked at is asked whether it still was
/// what it is said to be: before anything is said to be all, and before anything else is said to be wrong.
fn compare<F, T>(
    run: &Run,
    from: Named<F>,
    to: Named<T>,
    (looked_at, changed): (&[LiveContent], &ChangedPages),
    form: &DiffForm,
    stop: &Stop,
) -> Result<bool, Error>
where
    F: Content + Clone + 'static,
    T: Content + Clone + 'static,
{
    let compared = compare_once(run, from, to, (looked_at, changed), form, stop);
    still(looked_at)?;
    compared
}

/// Whether files still are what was read of them.
fn still(looked_at: &[LiveContent]) -> Result<(), Error> {
    looked_at.iter().try_for_each(LiveContent::check).map_err(|error| match error {
        DatabaseError::ChangedMeanwhile { path } => Error::NeverStill { path },
        error => Error::Database(error),
    })
}

fn compare_once<F, T>(
    run: &Run,
    mut from: Named<F>,
    mut to: Named<T>,
    (looked_at, changed): (&[LiveContent], &ChangedPages),
    form: &DiffForm,
    stop: &Stop,
) -> Result<bool, Error>
where
    F: Content + Clone + 'static,
    T: Content + Clone + 'static,
{
    let temp_dir = Some(run.temp_folder()?);
    let limits = Limits { temp_dir, cancel: Some(Arc::clone(&stop.flag)), ..Limits::default() };
    let databases = (from.open(&limits)?, to.open(&limits)?);
    let schema = |database: &VersionDatabase, name: &str| {
        Schema::read(database.connection()).map_err(|error| damaged(error, name))
    };
    let schemas = (schema(&databases.0, &from.name)?, schema(&databases.1, &to.name)?);
    let roots = (&roots(&schemas.0), &roots(&schemas.1));
    let touched =
        touched_without_map(&mut from.content, &mut to.content, changed, roots).map_err(unreadable)?;
    if let Some(why) = touched.read_more {
        tracing::debug!("more rows are read than those of pages that differ: {why}");
    }
    let mut sides = Sides { run, databases, schemas: &schemas, touched, looked_at, differs: false };
    match print(&mut sides, form) {
        Err(Error::Rows(rows::Error::Write(error))) => quietly(Err(Error::Output(error))),
        Err(Error::Rows(error)) => Err(damaged(error, &format!("one of {} and {}", from.name, to.name))),
        printed => quietly(printed),
    }?;
    if matches!(form, DiffForm::Sql | DiffForm::Changeset(_)) {
        run.say_if_nothing_differs(sides.differs);
    }
    Ok(sides.differs)
}

/// What is said where `what` is damaged, and as it is where that is not the reason.
fn damaged(error: rows::Error, what: &str) -> Error {
    match error.is_damage() {
        true => Error::Damaged { what: what.to_owned(), why: error.to_string() },
        false => Error::Rows(error),
    }
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
            let mut script = SqlScript::new(script_out(), &schemas.0, &schemas.1)?;
            sides.each(|change| script.change(change))?;
            let (mut out, left_out) = script.finish()?;
            sides.warn_of(&left_out);
            out.flush().map_err(Error::Output)
        }
        DiffForm::Changeset(file) => {
            let file = WholeFile::beside(sides.run, file)?;
            let mut changeset = Changeset::new(file, &schemas.0, &schemas.1);
            sides.each(|change| changeset.change(change))?;
            let (file, left_out) = changeset.finish();
            sides.warn_of(&left_out);
            file.appear()
        }
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
    still(sides.looked_at)?;
    sides.warn_of(&summary.left_out);
    printer.end(summary.left_out.is_empty())
}

/// Two databases that nobody writes.
struct Sides<'a> {
    run: &'a Run,
    databases: (VersionDatabase, VersionDatabase),
    schemas: &'a (Schema, Schema),
    touched: Touched,
    looked_at: &'a [LiveContent],
    /// Whether something was found that is not the same.
    differs: bool,
}

impl Sides<'_> {
    /// Goes through all differences.
    fn each(&mut self, mut change: impl FnMut(&Change) -> Result<(), rows::Error>) -> Result<(), Error> {
        let summary = self.each_until(&mut |one| change(&one).map(|()| Go::On))?;
        still(self.looked_at)?;
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
