//! What a conflict is about, in the form in which it is kept: rows as lines of JSON, reasons as sentences.
//!
//! The lines are what is listed later, so that nobody has to compare the three contents again for that. They
//! are bounded: of a conflict with more rows than fit, the rest is only counted, and long values are cut.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use sqlrsync_database::merge::{Conflict, ConflictRow, Limits, Reason};
use sqlrsync_database::rows::{self, Change, Counts, Encoding, Go, Row, RowChange, Table, Value};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::text::printable;
use sqlrsync_repository::{
    CONFLICT_REASONS_MAX, CONFLICT_ROWS_BYTES_MAX, CONFLICT_TABLES_MAX, CONFLICT_TEXT_BYTES_MAX, Candidate,
    Manifest, MergeBase, Overlap, TableRows,
};

use super::versions::Versions;
use super::{Error, json};

/// How many rows of a conflict are kept for the listing.
const ROWS_MAX: usize = 50_000;

/// How many bytes of rows are had at once.
const ROW_BYTES_MAX: usize = 24 << 20;

/// The longest value that is kept whole, in bytes.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// The most bytes that are kept of all values of a row, which may have thousands.
const ROW_VALUES_BYTES_MAX: usize = 256 << 10;

/// Said where it is not known what a candidate was made from.
pub(super) const UNKNOWN_BASE: &str =
    "it is not known which version the pushed database was made from, and nothing is merged by guess";

/// What overlaps, ready to be stored.
#[derive(Default)]
pub(super) struct Found {
    /// Rows in conflict, by table.
    pub tables: Vec<TableRows>,
    /// How many rows are in conflict.
    pub row_count: u64,
    /// Why, as sentences.
    pub reasons: Vec<String>,
    /// The rows, a line each.
    pub rows: Vec<u8>,
}

/// What of a conflict is had in memory.
pub(super) fn limits() -> Limits {
    Limits { rows: ROWS_MAX, bytes: ROW_BYTES_MAX, value_bytes: VALUE_BYTES_MAX, ..Limits::default() }
}

impl Found {
    /// No row, for a reason that is of the whole.
    pub fn because(why: &str) -> Found {
        Found { reasons: vec![sentence(why)], ..Found::default() }
    }

    /// Where it is not known what the candidate was made from: every row in which it differs from theirs is
    /// somebody's to choose.
    pub fn without_base(versions: &Versions<'_>, theirs: &Manifest, mine: &Manifest) -> Result<Found, Error> {
        let mut found = Found::because(UNKNOWN_BASE);
        let Err(error) = found.add_differences(versions, theirs, mine) else { return Ok(found) };
        // What was found so far is not all.
        let mut found = Found::because(UNKNOWN_BASE);
        match error.given_up() {
            Some(given_up) => found.reasons.append(&mut given_up.found().reasons),
            None => found.reasons.push(sentence(&error.of_a_content()?)),
        }
        Ok(found)
    }

    fn add_differences(
        &mut self,
        versions: &Versions<'_>,
        theirs: &Manifest,
        mine: &Manifest,
    ) -> Result<(), Error> {
        let (old, new, touched) = versions.compare(theirs, mine)?;
        let mut kept = 0;
        let mut sink = |change: Change| {
            match change {
                Change::Schema(change) if self.reasons.len() < CONFLICT_REASONS_MAX => {
                    self.reasons.push(sentence(&format!("{} {} differs", change.kind.as_str(), change.name)));
                }
                Change::Row(change) if kept < ROWS_MAX => {
                    kept += 1;
                    push_line(&mut self.rows, &difference_line(&change));
                }
                Change::Schema(_) | Change::Row(_) => {}
            }
            Ok(Go::On)
        };
        let (old, new) = (&old.database, &new.database);
        let summary = rows::diff(old.connection(), new.connection(), &touched, &mut sink);
        old.check()?;
        new.check()?;
        let summary = summary?;
        self.row_count = summary.rows().total();
        let table =
            |(table, counts): (&String, &Counts)| TableRows { table: cut(table), rows: counts.total() };
        self.tables = summary.tables.iter().take(CONFLICT_TABLES_MAX).map(table).collect();
        Ok(())
    }

