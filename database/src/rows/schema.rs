//! What tables a database has: the model that row diff, merge and exports share.
//!
//! A pushed file's schema is hostile. What is read here is `sqlite_schema` and the pragmas `table_xinfo`,
//! `index_list` and `index_xinfo` of ordinary tables: none of them runs a view, a trigger, an expression or
//! the code of a virtual table. `PRAGMA table_list` would (it asks every virtual table for its columns), so
//! which table is virtual, which are its shadow tables and which is STRICT is read from the SQL.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, ffi};
use sqlrsync_protocol::page::PageNumber;

use super::error::Error;
use super::key::RowChange;
use super::sql_text::module_of;
use super::statement::Statement;
use super::table::read_table;
use crate::btree::TableRoot;

/// Entries of `sqlite_schema`, at most.
pub const MAX_OBJECTS: usize = 65_536;
/// Bytes of SQL of one object, at most: SQLite itself takes a million by default.
pub const MAX_SQL: usize = 1 << 20;
/// Bytes of all SQL and names of a schema together, at most.
pub const MAX_SCHEMA: usize = 32 << 20;

/// How a database stores its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// UTF-16, low byte first.
    Utf16le,
    /// UTF-16, high byte first.
    Utf16be,
}

impl Encoding {
    /// As SQLite's functions take it.
    pub(crate) const fn code(self) -> i32 {
        match self {
            Encoding::Utf8 => ffi::SQLITE_UTF8,
            Encoding::Utf16le => ffi::SQLITE_UTF16LE,
            Encoding::Utf16be => ffi::SQLITE_UTF16BE,
        }
    }

    /// As `PRAGMA encoding` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encoding::Utf8 => "UTF-8",
            Encoding::Utf16le => "UTF-16le",
            Encoding::Utf16be => "UTF-16be",
        }
    }

    /// UTF-16 of this machine's byte order.
    pub(crate) const fn native_utf16() -> Encoding {
        if cfg!(target_endian = "big") { Encoding::Utf16be } else { Encoding::Utf16le }
    }

    /// A stored text as a string; `None` where it is no valid text.
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        let unit = match self {
            Encoding::Utf8 => return std::str::from_utf8(bytes).ok().map(str::to_owned),
            Encoding::Utf16le => u16::from_le_bytes,
            Encoding::Utf16be => u16::from_be_bytes,
        };
        if !bytes.len().is_multiple_of(2) {
            return None;
        }
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().ok()
    }

    /// A string as it is stored.
    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Encoding::Utf8 => text.as_bytes().to_vec(),
            Encoding::Utf16le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf16be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

/// What an entry of `sqlite_schema` is, or which number of the header changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A table, ordinary or virtual.
    Table,
    /// An index.
    Index,
    /// A view.
    View,
    /// A trigger.
    Trigger,
    /// `PRAGMA application_id`; in a change only.
    ApplicationId,
    /// `PRAGMA user_version`; in a change only.
    UserVersion,
}

impl ObjectKind {
    /// As `sqlite_schema` names it, or the name of the pragma.
    pub const fn as_str(self) -> &'static str {
        match self {
            ObjectKind::Table => "table",
            ObjectKind::Index => "index",
            ObjectKind::View => "view",
            ObjectKind::Trigger => "trigger",
            ObjectKind::ApplicationId => "application_id",
            ObjectKind::UserVersion => "user_version",
        }
    }
}

/// An entry of `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// The table that it belongs to; its own name for a table or a view.
    pub table: String,
    /// Its root page; `None` for what has no B-tree.
    pub root: Option<PageNumber>,
    /// The statement that made it; `None` for the indexes that SQLite makes by itself.
    pub sql: Option<String>,
}

