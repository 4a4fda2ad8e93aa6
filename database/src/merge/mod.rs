//! Three-way merge: what a push changed and what others changed meanwhile, put together where no row was
//! changed by both, and a [`Conflict`] for somebody to settle where one was.
//!
//! Three open databases: the **base** that both sides began with, **theirs** (the latest version) and
//! **mine** (the candidate that was pushed). What one side changed is applied onto the other; which of the
//! two now holds the result is said in [`Merge::Merged`]. Everything happens in one transaction there, which
//! is rolled back where there is a conflict.
//!
//! What always holds here:
//! - No row change is lost in silence: each is in the result, or in the conflict.
//! - No code of the databases runs that their rows do not need: triggers are off, foreign key actions are
//!   off, views are not read but by a full-text index that takes its content from one.
//! - Foreign keys, UNIQUE, CHECK and NOT NULL hold on the result as far as they did on the two sides.
//! - Memory does not grow with the changes: they are kept in a [`store`] that spills.
//!
//! `docs/merging.md` says what this means for users, case by case.

mod apply;
mod attempt;
mod cells;
mod changes;
mod conflict;
mod constraints;
mod counterpart;
mod decide;
mod error;
mod foreign_keys;
mod foresee;
mod long;
mod lookup;
mod orphans;
mod renumber;
mod rows_in_conflict;
mod schema;
mod settings;
mod store;
mod virtual_tables;

use std::collections::HashMap;
use std::time::Instant;

use rusqlite::Connection;

use crate::btree::Touched;
use crate::rows::{Key, Schema};
use crate::temporary;

pub use conflict::{Conflict, ConflictRow, ConstraintKind, Drawn, Reason, SchemaClash, TableConflict};
pub use error::Error;

use attempt::attempt;
use foresee::foresee;
use store::Store;
use virtual_tables::Shadows;

/// The three databases. All are read; one of `theirs` and `mine` is written, in one transaction. Nobody else
/// writes them meanwhile, and none has a transaction open.
#[derive(Clone, Copy)]
pub struct Sides<'a> {
    /// What both began with.
    pub base: &'a Connection,
    /// The latest version.
    pub theirs: &'a Connection,
    /// The candidate.
    pub mine: &'a Connection,
    /// Which rows may differ between base and theirs.
    pub base_theirs: &'a Touched,
    /// Which rows may differ between base and mine.
    pub base_mine: &'a Touched,
}

impl<'a> Sides<'a> {
    fn of(&self, side: Side) -> &'a Connection {
        match side {
            Side::Theirs => self.theirs,
            Side::Mine => self.mine,
        }
    }

    fn touched(&self, side: Side) -> &'a Touched {
        match side {
            Side::Theirs => self.base_theirs,
            Side::Mine => self.base_mine,
        }
    }
}

/// One of the two that are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The latest version: what others did.
    Theirs,
    /// The candidate: what this push did.
    Mine,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Side {
        match self {
            Side::Theirs => Side::Mine,
            Side::Mine => Side::Theirs,
        }
    }
}

/// Whose outcome a row is to have.
pub type Choice = Side;

/// How to merge.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// Two updates of one row that touch different columns merge.
    pub cells: bool,
    /// Of two rows inserted under one generated rowid, mine gets a new one.
    pub renumber: bool,
    /// How much, and how long.
    pub limits: Limits,
}

/// What a merge may take, and how much of a conflict it keeps in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When to give up.
    pub deadline: Option<Instant>,
    /// How many bytes of temporary files what both sides changed may take.
    pub room: u64,
    /// The first row of a conflict to keep, counted from 0.
    pub first_row: u64,
    /// How many rows of a conflict to keep.
    pub rows: usize,
    /// How many bytes of rows to keep, about. The first row is kept whatever it takes.
    pub bytes: usize,
    /// The longest value that is kept whole.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: None,
            room: temporary::BYTES_MAX,
            first_row: 0,
            rows: 1_000,
            bytes: 8 << 20,
            value_bytes: 64 << 10,
        }
    }
}

/// What somebody chose for a conflict. Nothing for a merge as it comes.
#[derive(Clone, Debug, Default)]
pub struct Resolutions {
    /// For everything in conflict that `rows` does not name: rows, settings, virtual tables, the schema.
    pub default: Option<Choice>,
    /// By table and key. A row that is in no conflict can be named too.
    pub rows: HashMap<(String, Key), Choice>,
}

/// What a merge came to.
#[derive(Debug)]
pub enum Merge {
    /// It is done.
    Merged {
        /// Whose connection now holds the result, committed.
        on: Side,
        /// What was done there.
        summary: Summary,
        /// Rows that nobody had chosen or argued about, and that [`Resolutions::default`] took: they broke a
        /// constraint together with what is kept.
        drawn: Drawn,
    },
    /// Nothing was written.
    Conflict(Conflict),
}

/// What a merge did to the database that now holds the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows of tables with a key of their own that got another rowid, as theirs was taken.
    pub moved: u64,
    /// Rows of mine with a generated rowid that got another one, as theirs was taken.
    pub renumbered: u64,
    /// Rows that were put together column by column.
    pub combined: u64,
    /// Virtual tables that were made again from their content.
    pub rebuilt: Vec<String>,
}

impl Summary {
    /// Whether nothing was written: the result is that side as it was.
    pub fn is_empty(&self) -> bool {
        *self == Summary::default()
    }
}

