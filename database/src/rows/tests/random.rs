//! Databases with tables of every kind, and what happens to them: always the same for the same seed.

use std::fmt::Write;

use rusqlite::Connection;

use super::support::copy;
use crate::random::Random;

/// What is tried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// Only what SQLite's own tools compare bit for bit: no two values that are equal for SQL and different
    /// in bits, no collation but BINARY.
    Tame,
    /// Anything that a table can hold.
    Wild,
}

/// A table, as its maker knows it.
pub(super) struct Spec {
    pub name: String,
    pub create: String,
    /// The columns that can be written.
    pub columns: Vec<String>,
    pub key: Vec<usize>,
    pub rowid: bool,
    /// Whether the rowid is the declared key.
    pub alias: bool,
    pub unique: bool,
}

/// A database and where its history goes on.
pub(super) struct History {
    pub random: Random,
    pub temper: Temper,
    pub specs: Vec<Spec>,
    pub database: Connection,
}

impl History {
    pub(super) fn new(seed: u64, temper: Temper) -> History {
        let mut random = Random::new(seed.wrapping_mul(0x1234_5678_9abc_def1));
        let database = Connection::open_in_memory().unwrap();
        let page_size = random.pick(&["512", "1024", "4096"]);
        let encoding = if temper == Temper::Wild {
            random.pick(&["UTF-8", "UTF-8", "UTF-16le", "UTF-16be"])
        } else {
            "UTF-8"
        };
        let setup = format!("PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}'");
        database.execute_batch(&setup).unwrap();
        let count = 1 + random.below(3);
        let specs: Vec<Spec> = (0..count).map(|index| spec(&mut random, temper, index)).collect();
        for spec in &specs {
            database.execute_batch(&spec.create).unwrap_or_else(|error| panic!("{}: {error}", spec.create));
        }
        let mut history = History { random, temper, specs, database };
        for _ in 0..4 {
            history.insert(40);
        }
        history
    }

    /// A copy of the database as it is.
    pub(super) fn now(&self) -> Connection {
        copy(&self.database)
    }

    /// Something happens. What fails because of a constraint did not happen.
    pub(super) fn step(&mut self) {
        match self.random.below(10) {
            0..3 => self.insert(12),
            3..6 => self.update(),
            6..8 => self.delete(),
            8 => self.move_rows(),
            _ if self.random.one_in(4) => self.run("VACUUM".into()),
            _ => self.update(),
        }
    }