    /// What a merge has found.
    pub fn of(conflict: &Conflict, encoding: Encoding) -> Found {
        let mut rows = Vec::new();
        for row in &conflict.rows {
            push_line(&mut rows, &line(row, &conflict.reasons, encoding));
        }
        let table =
            |of: &sqlrsync_database::merge::TableConflict| TableRows { table: cut(&of.table), rows: of.rows };
        let others = conflict.reasons.iter().filter(|reason| **reason != Reason::Overlap);
        Found {
            tables: conflict.tables.iter().take(CONFLICT_TABLES_MAX).map(table).collect(),
            row_count: conflict.row_count,
            reasons: others.take(CONFLICT_REASONS_MAX).map(|reason| sentence(&reason.to_string())).collect(),
            rows,
        }
    }

    /// As the repository keeps it, but for the rows.
    pub fn overlap(
        &self,
        candidate: &Candidate,
        merge_base: Option<MergeBase>,
        theirs: VersionNumber,
    ) -> Overlap {
        let mut overlap = Overlap::new(candidate.id, merge_base, theirs);
        overlap.tables.clone_from(&self.tables);
        overlap.reasons.clone_from(&self.reasons);
        overlap
    }
}

/// Adds a line while there is room; the rest is only counted.
fn push_line(rows: &mut Vec<u8>, line: &str) {
    if rows.len() + line.len() < CONFLICT_ROWS_BYTES_MAX {
        rows.extend_from_slice(line.as_bytes());
        rows.push(b'\n');
    }
}

/// A row that differs, where there is no base.
fn difference_line(change: &RowChange) -> String {
    let RowChange { table, table_before, encoding, key, before, after, .. } = change;
    let keyed = if after.is_some() { table } else { table_before };
    let (theirs, cut_theirs) = shortened(before.as_ref());
    let (mine, cut_mine) = shortened(after.as_ref());
    let names = |of: &Table, columns: &[usize]| -> BTreeSet<String> {
        columns.iter().filter_map(|column| Some(of.columns.get(*column)?.name.clone())).collect()
    };
    let mut cut = names(table_before, &cut_theirs);
    cut.extend(names(table, &cut_mine));
    let differs: Vec<&str> = match (before, after) {
        (Some(before), Some(after)) => table
            .columns
            .iter()
            .zip(&after.values)
            .filter(|(column, value)| {
                let was = table_before.column(&column.name).and_then(|place| before.values.get(place));
                was != Some(value)
            })
            .map(|(column, _)| column.name.as_str())
            .collect(),
        _ => Vec::new(),
    };
    json!({
        "table": table.name,
        "key": json::key(keyed, key, *encoding),
        "base": null,
        "theirs": json::row(table_before, theirs.as_ref(), *encoding),
        "mine": json::row(table, mine.as_ref(), *encoding),
        "differs": differs, "cut": cut, "why": null,
    })
    .to_string()
}

/// A row whose values are as long as they may be in a listing, and the columns of those that were longer.
fn shortened(row: Option<&Row>) -> (Option<Row>, Vec<usize>) {
    let Some(row) = row else { return (None, Vec::new()) };
    let (mut row, mut cut, mut left) = (row.clone(), Vec::new(), ROW_VALUES_BYTES_MAX);
    for (column, value) in row.values.iter_mut().enumerate() {
        if let Value::Text(bytes) | Value::Blob(bytes) = value {
            let room = left.min(VALUE_BYTES_MAX);
            if bytes.len() > room {
                bytes.truncate(room);
                cut.push(column);
            }
            left -= bytes.len();
        }
    }
    (Some(row), cut)
}

/// A row in conflict as the listing shows it.
fn line(row: &ConflictRow, reasons: &[Reason], encoding: Encoding) -> String {
    let names = |columns: &[usize]| -> Vec<&str> {
        columns
            .iter()
            .filter_map(|column| row.table.columns.get(*column))
            .map(|column| column.name.as_str())
            .collect()
    };
    let why = match reasons.get(row.why) {
        None | Some(Reason::Overlap) => Json::Null,
        Some(reason) => Json::String(sentence(&reason.to_string())),
    };
    json!({
        "table": row.table.name,
        "key": json::key(&row.table, &row.key, encoding),
        "base": json::row(&row.table, row.base.as_ref(), encoding),
        "theirs": json::row(&row.table, row.theirs.as_ref(), encoding),
        "mine": json::row(&row.table, row.mine.as_ref(), encoding),
        "differs": names(&row.differing),
        "cut": names(&row.cut),
        "why": why,
    })
    .to_string()
}

fn sentence(text: &str) -> String {
    cut(&printable(text))
}

fn cut(text: &str) -> String {
    let mut text = text.to_owned();
    while text.len() > CONFLICT_TEXT_BYTES_MAX {
        text.pop();
    }
    text
}
