//! A client's machine whose power fails: a database that is written is the old one or the new one, the new one
//! where that was said, and what was pushed from a database is never taken back by it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::{self, Events};
use sqlrsync_tests::power::Disk;
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::team;

use crate::REMOTE;
use crate::power::disk;

/// Cuts in each test; every other one when the client has ended.
const CUTS: u32 = 6;

const DATABASE: Events = Events { name: "power", bytes: 2_000_000, seed: 22 };

/// A machine whose database is on a disk that is cut. Where it is not the `whole` machine that is, what it
/// remembers is elsewhere, and outlives what the database has lost.
fn machine(server: &Server, disk: &Disk, whole: bool) -> (Client, PathBuf) {
    let parent = disk.path();
    let client = Client::new_in(programs(), whole.then_some(parent.as_path()));
    client.use_server(server.url());
    let client = client.with_env("SQLRSYNC_ADMIN_KEY", &server.admin_key());
    let database = if whole { client.path("replica.db") } else { parent.join("replica.db") };
    (client, database)
}

/// Runs a command and cuts the power, after that time or when it has ended. True where it had succeeded.
fn cut_during(disk: &Disk, mut command: Command, after: Option<Duration>) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let succeeded = match after {
        Some(after) => {
            std::thread::sleep(after);
            disk.cut();
            // What ended in the moment of the cut may have ended before.
            let _ = child.kill();
            child.wait().unwrap();
            false
        }
        None => {
            let status = child.wait().unwrap();
            disk.cut();
            status.success()
        }
    };
    disk.recover();
    succeeded
}

/// When to cut, in turn: at some moment of a run that takes so long, or after it.
fn moment(round: u32, time: Duration, random: &mut Random) -> Option<Duration> {
    let time = u64::try_from(time.as_micros()).unwrap() * 5 / 4;
    (round % 2 == 1).then(|| Duration::from_micros(random.below(time)))
}

/// Changes `source` again and again, makes it known by `publish`, and cuts the power of the machine that takes it
/// with `take` into `target`.
fn cut_while_it_is_taken(
    disk: &Disk,
    (source, target): (&Path, &Path),
    publish: impl Fn(),
    take: impl Fn() -> Command,
    mut random: Random,
) {
    let mut old = sample::content(target);
    let mut time = Duration::from_millis(100);
    for round in 0..CUTS {
        events::change_rows(source, &mut random, 1000).unwrap();
        publish();
        let new = sample::content(source);
        let began = Instant::now();
        let succeeded = cut_during(disk, take(), moment(round, time, &mut random));
        if round == 0 {
            time = began.elapsed();
        }
        let now = sample::content(target);
        assert!(now == old || now == new, "round {round}: neither the old nor the new database");
        assert!(!succeeded || now == new, "round {round}: it was said to be the new one");
        assert!(succeeded || round % 2 == 1, "round {round}: it fails");
        assert!(take().status().unwrap().success(), "round {round}: the next time");
        assert!(sample::content(target) == new, "round {round}: the next time brings it");
        old = new;
    }
}

#[test]
fn a_machine_whose_power_fails_while_it_pulls_has_the_old_database_or_the_new_one() {
    let Some(disk) = disk("power cuts during pulls") else { return };
    for (journal, whole, seed) in [("wal", true, 41), ("delete", false, 42)] {
        let server = Server::start();
        let pusher = Client::admin(&server);
        let app = pusher.path("app.db");
        DATABASE.create(&app).unwrap();
        pusher.run(&["app.db", REMOTE]).ok();
        let (puller, replica) = machine(&server, &disk, whole);
        let words = [REMOTE, replica.to_str().unwrap()];
        puller.run(&words).ok();
        sample::text(&replica, &format!("PRAGMA journal_mode = {journal}"));
        let publish = || drop(pusher.run(&["app.db", REMOTE]).ok());
        cut_while_it_is_taken(&disk, (&app, &replica), publish, || puller.command(&words), Random::new(seed));
        // And what it remembers of all that is of use: a change goes back up.
        sample::execute(&replica, "UPDATE events SET message = 'of the replica' WHERE id = 1");
        puller.run(&[replica.to_str().unwrap(), REMOTE]).ok();
        pusher.run(&[REMOTE]).ok();
        sample::assert_same(&app, &replica);
    }
}

