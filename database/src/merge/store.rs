//! What both sides changed, in a private SQLite database that spills to a temporary file: memory is bounded
//! however many rows there are, and nothing is left of it when it is closed.
//!
//! One row here is one row of the databases that are merged, by table and key. It holds the row in the base,
//! in theirs and in mine, and the decision which of them the result has. Only what may matter is kept: all
//! that the side changed that is applied onto the other one, and of the other side what has the same key.
//!
//! An image of a row is its bytes, or the number of a [`long`] one, which is written and read piece by piece:
//! SQLite would have a record with a large row in it in memory several times over.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::rows::{Key, Row, Table, Value};
use crate::temporary;
use crate::version::TemporaryDatabase;

use super::long::{self, Image};
use super::{Error, Side};

/// Memory for its pages, in KiB; more goes to the temporary file.
const CACHE_KIB: u32 = 8 * 1024;

/// The theirs side of a row is another one than the base's.
pub(super) const BY_THEIRS: i64 = 1;
/// The mine side of a row is another one than the base's.
pub(super) const BY_MINE: i64 = 2;

/// Which outcome a row has. NULL where it is not decided: somebody has to. 3 is an outcome of its own, in the
/// column `merged`: NULL there means that the row is gone.
pub(super) const TAKE_THEIRS: i64 = 1;
pub(super) const TAKE_MINE: i64 = 2;

const SCHEMA: &str = "
    PRAGMA temp_store = FILE; PRAGMA locking_mode = EXCLUSIVE;
    -- Hashes are NULL where there is no such row. What is long stands last: it is not read for what is before it.
    CREATE TABLE row(
        id INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, hash BLOB NOT NULL, sides INTEGER NOT NULL,
        decision INTEGER, chosen INTEGER NOT NULL DEFAULT 0, conflict INTEGER,
        base_hash BLOB, theirs_hash BLOB, mine_hash BLOB, merged_hash BLOB,
        -- Whether mine is not what its database has: it was renumbered. That is in `held` then.
        renumbered INTEGER NOT NULL DEFAULT 0, held_hash BLOB,
        key BLOB NOT NULL, base BLOB, theirs BLOB, mine BLOB, merged BLOB, held BLOB);
    CREATE UNIQUE INDEX by_key ON row(tbl, hash);
    CREATE INDEX by_conflict ON row(tbl, id) WHERE conflict IS NOT NULL;
    -- Rows that a choice for all drew in: what was decided for them, and why it is no more.
    CREATE TABLE drawn(id INTEGER PRIMARY KEY, decision INTEGER, why INTEGER);
    -- Rows whose insertion waits until all old images are gone.
    CREATE TABLE later(id INTEGER PRIMARY KEY);
    -- What mine's rows name by foreign keys: the number of the key, and the hash of the values.
    CREATE TABLE reference(key INTEGER NOT NULL, named BLOB NOT NULL, row INTEGER NOT NULL);
    CREATE INDEX by_named ON reference(key, named);
    CREATE INDEX by_row ON reference(row);
    -- Images that are long.
    CREATE TABLE long(id INTEGER PRIMARY KEY, image BLOB NOT NULL);
    BEGIN;
";

/// The store.
pub(super) struct Store {
    db: TemporaryDatabase,
    tables: Vec<Arc<Table>>,
    numbers: HashMap<String, i64>,
}

/// A row as all three have it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub id: i64,
    pub table: Arc<Table>,
    pub key: Key,
    pub sides: i64,
    pub base: Option<Row>,
    pub theirs: Option<Row>,
    pub mine: Option<Row>,
}

impl Stored {
    /// The row as a side has it.
    pub fn of(&self, side: Side) -> Option<&Row> {
        match side {
            Side::Theirs => self.theirs.as_ref(),
            Side::Mine => self.mine.as_ref(),
        }
    }
}

/// The row as theirs, and as mine has it. What a side did not change is stored once.
pub(super) const THEIRS: &str = "iif(sides & 1, theirs, base)";
pub(super) const MINE: &str = "iif(sides & 2, mine, base)";

/// What `Stored` is read from.
pub(super) const STORED: &str =
    "id, tbl, key, sides, base, iif(sides & 1, theirs, base), iif(sides & 2, mine, base)";

impl Store {
    /// An empty one, of so many bytes at most.
    pub fn within(bytes_max: u64) -> Result<Store, Error> {
        let db = temporary::database(CACHE_KIB, bytes_max).map_err(Error::store)?;
        db.execute_batch(SCHEMA).map_err(Error::store)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(Store { db, tables: Vec::new(), numbers: HashMap::new() })
    }

    /// The database itself, for what works on all rows at once.
    pub fn db(&self) -> &Connection {
        &self.db
    }

    /// The number of a table in here. The first definition that is seen counts.
    pub fn number(&mut self, table: &Arc<Table>) -> i64 {
        if let Some(&number) = self.numbers.get(&table.name) {
            return number;
        }
        let number = self.tables.len() as i64;
        self.tables.push(table.clone());
        self.numbers.insert(table.name.clone(), number);
        number
    }

