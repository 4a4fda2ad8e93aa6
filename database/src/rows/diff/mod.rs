//! The row diff: which rows of which tables differ between two databases.
//!
//! It streams: a difference goes to the sink as soon as it is known, changes of the schema before any row.
//! Memory is a few times the largest row, whatever the tables hold. Which rows may differ is said by
//! [`Touched`]; what is in them, and whether they do, is read from both sides with SQL.
//!
//! - Rowid tables are read by ranges of rowids on both sides and joined (`rowid.rs`). What does not pair by
//!   rowid is matched by declared key in a temporary database (`leftovers.rs`).
//! - All else is read on one side and looked up by key on the other (`keyed.rs`).
//! - Which columns are compared, and what stands for a column that one side has not, is in `plan.rs`.

mod keyed;
mod leftovers;
mod plan;
mod rowid;
mod summary;

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::Connection;

use super::error::Error;
use super::key::{Key, Row, RowChange};
use super::reader::Reader;
use super::schema::{Change, Encoding, Schema, Table};
use crate::btree::{Ranges, Touched};
use plan::{Defaults, Method, Plan};

pub(crate) use plan::{affinity, is_replaced};
pub use summary::{Counts, LeftOut, Summary};

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// With the next.
    On,
    /// No further: enough has been seen.
    Stop,
}

/// Says how the rows and the schema of two databases differ: each difference goes to the sink.
///
/// All texts are in the new database's encoding; where the old one has another, SQLite converts them, and
/// all rows of all tables are compared. Tables whose name begins with `sqlite_stat` are left out.
///
/// # Errors
/// As [`Schema::read`]; what the sink says; a database that is damaged where it is read.
pub fn diff(
    old: &Connection,
    new: &Connection,
    touched: &Touched,
    sink: &mut dyn FnMut(Change) -> Result<Go, Error>,
) -> Result<Summary, Error> {
    let (old_view, new_view) = (ReadTransaction::begin(old)?, ReadTransaction::begin(new)?);
    let schemas = (Schema::read(old)?, Schema::read(new)?);
    let summary = diff_of(old, new, (&schemas.0, &schemas.1), touched, sink)?;
    drop((old_view, new_view));
    Ok(summary)
}

/// [`diff`] of databases whose schemas have been read, and which nobody writes meanwhile.
///
/// # Errors
/// As [`diff`].
pub fn diff_of(
    old: &Connection,
    new: &Connection,
    schemas: (&Schema, &Schema),
    touched: &Touched,
    sink: &mut dyn FnMut(Change) -> Result<Go, Error>,
) -> Result<Summary, Error> {
    let (before, after) = schemas;
    let mut out = Out {
        sink,
        summary: Summary { read_more: touched.read_more, ..Summary::default() },
        encoding: after.encoding,
    };
    for change in before.changes_to(after) {
        if out.schema(change)? == Go::Stop {
            return Ok(out.summary);
        }
    }
    let converted = before.encoding != after.encoding;
    if converted {
        out.summary.read_more = Some("the two have different text encodings");
    }
    let sides = Sides { old, new, encoding: after.encoding };
    let mut defaults = Defaults::new(after.encoding);
    let names: BTreeSet<&String> = before.tables.keys().chain(after.tables.keys()).collect();
    for name in names {
        let tables = (before.table(name), after.table(name));
        let all = Ranges::All;
        let ranges = if converted { Some(&all) } else { touched.of(name) };
        if table(&sides, tables, ranges, &mut defaults, &mut out)? == Go::Stop {
            break;
        }
    }
    Ok(out.summary)
}

/// Both connections, and the encoding that texts are read in.
#[derive(Clone, Copy)]
struct Sides<'c> {
    old: &'c Connection,
    new: &'c Connection,
    encoding: Encoding,
}

/// Where differences go.
struct Out<'s> {
    sink: &'s mut dyn FnMut(Change) -> Result<Go, Error>,
    summary: Summary,
    encoding: Encoding,
}

