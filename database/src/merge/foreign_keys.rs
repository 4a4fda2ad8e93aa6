//! Foreign keys of the result: every row that was written has the parent that it names, and no row that is
//! gone is named by another one.
//!
//! SQLite's own enforcement is off while a merge writes. It would run actions (a cascade deletes rows that
//! the other side may have changed), it counts violations rather than finding them, so that one that was
//! there before can hide a new one, and it would refuse rows that were orphans before, which is what most
//! applications that leave `PRAGMA foreign_keys` off have. Here a row is in conflict where it is an orphan in
//! the result and was one on neither side.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use crate::rows::{Key, Row, Schema, Statement, Table, Value, quoted};

use super::apply::{Step, for_each};
use super::constraints::{Failure, Violations};
use super::lookup::{Statements, by_key, key_columns, key_from, name_of};
use super::store::Store;
use super::{ConstraintKind, Context, Error, Side};

/// Foreign keys in a schema, at most.
const FOREIGN_KEYS_MAX: usize = 65_536;
/// Bytes of a name in one, at most.
const NAME_MAX: usize = 1 << 20;
/// So many parents are looked for by themselves; where more are gone, all children are read once instead.
const PARENTS_BY_THEMSELVES: usize = 64;
/// Orphans that are looked at for one statement, at most.
const ORPHANS_MAX: usize = 100_000;

/// A foreign key.
pub(super) struct ForeignKey {
    pub child: Arc<Table>,
    /// As the child names it.
    pub parent: String,
    /// Columns of the child, and of the parent where it names them.
    columns: Vec<(String, Option<String>)>,
}

/// A foreign key whose parent is there, with the columns of both.
pub(super) struct Joined<'s> {
    pub parent: &'s Arc<Table>,
    pub columns: Vec<(String, String)>,
}

/// Checks what the steps in the store wrote.
pub(super) fn check(context: &Context<'_>, store: &Store) -> Result<Violations, Error> {
    let schema = context.schemas.of(context.on);
    let keys = read(context.sides.of(context.on), schema)?;
    if keys.is_empty() {
        return Ok(Violations::default());
    }
    let mut checker = Checker::new(context, store, &keys);
    for_each(context, store, "1", |step| checker.step(&step))?;
    checker.scan()?;
    Ok(checker.violations)
}

struct Checker<'c, 'k> {
    on: Side,
    schemas: &'c super::Schemas,
    store: &'k Store,
    base: Statements<'c>,
    theirs: Statements<'c>,
    mine: Statements<'c>,
    keys: &'k [ForeignKey],
    /// Positions in `keys`, by table.
    of_child: HashMap<String, Vec<usize>>,
    of_parent: HashMap<String, Vec<usize>>,
    /// How many parents are gone, by foreign key.
    gone: Vec<usize>,
    violations: Violations,
}

impl<'c, 'k> Checker<'c, 'k> {
    fn new(context: &Context<'c>, store: &'k Store, keys: &'k [ForeignKey]) -> Checker<'c, 'k> {
        let (mut of_child, mut of_parent) = (HashMap::new(), HashMap::new());
        for (number, key) in keys.iter().enumerate() {
            let by_name = |map: &mut HashMap<String, Vec<usize>>, name: &str| {
                map.entry(name.to_ascii_lowercase()).or_default().push(number);
            };
            by_name(&mut of_child, &key.child.name);
            by_name(&mut of_parent, &key.parent);
        }
        let encoding = context.schemas.base.encoding;
        Checker {
            on: context.on,
            schemas: context.schemas,
            store,
            base: Statements::new(context.sides.base, encoding),
            theirs: Statements::new(context.sides.theirs, encoding),
            mine: Statements::new(context.sides.mine, encoding),
            keys,
            of_child,
            of_parent,
            gone: vec![0; keys.len()],
            violations: Violations::default(),
        }
    }

