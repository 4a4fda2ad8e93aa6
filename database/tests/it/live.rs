//! Writers and readers at work while a file is read, and while it is written.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_protocol::exchange::{Form, OriginPages, Since, Wanted};

use crate::support::{Bench, Memory, StopOnDrop, create, dump, query};

/// How long a writer is given to get through.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database in which every commit leaves all rows alike, over many pages.
fn create_uniform(path: &Path, mode: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(())).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, generation INTEGER, padding BLOB);
             CREATE INDEX by_generation ON t (generation);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
             INSERT INTO t SELECT i, 0, randomblob(500) FROM n;",
        )
        .unwrap();
    connection
}

/// Whether the file holds one committed state: all rows of one generation, and sound.
fn assert_uniform(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(query(&connection, "PRAGMA integrity_check"), ["Text(\"ok\")"]);
    uniform(&connection).unwrap()
}

fn uniform(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT count(*), min(generation), max(generation) FROM t";
    let mut statement = connection.prepare_cached(sql)?;
    let (count, min, max) = statement
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    assert_eq!((count, min), (400, max), "a mixture of two states");
    Ok(min)
}

/// Commits on and on, with every kind of checkpoint and now and then a VACUUM.
fn write_on(connection: &Connection, stop: &AtomicBool, commits: &AtomicU32) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        connection.execute_batch("UPDATE t SET generation = generation + 1").unwrap();
        if round % 5 == 0 {
            connection.execute_batch("UPDATE t SET padding = randomblob(300 + id % 400)").unwrap();
        }
        let kind = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][round % 4];
        // A reader in the way of one kind is no matter, another comes.
        let _ = connection.execute_batch(&format!("PRAGMA wal_checkpoint({kind})"));
        if round % 23 == 0 {
            let _ = connection.execute_batch("VACUUM");
        }
        commits.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(round as u64 % 7));
    }
}

#[test]
fn an_image_is_one_committed_state_while_a_writer_commits_all_the_time() {
    for mode in ["WAL", "DELETE", "TRUNCATE", "PERSIST"] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
        let writer = create_uniform(&from, mode);
        let (stop, commits) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let _writing = StopOnDrop(&stop);
            let (stop_writing, committed) = (&stop, &commits);
            scope.spawn(move || write_on(&writer, stop_writing, committed));
            let start = Instant::now();
            let mut last = 0;
            for round in 0.. {
                // On a slow machine it takes longer until there is enough to see.
                let seen = commits.load(Ordering::Relaxed) > 10 || start.elapsed() > PATIENCE;
                if seen && start.elapsed() > Duration::from_millis(1500) {
                    break;
                }
                match round % 3 {
                    0 => drop(bench.sync(&from, &to, 3, &mut of, &mut at)),
                    version => {
                        let copy = bench.path(&format!("copy-{round}.db"));
                        bench.copy(&from, &copy, version);
                        assert_uniform(&copy);
                        std::fs::remove_file(copy).unwrap();
                    }
                }
                let generation = assert_uniform(&to);
                assert!(generation >= last, "the replica went back in time");
                last = generation;
            }
        });
        assert!(commits.load(Ordering::Relaxed) > 10, "{mode}: the writer got through");
        bench.sync(&from, &to, 3, &mut of, &mut at);
        assert_eq!(dump(&to), dump(&from), "{mode}");
    }
}

#[test]
fn readers_of_the_replica_never_see_a_mixture() {
    for mode in ["WAL", "DELETE"] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
        let writer = create_uniform(&from, "WAL");
        bench.sync(&from, &to, 3, &mut of, &mut at);
        Connection::open(&to)
            .unwrap()
            .query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(()))
            .unwrap();
        let (stop, reads) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let _reading = StopOnDrop(&stop);
            for _ in 0..2 {
                scope.spawn(|| {
                    let reader = Connection::open(&to).unwrap();
                    reader.busy_timeout(Duration::from_secs(20)).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        uniform(&reader).unwrap();
                        reads.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            for _ in 0..12 {
                writer.execute_batch("UPDATE t SET generation = generation + 1").unwrap();
                bench.sync(&from, &to, 3, &mut of, &mut at);
            }
        });
        assert!(reads.load(Ordering::Relaxed) > 20, "{mode}");
        assert_eq!(assert_uniform(&to), 12);
    }
}

#[test]
fn a_network_that_stands_still_keeps_no_writer_waiting() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let path = bench.path("a.db");
        let writer = create(&path, &format!("PRAGMA journal_mode = {mode}"), 10);
        // Noise, so that it is more than what waits in memory, and has to go to a file.
        writer.execute("INSERT INTO t (data) VALUES (randomblob(40000000))", []).unwrap();
        writer.busy_timeout(Duration::from_secs(20)).unwrap();
        let mut origin = bench.origin(&path, &Memory::default()).unwrap();
        origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks }).unwrap();
        // Nobody takes a block. In rollback mode the commit waits for readers, and in WAL mode the
        // truncating checkpoint does: both come through as soon as the image is spooled.
        writer.execute_batch("UPDATE t SET name = 'went on' WHERE id = 1").unwrap();
        let busy = query(&writer, "PRAGMA wal_checkpoint(TRUNCATE)");
        assert!(busy[0].starts_with("Integer(0)"), "{busy:?}");
        let mut pages = 0;
        while let Some(block) = origin.next_block().unwrap() {
            pages += block.page_count();
        }
        assert_eq!(pages, origin.proof().unwrap().page_count.get());
    }
}

#[test]
fn a_writer_in_wal_mode_does_not_notice_the_snapshot() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    let writer = create(&path, "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF", 10);
    writer.execute("INSERT INTO t (data) VALUES (randomblob(20000000))", []).unwrap();
    // Not a moment of waiting: a lock in the way would be an error.
    writer.busy_timeout(Duration::ZERO).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _copying = StopOnDrop(&stop);
            for _ in 0..3 {
                bench.copy(&path, &bench.path("b.db"), 3);
                std::fs::remove_file(bench.path("b.db")).unwrap();
            }
        });
        let mut commits = 0;
        while !stop.load(Ordering::Relaxed) {
            writer.execute("UPDATE t SET name = ?1 WHERE id = 1", [commits]).unwrap();
            commits += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(commits > 20);
    });
}
