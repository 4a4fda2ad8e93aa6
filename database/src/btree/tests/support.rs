//! Databases as contents, and the rows of one as plain SQL has them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;

use roaring::RoaringBitmap;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};

use crate::btree::{ParentMap, Ranges, Roots, TableRoot, Touched, touched};
use crate::rows::Value;

/// A database at some time, and which pages were asked of it.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub geometry: Geometry,
    fields: HeaderFields,
    pub reads: usize,
    /// How many of those had not been said to come.
    pub surprises: usize,
    expected: RoaringBitmap,
}

impl Image {
    /// What is in a database's file now. It has a rollback journal and no open transaction.
    pub fn of(database: &Database) -> Image {
        Image::from_bytes(std::fs::read(database.connection.path().unwrap()).unwrap())
    }

    pub fn from_bytes(mut bytes: Vec<u8>) -> Image {
        let size = u32::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        let page_size = PageSize::from_bytes(if size == 1 { 65_536 } else { size }).unwrap();
        let page_count = PageCount((bytes.len() / page_size.bytes()) as u32);
        let fields = make_canonical(&mut bytes);
        let geometry = Geometry { page_size, page_count };
        Image { bytes, geometry, fields, reads: 0, surprises: 0, expected: RoaringBitmap::new() }
    }

    pub fn page(&self, number: u32) -> Option<&[u8]> {
        self.bytes.chunks_exact(self.geometry.page_size.bytes()).nth(number as usize - 1)
    }

    /// The same content in SQLite.
    pub fn open(&self) -> Database {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        let mut bytes = self.bytes.clone();
        self.fields.put(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        Database { connection: Connection::open(path).unwrap(), _folder: folder }
    }
}

/// A database in a file, since SQLite leaves free pages there as they were.
pub struct Database {
    connection: Connection,
    _folder: tempfile::TempDir,
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Content for Image {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        self.reads += 1;
        self.surprises += usize::from(!self.expected.contains(page.get()));
        into.copy_from_slice(self.page(page.get()).expect("a page that the content has"));
        Ok(())
    }

    fn expect(&mut self, pages: &RoaringBitmap) {
        self.expected = pages.clone();
    }
}

/// The pages in which two contents differ.
pub fn changed(old: &Image, new: &Image) -> RoaringBitmap {
    let size = old.geometry.page_size.bytes();
    let pages = old.geometry.page_count.max(new.geometry.page_count).get();
    (1..=pages)
        .filter(|&number| {
            let at = (number as usize - 1) * size;
            old.bytes.get(at..at + size) != new.bytes.get(at..at + size)
        })
        .collect()
}

pub fn execute(connection: &Connection, sql: &str) {
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// An empty database.
pub fn database(page_size: u32) -> Database {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(folder.path().join("database")).unwrap();
    let database = Database { connection, _folder: folder };
    execute(
        &database,
        &format!("PRAGMA page_size={page_size}; PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY"),
    );
    database
}

fn names(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The trees that `sqlite_schema` names.
pub fn roots(connection: &Connection) -> Roots {
    let mut roots = Roots::default();
    let sql = "SELECT type, name, rootpage FROM sqlite_schema WHERE rootpage > 0 ORDER BY rowid";
    let mut statement = connection.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (kind, name): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let root = PageNumber::new(row.get(2).unwrap()).unwrap();
        if kind == "index" {
            roots.indexes.push(root);
        } else {
            let key = key_columns(connection, &name);
            roots.tables.push(TableRoot { name, root, key_columns: key.map(|key| key.len()) });
        }
    }
    roots
}

/// The key columns of a WITHOUT ROWID table, in order.
fn key_columns(connection: &Connection, table: &str) -> Option<Vec<String>> {
    let without: bool = connection
        .query_row("SELECT wr FROM pragma_table_list WHERE schema='main' AND name=?1", [table], |row| {
            row.get(0)
        })
        .unwrap();
    let sql = format!("SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY pk");
    without.then(|| names(connection, &sql))
}

pub fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// All rows of a table: by rowid, or by the values of the key.
pub fn rows(connection: &Connection, table: &str) -> Vec<(Vec<Value>, Vec<Value>)> {
    let key = key_columns(connection, table);
    let key_sql = key.as_ref().map_or("rowid".to_owned(), |key| key.join(", "));
    let width = key.map_or(1, |key| key.len());
    let mut statement = connection.prepare(&format!("SELECT {key_sql}, * FROM \"{table}\"")).unwrap();
    let columns = statement.column_count();
    let mut found = Vec::new();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let mut values: Vec<Value> = (0..columns).map(|at| value(row.get_ref(at).unwrap())).collect();
        let rest = values.split_off(width);
        found.push((values, rest));
    }
    found
}

/// Keys of the rows that differ or that one of the two does not have, as SQL says, by table.
pub fn differing(old: &Connection, new: &Connection) -> BTreeMap<String, HashSet<Vec<Value>>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type='table' AND rootpage > 0";
    let mut differing = BTreeMap::new();
    let (names_old, names_new) = (names(old, sql), names(new, sql));
    for name in names_old.iter().chain(&names_new) {
        let side = |connection, names: &[String]| {
            if names.contains(name) { rows(connection, name) } else { Vec::new() }
        };
        let (rows_old, rows_new) = (side(old, &names_old), side(new, &names_new));
        // Most are the same at both ends, and are not worth a place in a set.
        let (rows_old, rows_new) = (&rows_old[..], &rows_new[..]);
        let same = rows_old.iter().zip(rows_new).take_while(|(one, other)| one == other).count();
        let (rows_old, rows_new) = (&rows_old[same..], &rows_new[same..]);
        let same = rows_old.iter().rev().zip(rows_new.iter().rev()).take_while(|(one, other)| one == other);
        let same = same.count();
        let set = |rows: &'_ [_]| rows[..rows.len() - same].iter().cloned().collect::<HashSet<_>>();
        let (rows_old, rows_new) = (set(rows_old), set(rows_new));
        let keys = rows_old.symmetric_difference(&rows_new).map(|(key, _)| key.clone());
        differing.insert(name.clone(), keys.collect());
    }
    differing
}

