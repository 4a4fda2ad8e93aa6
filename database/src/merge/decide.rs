//! Which outcome each row has: what one side alone did is taken, what both did alike is taken once, what
//! somebody chose is taken as chosen. The rest is an overlap.

use std::sync::Arc;

use crate::rows::{Key, Row, Table};

use super::changes::definition;
use super::lookup::Statements;
use super::store::{BY_MINE, BY_THEIRS, Store, TAKE_MINE, TAKE_THEIRS};
use super::{Choice, Context, Error, Reason, Side, Summary, cells, renumber, virtual_tables};

/// The decision that is a side's.
pub(super) const fn taking(side: Side) -> i64 {
    match side {
        Side::Theirs => TAKE_THEIRS,
        Side::Mine => TAKE_MINE,
    }
}

/// Decides what can be decided.
pub(super) fn decide(context: &Context<'_>, store: &mut Store) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    // `decision` is set already where a virtual table is taken from one side as a whole.
    store.run(
        "UPDATE row SET decision = CASE
             WHEN sides = 1 THEN 1
             WHEN sides = 2 THEN 2
             WHEN theirs_hash IS mine_hash THEN 1 END
         WHERE decision IS NULL",
        [],
    )?;
    for ((table, key), choice) in &context.resolve.rows {
        if !virtual_tables::rows_can_be_chosen(context, table) {
            continue;
        }
        if let Some(id) = find_or_fetch(context, store, table, key)? {
            choose(store, id, *choice)?;
        }
    }
    if context.options.renumber {
        summary.renumbered = renumber::renumber(context, store)?;
    }
    summary.combined = cells::combine(context, store)?;
    if let Some(choice) = context.resolve.default {
        store.run("UPDATE row SET decision = ?1, chosen = 1 WHERE decision IS NULL", [taking(choice)])?;
    }
    Ok(summary)
}

/// Takes a row as somebody chose it.
pub(super) fn choose(store: &Store, id: i64, choice: Choice) -> Result<(), Error> {
    store.run("UPDATE row SET decision = ?2, chosen = 1 WHERE id = ?1", [id, taking(choice)])?;
    Ok(())
}

/// Marks what is not decided as being in conflict; whether there is any.
pub(super) fn mark_undecided(store: &Store, reasons: &mut Vec<Reason>) -> Result<bool, Error> {
    let number = reasons.len() as i64;
    let marked = store.run("UPDATE row SET conflict = ?1 WHERE decision IS NULL", [number])?;
    if marked > 0 {
        reasons.push(Reason::Overlap);
    }
    Ok(marked > 0)
}

/// The id of a row in the store. One that is not there is read from the three databases; `None` where both
/// sides have it as the base does, or where they do not have the table alike.
pub(super) fn find_or_fetch(
    context: &Context<'_>,
    store: &mut Store,
    table: &str,
    key: &Key,
) -> Result<Option<i64>, Error> {
    if let Some(id) = store.find(table, key)? {
        return Ok(Some(id));
    }
    let Some(table) = definition(context, table) else { return Ok(None) };
    if table.is_virtual() {
        return Ok(None);
    }
    // What no merge decides by rows can be chosen by none.
    if table.is_internal() || context.shadows.owner(&table.name).is_some() || !names_a_row(table, key) {
        return Ok(None);
    }
    // All is in the store that the side did that is applied: it has the row as the base does. Where both gave
    // the table other columns, that is the base's row by those.
    let of_base = context.schemas.base.table(&table.name);
    let migrated = of_base.is_some_and(|base| base.columns != table.columns);
    let base = fetch(context, migrated.then_some(context.on.other()), table, key)?;
    for side in [Side::Theirs, Side::Mine] {
        let row = fetch(context, Some(side), table, key)?;
        if row != base {
            store.put(side, table, key, base.as_ref(), row.as_ref())?;
        }
    }
    let Some(id) = store.find(&table.name, key)? else { return Ok(None) };
    let sides = store.get(id)?.sides;
    // It is on one side only, or alike on both: what is alike was stored by the first diff.
    let decision = if sides & BY_MINE != 0 && sides & BY_THEIRS == 0 { TAKE_MINE } else { TAKE_THEIRS };
    store.run("UPDATE row SET decision = ?2 WHERE id = ?1", [id, decision])?;
    Ok(Some(id))
}

/// Whether a key has the form of the table's keys: a choice comes from outside.
fn names_a_row(table: &Table, key: &Key) -> bool {
    match key {
        Key::Rowid(_) => table.rowid.is_some(),
        Key::Declared(values) => !values.is_empty() && values.len() == table.key.len(),
    }
}

/// A row as a side has it, or the base; `None` also where the side has no such table of these columns.
fn fetch(
    context: &Context<'_>,
    side: Option<Side>,
    table: &Arc<Table>,
    key: &Key,
) -> Result<Option<Row>, Error> {
    let (connection, schema) = match side {
        None => (context.sides.base, &context.schemas.base),
        Some(side) => (context.sides.of(side), context.schemas.of(side)),
    };
    if !schema.table(&table.name).is_some_and(|held| held.columns == table.columns) {
        return Ok(None);
    }
    Statements::new(connection, schema.encoding).row(table, key)
}
