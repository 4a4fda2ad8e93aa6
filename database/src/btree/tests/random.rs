//! Random databases and random changes to them, the same for the same seed.

use rusqlite::Connection;
use rusqlite::types::Value as Sql;

use super::support::{Database, database, execute};
use crate::random::Random;

/// What this makes of them.
impl Random {
    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self, len: u64) -> String {
        (0..len).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    /// Mostly short, sometimes as long as it takes for a chain of overflow pages.
    fn len(&mut self) -> u64 {
        match self.below(100) {
            0..80 => self.below(40),
            80..95 => self.below(900),
            _ => self.below(9000),
        }
    }

    fn value(&mut self) -> Sql {
        let len = self.len();
        match self.below(6) {
            0 => Sql::Null,
            1 => Sql::Integer(self.next() as i64 >> self.below(64)),
            2 => Sql::Real(self.below(1000) as f64 / 4.0),
            3 => Sql::Text(self.text(len)),
            _ => Sql::Blob(self.bytes(len)),
        }
    }
}

/// The kinds of tables: columns, options, and how many columns there are. The first is the key.
const KINDS: [(&str, &str); 8] = [
    ("a INTEGER PRIMARY KEY, b, c", ""),
    ("a INTEGER PRIMARY KEY AUTOINCREMENT, b, c", ""),
    ("a, b, c", ""),
    ("a TEXT PRIMARY KEY, b, c UNIQUE", ""),
    ("a PRIMARY KEY, b, c", "WITHOUT ROWID"),
    ("a TEXT, b BLOB, c, PRIMARY KEY(b, a)", "WITHOUT ROWID"),
    ("a REAL PRIMARY KEY, b, c", "WITHOUT ROWID"),
    ("a INTEGER, b, c TEXT COLLATE NOCASE, PRIMARY KEY(c DESC, a)", "WITHOUT ROWID"),
];

/// A random database that knows what it can do to itself.
pub struct Subject {
    pub database: Database,
    pub random: Random,
    tables: Vec<String>,
    made: u32,
}

impl Subject {
    pub fn new(seed: u64) -> Subject {
        let mut random = Random::new(seed);
        let page_size = *random.pick(&[&512, &512, &512, &1024, &1024, &4096, &65_536]);
        let database = database(page_size);
        let encoding = random.pick(&["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]);
        execute(
            &database,
            &format!(
                "PRAGMA auto_vacuum={}; PRAGMA secure_delete={}; PRAGMA encoding='{encoding}'",
                random.below(3),
                random.below(2)
            ),
        );
        // A cache of few pages writes them out before a transaction ends, and then frees them.
        execute(&database, random.pick(&["PRAGMA cache_size=10", "PRAGMA cache_size=2000"]));
        let mut subject = Subject { database, random, tables: Vec::new(), made: 0 };
        for _ in 0..1 + subject.random.below(4) {
            subject.create();
        }
        for _ in 0..subject.random.below(8) {
            subject.insert();
            subject.step();
        }
        subject
    }

    /// Changes something.
    pub fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.insert(),
            30..50 => self.update(),
            50..65 => self.update_within_a_blob(),
            65..75 => self.delete_range(),
            75..80 => self.delete_some(),
            80..84 => self.create(),
            84..87 => self.drop(),
            87..90 => self.rebuild(),
            90..93 => self.index(),
            93..95 => execute(&self.database, "VACUUM"),
            95..97 => execute(&self.database, "PRAGMA incremental_vacuum(7)"),
            97..99 => self.full_text(),
            _ => execute(&self.database, "REINDEX; ANALYZE"),
        }
    }

    fn table(&mut self) -> String {
        if self.tables.is_empty() {
            self.create();
        }
        self.tables[self.random.below(self.tables.len() as u64) as usize].clone()
    }

    fn name(&mut self) -> String {
        self.made += 1;
        // Now and then the name of a table that was dropped.
        let name = if self.random.chance(30) { self.random.below(4) } else { u64::from(self.made) };
        let name = format!("t{name}");
        if self.tables.contains(&name) { format!("u{}", self.made) } else { name }
    }

    fn create(&mut self) {
        let name = self.name();
        let (columns, options) = KINDS[self.random.below(KINDS.len() as u64) as usize];
        execute(&self.database, &format!("CREATE TABLE {name}({columns}) {options}"));
        self.tables.push(name);
    }

