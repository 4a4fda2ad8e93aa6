//! Two rows inserted under one generated rowid: mine gets a new one, above all that either side has, and what
//! mine's own changes name by foreign keys follows.
//!
//! Only a row that neither base nor choice knows is renumbered, and only where what names it can follow: a
//! foreign key from a text column is not followed, so that such a row stays in conflict.

use std::collections::HashMap;
use std::sync::Arc;

use crate::rows::{Row, Table, Value};

use super::foreign_keys::{ForeignKey, Names, affinity, read};
use super::lookup::{Statements, key_of, name_of};
use super::settings::sequences;
use super::store::{STORED, Store, Stored, hash_of_values};
use super::{Context, Error, Side};

/// Gives new numbers to mine's rows; how many.
pub(super) fn renumber(context: &Context<'_>, store: &mut Store) -> Result<u64, Error> {
    let schema = context.schemas.of(context.on);
    let keys = read(context.sides.of(context.on), schema)?;
    let names = Names::of(schema);
    let mut links: Vec<Link> = keys.iter().filter_map(|key| Link::of(&names, key)).collect();
    for (number, link) in links.iter_mut().enumerate() {
        link.number = number as i64;
    }
    let mut renumbering = Renumbering { context, links, next: HashMap::new() };
    for (number, table) in store.tables().map(|(number, table)| (number, table.clone())).collect::<Vec<_>>() {
        renumbering.note_references(store, number, &table)?;
    }
    let mut renumbered = 0;
    let mut last = 0;
    while let Some(row) = next_candidate(store, last)? {
        context.check_time()?;
        last = row.id;
        renumbered += u64::from(renumbering.row(store, row)?);
    }
    Ok(renumbered)
}

/// The next row that both sides inserted, not alike, by id.
fn next_candidate(store: &Store, after: i64) -> Result<Option<Stored>, Error> {
    let sql = format!(
        "SELECT {STORED} FROM row WHERE decision IS NULL AND base_hash IS NULL AND theirs_hash IS NOT NULL
             AND mine_hash IS NOT NULL AND id > ?1 ORDER BY id LIMIT 1"
    );
    let mut statement = store.db().prepare_cached(&sql).map_err(Error::store)?;
    let mut rows = statement.query([after]).map_err(Error::store)?;
    rows.next().map_err(Error::store)?.map(|row| store.stored(row)).transpose()
}

/// A foreign key, by positions in the rows of both tables.
struct Link {
    number: i64,
    child: Arc<Table>,
    parent: Arc<Table>,
    columns: Vec<(usize, usize)>,
    /// Whether an integer that it names is an integer in the child too.
    followed: bool,
}

impl Link {
    fn of(names: &Names, key: &ForeignKey) -> Option<Link> {
        let joined = names.joined(key)?;
        let columns: Option<Vec<(usize, usize)>> = joined
            .columns
            .iter()
            .map(|(child, parent)| Some((key.child.column(child)?, joined.parent.column(parent)?)))
            .collect();
        let columns = columns?;
        let followed = columns.iter().all(|&(child, _)| {
            matches!(affinity(&key.child.columns[child].declared), "INTEGER" | "NUMERIC" | "BLOB")
        });
        let (child, parent) = (key.child.clone(), joined.parent);
        Some(Link { number: 0, child, parent, columns, followed })
    }

    /// The hash of what a child names, or of what a parent is named by; `None` where a value is NULL.
    fn hash(&self, row: &Row, of: impl Fn(&(usize, usize)) -> usize) -> Option<[u8; 32]> {
        let values: Option<Vec<&Value>> = self
            .columns
            .iter()
            .map(|columns| row.values.get(of(columns)).filter(|value| !value.is_null()))
            .collect();
        Some(hash_of_values(values?.into_iter()))
    }
}

struct Renumbering<'c, 'a> {
    context: &'c Context<'a>,
    links: Vec<Link>,
    /// The next free number, by table.
    next: HashMap<String, i64>,
}

impl Renumbering<'_, '_> {
    /// Notes what all of mine's rows of a table name.
    fn note_references(&self, store: &Store, number: i64, table: &Table) -> Result<(), Error> {
        if !self.links.iter().any(|link| link.child.name == table.name) {
            return Ok(());
        }
        let sql = "SELECT id FROM row WHERE tbl = ?1 AND sides & 2 AND mine_hash IS NOT NULL AND id > ?2 ORDER BY id LIMIT 1";
        let mut last = 0;
        loop {
            let id = store.count(sql, [number, last])? as i64;
            if id == 0 {
                return Ok(());
            }
            self.context.check_time()?;
            let row = store.get(id)?;
            if let Some(mine) = &row.mine {
                self.note(store, id, table, mine)?;
            }
            last = id;
        }
    }

    fn note(&self, store: &Store, id: i64, table: &Table, mine: &Row) -> Result<(), Error> {
        for link in self.links.iter().filter(|link| link.child.name == table.name) {
            if let Some(named) = link.hash(mine, |columns| columns.0) {
                store.run(
                    "INSERT INTO reference(key, named, row) VALUES (?1, ?2, ?3)",
                    (link.number, named, id),
                )?;
            }
        }
        Ok(())
    }

