//! A write that changes nothing is told from one that does: by the WAL where it can, by reading the file
//! only where that is allowed, and never by a guess.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_database::{Look, NowOptions, root_now};
use sqlrsync_protocol::hash::Root;

use crate::support::{create, insert, root_of};
use crate::wal::Pushed;

/// Longer than the tick of the file system's clock.
const TICKED: Duration = Duration::from_millis(30);

const LARGE: u64 = 1 << 30;

impl Pushed {
    fn look(&self, read_max: u64) -> Look {
        std::thread::sleep(TICKED);
        let (hashes, known) = (self.memory.hashes.as_ref().unwrap(), self.memory.agreed.as_ref().unwrap());
        let options = NowOptions { read_max, temp_dir: self.bench.dir.path() };
        root_now(&self.path, hashes, known, options).unwrap()
    }

    fn pushed_root(&self) -> Root {
        self.memory.agreed.as_ref().unwrap().root
    }

    /// Nothing changed, and that is known without reading the file.
    #[track_caller]
    fn unchanged_by_wal(&self, what: &str) {
        assert_eq!(self.look(0), Look { root: Some(self.pushed_root()), read_all: false }, "{what}");
    }

    /// Something changed, and what the look says is right.
    #[track_caller]
    fn changed_by_wal(&self, what: &str) {
        let look = self.look(0);
        assert_eq!(look, Look { root: Some(root_of(&self.path)), read_all: false }, "{what}");
        assert_ne!(look.root, Some(self.pushed_root()), "{what}");
    }
}

fn touch(pushed: &Pushed) {
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    let file = std::fs::File::options().write(true).open(&pushed.path).unwrap();
    file.set_modified(later).unwrap();
}

#[test]
fn what_changes_nothing_is_known_by_the_wal_and_what_changes_something_too() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    let noop = "UPDATE t SET data = data WHERE id = 77";
    // So that the WAL has frames.
    writer.execute_batch(noop).unwrap();
    pushed.push();
    writer.execute_batch(noop).unwrap();
    pushed.unchanged_by_wal("an update that sets what was there");
    writer.execute_batch("BEGIN; DELETE FROM t; ROLLBACK").unwrap();
    pushed.unchanged_by_wal("a transaction that was rolled back");
    writer.execute_batch("UPDATE t SET name = 'other' WHERE id = 77").unwrap();
    pushed.changed_by_wal("a row");
    writer.execute_batch("CREATE TABLE more (x)").unwrap();
    pushed.changed_by_wal("a table");
    pushed.push();
    writer
        .execute_batch("UPDATE t SET name = 'third' WHERE id = 77; PRAGMA wal_checkpoint(PASSIVE)")
        .unwrap();
    pushed.changed_by_wal("a row and a checkpoint");
    pushed.push();
    writer.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    pushed.unchanged_by_wal("a checkpoint");
}

#[test]
fn a_touch_of_a_file_beside_its_wal_is_known_for_one() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    writer.execute_batch("UPDATE t SET name = 'other' WHERE id = 77").unwrap();
    pushed.push();
    touch(&pushed);
    pushed.unchanged_by_wal("a touch");
}

#[test]
fn without_a_wal_only_reading_the_file_tells_and_only_as_far_as_it_may_be_read() {
    for mode in ["delete", "wal"] {
        let mut pushed = Pushed::new();
        let writer = create(&pushed.path, &format!("PRAGMA journal_mode = {mode}"), 500);
        drop(writer);
        pushed.push();
        touch(&pushed);
        assert_eq!(pushed.look(1000), Look { root: None, read_all: false }, "{mode}");
        let unchanged = Look { root: Some(pushed.pushed_root()), read_all: true };
        assert_eq!(pushed.look(LARGE), unchanged, "{mode}: a touch");
        let write = |sql: &str| Connection::open(&pushed.path).unwrap().execute_batch(sql).unwrap();
        write("UPDATE t SET data = data WHERE id = 3");
        assert_eq!(pushed.look(LARGE), unchanged, "{mode}: an update that sets what was there");
        write("UPDATE t SET name = 'other' WHERE id = 3");
        assert_eq!(pushed.look(LARGE).root, Some(root_of(&pushed.path)), "{mode}");
        assert_ne!(pushed.look(LARGE).root, unchanged.root, "{mode}");
    }
}

#[test]
fn a_wal_that_was_truncated_tells_nothing_and_one_with_much_in_it_is_not_read() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    insert(&writer, 10);
    pushed.push();
    insert(&writer, 8000);
    assert_eq!(pushed.look(0), Look { root: None, read_all: false }, "much has changed");
    pushed.push();
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_eq!(pushed.look(0), Look { root: None, read_all: false }, "a truncated WAL");
}

#[test]
fn hashes_that_are_not_of_what_was_agreed_on_tell_nothing() {
    let (mut pushed, writer) = Pushed::in_wal_mode(300);
    let before = pushed.memory.agreed.clone();
    insert(&writer, 10);
    pushed.push();
    pushed.memory.agreed = before;
    assert_eq!(pushed.look(LARGE).root, None);
    std::fs::remove_file(pushed.memory.hashes.as_ref().unwrap()).unwrap();
    assert_eq!(pushed.look(LARGE).root, None);
}

#[test]
fn a_look_leaves_nothing_open_and_waits_for_no_writer() {
    let (mut pushed, writer) = Pushed::in_wal_mode(300);
    insert(&writer, 10);
    pushed.push();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE t SET name = 'mine' WHERE id = 5").unwrap();
    let began = Instant::now();
    pushed.unchanged_by_wal("what is not committed is no change");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    writer.execute_batch("COMMIT").unwrap();
    pushed.changed_by_wal("now it is");
    // No reader is in its way.
    let busy: i64 = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
}