impl Object {
    /// Whether SQLite made it by itself: `sqlite_sequence`, `sqlite_stat1`, indexes of UNIQUE and PRIMARY KEY.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// Whether a name is one of those that SQLite keeps for itself.
pub(crate) fn is_internal(name: &str) -> bool {
    name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}

/// What kind of table it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// An ordinary one.
    Rowid,
    /// WITHOUT ROWID.
    WithoutRowid,
    /// A virtual one. It has no rows of its own: they are in its shadow tables, or nowhere.
    Virtual {
        /// Its module, in lower case.
        module: String,
    },
}

/// A column that rows have a value for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its declared type; empty where it has none.
    pub declared: String,
    /// Its collation.
    pub collation: String,
    /// Whether it is NOT NULL.
    pub not_null: bool,
    /// The SQL of its default; `None` where it has none.
    pub default: Option<String>,
}

/// A part of the index that the primary key is kept in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyPart {
    /// Which of [`Table::columns`].
    pub column: usize,
    /// By which collation it is compared there.
    pub collation: String,
}

/// A table. What is generated is not here: it follows from the columns that are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub kind: TableKind,
    /// The columns that a [`Row`](super::Row) has values for, in order. None for a virtual table.
    pub columns: Vec<Column>,
    /// The names of generated columns, virtual or stored: they are neither compared nor written.
    pub generated: Vec<String>,
    /// The declared primary key: which columns, in the order of the key. Empty where none is declared.
    pub key: Vec<usize>,
    /// The key as its index has it, with collations: what a lookup by key must say. A column may stand here
    /// twice, with two collations.
    pub key_parts: Vec<KeyPart>,
    /// The name of that index; `None` where there is none, or where the key is the rowid.
    pub key_index: Option<String>,
    /// Whether an index other than that is UNIQUE.
    pub other_unique: bool,
    /// How a statement names the rowid, quoted where it must be. `None` where there is none, or where
    /// columns have all three of its names: then no SQL reaches it.
    pub rowid: Option<String>,
    /// The INTEGER PRIMARY KEY column, which is the rowid.
    pub rowid_column: Option<usize>,
    /// Whether it is AUTOINCREMENT.
    pub autoincrement: bool,
    /// Whether it is STRICT.
    pub strict: bool,
    /// The virtual table whose shadow table this is.
    pub shadow_of: Option<Arc<str>>,
    /// The statement that made it.
    pub sql: String,
    /// Its root page; `None` for a virtual table.
    pub root: Option<PageNumber>,
}

impl Table {
    /// Whether it is WITHOUT ROWID.
    pub fn is_without_rowid(&self) -> bool {
        self.kind == TableKind::WithoutRowid
    }

    /// Whether it is virtual.
    pub fn is_virtual(&self) -> bool {
        matches!(self.kind, TableKind::Virtual { .. })
    }

    /// Whether it is one that SQLite keeps for itself.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// Whether it is a shadow table of a full-text index other than the texts themselves: what is in it is
    /// for nobody to read, and follows from what is indexed.
    pub fn is_search_index(&self) -> bool {
        let Some(owner) = &self.shadow_of else { return false };
        let suffix = self.name.get(owner.len() + 1..).unwrap_or_default();
        SEARCH_INDEX_SUFFIXES.iter().any(|known| suffix.eq_ignore_ascii_case(known))
    }

    /// Which column has a name; names are the same whatever the case of their ASCII letters.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }
}

/// A database's schema.
#[derive(Clone, Debug)]
pub struct Schema {
    /// How it stores texts.
    pub encoding: Encoding,
    /// `PRAGMA application_id`.
    pub application_id: i32,
    /// `PRAGMA user_version`.
    pub user_version: i32,
    /// All of `sqlite_schema`, in its order.
    pub objects: Vec<Object>,
    /// The tables, by name.
    pub tables: BTreeMap<String, Arc<Table>>,
}

/// What changed in the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChange {
    /// Of what.
    pub kind: ObjectKind,
    /// Its name; that of the pragma for a number of the header.
    pub name: String,
    /// The table that it belongs to.
    pub table: String,
    /// Its SQL before, or the number; `None` where it is new.
    pub before: Option<String>,
    /// Its SQL after, or the number; `None` where it is gone.
    pub after: Option<String>,
}

