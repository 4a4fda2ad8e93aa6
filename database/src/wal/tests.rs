//! The rule of the WAL, put to the test: in single steps here, beside random writers in `random`.
//!
//! Beside the rule stands the obvious one, which takes the last frame that the file shows before the
//! snapshot for the snapshot's end. It must fail the very tests that the rule passes.

mod follower;
mod random;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use self::follower::{Follower, Said};
use super::{Changed, Scan, is_due};
use crate::fingerprint::Wal;
use crate::pages::{ReadPages, View};
use crate::snapshot::{Snapshot, wal_of};

/// A folder in memory where there is one: a round writes a lot, and nothing here is about disks.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A database in WAL mode, never checkpointed by itself, and a second connection's cache too small for a
/// transaction of many pages.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    writer: Connection,
    follower: Follower,
}

impl Place {
    fn new() -> Place {
        let dir = folder();
        let path = dir.path().join("a.db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(
                "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 PRAGMA cache_size = 5; CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
                 INSERT INTO t SELECT i, 'name ' || i, randomblob(300) FROM n",
            )
            .unwrap();
        let follower = Follower::new(&path, dir.path());
        let mut place = Place { _dir: dir, path, writer, follower };
        assert_eq!(place.round(), Said::First);
        place
    }

    fn run(&self, sql: &str) {
        self.writer.execute_batch(sql).unwrap();
    }

    fn round(&mut self) -> Said {
        self.follower.round().unwrap()
    }

    /// What the WAL says now, since the last round.
    fn look(&self) -> Changed {
        self.follower.look(&Snapshot::open(&self.path).unwrap()).unwrap()
    }

    fn scan(&self) -> Option<Scan> {
        match self.look() {
            Changed::Pages(_) => None,
            Changed::Unknown(scan) => Some(scan),
        }
    }
}

#[test]
fn frames_in_the_file_before_their_commit_are_missed_by_the_obvious_rule_only() {
    let mut place = Place::new();
    // More than the cache holds, so that frames are written before the commit, and each page once.
    place.run("BEGIN; UPDATE t SET name = 'not yet'");
    assert!(matches!(place.round(), Said::Pages { .. }));
    place.run("COMMIT");
    let said = place.round();
    assert!(matches!(said, Said::Pages { changed: 50.., .. }), "{said:?}");
    assert_eq!(place.follower.tally.wrong_missed, 1, "the obvious rule sees nothing of it");
}

#[test]
fn frames_of_a_transaction_that_was_rolled_back_count_for_nothing() {
    let mut place = Place::new();
    place.run("BEGIN; UPDATE t SET name = 'never'");
    place.round();
    place.run("ROLLBACK; UPDATE t SET name = 'one' WHERE id = 7");
    let said = place.round();
    assert!(matches!(said, Said::Pages { changed: 1..5, .. }), "{said:?}");
}

#[test]
fn frames_written_twice_in_one_transaction_count_as_they_ended() {
    let mut place = Place::new();
    place.run("BEGIN; UPDATE t SET name = 'first'; UPDATE t SET name = 'second'");
    place.round();
    place.run("UPDATE t SET name = 'third' WHERE id < 100; COMMIT");
    assert!(matches!(place.round(), Said::Pages { .. }));
    place.run(
        "BEGIN; SAVEPOINT a; UPDATE t SET name = 'back'; ROLLBACK TO a; DELETE FROM t WHERE id = 3; COMMIT",
    );
    assert!(matches!(place.round(), Said::Pages { .. }));
}

#[test]
fn each_reason_to_scan_is_found() {
    let mut place = Place::new();
    place.run("UPDATE t SET name = 'one' WHERE id = 7");
    assert_eq!(place.scan(), None);
    place.follower.forget_scan();
    assert_eq!(place.scan(), Some(Scan::Due));
    place.round();
    place.run("PRAGMA wal_checkpoint(RESTART); UPDATE t SET name = 'two' WHERE id = 7");
    assert_eq!(place.scan(), Some(Scan::Reset));
    place.round();
    place.run("PRAGMA journal_mode = DELETE; UPDATE t SET name = 'three' WHERE id = 7");
    assert_eq!(place.scan(), Some(Scan::Reset));
    place.round();
    place.run("PRAGMA page_size = 2048; VACUUM; PRAGMA journal_mode = WAL");
    assert_eq!(place.scan(), Some(Scan::OtherFile));
}

