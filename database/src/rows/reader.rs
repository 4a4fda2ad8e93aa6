//! Reading rows of one table: all of them, those of a range of rowids, or one by its key.
//!
//! Each statement names the B-tree that it is to walk, so that neither a table's other indexes nor the
//! statistics that a hostile file brings along can make it sort, or read something else than the table.

use std::fmt::Write;
use std::ops::RangeInclusive;

use rusqlite::Connection;

use super::error::Error;
use super::key::{Key, Row};
use super::schema::{Encoding, Table};
use super::sql_text::quoted;
use super::statement::Statement;
use super::value::Value;

/// A row is heavy from so many bytes on: a statement does not stand on it longer than it must.
const HEAVY_ROW: usize = 1 << 20;

/// A statement that reads rows.
pub(crate) struct Reader<'c> {
    statement: Statement<'c>,
    encoding: Encoding,
    /// Where the rowid stands.
    rowid_at: Option<usize>,
    /// Where the first of the table's columns stands.
    first: usize,
    columns: usize,
    /// Whether rows come in the order of their rowids.
    ascending: bool,
    /// The rowid that was read last.
    last: Option<i64>,
    /// The last rowid of the range that is read, of a reader by range.
    end: i64,
}

impl<'c> Reader<'c> {
    /// Reads all rows, in the order of the table's B-tree.
    pub fn all(connection: &'c Connection, table: &Table, encoding: Encoding) -> Result<Reader<'c>, Error> {
        let order = table.rowid.as_ref().map(|rowid| format!("ORDER BY {rowid}"));
        Reader::prepare(connection, table, encoding, &order.unwrap_or_default())
    }

    /// Reads ranges of rowids, each set by [`Reader::set_range`], in ascending order.
    pub fn by_range(
        connection: &'c Connection,
        table: &Table,
        encoding: Encoding,
    ) -> Result<Reader<'c>, Error> {
        let rowid = table.rowid.as_deref().ok_or(Error::Schema("a table has no rowid that SQL can name"))?;
        let rest = format!("WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid}");
        Reader::prepare(connection, table, encoding, &rest)
    }

