//! Reading what one table is: its columns, its key, and how SQL reaches its rowid.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char, c_int};

use rusqlite::{Connection, ffi};

use super::error::Error;
use super::key::MAX_VALUES;
use super::schema::{Column, KeyPart, MAX_SQL, Object, Table, TableKind};
use super::sql_text::{is_strict, module_of, quoted};
use super::statement::Statement;

/// The names by which SQL reaches a rowid, where no column has them.
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// Reads a table; `indexes` are the indexes that `sqlite_schema` names.
pub(super) fn read_table(
    connection: &Connection,
    object: &Object,
    indexes: &HashSet<&str>,
) -> Result<Table, Error> {
    let sql = object.sql.clone().unwrap_or_default();
    let mut table = Table {
        name: object.name.clone(),
        kind: TableKind::Rowid,
        columns: Vec::new(),
        generated: Vec::new(),
        key: Vec::new(),
        key_parts: Vec::new(),
        key_index: None,
        other_unique: false,
        rowid: None,
        rowid_column: None,
        autoincrement: false,
        strict: is_strict(&sql),
        shadow_of: None,
        root: object.root,
        sql,
    };
    if let Some(module) = module_of(&table.sql) {
        table.kind = TableKind::Virtual { module };
        table.root = None;
        return Ok(table);
    }
    if table.root.is_none() {
        return Err(Error::Schema("a table has no root page"));
    }
    read_columns(connection, &mut table)?;
    read_key(connection, &mut table, indexes)?;
    // SQLite declares no key for it, and what is in it is named by the table that it counts for.
    if table.name.eq_ignore_ascii_case("sqlite_sequence") && table.columns.len() == 2 {
        table.key = vec![0];
    }
    table.rowid = rowid_name(&table);
    Ok(table)
}

fn read_columns(connection: &Connection, table: &mut Table) -> Result<(), Error> {
    let sql = format!("PRAGMA main.table_xinfo({})", quoted(&table.name));
    let doing = format!("reading the columns of {}", table.name);
    let mut statement = Statement::prepare(connection, &sql, doing)?;
    let mut key = Vec::new();
    while statement.step()? {
        if table.columns.len() + table.generated.len() == MAX_VALUES {
            return Err(Error::TooMany { what: "columns in a table", most: MAX_VALUES });
        }
        let text = |column| statement.string(column, MAX_SQL, "bytes in the name of a column");
        let name = text(1)?.ok_or(Error::Schema("a column has no name"))?;
        // 2 and 3 are generated columns, virtual and stored; 1 is a virtual table's hidden one.
        if statement.integer(6) != 0 {
            table.generated.push(name);
            continue;
        }
        if statement.integer(5) > 0 {
            key.push((statement.integer(5), table.columns.len()));
        }
        let details = column_details(connection, table, &name)?;
        table.autoincrement |= details.autoincrement;
        table.columns.push(Column {
            name,
            declared: text(2)?.unwrap_or_default(),
            collation: details.collation,
            not_null: statement.integer(3) != 0,
            default: text(4)?,
        });
    }
    if table.columns.is_empty() {
        return Err(Error::Schema("a table has no columns"));
    }
    key.sort_unstable();
    table.key = key.into_iter().map(|(_, column)| column).collect();
    Ok(())
}

/// What no pragma says of a column.
struct Details {
    collation: String,
    autoincrement: bool,
}

fn column_details(connection: &Connection, table: &Table, column: &str) -> Result<Details, Error> {
    let with_nul = |_| Error::Schema("a name has a zero byte in it");
    let (name, column) =
        (CString::new(&*table.name).map_err(with_nul)?, CString::new(column).map_err(with_nul)?);
    let mut collation: *const c_char = std::ptr::null();
    let mut autoincrement: c_int = 0;
    let nothing = std::ptr::null_mut;
    // SAFETY: the connection is open; the names end with a zero; what is not asked for is null.
    let code = unsafe {
        ffi::sqlite3_table_column_metadata(
            connection.handle(),
            c"main".as_ptr(),
            name.as_ptr(),
            column.as_ptr(),
            std::ptr::null_mut(),
            &mut collation,
            nothing(),
            nothing(),
            &mut autoincrement,
        )
    };
    if code != ffi::SQLITE_OK || collation.is_null() {
        return Err(Error::Schema("a column of a table cannot be looked up"));
    }
    // SAFETY: it ends with a zero, and is copied before SQLite can change the schema.
    let collation = unsafe { CStr::from_ptr(collation) }.to_string_lossy().into_owned();
    Ok(Details { collation, autoincrement: autoincrement != 0 })
}

/// Finds the index of the primary key, and by it what kind of table it is: an INTEGER PRIMARY KEY has no such
/// index, and that of a table WITHOUT ROWID is not in `sqlite_schema`, because it is the table.
fn read_key(connection: &Connection, table: &mut Table, indexes: &HashSet<&str>) -> Result<(), Error> {
    let Some(index) = read_indexes(connection, table)? else {
        if let [column] = table.key[..] {
            table.rowid_column = Some(column);
            table.key_parts = vec![KeyPart { column, collation: "BINARY".into() }];
        }
        return Ok(());
    };
    if !indexes.contains(index.as_str()) {
        table.kind = TableKind::WithoutRowid;
    }
    let sql = format!("PRAGMA main.index_xinfo({})", quoted(&index));
    let mut statement =
        Statement::prepare(connection, &sql, format!("reading the primary key of {}", table.name))?;
    while statement.step()? {
        let text = |column| statement.string(column, MAX_SQL, "bytes in a name");
        if statement.integer(5) == 0 {
            continue;
        }
        let column = text(2)?.and_then(|name| table.column(&name));
        let (Some(column), Some(collation)) = (column, text(4)?) else {
            return Err(Error::Schema("a primary key has a column that its table has not"));
        };
        table.key_parts.push(KeyPart { column, collation });
    }
    if table.key_parts.is_empty() {
        return Err(Error::Schema("a primary key has no columns"));
    }
    drop(statement);
    table.key_index = Some(index);
    Ok(())
}

/// The name of the index that the primary key is kept in; notes whether another one is UNIQUE.
fn read_indexes(connection: &Connection, table: &mut Table) -> Result<Option<String>, Error> {
    let sql = format!("PRAGMA main.index_list({})", quoted(&table.name));
    let mut statement =
        Statement::prepare(connection, &sql, format!("reading the indexes of {}", table.name))?;
    let mut key = None;
    while statement.step()? {
        if statement.string(3, MAX_SQL, "bytes in a name")?.as_deref() == Some("pk") {
            key = statement.string(1, MAX_SQL, "bytes in a name")?;
        } else {
            table.other_unique |= statement.integer(2) != 0;
        }
    }
    Ok(key)
}

fn rowid_name(table: &Table) -> Option<String> {
    if table.is_without_rowid() {
        return None;
    }
    if let Some(column) = table.rowid_column {
        return Some(quoted(&table.columns[column].name));
    }
    let taken = |name: &str| {
        table.column(name).is_some() || table.generated.iter().any(|other| other.eq_ignore_ascii_case(name))
    };
    ROWID_NAMES.into_iter().find(|name| !taken(name)).map(str::to_owned)
}