    /// Renumbers a row, where that can be.
    fn row(&mut self, store: &mut Store, mut row: Stored) -> Result<bool, Error> {
        let table = row.table.clone();
        let generated =
            if table.key.is_empty() { table.rowid.is_some() } else { table.rowid_column.is_some() };
        let of_unit = self.context.shadows.owner(&table.name).is_some();
        let followed = self.links.iter().all(|link| link.parent.name != table.name || link.followed);
        let Some(mine) = row.mine.as_ref().filter(|_| generated && followed && !of_unit) else {
            return Ok(false);
        };
        let Some(new) = self.number(&table)? else { return Ok(false) };
        let mut moved = mine.clone();
        moved.rowid = Some(new);
        if let Some(column) = table.rowid_column {
            moved.values[column] = Value::Integer(new);
        }
        // It may be large.
        row.theirs = None;
        self.replace(store, row, moved)?;
        Ok(true)
    }

    /// The next number that neither side has; `None` where there is none.
    fn number(&mut self, table: &Table) -> Result<Option<i64>, Error> {
        if !self.next.contains_key(&table.name) {
            let rowid = table.rowid.as_deref().unwrap_or("NULL");
            let sql = format!("SELECT max({rowid}) FROM {}", name_of(table));
            let mut largest = 0;
            for side in [Side::Theirs, Side::Mine] {
                let connection = self.context.sides.of(side);
                let mut statements = Statements::new(connection, self.context.schemas.base.encoding);
                if let Some(Value::Integer(held)) =
                    statements.first(&sql, table, &[])?.and_then(|values| values.into_iter().next())
                {
                    largest = largest.max(held);
                }
                let counted = sequences(connection)?.into_iter().filter(|(name, _)| *name == table.name);
                largest = counted.map(|(_, number)| number).fold(largest, i64::max);
            }
            self.next.insert(table.name.clone(), largest);
        }
        let Some(last) = self.next.get_mut(&table.name) else { return Ok(None) };
        let Some(next) = last.checked_add(1) else { return Ok(None) };
        *last = next;
        Ok(Some(next))
    }

    /// Makes mine's row another one, under another key where that follows, and lets what names it follow.
    fn replace(&self, store: &mut Store, row: Stored, new: Row) -> Result<(), Error> {
        let mut changes = vec![(row, new)];
        while let Some((row, new)) = changes.pop() {
            self.context.check_time()?;
            let Some(mine) = row.mine else { continue };
            let table = row.table.clone();
            let key = key_of(&table, &new.values, new.rowid);
            let Some(key) = key else { continue };
            store.run("DELETE FROM reference WHERE row = ?1", [row.id])?;
            let id = if key == row.key {
                store.replace_mine(row.id, Some(&new))?;
                row.id
            } else {
                store.replace_mine(row.id, row.base.as_ref())?;
                store.add_mine(&table, &key, &new)?
            };
            self.note(store, id, &table, &new)?;
            self.followers(store, &table, &mine, &new, &mut changes)?;
        }
        Ok(())
    }

    /// The rows of mine that name a parent which is another one now.
    fn followers(
        &self,
        store: &Store,
        parent: &Table,
        was: &Row,
        is: &Row,
        changes: &mut Vec<(Stored, Row)>,
    ) -> Result<(), Error> {
        for link in self.links.iter().filter(|link| link.parent.name == parent.name) {
            let by = |columns: &(usize, usize)| columns.1;
            let (Some(old), Some(new)) = (link.hash(was, by), link.hash(is, by)) else { continue };
            if old == new {
                continue;
            }
            let sql = "SELECT row FROM reference WHERE key = ?1 AND named = ?2";
            let mut statement = store.db().prepare_cached(sql).map_err(Error::store)?;
            let rows = statement.query_map((link.number, old), |row| row.get(0)).map_err(Error::store)?;
            let rows = rows.collect::<Result<Vec<i64>, _>>().map_err(Error::store)?;
            for id in rows {
                let child = store.get(id)?;
                // A row with the same changes on both sides names theirs as much as mine.
                let Some(mine) = child.mine.as_ref().filter(|mine| child.theirs.as_ref() != Some(*mine))
                else {
                    continue;
                };
                let mut followed = changes
                    .iter()
                    .position(|(row, _)| row.id == id)
                    .map_or_else(|| mine.clone(), |position| changes.swap_remove(position).1);
                for &(child, parent) in &link.columns {
                    followed.values[child] = is.values[parent].clone();
                }
                if link
                    .child
                    .rowid_column
                    .is_some_and(|column| link.columns.iter().any(|&(child, _)| child == column))
                    && let Some(Value::Integer(rowid)) =
                        link.child.rowid_column.map(|column| &followed.values[column])
                {
                    followed.rowid = Some(*rowid);
                }
                changes.push((child, followed));
            }
        }
        Ok(())
    }
}