#[test]
fn a_machine_whose_power_fails_while_it_copies_has_the_old_database_or_the_new_one() {
    let Some(disk) = disk("power cuts during local copies") else { return };
    let client = Client::stranger();
    let (app, copy) = (client.path("app.db"), disk.path().join("copy.db"));
    DATABASE.create(&app).unwrap();
    let words = ["app.db", copy.to_str().unwrap()];
    client.run(&words).ok();
    for (journal, seed) in [("wal", 43), ("delete", 44)] {
        sample::text(&copy, &format!("PRAGMA journal_mode = {journal}"));
        cut_while_it_is_taken(&disk, (&app, &copy), || (), || client.command(&words), Random::new(seed));
    }
}

#[test]
fn a_machine_whose_power_fails_while_it_pulls_a_new_database_has_all_of_it_or_nothing() {
    let Some(disk) = disk("power cuts during first pulls") else { return };
    let server = Server::start();
    let pusher = Client::admin(&server);
    DATABASE.create(&pusher.path("app.db")).unwrap();
    pusher.run(&["app.db", REMOTE]).ok();
    let content = sample::content(&pusher.path("app.db"));
    let (puller, replica) = machine(&server, &disk, true);
    let words = [REMOTE, "replica.db"];
    let mut random = Random::new(45);
    let mut time = Duration::from_millis(100);
    for round in 0..CUTS {
        let began = Instant::now();
        let succeeded = cut_during(&disk, puller.command(&words), moment(round, time, &mut random));
        if round == 0 {
            time = began.elapsed();
        }
        assert!(replica.exists() || !succeeded, "round {round}: it was said to be there");
        assert!(!replica.exists() || sample::content(&replica) == content, "round {round}: half of it");
        // By the file beside it, where that says from where; and if nothing is there, from the beginning.
        puller.run(&words).ok();
        assert!(sample::content(&replica) == content, "round {round}");
        for name in ["replica.db", "replica.db-sqlrsync"] {
            let _ = std::fs::remove_file(puller.path(name));
        }
    }
}

/// An application that commits as it likes, and has its database open while that is pushed: whoever closed it
/// last would sync what is in the WAL.
fn application(database: &Path, pragmas: &str) -> Connection {
    let application = Connection::open(database).unwrap();
    application.execute_batch(pragmas).unwrap();
    application.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    application
}

#[test]
fn what_was_pushed_stays_in_the_versions_after_the_machine_that_pushed_it_lost_power() {
    // Both as SQLite has it: in one mode a commit is not synced, in the other the removal of the journal.
    let ways = [
        ("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", true),
        ("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", false),
        ("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL", false),
    ];
    for (number, (pragmas, whole)) in ways.into_iter().enumerate() {
        let what = "power cuts after pushes of what an application had not synced";
        let Some(disk) = disk(what) else { return };
        let server = Server::start();
        let (client, database) = machine(&server, &disk, whole);
        team::create(&database);
        let words = [database.to_str().unwrap(), REMOTE];
        client.run(&words).ok();
        let mut random = Random::new(46 + number as u64);
        let mut pushed = 0;
        for round in 0..CUTS {
            let application = application(&database, pragmas);
            application.execute(&format!("INSERT INTO notes VALUES('row {round}', '')"), []).unwrap();
            let mut pushing =
                client.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            if let Some(after) = moment(round, Duration::from_millis(300), &mut random) {
                std::thread::sleep(after);
            } else {
                assert!(pushing.wait().unwrap().success(), "{pragmas}: round {round}");
            }
            drop(application);
            disk.cut();
            let _ = pushing.kill();
            pushing.wait().unwrap();
            disk.recover();

            let looker = Client::admin(&server);
            let rows = || {
                looker.run(&[REMOTE, "latest.db", "--force"]).ok();
                sample::number(&looker.path("latest.db"), "SELECT count(*) FROM notes WHERE key LIKE 'row %'")
            };
            let published = rows();
            assert!(published >= pushed, "{pragmas}: round {round}");
            team::assert_sound(&database);
            sample::execute(&database, &format!("INSERT INTO notes VALUES('row after {round}', '')"));
            client.run(&words).ok();
            pushed = rows();
            assert!(
                pushed > published,
                "{pragmas}: round {round}: {published} rows were published, now {pushed}"
            );
        }
    }
}
