//! Making the [`Conflict`] out of the store: counts of all rows in conflict, and a page of the rows.

use rusqlite::params;

use crate::rows::{Row, Value};

use super::constraints::key_weight;
use super::store::{STORED, Store, Stored, key};
use super::{Conflict, ConflictRow, Context, Drawn, Error, Limits, Merge, Reason, TableConflict};

/// Reasons that are kept, at most; rows that have a later one keep that of the last.
const REASONS_MAX: usize = 1_000;

/// The conflict of the rows that are marked, and of the reasons given.
pub(super) fn conflict(
    context: &Context<'_>,
    store: &Store,
    mut reasons: Vec<Reason>,
) -> Result<Merge, Error> {
    reasons.truncate(REASONS_MAX);
    let last = reasons.len().saturating_sub(1);
    let mut conflict = Conflict { reasons, ..Conflict::default() };
    for (number, table) in store.tables() {
        let rows =
            store.count("SELECT count(*) FROM row WHERE conflict IS NOT NULL AND tbl = ?1", [number])?;
        if rows > 0 {
            conflict.row_count += rows;
            conflict.tables.push(TableConflict { table: table.name.clone(), rows });
        }
    }
    conflict.tables.sort_by(|one, other| one.table.cmp(&other.table));
    let limits = &context.options.limits;
    let sql = format!(
        "SELECT {STORED}, conflict FROM row WHERE conflict IS NOT NULL ORDER BY tbl, id LIMIT ?1 OFFSET ?2"
    );
    let mut statement = store.db().prepare_cached(&sql).map_err(Error::store)?;
    let mut rows =
        statement.query(params![limits.rows as i64, limits.first_row as i64]).map_err(Error::store)?;
    let mut room = limits.bytes;
    while let Some(row) = rows.next().map_err(Error::store)? {
        let why: i64 = row.get(7).map_err(Error::store)?;
        let row = in_conflict(store.stored(row)?, usize::try_from(why).unwrap_or(0).min(last), limits);
        let weight: usize = [&row.base, &row.theirs, &row.mine].into_iter().flatten().map(Row::weight).sum();
        if weight > room && !conflict.rows.is_empty() {
            break;
        }
        room = room.saturating_sub(weight);
        conflict.rows.push(row);
    }
    Ok(Merge::Conflict(conflict))
}

/// The rows that were drawn in.
pub(super) fn drawn(context: &Context<'_>, store: &Store) -> Result<Drawn, Error> {
    let mut drawn = Drawn { count: store.count("SELECT count(*) FROM drawn", [])?, rows: Vec::new() };
    let limits = &context.options.limits;
    let sql = "SELECT tbl, key FROM row WHERE id IN (SELECT id FROM drawn) ORDER BY tbl, id LIMIT ?1";
    let mut statement = store.db().prepare_cached(sql).map_err(Error::store)?;
    let mut rows = statement.query([limits.rows as i64]).map_err(Error::store)?;
    let mut room = limits.bytes;
    while let Some(row) = rows.next().map_err(Error::store)? {
        let (table, key) = (store.table(row.get(0).map_err(Error::store)?)?, key(row, 1)?);
        let weight = key_weight(&key);
        if weight > room {
            break;
        }
        room -= weight;
        drawn.rows.push((table.clone(), key));
    }
    Ok(drawn)
}

fn in_conflict(row: Stored, why: usize, limits: &Limits) -> ConflictRow {
    let Stored { table, key, mut base, mut theirs, mut mine, .. } = row;
    let differing = match (&theirs, &mine) {
        (Some(theirs), Some(mine)) => {
            let values = theirs.values.iter().zip(&mine.values).enumerate();
            values.filter(|(_, (theirs, mine))| theirs != mine).map(|(column, _)| column).collect()
        }
        _ => Vec::new(),
    };
    let mut cut = Vec::new();
    for row in [&mut base, &mut theirs, &mut mine].into_iter().flatten() {
        // Many values of which none is long may be much as well.
        let mut room = limits.bytes / 3;
        for (column, value) in row.values.iter_mut().enumerate() {
            if let Value::Text(bytes) | Value::Blob(bytes) = value {
                let most = limits.value_bytes.min(room);
                if bytes.len() > most {
                    bytes.truncate(most);
                    bytes.shrink_to_fit();
                    cut.push(column);
                }
                room -= bytes.len();
            }
        }
    }
    cut.sort_unstable();
    cut.dedup();
    ConflictRow { table, key, base, theirs, mine, differing, cut, why }
}