    fn statements(&mut self, side: Side) -> &mut Statements<'c> {
        match side {
            Side::Theirs => &mut self.theirs,
            Side::Mine => &mut self.mine,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let name = step.table.name.to_ascii_lowercase();
        if step.shall.is_some() {
            for number in self.of_child.get(&name).cloned().unwrap_or_default() {
                self.child_written(number, step)?;
            }
        }
        if let Some(was) = &step.is {
            for number in self.of_parent.get(&name).cloned().unwrap_or_default() {
                self.parent_left(number, step, was)?;
            }
        }
        Ok(())
    }

    fn child_written(&mut self, number: usize, step: &Step) -> Result<(), Error> {
        let (on, key) = (self.on, &self.keys[number]);
        let Some(orphan) = orphan(key, self.schemas.of(on)) else { return Ok(()) };
        let same = |name: &String| step.table.column(name).is_some_and(|column| same(step, column));
        if step.is.is_some() && key.columns.iter().all(|(child, _)| same(child)) {
            return Ok(());
        }
        let (condition, values) = by_key(&key.child, &step.key, "c.")?;
        let sql = format!("SELECT 1 FROM {} AS c WHERE {condition} AND {orphan}", name_of(&key.child));
        let child = key.child.clone();
        if self.statements(on).any(&sql, &child, &values.iter().collect::<Vec<_>>())? {
            self.orphan_found(number, &step.key, false)?;
        }
        Ok(())
    }

    fn parent_left(&mut self, number: usize, step: &Step, was: &Row) -> Result<(), Error> {
        let (on, key) = (self.on, &self.keys[number]);
        let schema = self.schemas.of(on);
        let (Some(joined), Some(orphan)) = (joined(key, schema), orphan(key, schema)) else { return Ok(()) };
        let column = |name: &String| step.table.column(name);
        let same = |name: &String| column(name).is_some_and(|column| same(step, column));
        if step.shall.is_some() && joined.columns.iter().all(|(_, parent)| same(parent)) {
            return Ok(());
        }
        self.gone[number] += 1;
        // A scan finds out by the base which parents the side that is written had.
        if self.gone[number] > PARENTS_BY_THEMSELVES && step.in_base {
            return Ok(());
        }
        let mut conditions = vec![orphan];
        let mut values = Vec::new();
        for (child, parent) in &joined.columns {
            let (Some(column), Some(child)) = (column(parent), key.child.column(child)) else { continue };
            let (child, column) =
                (&key.child.columns[child], (&step.table.columns[column], &was.values[column]));
            if column.1.is_null() {
                return Ok(());
            }
            // Where types differ, values that are equal as the parent's may not be as the child's.
            if affinity(&child.declared) == affinity(&column.0.declared) {
                values.push(column.1);
                let (name, collation) = (quoted(&child.name), quoted(&column.0.collation));
                conditions.push(format!("c.{name} COLLATE {collation} = ?{}", values.len()));
            }
        }
        self.orphans_found(number, &conditions.join(" AND "), &values, false)
    }

    /// Reads all children of the foreign keys of which many parents are gone.
    fn scan(&mut self) -> Result<(), Error> {
        for number in 0..self.keys.len() {
            if self.gone[number] > PARENTS_BY_THEMSELVES
                && let Some(orphan) = orphan(&self.keys[number], self.schemas.of(self.on))
            {
                self.orphans_found(number, &orphan, &[], true)?;
            }
        }
        Ok(())
    }

    fn orphans_found(
        &mut self,
        number: usize,
        condition: &str,
        values: &[&Value],
        scanned: bool,
    ) -> Result<(), Error> {
        let (on, child) = (self.on, self.keys[number].child.clone());
        let (names, table) = (key_columns(&child, "c."), name_of(&child));
        let sql = format!("SELECT {names} FROM {table} AS c WHERE {condition}");
        let orphans = self.statements(on).all(&sql, &child, values, ORPHANS_MAX)?;
        for orphan in orphans {
            let row = key_from(&child, orphan)?;
            self.orphan_found(number, &row, scanned)?;
        }
        Ok(())
    }

