//! How one table is compared: by what its rows are paired, and which columns must be equal.

use std::sync::Arc;

use rusqlite::Connection;

use super::super::error::Error;
use super::super::key::Row;
use super::super::reader::Reader;
use super::super::schema::{Column, Encoding, Table};
use super::super::sql_text::is_literal;
use super::super::statement::Statement;
use super::super::value::Value;

/// Why a row is left out.
pub(super) const NO_NAME_FOR_A_ROW: &str =
    "columns have all names of the rowid, and the row has no key: nothing names it";

/// Defaults of added columns that are evaluated in one diff, at most. Beyond, they count as not known.
const MAX_DEFAULTS: usize = 10_000;

/// By what the rows of the two sides are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// By rowid first, then by declared key.
    Rowids,
    /// By key alone.
    Keys,
    /// Not at all: the two have other keys, so that all rows are gone and others are there.
    Replaced,
    /// Not at all: neither a key nor a rowid that SQL can name. They are the same or they are not.
    Nameless,
}

/// How a table is compared.
pub(super) struct Plan {
    pub old: Arc<Table>,
    pub new: Arc<Table>,
    pub method: Method,
    /// Whether the rowid is the key, on both sides.
    pub rowid_is_key: bool,
    /// Whether both read the same bytes as the same values, but for columns that the new one has at the end.
    pub same_reading: bool,
    /// Columns that both have.
    common: Vec<(usize, usize)>,
    /// Columns that only the new one has, each with what rows have there that nobody wrote, where that is known.
    added: Vec<(usize, Option<Value>)>,
}

impl Plan {
    pub fn of(old: &Arc<Table>, new: &Arc<Table>, defaults: &mut Defaults) -> Result<Plan, Error> {
        let mut common = Vec::new();
        let mut added = Vec::new();
        // Where a column is gone another one may have its values, by a new name: a NULL there is somebody's then, and
        // not what ALTER TABLE ADD COLUMN leaves.
        let may_be_renamed = old.columns.iter().any(|column| new.column(&column.name).is_none());
        for (index, column) in new.columns.iter().enumerate() {
            match old.column(&column.name) {
                Some(before) => common.push((before, index)),
                None if may_be_renamed => added.push((index, None)),
                None => added.push((index, defaults.of(column, new.strict)?)),
            }
        }
        let rowid_is_key = |table: &Table| table.key.is_empty() || table.rowid_column.is_some();
        let same_reading = old.kind == new.kind
            && old.generated == new.generated
            && old.strict == new.strict
            && new.columns.starts_with(&old.columns);
        Ok(Plan {
            old: old.clone(),
            new: new.clone(),
            method: method(old, new),
            rowid_is_key: rowid_is_key(old) && rowid_is_key(new),
            same_reading,
            common,
            added,
        })
    }

