//! Random bases and histories, merged and judged by the [`oracle`](crate::oracle).
//!
//! `SQLRSYNC_MERGE_CASES` says how many, `SQLRSYNC_MERGE_SEED` which one: a failing one is printed.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use sqlrsync_database::btree::Touched;
use sqlrsync_database::merge::{
    Conflict, ConflictRow, ConstraintKind, Drawn, Merge, MergeOptions, Reason, Resolutions, Side, Sides,
    merge,
};
use sqlrsync_database::rows::{Encoding, Key, Schema, Value};

use crate::oracle::{self, Cell, Objects, RowKey, Rows, Verdict, Whole};
use crate::random::{self, DENSE, Random};
use crate::support::strings;

const CASES: u64 = 2_000;
/// Tests that share them.
const PARTS: u64 = 4;

/// Seeds that failed once.
const REGRESSIONS: &[u64] = &[
    41,
    158,
    202,
    1560,
    1568,
    1788,
    6993,
    9898,
    1_099_511_627_975,
    1_099_511_648_801,
    1_099_511_649_499,
    1_099_511_660_689,
    1_099_511_660_875,
    1_099_511_707_315,
    4_099_511_650_617,
];

pub fn copy(from: &Connection) -> Connection {
    let mut to = Connection::open_in_memory().unwrap();
    Backup::new(from, &mut to).unwrap().step(-1).unwrap();
    to
}

/// What a merge came to, with the database that was written.
pub enum Done {
    Merged(Box<Connection>),
    Conflict(Conflict),
}

pub fn run(
    base: &Connection,
    theirs: &Connection,
    mine: &Connection,
    options: &MergeOptions,
    default: Option<Side>,
) -> Done {
    run_with(base, theirs, mine, options, &Resolutions { default, ..Resolutions::default() }).0
}

fn run_with(
    base: &Connection,
    theirs: &Connection,
    mine: &Connection,
    options: &MergeOptions,
    resolve: &Resolutions,
) -> (Done, Drawn) {
    let (theirs, mine) = (copy(theirs), copy(mine));
    for db in [&theirs, &mine] {
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).unwrap();
    }
    let everything = Touched::everything("this is a test");
    let sides =
        Sides { base, theirs: &theirs, mine: &mine, base_theirs: &everything, base_mine: &everything };
    match merge(sides, options, resolve).unwrap() {
        Merge::Merged { on: Side::Theirs, drawn, .. } => (Done::Merged(Box::new(theirs)), drawn),
        Merge::Merged { on: Side::Mine, drawn, .. } => (Done::Merged(Box::new(mine)), drawn),
        Merge::Conflict(conflict) => (Done::Conflict(conflict), Drawn::default()),
    }
}

/// A base and what two sides made of it.
pub struct Case {
    pub base: Connection,
    pub theirs: Connection,
    pub mine: Connection,
    pub encoding: Encoding,
}

impl Case {
    pub fn new(seed: u64, log: &mut Vec<String>) -> Case {
        let mut random = Random::new(seed);
        let base = Connection::open_in_memory().unwrap();
        base.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let kinds = random::base(&base, &mut random, log);
        let (theirs, mine) = (copy(&base), copy(&base));
        for (name, db) in [("-- theirs", &theirs), ("-- mine", &mine)] {
            log.push(name.into());
            random::history(db, &mut random, log, &kinds);
        }
        let encoding = Schema::read(&base).unwrap().encoding;
        Case { base, theirs, mine, encoding }
    }

