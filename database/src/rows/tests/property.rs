//! Whatever the tables and whatever happened: the diff is what a reader of both databases finds, what
//! SQLite's session extension finds where that is defined, and its exports do what they say.
//!
//! `SQLRSYNC_SEEDS` asks for more seeds, `SQLRSYNC_FIRST_SEED` begins with another one.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::export::{changeset, check_script};
use super::random::{History, Spec, Temper};
use super::session;
use super::support::{Found, copy, diff_all, diff_within, dump};
use crate::btree::{Ranges, Touched};
use crate::rows::{Key, Schema, Statement, Value};

const SEEDS: u64 = 150;

fn seeds() -> impl Iterator<Item = u64> {
    let number = |name| std::env::var(name).ok().and_then(|number: String| number.parse().ok());
    let first = number("SQLRSYNC_FIRST_SEED").unwrap_or(0);
    first..first + number("SQLRSYNC_SEEDS").unwrap_or(SEEDS)
}

/// Runs a check for many seeds, each with a database as it was and as it became.
fn for_each(temper: Temper, check: impl FnMut(&History, &Connection, &Connection)) {
    for_every(1, temper, check);
}

/// The same, for every so many of the seeds only.
pub(super) fn for_every(
    step: usize,
    temper: Temper,
    mut check: impl FnMut(&History, &Connection, &Connection),
) {
    for seed in seeds().step_by(step) {
        let mut history = History::new(seed, temper);
        let old = history.now();
        for _ in 0..1 + history.random.below(6) {
            history.step();
        }
        let new = history.now();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&history, &old, &new)));
        if let Err(panic) = checked {
            let creates: Vec<&str> = history.specs.iter().map(|spec| &*spec.create).collect();
            println!("seed {seed}: {creates:#?}");
            std::panic::resume_unwind(panic);
        }
    }
}

type Rows = BTreeMap<String, (i64, Vec<Value>)>;

/// All rows of a table by key, read without the code that is tested but for a value.
fn rows(database: &Connection, spec: &Spec) -> Rows {
    let encoding = Schema::read(database).unwrap().encoding;
    let rowid = if spec.rowid { "rowid" } else { "0" };
    let select = format!("SELECT {rowid}, {} FROM {}", spec.columns.join(", "), spec.name);
    let mut statement = Statement::prepare(database, &select, "reading it whole").unwrap();
    let mut rows = Rows::new();
    while statement.step().unwrap() {
        let values = statement.values(1, encoding).unwrap();
        let key: Vec<&Value> = spec.key.iter().map(|&column| &values[column]).collect();
        let named = !key.is_empty() && !key.iter().any(|value| value.is_null());
        let key = if named { format!("{key:?}") } else { format!("#{}", statement.integer(0)) };
        assert!(rows.insert(key, (statement.integer(0), values)).is_none(), "a key stands twice");
    }
    rows
}

pub(super) type Differences = BTreeMap<(String, String), (Option<Vec<Value>>, Option<Vec<Value>>)>;

pub(super) fn by_reading_all(specs: &[Spec], old: &Connection, new: &Connection) -> Differences {
    let mut differences = Differences::new();
    for spec in specs {
        let (before, after) = (rows(old, spec), rows(new, spec));
        for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let row = |rows: &Rows| rows.get(key).map(|(_, values)| values.clone());
            let pair = (row(&before), row(&after));
            if pair.0 != pair.1 {
                differences.insert((spec.name.clone(), key.clone()), pair);
            }
        }
    }
    differences
}

pub(super) fn by_diff(found: &Found) -> Differences {
    let mut differences = Differences::new();
    for change in found.rows.iter().filter(|change| !change.table.is_internal()) {
        let key = match &change.key {
            Key::Rowid(rowid) => format!("#{rowid}"),
            Key::Declared(values) => format!("{values:?}"),
        };
        let values = |row: &Option<crate::rows::Row>| row.as_ref().map(|row| row.values.clone());
        let pair = (values(&change.before), values(&change.after));
        let before = differences.insert((change.table.name.clone(), key), pair);
        assert!(before.is_none(), "a row is said twice: {change:?}");
    }
    differences
}

/// What must be looked at, and no more: rowids and keys of rows that are not the same in the two trees.
fn touched(specs: &[Spec], old: &Connection, new: &Connection) -> Touched {
    let mut tables = BTreeMap::new();
    for spec in specs {
        let (before, after) = (rows(old, spec), rows(new, spec));
        let by_rowid = |rows: &Rows| rows.values().cloned().collect::<BTreeMap<i64, Vec<Value>>>();
        let ranges = if spec.rowid {
            let (before, after) = (by_rowid(&before), by_rowid(&after));
            let all: BTreeSet<&i64> = before.keys().chain(after.keys()).collect();
            let differs = all.into_iter().filter(|rowid| before.get(rowid) != after.get(rowid));
            Ranges::Rowids(differs.map(|&rowid| rowid..=rowid).collect())
        } else {
            let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            let differs = all.into_iter().filter(|&key| before.get(key) != after.get(key));
            let row = |key: &String| after.get(key).or(before.get(key)).map(|(_, values)| values);
            let stored =
                |values: &Vec<Value>| spec.key.iter().map(|&column| values[column].clone()).collect();
            Ranges::Keys(differs.filter_map(row).map(stored).collect())
        };
        tables.insert(spec.name.clone(), ranges);
    }
    Touched { tables, everything: false, read_more: None }
}

