//! Comparing a table by key alone: WITHOUT ROWID, or where the two sides do not both have rowids.
//!
//! Rows are read on one side and looked up on the other, each lookup a walk down one B-tree. The key that
//! is found must be the one that was looked for bit for bit: under NOCASE a lookup of 'a' finds 'A', which is
//! another row.

use std::collections::HashSet;

use super::super::error::Error;
use super::super::key::{Key, Row};
use super::super::reader::Reader;
use super::super::schema::Table;
use super::super::value::Value;
use super::plan::{NO_NAME_FOR_A_ROW, Plan};
use super::{Go, Out, Sides};
use crate::btree::Ranges;

/// Compares the rows with the keys given, or all.
pub(super) fn compare(
    sides: &Sides<'_>,
    plan: &Plan,
    ranges: &Ranges,
    out: &mut Out<'_>,
) -> Result<Go, Error> {
    match ranges {
        Ranges::Keys(keys) if plan.old.is_without_rowid() && plan.new.is_without_rowid() => {
            compare_keys(sides, plan, keys, out)
        }
        _ => compare_all(sides, plan, out),
    }
}

fn compare_keys(sides: &Sides<'_>, plan: &Plan, keys: &[Vec<Value>], out: &mut Out<'_>) -> Result<Go, Error> {
    let mut old = Reader::by_key(sides.old, &plan.old, sides.encoding)?;
    let mut new = Reader::by_key(sides.new, &plan.new, sides.encoding)?;
    // Hashes of 16 bytes: two forms of one key in a record are one key for SQL.
    let mut seen: HashSet<[u8; 16]> = HashSet::with_capacity(keys.len());
    for stored in keys {
        let Some(key) = declared(&plan.new, stored) else { continue };
        let hash = blake3::hash(&Key::Declared(key.clone()).to_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        if !seen.insert(short) {
            continue;
        }
        let (before, after) = (old.with_key(&plan.old, &key)?, new.with_key(&plan.new, &key)?);
        let same = match (&before, &after) {
            (None, None) => true,
            (Some(before), Some(after)) => plan.same(before, after),
            _ => false,
        };
        if !same && out.row(plan, Key::Declared(key), before, after)? == Go::Stop {
            return Ok(Go::Stop);
        }
    }
    Ok(Go::On)
}

/// The declared key from what the records hold first: the columns as the key's index has them, one that
/// stands there twice only once, and integers in a REAL column as the reals that SQL shows.
fn declared(table: &Table, stored: &[Value]) -> Option<Vec<Value>> {
    let value = |column: usize| {
        let at = table.key_parts.iter().position(|part| part.column == column)?;
        let value = stored.get(at)?.clone();
        let real = is_real(&table.columns.get(column)?.declared);
        Some(match value {
            Value::Integer(integer) if real => Value::Real(integer as f64),
            value => value,
        })
    };
    table.key.iter().map(|&column| value(column)).collect()
}

/// Whether a declared type has the affinity REAL.
fn is_real(declared: &str) -> bool {
    super::plan::affinity(declared, false) == "REAL"
}

fn compare_all(sides: &Sides<'_>, plan: &Plan, out: &mut Out<'_>) -> Result<Go, Error> {
    let mut rows = Reader::all(sides.old, &plan.old, sides.encoding)?;
    let mut lookup = Lookup::new(sides.new, &plan.new, sides)?;
    while let Some(before) = rows.next()? {
        let Some(key) = key(&before, &plan.old, out)? else { continue };
        let after = lookup.find(&plan.new, &key, out)?;
        if after.as_ref().is_some_and(|after| plan.same(&before, after)) {
            continue;
        }
        if out.row(plan, key, Some(before), after)? == Go::Stop {
            return Ok(Go::Stop);
        }
    }
    let mut rows = Reader::all(sides.new, &plan.new, sides.encoding)?;
    let mut lookup = Lookup::new(sides.old, &plan.old, sides)?;
    while let Some(after) = rows.next()? {
        let Some(key) = key(&after, &plan.new, out)? else { continue };
        if lookup.find(&plan.old, &key, out)?.is_none() && out.row(plan, key, None, Some(after))? == Go::Stop
        {
            return Ok(Go::Stop);
        }
    }
    Ok(Go::On)
}

fn key(row: &Row, table: &Table, out: &mut Out<'_>) -> Result<Option<Key>, Error> {
    match row.key(table) {
        None if table.is_without_rowid() => {
            Err(Error::Schema("a row of a table WITHOUT ROWID has NULL in its key"))
        }
        None => {
            out.summary.leave_out(&table.name, NO_NAME_FOR_A_ROW);
            Ok(None)
        }
        key => Ok(key),
    }
}

/// Finds rows of a table by key.
struct Lookup<'c> {
    by_key: Reader<'c>,
    /// For rows that are named by their rowid, because their key has a NULL.
    by_rowid: Option<Reader<'c>>,
}

impl<'c> Lookup<'c> {
    fn new(
        connection: &'c rusqlite::Connection,
        table: &Table,
        sides: &Sides<'_>,
    ) -> Result<Lookup<'c>, Error> {
        let by_key = Reader::by_key(connection, table, sides.encoding)?;
        let by_rowid = table.rowid.as_ref().map(|_| Reader::by_range(connection, table, sides.encoding));
        Ok(Lookup { by_key, by_rowid: by_rowid.transpose()? })
    }

    fn find(&mut self, table: &Table, key: &Key, out: &mut Out<'_>) -> Result<Option<Row>, Error> {
        match (key, &mut self.by_rowid) {
            (Key::Declared(values), _) => self.by_key.with_key(table, values),
            (Key::Rowid(rowid), Some(rows)) => {
                let found = rows.at(*rowid)?;
                Ok(found.filter(|row| row.key(table).as_ref() == Some(key)))
            }
            // A table WITHOUT ROWID has no NULL in its key: the row is on the other side alone.
            (Key::Rowid(_), None) if table.is_without_rowid() => Ok(None),
            (Key::Rowid(_), None) => {
                out.summary.leave_out(&table.name, NO_NAME_FOR_A_ROW);
                Ok(None)
            }
        }
    }
}

/// Compares two tables whose rows have no name, in the order in which they stand.
pub(super) fn compare_nameless(sides: &Sides<'_>, plan: &Plan, out: &mut Out<'_>) -> Result<Go, Error> {
    let mut old = Reader::all(sides.old, &plan.old, sides.encoding)?;
    let mut new = Reader::all(sides.new, &plan.new, sides.encoding)?;
    loop {
        let same = match (old.next()?, new.next()?) {
            (None, None) => return Ok(Go::On),
            (Some(before), Some(after)) => plan.same(&before, &after),
            _ => false,
        };
        if !same {
            out.summary.leave_out(&plan.new.name, NO_NAME_FOR_A_ROW);
            return Ok(Go::On);
        }
    }
}