    fn check(&self) -> &'static str {
        let (base, theirs, mine) =
            (oracle::read(&self.base), oracle::read(&self.theirs), oracle::read(&self.mine));
        let options = MergeOptions::default();
        let done = run(&self.base, &self.theirs, &self.mine, &options, None);
        let swapped = run(&self.base, &self.mine, &self.theirs, &options, None);
        let outcome = self.judge((&base, &theirs, &mine), &done);
        match (&done, &swapped) {
            (Done::Merged(one), Done::Merged(other)) => {
                assert_eq!(content(&oracle::read(one)), content(&oracle::read(other)), "the sides swapped");
            }
            (Done::Conflict(one), Done::Conflict(other)) => {
                assert_eq!(keys(one, self.encoding), keys(other, self.encoding), "the sides swapped");
                // Of several constraints that two rows break, SQLite names the one that it comes to first.
                let constraint = |reason: &&Reason| matches!(reason, Reason::Constraint { .. });
                let others = |of: &Conflict| of.reasons.iter().filter(|reason| !constraint(reason)).count();
                assert_eq!(others(one), others(other));
            }
            _ => panic!("it merges one way and not the other"),
        }
        self.identities(&theirs);
        self.settled((&base, &theirs, &mine), &done);
        self.mixed((&base, &theirs, &mine), &done);
        self.chosen((&theirs, &mine), &done);
        self.options((&theirs, &mine));
        outcome
    }

    fn judge(&self, (base, theirs, mine): (&Whole, &Whole, &Whole), done: &Done) -> &'static str {
        match (oracle::judge(base, theirs, mine), done) {
            (Verdict::Merged(expected), Done::Merged(db)) => {
                let result = oracle::read(db);
                for (table, rows) in &expected {
                    assert_eq!(named(table, &result.tables[table]), named(table, rows), "{table}");
                }
                self.sound((theirs, mine), db, &result);
                "merged"
            }
            (Verdict::Merged(expected), Done::Conflict(conflict)) => {
                let schema = if theirs.objects == base.objects { &self.mine } else { &self.theirs };
                let [Reason::Constraint { kind, .. }, ..] = &conflict.reasons[..] else {
                    panic!("nothing overlaps: {conflict:#?}")
                };
                assert!(conflict.row_count > 0);
                match oracle::together(schema, &expected) {
                    Err(_) => assert_ne!(*kind, ConstraintKind::ForeignKey),
                    Ok(result) => {
                        assert_eq!(*kind, ConstraintKind::ForeignKey, "{conflict:#?}");
                        let new = new_orphans(&result, theirs, mine);
                        assert!(new.is_none_or(|new| !new.is_empty()), "no orphan is new: {conflict:#?}");
                    }
                }
                "constraint"
            }
            (Verdict::Overlap(expected), Done::Conflict(conflict)) => {
                assert!(conflict.reasons[0] == Reason::Overlap && only_by_rows(conflict), "{conflict:#?}");
                let overlap = conflict.rows.iter().filter(|row| row.why == 0);
                let overlap: BTreeSet<_> = overlap.map(|row| named_row(row, self.encoding)).collect();
                assert_eq!(overlap, expected);
                "overlap"
            }
            (Verdict::Schema, Done::Conflict(conflict)) => {
                let fits = |reason: &Reason| matches!(reason, Reason::Schema { .. } | Reason::Setting { .. });
                assert!(conflict.reasons.iter().any(fits), "{conflict:#?}");
                "schema"
            }
            (Verdict::Virtual, Done::Conflict(conflict)) => {
                assert!(conflict.reasons.iter().any(|reason| matches!(reason, Reason::VirtualTable { .. })));
                "virtual"
            }
            (Verdict::Open, Done::Merged(db)) => {
                self.sound((theirs, mine), db, &oracle::read(db));
                "open"
            }
            (Verdict::Open, Done::Conflict(_)) => "open",
            (verdict, Done::Merged(_)) => panic!("it merged, and should not: {verdict:?}"),
        }
    }

    /// What holds on whatever comes of a merge.
    fn sound(&self, (theirs, mine): (&Whole, &Whole), db: &Connection, result: &Whole) {
        assert_eq!(integrity(db), "ok");
        assert_eq!(new_orphans(result, theirs, mine).unwrap_or_default(), Vec::<&_>::new());
        for (table, number) in &result.sequence {
            let largest = theirs.sequence.get(table).max(mine.sequence.get(table));
            assert!(largest.is_none_or(|largest| number >= largest), "{table}");
        }
        let both = theirs.objects.keys().filter(|id| mine.objects.contains_key(*id));
        for id in both {
            assert!(result.objects.contains_key(id), "{id:?} is gone");
        }
        for index in ["own", "ext"] {
            if strings(db, &format!("SELECT 1 FROM sqlite_schema WHERE name = '{index}' AND type = 'table'"))
                .is_empty()
            {
                continue;
            }
            let check = format!("INSERT INTO {index}({index}) VALUES ('integrity-check')");
            let fine = |db: &Connection| copy(db).execute_batch(&check).is_ok();
            if fine(&self.theirs) && fine(&self.mine) {
                db.execute_batch(&check).unwrap();
            }
        }
    }

    /// A side that did nothing, and two that did the same.
    fn identities(&self, theirs: &Whole) {
        for (base, one, other) in [
            (&self.base, &self.theirs, &self.base),
            (&self.base, &self.base, &self.theirs),
            (&self.base, &self.theirs, &self.theirs),
        ] {
            let Done::Merged(db) = run(base, one, other, &MergeOptions::default(), None) else {
                panic!("a side that did nothing, or the same, is in conflict");
            };
            let result = oracle::read(&db);
            assert_eq!(all(&result), all(theirs));
            assert_eq!(result.sequence, theirs.sequence);
            assert_eq!(result.numbers, theirs.numbers);
        }
    }

    /// Keeping one side settles every conflict, and takes each row from one of the three.
    fn settled(&self, wholes: (&Whole, &Whole, &Whole), done: &Done) {
        let (_, theirs, mine) = wholes;
        for side in [Side::Theirs, Side::Mine] {
            let kept = run(&self.base, &self.theirs, &self.mine, &MergeOptions::default(), Some(side));
            let db = match kept {
                Done::Merged(db) => db,
                Done::Conflict(conflict) => panic!("keeping {side:?} leaves {conflict:#?}"),
            };
            let result = oracle::read(&db);
            self.sound((theirs, mine), &db, &result);
            if let Done::Merged(merged) = done {
                assert_eq!(content(&result), content(&oracle::read(merged)), "there was nothing to keep");
            }
            let Done::Conflict(conflict) = done else { continue };
            if !only_by_rows(conflict) {
                continue;
            }
            let kept = if side == Side::Theirs { theirs } else { mine };
            let in_conflict = keys(conflict, self.encoding);
            for (table, key) in &in_conflict {
                // One that overlaps with nothing is as the kept side has it where that takes it, and else as
                // the one that changed it has it.
                let held = |whole: &Whole| row_of(whole, table, key).cloned();
                let now = held(&result);
                let fits = now == held(kept) || now == held(theirs) || now == held(mine);
                assert!(fits, "{table} {key:?} is nobody's");
            }
            for row in conflict.rows.iter().filter(|row| conflict.reasons[row.why] == Reason::Overlap) {
                let (table, key) = named_row(row, self.encoding);
                if has_a_name(&table, &key) {
                    let (now, then) = (row_of(&result, &table, &key), row_of(kept, &table, &key));
                    assert_eq!(now, then, "{table} {key:?} is not as {side:?} has it");
                }
            }
            untouched(wholes, &result, &in_conflict);
        }
    }

    /// A choice for all beside choices by row takes nothing but what was in conflict, and what it says.
    fn mixed(&self, wholes: (&Whole, &Whole, &Whole), done: &Done) {
        let Done::Conflict(conflict) = done else { return };
        if !only_by_rows(conflict) {
            return;
        }
        for side in [Side::Theirs, Side::Mine] {
            let rows = conflict.rows.iter().step_by(2);
            let rows = rows.map(|row| ((row.table.name.clone(), row.key.clone()), side.other())).collect();
            let resolve = Resolutions { default: Some(side), rows };
            let options = MergeOptions::default();
            let (done, drawn) = run_with(&self.base, &self.theirs, &self.mine, &options, &resolve);
            let Done::Merged(db) = done else { continue };
            let result = oracle::read(&db);
            self.sound((wholes.1, wholes.2), &db, &result);
            let mut decided = keys(conflict, self.encoding);
            assert_eq!(drawn.rows.len() as u64, drawn.count);
            let rows = drawn.rows.iter();
            decided.extend(rows.map(|(table, key)| (table.name.clone(), row_key(key, self.encoding))));
            untouched(wholes, &result, &decided);
        }
    }

    /// Rows chosen one by one are as they were chosen, or break a constraint.
    fn chosen(&self, (theirs, mine): (&Whole, &Whole), done: &Done) {
        let Done::Conflict(conflict) = done else { return };
        if !only_by_rows(conflict) {
            return;
        }
        let side = |at: usize| if at.is_multiple_of(2) { Side::Theirs } else { Side::Mine };
        let rows = conflict.rows.iter().enumerate();
        let rows = rows.map(|(at, row)| ((row.table.name.clone(), row.key.clone()), side(at))).collect();
        let resolve = Resolutions { default: None, rows };
        match run_with(&self.base, &self.theirs, &self.mine, &MergeOptions::default(), &resolve).0 {
            Done::Merged(db) => {
                let result = oracle::read(&db);
                self.sound((theirs, mine), &db, &result);
                for (at, row) in conflict.rows.iter().enumerate() {
                    let (table, key) = named_row(row, self.encoding);
                    let held =
                        |whole: &Whole| whole.tables.get(&table).and_then(|rows| rows.get(&key)).cloned();
                    let chosen = if side(at) == Side::Theirs { theirs } else { mine };
                    if has_a_name(&table, &key) {
                        assert_eq!(held(&result), held(chosen), "{table} {key:?}");
                    }
                }
            }
            Done::Conflict(conflict) => {
                assert!(matches!(conflict.reasons[..], [Reason::Constraint { .. }, ..]), "{conflict:#?}");
            }
        }
    }

    /// With options, what is merged is as sound.
    fn options(&self, (theirs, mine): (&Whole, &Whole)) {
        for (cells, renumber) in [(true, false), (false, true), (true, true)] {
            let options = MergeOptions { cells, renumber, ..MergeOptions::default() };
            if let Done::Merged(db) = run(&self.base, &self.theirs, &self.mine, &options, None) {
                let result = oracle::read(&db);
                assert_eq!(integrity(&db), "ok");
                // A renumbered child is an orphan that it was before, under another key.
                let count = |whole: &Whole| whole.orphans.as_ref().map(BTreeSet::len);
                if let (Some(new), Some(theirs), Some(mine)) = (count(&result), count(theirs), count(mine)) {
                    assert!(new <= theirs + mine);
                }
                for (table, rows) in
                    result.tables.iter().filter(|(table, _)| oracle::by_rows(table) && renumber)
                {
                    let expected = |whole: &Whole| whole.tables.get(table).map_or(0, BTreeMap::len);
                    assert!(rows.len() <= expected(theirs) + expected(mine), "{table}");
                }
            }
        }
    }
}