impl Out<'_> {
    fn send(&mut self, change: Change) -> Result<Go, Error> {
        let go = (self.sink)(change)?;
        self.summary.stopped |= go == Go::Stop;
        Ok(go)
    }

    fn schema(&mut self, change: super::schema::SchemaChange) -> Result<Go, Error> {
        self.summary.schema_changes += 1;
        self.send(Change::Schema(change))
    }

    /// Hands on a row that differs.
    fn row(&mut self, plan: &Plan, key: Key, before: Option<Row>, after: Option<Row>) -> Result<Go, Error> {
        let change = RowChange {
            table: plan.new.clone(),
            table_before: plan.old.clone(),
            encoding: self.encoding,
            key,
            before,
            after,
        };
        self.summary.count(&change);
        self.send(Change::Row(change))
    }
}

/// Compares one table.
fn table(
    sides: &Sides<'_>,
    tables: (Option<&Arc<Table>>, Option<&Arc<Table>>),
    ranges: Option<&Ranges>,
    defaults: &mut Defaults,
    out: &mut Out<'_>,
) -> Result<Go, Error> {
    let (old, new) = match tables {
        (Some(old), Some(new)) => (old, new),
        (Some(only), None) | (None, Some(only)) => {
            if has_rows(only) {
                let plan = Plan::of(only, only, defaults)?;
                let side = if tables.0.is_some() { Side::Old } else { Side::New };
                return one_side(sides, &plan, side, out);
            }
            return Ok(Go::On);
        }
        (None, None) => return Ok(Go::On),
    };
    let plan = match (has_rows(old), has_rows(new)) {
        (true, true) => Plan::of(old, new, defaults)?,
        // A virtual table became an ordinary one of the same name, or the other way round.
        (true, false) => return one_side(sides, &Plan::of(old, old, defaults)?, Side::Old, out),
        (false, true) => return one_side(sides, &Plan::of(new, new, defaults)?, Side::New, out),
        (false, false) => return Ok(Go::On),
    };
    // What the pages say holds only where both sides read the same bytes as the same values.
    let all = Ranges::All;
    let Some(ranges) = (if plan.same_reading { ranges } else { Some(&all) }) else { return Ok(Go::On) };
    match plan.method {
        Method::Rowids => rowid::compare(sides, &plan, ranges, out),
        Method::Keys => keyed::compare(sides, &plan, ranges, out),
        Method::Replaced => match one_side(sides, &plan, Side::Old, out)? {
            Go::On => one_side(sides, &plan, Side::New, out),
            Go::Stop => Ok(Go::Stop),
        },
        Method::Nameless => keyed::compare_nameless(sides, &plan, out),
    }
}

/// Whether a table has rows of its own that are compared. What ANALYZE gathers is not content.
fn has_rows(table: &Table) -> bool {
    let statistics = table.name.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_stat"));
    !table.is_virtual() && !statistics
}

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

/// All rows of one side are gone, or are new.
fn one_side(sides: &Sides<'_>, plan: &Plan, side: Side, out: &mut Out<'_>) -> Result<Go, Error> {
    let (connection, table) = match side {
        Side::Old => (sides.old, &plan.old),
        Side::New => (sides.new, &plan.new),
    };
    let mut rows = Reader::all(connection, table, sides.encoding)?;
    while let Some(row) = rows.next()? {
        let Some(key) = row.key(table) else {
            out.summary.leave_out(&table.name, plan::NO_NAME_FOR_A_ROW);
            continue;
        };
        let (before, after) = if side == Side::Old { (Some(row), None) } else { (None, Some(row)) };
        if out.row(plan, key, before, after)? == Go::Stop {
            return Ok(Go::Stop);
        }
    }
    Ok(Go::On)
}

/// A read transaction, where none is open already: both schemas and all rows are of one moment.
struct ReadTransaction<'c>(Option<&'c Connection>);

impl<'c> ReadTransaction<'c> {
    fn begin(connection: &'c Connection) -> Result<ReadTransaction<'c>, Error> {
        if !connection.is_autocommit() {
            return Ok(ReadTransaction(None));
        }
        let failed = |source| Error::Sqlite { doing: "beginning to read".into(), source };
        connection.execute_batch("BEGIN").map_err(failed)?;
        Ok(ReadTransaction(Some(connection)))
    }
}

impl Drop for ReadTransaction<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            // Nothing was written; where it fails, SQLite has ended it by itself.
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
}
