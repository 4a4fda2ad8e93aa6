//! Writing what one side did into the other one.
//!
//! In this order: all rows that go are deleted, rows that stay are updated where they stand, and rows that
//! come are inserted. An update that a UNIQUE constraint stops is done as the two others: its old row goes
//! at once and the new one comes last, so two rows may swap what is unique. What is refused at the very end
//! breaks a constraint of the result.
//!
//! Every statement says OR ABORT: a constraint declared ON CONFLICT REPLACE would delete somebody's row.

use std::collections::BTreeSet;

use crate::rows::{Key, Row, Table, Value, quoted};

use super::constraints::{self, Violations};
use super::lookup::{Statements, by_key, key_columns, key_from, name_of, no_rowid};
use super::store::{MINE, Store, THEIRS, key};
use super::{Context, Error, Side, Summary};

/// Rows that stop one row from being inserted, at most: each has an index of its own for it.
const BLOCKING_MAX: usize = 256;

/// One row that becomes another one.
pub(super) struct Step {
    /// In the store.
    pub id: i64,
    /// The table.
    pub table: std::sync::Arc<Table>,
    /// Which row.
    pub key: Key,
    /// Whether the base has it.
    pub in_base: bool,
    /// What it is; `None` where it is not there.
    pub is: Option<Row>,
    /// What it shall be; `None` where it goes.
    pub shall: Option<Row>,
}

/// What a row shall be, of what theirs, mine and its own outcome are.
fn shall(theirs: &str, mine: &str, merged: &str) -> String {
    format!("CASE decision WHEN 1 THEN {theirs} WHEN 2 THEN {mine} ELSE {merged} END")
}

/// The rows whose outcome is not what they are on the side that is written, and that meet a condition: by
/// their numbers alone, as they are sorted.
fn steps_sql(on: Side, condition: &str) -> String {
    let shall = shall("theirs_hash", "mine_hash", "merged_hash");
    format!("SELECT id FROM row WHERE {} IS NOT {shall} AND {condition} ORDER BY tbl, id", held(on).1)
}

/// What the side that is written has, and the hash of that.
fn held(on: Side) -> (String, &'static str) {
    match on {
        Side::Theirs => (THEIRS.to_owned(), "theirs_hash"),
        Side::Mine => (format!("iif(renumbered, held, {MINE})"), "iif(renumbered, held_hash, mine_hash)"),
    }
}

const STAYS: &str =
    "CASE decision WHEN 1 THEN theirs_hash WHEN 2 THEN mine_hash ELSE merged_hash END IS NOT NULL";

/// Runs a function for each step that meets a condition.
pub(super) fn for_each(
    context: &Context<'_>,
    store: &Store,
    condition: &str,
    mut run: impl FnMut(Step) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut statement = store.db().prepare(&steps_sql(context.on, condition)).map_err(Error::store)?;
    let mut rows = statement.query([]).map_err(Error::store)?;
    while let Some(row) = rows.next().map_err(Error::store)? {
        context.check_time()?;
        run(step(context.on, store, row.get(0).map_err(Error::store)?)?)?;
    }
    Ok(())
}

fn step(on: Side, store: &Store, id: i64) -> Result<Step, Error> {
    let (is, shall) = (held(on).0, shall(THEIRS, MINE, "merged"));
    let sql = format!("SELECT tbl, key, base_hash IS NOT NULL, {is}, {shall} FROM row WHERE id = ?1");
    let mut statement = store.db().prepare_cached(&sql).map_err(Error::store)?;
    let mut rows = statement.query([id]).map_err(Error::store)?;
    let row = rows.next().map_err(Error::store)?.ok_or(Error::Store("a row"))?;
    Ok(Step {
        id,
        table: store.table(row.get(0).map_err(Error::store)?)?.clone(),
        key: key(row, 1)?,
        in_base: row.get(2).map_err(Error::store)?,
        is: store.image(row, 3)?,
        shall: store.image(row, 4)?,
    })
}