/// Merges: see the head of this file.
///
/// # Errors
/// [`Error`] where it cannot be told: time is up, it takes more room than it may, the disk is full. A database that cannot be merged is not
/// an error but a conflict with [`Reason::Unsupported`].
pub fn merge(sides: Sides<'_>, options: &MergeOptions, resolve: &Resolutions) -> Result<Merge, Error> {
    match merge_or_fail(sides, options, resolve) {
        Err(error) => match error.unsupported() {
            Ok(why) => Ok(Merge::Conflict(Conflict::because(Reason::Unsupported { why }))),
            Err(error) => Err(error),
        },
        done => done,
    }
}

/// The three schemas.
struct Schemas {
    base: Schema,
    theirs: Schema,
    mine: Schema,
}

impl Schemas {
    fn of(&self, side: Side) -> &Schema {
        match side {
            Side::Theirs => &self.theirs,
            Side::Mine => &self.mine,
        }
    }
}

/// What all steps of one merge share.
struct Context<'a> {
    sides: Sides<'a>,
    schemas: &'a Schemas,
    options: &'a MergeOptions,
    resolve: &'a Resolutions,
    shadows: Shadows,
    /// Onto which side the other one is applied.
    on: Side,
}

impl Context<'_> {
    fn check_time(&self) -> Result<(), Error> {
        match self.options.limits.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::TimeUp),
            _ => Ok(()),
        }
    }
}

fn merge_or_fail(sides: Sides<'_>, options: &MergeOptions, resolve: &Resolutions) -> Result<Merge, Error> {
    let schemas = Schemas {
        base: Schema::read(sides.base)?,
        theirs: Schema::read(sides.theirs)?,
        mine: Schema::read(sides.mine)?,
    };
    if schemas.base.encoding != schemas.theirs.encoding || schemas.base.encoding != schemas.mine.encoding {
        return Err(Error::Unsupported("its text encoding was changed".into()));
    }
    let plan = schema::plan(&schemas, resolve.default);
    let shadows = Shadows::read(&schemas);
    let mut context = Context { sides, schemas: &schemas, options, resolve, shadows, on: plan.on };
    let mut store = Store::within(options.limits.room)?;
    let mut changes = changes::collect(&context, &mut store)?;
    // One side did nothing: the other one is the result, to the last bit, unless somebody chose otherwise.
    for side in [Side::Mine, Side::Theirs] {
        if !changes.of(side).any && resolve.rows.is_empty() {
            let (summary, drawn) = (Summary::default(), Drawn::default());
            return Ok(Merge::Merged { on: side.other(), summary, drawn });
        }
    }
    let mut reasons = plan.reasons;
    if reasons.is_empty() {
        reasons = schema::clashes(&plan.changed, &changes);
        match resolve.default {
            // The schema is kept that belongs to the rows that are kept.
            Some(choice) if !reasons.is_empty() && choice != context.on => {
                context.on = choice;
                store = Store::within(options.limits.room)?;
                changes = changes::collect(&context, &mut store)?;
                reasons.clear();
            }
            Some(_) => reasons.clear(),
            None => {}
        }
    }
    if !reasons.is_empty() {
        return rows_in_conflict::conflict(&context, &store, reasons);
    }
    if let Some(why) = &changes.of(context.on.other()).unsaid {
        return Err(Error::Unsupported(why.clone()));
    }
    let merged = put_together(&context, &mut store, &changes)?;
    match (&merged, resolve.default) {
        // What this schema cannot hold of the rows that are kept, that of their own side can.
        (Merge::Conflict(_), Some(choice)) if choice != context.on => {
            context.on = choice;
            let mut store = Store::within(options.limits.room)?;
            let changes = changes::collect(&context, &mut store)?;
            put_together(&context, &mut store, &changes)
        }
        _ => Ok(merged),
    }
}

/// Decides for all rows, and writes what was decided.
fn put_together(
    context: &Context<'_>,
    store: &mut Store,
    changes: &changes::Changes,
) -> Result<Merge, Error> {
    let units = virtual_tables::units(context, store, changes)?;
    let mut reasons = units.reasons;
    let settings = match settings::merge(context.schemas, context.resolve.default) {
        Ok(settings) => settings,
        Err(clashes) => {
            reasons.extend(clashes);
            settings::Settings::default()
        }
    };
    let decided = decide::decide(context, store)?;
    let overlap = decide::mark_undecided(store, &mut reasons)?;
    if overlap || !reasons.is_empty() {
        foresee(context, store, &mut reasons)?;
        return rows_in_conflict::conflict(context, store, reasons);
    }
    let mut indexes = Indexes { rebuild: units.rebuild, alone: units.alone, given_up: Vec::new() };
    loop {
        match attempt(context, store, &settings, &indexes, &decided) {
            Err(Error::Rebuild { table, .. }) if !indexes.given_up.contains(&table) => {
                if let Some(reason) = virtual_tables::give_up(context, store, &table)? {
                    return rows_in_conflict::conflict(context, store, vec![reason]);
                }
                indexes.rebuild.retain(|held| *held != table);
                indexes.given_up.push(table);
            }
            done => return done,
        }
    }
}

/// Full-text indexes that are made again when all rows are written, and those that cannot be.
struct Indexes {
    rebuild: Vec<String>,
    alone: Vec<virtual_tables::Alone>,
    given_up: Vec<String>,
}
