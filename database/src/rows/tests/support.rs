//! Two databases, their difference, and what is compared with it.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::btree::{Ranges, Touched};
use crate::rows::{
    Change, Encoding, Go, Key, Op, Row, RowChange, Schema, SchemaChange, Statement, Summary, Value, diff,
};

/// A database in memory, made by a script.
pub(super) fn database(sql: &str) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection
}

/// A copy of a database, page by page.
pub(super) fn copy(of: &Connection) -> Connection {
    let mut copy = Connection::open_in_memory().unwrap();
    {
        let backup = rusqlite::backup::Backup::new(of, &mut copy).unwrap();
        backup.run_to_completion(1000, std::time::Duration::ZERO, None).unwrap();
    }
    copy.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    copy
}

/// A database, and a copy of it in which a script was run.
pub(super) fn changed(before: &str, script: &str) -> (Connection, Connection) {
    let old = database(before);
    let new = copy(&old);
    new.execute_batch(script).unwrap_or_else(|error| panic!("{script}: {error}"));
    (old, new)
}

/// What a diff said.
#[derive(Debug)]
pub(super) struct Found {
    pub schema: Vec<SchemaChange>,
    pub rows: Vec<RowChange>,
    pub summary: Summary,
}

pub(super) fn all() -> Touched {
    Touched::everything("it is a test")
}

pub(super) fn diff_within(old: &Connection, new: &Connection, touched: &Touched) -> Found {
    let (mut schema, mut rows) = (Vec::new(), Vec::new());
    let summary = diff(old, new, touched, &mut |change| {
        match change {
            Change::Schema(change) => schema.push(change),
            Change::Row(change) => rows.push(change),
        }
        Ok(Go::On)
    });
    Found { schema, rows, summary: summary.unwrap() }
}

pub(super) fn diff_all(old: &Connection, new: &Connection) -> Found {
    diff_within(old, new, &all())
}

pub(super) fn only(table: &str, ranges: Ranges) -> Touched {
    Touched { tables: BTreeMap::from([(table.to_owned(), ranges)]), everything: false, read_more: None }
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.into())
}

impl Found {
    /// The changes as short lines, for comparing with what is expected.
    pub(super) fn lines(&self) -> Vec<String> {
        self.rows.iter().map(line).collect()
    }
}

fn line(change: &RowChange) -> String {
    let encoding = change.encoding;
    let key = match &change.key {
        Key::Rowid(rowid) => format!("#{rowid}"),
        Key::Declared(values) => short(values, encoding),
    };
    let row = |row: &Option<Row>| row.as_ref().map_or("-".into(), |row| short(&row.values, encoding));
    let op = change.op().as_str();
    format!("{op} {} {key}: {} => {}", change.table.name, row(&change.before), row(&change.after))
}

fn short(values: &[Value], encoding: Encoding) -> String {
    let one = |value: &Value| match value {
        Value::Null => "NULL".into(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(text) => {
            encoding.decode(text).map_or(format!("text {text:x?}"), |text| format!("'{text}'"))
        }
        Value::Blob(blob) => format!("x{blob:x?}"),
    };
    values.iter().map(one).collect::<Vec<_>>().join(",")
}

pub(super) fn count(found: &Found, op: Op) -> usize {
    found.rows.iter().filter(|change| change.op() == op).count()
}

/// All that a database holds but rowids that are no key: its schema, its header's numbers, and the rows of
/// each table in no particular order.
pub(super) fn dump(database: &Connection) -> Vec<String> {
    let schema = Schema::read(database).unwrap();
    let mut lines = vec![format!("{} {}", schema.application_id, schema.user_version)];
    // That sqlite_sequence is there though it is empty is nothing that a script could do, or undo.
    for object in schema.objects.iter().filter(|object| object.sql.is_some() && !object.is_internal()) {
        lines.push(format!("{object:?}").replace(&format!("{:?}", object.root), ""));
    }
    for table in schema.tables.values().filter(|table| !table.is_virtual()) {
        let statement = format!("SELECT * FROM {}", crate::rows::quoted(&table.name));
        let mut statement = Statement::prepare(database, &statement, "dumping").unwrap();
        while statement.step().unwrap() {
            lines.push(format!("{} {:?}", table.name, statement.values(0, schema.encoding).unwrap()));
        }
    }
    lines.sort();
    lines
}
