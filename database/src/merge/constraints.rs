//! Constraints that fail on the result: which they are, and which rows have to do with it.

use std::collections::HashSet;

use rusqlite::ffi;

use crate::rows::{Key, Table};

use super::decide::{choose, find_or_fetch};
use super::store::Store;
use super::{Choice, ConstraintKind, Context, Error, Reason};

/// Failures that are kept of one attempt, at most: the rest comes to light when these are settled.
const VIOLATIONS_MAX: usize = 100_000;
/// What the keys of their rows may take in memory together, in bytes, about.
const KEYS_MAX: usize = 32 << 20;

/// A constraint that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub kind: ConstraintKind,
    pub table: String,
    pub name: String,
}

impl Failure {
    /// Whether the row that is in the way may yet go.
    pub fn may_be_a_swap(&self) -> bool {
        self.kind == ConstraintKind::Unique
    }

    /// Its place among the reasons, where it is put once.
    fn number_in(&self, reasons: &mut Vec<Reason>) -> i64 {
        let Failure { kind, table, name } = self.clone();
        let reason = Reason::Constraint { kind, table, name };
        let place = reasons.iter().position(|held| *held == reason).unwrap_or_else(|| {
            reasons.push(reason);
            reasons.len() - 1
        });
        place as i64
    }
}

/// What failed, each with the rows that have to do with it, by table and key.
#[derive(Debug, Default)]
pub(super) struct Violations {
    found: Vec<(Failure, Vec<(String, Key)>)>,
    taken: usize,
}

impl Violations {
    pub fn add(&mut self, failure: Failure, rows: Vec<(String, Key)>) {
        if !self.is_full() {
            let weight = |(table, key): &(String, Key)| table.len() + key_weight(key);
            self.taken += failure.name.len() + rows.iter().map(weight).sum::<usize>();
            self.found.push((failure, rows));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.found.len() >= VIOLATIONS_MAX || self.taken > KEYS_MAX
    }

    /// Settles by the choice for all what that can settle, and notes in the store which rows that draws in;
    /// whether it is something of each violation.
    pub fn choose(
        &self,
        context: &Context<'_>,
        store: &mut Store,
        choice: Choice,
        reasons: &mut Vec<Reason>,
    ) -> Result<bool, Error> {
        // Several may have to do with the same rows.
        let mut now = HashSet::new();
        for (failure, rows) in &self.found {
            let why = failure.number_in(reasons);
            let mut any = false;
            for (table, key) in rows {
                let Some(id) = find_or_fetch(context, store, table, key)? else { continue };
                if store.count("SELECT chosen FROM row WHERE id = ?1", [id])? == 0 {
                    store.run(
                        "INSERT INTO drawn(id, decision, why) SELECT id, decision, ?2 FROM row WHERE id = ?1",
                        [id, why],
                    )?;
                    choose(store, id, choice)?;
                    now.insert(id);
                }
                any |= now.contains(&id);
            }
            if !any {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks the rows as being in conflict, each for the first constraint that it has to do with.
    pub fn mark(
        &self,
        context: &Context<'_>,
        store: &mut Store,
        reasons: &mut Vec<Reason>,
    ) -> Result<(), Error> {
        for (failure, rows) in &self.found {
            let why = failure.number_in(reasons);
            for (table, key) in rows {
                let Some(id) = find_or_fetch(context, store, table, key)? else { continue };
                store.run("UPDATE row SET conflict = ?2 WHERE id = ?1 AND conflict IS NULL", [id, why])?;
            }
        }
        Ok(())
    }
}

/// What a key takes in memory, about.
pub(super) fn key_weight(key: &Key) -> usize {
    match key {
        Key::Rowid(_) => size_of::<Key>(),
        Key::Declared(values) => values.iter().map(|value| size_of_val(value) + value.len()).sum(),
    }
}

/// The constraint that an error is about; `None` where it is about none.
pub(super) fn failure(error: &crate::rows::Error, table: &Table) -> Option<Failure> {
    let crate::rows::Error::Sqlite { source: rusqlite::Error::SqliteFailure(error, message), .. } = error
    else {
        return None;
    };
    let kind = match error.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            ConstraintKind::Unique
        }
        ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
        ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
        code if code & 0xff == ffi::SQLITE_CONSTRAINT => ConstraintKind::Other,
        _ => return None,
    };
    // "UNIQUE constraint failed: people.name, people.town"
    let message = message.as_deref().unwrap_or_default();
    let name = message.split_once(": ").map_or("", |(_, name)| name);
    let of_table = format!("{}.", table.name);
    let columns: Vec<&str> =
        name.split(", ").map(|part| part.strip_prefix(&of_table).unwrap_or(part)).collect();
    Some(Failure { kind, table: table.name.clone(), name: columns.join(", ") })
}
