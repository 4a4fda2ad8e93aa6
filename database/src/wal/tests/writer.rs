//! A program that does to its database whatever programs do, at random and from a seed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Small, reproducible randomness.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len() as u64) as usize]
    }
}

/// How many steps a writer leaves the WAL alone between times in which it does anything.
const CALM_STEPS: u64 = 40;

pub(super) struct Writer {
    path: PathBuf,
    connection: Connection,
    pub(super) random: Random,
    /// Steps that only change rows, as most programs do most of the time.
    calm: u64,
    wait: Duration,
}

impl Writer {
    /// Opens the database, and makes it where there is nothing. `wait` is how long to wait for others.
    pub(super) fn new(path: &Path, seed: u64, wait: Duration) -> Writer {
        let connection = Connection::open(path).unwrap();
        let sql = "PRAGMA page_size = 1024; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
                   CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
                   CREATE INDEX IF NOT EXISTS t_name ON t (name);";
        // SQLite does not wait for others that change the journal mode at the same time.
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = connection.execute_batch(sql) {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut writer = Writer { path: path.into(), connection, random: Random::new(seed), calm: 0, wait };
        writer.insert(300);
        writer.tune();
        writer
    }

    /// Closes the database and opens it again.
    pub(super) fn reopen(&mut self) {
        // An open connection in memory takes its place meanwhile, so that the last one does close.
        self.connection = Connection::open_in_memory().unwrap();
        if let Ok(connection) = Connection::open(&self.path) {
            self.connection = connection;
            self.tune();
        }
    }

    fn tune(&mut self) {
        let (cache, sync) = (3 + self.random.below(20), self.random.pick(&["OFF", "NORMAL", "FULL"]));
        let checkpoint = self.random.pick(&["0", "0", "0", "1000", "100", "10"]);
        let _ = self.connection.busy_timeout(self.wait);
        self.run(&format!(
            "PRAGMA cache_size = {cache}; PRAGMA synchronous = {sync}; PRAGMA wal_autocheckpoint = {checkpoint}"
        ));
    }

    /// That another connection is in the way is no matter: something else comes next.
    fn run(&mut self, sql: &str) {
        let _ = self.connection.execute_batch(sql);
    }

    fn insert(&mut self, rows: u64) {
        self.run(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t (name, data) SELECT 'name ' || abs(random() % 1000), randomblob(i % 700) FROM n"
        ));
    }

    /// Whether a transaction is open.
    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Ends an open transaction where its journal would keep readers out.
    pub(super) fn let_readers_in(&mut self) {
        let mode = self.connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
        if self.is_open() && mode.is_ok_and(|mode| mode != "wal") {
            self.run("COMMIT");
            self.run("ROLLBACK");
        }
    }

    /// Does one thing.
    pub(super) fn step(&mut self) {
        if self.is_open() {
            return self.go_on();
        }
        if self.calm > 0 {
            self.calm -= 1;
            return self.change();
        }
        match self.random.below(24) {
            0 => self.calm = self.random.below(CALM_STEPS),
            1 | 8..=11 => {
                let mode = self.random.pick(&["PASSIVE", "FULL", "RESTART", "TRUNCATE", "TRUNCATE"]);
                self.run(&format!("PRAGMA wal_checkpoint({mode})"));
            }
            2 => self.switch_journal(),
            3 => {
                let auto_vacuum = self.random.below(3);
                self.run(&format!("PRAGMA auto_vacuum = {auto_vacuum}; VACUUM"));
            }
            4 => self.reopen(),
            5 => self.tune(),
            6 => self.run("CREATE TABLE other AS SELECT * FROM t LIMIT 40"),
            7 => self.run("DROP TABLE other"),
            _ => self.change(),
        }
    }

    fn switch_journal(&mut self) {
        let mode = self.random.pick(&["DELETE", "TRUNCATE", "PERSIST", "MEMORY"]);
        self.run(&format!("PRAGMA journal_mode = {mode}"));
        if self.random.below(4) == 0 {
            let size = self.random.pick(&["512", "1024", "2048"]);
            self.run(&format!("PRAGMA page_size = {size}; VACUUM"));
        }
        if self.random.below(3) > 0 {
            self.change();
        }
        self.run("PRAGMA journal_mode = WAL");
        self.calm = self.random.below(CALM_STEPS);
    }

    /// Changes rows: a few, or more than the cache holds.
    fn change(&mut self) {
        let (id, many) = (self.random.below(300), 20 + self.random.below(300));
        let row = format!("id = (SELECT id FROM t LIMIT 1 OFFSET {id})");
        match self.random.below(17) {
            0..=4 => self.run(&format!("UPDATE t SET name = 'x' || random() WHERE {row}")),
            5 => self.insert(5),
            6 => self.insert(many / 2),
            7 => self.run(&format!(
                "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT max(1, (SELECT count(*) FROM t) - {many}))"
            )),
            8 => self.run(&format!("PRAGMA incremental_vacuum({})", id % 30)),
            9 => self.run(&format!(
                "BEGIN; SAVEPOINT a; UPDATE t SET name = 'a' || random(); ROLLBACK TO a;
                 UPDATE t SET data = zeroblob(90) WHERE {row}; RELEASE a; COMMIT"
            )),
            // Left open: what becomes of it is seen later. Here each page is written once, below often.
            10..=13 => self.run("BEGIN; UPDATE t SET data = randomblob(length(data))"),
            _ => self.run(&format!("BEGIN; UPDATE t SET name = 'y' || random() WHERE id % 3 = {}", id % 3)),
        }
    }

    /// Goes on with an open transaction, or ends it.
    fn go_on(&mut self) {
        let id = self.random.below(600);
        match self.random.below(8) {
            0 => self.run("ROLLBACK"),
            1 => {}
            2 => self.run(&format!("UPDATE t SET name = 'again' || random() WHERE id % 5 = {}", id % 5)),
            3 => self.insert(20),
            _ => {
                self.run("COMMIT");
                // Where others are in the way.
                self.run("ROLLBACK");
            }
        }
    }
}
