//! Statements over the three databases: prepared once, and rows looked up by key.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::rows::{Encoding, Key, Row, Statement, Table, Value, quoted};

use super::Error;

/// Prepared statements that are kept, at most: an update has one for each set of columns that it changes.
const STATEMENTS_MAX: usize = 128;

/// Prepared statements of one database.
pub(super) struct Statements<'c> {
    connection: &'c Connection,
    encoding: Encoding,
    prepared: HashMap<String, Statement<'c>>,
}

impl<'c> Statements<'c> {
    pub fn new(connection: &'c Connection, encoding: Encoding) -> Statements<'c> {
        Statements { connection, encoding, prepared: HashMap::new() }
    }

    /// The statement of a text.
    fn prepared(&mut self, sql: &str, table: &Table) -> Result<&mut Statement<'c>, crate::rows::Error> {
        if !self.prepared.contains_key(sql) {
            if self.prepared.len() >= STATEMENTS_MAX {
                self.prepared.clear();
            }
            let statement = Statement::prepare(self.connection, sql, format!("the table {}", table.name))?;
            self.prepared.insert(sql.to_owned(), statement);
        }
        self.prepared.get_mut(sql).ok_or(crate::rows::Error::Schema("a statement is missing"))
    }

    /// Whether a query yields a row.
    pub fn any(&mut self, sql: &str, table: &Table, values: &[&Value]) -> Result<bool, Error> {
        let encoding = self.encoding;
        Ok(self.prepared(sql, table)?.any_with(values, encoding)?)
    }

    /// The first row that a query yields.
    pub fn first(
        &mut self,
        sql: &str,
        table: &Table,
        values: &[&Value],
    ) -> Result<Option<Vec<Value>>, Error> {
        let encoding = self.encoding;
        Ok(self.prepared(sql, table)?.first_with(values, encoding)?)
    }

    /// Runs a statement to its end.
    pub fn run(&mut self, sql: &str, table: &Table, values: &[&Value]) -> Result<(), crate::rows::Error> {
        let encoding = self.encoding;
        self.prepared(sql, table)?.run_with(values, encoding)
    }

    /// The connection that they are of.
    pub fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// How many rows the last statement wrote.
    pub fn changed(&self) -> u64 {
        self.connection.changes()
    }

    /// The row with a key.
    pub fn row(&mut self, table: &Table, key: &Key) -> Result<Option<Row>, Error> {
        let (condition, bound) = by_key(table, key, "")?;
        // A rowid that is one of the columns is not read twice: there may be as many as a result can have.
        let rowid = match (table.rowid_column, &table.rowid) {
            (None, Some(rowid)) => format!("{rowid}, "),
            _ => String::new(),
        };
        let sql =
            format!("SELECT {rowid}{} FROM {} WHERE {condition}", columns_of(table, ""), name_of(table));
        let Some(mut values) = self.first(&sql, table, &bound.iter().collect::<Vec<_>>())? else {
            return Ok(None);
        };
        let rest = if rowid.is_empty() { std::mem::take(&mut values) } else { values.split_off(1) };
        let rowid = match table.rowid_column.map_or(values.first(), |column| rest.get(column)) {
            Some(Value::Integer(rowid)) => Some(*rowid),
            _ => None,
        };
        let row = Row { rowid, values: rest };
        // By its collation a lookup also finds what is another key bit for bit.
        Ok((key_of(table, &row.values, rowid).as_ref() == Some(key)).then_some(row))
    }
}

/// The table in a statement.
pub(super) fn name_of(table: &Table) -> String {
    format!("main.{}", quoted(&table.name))
}

/// All columns that a row has values for, each after a prefix.
pub(super) fn columns_of(table: &Table, prefix: &str) -> String {
    let columns = table.columns.iter().map(|column| format!("{prefix}{}", quoted(&column.name)));
    columns.collect::<Vec<_>>().join(", ")
}

/// The condition that finds a row by its key, each column after a prefix, and what is to be bound to its
/// parameters from 1 on. It is one that the key's own index answers.
pub(super) fn by_key(table: &Table, key: &Key, prefix: &str) -> Result<(String, Vec<Value>), Error> {
    match key {
        Key::Rowid(rowid) => {
            let name = table.rowid.as_deref().ok_or_else(|| no_rowid(table))?;
            Ok((format!("{prefix}{name} = ?1"), vec![Value::Integer(*rowid)]))
        }
        Key::Declared(values) => {
            let mut parts = Vec::with_capacity(table.key.len());
            for (index, &column) in table.key.iter().enumerate() {
                let name = &table.columns.get(column).ok_or(Error::Store("a column"))?.name;
                let part = table.key_parts.iter().find(|part| part.column == column);
                let collation = part.map_or("BINARY", |part| part.collation.as_str());
                let name = quoted(name);
                parts.push(format!("{prefix}{name} COLLATE {} = ?{}", quoted(collation), index + 1));
            }
            Ok((parts.join(" AND "), values.clone()))
        }
    }
}

/// The columns that name a row: the rowid, or NULL where there is none, and those of the declared key.
pub(super) fn key_columns(table: &Table, prefix: &str) -> String {
    let rowid = table.rowid.as_deref().map_or("NULL".to_owned(), |name| format!("{prefix}{name}"));
    let keys = table.key.iter().map(|&column| format!("{prefix}{}", quoted(&table.columns[column].name)));
    std::iter::once(rowid).chain(keys).collect::<Vec<_>>().join(", ")
}

/// The key from the values of [`key_columns`].
pub(super) fn key_from(table: &Table, mut values: Vec<Value>) -> Result<Key, Error> {
    let declared = values.split_off(values.len().min(1));
    if !table.key.is_empty() && declared.len() == table.key.len() && !declared.iter().any(Value::is_null) {
        return Ok(Key::Declared(declared));
    }
    match values.first() {
        Some(Value::Integer(rowid)) => Ok(Key::Rowid(*rowid)),
        _ => Err(no_rowid(table)),
    }
}

/// The key of a row; `None` where no SQL reaches its rowid.
pub(super) fn key_of(table: &Table, values: &[Value], rowid: Option<i64>) -> Option<Key> {
    let declared: Option<Vec<Value>> = table
        .key
        .iter()
        .map(|&column| values.get(column).filter(|value| !value.is_null()).cloned())
        .collect();
    match declared {
        Some(values) if !values.is_empty() => Some(Key::Declared(values)),
        _ => rowid.map(Key::Rowid),
    }
}

/// A table whose rows cannot be named.
pub(super) fn no_rowid(table: &Table) -> Error {
    Error::Unsupported(format!(
        "the table {} has no key, and columns with all three names of the rowid: its rows cannot be told apart",
        table.name
    ))
}