#[test]
fn the_diff_is_what_a_reader_of_both_databases_finds() {
    let mut seen = 0;
    for_each(Temper::Wild, |history, old, new| {
        let expected = by_reading_all(&history.specs, old, new);
        seen += expected.len();
        let found = diff_all(old, new);
        assert_eq!(by_diff(&found), expected);
        let counted: u64 = found.summary.tables.values().map(|counts| counts.total()).sum();
        assert_eq!(counted as usize, found.rows.len());
        // And when no more is looked at than what may differ.
        let touched = touched(&history.specs, old, new);
        assert_eq!(by_diff(&diff_within(old, new, &touched)), expected);
    });
    assert!(seen > 100, "too little happened: {seen}");
}

#[test]
fn the_diff_is_what_the_session_extension_finds() {
    let mut seen = 0;
    for_each(Temper::Tame, |history, old, new| {
        let keyed = history.specs.iter().filter(|spec| !spec.key.is_empty());
        let tables: Vec<String> = keyed.map(|spec| spec.name.clone()).collect();
        let (bytes, _) = changeset(old, new);
        let said = session::read(&bytes);
        seen += said.len();
        assert_eq!(said, session::read(&session::session_diff(old, new, &tables)));
    });
    assert!(seen > 100, "too little happened: {seen}");
}

#[test]
fn the_changeset_turns_the_old_database_into_the_new_one() {
    for_each(Temper::Wild, |history, old, new| {
        // SQLite cannot always apply its own where values change places under UNIQUE; and what has no key is
        // not in it. A text that is no UTF-8 stays as it is only in a database in UTF-8.
        let (bytes, left_out) = changeset(old, new);
        let rows_left_out = left_out.iter().any(|left| left.table != "sqlite_sequence");
        if rows_left_out || history.specs.iter().any(|spec| spec.unique) {
            return;
        }
        let result = copy(old);
        assert_eq!(session::apply(&result, &bytes), 0);
        assert_eq!(by_diff(&diff_all(&result, new)), Differences::new());
    });
}

#[test]
fn the_script_turns_the_old_database_into_the_new_one() {
    for_each(Temper::Wild, |history, old, new| {
        // Rows that are named by rowid in a table in which others have moved: the script keeps the values of
        // those, not their rowids, which may be in the way.
        let mixed = |spec: &Spec| spec.rowid && !spec.alias && !spec.key.is_empty();
        let by_rowid = diff_all(old, new).rows.iter().any(|change| {
            let spec = history.specs.iter().find(|spec| spec.name == change.table.name);
            spec.is_some_and(mixed) && matches!(change.key, Key::Rowid(_))
        });
        if !by_rowid {
            check_script(old, new);
        }
    });
}

#[test]
fn the_script_turns_databases_with_other_schemas_into_each_other() {
    for_each(Temper::Wild, |history, old, new| {
        let new = copy(new);
        let mut random = History::new(history.specs.len() as u64, Temper::Wild).random;
        for spec in &history.specs {
            let name = &spec.name;
            let script = match random.below(5) {
                0 => format!("ALTER TABLE {name} ADD COLUMN added DEFAULT 'x'"),
                1 => format!("ALTER TABLE {name} ADD COLUMN added TEXT; UPDATE {name} SET added = c0"),
                2 => format!("ALTER TABLE {name} RENAME COLUMN c0 TO renamed"),
                3 => format!(
                    "DROP TABLE {name}; CREATE TABLE {name}(c0 TEXT PRIMARY KEY, other) WITHOUT ROWID; INSERT INTO {name} VALUES('a', 1)"
                ),
                _ => format!("CREATE INDEX i_{name} ON {name}(c0); PRAGMA user_version = 4"),
            };
            new.execute_batch(&script).unwrap_or_else(|error| panic!("{script}: {error}"));
        }
        let nulls = |database: &Connection| {
            history.specs.iter().any(|spec| spec.rowid && !spec.alias && !spec.key.is_empty())
                && dump(database).iter().any(|line| line.contains("Null"))
        };
        if !nulls(old) && !nulls(&new) {
            check_script(old, &new);
            check_script(&new, old);
        }
    });
}
