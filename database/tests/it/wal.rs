//! Pushes of a live file one after the other: what each of them sends is right, and the whole file is
//! read only where the WAL does not say for certain what changed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_database::LiveOrigin;
use sqlrsync_protocol::exchange::{Base, Form, OriginPages, Since, Wanted};
use sqlrsync_protocol::hash::Root;

use crate::support::{Bench, Memory, create, insert, query, root_of};

/// A file and what was remembered of it at its last push.
pub struct Pushed {
    pub bench: Bench,
    pub path: PathBuf,
    pub memory: Memory,
}

/// What a push did.
#[derive(Debug)]
pub struct Push {
    root: Root,
    pages: u32,
    read_all: bool,
}

impl Pushed {
    pub fn new() -> Pushed {
        let bench = Bench::new();
        let (path, memory) = (bench.path("a.db"), bench.memory("hashes"));
        Pushed { bench, path, memory }
    }

    /// One that was pushed once, in WAL mode, and the connection that has it open.
    pub fn in_wal_mode(rows: u32) -> (Pushed, Connection) {
        let mut pushed = Pushed::new();
        let writer = create(&pushed.path, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0", rows);
        assert!(pushed.push().read_all);
        (pushed, writer)
    }

    fn origin(&self) -> LiveOrigin {
        self.bench.origin(&self.path, &self.memory).unwrap()
    }

    /// Sends what changed since the last push to nowhere, and everything the first time.
    pub fn push(&mut self) -> Push {
        let origin = self.origin();
        self.push_from(origin)
    }

    fn push_from(&mut self, mut origin: LiveOrigin) -> Push {
        let since = match self.memory.base() {
            Some(base) => {
                // As an exchange asks; it is told none where the file is another by now.
                origin.base().unwrap();
                Since::Base(base)
            }
            None => Since::Nothing,
        };
        origin.begin(Wanted { since, staged: Vec::new(), form: Form::Blocks }).unwrap();
        let mut pages = 0;
        while let Some(block) = origin.next_block().unwrap() {
            pages += block.page_count();
        }
        let root = origin.proof().unwrap().root;
        let read_all = origin.has_read_all();
        self.memory.agreed = Some(origin.agreed().unwrap());
        Push { root, pages, read_all }
    }

    /// A push by the WAL, and it is right.
    #[track_caller]
    fn by_wal(&mut self) -> u32 {
        let push = self.push();
        assert!(!push.read_all, "the whole file was read");
        assert_eq!(push.root, root_of(&self.path));
        push.pages
    }

    /// A push by a scan, and it is right.
    #[track_caller]
    fn by_scan(&mut self) {
        let push = self.push();
        assert!(push.read_all, "the WAL cannot have said it: {push:?}");
        assert_eq!(push.root, root_of(&self.path));
    }
}

const UPDATE: &str = "UPDATE t SET name = 'changed' WHERE id = 77";

#[test]
fn a_row_is_pushed_by_what_the_wal_says() {
    let (mut pushed, writer) = Pushed::in_wal_mode(5000);
    writer.execute_batch(UPDATE).unwrap();
    assert!((1..10).contains(&pushed.by_wal()));
    assert_eq!(pushed.by_wal(), 0, "nothing changed");
    writer.execute_batch("DELETE FROM t WHERE id % 50 = 0").unwrap();
    pushed.by_wal();
    insert(&writer, 2000);
    pushed.by_wal();
    writer.execute_batch("CREATE TABLE other AS SELECT * FROM t LIMIT 10").unwrap();
    pushed.by_wal();
}

#[test]
fn a_file_that_shrinks_and_grows_is_pushed_by_what_the_wal_says() {
    let mut pushed = Pushed::new();
    let pragmas =
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0";
    let writer = create(&pushed.path, pragmas, 3000);
    assert!(pushed.push().read_all);
    for rows in [10, 100, 200, 300] {
        let shrink = "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT 200); PRAGMA incremental_vacuum";
        writer.execute_batch(shrink).unwrap();
        pushed.by_wal();
        insert(&writer, rows);
        pushed.by_wal();
        writer.execute_batch(shrink).unwrap();
        insert(&writer, rows);
        pushed.by_wal();
    }
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    pushed.by_scan();
    let before: u32 = writer.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    writer.execute_batch("DELETE FROM t WHERE id % 2 = 1; VACUUM").unwrap();
    pushed.push();
    let after: u32 = writer.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    assert!(after < before);
    assert_eq!(pushed.memory.base().unwrap().root, root_of(&pushed.path));
}

#[test]
fn a_wal_that_was_started_over_says_nothing() {
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        let (mut pushed, writer) = Pushed::in_wal_mode(3000);
        writer.execute_batch("UPDATE t SET name = 'lost' WHERE id = 1").unwrap();
        query(&writer, &format!("PRAGMA wal_checkpoint({mode})"));
        writer.execute_batch(UPDATE).unwrap();
        pushed.by_scan();
        writer.execute_batch("DELETE FROM t WHERE id = 1000").unwrap();
        pushed.by_wal();
    }
}