    pub(super) fn run(&mut self, sql: String) {
        match self.database.execute_batch(&sql) {
            Ok(()) => {}
            // The largest rowid cannot be moved up.
            Err(error) if ["constraint", "mismatch"].iter().any(|why| error.to_string().contains(why)) => {}
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    fn table(&mut self) -> usize {
        self.random.below(self.specs.len() as u64) as usize
    }

    fn insert(&mut self, most: u64) {
        let table = self.table();
        let verb = if self.random.one_in(4) { "REPLACE" } else { "INSERT OR IGNORE" };
        let columns = self.specs[table].columns.join(", ");
        let count = self.specs[table].columns.len();
        for _ in 0..1 + self.random.below(most) {
            let values: Vec<String> = (0..count).map(|_| value(&mut self.random, self.temper)).collect();
            let name = &self.specs[table].name;
            let sql = format!("{verb} INTO {name}({columns}) VALUES({})", values.join(", "));
            // A text is no INTEGER PRIMARY KEY.
            let _ = self.database.execute_batch(&sql);
        }
    }

    fn update(&mut self) {
        let table = self.table();
        let column = self.random.below(self.specs[table].columns.len() as u64) as usize;
        let to = value(&mut self.random, self.temper);
        let whom = self.whom(table);
        let Spec { name, columns, alias, key, .. } = &self.specs[table];
        if *alias && key.contains(&column) {
            return;
        }
        self.run(format!("UPDATE OR IGNORE {name} SET {} = {to} WHERE {whom}", columns[column]));
    }

    fn delete(&mut self) {
        let table = self.table();
        let whom = self.whom(table);
        let name = &self.specs[table].name;
        self.run(format!("DELETE FROM {name} WHERE {whom}"));
    }

    fn move_rows(&mut self) {
        let table = self.table();
        let whom = self.whom(table);
        let Spec { name, rowid, key, .. } = &self.specs[table];
        if *rowid && !key.is_empty() {
            self.run(format!("UPDATE OR IGNORE {name} SET rowid = rowid + 37 WHERE {whom}"));
        }
    }

    fn whom(&mut self, table: usize) -> String {
        let Spec { rowid, columns, .. } = &self.specs[table];
        let one = self.random.below(23);
        match self.random.below(3) {
            0 if *rowid => format!("rowid % 23 = {one}"),
            1 if *rowid => format!("rowid BETWEEN {one} AND {one} + 5"),
            _ => {
                let column = columns[self.random.below(columns.len() as u64) as usize].clone();
                format!("{column} = {}", value(&mut self.random, self.temper))
            }
        }
    }
}

const TYPES: [&str; 6] = ["", "INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC"];

fn spec(random: &mut Random, temper: Temper, index: u64) -> Spec {
    let name = format!("t{index}");
    let kind = random.below(6);
    let mut columns: Vec<(String, String)> = Vec::new();
    let nocase = if temper == Temper::Wild && random.one_in(3) { " COLLATE NOCASE" } else { "" };
    let key: Vec<usize> = match kind {
        0 => {
            let counts = if random.one_in(2) { " AUTOINCREMENT" } else { "" };
            columns.push(("k0".into(), format!("INTEGER PRIMARY KEY{counts}")));
            vec![0]
        }
        1 | 4 => {
            columns.push(("k0".into(), format!("{}{nocase} PRIMARY KEY", random.pick(&TYPES))));
            // In this form INTEGER would be the rowid.
            if columns[0].1.starts_with("INTEGER") {
                columns[0].1 = "INT PRIMARY KEY".into();
            }
            vec![0]
        }
        2 | 5 => {
            columns.push(("k0".into(), format!("{}{nocase}", random.pick(&TYPES))));
            columns.push(("k1".into(), random.pick(&TYPES).into()));
            vec![1, 0]
        }
        _ => vec![],
    };
    let unique = random.one_in(4);
    for column in 0..1 + random.below(3) {
        let constraint = if unique && column == 0 { " UNIQUE" } else { "" };
        columns.push((format!("c{column}"), format!("{}{constraint}", random.pick(&TYPES))));
    }
    let mut definition = String::new();
    for (column, (name, declared)) in columns.iter().enumerate() {
        let _ = write!(definition, "{}{name} {declared}", if column > 0 { ", " } else { "" });
        if temper == Temper::Wild && column == 0 && random.one_in(4) {
            let stored = random.pick(&["", "STORED"]);
            let _ = write!(definition, ", g AS (c0 || 'x') {stored}");
        }
    }
    if columns[0].0 == "k0" && columns.get(1).is_some_and(|column| column.0 == "k1") {
        definition.push_str(", PRIMARY KEY(k1, k0)");
    }
    let tail = if kind >= 4 { " WITHOUT ROWID" } else { "" };
    let create = format!("CREATE TABLE {name}({definition}){tail}");
    let columns = columns.into_iter().map(|(name, _)| name).collect();
    Spec { name, create, columns, key, rowid: kind < 4, alias: kind == 0, unique }
}

/// A value as SQL has it.
fn value(random: &mut Random, temper: Temper) -> String {
    let number = random.below(40);
    match random.below(if temper == Temper::Wild { 16 } else { 7 }) {
        0 => "NULL".into(),
        1 | 2 => number.to_string(),
        3 => format!("{number}.5"),
        4 => format!("'text {number}'"),
        5 => format!("x'00{number:02}ff'"),
        6 if random.one_in(4) => format!("'{number}' || hex(zeroblob({}))", random.below(1500)),
        6 => format!("-{number}"),
        7 => format!("{number}.0"),
        8 => random.pick(&["-0.0", "0.0", "0", "9e999", "-9e999", "1e300", "0.1"]).into(),
        9 => format!("'Text {}'", number % 5),
        10 => format!("CAST(x'ff00{number:02}d8' AS TEXT)"),
        11 => "''".into(),
        12 => "char(0, 65279, 233, 128512)".into(),
        13 => "9223372036854775807".into(),
        14 => format!("'{number}'"),
        _ => format!("CAST('text {number}' AS BLOB)"),
    }
}