#[test]
fn after_an_empty_wal_the_first_counts_and_no_other() {
    let mut place = Place::new();
    place.run("PRAGMA wal_checkpoint(TRUNCATE)");
    assert_eq!(place.round(), Said::Scan);
    place.run("UPDATE t SET name = 'one' WHERE id = 7");
    assert_eq!(place.scan(), None);
    place.run("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET name = 'two' WHERE id = 300");
    assert_eq!(place.scan(), Some(Scan::Reset));
    assert_eq!(place.round(), Said::Scan);
}

#[test]
fn a_wal_that_is_damaged_or_cut_between_says_nothing() {
    use std::os::unix::fs::FileExt;
    let mut place = Place::new();
    place.run("UPDATE t SET name = 'one' WHERE id = 7");
    place.round();
    place.run("UPDATE t SET name = 'two' WHERE id = 7");
    let snapshot = Snapshot::open(&place.path).unwrap();
    let wal_path = crate::fingerprint::beside(&place.path, "-wal");
    let file = std::fs::File::options().read(true).write(true).open(&wal_path).unwrap();
    let len = file.metadata().unwrap().len();
    // The last byte of the frame's page: neither salts nor the checksum in its header change.
    let mut byte = [0];
    file.read_exact_at(&mut byte, len - 1).unwrap();
    file.write_all_at(&[byte[0] ^ 1], len - 1).unwrap();
    let scan = |changed| match changed {
        Changed::Unknown(scan) => scan,
        Changed::Pages(_) => panic!("it cannot be certain"),
    };
    assert_eq!(scan(place.follower.look(&snapshot).unwrap()), Scan::Broken);
    file.set_len(len - 1).unwrap();
    assert_eq!(scan(place.follower.look(&snapshot).unwrap()), Scan::Reset);
}

#[test]
fn a_wal_that_is_started_over_while_it_is_read_says_nothing() {
    let mut place = Place::new();
    place.run("UPDATE t SET name = 'one' WHERE id = 7");
    place.round();
    place.run("UPDATE t SET name = 'two' WHERE id = 7; PRAGMA wal_checkpoint(PASSIVE)");
    // All of it is in the file: SQLite lets this snapshot read from there, and the WAL be overwritten.
    let snapshot = Snapshot::open(&place.path).unwrap();
    assert!(matches!(place.follower.look(&snapshot).unwrap(), Changed::Pages(_)));
    place.run("UPDATE t SET name = 'three' WHERE id = 100");
    assert!(matches!(place.follower.look(&snapshot).unwrap(), Changed::Unknown(Scan::Reset)));
}

#[test]
fn a_wal_that_is_truncated_before_it_is_looked_at_says_nothing() {
    let place = Place::new();
    place.run("UPDATE t SET name = 'one' WHERE id = 7; PRAGMA wal_checkpoint(PASSIVE)");
    let snapshot = Snapshot::open(&place.path).unwrap();
    let View { path, connection, wal, .. } = snapshot.view();
    assert!(matches!(wal, Wal::Frames(_)));
    // All of it is in the file, and the next WAL is shorter than the one in which the transaction ends.
    place.run("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET name = 'two' WHERE id = 8");
    assert_eq!(wal_of(path, connection).unwrap(), Wal::Unknown);
}

#[test]
fn who_writes_or_checkpoints_is_not_held_up() {
    let place = Place::new();
    place.writer.busy_timeout(Duration::ZERO).unwrap();
    let snapshot = Snapshot::open(&place.path).unwrap();
    place.run("UPDATE t SET name = 'one' WHERE id = 7");
    let busy = |mode: &str| -> i64 {
        place.writer.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(busy("PASSIVE"), 0);
    place.follower.look(&snapshot).unwrap();
    place.run("UPDATE t SET name = 'two' WHERE id = 8");
    drop(snapshot);
    assert_eq!(busy("TRUNCATE"), 0);
    let mode: String = place.writer.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
}

#[test]
fn a_scan_is_due_after_a_day_and_when_the_clock_was_set_back() {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;
    assert!(!is_due(Some(5), 5) && !is_due(Some(5), DAY + 4));
    assert!(is_due(Some(5), DAY + 5) && is_due(Some(5), 4) && is_due(None, 5));
    assert!(is_due(Some(i64::MIN), i64::MAX));
}