#[test]
fn a_checkpoint_that_leaves_the_wal_is_no_matter() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    // A reader in the way: the WAL cannot be started over.
    let reader = Connection::open(&pushed.path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    query(&reader, "SELECT count(*) FROM t");
    writer.execute_batch(UPDATE).unwrap();
    query(&writer, "PRAGMA wal_checkpoint(PASSIVE)");
    writer.execute_batch("DELETE FROM t WHERE id = 1000").unwrap();
    pushed.by_wal();
}

#[test]
fn an_application_that_opens_the_file_again_needs_no_scan() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    drop(writer);
    pushed.by_scan();
    for round in 1..4 {
        // It is the last to close and leaves no WAL; until then there was no checkpoint.
        let writer = Connection::open(&pushed.path).unwrap();
        writer.execute("UPDATE t SET name = 'again' WHERE id = ?1", [round]).unwrap();
        assert!(pushed.by_wal() > 0);
        drop(writer);
        pushed.by_scan();
    }
}

#[test]
fn a_file_that_was_pulled_needs_no_scan_to_be_pushed() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let (mut of, mut at) = (bench.memory("of"), bench.memory("at"));
    let origin = create(&from, "PRAGMA journal_mode = WAL", 3000);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    let application = Connection::open(&to).unwrap();
    let mut pushed = Pushed { bench, path: to.clone(), memory: at };
    application.execute_batch(UPDATE).unwrap();
    assert!(pushed.by_wal() > 0, "pulled as a new file");
    bench_sync(&mut pushed, &from, &origin, &mut of);
    application.execute_batch("DELETE FROM t WHERE id = 9").unwrap();
    assert!(pushed.by_wal() > 0, "pulled into a live file");
}

/// Brings the file back in step with the origin, which has changed.
fn bench_sync(pushed: &mut Pushed, from: &Path, origin: &Connection, of: &mut Memory) {
    origin.execute_batch("UPDATE t SET name = 'of the origin' WHERE id = 5").unwrap();
    let mut origin = pushed.bench.origin(from, of).unwrap();
    let overwrite = sqlrsync_database::Overwrite::Force;
    let mut replica = pushed.bench.replica(&pushed.path, &pushed.memory, overwrite).unwrap();
    let (sent, taken) = crate::support::join(&mut origin, &mut replica, 3);
    sent.unwrap();
    taken.unwrap();
    of.agreed = Some(origin.agreed().unwrap());
    pushed.memory.agreed = Some(replica.agreed().unwrap());
}

#[test]
fn frames_of_a_transaction_that_is_not_committed_are_pushed_when_it_is() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    writer
        .execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE t SET data = zeroblob(50) WHERE id < 900")
        .unwrap();
    pushed.push();
    writer.execute_batch("COMMIT").unwrap();
    assert!(pushed.by_wal() > 20);
}

#[test]
fn a_transaction_rolled_back_after_its_frames_were_written_is_no_matter() {
    let (mut pushed, writer) = Pushed::in_wal_mode(3000);
    writer
        .execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE t SET data = zeroblob(50) WHERE id < 900")
        .unwrap();
    pushed.push();
    writer.execute_batch("ROLLBACK").unwrap();
    writer.execute_batch(UPDATE).unwrap();
    assert!((1..10).contains(&pushed.by_wal()));
}

