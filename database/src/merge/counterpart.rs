//! What a foreign key of the side that is written is on the other side, so that an orphan that was there before
//! is known again after a migration.
//!
//! A foreign key is no object with a name: it is known by its child table, its parent table and the parent's
//! columns, as SQLite lists them on each side. What the child calls its own columns does not matter. A column
//! is the same one where it has the same name; or, with ALTER TABLE … RENAME COLUMN, where it stands at the
//! same position and each of the two names is unknown to the other side. Where none of this holds, the foreign
//! key counts as another one, and its orphans as new.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use crate::rows::Table;

use super::Error;
use super::foreign_keys::{ForeignKey, Joined, Names, lower, read_of};

/// Foreign keys of one child to one parent that are looked at, at most: of more, a hostile schema would make
/// the square. Orphans of those beyond count as new.
const FOREIGN_KEYS_BETWEEN_MAX: usize = 64;

/// A foreign key as the other side has it.
pub(super) struct Counterpart {
    /// The child.
    pub table: Arc<Table>,
    /// Columns of the child, in the order of the foreign key that it was looked for by.
    pub columns: Vec<String>,
    /// The condition for an orphan.
    pub orphan: String,
}

/// The foreign keys of the other side. What one may be there is worked out when it is asked for: of all of a hostile
/// schema it would be gigabytes.
pub(super) struct Counterparts<'a> {
    connection: &'a Connection,
    names: Names,
    /// By child, and then by parent.
    keys: HashMap<String, HashMap<String, Vec<ForeignKey>>>,
}

impl<'a> Counterparts<'a> {
    /// With nothing read yet.
    pub fn new(connection: &'a Connection, names: Names) -> Counterparts<'a> {
        Counterparts { connection, names, keys: HashMap::new() }
    }

    /// What a foreign key may be there; `joined` is its parent on its own side.
    pub fn of(&mut self, key: &ForeignKey, joined: Option<&Joined>) -> Result<Vec<Counterpart>, Error> {
        let Some(table) = self.names.table(&key.child.name).cloned() else { return Ok(Vec::new()) };
        if !names_rows_alike(&key.child, &table) {
            return Ok(Vec::new());
        }
        self.read(&table)?;
        let names = &self.names;
        let counterpart = |held: &ForeignKey| {
            if held.columns.len() != key.columns.len() {
                return None;
            }
            let columns = match (joined, names.joined(held)) {
                (Some(joined), Some(held)) => by_parents_columns(joined, &held)?,
                // Without a parent on one side there is only their order to go by.
                _ => held.columns.iter().map(|(child, _)| child.clone()).collect(),
            };
            Some(Counterpart { table: table.clone(), columns, orphan: names.orphan(held)? })
        };
        let by_parent = self.keys.get(&lower(&table.name));
        let held = by_parent.and_then(|by_parent| by_parent.get(&lower(&key.parent)));
        let held = held.map_or(&[][..], Vec::as_slice).iter();
        Ok(held.take(FOREIGN_KEYS_BETWEEN_MAX).filter_map(counterpart).collect())
    }

    /// Reads the foreign keys of a child, once.
    fn read(&mut self, child: &Arc<Table>) -> Result<(), Error> {
        let name = lower(&child.name);
        if !self.keys.contains_key(&name) {
            let mut keys = Vec::new();
            read_of(self.connection, child, &mut keys)?;
            let mut by_parent: HashMap<String, Vec<ForeignKey>> = HashMap::new();
            for key in keys {
                by_parent.entry(lower(&key.parent)).or_default().push(key);
            }
            self.keys.insert(name, by_parent);
        }
        Ok(())
    }
}

/// The child's columns in `held`, ordered as the parent's columns are in `joined`; `None` where those are others.
fn by_parents_columns(joined: &Joined, held: &Joined) -> Option<Vec<String>> {
    let of_parent = |(_, parent): &(String, String)| {
        let parent = same_column(&joined.parent, parent, &held.parent)?;
        let found = held.columns.iter().find(|(_, column)| column.eq_ignore_ascii_case(parent));
        found.map(|(child, _)| child.clone())
    };
    joined.columns.iter().map(of_parent).collect()
}

/// Whether two definitions of a table name a row by the same values.
fn names_rows_alike(one: &Table, other: &Table) -> bool {
    let same = |(&column, &held): (&usize, &usize)| {
        same_column(one, &one.columns[column].name, other)
            .is_some_and(|name| name.eq_ignore_ascii_case(&other.columns[held].name))
    };
    one.rowid.is_some() == other.rowid.is_some()
        && one.key.len() == other.key.len()
        && one.key.iter().zip(&other.key).all(same)
}

/// What another definition of a table calls a column; `None` where it has no such column.
pub(super) fn same_column<'t>(table: &Table, name: &'t str, other: &'t Table) -> Option<&'t str> {
    if has(other, name) {
        return Some(name);
    }
    let renamed = &other.columns.get(table.column(name)?)?.name;
    (!has(table, renamed)).then_some(renamed)
}

fn has(table: &Table, name: &str) -> bool {
    table.column(name).is_some() || table.generated.iter().any(|held| held.eq_ignore_ascii_case(name))
}
