//! The same migration on both sides of a random history: what merges is as if the base had been migrated as well.
//! What that comes to is judged by [`property`](crate::property).
//!
//! Nobody can tell a renamed column from one that was dropped and another one in its place, so that more may be in
//! conflict there. Nothing else may be in the result.

use rusqlite::Connection;
use sqlrsync_database::merge::MergeOptions;

use crate::property::{Case, Done, content, copy, keys, number, run};
use crate::random::{DENSE, Random};
use crate::support::strings;

const CASES: u64 = 600;

/// Seeds that failed once.
const REGRESSIONS: &[u64] = &[4_299_511_628_667];

/// A statement that changes a table's columns and none of its rows.
fn migration(base: &Connection, random: &mut Random) -> Option<String> {
    let tables = strings(
        base,
        "SELECT name FROM sqlite_schema AS s WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite~_%' ESCAPE '~'
         AND NOT EXISTS (SELECT 1 FROM sqlite_schema AS v WHERE v.sql LIKE 'CREATE VIRTUAL%' AND s.name LIKE v.name || '~_%' ESCAPE '~')",
    );
    let table = tables.get(random.below(tables.len().max(1) as u64) as usize)?;
    let columns = strings(base, &format!("SELECT name FROM pragma_table_info('{table}')"));
    let column = &columns[random.below(columns.len() as u64) as usize];
    Some(match random.below(4) {
        0 => format!("ALTER TABLE {table} ADD COLUMN added DEFAULT 'x'"),
        1 => format!("ALTER TABLE {table} ADD COLUMN added INT"),
        _ => format!("ALTER TABLE {table} RENAME COLUMN {column} TO renamed"),
    })
}

/// Whether there was something to compare.
fn check(seed: u64) -> bool {
    let mut log = Vec::new();
    let Case { base, theirs, mine, encoding } = Case::new(seed, &mut log);
    let schema = |db: &Connection| strings(db, "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2");
    if schema(&base) != schema(&theirs) || schema(&base) != schema(&mine) {
        return false;
    }
    let Some(migration) = migration(&base, &mut Random::new(!seed)) else { return false };
    let migrated = copy(&base);
    if [&migrated, &theirs, &mine].iter().any(|db| db.execute_batch(&migration).is_err()) {
        return false;
    }
    let merged = |base: &Connection| run(base, &theirs, &mine, &MergeOptions::default(), None);
    match (merged(&base), merged(&migrated)) {
        (Done::Merged(one), Done::Merged(other)) => {
            let (one, other) = (crate::oracle::read(&one), crate::oracle::read(&other));
            assert_eq!(content(&one), content(&other), "{seed}: {migration}: {log:#?}");
        }
        (Done::Conflict(_), _) if migration.contains("RENAME") => {}
        (Done::Conflict(one), Done::Conflict(other)) => {
            assert_eq!(keys(&one, encoding), keys(&other, encoding), "{seed}: {migration}: {log:#?}");
            assert_eq!(one.reasons, other.reasons);
        }
        (Done::Merged(_), Done::Conflict(conflict)) => panic!("{seed}: {migration}: {conflict:#?} {log:#?}"),
        (Done::Conflict(conflict), _) => panic!("{seed}: {migration}: it merges: {conflict:#?} {log:#?}"),
    }
    true
}

#[test]
fn a_migration_on_both_sides_merges_as_if_the_base_had_it() {
    let cases = number("SQLRSYNC_MERGE_CASES").unwrap_or(CASES);
    let first = number("SQLRSYNC_MERGE_FIRST").unwrap_or(0);
    assert!(REGRESSIONS.iter().all(|&seed| check(seed)));
    let seeds = (first..first + cases).map(|seed| if seed % 2 == 0 { seed } else { seed | DENSE });
    let compared = seeds.filter(|&seed| check(seed)).count();
    assert!(compared as u64 >= cases / 3, "{compared} of {cases}");
}
