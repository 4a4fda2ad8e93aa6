//! Taking in what both sides did, row by row, from the row diff into the store.
//!
//! The side that is applied onto the other one comes first and is kept whole. Of the other side only those
//! rows are kept that the first has too, so that a small push onto much that others did stays small.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::rows::{Change, Go, Row, RowChange, Table, diff_of};

use super::lookup::Statements;
use super::store::{BY_MINE, BY_THEIRS, Store};
use super::{Context, Error, Side};

/// What one side did.
#[derive(Debug, Default)]
pub(super) struct SideChanges {
    /// Whether it did anything that counts: statistics of ANALYZE do not.
    pub any: bool,
    /// The tables whose rows it changed; a shadow table counts for its virtual table as well.
    pub tables: BTreeSet<String>,
    /// What may have changed and cannot be said row by row, so that it cannot be written onto the other side.
    pub unsaid: Option<String>,
}

/// What both did.
#[derive(Debug, Default)]
pub(super) struct Changes {
    theirs: SideChanges,
    mine: SideChanges,
}

impl Changes {
    pub fn of(&self, side: Side) -> &SideChanges {
        match side {
            Side::Theirs => &self.theirs,
            Side::Mine => &self.mine,
        }
    }
}

/// Takes in what both sides did.
pub(super) fn collect(context: &Context<'_>, store: &mut Store) -> Result<Changes, Error> {
    let other = take(context, store, context.on.other())?;
    let own = if other.any {
        take(context, store, context.on)?
    } else {
        SideChanges { any: true, ..Default::default() }
    };
    complete_migrated(context, store)?;
    Ok(match context.on {
        Side::Theirs => Changes { theirs: own, mine: other },
        Side::Mine => Changes { theirs: other, mine: own },
    })
}

fn take(context: &Context<'_>, store: &mut Store, side: Side) -> Result<SideChanges, Error> {
    let mut changes = SideChanges::default();
    let mut failure = None;
    let mut sink = |change: Change| {
        let taken = match change {
            Change::Schema(_) => {
                changes.any = true;
                Ok(())
            }
            Change::Row(row) => take_row(context, store, side, row, &mut changes),
        };
        Ok(match taken {
            Ok(()) => Go::On,
            Err(error) => {
                failure = Some(error);
                Go::Stop
            }
        })
    };
    let schemas = (&context.schemas.base, context.schemas.of(side));
    let (base, new, touched) = (context.sides.base, context.sides.of(side), context.sides.touched(side));
    let summary = diff_of(base, new, schemas, touched, &mut sink)?;
    if let Some(left) = summary.left_out.first() {
        changes.any = true;
        changes.unsaid = Some(format!("the table {}: {}", left.table, left.why));
    }
    failure.map_or(Ok(changes), Err)
}

fn take_row(
    context: &Context<'_>,
    store: &mut Store,
    side: Side,
    row: RowChange,
    changes: &mut SideChanges,
) -> Result<(), Error> {
    if is_statistics(&row.table.name) {
        return Ok(());
    }
    changes.any = true;
    if row.table.is_internal() {
        // `sqlite_sequence`: the larger number wins, and no row of it is anybody's.
        return Ok(());
    }
    if !changes.tables.contains(&row.table.name) {
        changes.tables.insert(row.table.name.clone());
        changes.tables.extend(context.shadows.owner(&row.table.name).map(|owner| owner.to_string()));
    }
    context.check_time()?;
    let Some(table) = definition(context, &row.table.name) else { return Ok(()) };
    let all = side != context.on || context.shadows.owner(&table.name).is_some() || context.options.renumber;
    if !all && !store.has(&table.name, &row.key)? {
        return Ok(());
    }
    let migrated = row.table_before.columns != table.columns;
    let before =
        row.before.map(|before| if migrated { projected(&before, &row.table_before, table) } else { before });
    store.put(side, table, &row.key, before.as_ref(), row.after.as_ref())
}

/// The table as the side has it onto which the other one is applied, where both sides have the same: `None`
/// where rows of one cannot be written into the other. That is a clash of schemas, or was chosen.
pub(super) fn definition<'a>(context: &Context<'a>, name: &str) -> Option<&'a Arc<Table>> {
    let (theirs, mine) = (context.schemas.theirs.table(name)?, context.schemas.mine.table(name)?);
    let same = theirs.sql == mine.sql && theirs.columns == mine.columns && theirs.key_parts == mine.key_parts;
    same.then_some(if context.on == Side::Theirs { theirs } else { mine })
}

/// Statistics that ANALYZE made: whoever needs them makes them again.
fn is_statistics(table: &str) -> bool {
    table.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_stat"))
}

/// A row of the base in the columns that both sides gave its table; what the base does not have is NULL.
fn projected(row: &Row, from: &Table, to: &Table) -> Row {
    let value = |name: &str| from.column(name).and_then(|column| row.values.get(column).cloned());
    let values = to.columns.iter().map(|column| value(&column.name).unwrap_or(crate::rows::Value::Null));
    Row { rowid: row.rowid, values: values.collect() }
}

/// Where both sides changed a table's columns alike, a row that one side alone is said to have changed has on
/// the other side what it had in the base, and the new columns with their defaults. It is looked up there, and
/// counts as what the base has.
fn complete_migrated(context: &Context<'_>, store: &mut Store) -> Result<(), Error> {
    let migrated: Vec<(i64, Arc<Table>)> = store
        .tables()
        .filter(|(_, table)| {
            let base = context.schemas.base.table(&table.name);
            base.is_some_and(|base| base.columns != table.columns)
        })
        .map(|(number, table)| (number, table.clone()))
        .collect();
    let encoding = context.schemas.base.encoding;
    for side in [Side::Theirs, Side::Mine] {
        let mut statements = Statements::new(context.sides.of(side), encoding);
        let missing = if side == Side::Theirs { BY_THEIRS } else { BY_MINE };
        for (number, table) in &migrated {
            let mut last = 0;
            while let Some(id) = store.next_without(*number, missing, last)? {
                last = id;
                let row = store.get(id)?;
                let found = statements.row(table, &row.key)?;
                if row.base.is_some() {
                    store.replace_base(id, side, found.as_ref())?;
                }
            }
        }
    }
    Ok(())
}
