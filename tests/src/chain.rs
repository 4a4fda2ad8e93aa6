//! A database whose every committed state can be told from every other, and from any mixture of two.
//!
//! State `n` is what `n` transactions have made of it, each of which counts up, adds a link and writes
//! [`ROWS_EACH`] of the rows anew. What each row must hold follows from `n` alone, so whoever has a copy
//! can say which state it is, or that it is none.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::random::Random;

/// Rows that are written again and again.
const ROWS: u32 = 400;

/// How many of them each transaction writes.
const ROWS_EACH: u32 = 40;

/// Bytes of a row, random ones.
const ROW_LEN: usize = 2_000;

/// Makes state 0 as a new file.
pub fn create(path: &Path, journal: &str) {
    let mut database = open(path);
    database
        .execute_batch(&format!(
            "PRAGMA journal_mode = {journal};
             CREATE TABLE tip(n INTEGER NOT NULL);
             CREATE TABLE link(n INTEGER PRIMARY KEY, text TEXT NOT NULL);
             CREATE TABLE row(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, bytes BLOB NOT NULL);
             INSERT INTO tip VALUES(0);"
        ))
        .expect("a schema can be made");
    let transaction = database.transaction().expect("a transaction can begin");
    for id in 0..ROWS {
        transaction.execute("INSERT INTO row VALUES(?, 0, ?)", params![id, bytes(id, 0)]).expect("inserted");
    }
    transaction.commit().expect("committed");
}

/// Makes the next state in one transaction, and says which it is.
pub fn step(path: &Path) -> u32 {
    let mut database = open(path);
    let n = tip(&database).expect("a state") + 1;
    let transaction = database.transaction().expect("a transaction can begin");
    let first = (n % (ROWS / ROWS_EACH)) * ROWS_EACH;
    for id in first..first + ROWS_EACH {
        let changed = "UPDATE row SET n = ?, bytes = ? WHERE id = ?";
        transaction.execute(changed, params![n, bytes(id, n), id]).expect("updated");
    }
    transaction.execute("INSERT INTO link VALUES(?, ?)", params![n, format!("link {n}")]).expect("inserted");
    transaction.execute("UPDATE tip SET n = ?", [n]).expect("updated");
    transaction.commit().expect("committed");
    n
}

/// Which state a copy is.
///
/// # Panics
/// Where it is none.
#[track_caller]
pub fn state(path: &Path) -> u32 {
    let database = open(path);
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(check, "ok", "{}", path.display());
    match state_of(&database) {
        Ok(n) => n,
        Err(why) => panic!("{} is no state that was ever committed: {why}", path.display()),
    }
}

fn state_of(database: &Connection) -> Result<u32, String> {
    // One transaction: the copy may be followed on while this reads.
    database.execute_batch("BEGIN").map_err(|error| error.to_string())?;
    let n = tip(database).map_err(|error| error.to_string())?;
    let links = "SELECT count(*) FROM link WHERE n BETWEEN 1 AND ?1 AND text = 'link ' || n";
    let counts: (u32, u32) = database
        .query_row(&format!("SELECT ({links}), (SELECT count(*) FROM link)"), [n], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(|error| error.to_string())?;
    if counts != (n, n) {
        return Err(format!("{counts:?} links at {n}"));
    }
    let mut rows = database.prepare("SELECT id, n, bytes FROM row ORDER BY id").expect("prepared");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?)));
    let rows: Vec<(u32, u32, Vec<u8>)> =
        rows.and_then(Iterator::collect).map_err(|error| error.to_string())?;
    if rows.len() != ROWS as usize {
        return Err(format!("{} rows at {n}", rows.len()));
    }
    for (expected_id, (id, written, found)) in (0..ROWS).zip(rows) {
        let expected = written_by(expected_id, n);
        if (id, written) != (expected_id, expected) || found != bytes(id, written) {
            return Err(format!("row {id} is of {written} and not of {expected}, at {n}"));
        }
    }
    database.execute_batch("COMMIT").map_err(|error| error.to_string())?;
    Ok(n)
}

fn open(path: &Path) -> Connection {
    let database = Connection::open(path).expect("the database opens");
    database.busy_timeout(Duration::from_secs(30)).expect("a timeout can be set");
    database
}

fn tip(database: &Connection) -> rusqlite::Result<u32> {
    database.query_row("SELECT n FROM tip", [], |row| row.get(0))
}

/// The last state up to `n` that wrote the row.
fn written_by(id: u32, n: u32) -> u32 {
    let (each, writer) = (ROWS / ROWS_EACH, id / ROWS_EACH);
    (n.saturating_sub(each - 1)..=n).rev().find(|n| n % each == writer && *n > 0).unwrap_or(0)
}

fn bytes(id: u32, n: u32) -> Vec<u8> {
    let mut bytes = vec![0; ROW_LEN];
    Random::new(u64::from(n) << 32 | u64::from(id)).fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_recognised_and_a_mixture_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("db");
        create(&path, "delete");
        assert_eq!(state(&path), 0);
        for n in 1..25 {
            assert_eq!(step(&path), n);
            assert_eq!(state(&path), n);
        }
        for damage in [
            "UPDATE row SET n = n - 10 WHERE id = 17",
            "UPDATE row SET bytes = zeroblob(2000) WHERE id = 399",
            "DELETE FROM link WHERE n = 3",
            "UPDATE tip SET n = n + 1",
        ] {
            let copy = folder.path().join("copy");
            std::fs::copy(&path, &copy).expect("copied");
            let database = open(&copy);
            database.execute_batch(damage).expect(damage);
            assert!(state_of(&database).is_err(), "{damage}");
        }
    }
}
