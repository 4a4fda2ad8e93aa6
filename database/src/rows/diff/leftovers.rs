//! Rows of one table that did not pair by rowid: which of them have the same key.
//!
//! They are kept in a database of their own, in SQLite's cache as long as they are few, and beyond that in
//! a file without a name that goes away by itself. It holds rowids and keys (the hash of a long one), never
//! rows, and is filled in the order of rowids. A damaged table can have a key twice: each row pairs with one
//! other at most, so that this is never more than a lookup a row.

use rusqlite::OptionalExtension;

use super::super::error::Error;
use super::super::key::Key;
use super::Side;
use crate::temporary;
use crate::version::TemporaryDatabase;

/// What SQLite may keep in memory of it, in KiB.
const CACHE: u32 = 4096;
/// Keys of at most so many bytes stand as they are; of longer ones, their hash.
const SHORT_KEY: usize = 48;

/// See the head of this file.
pub(super) struct Leftovers {
    store: TemporaryDatabase,
    /// The last rowid of the old side that was handed out.
    at: Option<i64>,
    old_done: bool,
}

fn failed(source: rusqlite::Error) -> Error {
    if temporary::is_full(&source) {
        return Error::NoRoom;
    }
    Error::Temporary(source)
}

impl Leftovers {
    pub fn new() -> Result<Leftovers, Error> {
        Leftovers::within(temporary::BYTES_MAX)
    }

    fn within(bytes_max: u64) -> Result<Leftovers, Error> {
        let store = temporary::database(CACHE, bytes_max).map_err(failed)?;
        let setup = "CREATE TABLE old(at INTEGER PRIMARY KEY, key BLOB NOT NULL);
             CREATE TABLE new(at INTEGER PRIMARY KEY, key BLOB NOT NULL);
             BEGIN";
        store.execute_batch(setup).map_err(failed)?;
        Ok(Leftovers { store, at: None, old_done: false })
    }

    /// Notes a row.
    pub fn add(&mut self, side: Side, key: &Key, rowid: i64) -> Result<(), Error> {
        let sql = match side {
            Side::Old => "INSERT OR REPLACE INTO old VALUES(?1, ?2)",
            Side::New => "INSERT OR REPLACE INTO new VALUES(?1, ?2)",
        };
        let mut insert = self.store.prepare_cached(sql).map_err(failed)?;
        insert.execute((rowid, short(key))).map_err(failed)?;
        Ok(())
    }

    /// All are there.
    pub fn index(&mut self) -> Result<(), Error> {
        self.store.execute_batch("CREATE INDEX by_key ON new(key)").map_err(failed)
    }

    /// The next pair of rowids, or a row of one side that has no counterpart: first all of the old side.
    pub fn next(&mut self) -> Result<Option<(Option<i64>, Option<i64>)>, Error> {
        if !self.old_done {
            if let Some((at, key)) = self.next_old()? {
                self.at = Some(at);
                return Ok(Some((Some(at), self.take_new(&key)?)));
            }
            (self.old_done, self.at) = (true, None);
        }
        let next = match self.at {
            None => {
                let sql = "SELECT at FROM new ORDER BY at LIMIT 1";
                self.store.prepare_cached(sql).and_then(|mut select| select.query_row([], |row| row.get(0)))
            }
            Some(at) => {
                let sql = "SELECT at FROM new WHERE at > ?1 ORDER BY at LIMIT 1";
                self.store.prepare_cached(sql).and_then(|mut select| select.query_row([at], |row| row.get(0)))
            }
        };
        self.at = next.optional().map_err(failed)?;
        Ok(self.at.map(|at| (None, Some(at))))
    }

    fn next_old(&self) -> Result<Option<(i64, Vec<u8>)>, Error> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found = match self.at {
            None => {
                let sql = "SELECT at, key FROM old ORDER BY at LIMIT 1";
                self.store.prepare_cached(sql).and_then(|mut select| select.query_row([], read).optional())
            }
            Some(at) => {
                let sql = "SELECT at, key FROM old WHERE at > ?1 ORDER BY at LIMIT 1";
                self.store.prepare_cached(sql).and_then(|mut select| select.query_row([at], read).optional())
            }
        };
        found.map_err(failed)
    }

    /// Takes a row of the new side with this key out.
    fn take_new(&self, key: &[u8]) -> Result<Option<i64>, Error> {
        let sql = "DELETE FROM new WHERE at = (SELECT at FROM new WHERE key = ?1 LIMIT 1) RETURNING at";
        let mut take = self.store.prepare_cached(sql).map_err(failed)?;
        take.query_row([key], |row| row.get(0)).optional().map_err(failed)
    }
}

/// A key's bytes, or their hash where they are many. The two differ in length or in their first byte.
fn short(key: &Key) -> Vec<u8> {
    let bytes = key.to_bytes();
    if bytes.len() <= SHORT_KEY {
        return bytes;
    }
    let mut short = vec![0xff];
    short.extend_from_slice(blake3::hash(&bytes).as_bytes());
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Value;

    fn key(text: &str) -> Key {
        Key::Declared(vec![Value::Text(text.into())])
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error_that_says_so() {
        let mut leftovers = Leftovers::within(64 << 10).unwrap();
        let add = |rowid| leftovers.add(Side::Old, &key("of some forty bytes, as most keys are not"), rowid);
        let error = (0..100_000).map(add).find_map(Result::err).expect("it is bounded");
        assert!(matches!(error, Error::NoRoom), "{error}");
        assert!(error.to_string().contains("temporary"), "{error}");
        assert!(!error.is_of_database());
    }

    #[test]
    fn rows_of_one_key_pair_once_and_the_others_stand_alone() {
        let mut leftovers = Leftovers::new().unwrap();
        let long = "x".repeat(1000);
        for (rowid, text) in [(i64::MIN, "a"), (2, "twice"), (3, "twice"), (4, &long)] {
            leftovers.add(Side::Old, &key(text), rowid).unwrap();
        }
        for (rowid, text) in [(-9, "new"), (1, &*long), (7, "a"), (8, "twice"), (i64::MAX, "z")] {
            leftovers.add(Side::New, &key(text), rowid).unwrap();
        }
        leftovers.index().unwrap();
        let mut found = Vec::new();
        while let Some(pair) = leftovers.next().unwrap() {
            found.push(pair);
        }
        let expected = [
            (Some(i64::MIN), Some(7)),
            (Some(2), Some(8)),
            (Some(3), None),
            (Some(4), Some(1)),
            (None, Some(-9)),
            (None, Some(i64::MAX)),
        ];
        assert_eq!(found, expected);
    }
}
