//! How long a subscription takes, and what it costs while nothing happens.
//!
//! | job | from | to |
//! |---|---|---|
//! | `publish` | the publisher's timer has run out | the server has committed, as the publisher says |
//! | `follow` | the version's manifest is there | a reader of the replica's file sees the row |
//! | `idle` | publisher, follower and server have nothing to do | 30 s later |
//!
//! An application has the database open all the time, so its WAL is there to tell what changed.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::Events;
use sqlrsync_tests::measure;
use sqlrsync_tests::subscriber::{PATIENCE, Subscriber};

use crate::jobs::{Lab, settle};
use crate::table::{Check, Row, bytes, median, seconds};

/// How many versions are followed.
const FOLLOWED: usize = 100;

/// How often it is looked whether a version is committed, or can be read.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// How long it is watched that nothing happens.
const IDLE: Duration = Duration::from_secs(30);

/// Both databases have as many rows as this.
const ROWS_MIN: i64 = 200_000;

/// What a push of one row reads at most, connection and state files included; a scan reads it all.
const READ_MAX: u64 = 10_000_000;

/// A database that an application has open.
struct App {
    client: Client,
    file: PathBuf,
    remote: String,
    database: Connection,
    writes: i64,
}

impl App {
    fn new(lab: &Lab, job: &str, events: &Events, original: &Path) -> App {
        let client = lab.machine();
        let file = client.path("app.db");
        std::fs::copy(original, &file).expect("the database can be copied");
        settle();
        let database = Connection::open(&file).expect("it opens");
        let mode: String =
            database.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("it has a mode");
        assert_eq!(mode, "wal");
        let remote = format!("team/{job}-{}.db", events.name.to_lowercase());
        App { client, file, remote, database, writes: 0 }
    }

    /// Changes a row to what it never was before, and says which and to what.
    fn write(&mut self) -> (i64, i64) {
        self.writes += 1;
        let (id, amount) = (1 + self.writes * 7_919 % ROWS_MIN, -self.writes);
        let changed = self.database.execute("UPDATE events SET amount = ? WHERE id = ?", [amount, id]);
        assert_eq!(changed.expect("a row can be changed"), 1);
        (id, amount)
    }

    fn publish(&self) -> Subscriber {
        let file = self.file.to_str().expect("the path is UTF-8");
        let words = [file, &self.remote, "--subscribe", "--json"];
        let publisher = Subscriber::start("publisher", self.client.command(&words));
        publisher.wait_for_version(1);
        publisher
    }

    fn push(&self) -> u64 {
        let said = self.client.json(&[self.file.to_str().expect("the path is UTF-8"), &self.remote]);
        said["version"].as_u64().expect("a version")
    }
}

/// A follower on a machine of its own.
fn follow(lab: &Lab, remote: &str, version: u64) -> (Client, Subscriber) {
    let client = lab.machine();
    let command = client.command(&[remote, "app.db", "--subscribe", "--json"]);
    let follower = Subscriber::start("follower", command);
    follower.wait_for_version(version);
    (client, follower)
}

impl Lab {
    /// One changed row under `--subscribe`: how long a push takes once its timer has run out.
    pub fn publish(&mut self, databases: &[(Events, PathBuf)], runs: usize) {
        let mut apps: Vec<_> =
            databases.iter().map(|(events, path)| App::new(self, "publish", events, path)).collect();
        let publishers: Vec<_> = apps.iter().map(App::publish).collect();
        let mut times = vec![Vec::new(); apps.len()];
        let mut read_max = vec![0; apps.len()];
        // The first push after the one that began may still scan: what it began from was just written.
        for run in 0..=runs {
            for ((app, publisher), (times, read_max)) in
                apps.iter_mut().zip(&publishers).zip(times.iter_mut().zip(&mut read_max))
            {
                let version = publisher.version().expect("it has pushed") + 1;
                let read = measure::bytes_read(publisher.pid()).unwrap_or(0);
                app.write();
                let said = publisher.wait_for_version(version);
                if run > 0 {
                    times.push(Duration::from_secs_f64(said["seconds"].as_f64().expect("seconds")));
                    let now = measure::bytes_read(publisher.pid()).unwrap_or(u64::MAX);
                    *read_max = (*read_max).max(now - read);
                }
            }
        }
        let small = median(&times[0]);
        for (((events, _), times), read) in databases.iter().zip(&times).zip(read_max) {
            let time = median(times);
            let mut row = Row {
                job: format!("{}: one row under --subscribe, timer to commit", events.name),
                time,
                checks: vec![
                    Check::at_most("the median".into(), time.as_secs_f64(), 0.030, "30 ms"),
                    Check::at_most(
                        format!("{} read by the publisher", bytes(read)),
                        read as f64,
                        READ_MAX as f64,
                        "10 MB",
                    ),
                ],
                ..Row::default()
            };
            if databases.len() > 1 && time != small {
                let ratio = time.as_secs_f64() / small.as_secs_f64();
                row.checks.push(Check::at_most(
                    format!("{ratio:.2} × the same in S ({})", seconds(small)),
                    ratio,
                    1.5,
                    "1.5",
                ));
            }
            self.report(&row);
        }
    }