    /// An orphan in the result: one that it was not on either side is a violation.
    fn orphan_found(&mut self, number: usize, row: &Key, scanned: bool) -> Result<(), Error> {
        if self.violations.is_full() {
            return Ok(());
        }
        let child = self.keys[number].child.clone();
        let Some(named) = self.named_by(number, row)? else { return Ok(()) };
        if self.was_orphan(number, row, &named)? || (scanned && !self.had_parent(number, &named)?) {
            return Ok(());
        }
        let mut involved = vec![(child.name.clone(), row.clone())];
        for side in [None, Some(Side::Theirs), Some(Side::Mine)] {
            let parent = self.parent_in(number, side, &named)?;
            involved.extend(parent.filter(|parent| !involved.contains(parent)));
        }
        let key = &self.keys[number];
        let names: Vec<&str> = key.columns.iter().map(|(child, _)| child.as_str()).collect();
        let name = format!("{} REFERENCES {}", names.join(", "), key.parent);
        self.violations
            .add(Failure { kind: ConstraintKind::ForeignKey, table: child.name.clone(), name }, involved);
        Ok(())
    }

    /// What a child in the result names as its parent.
    fn named_by(&mut self, number: usize, row: &Key) -> Result<Option<Vec<Value>>, Error> {
        let (on, key) = (self.on, &self.keys[number]);
        let child = key.child.clone();
        let (condition, values) = by_key(&child, row, "")?;
        let columns: Vec<String> = key.columns.iter().map(|(child, _)| quoted(child)).collect();
        let sql = format!("SELECT {} FROM {} WHERE {condition}", columns.join(", "), name_of(&child));
        self.statements(on).first(&sql, &child, &values.iter().collect::<Vec<_>>())
    }

    /// Whether the child was an orphan already, naming the same parent, on the side that is not written. On
    /// the side that is written it was none: it was not there, named another parent, or had the one that left.
    fn was_orphan(&mut self, number: usize, row: &Key, named: &[Value]) -> Result<bool, Error> {
        let (other, key) = (self.on.other(), &self.keys[number]);
        let (schema, child) = (self.schemas.of(other), key.child.clone());
        let Some(orphan) = orphan(key, schema) else { return Ok(false) };
        if schema.table(&child.name).is_none_or(|held| held.columns != child.columns) {
            return Ok(false);
        }
        let (condition, values) = by_key(&child, row, "c.")?;
        let mut conditions = vec![condition, orphan];
        for (index, (column, _)) in key.columns.iter().enumerate() {
            conditions.push(format!("c.{} IS ?{}", quoted(column), values.len() + 1 + index));
        }
        let sql = format!("SELECT 1 FROM {} AS c WHERE {}", name_of(&child), conditions.join(" AND "));
        let values: Vec<&Value> = values.iter().chain(named).collect();
        self.statements(other).any(&sql, &child, &values)
    }

    /// Whether the side that is written had the parent before: as the base has it, and a step took it away.
    fn had_parent(&mut self, number: usize, named: &[Value]) -> Result<bool, Error> {
        let Some((table, key)) = self.parent_in(number, None, named)? else { return Ok(false) };
        let Some(id) = self.store.find(&table, &key)? else { return Ok(false) };
        Ok(self.store.get(id)?.of(self.on).is_some())
    }

    /// The parent that a side, or the base, has for what a child names.
    fn parent_in(
        &mut self,
        number: usize,
        side: Option<Side>,
        named: &[Value],
    ) -> Result<Option<(String, Key)>, Error> {
        let schemas = self.schemas;
        let schema = side.map_or(&schemas.base, |side| schemas.of(side));
        let Some(Joined { parent, columns }) = joined(&self.keys[number], schema) else { return Ok(None) };
        let conditions: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(index, (_, parent))| format!("{} = ?{}", quoted(parent), index + 1))
            .collect();
        let conditions = conditions.join(" AND ");
        let sql = format!("SELECT {} FROM {} WHERE {conditions}", key_columns(parent, ""), name_of(parent));
        let statements = match side {
            None => &mut self.base,
            Some(Side::Theirs) => &mut self.theirs,
            Some(Side::Mine) => &mut self.mine,
        };
        let found = statements.first(&sql, parent, &named.iter().collect::<Vec<_>>())?;
        found.map(|values| Ok((parent.name.clone(), key_from(parent, values)?))).transpose()
    }
}