/// Orphans that neither side has; `None` where that cannot be told.
fn new_orphans<'w>(
    result: &'w Whole,
    theirs: &Whole,
    mine: &Whole,
) -> Option<Vec<&'w (String, RowKey, String)>> {
    let (result, theirs, mine) = (result.orphans.as_ref()?, theirs.orphans.as_ref()?, mine.orphans.as_ref()?);
    Some(result.iter().filter(|orphan| !theirs.contains(*orphan) && !mine.contains(*orphan)).collect())
}

fn integrity(db: &Connection) -> String {
    strings(db, "PRAGMA integrity_check").join("; ")
}

/// The rows of a table: where it has a key of its own, its rowids are SQLite's business.
fn named(table: &str, rows: &Rows) -> Vec<(RowKey, Vec<Cell>)> {
    let mut named: Vec<_> = rows
        .iter()
        .map(|(key, row)| {
            let by_rowid = key.first() == Some(&Cell::Null) && table == "heap";
            (if by_rowid { key.clone() } else { RowKey::new() }, row.clone())
        })
        .collect();
    named.sort();
    named
}

/// All that is merged by rows.
pub fn content(whole: &Whole) -> BTreeMap<&String, Vec<(RowKey, Vec<Cell>)>> {
    let tables = whole.tables.iter().filter(|(table, _)| oracle::by_rows(table));
    tables.map(|(table, rows)| (table, named(table, rows))).collect()
}

