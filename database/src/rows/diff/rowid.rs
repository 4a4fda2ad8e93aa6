//! Comparing a table with rowids: ranges of both sides are read in order and joined by rowid.
//!
//! Rows of one rowid and one key are the same row. All others are gone or new, unless the table has a
//! declared key that is not its rowid: then SQLite may have given a row another rowid (VACUUM, REPLACE, a
//! dump that was read back), and what is left is matched by key in [`Leftovers`].

use std::ops::RangeInclusive;

use super::super::error::Error;
use super::super::key::{Key, Row};
use super::super::reader::Reader;
use super::super::schema::Table;
use super::leftovers::Leftovers;
use super::plan::Plan;
use super::{Go, Out, Side, Sides};
use crate::btree::Ranges;

/// Compares the rows of ranges.
pub(super) fn compare(
    sides: &Sides<'_>,
    plan: &Plan,
    ranges: &Ranges,
    out: &mut Out<'_>,
) -> Result<Go, Error> {
    let all = [i64::MIN..=i64::MAX];
    let ranges = match ranges {
        Ranges::Rowids(ranges) => ranges.as_slice(),
        // Keys are for tables without rowids: that they stand here means nothing that can be relied on.
        Ranges::All | Ranges::Keys(_) => &all,
    };
    let mut join = Join {
        plan,
        old: Reader::by_range(sides.old, &plan.old, sides.encoding)?,
        new: Reader::by_range(sides.new, &plan.new, sides.encoding)?,
        leftovers: None,
    };
    for range in ranges {
        if join.range(range, out)? == Go::Stop {
            return Ok(Go::Stop);
        }
    }
    join.finish(out)
}

struct Join<'a, 'c> {
    plan: &'a Plan,
    old: Reader<'c>,
    new: Reader<'c>,
    /// Rows that did not pair by rowid; made when the first turns up.
    leftovers: Option<Leftovers>,
}

impl Join<'_, '_> {
    fn range(&mut self, range: &RangeInclusive<i64>, out: &mut Out<'_>) -> Result<Go, Error> {
        self.old.set_range(range)?;
        self.new.set_range(range)?;
        let (mut before, mut after) = (step(&mut self.old)?, step(&mut self.new)?);
        loop {
            let go = match (before, after) {
                (None, None) => return Ok(Go::On),
                (Some(old), Some(new)) if old == new => {
                    let go = self.pair(out)?;
                    (before, after) = (step(&mut self.old)?, step(&mut self.new)?);
                    go
                }
                (Some(old), new) if new.is_none_or(|new| old < new) => {
                    let row = self.old.take_row()?;
                    let go = self.single(Side::Old, row, out)?;
                    before = step(&mut self.old)?;
                    go
                }
                _ => {
                    let row = self.new.take_row()?;
                    let go = self.single(Side::New, row, out)?;
                    after = step(&mut self.new)?;
                    go
                }
            };
            if go == Go::Stop {
                return Ok(Go::Stop);
            }
        }
    }

    /// Two rows of one rowid.
    fn pair(&mut self, out: &mut Out<'_>) -> Result<Go, Error> {
        // Most are the same: those are compared where they stand.
        if self.plan.same_rows(&self.old, &self.new)? {
            return Ok(Go::On);
        }
        let (before, after) = (self.old.take_row()?, self.new.take_row()?);
        let (old_key, new_key) = (key(&before, &self.plan.old)?, key(&after, &self.plan.new)?);
        if old_key == new_key {
            return out.row(self.plan, new_key, Some(before), Some(after));
        }
        match self.single(Side::Old, before, out)? {
            Go::On => self.single(Side::New, after, out),
            Go::Stop => Ok(Go::Stop),
        }
    }

    /// A row that has no counterpart of its rowid and key.
    fn single(&mut self, side: Side, row: Row, out: &mut Out<'_>) -> Result<Go, Error> {
        let table = if side == Side::Old { &self.plan.old } else { &self.plan.new };
        let key = key(&row, table)?;
        if let (Key::Declared(_), false, Some(rowid)) = (&key, self.plan.rowid_is_key, row.rowid) {
            let leftovers = match &mut self.leftovers {
                Some(leftovers) => leftovers,
                none => none.insert(Leftovers::new()?),
            };
            leftovers.add(side, &key, rowid)?;
            return Ok(Go::On);
        }
        let (before, after) = if side == Side::Old { (Some(row), None) } else { (None, Some(row)) };
        out.row(self.plan, key, before, after)
    }

    /// Matches what is left by key. The rows are read again: only keys and rowids were kept.
    fn finish(mut self, out: &mut Out<'_>) -> Result<Go, Error> {
        let Some(mut leftovers) = self.leftovers.take() else { return Ok(Go::On) };
        leftovers.index()?;
        while let Some((old, new)) = leftovers.next()? {
            let before = old.map(|rowid| self.old.at(rowid)).transpose()?.flatten();
            let after = new.map(|rowid| self.new.at(rowid)).transpose()?.flatten();
            if old.is_some() != before.is_some() || new.is_some() != after.is_some() {
                return Err(Error::Schema("a row was there and is there no more: a table is damaged"));
            }
            if let (Some(before), Some(after)) = (&before, &after)
                && self.plan.same(before, after)
            {
                continue;
            }
            let key = match (&after, &before) {
                (Some(row), _) => key(row, &self.plan.new)?,
                (None, Some(row)) => key(row, &self.plan.old)?,
                (None, None) => continue,
            };
            if out.row(self.plan, key, before, after)? == Go::Stop {
                return Ok(Go::Stop);
            }
        }
        Ok(Go::On)
    }
}

/// Goes to the next row: its rowid.
fn step(rows: &mut Reader<'_>) -> Result<Option<i64>, Error> {
    Ok(if rows.step()? { rows.rowid() } else { None })
}

fn key(row: &Row, table: &Table) -> Result<Key, Error> {
    row.key(table).ok_or(Error::Schema("a row of a table has no rowid"))
}
