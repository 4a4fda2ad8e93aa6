//! Three databases from SQL, and what a merge makes of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sqlrsync_database::btree::Touched;
use sqlrsync_database::merge::{
    Conflict, Drawn, Error, Merge, MergeOptions, Resolutions, Side, Sides, Summary, merge,
};
use sqlrsync_database::rows::{Key, Value};
use tempfile::TempDir;

/// A base, and two sides that went on from it.
pub struct Three {
    dir: TempDir,
    pub options: MergeOptions,
    pub resolve: Resolutions,
    /// Whether a side is not as SQLite would leave it.
    pub damaged: bool,
}

/// What a merge came to, with the database that holds the result.
pub struct Merged {
    pub on: Side,
    pub summary: Summary,
    pub drawn: Drawn,
    pub db: Connection,
}

impl Three {
    /// From the SQL that makes the base, and what each side ran then.
    pub fn new(base: &str, theirs: &str, mine: &str) -> Three {
        let three = Three {
            dir: TempDir::new().unwrap(),
            options: MergeOptions::default(),
            resolve: Resolutions::default(),
            damaged: false,
        };
        let run = |name: &str, sql: &str| {
            let connection = three.open(name);
            connection.execute_batch(sql).unwrap_or_else(|error| panic!("{name}: {error}: {sql}"));
        };
        run("base", base);
        for (name, sql) in [("theirs", theirs), ("mine", mine)] {
            std::fs::copy(three.path("base"), three.path(name)).unwrap();
            run(name, sql);
        }
        three
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A connection as an application has it: foreign keys off, triggers on.
    pub fn open(&self, name: &str) -> Connection {
        let connection = Connection::open(self.path(name)).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF").unwrap();
        connection
    }

    /// Merges, hardened as a server does it.
    pub fn merge(&self) -> Result<Merged, Box<Conflict>> {
        let open = |name: &str| {
            let connection = self.open(name);
            connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
            connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON").unwrap();
            connection
        };
        let (base, theirs, mine) = (open("base"), open("theirs"), open("mine"));
        let before = [orphans(&theirs), orphans(&mine)];
        let everything = Touched::everything("this is a test");
        let sides = Sides {
            base: &base,
            theirs: &theirs,
            mine: &mine,
            base_theirs: &everything,
            base_mine: &everything,
        };
        let dumps = [dump(&theirs), dump(&mine)];
        match merge(sides, &self.options, &self.resolve).unwrap() {
            Merge::Merged { on, summary, drawn } => {
                let db = if on == Side::Theirs { theirs } else { mine };
                let found = strings(&db, "PRAGMA integrity_check");
                assert!(found == ["ok"] || self.damaged, "{found:?}");
                let new: Vec<_> = orphans(&db);
                assert!(new.iter().all(|orphan| before.iter().any(|held| held.contains(orphan))), "{new:?}");
                assert!(db.is_autocommit());
                let triggers = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
                assert!(db.db_config(triggers).unwrap(), "the connection is as it was");
                Ok(Merged { on, summary, drawn, db })
            }
            Merge::Conflict(conflict) => {
                assert_eq!(dumps, [dump(&theirs), dump(&mine)], "a conflict changes nothing");
                assert!(!conflict.reasons.is_empty());
                Err(Box::new(conflict))
            }
        }
    }

    /// Merges, and expects no outcome: both sides are as they were.
    pub fn fails(&self, before: impl Fn(&Connection)) -> Error {
        let (base, theirs, mine) = (self.open("base"), self.open("theirs"), self.open("mine"));
        let dumps = [dump(&theirs), dump(&mine)];
        let everything = Touched::everything("this is a test");
        let sides = Sides {
            base: &base,
            theirs: &theirs,
            mine: &mine,
            base_theirs: &everything,
            base_mine: &everything,
        };
        before(&theirs);
        let error = merge(sides, &self.options, &self.resolve).unwrap_err();
        assert_eq!([dump(&theirs), dump(&mine)], dumps);
        error
    }

    /// Merges what must merge.
    pub fn merged(&self) -> Merged {
        self.merge().unwrap_or_else(|conflict| panic!("{conflict:#?}"))
    }

    /// Merges what must not.
    pub fn conflict(&self) -> Conflict {
        match self.merge() {
            Err(conflict) => *conflict,
            Ok(merged) => panic!("it merged: {:?}", dump(&merged.db)),
        }
    }

    /// With both sides exchanged.
    pub fn swapped(&self) -> Three {
        let swapped = Three {
            dir: TempDir::new().unwrap(),
            options: self.options,
            resolve: Resolutions::default(),
            damaged: false,
        };
        for (from, to) in [("base", "base"), ("theirs", "mine"), ("mine", "theirs")] {
            std::fs::copy(self.path(from), swapped.path(to)).unwrap();
        }
        swapped
    }

    /// Chooses a side for all rows.
    pub fn keep(mut self, side: Side) -> Three {
        self.resolve.default = Some(side);
        self
    }

    /// Chooses a side for a row.
    pub fn choose(mut self, table: &str, key: Key, side: Side) -> Three {
        self.resolve.rows.insert((table.into(), key), side);
        self
    }
}

impl Merged {
    /// The rows of a query, values with a bar between them.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        strings(&self.db, sql)
    }
}

/// A key of one integer.
pub fn id(value: i64) -> Key {
    Key::Declared(vec![Value::Integer(value)])
}

/// A key of one text.
pub fn text(value: &str) -> Key {
    Key::Declared(vec![Value::Text(value.into())])
}

/// The reasons of a conflict in words.
pub fn reasons(conflict: &Conflict) -> Vec<String> {
    conflict.reasons.iter().map(ToString::to_string).collect()
}

/// The tables and counts of a conflict.
pub fn counts(conflict: &Conflict) -> Vec<(&str, u64)> {
    conflict.tables.iter().map(|table| (table.table.as_str(), table.rows)).collect()
}

/// The rows of a query, values with a bar between them.
pub fn strings(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values = (0..columns).map(|column| Ok(shown(row.get_ref(column)?)));
        Ok(values.collect::<Result<Vec<_>, rusqlite::Error>>()?.join("|"))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => format!("{value:?}"),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(blob) if blob.len() > 100_000 => {
            format!("{} bytes, {}", blob.len(), blake3::hash(blob))
        }
        ValueRef::Blob(blob) => format!("x{blob:02x?}"),
    }
}

/// Everything in a database, but for root pages.
pub fn dump(connection: &Connection) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    all.extend(strings(connection, "SELECT type, name, sql FROM sqlite_schema"));
    all.extend(strings(connection, "PRAGMA user_version"));
    all.extend(strings(connection, "PRAGMA application_id"));
    let ordinary = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0";
    for table in strings(connection, ordinary) {
        let quoted = table.replace('"', "\"\"");
        let rows = strings(connection, &format!("SELECT * FROM \"{quoted}\""));
        all.extend(rows.iter().enumerate().map(|(number, row)| format!("{table} {number}: {row}")));
    }
    all
}

fn orphans(connection: &Connection) -> Vec<String> {
    let mut orphans = strings(connection, "SELECT \"table\", parent FROM pragma_foreign_key_check");
    orphans.sort();
    orphans.dedup();
    orphans
}
