//! Others who have the file open: what an apply waits for, what they see afterwards, and that no lock of theirs is lost
//! to what is done beside them.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_database::{Fingerprint, Overwrite};
use sqlrsync_protocol::exchange::{End, Form, OriginPages, Refusal, ReplicaPages, Since, Wanted};
use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};

use crate::support::{Bench, Memory, create, dump, insert, join, query, root_of, taken};

#[test]
fn a_large_apply_in_rollback_mode_writes_nothing_before_all_readers_are_gone() {
    let bench = Bench::in_memory();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    // More than an apply begins without keeping readers out.
    create(&from, "", 10).execute_batch("INSERT INTO t (data) VALUES (randomblob(9000000))").unwrap();
    drop(create(&to, "PRAGMA journal_mode = DELETE", 50));
    let (mut origin, mut replica) = taken(&bench, &from, &to, Overwrite::Force);
    let reader = Connection::open(&to).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    query(&reader, "SELECT count(*) FROM t");
    let proof = origin.proof().unwrap();
    let journal = bench.path("b.db-journal");
    std::thread::scope(|scope| {
        let finishing = scope.spawn(|| replica.finish(End::Proof(proof)).map(drop));
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            assert!(!finishing.is_finished() && !journal.exists(), "it writes while somebody is reading");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(query(&reader, "SELECT count(*) FROM t"), ["Integer(50)"]);
        reader.execute_batch("COMMIT").unwrap();
        finishing.join().unwrap().unwrap();
    });
    assert_eq!(root_of(&to), root_of(&from));
}

#[test]
fn an_application_with_a_cached_statement_goes_on_with_the_right_tables() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let writer = Connection::open(&from).unwrap();
        writer
            .execute_batch("CREATE TABLE one (x); CREATE TABLE two (x); INSERT INTO one VALUES ('first')")
            .unwrap();
        bench.copy(&from, &to, 3);
        let application = Connection::open(&to).unwrap();
        application.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(())).unwrap();
        let mut insert = application.prepare("INSERT INTO one VALUES (?1)").unwrap();
        let mut count = application.prepare("SELECT count(*) FROM two").unwrap();
        insert.execute(["before"]).unwrap();
        assert_eq!(count.query_row([], |row| row.get::<_, i64>(0)).unwrap(), 0);
        let roots =
            |connection: &Connection| query(connection, "SELECT rootpage FROM sqlite_schema ORDER BY name");
        let before = roots(&writer);
        // The tables change places: what was the root page of one is that of the other. As many changes
        // of the schema as to leave the origin with the very cookie that the replica has.
        writer
            .execute_batch(
                "DROP TABLE one; DROP TABLE two; CREATE TABLE one (x); CREATE TABLE two (x);
                 INSERT INTO two VALUES ('theirs')",
            )
            .unwrap();
        assert_eq!(roots(&writer), [before[1].clone(), before[0].clone()]);
        let cookie: i64 = application.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
        writer.pragma_update(None, "schema_version", cookie).unwrap();
        bench.copy(&from, &to, 3);
        insert.execute(["after"]).unwrap();
        assert_eq!(count.query_row([], |row| row.get::<_, i64>(0)).unwrap(), 1);
        drop((insert, count));
        assert_eq!(query(&application, "SELECT * FROM one"), ["Text(\"after\")"], "{mode}");
        assert_eq!(query(&application, "SELECT * FROM two"), ["Text(\"theirs\")"], "{mode}");
    }
}

#[test]
fn a_reader_that_does_not_end_is_waited_for_and_then_said_so() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    create(&from, "", 100);
    create(&to, "", 50);
    let before = dump(&to);
    let reader = Connection::open(&to).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    let mut origin = bench.origin(&from, &Memory::default()).unwrap();
    let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Force).unwrap();
    let error = join(&mut origin, &mut replica, 3).1.unwrap_err();
    assert_eq!(error.refusal(), Refusal::TryLater, "{error}");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(dump(&to), before);
    bench.copy(&from, &to, 3);
    assert_eq!(dump(&to), dump(&from));
}

/// Run as a process of its own by the test below.
#[test]
#[ignore = "a part of locks_survive_all_that_is_done_beside_them"]
fn child_tries_to_write() {
    let Ok(path) = std::env::var("SQLRSYNC_TEST_DATABASE") else { return };
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_millis(50)).unwrap();
    match connection.execute_batch("BEGIN EXCLUSIVE") {
        Ok(()) => println!("child wrote"),
        Err(_) => println!("child was kept out"),
    }
}

fn child_is_kept_out(path: &Path) -> bool {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_use::child_tries_to_write", "--ignored", "--nocapture"])
        .env("SQLRSYNC_TEST_DATABASE", path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("child "), "{said}");
    said.contains("child was kept out")
}

#[test]
fn locks_survive_all_that_is_done_beside_them() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let path = bench.path("a.db");
        let writer = create(&path, &format!("PRAGMA journal_mode = {mode}"), 100);
        writer.execute_batch("BEGIN IMMEDIATE; UPDATE t SET name = 'mine'").unwrap();
        assert!(child_is_kept_out(&path));
        // All that looks at the file while somebody in this process may have it open.
        Fingerprint::of(&path).unwrap();
        let mut origin = bench.origin(&path, &Memory::default()).unwrap();
        origin.geometry().unwrap();
        origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks }).unwrap();
        while origin.next_block().unwrap().is_some() {}
        let agreed = origin.agreed().unwrap();
        let memory = Memory { hashes: Some(bench.path("hashes")), agreed: Some(agreed) };
        let mut replica = bench.replica(&path, &memory, Overwrite::Never).unwrap();
        replica
            .begin(Geometry { page_size: PageSize::from_bytes(4096).unwrap(), page_count: PageCount(1) }, 3)
            .unwrap();
        drop(replica);
        assert!(child_is_kept_out(&path), "{mode}: a lock of the writer was dropped");
        writer.execute_batch("COMMIT").unwrap();
        assert!(!child_is_kept_out(&path) || mode == "WAL");
        drop(writer);
    }
}

#[test]
fn nothing_of_ours_stays_open_after_an_exchange() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
    let writer = create(&from, "PRAGMA journal_mode = WAL", 300);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    insert(&writer, 10);
    // An origin and a replica that are still there, after their exchange and in the middle of one.
    let (origin, replica) = taken(&bench, &from, &bench.path("c.db"), Overwrite::Never);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    for path in [&from, &to] {
        let application = Connection::open(path).unwrap();
        if path == &from {
            writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        }
        let busy = query(&application, "PRAGMA wal_checkpoint(TRUNCATE)");
        assert!(busy[0].starts_with("Integer(0)"), "{busy:?}");
    }
    drop(writer);
    let application = Connection::open(&from).unwrap();
    assert_eq!(query(&application, "PRAGMA journal_mode = DELETE"), ["Text(\"delete\")"]);
    drop((origin, replica));
}