    /// The number of a table by name, where a row of it is in here.
    pub fn number_of(&self, table: &str) -> Option<i64> {
        self.numbers.get(table).copied()
    }

    pub fn table(&self, number: i64) -> Result<&Arc<Table>, Error> {
        usize::try_from(number).ok().and_then(|number| self.tables.get(number)).ok_or(Error::Store("a table"))
    }

    /// All tables that have rows in here.
    pub fn tables(&self) -> impl Iterator<Item = (i64, &Arc<Table>)> {
        self.tables.iter().enumerate().map(|(number, table)| (number as i64, table))
    }

    /// Puts in what a side did to a row.
    pub fn put(
        &mut self,
        side: Side,
        table: &Arc<Table>,
        key: &Key,
        before: Option<&Row>,
        after: Option<&Row>,
    ) -> Result<(), Error> {
        let number = self.number(table);
        let key = key.to_bytes();
        // The side that did not change it has it as the base does, until it is put in as well.
        let sql = match side {
            Side::Theirs => {
                "INSERT INTO row(tbl, hash, key, sides, base, base_hash, theirs, theirs_hash, mine_hash)
                 VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?5)
                 ON CONFLICT DO UPDATE SET sides = sides | 1, theirs = ?6, theirs_hash = ?7"
            }
            Side::Mine => {
                "INSERT INTO row(tbl, hash, key, sides, base, base_hash, mine, mine_hash, theirs_hash)
                 VALUES (?1, ?2, ?3, 2, ?4, ?5, ?6, ?7, ?5)
                 ON CONFLICT DO UPDATE SET sides = sides | 2, mine = ?6, mine_hash = ?7"
            }
        };
        let (before, before_hash) = self.encoded(before)?;
        let (after, after_hash) = self.encoded(after)?;
        let row = params![number, hash_of_key(&key), key, before, before_hash, after, after_hash];
        self.run(sql, row).map(drop)
    }

    /// The image of a row as it is kept, and its hash.
    fn encoded(&self, row: Option<&Row>) -> Result<(Option<Image>, Option<[u8; 32]>), Error> {
        let Some(row) = row else { return Ok((None, None)) };
        Ok((Some(long::put(&self.db, row)?), Some(hash_of_row(row))))
    }

    /// A column of a query as the image of a row.
    pub fn image(&self, row: &rusqlite::Row<'_>, column: usize) -> Result<Option<Row>, Error> {
        match row.get_ref(column).map_err(Error::store)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(id) => long::get(&self.db, id).map(Some),
            ValueRef::Blob(bytes) => Ok(Some(Row::from_bytes(bytes)?)),
            _ => Err(Error::Store("a row")),
        }
    }

    /// Makes the base another row, which a side that did not change it has as well.
    pub fn replace_base(&self, id: i64, unchanged: Side, base: Option<&Row>) -> Result<(), Error> {
        let sql = match unchanged {
            Side::Theirs => "UPDATE row SET base = ?2, base_hash = ?3, theirs_hash = ?3 WHERE id = ?1",
            Side::Mine => "UPDATE row SET base = ?2, base_hash = ?3, mine_hash = ?3 WHERE id = ?1",
        };
        let (base, hash) = self.encoded(base)?;
        self.run(sql, params![id, base, hash]).map(drop)
    }

    /// The next row of a table, by id, that a side is not known to have changed.
    pub fn next_without(&self, table: i64, side: i64, after: i64) -> Result<Option<i64>, Error> {
        self.db
            .prepare_cached(
                "SELECT id FROM row WHERE tbl = ?1 AND sides & ?2 = 0 AND id > ?3 ORDER BY id LIMIT 1",
            )
            .and_then(|mut statement| statement.query_row([table, side, after], |row| row.get(0)).optional())
            .map_err(Error::store)
    }

    /// Whether a row with this key is in here.
    pub fn has(&self, table: &str, key: &Key) -> Result<bool, Error> {
        Ok(self.find(table, key)?.is_some())
    }

    /// The id of a row.
    pub fn find(&self, table: &str, key: &Key) -> Result<Option<i64>, Error> {
        let Some(number) = self.number_of(table) else { return Ok(None) };
        self.db
            .prepare_cached("SELECT id FROM row WHERE tbl = ?1 AND hash = ?2")
            .and_then(|mut statement| {
                statement
                    .query_row(params![number, hash_of_key(&key.to_bytes())], |row| row.get(0))
                    .optional()
            })
            .map_err(Error::store)
    }

    /// A row by its id.
    pub fn get(&self, id: i64) -> Result<Stored, Error> {
        let mut statement = self
            .db
            .prepare_cached(&format!("SELECT {STORED} FROM row WHERE id = ?1"))
            .map_err(Error::store)?;
        let mut rows = statement.query([id]).map_err(Error::store)?;
        let row = rows.next().map_err(Error::store)?.ok_or(Error::Store("a row"))?;
        self.stored(row)
    }

    /// From a row of a query that begins with [`STORED`].
    pub fn stored(&self, row: &rusqlite::Row<'_>) -> Result<Stored, Error> {
        Ok(Stored {
            id: row.get(0).map_err(Error::store)?,
            table: self.table(row.get(1).map_err(Error::store)?)?.clone(),
            key: Key::from_bytes(bytes(row, 2)?.ok_or(Error::Store("a key"))?)?,
            sides: row.get(3).map_err(Error::store)?,
            base: self.image(row, 4)?,
            theirs: self.image(row, 5)?,
            mine: self.image(row, 6)?,
        })
    }

    /// Makes mine another row than its database has.
    pub fn replace_mine(&self, id: i64, mine: Option<&Row>) -> Result<(), Error> {
        let (mine, hash) = self.encoded(mine)?;
        self.run(
            "UPDATE row SET held = iif(renumbered, held, iif(sides & 2, mine, base)), held_hash = iif(renumbered, held_hash, mine_hash),
                 renumbered = 1, mine = ?2, mine_hash = ?3 WHERE id = ?1",
            params![id, mine, hash],
        )?;
        // What was decided for mine is decided for what it is now; what was not may be now.
        self.run(
            "UPDATE row SET sides = sides & ~2 | iif(mine_hash IS base_hash, 0, 2) WHERE id = ?1",
            [id],
        )?;
        self.run(
            "UPDATE row SET decision = CASE WHEN sides & 2 = 0 OR theirs_hash IS mine_hash THEN 1
                 WHEN sides = 2 THEN 2 END WHERE id = ?1 AND decision IS NULL",
            [id],
        )?;
        Ok(())
    }

    /// A row of mine that no database has, under a new key; its id.
    pub fn add_mine(&mut self, table: &Arc<Table>, key: &Key, mine: &Row) -> Result<i64, Error> {
        self.put(Side::Mine, table, key, None, None)?;
        let id = self.find(&table.name, key)?.ok_or(Error::Store("a row"))?;
        self.replace_mine(id, Some(mine))?;
        Ok(id)
    }

    /// Decides for an outcome of its own.
    pub fn decide_merged(&self, id: i64, merged: Option<&Row>) -> Result<(), Error> {
        let (merged, hash) = self.encoded(merged)?;
        self.run(
            "UPDATE row SET decision = 3, conflict = NULL, merged = ?2, merged_hash = ?3 WHERE id = ?1",
            params![id, merged, hash],
        )
        .map(drop)
    }

    /// Runs a statement over its rows; how many it changed.
    pub fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, Error> {
        self.db.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(Error::store)
    }

    /// A number that a query yields; 0 for none.
    pub fn count(&self, sql: &str, params: impl rusqlite::Params) -> Result<u64, Error> {
        let count: Option<i64> = self
            .db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(params, |row| row.get(0)).optional())
            .map_err(Error::store)?;
        Ok(count.unwrap_or(0).unsigned_abs())
    }
}