    fn drop(&mut self) {
        let name = self.table();
        execute(&self.database, &format!("DROP TABLE {name}"));
        self.tables.retain(|table| *table != name);
    }

    /// What a migration does.
    fn rebuild(&mut self) {
        let name = self.table();
        let (columns, options) = *self.random.pick(&[&KINDS[0], &KINDS[2], &KINDS[4]]);
        execute(
            &self.database,
            &format!(
                "BEGIN; CREATE TABLE fresh({columns}) {options};
                 INSERT OR IGNORE INTO fresh SELECT * FROM {name} WHERE typeof(a) = 'integer';
                 DROP TABLE {name}; ALTER TABLE fresh RENAME TO {name}; COMMIT"
            ),
        );
    }

    fn index(&mut self) {
        let table = self.table();
        self.made += 1;
        let index = self.random.below(u64::from(self.made));
        let column = self.random.pick(&["a", "b", "c", "b, c"]);
        execute(
            &self.database,
            &format!(
                "DROP INDEX IF EXISTS i{index}; CREATE INDEX IF NOT EXISTS i{} ON {table}({column})",
                self.made
            ),
        );
    }

    fn full_text(&mut self) {
        let word = self.random.text(3);
        let row = self.random.below(20);
        execute(
            &self.database,
            &format!(
                "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(body);
                 DELETE FROM words WHERE rowid = {row};
                 INSERT INTO words(body) VALUES ('{word} and {row}')"
            ),
        );
    }

    fn insert(&mut self) {
        let table = self.table();
        let rows = [1, 3, 30, 300][self.random.below(4) as usize];
        let ascending = self.random.chance(50);
        self.transaction(|connection, random| {
            let sql = format!("INSERT OR IGNORE INTO {table} VALUES (?1, ?2, ?3)");
            let mut insert = connection.prepare(&sql).unwrap();
            let first = random.below(5000) as i64;
            for row in 0..rows {
                let key = match random.below(4) {
                    _ if ascending => Sql::Integer(first + row),
                    0 => Sql::Integer(random.next() as i64),
                    _ => Sql::Integer(random.below(100_000) as i64),
                };
                // A key of another type fits most tables only.
                let key = if random.chance(5) { random.value() } else { key };
                // What does not fit is left out, as what stands there already.
                let _ = insert.execute((key, random.value(), random.value()));
            }
        });
    }

    fn transaction(&mut self, change: impl FnOnce(&Connection, &mut Random)) {
        execute(&self.database, "BEGIN");
        change(&self.database, &mut self.random);
        execute(&self.database, "COMMIT");
    }

    fn update(&mut self) {
        let table = self.table();
        let column = self.random.pick(&["b", "c", "a"]);
        let modulus = 1 + self.random.below(50);
        let limit = 1 + self.random.below(20);
        let value = self.random.value();
        let sql = format!(
            "UPDATE OR IGNORE {table} SET {column} = ?1
             WHERE a IN (SELECT a FROM {table} WHERE abs(a) % {modulus} = 0 LIMIT {limit})"
        );
        let _ = self.database.execute(&sql, [value]);
    }

    /// One byte, anywhere in a long blob.
    fn update_within_a_blob(&mut self) {
        let table = self.table();
        let at = 1 + self.random.below(8000);
        let sql = format!(
            "UPDATE OR IGNORE {table} SET c = CAST(substr(c, 1, {at}) || x'41' || substr(c, {}) AS BLOB)
             WHERE a IN (SELECT a FROM {table} WHERE typeof(c) = 'blob' AND length(c) > {at} LIMIT 2)",
            at + 2
        );
        let _ = self.database.execute(&sql, []);
    }

    fn delete_range(&mut self) {
        let table = self.table();
        let first = self.random.below(6000);
        let last = first + self.random.below(4000);
        execute(&self.database, &format!("DELETE FROM {table} WHERE a BETWEEN {first} AND {last}"));
    }

    fn delete_some(&mut self) {
        let table = self.table();
        let modulus = 2 + self.random.below(40);
        execute(&self.database, &format!("DELETE FROM {table} WHERE abs(a) % {modulus} = 1"));
    }
}
