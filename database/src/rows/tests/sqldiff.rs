//! `sqldiff` of SQLite's own tools as an oracle, for what the session extension leaves out: tables without a
//! key. It is in Debian's package sqlite3-tools. Where it is not, that is said, and it is a failure where all
//! tests are required (`SQLRSYNC_TESTS_REQUIRE_ALL`).

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use super::property::for_every;
use super::random::Temper;
use super::support::diff_all;
use crate::rows::{Counts, Key};

fn save(database: &Connection, path: &Path) {
    let mut file = Connection::open(path).unwrap();
    let backup = rusqlite::backup::Backup::new(database, &mut file).unwrap();
    backup.run_to_completion(1000, std::time::Duration::ZERO, None).unwrap();
}

/// Whether there is a sqldiff.
fn is_there() -> bool {
    let found = Command::new("sqldiff").arg("--help").output().is_ok();
    if !found {
        let because = "there is no sqldiff: install sqlite3-tools";
        assert!(std::env::var_os("SQLRSYNC_TESTS_REQUIRE_ALL").is_none(), "{because}");
        eprintln!("\n*** NOT SHOWN: that the diff is what sqldiff finds, because {because} ***\n");
    }
    found
}

fn sqldiff(arguments: &[&str], old: &Path, new: &Path) -> String {
    let output = Command::new("sqldiff").args(arguments).arg(old).arg(new).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A line of `sqldiff --summary`: "t0: 1 changes, 2 inserts, 3 deletes, 4 unchanged".
fn counts(line: &str) -> (String, Counts) {
    let (table, numbers) = line.split_once(": ").unwrap();
    let number = |word: &str| -> u64 {
        let part = numbers.split(", ").find(|part| part.ends_with(word)).unwrap();
        part.split(' ').next().unwrap().parse().unwrap()
    };
    let counts =
        Counts { updated: number(" changes"), inserted: number(" inserts"), deleted: number(" deletes") };
    (table.to_owned(), counts)
}

#[test]
fn the_diff_counts_what_sqldiff_counts() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut seen, mut without_key) = (0, 0);
    let mut case = 0;
    for_every(4, Temper::Tame, |history, old, new| {
        case += 1;
        let path = |side: &str| folder.path().join(format!("{side} {case}"));
        save(old, &path("old"));
        save(new, &path("new"));
        let found = diff_all(old, new);
        for line in sqldiff(&["--summary", "--primarykey"], &path("old"), &path("new")).lines() {
            let (table, counted) = counts(line);
            let Some(spec) = history.specs.iter().find(|spec| spec.name == table) else {
                assert_eq!(table, "sqlite_sequence");
                continue;
            };
            // Rows with NULL in their key are to sqldiff all gone and new, whether they differ or not.
            let select = format!("SELECT count(*) FROM {table} WHERE k0 IS NULL OR k1 IS NULL");
            let select = if spec.key.len() == 2 { select } else { select.replace(" OR k1 IS NULL", "") };
            let nulls = |database: &Connection| -> i64 {
                let nulls = if spec.key.is_empty() {
                    Ok(0)
                } else {
                    database.query_row(&select, [], |row| row.get(0))
                };
                nulls.unwrap()
            };
            if nulls(old) + nulls(new) == 0 {
                let ours = found.summary.tables.get(&table).copied().unwrap_or_default();
                assert_eq!(ours, counted, "{line}");
                seen += counted.total();
                without_key += found.rows.iter().filter(|row| matches!(row.key, Key::Rowid(_))).count();
            }
        }
    });
    assert!(seen > 50 && without_key > 10, "too little happened: {seen}, {without_key}");
}

#[test]
fn what_sqldiff_writes_leaves_nothing_that_differs() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut case = 0;
    for_every(6, Temper::Tame, |history, old, new| {
        // Its script cannot swap values under UNIQUE.
        if history.specs.iter().any(|spec| spec.unique) {
            return;
        }
        case += 1;
        let path = |side: &str| folder.path().join(format!("{side} {case}"));
        save(old, &path("old"));
        save(new, &path("new"));
        let script = sqldiff(&[], &path("old"), &path("new"));
        // It writes an infinity as a name that nothing has.
        if script.contains("Inf") {
            return;
        }
        let result = super::support::copy(old);
        result.execute_batch(&script).unwrap_or_else(|error| panic!("{error}: {script}"));
        let found = diff_all(&result, new);
        let rows: Vec<_> =
            found.lines().into_iter().filter(|line| !line.contains("sqlite_sequence")).collect();
        assert_eq!(rows, Vec::<String>::new(), "{script}");
    });
    assert!(case > 5);
}