    /// Reads rows by their declared key.
    pub fn by_key(
        connection: &'c Connection,
        table: &Table,
        encoding: Encoding,
    ) -> Result<Reader<'c>, Error> {
        let mut rest = String::new();
        for (index, part) in table.key_parts.iter().enumerate() {
            let parameter = table.key.iter().position(|&column| column == part.column);
            let (Some(parameter), Some(column)) = (parameter, table.columns.get(part.column)) else {
                return Err(Error::Schema("a primary key has a column that its table has not"));
            };
            let word = if index == 0 { "WHERE" } else { " AND" };
            let (name, collation) = (quoted(&column.name), quoted(&part.collation));
            let _ = write!(rest, "{word} {name} = ?{} COLLATE {collation}", parameter + 1);
        }
        if rest.is_empty() {
            return Err(Error::Schema("a table has no key to look rows up by"));
        }
        rest.push_str(" LIMIT 1");
        Reader::prepare(connection, table, encoding, &rest)
    }

    fn prepare(
        connection: &'c Connection,
        table: &Table,
        encoding: Encoding,
        rest: &str,
    ) -> Result<Reader<'c>, Error> {
        if let Some(part) = table.key_parts.iter().find(|part| !is_known(&part.collation))
            && table.rowid.is_none()
        {
            let (table, collation) = (table.name.clone(), part.collation.clone());
            return Err(Error::Collation { table, collation });
        }
        // A rowid that is one of the columns is not read twice: there may be as many as a result can have.
        let alone = table.rowid.as_ref().filter(|_| table.rowid_column.is_none());
        let mut columns: Vec<String> = alone.into_iter().cloned().collect();
        let first = columns.len();
        columns.extend(table.columns.iter().map(|column| quoted(&column.name)));
        let index = match &table.key_index {
            Some(index) if table.rowid.is_none() => format!("INDEXED BY {}", quoted(index)),
            _ => "NOT INDEXED".into(),
        };
        let sql = format!("SELECT {} FROM main.{} {index} {rest}", columns.join(", "), quoted(&table.name));
        let statement = Statement::prepare(connection, &sql, format!("reading rows of {}", table.name))?;
        let rowid_at = table.rowid.is_some().then(|| table.rowid_column.unwrap_or(0));
        Ok(Reader {
            statement,
            encoding,
            rowid_at,
            first,
            columns: table.columns.len(),
            ascending: rest.contains("ORDER BY"),
            last: None,
            end: i64::MAX,
        })
    }

    /// Sets the range that is read from here on.
    pub fn set_range(&mut self, range: &RangeInclusive<i64>) -> Result<(), Error> {
        self.statement.reset();
        self.last = None;
        self.end = *range.end();
        let bounds = [Value::Integer(*range.start()), Value::Integer(*range.end())];
        self.statement.bind_all(&bounds, self.encoding)
    }

    /// The next row.
    pub fn next(&mut self) -> Result<Option<Row>, Error> {
        if self.step()? { Ok(Some(self.row()?)) } else { Ok(None) }
    }

    /// Goes to the next row; whether there is one. Not to be called again after that: SQLite would begin anew.
    pub fn step(&mut self) -> Result<bool, Error> {
        // Behind the last row of the range is nothing to look for, and to look would read the next page.
        if self.last == Some(self.end) || !self.statement.step()? {
            return Ok(false);
        }
        let rowid = self.rowid();
        // In a damaged B-tree a page can be its own child many times over, and would be read without end.
        if self.ascending && rowid.is_some() && rowid <= self.last {
            return Err(Error::Schema("the rows of a table are not in order"));
        }
        self.last = rowid;
        Ok(true)
    }

    /// The rowid of the row that it stands on.
    pub fn rowid(&self) -> Option<i64> {
        self.rowid_at.map(|column| self.statement.integer(column))
    }

    /// The row that it stands on.
    pub fn row(&self) -> Result<Row, Error> {
        let mut values = Vec::with_capacity(self.columns);
        for column in 0..self.columns {
            values.push(self.value(column)?);
        }
        Ok(Row { rowid: self.rowid(), values })
    }

    /// The row that a reader by range stands on, and which it may leave with that: of a heavy row it has a copy
    /// of its own as long as it stands there.
    pub fn take_row(&mut self) -> Result<Row, Error> {
        let row = self.row()?;
        if let Some(rowid) = row.rowid.filter(|_| row.weight() >= HEAVY_ROW) {
            self.statement.reset();
            let rest = match rowid.checked_add(1) {
                Some(next) => [Value::Integer(next), Value::Integer(self.end)],
                // There is no row after the last one.
                None => [Value::Null, Value::Null],
            };
            self.statement.bind_all(&rest, self.encoding)?;
        }
        Ok(row)
    }

    /// A value of the row that it stands on.
    pub fn value(&self, column: usize) -> Result<Value, Error> {
        self.statement.value(column + self.first, self.encoding)
    }

    /// Whether a value of the row that it stands on is that of another reader's row. Nothing is copied.
    pub fn is_same(&self, column: usize, other: &Reader<'_>, other_column: usize) -> bool {
        let (column, other_column) = (column + self.first, other_column + other.first);
        self.statement.is_same(column, &other.statement, other_column, self.encoding)
    }

    /// The row with this rowid, of a reader by range.
    pub fn at(&mut self, rowid: i64) -> Result<Option<Row>, Error> {
        self.set_range(&(rowid..=rowid))?;
        let row = self.next()?;
        self.statement.reset();
        Ok(row)
    }

    /// The row with this declared key, of a reader by key: bit for bit, whatever its collation finds.
    pub fn with_key(&mut self, table: &Table, values: &[Value]) -> Result<Option<Row>, Error> {
        self.statement.reset();
        self.statement.bind_all(values, self.encoding)?;
        let row = self.next()?;
        self.statement.reset();
        let same = |row: &Row| matches!(row.key(table), Some(Key::Declared(key)) if key == values);
        Ok(row.filter(same))
    }
}

/// Whether SQLite has a collation by itself.
fn is_known(collation: &str) -> bool {
    ["BINARY", "NOCASE", "RTRIM"].iter().any(|known| collation.eq_ignore_ascii_case(known))
}