/// A difference between two databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Of the schema.
    Schema(SchemaChange),
    /// Of a row.
    Row(RowChange),
}

impl Schema {
    /// Reads the schema of a database.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond the maxima above; [`Error::Schema`] and [`Error::Sqlite`] for a damaged one.
    pub fn read(connection: &Connection) -> Result<Schema, Error> {
        let objects = read_objects(connection)?;
        let number = |pragma: &str| -> Result<i64, Error> {
            let mut statement =
                Statement::prepare(connection, &format!("PRAGMA main.{pragma}"), "reading the header")?;
            statement.step()?;
            Ok(statement.integer(0))
        };
        let mut schema = Schema {
            encoding: read_encoding(connection)?,
            application_id: number("application_id")? as i32,
            user_version: number("user_version")? as i32,
            objects: Vec::new(),
            tables: BTreeMap::new(),
        };
        let indexes: HashSet<&str> = objects
            .iter()
            .filter(|object| object.kind == ObjectKind::Index)
            .map(|index| index.name.as_str())
            .collect();
        let shadows = shadow_tables(&objects);
        for object in objects.iter().filter(|object| object.kind == ObjectKind::Table) {
            let mut table = read_table(connection, object, &indexes)?;
            table.shadow_of = shadows.get(&object.name.to_ascii_lowercase()).cloned();
            schema.tables.entry(object.name.clone()).or_insert_with(|| Arc::new(table));
        }
        schema.objects = objects;
        Ok(schema)
    }

    /// A table by its name.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    /// Whether it has the table in which AUTOINCREMENT counts.
    pub(crate) fn counts(&self) -> bool {
        self.tables.contains_key("sqlite_sequence")
    }

    /// Where the B-trees of the tables begin. `sqlite_schema` itself is not among them.
    pub fn table_roots(&self) -> Vec<TableRoot> {
        let root = |table: &Arc<Table>| {
            let key_columns = table.is_without_rowid().then_some(table.key_parts.len());
            Some(TableRoot { name: table.name.clone(), root: table.root?, key_columns })
        };
        self.tables.values().filter_map(root).collect()
    }

    /// The root pages of the indexes: all other B-trees but `sqlite_schema`.
    pub fn index_roots(&self) -> Vec<PageNumber> {
        let indexes = self.objects.iter().filter(|object| object.kind == ObjectKind::Index);
        indexes.filter_map(|object| object.root).collect()
    }

    /// What must be done to this schema to make another of it: first what goes, then what is new or
    /// different, each in the order in which its database has it. What SQLite makes by itself is left out.
    pub fn changes_to(&self, new: &Schema) -> Vec<SchemaChange> {
        let named = |schema: &Schema| -> BTreeMap<(ObjectKind, String), Option<String>> {
            let made = schema.objects.iter().filter(|object| object.sql.is_some() && !object.is_internal());
            made.map(|object| ((object.kind, object.name.clone()), object.sql.clone())).collect()
        };
        let (before, after) = (named(self), named(new));
        let mut changes = header_changes(self, new);
        let change = |object: &Object, before, after| SchemaChange {
            kind: object.kind,
            name: object.name.clone(),
            table: object.table.clone(),
            before,
            after,
        };
        for object in &self.objects {
            let id = (object.kind, object.name.clone());
            if let Some(sql) = before.get(&id).filter(|_| !after.contains_key(&id)) {
                changes.push(change(object, sql.clone(), None));
            }
        }
        for object in &new.objects {
            let id = (object.kind, object.name.clone());
            if let Some(sql) = after.get(&id).filter(|&sql| before.get(&id) != Some(sql)) {
                changes.push(change(object, before.get(&id).cloned().flatten(), sql.clone()));
            }
        }
        changes
    }
}