    /// [`Plan::same`] for the rows that two readers stand on. Where it holds, they have the same key as well.
    pub fn same_rows(&self, before: &Reader<'_>, after: &Reader<'_>) -> Result<bool, Error> {
        for &(old, new) in &self.common {
            if !before.is_same(old, after, new) {
                return Ok(false);
            }
        }
        for (new, default) in &self.added {
            if default.is_none() || Some(after.value(*new)?) != *default {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a row is the same on both sides: equal in all columns that both have, and with the default in
    /// those that only the new one has. Columns that only the old one had are gone from all rows alike.
    pub fn same(&self, before: &Row, after: &Row) -> bool {
        self.common.iter().all(|&(old, new)| before.values.get(old) == after.values.get(new))
            && self
                .added
                .iter()
                .all(|(new, default)| default.is_some() && after.values.get(*new) == default.as_ref())
    }
}

fn method(old: &Table, new: &Table) -> Method {
    let name = |table: &Table, column: usize| table.columns[column].name.to_ascii_lowercase();
    let names = |table: &Table| table.key.iter().map(|&column| name(table, column)).collect::<Vec<_>>();
    let rowids = old.rowid.is_some() && new.rowid.is_some();
    match (names(old) == names(new), rowids) {
        (false, _) => Method::Replaced,
        (true, true) => Method::Rowids,
        (true, false) if !new.key.is_empty() => Method::Keys,
        (true, false) if old.rowid.is_none() && new.rowid.is_none() => Method::Nameless,
        (true, false) => Method::Replaced,
    }
}

/// Whether the rows of two definitions of a table cannot be paired: all of the old are gone, all of the new
/// are new.
pub(crate) fn is_replaced(old: &Table, new: &Table) -> bool {
    method(old, new) == Method::Replaced
}

/// What rows have in columns that ALTER TABLE added and nobody wrote.
pub(super) struct Defaults {
    encoding: Encoding,
    scratch: Option<Connection>,
    /// How many more are evaluated: a hostile schema has room for millions, and nothing bounds their time.
    left: usize,
}

impl Defaults {
    /// Defaults of columns, texts in the encoding given.
    pub const fn new(encoding: Encoding) -> Defaults {
        Defaults { encoding, scratch: None, left: MAX_DEFAULTS }
    }

    /// The default of a column; `None` where it is not known, because it is an expression. A literal is
    /// evaluated by SQLite, in a database of its own.
    fn of(&mut self, column: &Column, strict: bool) -> Result<Option<Value>, Error> {
        let Some(default) = &column.default else { return Ok(Some(Value::Null)) };
        if !is_literal(default) || self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let failed = |source| Error::Sqlite { doing: "evaluating a default".into(), source };
        let scratch = match &mut self.scratch {
            Some(scratch) => scratch,
            none => {
                let scratch = Connection::open_in_memory().map_err(failed)?;
                let setup = format!("PRAGMA encoding = '{}'", self.encoding.as_str());
                scratch.execute_batch(&setup).map_err(failed)?;
                none.insert(scratch)
            }
        };
        let kind = affinity(&column.declared, strict);
        let sql = format!(
            "DROP TABLE IF EXISTS scratch; CREATE TABLE scratch(value {kind} DEFAULT {default});
             INSERT INTO scratch DEFAULT VALUES"
        );
        if scratch.execute_batch(&sql).is_err() {
            // A keyword looks like a word, which would be a text.
            return Ok(None);
        }
        let mut statement = Statement::prepare(scratch, "SELECT value FROM scratch", "evaluating a default")?;
        statement.step()?;
        Ok(Some(statement.value(0, self.encoding)?))
    }
}

/// A type with the affinity of a declared one, by SQLite's rules.
pub(crate) fn affinity(declared: &str, strict: bool) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        "INTEGER"
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        "TEXT"
    } else if has("BLOB") || declared.is_empty() || (strict && declared == "ANY") {
        "BLOB"
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        "REAL"
    } else {
        "NUMERIC"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_what_the_column_would_store() {
        let mut defaults = Defaults::new(Encoding::Utf8);
        let mut default = |declared: &str, sql: &str| {
            let column = Column {
                name: "c".into(),
                declared: declared.into(),
                collation: "BINARY".into(),
                not_null: false,
                default: Some(sql.into()),
            };
            defaults.of(&column, false).unwrap()
        };
        assert_eq!(default("TEXT", "5"), Some(Value::Text(b"5".to_vec())));
        assert_eq!(default("REAL", "5"), Some(Value::Real(5.0)));
        assert_eq!(default("", "'it''s'"), Some(Value::Text(b"it's".to_vec())));
        assert_eq!(default("INT", "-7"), Some(Value::Integer(-7)));
        assert_eq!(default("BOOLEAN", "TRUE"), Some(Value::Integer(1)));
        assert_eq!(default("TEXT", "word"), Some(Value::Text(b"word".to_vec())));
        assert_eq!(default("INT", "random()"), None);
        assert_eq!(default("INT", "select"), None);
        (0..MAX_DEFAULTS).for_each(|_| drop(default("INT", "select")));
        assert_eq!(default("INT", "1"), None);
    }
}