#[test]
fn a_change_of_the_journal_mode_is_scanned() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    for mode in ["DELETE", "WAL", "TRUNCATE", "PERSIST", "WAL"] {
        assert_eq!(
            query(&writer, &format!("PRAGMA journal_mode = {mode}")).len(),
            1,
            "no connection of ours is in the way"
        );
        writer.execute_batch("UPDATE t SET name = name || '!' WHERE id = 5").unwrap();
        pushed.by_scan();
    }
    writer.execute_batch(UPDATE).unwrap();
    pushed.by_wal();
}

#[test]
fn an_application_changes_its_journal_mode_while_a_slow_network_takes_a_push() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    writer.execute_batch(UPDATE).unwrap();
    let root = root_of(&pushed.path);
    let mut origin = pushed.origin();
    let since = Since::Base(pushed.memory.base().unwrap());
    origin.begin(Wanted { since, staged: Vec::new(), form: Form::Blocks }).unwrap();
    // Nobody takes a block. What is read are two pages: only for that long is a connection of ours open.
    let deadline = Instant::now() + Duration::from_secs(30);
    writer.busy_timeout(Duration::from_millis(10)).unwrap();
    while writer.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0)).is_err() {
        assert!(Instant::now() < deadline, "the push keeps the WAL");
    }
    writer.execute_batch("DELETE FROM t WHERE id = 5").unwrap();
    while origin.next_block().unwrap().is_some() {}
    assert_eq!(origin.proof().unwrap().root, root);
    pushed.memory.agreed = Some(origin.agreed().unwrap());
    pushed.by_scan();
}

#[test]
fn another_file_of_the_same_name_is_scanned() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    drop(writer);
    let other = pushed.bench.path("other.db");
    let writer = create(&other, "PRAGMA journal_mode = WAL", 1200);
    drop(writer);
    std::fs::rename(&other, &pushed.path).unwrap();
    pushed.by_scan();
    std::fs::remove_file(&pushed.path).unwrap();
    let writer = create(&pushed.path, "PRAGMA journal_mode = WAL", 900);
    pushed.by_scan();
    writer.execute_batch(UPDATE).unwrap();
    pushed.by_wal();
    drop(writer);
    std::fs::remove_file(&pushed.path).unwrap();
    drop(create(&pushed.path, "PRAGMA page_size = 1024", 900));
    let known = pushed.memory.clone();
    pushed.memory.agreed = None;
    let push = pushed.push_from(pushed.bench.origin(&pushed.path, &known).unwrap());
    assert!(push.read_all && push.root == root_of(&pushed.path), "pages of another size");
}

#[test]
fn a_file_copied_over_beside_its_wal_is_scanned() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    query(&writer, "PRAGMA wal_checkpoint(TRUNCATE)");
    let backup = pushed.bench.path("backup.db");
    std::fs::copy(&pushed.path, &backup).unwrap();
    writer.execute_batch("PRAGMA user_version = 5").unwrap();
    query(&writer, "PRAGMA wal_checkpoint(TRUNCATE)");
    writer.execute_batch("UPDATE t SET name = 'a frame' WHERE id = 500").unwrap();
    pushed.by_scan();
    // What nobody should do: the WAL stays, and SQLite puts its frames over the older file.
    std::fs::copy(&backup, &pushed.path).unwrap();
    pushed.by_scan();
}

#[test]
fn the_file_is_scanned_once_a_day_and_where_the_clock_was_set_back() {
    const HOUR_NS: i64 = 3600 * 1_000_000_000;
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    let mut round = 0;
    let mut after = |pushed: &mut Pushed, moved_ns: Option<i64>| {
        round += 1;
        writer.execute("UPDATE t SET name = ?1 WHERE id = 5", [round]).unwrap();
        let agreed = pushed.memory.agreed.as_mut().unwrap();
        agreed.last_scan_ns = moved_ns.and_then(|moved| Some(agreed.last_scan_ns? + moved));
        pushed.push().read_all
    };
    assert!(!after(&mut pushed, Some(-23 * HOUR_NS)));
    assert!(after(&mut pushed, Some(-HOUR_NS)), "24 hours");
    assert!(!after(&mut pushed, Some(0)), "the scan was noted");
    assert!(after(&mut pushed, Some(HOUR_NS)), "a scan in the future");
    assert!(after(&mut pushed, None), "a state that does not say");
}

