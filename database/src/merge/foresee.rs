//! Rows that nobody argues about, and that a choice for all would take from one side nevertheless: they break
//! a constraint together with what is kept, and so do others with them, along a chain of foreign keys.
//!
//! They are as much in conflict as the rows that overlap. Nobody is to lose a row to `--keep` that the conflict
//! did not show, so both choices are tried before the conflict is told, and rolled back.

use super::attempt::{ROUNDS_MAX, Switches, try_once};
use super::constraints::Violations;
use super::decide::taking;
use super::store::Store;
use super::{Context, Error, Reason, Side, Summary};

/// Marks them as being in conflict, each for the first constraint that it has to do with. Does nothing where
/// somebody has chosen for all.
pub(super) fn foresee(
    context: &Context<'_>,
    store: &mut Store,
    reasons: &mut Vec<Reason>,
) -> Result<(), Error> {
    if context.resolve.default.is_some() {
        return Ok(());
    }
    let _switches = Switches::off(context.sides.of(context.on))?;
    for choice in [Side::Theirs, Side::Mine] {
        store.run("INSERT INTO drawn(id) SELECT id FROM row WHERE decision IS NULL", [])?;
        store.run("UPDATE row SET decision = ?1, chosen = 1 WHERE decision IS NULL", [taking(choice)])?;
        for _ in 0..ROUNDS_MAX {
            let violations = violations(context, store)?;
            if violations.is_empty() {
                break;
            }
            if !violations.choose(context, store, choice, reasons)? {
                violations.mark(context, store, reasons)?;
                break;
            }
        }
        store.run(
            "UPDATE row SET conflict = ifnull(conflict, drawn.why), decision = drawn.decision, chosen = 0
             FROM drawn WHERE drawn.id = row.id",
            [],
        )?;
        store.run("DELETE FROM drawn", [])?;
    }
    Ok(())
}

/// What fails where everything is written as it is decided now. Nothing stays written.
fn violations(context: &Context<'_>, store: &Store) -> Result<Violations, Error> {
    let transaction = context.sides.of(context.on).unchecked_transaction().map_err(Error::Sqlite)?;
    let (violations, _) = try_once(context, store, &mut Summary::default())?;
    transaction.rollback().map_err(Error::Sqlite)?;
    Ok(violations)
}
