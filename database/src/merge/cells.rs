//! Putting a row together column by column, where both sides changed it.
//!
//! Off unless asked for: two updates that each make sense may make none together. It is always done where
//! both sides changed a table's columns alike, as then every row has been changed by both; there it counts
//! only where no more than one side changed a column that the base had.

use crate::rows::Row;

use super::store::{STORED, Store, Stored};
use super::{Context, Error};

/// Decides for a combined row wherever that can be; how many were combined.
pub(super) fn combine(context: &Context<'_>, store: &Store) -> Result<u64, Error> {
    let base = &context.schemas.base;
    let migrated =
        |row: &Stored| base.table(&row.table.name).is_some_and(|table| table.columns != row.table.columns);
    if !context.options.cells
        && !store
            .tables()
            .any(|(_, table)| base.table(&table.name).is_some_and(|base| base.columns != table.columns))
    {
        return Ok(0);
    }
    let mut combined = 0;
    let mut last = 0;
    while let Some(row) = next_undecided(store, last)? {
        context.check_time()?;
        last = row.id;
        let new: Vec<bool> = match base.table(&row.table.name) {
            Some(table) => {
                row.table.columns.iter().map(|column| table.column(&column.name).is_none()).collect()
            }
            None => continue,
        };
        if context.shadows.owner(&row.table.name).is_some() || !(context.options.cells || migrated(&row)) {
            continue;
        }
        let id = row.id;
        if let Some(outcome) = together(row, &new, context.options.cells) {
            store.decide_merged(id, Some(&outcome))?;
            combined += 1;
        }
    }
    Ok(combined)
}

fn next_undecided(store: &Store, after: i64) -> Result<Option<Stored>, Error> {
    let sql = format!("SELECT {STORED} FROM row WHERE decision IS NULL AND id > ?1 ORDER BY id LIMIT 1");
    let mut statement = store.db().prepare_cached(&sql).map_err(Error::store)?;
    let mut rows = statement.query([after]).map_err(Error::store)?;
    rows.next().map_err(Error::store)?.map(|row| store.stored(row)).transpose()
}

/// The row with what each side changed; `None` where both changed one column, and not to the same. A column
/// that is `new` was in no base: both must have the same in it.
fn together(row: Stored, new: &[bool], both_may: bool) -> Option<Row> {
    let (base, theirs, mine) = (row.base?, row.theirs?, row.mine?);
    let rowid = theirs.rowid;
    let columns = base.values.into_iter().zip(theirs.values).zip(mine.values).zip(new);
    let (mut by_theirs, mut by_mine) = (false, false);
    let mut values = Vec::with_capacity(new.len());
    for (((base, theirs), mine), &new) in columns {
        values.push(match () {
            () if theirs == mine => {
                let changed = !new && theirs != base;
                (by_theirs, by_mine) = (by_theirs || changed, by_mine || changed);
                theirs
            }
            () if new => return None,
            () if theirs == base => {
                by_mine = true;
                mine
            }
            () if mine == base => {
                by_theirs = true;
                theirs
            }
            () => return None,
        });
    }
    (both_may || !(by_theirs && by_mine)).then_some(Row { rowid, values })
}