#[test]
fn a_scan_can_be_asked_for() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    writer.execute_batch(UPDATE).unwrap();
    pushed.by_wal();
    for change in [false, true] {
        if change {
            writer.execute_batch("DELETE FROM t WHERE id = 50").unwrap();
        }
        let origin = LiveOrigin::open(
            &pushed.path,
            sqlrsync_database::LiveOriginOptions {
                hashes: pushed.memory.hashes.clone(),
                known: pushed.memory.agreed.clone(),
                base: pushed.memory.base(),
                push_id: None,
                scan: true,
                temp_dir: pushed.bench.dir.path().to_path_buf(),
            },
        );
        let push = pushed.push_from(origin.unwrap());
        assert!(push.read_all, "changed: {change}");
        assert_eq!(push.root, root_of(&pushed.path));
    }
}

#[test]
fn a_state_of_an_earlier_release_costs_a_scan() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    let mut text = serde_json::to_value(pushed.memory.agreed.as_ref().unwrap()).unwrap();
    text.as_object_mut().unwrap().remove("last_scan_ns").unwrap();
    text["fingerprint"].as_object_mut().unwrap().remove("born_ns").unwrap();
    pushed.memory.agreed = Some(serde_json::from_value(text).unwrap());
    writer.execute_batch(UPDATE).unwrap();
    pushed.by_scan();
}

#[test]
fn what_changes_after_the_hashes_were_compared_is_told_by_the_wal() {
    let (pushed, writer) = Pushed::in_wal_mode(3000);
    let count = pushed.memory.agreed.as_ref().unwrap().geometry.page_count;
    let mut origin = pushed.bench.origin(&pushed.path, &Memory::default()).unwrap();
    assert_eq!(origin.geometry().unwrap().page_count, count);
    origin.node(sqlrsync_protocol::tree::top(count)).unwrap();
    writer.execute_batch(UPDATE).unwrap();
    insert(&writer, 200);
    let differing = [3, 5].into_iter().collect();
    let since = Since::Compared { differing, held: count };
    origin.begin(Wanted { since, staged: Vec::new(), form: Form::Blocks }).unwrap();
    let mut pages = 0;
    while let Some(block) = origin.next_block().unwrap() {
        pages += block.page_count();
    }
    assert!((4..100).contains(&pages), "{pages}");
    assert_eq!(origin.proof().unwrap().root, root_of(&pushed.path));
    let agreed = origin.agreed().unwrap();
    assert!(agreed.last_scan_ns.is_some());
}

#[test]
fn what_the_replica_has_is_told_from_the_own_content_without_a_scan() {
    let (mut pushed, writer) = Pushed::in_wal_mode(1000);
    let theirs = Base { version: None, root: Root([9; Root::LEN]) };
    let mut origin = pushed.origin();
    assert!(!origin.knows(&theirs).unwrap() && !origin.has_read_all(), "nothing changed");
    writer.execute_batch(UPDATE).unwrap();
    let mut origin = pushed.origin();
    assert!(!origin.knows(&theirs).unwrap() && !origin.has_read_all(), "a row changed");
    let same = Base { version: None, root: root_of(&pushed.path) };
    assert!(pushed.origin().knows(&same).unwrap());
    pushed.by_wal();
}

/// What this process has asked the system to read so far.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Run as a process of its own: other tests read as well.
#[test]
#[ignore = "a part of the test below"]
fn child_pushes_a_row() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // 60 MB, and all of it in the WAL: 15,000 frames.
    let (mut pushed, writer) = Pushed::in_wal_mode(10);
    let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000)
                  INSERT INTO t (name, data) SELECT 'name', randomblob(3500) FROM n";
    writer.execute_batch(insert).unwrap();
    pushed.push();
    writer.execute_batch(UPDATE).unwrap();
    let before = bytes_read();
    let push = pushed.push();
    let read = bytes_read() - before;
    assert!(!push.read_all && read < 200_000, "{read} bytes were read");
}

const CHILD: &str = "SQLRSYNC_TEST_CHILD";

#[test]
fn a_push_of_a_row_reads_as_little_in_a_large_file_with_a_large_wal() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "wal::child_pushes_a_row", "--ignored", "--nocapture"]).env(CHILD, "1");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{text}"
    );
}
