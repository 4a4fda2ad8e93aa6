//! What a diff found, in numbers.

use std::collections::BTreeMap;

use super::super::key::{Op, RowChange};

/// Tables that are left out and named, at most.
const MAX_LEFT_OUT: usize = 1000;

/// How many rows of a table differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that only the new one has.
    pub inserted: u64,
    /// Rows whose values differ.
    pub updated: u64,
    /// Rows that only the old one has.
    pub deleted: u64,
}

impl Counts {
    /// Counts a row.
    pub fn add(&mut self, op: Op) {
        match op {
            Op::Insert => self.inserted += 1,
            Op::Update => self.updated += 1,
            Op::Delete => self.deleted += 1,
        }
    }

    /// All of them.
    pub const fn total(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// A table of which something differs, or may, that cannot be said row by row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// The table.
    pub table: String,
    /// Why.
    pub why: &'static str,
}

/// What a diff found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By table, those of which a row differs.
    pub tables: BTreeMap<String, Counts>,
    /// Changes of the schema.
    pub schema_changes: u64,
    /// Tables that differ in a way that rows cannot say.
    pub left_out: Vec<LeftOut>,
    /// Why more was read than what changed, in words; `None` where it was not.
    pub read_more: Option<&'static str>,
    /// Whether the sink wanted no more: the numbers are those up to there.
    pub stopped: bool,
}

impl Summary {
    /// Counts a row that differs.
    pub fn count(&mut self, change: &RowChange) {
        // The name is copied for the first row of a table only.
        match self.tables.get_mut(&change.table.name) {
            Some(counts) => counts.add(change.op()),
            None => self.tables.entry(change.table.name.clone()).or_default().add(change.op()),
        }
    }

    /// Notes a table that cannot be said row by row; once for a reason.
    pub fn leave_out(&mut self, table: &str, why: &'static str) {
        let known = self.left_out.iter().any(|left| left.table == table && left.why == why);
        if !known && self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(LeftOut { table: table.to_owned(), why });
        }
    }

    /// Rows of all tables together.
    pub fn rows(&self) -> Counts {
        self.tables.values().fold(Counts::default(), |mut sum, counts| {
            sum.inserted += counts.inserted;
            sum.updated += counts.updated;
            sum.deleted += counts.deleted;
            sum
        })
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.schema_changes == 0 && self.left_out.is_empty()
    }
}