fn header_changes(old: &Schema, new: &Schema) -> Vec<SchemaChange> {
    let numbers = [
        (ObjectKind::ApplicationId, old.application_id, new.application_id),
        (ObjectKind::UserVersion, old.user_version, new.user_version),
    ];
    let differing = numbers.into_iter().filter(|(_, before, after)| before != after);
    differing
        .map(|(kind, before, after)| SchemaChange {
            kind,
            name: kind.as_str().into(),
            table: String::new(),
            before: Some(before.to_string()),
            after: Some(after.to_string()),
        })
        .collect()
}

fn read_encoding(connection: &Connection) -> Result<Encoding, Error> {
    let mut statement = Statement::prepare(connection, "PRAGMA main.encoding", "reading the header")?;
    statement.step()?;
    match statement.string(0, 16, "bytes in an encoding's name")?.as_deref() {
        Some("UTF-8") => Ok(Encoding::Utf8),
        Some("UTF-16le") => Ok(Encoding::Utf16le),
        Some("UTF-16be") => Ok(Encoding::Utf16be),
        _ => Err(Error::Schema("its text encoding is unknown")),
    }
}

fn read_objects(connection: &Connection) -> Result<Vec<Object>, Error> {
    let sql = "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema";
    let mut statement = Statement::prepare(connection, sql, "reading the schema")?;
    let mut objects = Vec::new();
    let mut room = MAX_SCHEMA;
    while statement.step()? {
        if objects.len() == MAX_OBJECTS {
            return Err(Error::TooMany { what: "tables, indexes, views and triggers", most: MAX_OBJECTS });
        }
        let text = |column| statement.string(column, MAX_SQL, "bytes in the SQL of one table");
        let kind = match text(0)?.as_deref() {
            Some("table") => ObjectKind::Table,
            Some("index") => ObjectKind::Index,
            Some("view") => ObjectKind::View,
            Some("trigger") => ObjectKind::Trigger,
            _ => return Err(Error::Schema("an entry is neither table, index, view nor trigger")),
        };
        let (Some(name), Some(table)) = (text(1)?, text(2)?) else {
            return Err(Error::Schema("an entry has no name"));
        };
        let sql = text(4)?;
        let taken = name.len() + table.len() + sql.as_ref().map_or(0, String::len);
        room = room
            .checked_sub(taken)
            .ok_or(Error::TooMany { what: "bytes of SQL in its schema", most: MAX_SCHEMA })?;
        let root = u32::try_from(statement.integer(3)).ok().and_then(PageNumber::new);
        objects.push(Object { kind, name, table, root, sql });
    }
    Ok(objects)
}

/// The shadow tables by lower-case name, each with its virtual table.
fn shadow_tables(objects: &[Object]) -> BTreeMap<String, Arc<str>> {
    let mut shadows = BTreeMap::new();
    for object in objects.iter().filter(|object| object.kind == ObjectKind::Table) {
        let Some(module) = object.sql.as_deref().and_then(module_of) else { continue };
        let owner: Arc<str> = object.name.as_str().into();
        for suffix in shadow_suffixes(&module) {
            shadows.insert(format!("{}_{suffix}", object.name.to_ascii_lowercase()), owner.clone());
        }
    }
    shadows
}

/// Of the tables of fts3, fts4 and fts5, those that hold the index. R-trees use none of these names.
const SEARCH_INDEX_SUFFIXES: [&str; 7] = ["data", "idx", "docsize", "config", "segments", "segdir", "stat"];

/// What the shadow tables of a module are called after their virtual table, for the modules that come with
/// SQLite. The tables of any other module count as ordinary ones.
pub(crate) fn shadow_suffixes(module: &str) -> &'static [&'static str] {
    match module {
        "fts3" | "fts4" => &["content", "segments", "segdir", "docsize", "stat"],
        "fts5" => &["data", "idx", "content", "docsize", "config"],
        "rtree" | "rtree_i32" | "geopoly" => &["node", "parent", "rowid"],
        _ => &[],
    }
}