/// A key as SQL compares it: stored keys have texts in the database's encoding, and a REAL column may have
/// stored integers.
fn as_compared(key: &[Value], encoding: &str) -> Vec<Value> {
    let text = |bytes: &[u8]| match encoding {
        "UTF-8" => bytes.to_vec(),
        encoding => {
            let units = bytes.chunks_exact(2).map(|unit| match encoding {
                "UTF-16le" => u16::from_le_bytes([unit[0], unit[1]]),
                _ => u16::from_be_bytes([unit[0], unit[1]]),
            });
            char::decode_utf16(units).map(Result::unwrap).collect::<String>().into_bytes()
        }
    };
    let value = |value: &Value| match value {
        Value::Integer(value) if value.unsigned_abs() < 1 << 53 => Value::Real(*value as f64),
        Value::Text(bytes) => Value::Text(text(bytes)),
        other => other.clone(),
    };
    key.iter().map(value).collect()
}

/// Asserts that each row that differs was found.
pub fn assert_complete(old: &Connection, new: &Connection, found: &Touched, context: &dyn std::fmt::Display) {
    let encoding: String = new.query_row("PRAGMA encoding", [], |row| row.get(0)).unwrap();
    for (table, differing) in differing(old, new) {
        let ranges = found.of(&table);
        let is_within: Box<dyn Fn(&[Value]) -> bool> = match ranges {
            None => Box::new(|_| false),
            Some(Ranges::All) => Box::new(|_| true),
            Some(Ranges::Rowids(ranges)) => Box::new(|key| match key {
                [Value::Integer(rowid)] => ranges.iter().any(|range| range.contains(rowid)),
                _ => panic!("{table} is a WITHOUT ROWID table"),
            }),
            Some(Ranges::Keys(keys)) => {
                let keys: HashSet<_> = keys.iter().map(|key| as_compared(key, &encoding)).collect();
                Box::new(move |key| keys.contains(&as_compared(key, "UTF-8")))
            }
        };
        for key in differing {
            assert!(is_within(&key), "{context}: {table}: {key:?} differs and is not in {ranges:?}");
        }
    }
}

/// A database at two times, with what is found between them.
pub struct Two {
    pub old: Image,
    pub new: Image,
    pub found: Touched,
    /// The map of `new`.
    pub parents: ParentMap,
}

/// Changes a database and finds out what changed; everything that did must be in it.
pub fn change(connection: &Database, change: impl FnOnce(&Connection)) -> Two {
    let (old, roots_old) = (Image::of(connection), roots(connection));
    change(connection);
    let (new, roots_new) = (Image::of(connection), roots(connection));
    let parents = ParentMap::build(&mut old.clone()).unwrap();
    find(old, new, (&roots_old, &roots_new), parents, &"one change")
}

/// Finds what changed between two contents, with this map; every row that did must be in it.
pub fn find(
    old: Image,
    new: Image,
    roots: (&Roots, &Roots),
    parents: ParentMap,
    context: &dyn std::fmt::Display,
) -> Two {
    let two = look(old, new, roots, parents);
    assert_complete(&two.old.open(), &two.new.open(), &two.found, context);
    two
}

/// The same, and nobody checks.
pub fn look(mut old: Image, mut new: Image, roots: (&Roots, &Roots), mut parents: ParentMap) -> Two {
    let changed = ChangedPages::Known(changed(&old, &new));
    for image in [&mut old, &mut new] {
        (image.reads, image.surprises) = (0, 0);
    }
    let found = touched(&mut old, &mut new, &changed, &mut parents, roots).unwrap();
    Two { old, new, found, parents }
}
