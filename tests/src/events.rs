//! Databases like an application's, made from a seed: one table of events with text, real and blob
//! columns and two indexes, pages of 4 KiB, WAL mode. About half of it compresses away.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::random::Random;

/// Changing what a seed gives means raising this: cached databases carry it in their name.
const GENERATION: u32 = 1;

/// What a row takes in the file, its share of both indexes included; measured.
const ROW_BYTES: u64 = 387;

/// Bytes of a row's blob: random, so they do not compress.
const PAYLOAD_LEN: usize = 80;

const WORDS: [&str; 64] = [
    "order",
    "invoice",
    "customer",
    "payment",
    "shipped",
    "delivered",
    "address",
    "changed",
    "session",
    "opened",
    "closed",
    "request",
    "accepted",
    "declined",
    "by",
    "the",
    "warehouse",
    "after",
    "review",
    "manager",
    "refund",
    "issued",
    "to",
    "account",
    "from",
    "mobile",
    "browser",
    "retry",
    "timeout",
    "gateway",
    "stock",
    "item",
    "reserved",
    "released",
    "label",
    "printed",
    "courier",
    "notified",
    "with",
    "tracking",
    "number",
    "email",
    "bounced",
    "ticket",
    "assigned",
    "support",
    "resolved",
    "in",
    "minutes",
    "currency",
    "converted",
    "discount",
    "applied",
    "basket",
    "abandoned",
    "reminder",
    "sent",
    "profile",
    "updated",
    "password",
    "reset",
    "token",
    "expired",
    "archived",
];

const KINDS: [&str; 8] = ["order", "payment", "shipping", "support", "session", "stock", "mail", "account"];

/// A database that a seed describes.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    /// What it is called in the tables of the benchmark.
    pub name: &'static str,
    /// Size of the file, within a few per cent.
    pub bytes: u64,
    /// What its rows are drawn from.
    pub seed: u64,
}

/// S, 100 MB.
pub const SMALL: Events = Events { name: "S", bytes: 100_000_000, seed: 1 };

/// L, 1 GB.
pub const LARGE: Events = Events { name: "L", bytes: 1_000_000_000, seed: 2 };

impl Events {
    /// How many rows it has.
    pub const fn rows(&self) -> u64 {
        self.bytes / ROW_BYTES
    }

    /// Its file in `folder`, made if it is not there yet.
    ///
    /// # Errors
    /// SQLite's, of making it.
    pub fn cached(&self, folder: &Path) -> rusqlite::Result<PathBuf> {
        let path = folder.join(format!("{}-{}-{}-{GENERATION}.db", self.name, self.bytes, self.seed));
        if !path.exists() {
            let unfinished = path.with_extension("unfinished");
            let _ = std::fs::remove_file(&unfinished);
            self.create(&unfinished)?;
            std::fs::rename(&unfinished, &path).expect("a file can be renamed within its folder");
        }
        Ok(path)
    }

    /// Makes it as a new file.
    ///
    /// # Errors
    /// SQLite's.
    pub fn create(&self, path: &Path) -> rusqlite::Result<()> {
        let mut random = Random::new(self.seed);
        let mut database = Connection::open(path)?;
        // A file that is renamed only when it is done needs no journal.
        database.execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE events(
                 id INTEGER PRIMARY KEY, happened_at REAL NOT NULL, kind TEXT NOT NULL, user INTEGER NOT NULL,
                 message TEXT NOT NULL, amount REAL, payload BLOB);",
        )?;
        let transaction = database.transaction()?;
        insert(&transaction, &mut random, self.rows())?;
        transaction.execute_batch(
            "CREATE INDEX events_by_kind ON events(kind, happened_at);
             CREATE INDEX events_by_user ON events(user, happened_at);",
        )?;
        transaction.commit()?;
        database.execute_batch("PRAGMA journal_mode = WAL;")
    }
}

fn insert(database: &Connection, random: &mut Random, rows: u64) -> rusqlite::Result<()> {
    let mut insert = database.prepare(
        "INSERT INTO events(happened_at, kind, user, message, amount, payload) VALUES(?, ?, ?, ?, ?, ?)",
    )?;
    let mut time = 1_700_000_000.0;
    let mut message = String::new();
    let mut payload = [0; PAYLOAD_LEN];
    for _ in 0..rows {
        time += number(random, 1000) / 100.0;
        write_message(random, &mut message);
        random.fill(&mut payload);
        let kind = KINDS[index(random, KINDS.len())];
        let user = i64::try_from(random.below(100_000)).unwrap_or(0);
        insert.execute(params![time, kind, user, message, number(random, 100_000) / 100.0, payload])?;
    }
    Ok(())
}

/// Changes `count` rows at random in place, as an application updates a state: the amount and the
/// payload, which no index holds. Everything is in the file itself afterwards, not in the WAL.
///
/// # Errors
/// SQLite's.
pub fn change_rows(path: &Path, random: &mut Random, count: u64) -> rusqlite::Result<()> {
    let mut database = Connection::open(path)?;
    change_rows_in(&mut database, random, count)?;
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// The same through an application's own connection, and left where SQLite leaves it: in the WAL.
///
/// # Errors
/// SQLite's.
pub fn change_rows_in(database: &mut Connection, random: &mut Random, count: u64) -> rusqlite::Result<()> {
    let rows: i64 = database.query_row("SELECT max(id) FROM events", [], |row| row.get(0))?;
    let rows = u64::try_from(rows).unwrap_or(1);
    let transaction = database.transaction()?;
    {
        let mut update = transaction.prepare("UPDATE events SET amount = ?, payload = ? WHERE id = ?")?;
        let mut payload = [0; PAYLOAD_LEN];
        for _ in 0..count {
            random.fill(&mut payload);
            let id = i64::try_from(random.below(rows) + 1).unwrap_or(1);
            update.execute(params![number(random, 100_000) / 100.0, payload, id])?;
        }
    }
    transaction.commit()
}

fn write_message(random: &mut Random, message: &mut String) {
    message.clear();
    let words = 17 + index(random, 14);
    for _ in 0..words {
        message.push_str(WORDS[index(random, WORDS.len())]);
        message.push(' ');
    }
    // Ids and references, as a log line has them.
    _ = write!(message, "#{:08} ref={:016x}", random.below(100_000_000), random.bits());
}

fn index(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).unwrap_or(0)
}

fn number(random: &mut Random, end: u64) -> f64 {
    f64::from(u32::try_from(random.below(end)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_database() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let small = Events { name: "small", bytes: 1 << 20, seed: 7 };
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        small.create(&one).expect("made");
        small.create(&other).expect("made");
        assert_eq!(std::fs::read(&one).expect("read"), std::fs::read(&other).expect("read"));
    }

    #[test]
    fn the_size_is_about_what_was_asked_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("db");
        let bytes = 8 << 20;
        Events { name: "small", bytes, seed: 7 }.create(&path).expect("made");
        let len = std::fs::metadata(&path).expect("there").len();
        assert!(len.abs_diff(bytes) < bytes / 20, "{len} bytes instead of {bytes}");
    }
}
