//! Programs that go on with their work: a writer during pushes, readers during pulls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::stop::StopOnDrop;
use sqlrsync_tests::subscriber::wait_until;

use crate::REMOTE;

/// Accounts between which money is moved: in every committed state the sum is the same, and the number
/// of moves is the same in both tables.
fn create_accounts(path: &Path, journal: &str) {
    sample::execute(
        path,
        &format!(
            "PRAGMA journal_mode = {journal};
             CREATE TABLE account(id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, note TEXT);
             CREATE TABLE move(id INTEGER PRIMARY KEY, source INTEGER, target INTEGER, amount INTEGER);
             CREATE TABLE total(moves INTEGER NOT NULL);
             INSERT INTO total VALUES(0);
             WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < 1000)
             INSERT INTO account SELECT n, 1000, hex(randomblob(200)) FROM c;"
        ),
    );
}

/// The image is one committed state. Returns how many moves it has seen.
fn assert_one_state(path: &Path) -> i64 {
    assert_eq!(sample::text(path, "PRAGMA integrity_check"), "ok");
    assert_eq!(sample::number(path, "SELECT sum(amount) FROM account"), 1_000_000);
    let moves = sample::number(path, "SELECT count(*) FROM move");
    assert_eq!(sample::number(path, "SELECT moves FROM total"), moves);
    moves
}

/// A program that writes all the time until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Pauses between transactions: a rollback journal locks readers out while a transaction commits,
    /// so an application that never paused would never let anybody read.
    fn start(path: &Path, pause: Duration) -> Writer {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (file, stopped, has_written) = (path.to_owned(), Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let database = Connection::open(file).unwrap();
            // A push that kept it waiting for longer would fail it.
            database.busy_timeout(Duration::from_secs(30)).unwrap();
            let mut n = 0_i64;
            while !stopped.load(Ordering::SeqCst) {
                n += 1;
                let (from, to) = (n * 7919 % 1000 + 1, n * 104_729 % 1000 + 1);
                database
                    .execute_batch(&format!(
                        "BEGIN IMMEDIATE;
                         UPDATE account SET amount = amount - 1 WHERE id = {from};
                         UPDATE account SET amount = amount + 1 WHERE id = {to};
                         INSERT INTO move(source, target, amount) VALUES({from}, {to}, 1);
                         UPDATE total SET moves = moves + 1;
                         COMMIT;"
                    ))
                    .unwrap();
                has_written.store(true, Ordering::SeqCst);
                std::thread::sleep(pause);
                match n % 60 {
                    20 => drop(database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))),
                    40 => drop(database.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))),
                    _ => {}
                }
            }
        });
        wait_until("the writer writes", || written.load(Ordering::SeqCst) || thread.is_finished());
        Writer { stop, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer was never disturbed");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn pushes_beside_a_writer(journal: &str, pause: Duration) {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    create_accounts(&app, journal);
    let mut writer = Writer::start(&app, pause);
    let mut versions = Vec::new();
    for _ in 0..8 {
        let said = client.json(&["app.db", REMOTE]);
        versions.push(said["version"].as_u64().unwrap());
    }
    writer.stop();
    let mut moves = -1;
    versions.dedup();
    for version in versions {
        let file = format!("v{version}.db");
        client.run(&[format!("{REMOTE}@{version}"), file.clone()]).ok();
        let now = assert_one_state(&client.path(&file));
        assert!(now >= moves, "version {version} is older than the one before it");
        moves = now;
    }
    assert!(moves > 0, "the writer wrote");
    client.run(&["app.db"]).ok();
    client.run(&[REMOTE, "last.db"]).ok();
    sample::assert_same(&app, &client.path("last.db"));
}

#[test]
fn every_push_of_a_wal_database_in_use_is_one_committed_state() {
    pushes_beside_a_writer("wal", Duration::ZERO);
}

#[test]
fn every_push_of_a_rollback_database_in_use_is_one_committed_state() {
    pushes_beside_a_writer("delete", Duration::from_millis(3));
}

#[test]
fn readers_with_the_replica_open_see_one_version_or_the_next_and_go_on() {
    for journal in ["wal", "delete"] {
        let server = Server::start();
        let (pusher, puller) = (Client::admin(&server), Client::admin(&server));
        let app = pusher.path("app.db");
        create_accounts(&app, journal);
        pusher.run(&["app.db", REMOTE]).ok();
        puller.run(&[REMOTE]).ok();
        let replica = puller.path("app.db");
        let (stop, newest) = (AtomicBool::new(false), AtomicI64::new(-1));
        let seen = std::thread::scope(|scope| {
            let _reading = StopOnDrop(&stop);
            let reader = scope.spawn(|| {
                let database = Connection::open(&replica).unwrap();
                database.busy_timeout(Duration::from_secs(30)).unwrap();
                // Prepared once: these are the cached statements of an application.
                let sum = "SELECT (SELECT sum(amount) FROM account), (SELECT count(*) FROM move), (SELECT moves FROM total)";
                let mut statement = database.prepare(sum).unwrap();
                let mut seen = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let row: (i64, i64, i64) =
                        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
                    assert_eq!(row.0, 1_000_000, "a mixture of two versions");
                    assert_eq!(row.1, row.2, "a mixture of two versions");
                    seen.push(row.1);
                    newest.store(row.1, Ordering::SeqCst);
                }
                seen.dedup();
                seen
            });
            for _ in 0..6 {
                let mut writer = Writer::start(&app, Duration::ZERO);
                std::thread::sleep(Duration::from_millis(60));
                writer.stop();
                pusher.run(&["app.db"]).ok();
                puller.run(&[REMOTE]).ok();
                let moves = sample::number(&app, "SELECT moves FROM total");
                let sees = || newest.load(Ordering::SeqCst) == moves;
                wait_until("the reader sees the new version", || sees() || reader.is_finished());
            }
            stop.store(true, Ordering::SeqCst);
            reader.join().expect("the reader was never disturbed")
        });
        assert!(seen.len() >= 6, "{journal}: the reader saw every version: {seen:?}");
        assert!(seen.is_sorted(), "{journal}: and never an older one after a newer one: {seen:?}");
        sample::assert_same(&app, &replica);
    }
}

#[test]
fn an_application_that_had_the_replica_open_writes_into_the_right_tables_after_a_schema_change() {
    let server = Server::start();
    let (pusher, puller) = (Client::admin(&server), Client::admin(&server));
    let app = pusher.path("app.db");
    sample::execute(
        &app,
        "PRAGMA journal_mode = wal; CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES('a')",
    );
    pusher.run(&["app.db", REMOTE]).ok();
    puller.run(&[REMOTE]).ok();
    let replica = Connection::open(puller.path("app.db")).unwrap();
    let mut into_a = replica.prepare("INSERT INTO a VALUES('late')").unwrap();
    into_a.execute([]).unwrap();
    replica.execute_batch("DELETE FROM a WHERE x = 'late'").unwrap();
    // The tables change places in the file.
    sample::execute(
        &app,
        "DROP TABLE a; DROP TABLE b; CREATE TABLE b(x); CREATE TABLE a(x); INSERT INTO b VALUES('b')",
    );
    pusher.run(&["app.db"]).ok();
    puller.run(&[REMOTE, "app.db", "--force"]).ok();
    into_a.execute([]).unwrap();
    let count = |table: &str| -> i64 {
        replica
            .query_row(&format!("SELECT count(*) FROM {table} WHERE x = 'late'"), [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!((count("a"), count("b")), (1, 0));
}