/// Writes all steps. What constraints refuse is left out and returned, with the tables of which rows got
/// other rowids.
pub(super) fn apply(
    context: &Context<'_>,
    store: &Store,
    summary: &mut Summary,
) -> Result<(Violations, BTreeSet<String>), Error> {
    let schema = context.schemas.of(context.on);
    let statements = Statements::new(context.sides.of(context.on), schema.encoding);
    let mut writer = Writer { statements, violations: Violations::default(), moved: BTreeSet::new() };
    store.run("DELETE FROM later", [])?;
    let there = format!("{} IS NOT NULL", held(context.on).1);
    for_each(context, store, &format!("{there} AND NOT ({STAYS})"), |step| {
        summary.deleted += 1;
        writer.delete(&step.table, &step.key)
    })?;
    for_each(context, store, &format!("{there} AND {STAYS}"), |step| {
        summary.updated += 1;
        writer.update(store, step)
    })?;
    for_each(
        context,
        store,
        &format!("{STAYS} AND (NOT ({there}) OR id IN (SELECT id FROM later))"),
        |step| {
            summary.inserted += u64::from(step.is.is_none());
            summary.moved += u64::from(writer.insert(step)?);
            Ok(())
        },
    )?;
    Ok((writer.violations, writer.moved))
}

struct Writer<'c> {
    statements: Statements<'c>,
    violations: Violations,
    /// Tables of which rows got other rowids.
    moved: BTreeSet<String>,
}

