//! Trying: everything is written in one transaction, the constraints are checked, and it is committed or
//! rolled back. Where somebody chose for all rows, what fails is settled by that choice and tried again.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::apply::apply;
use super::constraints::Violations;
use super::foresee::foresee;
use super::settings::{self, Settings};
use super::store::Store;
use super::{Context, Error, Indexes, Merge, Reason, Summary, orphans, rows_in_conflict, virtual_tables};

/// How often constraints may fail and be chosen for: each time more rows are chosen, and only chains of
/// foreign keys need more than two.
pub(super) const ROUNDS_MAX: usize = 4096;

/// What the connection does by itself while a merge writes, and what it must not: run triggers, enforce
/// foreign keys (see [`orphans`]), and keep anybody from a virtual table's shadow tables.
const SWITCHES: [DbConfig; 3] = [
    DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
    DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY,
    DbConfig::SQLITE_DBCONFIG_DEFENSIVE,
];

/// Tries until it is merged, or in conflict.
pub(super) fn attempt(
    context: &Context<'_>,
    store: &mut Store,
    settings: &Settings,
    indexes: &Indexes,
    decided: &Summary,
) -> Result<Merge, Error> {
    let on = context.sides.of(context.on);
    let _switches = Switches::off(on)?;
    let mut reasons: Vec<Reason> = Vec::new();
    for round in 0..ROUNDS_MAX {
        let transaction = on.unchecked_transaction().map_err(Error::Sqlite)?;
        let mut summary = decided.clone();
        let (violations, moved) = try_once(context, store, &mut summary)?;
        if violations.is_empty() {
            settings::write(context, settings)?;
            settings::raise_sequences(context)?;
            summary.rebuilt = indexes.rebuild.clone();
            let moved = virtual_tables::indexes_of(context.schemas.of(context.on), &moved);
            for table in moved.chain(virtual_tables::out_of_step(store, &indexes.alone)?) {
                if !summary.rebuilt.contains(&table) && !indexes.given_up.contains(&table) {
                    summary.rebuilt.push(table);
                }
            }
            for table in &summary.rebuilt {
                virtual_tables::rebuild(on, table)?;
            }
            transaction.commit().map_err(Error::Sqlite)?;
            return Ok(Merge::Merged {
                on: context.on,
                summary,
                drawn: rows_in_conflict::drawn(context, store)?,
            });
        }
        transaction.rollback().map_err(Error::Sqlite)?;
        let again = match context.resolve.default {
            Some(choice) if round + 1 < ROUNDS_MAX => {
                violations.choose(context, store, choice, &mut Vec::new())?
            }
            _ => false,
        };
        if !again {
            violations.mark(context, store, &mut reasons)?;
            foresee(context, store, &mut reasons)?;
            break;
        }
    }
    rows_in_conflict::conflict(context, store, reasons)
}

/// Writes what is decided, in the transaction that is open, and checks it: what fails, and the tables of which
/// rows got other rowids.
pub(super) fn try_once(
    context: &Context<'_>,
    store: &Store,
    summary: &mut Summary,
) -> Result<(Violations, BTreeSet<String>), Error> {
    let (mut violations, moved) = apply(context, store, summary)?;
    if violations.is_empty() {
        violations = orphans::check(context, store)?;
    }
    Ok((violations, moved))
}

/// Switches of a connection that are off until this is dropped, and then as they were.
pub(super) struct Switches<'c> {
    connection: &'c Connection,
    were_on: Vec<DbConfig>,
}

impl<'c> Switches<'c> {
    /// Of a connection without a transaction: in one, foreign keys cannot be switched.
    pub(super) fn off(connection: &'c Connection) -> Result<Switches<'c>, Error> {
        if !connection.is_autocommit() {
            return Err(Error::InTransaction);
        }
        let mut switches = Switches { connection, were_on: Vec::new() };
        for switch in SWITCHES {
            if connection.db_config(switch).map_err(Error::Sqlite)? {
                connection.set_db_config(switch, false).map_err(Error::Sqlite)?;
                switches.were_on.push(switch);
            }
        }
        Ok(switches)
    }
}

impl Drop for Switches<'_> {
    fn drop(&mut self) {
        for switch in self.were_on.drain(..) {
            // It went off, so it can go on.
            let _ = self.connection.set_db_config(switch, true);
        }
    }
}