/// Whether a step leaves a column as it was.
fn same(step: &Step, column: usize) -> bool {
    match (&step.is, &step.shall) {
        (Some(is), Some(shall)) => is.values.get(column) == shall.values.get(column),
        _ => false,
    }
}

/// All foreign keys of a schema.
pub(super) fn read(connection: &Connection, schema: &Schema) -> Result<Vec<ForeignKey>, Error> {
    let mut keys: Vec<ForeignKey> = Vec::new();
    for table in schema.tables.values().filter(|table| !table.is_virtual() && !table.is_internal()) {
        // Most tables have none, and a pragma for each of 2,000 tables takes its time.
        if !contains_word(&table.sql, "references") {
            continue;
        }
        let sql = format!("PRAGMA main.foreign_key_list({})", quoted(&table.name));
        let mut statement =
            Statement::prepare(connection, &sql, format!("reading the foreign keys of {}", table.name))?;
        let mut last = None;
        while statement.step()? {
            let text = |column| statement.string(column, NAME_MAX, "bytes in a name");
            if last != Some(statement.integer(0)) {
                if keys.len() == FOREIGN_KEYS_MAX {
                    return Err(Error::Unsupported("it has more foreign keys than are checked".into()));
                }
                let parent = text(2)?.unwrap_or_default();
                keys.push(ForeignKey { child: table.clone(), parent, columns: Vec::new() });
                last = Some(statement.integer(0));
            }
            if let Some(key) = keys.last_mut() {
                key.columns.push((text(3)?.unwrap_or_default(), text(4)?));
            }
        }
    }
    Ok(keys)
}

fn contains_word(sql: &str, word: &str) -> bool {
    sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// The parent of a foreign key in a schema, and the columns on both sides. `None` where there is none, or
/// where the key does not fit it, which SQLite calls a mismatch.
pub(super) fn joined<'s>(key: &ForeignKey, schema: &'s Schema) -> Option<Joined<'s>> {
    let parent = schema.tables.values().find(|table| table.name.eq_ignore_ascii_case(&key.parent))?;
    let mut columns = Vec::with_capacity(key.columns.len());
    for (index, (child, named)) in key.columns.iter().enumerate() {
        let column = match named {
            Some(name) => {
                let generated = parent.generated.iter().any(|held| held.eq_ignore_ascii_case(name));
                (generated || parent.column(name).is_some()).then(|| name.clone())?
            }
            None if parent.key.len() == key.columns.len() => parent.columns[parent.key[index]].name.clone(),
            None => return None,
        };
        columns.push((child.clone(), column));
    }
    Some(Joined { parent, columns })
}

/// The condition for a child `c` that has no parent in a schema. `None` where the foreign key is a mismatch:
/// SQLite would let nobody write the table with foreign keys on, so nobody does.
fn orphan(key: &ForeignKey, schema: &Schema) -> Option<String> {
    let named = key.columns.iter().map(|(child, _)| format!("c.{} IS NOT NULL", quoted(child)));
    let mut conditions: Vec<String> = named.collect();
    match joined(key, schema) {
        Some(Joined { parent, columns }) => {
            let equal =
                columns.iter().map(|(child, parent)| format!("p.{} = c.{}", quoted(parent), quoted(child)));
            let equal = equal.collect::<Vec<_>>().join(" AND ");
            conditions.push(format!("NOT EXISTS (SELECT 1 FROM {} AS p WHERE {equal})", name_of(parent)));
        }
        None if schema.objects.iter().any(|object| object.name.eq_ignore_ascii_case(&key.parent)) => {
            return None;
        }
        None => {}
    }
    Some(conditions.join(" AND "))
}

/// The affinity that a declared type gives, as SQLite derives it.
pub(super) fn affinity(declared: &str) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    match () {
        () if has("INT") => "INTEGER",
        () if has("CHAR") || has("CLOB") || has("TEXT") => "TEXT",
        () if has("BLOB") || declared.is_empty() => "BLOB",
        () if has("REAL") || has("FLOA") || has("DOUB") => "REAL",
        () => "NUMERIC",
    }
}