impl Writer<'_> {
    fn delete(&mut self, table: &Table, key: &Key) -> Result<(), Error> {
        let (condition, values) = by_key(table, key, "")?;
        let sql = format!("DELETE FROM {} WHERE {condition}", name_of(table));
        self.statements.run(&sql, table, &values.iter().collect::<Vec<_>>())?;
        self.wrote_one(table)
    }

    /// The row diff said that the row is there; a database in which it is not contradicts itself.
    fn wrote_one(&self, table: &Table) -> Result<(), Error> {
        if self.statements.changed() == 1 {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "a row of {} is not found by its key: the database is damaged",
            table.name
        )))
    }

    fn update(&mut self, store: &Store, step: Step) -> Result<(), Error> {
        let (Some(is), Some(mut shall)) = (step.is, step.shall) else { return Ok(()) };
        let table = &step.table;
        let differs = |&column: &usize| is.values[column] != shall.values[column];
        let columns: Vec<usize> = (0..is.values.len().min(shall.values.len())).filter(differs).collect();
        let (condition, mut values) = by_key(table, &step.key, "")?;
        let mut set = Vec::new();
        for column in columns {
            values.push(std::mem::replace(&mut shall.values[column], Value::Null));
            set.push(format!("{} = ?{}", quoted(&table.columns[column].name), values.len()));
        }
        // The row may be large, and what stays as it is is not needed any more.
        drop((is, shall));
        let sql = format!("UPDATE OR ABORT {} SET {} WHERE {condition}", name_of(table), set.join(", "));
        match self.statements.run(&sql, table, &values.iter().collect::<Vec<_>>()) {
            Ok(()) => self.wrote_one(table),
            Err(error) => match constraints::failure(&error, table) {
                Some(failure) if failure.may_be_a_swap() => {
                    store.run("INSERT INTO later(id) VALUES (?1)", [step.id])?;
                    self.delete(table, &step.key)
                }
                Some(failure) => {
                    self.violations.add(failure, vec![(table.name.clone(), step.key.clone())]);
                    Ok(())
                }
                None => Err(error.into()),
            },
        }
    }

    /// Inserts a row; whether it got another rowid than it had.
    fn insert(&mut self, step: Step) -> Result<bool, Error> {
        let (table, Some(row)) = (&step.table, &step.shall) else { return Ok(false) };
        // A row that was there keeps its rowid: what follows from one is the other side's as well. Nothing else
        // is needed of what it was, which may be large.
        let was = step.is.map(|is| is.rowid);
        let rowid = self.rowid_for(table, was.unwrap_or(row.rowid))?;
        let moved = row.rowid.is_some() && rowid.is_none() && needs_rowid(table);
        let (sql, rowid) = insertion(table, rowid);
        let values: Vec<&Value> = row.values.iter().chain(&rowid).collect();
        let Err(error) = self.statements.run(&sql, table, &values) else {
            if moved {
                self.moved.insert(table.name.clone());
            }
            return Ok(moved);
        };
        let Some(failure) = constraints::failure(&error, table) else { return Err(error.into()) };
        let mut rows = vec![(table.name.clone(), step.key.clone())];
        if failure.may_be_a_swap() {
            let blocking = self.all_in_the_way(table, &step.key, &sql, &values)?;
            rows.extend(blocking.into_iter().map(|key| (table.name.clone(), key)));
        }
        self.violations.add(failure, rows);
        Ok(false)
    }

    /// The rowid that a row is to have where it is not one of its columns: its own. Where somebody else has
    /// that and the table has a key by which rows are named, SQLite shall choose one.
    fn rowid_for(&mut self, table: &Table, own: Option<i64>) -> Result<Option<i64>, Error> {
        if !needs_rowid(table) {
            return Ok(None);
        }
        let (Some(rowid), Some(name)) = (own, table.rowid.as_deref()) else {
            return if table.key.is_empty() { Err(no_rowid(table)) } else { Ok(None) };
        };
        if table.key.is_empty() {
            return Ok(Some(rowid));
        }
        let sql = format!("SELECT 1 FROM {} WHERE {name} = ?1", name_of(table));
        let taken = self.statements.any(&sql, table, &[&Value::Integer(rowid)])?;
        Ok((!taken).then_some(rowid))
    }

    /// All rows that stop another one from being inserted, each by an index of its own perhaps. They are
    /// deleted one after the other until it can be, and all of that is undone.
    fn all_in_the_way(
        &mut self,
        table: &Table,
        own: &Key,
        sql: &str,
        values: &[&Value],
    ) -> Result<Vec<Key>, Error> {
        self.statements.connection().execute_batch("SAVEPOINT in_the_way").map_err(Error::Sqlite)?;
        let mut blocking: Vec<Key> = Vec::new();
        while blocking.len() < BLOCKING_MAX {
            match self.in_the_way(table, sql, values)? {
                Some(key) if key != *own && !blocking.contains(&key) => {
                    self.delete(table, &key)?;
                    blocking.push(key);
                }
                _ => break,
            }
        }
        let undo = "ROLLBACK TO in_the_way; RELEASE in_the_way";
        self.statements.connection().execute_batch(undo).map_err(Error::Sqlite)?;
        Ok(blocking)
    }

    /// A row that stops another one from being inserted: an upsert finds it by whatever index stops it. Where
    /// none does, it is inserted, and its own key comes back.
    fn in_the_way(&mut self, table: &Table, sql: &str, values: &[&Value]) -> Result<Option<Key>, Error> {
        let Some(column) = table.columns.first() else { return Ok(None) };
        let column = quoted(&column.name);
        let upsert = format!(
            "{} ON CONFLICT DO UPDATE SET {column} = {column} RETURNING {}",
            sql.replacen("INSERT OR ABORT", "INSERT", 1),
            key_columns(table, "")
        );
        match self.statements.first(&upsert, table, values) {
            Ok(found) => found.map(|values| key_from(table, values)).transpose(),
            // It is named without the other row, rather than not at all.
            Err(error) => error.unsupported().map(|_| None),
        }
    }
}

/// Whether rows have a rowid that is none of their columns.
fn needs_rowid(table: &Table) -> bool {
    !table.is_without_rowid() && table.rowid_column.is_none()
}

/// The statement that inserts a row, and the value of its last parameter where there is a rowid.
fn insertion(table: &Table, rowid: Option<i64>) -> (String, Option<Value>) {
    let mut names: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let rowid = rowid.zip(table.rowid.clone()).map(|(rowid, name)| {
        names.push(name);
        Value::Integer(rowid)
    });
    let parameters: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    let sql = format!(
        "INSERT OR ABORT INTO {}({}) VALUES ({})",
        name_of(table),
        names.join(", "),
        parameters.join(", ")
    );
    (sql, rowid)
}