/// All there is.
fn all(whole: &Whole) -> (&BTreeMap<String, Rows>, &Objects) {
    (&whole.tables, &whole.objects)
}

/// The rows of a conflict as the oracle names them.
pub fn keys(conflict: &Conflict, encoding: Encoding) -> BTreeSet<(String, RowKey)> {
    assert_eq!(conflict.rows.len() as u64, conflict.row_count);
    conflict.rows.iter().map(|row| named_row(row, encoding)).collect()
}

fn named_row(row: &ConflictRow, encoding: Encoding) -> (String, RowKey) {
    (row.table.name.clone(), row_key(&row.key, encoding))
}

fn row_key(key: &Key, encoding: Encoding) -> RowKey {
    let cell = |value: &Value| match value {
        Value::Null => Cell::Null,
        Value::Integer(value) => Cell::Integer(*value),
        Value::Real(value) => Cell::Real(value.to_bits()),
        Value::Blob(blob) => Cell::Blob(blob.clone()),
        Value::Text(text) if encoding == Encoding::Utf8 => Cell::Text(text.clone()),
        // The oracle reads all texts as UTF-8.
        Value::Text(text) => Cell::Text(encoding.decode(text).unwrap().into_bytes()),
    };
    match key {
        Key::Rowid(rowid) => vec![Cell::Null, Cell::Integer(*rowid)],
        Key::Declared(values) => values.iter().map(cell).collect(),
    }
}

