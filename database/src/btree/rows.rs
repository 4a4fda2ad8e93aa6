//! The rows of one table that may differ, as they are found: ranges of rowids, or keys.
//!
//! More than what was found may come out, never less, and memory is bounded: ranges that are too many are
//! joined, and keys that are too many become "any row".

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::page::{Kind, Malformed, Page, Trouble};
use super::pages::Pages;
use super::record;
use super::touched::Ranges;
use crate::rows::Value;

/// Ranges no further apart than this are one. To pass over a row or two is less than to look for where the next
/// range begins; but rows may be large, and a page that is read for nothing costs more than ten that are looked for.
const GAP: u64 = 2;

/// A table has no more ranges than this. (4 MB.)
const RANGES_MAX: usize = 1 << 18;

/// All tables together have no more ranges than this while they are looked for. (16 MB.)
const ALL_RANGES_MAX: usize = 1 << 20;

/// More keys than this are any key of their table.
const KEYS_MAX: usize = 200_000;

/// The keys of all tables together take no more memory than this, in bytes.
const ALL_KEYS_KEPT_MAX: usize = 48 << 20;

/// And no more bytes of keys than this are read: one page may name a long key thousands of times.
const ALL_KEYS_READ_MAX: usize = 128 << 20;

/// What a key takes besides its values: the vector, and its place in a set.
const KEY_OVERHEAD: usize = 64;

/// What may still be read and kept of all tables. Where it is used up, tables are read whole: there may be
/// thousands of them, and one file decides how many.
pub(crate) struct Budget {
    ranges: usize,
    keys_kept: usize,
    keys_read: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { ranges: ALL_RANGES_MAX, keys_kept: ALL_KEYS_KEPT_MAX, keys_read: ALL_KEYS_READ_MAX }
    }
}

/// Rows of one table.
pub(crate) enum Rows {
    /// Any.
    All,
    /// By rowid: first and last, in the order in which they were found.
    Rowids(Vec<(i64, i64)>),
    /// By the first columns of the record.
    Keys { columns: usize, keys: HashSet<Vec<Value>> },
}

impl Rows {
    /// None, of a table with so many key columns, or with rowids.
    pub(crate) fn none(key_columns: Option<usize>) -> Rows {
        match key_columns {
            None => Rows::Rowids(Vec::new()),
            Some(columns) => Rows::Keys { columns, keys: HashSet::new() },
        }
    }

    /// Adds all rows that stand in a page.
    pub(crate) fn add(
        &mut self,
        page: &Page<'_>,
        pages: &mut Pages<'_>,
        budget: &mut Budget,
    ) -> Result<(), Trouble> {
        let fits = match self {
            Rows::All => true,
            Rows::Rowids(ranges) => add_rowids(ranges, page, budget)?,
            Rows::Keys { columns, keys } => add_keys(keys, *columns, page, pages, budget)?,
        };
        if !fits {
            *self = Rows::All;
        }
        Ok(())
    }

    /// As others see them; `None` where there is none.
    pub(crate) fn into_ranges(self) -> Option<Ranges> {
        match self {
            Rows::All => Some(Ranges::All),
            Rows::Rowids(mut ranges) => {
                join(&mut ranges);
                let ranges: Vec<RangeInclusive<i64>> =
                    ranges.into_iter().map(|(first, last)| first..=last).collect();
                (!ranges.is_empty()).then_some(Ranges::Rowids(ranges))
            }
            Rows::Keys { keys, .. } => (!keys.is_empty()).then(|| Ranges::Keys(keys.into_iter().collect())),
        }
    }
}

/// `false` where they are too many.
fn add_rowids(ranges: &mut Vec<(i64, i64)>, page: &Page<'_>, budget: &mut Budget) -> Result<bool, Malformed> {
    // The rowids of an interior page only part its children.
    if page.kind() != Kind::TableLeaf {
        return Ok(true);
    }
    // In a sound table they ascend; in any other the range has them all just so.
    let mut range: Option<(i64, i64)> = None;
    for cell in page.cells() {
        let rowid = cell?.rowid.ok_or(Malformed)?;
        let (first, last) = range.unwrap_or((rowid, rowid));
        range = Some((first.min(rowid), last.max(rowid)));
    }
    if budget.ranges == 0 {
        return Ok(false);
    }
    budget.ranges -= range.iter().len();
    ranges.extend(range);
    if ranges.len() >= 2 * RANGES_MAX {
        let before = ranges.len();
        join(ranges);
        budget.ranges += before - ranges.len();
    }
    Ok(true)
}

/// `false` where they are too many.
fn add_keys(
    keys: &mut HashSet<Vec<Value>>,
    columns: usize,
    page: &Page<'_>,
    pages: &mut Pages<'_>,
    budget: &mut Budget,
) -> Result<bool, Trouble> {
    for cell in page.cells() {
        let key = record::key(pages, &cell?, columns)?;
        let len = KEY_OVERHEAD + key.iter().map(|value| size_of::<Value>() + value.len()).sum::<usize>();
        let Some(left) = budget.keys_read.checked_sub(len) else { return Ok(false) };
        budget.keys_read = left;
        if keys.insert(key) {
            let Some(left) = budget.keys_kept.checked_sub(len) else { return Ok(false) };
            budget.keys_kept = left;
        }
        if keys.len() > KEYS_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Orders the ranges and joins those that are close, so that no more than [`RANGES_MAX`] are left.
fn join(ranges: &mut Vec<(i64, i64)>) {
    ranges.sort_unstable();
    let mut gap = GAP;
    loop {
        ranges.dedup_by(|next, kept| {
            let close = next.0 <= kept.1 || next.0.abs_diff(kept.1) <= gap;
            if close {
                kept.1 = kept.1.max(next.1);
            }
            close
        });
        if ranges.len() <= RANGES_MAX {
            break;
        }
        // With the largest gap all are one.
        gap = gap.saturating_mul(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
        join(&mut ranges);
        ranges
    }

    #[test]
    fn ranges_that_touch_overlap_or_are_close_are_one() {
        assert_eq!(joined(vec![(7, 20), (1, 5)]), [(1, 20)]);
        assert_eq!(joined(vec![(1, 500), (3, 4), (502, 503), (1000, 1001)]), [(1, 503), (1000, 1001)]);
        let ends = vec![(i64::MIN, i64::MIN), (i64::MAX, i64::MAX)];
        assert_eq!(joined(ends.clone()), ends);
    }

    #[test]
    fn ranges_that_are_rows_apart_stay_apart() {
        let ranges = vec![(1, 7), (15, 21), (100, 106)];
        assert_eq!(joined(ranges.clone()), ranges);
    }

    #[test]
    fn too_many_ranges_become_fewer_and_lose_no_rowid() {
        let ranges: Vec<(i64, i64)> = (0..400_000).map(|n| (n * 1000, n * 1000 + 1)).collect();
        let joined = joined(ranges.clone());
        assert!(joined.len() <= RANGES_MAX);
        for (first, last) in ranges {
            let at = joined.partition_point(|range| range.0 <= first) - 1;
            assert!(joined[at].1 >= last);
        }
    }
}
