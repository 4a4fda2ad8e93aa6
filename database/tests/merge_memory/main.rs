//! What merging one large row takes in memory: a few times the row, and no more. In a binary of its own, with
//! one test, as what is measured is the peak of the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rusqlite::Connection;
use sqlrsync_database::btree::Touched;
use sqlrsync_database::merge::{Merge, MergeOptions, Resolutions, Side, Sides, merge};
use tempfile::TempDir;

/// The row, in bytes: more than what the allocator keeps for itself when it is freed: the peak is what is in use.
const ROW: usize = 34_000_000;

/// How many times the row a merge may take. Most take 3: what both sides have while they are compared, and a copy.
const MOST: f64 = 4.2;

/// One merge. In its SQL, `LARGE` is the length of a large value.
struct Case {
    name: &'static str,
    base: &'static str,
    theirs: &'static str,
    mine: &'static str,
    options: MergeOptions,
    keep: Option<Side>,
    merges: bool,
}

/// The highest resident memory since it was last reset, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}

/// Makes the peak what is resident now; that is given.
fn reset_peak() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
    connection
}

fn run(path: &Path, sql: &str) {
    open(path).execute_batch(&sql.replace("LARGE", &ROW.to_string())).unwrap();
}

impl Case {
    /// How many times the row it took.
    fn measure(&self) -> f64 {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        run(&path("base"), self.base);
        for (name, sql) in [("theirs", self.theirs), ("mine", self.mine)] {
            std::fs::copy(path("base"), path(name)).unwrap();
            run(&path(name), sql);
        }
        let (base, theirs, mine) = (open(&path("base")), open(&path("theirs")), open(&path("mine")));
        let everything = Touched::everything("this is a test");
        let (base_theirs, base_mine) = (&everything, &everything);
        let sides = Sides { base: &base, theirs: &theirs, mine: &mine, base_theirs, base_mine };
        let resolve = Resolutions { default: self.keep, ..Resolutions::default() };
        let before = reset_peak();
        let done = merge(sides, &self.options, &resolve).unwrap();
        let took = peak().saturating_sub(before);
        assert_eq!(matches!(done, Merge::Merged { .. }), self.merges, "{}: {done:?}", self.name);
        took as f64 / ROW as f64
    }
}

const PLAIN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, n UNIQUE, v BLOB);
    INSERT INTO t VALUES (1, 1, zeroblob(LARGE)), (2, 2, 'x'), (3, 3, 'y')";
const KEYED: &str = "CREATE TABLE t(id TEXT PRIMARY KEY, n UNIQUE, v BLOB);
    INSERT INTO t VALUES (1, 1, zeroblob(LARGE)), (2, 2, 'x')";
const WITHOUT_ROWID: &str = "CREATE TABLE t(id INT PRIMARY KEY, n UNIQUE, v BLOB) WITHOUT ROWID;
    INSERT INTO t VALUES (1, 1, zeroblob(LARGE)), (2, 2, 'x')";

const OTHER_ROW: &str = "UPDATE t SET v = 'z' WHERE id = 2";
const OTHER_COLUMN: &str = "UPDATE t SET n = 10 WHERE id = 1";
const UPDATE: &str = "UPDATE t SET v = zeroblob(LARGE + 1) WHERE id = 1";
const OTHER_UPDATE: &str = "UPDATE t SET v = zeroblob(LARGE + 2) WHERE id = 1";
const INSERT: &str = "INSERT INTO t VALUES (9, 9, zeroblob(LARGE))";
const OTHER_INSERT: &str = "INSERT INTO t VALUES (9, 19, zeroblob(LARGE + 2))";
const SWAP: &str = "UPDATE t SET n = NULL; UPDATE t SET n = 4 - id, v = iif(id = 1, zeroblob(LARGE + 3), v)";
const MOVE: &str = "UPDATE t SET rowid = rowid + 10, v = zeroblob(LARGE + 4) WHERE id = 1";

fn cases() -> Vec<Case> {
    let options = MergeOptions::default();
    let cells = MergeOptions { cells: true, ..options };
    let renumber = MergeOptions { renumber: true, ..options };
    let (theirs, mine) = (Some(Side::Theirs), Some(Side::Mine));
    let case =
        |name, base, theirs, mine| Case { name, base, theirs, mine, options, keep: None, merges: true };
    vec![
        case("updated", PLAIN, OTHER_ROW, UPDATE),
        case("inserted", PLAIN, OTHER_ROW, INSERT),
        case("deleted", PLAIN, OTHER_ROW, "DELETE FROM t WHERE id = 1"),
        case("another column", PLAIN, OTHER_ROW, OTHER_COLUMN),
        case("updated alike", PLAIN, UPDATE, UPDATE),
        case("swapped", PLAIN, OTHER_ROW, SWAP),
        case("another rowid", KEYED, OTHER_ROW, MOVE),
        case("without rowid", WITHOUT_ROWID, OTHER_ROW, UPDATE),
        Case { merges: false, ..case("in conflict", PLAIN, OTHER_UPDATE, UPDATE) },
        Case { keep: theirs, ..case("kept theirs", PLAIN, OTHER_UPDATE, UPDATE) },
        Case { keep: mine, ..case("kept mine", PLAIN, OTHER_UPDATE, UPDATE) },
        Case { options: cells, ..case("by columns", PLAIN, OTHER_COLUMN, UPDATE) },
        Case { options: renumber, ..case("renumbered", PLAIN, OTHER_INSERT, INSERT) },
    ]
}

#[test]
fn a_large_row_is_in_memory_a_few_times_at_most() {
    let took: Vec<(&str, f64)> = cases().iter().map(|case| (case.name, case.measure())).collect();
    for (name, times) in &took {
        println!("{name}: {times:.1} times the row");
    }
    for (name, times) in took {
        assert!(times <= MOST, "{name} took {times:.1} times the row");
    }
}
