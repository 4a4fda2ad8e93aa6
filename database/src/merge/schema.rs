//! Changes of the schema, on one side or on both, and what goes together with changes of rows.
//!
//! No statement of a schema is run again: where one side changed the schema, the other side's rows are
//! applied onto that side. So two sides that each changed it in a way of their own do not merge.
//!
//! An index and a view hold nothing of their own, so a change of one goes together with changed rows of the
//! table. A table and a trigger do not: rows that were written for the old columns, or that a trigger would
//! have seen, are somebody's to look at.

use std::collections::BTreeSet;

use crate::rows::{ObjectKind, SchemaChange};

use super::changes::Changes;
use super::{Choice, Reason, SchemaClash, Schemas, Side};

/// What follows from the three schemas.
pub(super) struct Plan {
    /// Onto which side the other one is applied.
    pub on: Side,
    /// Tables that were changed themselves, or by a trigger, on the side [`Plan::on`] alone.
    pub changed: Changed,
    /// Why the schemas alone do not merge.
    pub reasons: Vec<Reason>,
}

/// Tables whose schema one side alone changed.
pub(super) struct Changed {
    by: Side,
    tables: BTreeSet<String>,
}

/// Compares the schemas. Where both changed theirs, somebody's choice for all decides whose is kept.
pub(super) fn plan(schemas: &Schemas, choice: Option<Choice>) -> Plan {
    let changes = |side: Side| -> Vec<SchemaChange> {
        let changes = schemas.base.changes_to(schemas.of(side));
        changes.into_iter().filter(counts).collect()
    };
    let (theirs, mine) = (changes(Side::Theirs), changes(Side::Mine));
    let alone = |one: &[SchemaChange], other: &[SchemaChange]| -> Vec<SchemaChange> {
        one.iter().filter(|change| !other.contains(change)).cloned().collect()
    };
    let (theirs_alone, mine_alone) = (alone(&theirs, &mine), alone(&mine, &theirs));
    let both = !theirs_alone.is_empty() && !mine_alone.is_empty();
    let on = match choice {
        Some(choice) if both => choice,
        _ if mine_alone.is_empty() => Side::Theirs,
        _ => Side::Mine,
    };
    let reasons =
        if both && choice.is_none() { both_changed(&theirs_alone, &mine_alone) } else { Vec::new() };
    let by_on = if on == Side::Theirs { theirs_alone } else { mine_alone };
    let tables = by_on.iter().filter(|change| holds_rows(change.kind)).map(|change| change.table.clone());
    Plan { on, changed: Changed { by: on, tables: tables.collect() }, reasons }
}

/// Whether a change is one of the schema that a merge looks at: the numbers of the header have rules of
/// their own.
fn counts(change: &SchemaChange) -> bool {
    !matches!(change.kind, ObjectKind::ApplicationId | ObjectKind::UserVersion)
}

fn holds_rows(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Table | ObjectKind::Trigger)
}

fn both_changed(theirs: &[SchemaChange], mine: &[SchemaChange]) -> Vec<Reason> {
    let objects: BTreeSet<&str> = theirs.iter().chain(mine).map(|change| change.name.as_str()).collect();
    objects
        .into_iter()
        .map(|object| Reason::Schema { object: object.to_owned(), why: SchemaClash::BothChanged })
        .collect()
}

/// Which changed tables the other side changed rows of. Where somebody chose for all, rows of a table whose
/// definition differs are as the side has them whose schema is kept.
pub(super) fn clashes(changed: &Changed, changes: &Changes) -> Vec<Reason> {
    let rows = &changes.of(changed.by.other()).tables;
    let clashing = changed.tables.iter().filter(|&table| rows.contains(table));
    let why = SchemaClash::RowsChanged { by: changed.by };
    clashing.map(|table| Reason::Schema { object: table.clone(), why }).collect()
}
