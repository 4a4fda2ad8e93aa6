//! Which rows of which tables may differ between two contents.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sqlrsync_protocol::page::PageNumber;

use crate::rows::Value;

/// Where a table's B-tree begins, as `sqlite_schema` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRoot {
    /// The table's name.
    pub name: String,
    /// Its root page.
    pub root: PageNumber,
    /// For a WITHOUT ROWID table, how many columns its key has: the first of every record. `None` for a
    /// table with rowids.
    pub key_columns: Option<usize>,
}

/// All trees of a database but `sqlite_schema`, whose root is page 1. A tree that is not named here makes
/// [`super::touched()`] read everything, in search of what the pages are that changed in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Tables, WITHOUT ROWID ones and shadow tables and `sqlite_sequence` included. Not virtual ones, which
    /// have no tree.
    pub tables: Vec<TableRoot>,
    /// The root pages of the indexes.
    pub indexes: Vec<PageNumber>,
}

/// Rows of one table that may differ. All others are the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Any row.
    All,
    /// Rows with these rowids: ascending, not overlapping.
    Rowids(Vec<RangeInclusive<i64>>),
    /// Rows of a WITHOUT ROWID table with these keys, in no particular order. None stands twice.
    ///
    /// They are as they are **stored**, to look rows up by with SQL and not to compare with what SQL says: a
    /// REAL column may store 3.0 as the integer 3, and under NOCASE `a` and `A` are one row.
    Keys(Vec<Vec<Value>>),
}

/// Rows that may differ between two contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// By table name. A table that is not here has no row that differs.
    pub tables: BTreeMap<String, Ranges>,
    /// What is not in `tables` may differ as well, and nothing is known of it.
    pub everything: bool,
    /// Why more was read than what changed, in words; `None` where it was not.
    pub read_more: Option<&'static str>,
}

impl Touched {
    /// Nothing is known: any row of any table may differ.
    pub fn everything(why: &'static str) -> Touched {
        Touched { tables: BTreeMap::new(), everything: true, read_more: Some(why) }
    }

    /// The rows of a table that may differ; `None` where none does.
    pub fn of(&self, table: &str) -> Option<&Ranges> {
        match self.tables.get(table) {
            None if self.everything => Some(&Ranges::All),
            found => found,
        }
    }
}