/// A column of a query as bytes.
fn bytes<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<Option<&'r [u8]>, Error> {
    row.get_ref(column)
        .and_then(|value| value.as_blob_or_null().map_err(rusqlite::Error::from))
        .map_err(Error::store)
}

/// A column of a query as a key.
pub(super) fn key(row: &rusqlite::Row<'_>, column: usize) -> Result<Key, Error> {
    Ok(Key::from_bytes(bytes(row, column)?.ok_or(Error::Store("a key"))?)?)
}

fn hash_of_key(key: &[u8]) -> [u8; 32] {
    *blake3::hash(key).as_bytes()
}

/// Equal for rows with equal values, whatever their rowids.
fn hash_of_row(row: &Row) -> [u8; 32] {
    hash_of_values(row.values.iter())
}

/// Equal for values that are equal bit for bit.
pub(super) fn hash_of_values<'v>(values: impl Iterator<Item = &'v Value>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for value in values {
        match value {
            Value::Null => {
                hasher.update(&[0]);
            }
            Value::Integer(value) => {
                hasher.update(&[1]).update(&value.to_be_bytes());
            }
            Value::Real(value) => {
                hasher.update(&[2]).update(&value.to_bits().to_be_bytes());
            }
            Value::Text(bytes) => {
                hasher.update(&[3]).update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
            }
            Value::Blob(bytes) => {
                hasher.update(&[4]).update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
            }
        }
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_room_for_is_an_error_that_says_so() {
        // What it begins with is some pages.
        let store = Store::within(256 << 10).unwrap();
        let insert = "INSERT INTO reference SELECT 1, randomblob(32), 1 FROM json_each(?)";
        let many = format!("[{}0]", "0,".repeat(1000));
        let insert = || store.db().execute(insert, [&many]).map_err(Error::store);
        let error = (0..100).map(|_| insert()).find_map(Result::err).expect("it is bounded");
        assert!(matches!(error, Error::NoRoom), "{error}");
        assert!(error.unsupported().is_err(), "it says nothing of the databases");
        // The same for a row that is kept piece by piece.
        let row = Row { rowid: None, values: vec![Value::Blob(vec![1; 1 << 20])] };
        let store = Store::within(256 << 10).unwrap();
        assert!(matches!(store.encoded(Some(&row)), Err(Error::NoRoom)));
    }
}
