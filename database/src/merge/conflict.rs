//! What a merge leaves to somebody: the rows, the reasons, and a bounded page of both.
//!
//! Counts are always of all rows; the rows themselves come a page at a time, with values cut where they are
//! long, so that 10,000 rows or a row of 50 MB cost no more memory than the page may.

use std::fmt;
use std::sync::Arc;

use crate::rows::{Key, Row, Table};

use super::Side;

/// Nothing was published: why, and about which rows.
#[derive(Clone, Debug, Default)]
pub struct Conflict {
    /// The tables with rows in conflict, by name, each with how many.
    pub tables: Vec<TableConflict>,
    /// How many rows are in conflict, in all tables.
    pub row_count: u64,
    /// Some of them: see [`super::Limits`].
    pub rows: Vec<ConflictRow>,
    /// Why, each reason once.
    pub reasons: Vec<Reason>,
}

impl Conflict {
    /// Of a whole database, with no row to choose: for one reason.
    pub(super) fn because(reason: Reason) -> Conflict {
        Conflict { reasons: vec![reason], ..Conflict::default() }
    }

    /// Whether choosing by row, or for all rows, can settle it.
    pub fn can_be_settled(&self) -> bool {
        !self.reasons.iter().any(|reason| matches!(reason, Reason::Unsupported { .. }))
    }
}

/// A table with rows in conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConflict {
    /// Its name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
}

/// A row in conflict, as each of the three has it.
#[derive(Clone, Debug)]
pub struct ConflictRow {
    /// The table: its name and columns.
    pub table: Arc<Table>,
    /// Which row.
    pub key: Key,
    /// The row in the base; `None` where it was not there.
    pub base: Option<Row>,
    /// The row in the latest version.
    pub theirs: Option<Row>,
    /// The row in the candidate.
    pub mine: Option<Row>,
    /// Columns in which theirs and mine differ, as positions in the table's columns. Empty where one of
    /// them does not have the row.
    pub differing: Vec<usize>,
    /// Columns of which a value is longer than [`super::Limits::value_bytes`] and was cut.
    pub cut: Vec<usize>,
    /// Why, as a position in [`Conflict::reasons`].
    pub why: usize,
}

/// Rows that a choice for all took from one side though nobody argued about them.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// How many.
    pub count: u64,
    /// Some of them, as many as [`super::Limits`] has it for rows in conflict.
    pub rows: Vec<(Arc<Table>, Key)>,
}

/// Why a merge cannot be done without somebody's choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Both changed the same row, and not to the same.
    Overlap,
    /// A constraint fails on the result, and on neither side alone.
    Constraint {
        /// Which kind.
        kind: ConstraintKind,
        /// The table whose constraint it is.
        table: String,
        /// The constraint's name, or its columns: as SQLite names it.
        name: String,
    },
    /// The schema was changed in a way that does not go with what the other side did.
    Schema {
        /// The table, index, view or trigger.
        object: String,
        /// What does not go together.
        why: SchemaClash,
    },
    /// `application_id` or `user_version` was set to different values.
    Setting {
        /// Which of them.
        name: &'static str,
        /// What it was.
        base: i64,
        /// What the latest version has.
        theirs: i64,
        /// What the candidate has.
        mine: i64,
    },
    /// Both sides changed a virtual table that cannot be made again from a content of its own.
    VirtualTable {
        /// Its name.
        table: String,
        /// Which module it uses.
        module: String,
    },
    /// This database cannot be merged by this program; choosing rows does not help.
    Unsupported {
        /// What is in the way, in words.
        why: String,
    },
}

/// What kind of constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConstraintKind {
    /// UNIQUE, or PRIMARY KEY.
    Unique,
    /// CHECK.
    Check,
    /// NOT NULL.
    NotNull,
    /// FOREIGN KEY.
    ForeignKey,
    /// Another one: a STRICT table's types, say.
    Other,
}

impl ConstraintKind {
    /// As SQL has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConstraintKind::Unique => "UNIQUE",
            ConstraintKind::Check => "CHECK",
            ConstraintKind::NotNull => "NOT NULL",
            ConstraintKind::ForeignKey => "FOREIGN KEY",
            ConstraintKind::Other => "constraint",
        }
    }
}

/// How two changes of a schema, or one of a schema and one of rows, do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaClash {
    /// Both changed the schema, and not to the same.
    BothChanged,
    /// One side changed the table, or a trigger of it, and the other side changed its rows.
    RowsChanged {
        /// Who changed the schema.
        by: Side,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Overlap => f.write_str("both sides changed the same row"),
            Reason::Constraint { kind, table, name } => {
                write!(f, "together they break {} of {table}", kind.as_str())?;
                if name.is_empty() { Ok(()) } else { write!(f, " ({name})") }
            }
            Reason::Schema { object, why: SchemaClash::BothChanged } => {
                write!(f, "both sides changed the schema, each in its own way: {object}")
            }
            Reason::Schema { object, why: SchemaClash::RowsChanged { by } } => {
                let (one, other) = match by {
                    Side::Theirs => ("the latest version", "this push"),
                    Side::Mine => ("this push", "the latest version"),
                };
                write!(f, "{one} changed the schema of {object}, and {other} changed its rows")
            }
            Reason::Setting { name, base, theirs, mine } => {
                write!(f, "{name} was {base}, is {theirs} in the latest version and {mine} in this push")
            }
            Reason::VirtualTable { table, module } => write!(
                f,
                "both sides changed the {module} table {table}, which cannot be made again from its content"
            ),
            Reason::Unsupported { why } => write!(f, "this database cannot be merged: {why}"),
        }
    }
}