fn row_of<'w>(whole: &'w Whole, table: &str, key: &RowKey) -> Option<&'w Vec<Cell>> {
    whole.tables.get(table).and_then(|rows| rows.get(key))
}

/// A row without a key of its own may get another rowid where the table has keys.
fn has_a_name(table: &str, key: &RowKey) -> bool {
    table == "heap" || key.first() != Some(&Cell::Null)
}

/// Whether a conflict is about rows alone.
fn only_by_rows(conflict: &Conflict) -> bool {
    conflict.reasons.iter().all(|reason| matches!(reason, Reason::Overlap | Reason::Constraint { .. }))
}

/// Rows that nobody decided about are what the one side made of them that changed them.
fn untouched(
    (base, theirs, mine): (&Whole, &Whole, &Whole),
    result: &Whole,
    decided: &BTreeSet<(String, RowKey)>,
) {
    // A table that one side dropped comes back with the rows of the other side that name it.
    let everywhere = |table: &str| [base, theirs, mine].iter().all(|whole| whole.tables.contains_key(table));
    let by_rows = |table: &str| oracle::by_rows(table) && everywhere(table);
    for (table, rows) in result.tables.iter().filter(|(table, _)| by_rows(table)) {
        let of = |whole: &Whole| -> Vec<RowKey> {
            whole.tables.get(table).map_or_else(Vec::new, |rows| rows.keys().cloned().collect())
        };
        let mut all: BTreeSet<RowKey> = rows.keys().cloned().collect();
        all.extend([base, theirs, mine].into_iter().flat_map(of));
        all.retain(|key| has_a_name(table, key) && !decided.contains(&(table.clone(), key.clone())));
        for key in all {
            let [was, theirs, mine] = [base, theirs, mine].map(|whole| row_of(whole, table, &key));
            let expected = if theirs == was { mine } else { theirs };
            assert_eq!(row_of(result, table, &key), expected, "{table} {key:?} was decided about unseen");
        }
    }
}

/// Says which case it was, and what was run, where one fails.
struct Says<'a>(u64, &'a [String]);

impl Drop for Says<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SQLRSYNC_MERGE_SEED={}\n{};", self.0, self.1.join(";\n"));
        }
    }
}

fn check(seed: u64) -> &'static str {
    let mut log = Vec::new();
    let case = Case::new(seed, &mut log);
    let _says = Says(seed, &log);
    case.check()
}

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// A part of the cases, so that they run side by side.
fn check_part(part: u64) {
    if let Some(seed) = number("SQLRSYNC_MERGE_SEED") {
        println!("{}", check(seed));
        return;
    }
    let cases = number("SQLRSYNC_MERGE_CASES").unwrap_or(CASES) / PARTS;
    let first = number("SQLRSYNC_MERGE_FIRST").unwrap_or(0) + part * cases;
    let known = REGRESSIONS.iter().copied().filter(|seed| seed % PARTS == part);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    // Every second one is dense.
    let drawn = (first..first + cases).map(|seed| if seed % 2 == 0 { seed } else { seed | DENSE });
    for seed in known.chain(drawn) {
        *outcomes.entry(check(seed)).or_default() += 1;
    }
    println!("{outcomes:?}");
    for outcome in ["merged", "overlap", "constraint", "schema", "virtual"] {
        assert!(
            cases < CASES / PARTS || outcomes.contains_key(outcome),
            "no case of {outcome}: {outcomes:?}"
        );
    }
}

#[test]
fn random_histories_merge_as_the_oracle_says_part_1() {
    check_part(0);
}

#[test]
fn random_histories_merge_as_the_oracle_says_part_2() {
    check_part(1);
}

#[test]
fn random_histories_merge_as_the_oracle_says_part_3() {
    check_part(2);
}

#[test]
fn random_histories_merge_as_the_oracle_says_part_4() {
    check_part(3);
}
