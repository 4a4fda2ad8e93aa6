//! The foreign keys of a schema: which columns of which tables, and how a statement finds an orphan.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;

use crate::rows::{Schema, Statement, Table, quoted};

use super::Error;
use super::counterpart::same_column;
use super::lookup::name_of;

/// Foreign keys in a schema, at most.
const FOREIGN_KEYS_MAX: usize = 65_536;
/// Bytes of a name in one, at most.
const NAME_MAX: usize = 1 << 20;

/// A foreign key.
pub(super) struct ForeignKey {
    pub child: Arc<Table>,
    /// As the child names it.
    pub parent: String,
    /// Columns of the child, and of the parent where it names them.
    pub columns: Vec<(String, Option<String>)>,
}

/// A foreign key whose parent is there, with the columns of both.
pub(super) struct Joined {
    pub parent: Arc<Table>,
    pub columns: Vec<(String, String)>,
}

/// The names in a schema, which are the same whatever the case of their ASCII letters.
pub(super) struct Names {
    tables: HashMap<String, Arc<Table>>,
    objects: HashSet<String>,
}

impl Names {
    pub fn of(schema: &Schema) -> Names {
        Names {
            tables: schema.tables.values().map(|table| (lower(&table.name), table.clone())).collect(),
            objects: schema.objects.iter().map(|object| lower(&object.name)).collect(),
        }
    }

    /// The parent of a foreign key, and the columns on both sides. `None` where there is none, or where the key
    /// does not fit it, which SQLite calls a mismatch.
    pub fn joined(&self, key: &ForeignKey) -> Option<Joined> {
        let parent = self.table(&key.parent)?;
        let mut columns = Vec::with_capacity(key.columns.len());
        for (index, (child, named)) in key.columns.iter().enumerate() {
            let column = match named {
                Some(name) => {
                    let generated = parent.generated.iter().any(|held| held.eq_ignore_ascii_case(name));
                    (generated || parent.column(name).is_some()).then(|| name.clone())?
                }
                None if parent.key.len() == key.columns.len() => {
                    parent.columns[parent.key[index]].name.clone()
                }
                None => return None,
            };
            columns.push((child.clone(), column));
        }
        Some(Joined { parent: parent.clone(), columns })
    }

    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(&lower(name))
    }

    /// A foreign key that is joined in another schema, by what the parent and its columns are in this one.
    pub fn joined_like(&self, like: &Joined) -> Option<Joined> {
        let parent = self.table(&like.parent.name)?;
        let column = |(child, column): &(String, String)| {
            Some((child.clone(), same_column(&like.parent, column, parent)?.to_owned()))
        };
        let columns = like.columns.iter().map(column).collect::<Option<Vec<_>>>()?;
        Some(Joined { parent: parent.clone(), columns })
    }

    /// The condition for a child `c` that has no parent. `None` where the foreign key is a mismatch: SQLite
    /// would let nobody write the table with foreign keys on, so nobody does.
    pub fn orphan(&self, key: &ForeignKey) -> Option<String> {
        let named = key.columns.iter().map(|(child, _)| format!("c.{} IS NOT NULL", quoted(child)));
        let mut conditions: Vec<String> = named.collect();
        match self.joined(key) {
            Some(Joined { parent, columns }) => {
                let equal = columns
                    .iter()
                    .map(|(child, parent)| format!("p.{} = c.{}", quoted(parent), quoted(child)))
                    .collect::<Vec<_>>()
                    .join(" AND ");
                let parent = name_of(&parent);
                conditions.push(format!("NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {equal})"));
            }
            None if self.objects.contains(&lower(&key.parent)) => return None,
            None => {}
        }
        Some(conditions.join(" AND "))
    }
}

/// A name as it is compared.
pub(super) fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// All foreign keys of a schema.
pub(super) fn read(connection: &Connection, schema: &Schema) -> Result<Vec<ForeignKey>, Error> {
    let mut keys: Vec<ForeignKey> = Vec::new();
    for table in schema.tables.values() {
        read_of(connection, table, &mut keys)?;
    }
    Ok(keys)
}

/// Adds the foreign keys of a table.
pub(super) fn read_of(
    connection: &Connection,
    table: &Arc<Table>,
    keys: &mut Vec<ForeignKey>,
) -> Result<(), Error> {
    // Most tables have none, and a pragma for each of 2,000 tables takes its time.
    if table.is_virtual() || table.is_internal() || !contains_word(&table.sql, "references") {
        return Ok(());
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
    Ok(())
}

fn contains_word(sql: &str, word: &str) -> bool {
    sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
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