    /// From a commit to the new version in a replica on this machine, as one who reads it sees it.
    pub fn follow(&mut self, events: &Events, original: &Path) {
        let mut app = App::new(self, "follow", events, original);
        let mut version = app.push();
        let manifests = self.manifests();
        let (client, follower) = follow(self, &app.remote, version);
        let replica = Connection::open(client.path("app.db")).expect("the replica opens");
        let mut times = Vec::new();
        for _ in 0..FOLLOWED {
            let (row, amount) = app.write();
            version += 1;
            let manifest = manifests.join(format!("{version:020}"));
            let mut command =
                app.client.command(&[app.file.to_str().expect("UTF-8"), &app.remote, "--quiet"]);
            let mut push = command.spawn().expect("the client can be started");
            wait(|| manifest.exists(), "a commit");
            let committed = Instant::now();
            wait(|| readable(&replica, row) == Some(amount), "the row in the replica");
            times.push(committed.elapsed());
            assert!(push.wait().is_ok_and(|status| status.success()), "a push failed");
        }
        drop(follower);
        times.sort();
        let (half, late) = (median(&times), times[FOLLOWED * 99 / 100 - 1]);
        let row = Row {
            job: format!("{}: one row, commit to readable in a replica", events.name),
            time: half,
            checks: vec![
                Check::at_most("the median of a hundred".into(), half.as_secs_f64(), 0.100, "100 ms"),
                Check::at_most(format!("{} at the 99th", seconds(late)), late.as_secs_f64(), 0.300, "300 ms"),
            ],
            ..Row::default()
        };
        self.report(&row);
    }

    /// What waiting costs.
    pub fn idle(&mut self, events: &Events, original: &Path) {
        let mut app = App::new(self, "idle", events, original);
        let publisher = app.publish();
        let (_client, follower) = follow(self, &app.remote, 1);
        // Not as they have begun, but as they are for days.
        app.write();
        publisher.wait_for_version(2);
        follower.wait_for_version(2);
        sleep(Duration::from_secs(2));
        let sides =
            [("publisher", publisher.pid()), ("follower", follower.pid()), ("server", self.server_pid())];
        let before = sides.map(|(_, pid)| measure::processor_time(pid).expect("the system says it"));
        sleep(IDLE);
        for ((side, pid), before) in sides.into_iter().zip(before) {
            let cpu = measure::processor_time(pid).expect("the system says it") - before;
            let share = cpu.as_secs_f64() / IDLE.as_secs_f64();
            let memory = measure::memory_now(pid).expect("the system says it");
            let found = format!("{:.3} % of a core", share * 100.0);
            let held = format!("{} held", bytes(memory));
            let held = match side {
                // It keeps a cache, whoever is subscribed.
                "server" => Check::note(held),
                _ => Check::at_most(held, memory as f64, 30e6, "30 MB"),
            };
            let row = Row {
                job: format!("{}: idle {side}, processor time in 30 s", events.name),
                time: cpu,
                checks: vec![Check::at_most(found, share, 0.001, "0.1 %"), held],
                ..Row::default()
            };
            self.report(&row);
        }
    }

    /// The folder with the manifests of the replica that was made last.
    fn manifests(&self) -> PathBuf {
        let replicas = self.repository().join("replicas");
        let newest = std::fs::read_dir(&replicas)
            .unwrap_or_else(|error| panic!("{}: {error}", replicas.display()))
            .flatten()
            .max_by_key(|entry| entry.metadata().and_then(|data| data.created()).ok());
        newest.expect("there is a replica").path().join("manifests")
    }
}

/// What a reader finds in a row; nothing while the file is locked.
fn readable(replica: &Connection, id: i64) -> Option<i64> {
    let amount = "SELECT CAST(amount AS INTEGER) FROM events WHERE id = ?";
    replica.query_row(amount, [id], |row| row.get(0)).ok()
}

fn wait(condition: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        sleep(LOOK_EVERY);
    }
}
