//! A database that is published: how soon a changed row is committed once the timer has run out, and what
//! the program takes while nothing happens.
//!
//! An application has the database open all the time, so its WAL is there to tell what changed. The
//! publisher says how long its push took from the timer's end to its own; what came after the manifest
//! was there, as seen from here, was not the commit and is taken off.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::Events;
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::{release_programs, workspace};
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{PATIENCE, Subscriber};

use crate::live_latency::{MEMORY_MAX, REST_MAX, manifests};
use crate::live_load::processor_share;
use crate::table::{Check, Row, bytes, median, seconds};

/// From the timer's end to the commit, and how many times the same in S it may take in L.
const COMMIT_MAX: Duration = Duration::from_millis(30);
const LARGE_RATIO_MAX: f64 = 1.5;

/// What a push of one row reads at most, files of its own included; a scan reads everything.
const READ_MAX: u64 = 10_000_000;

/// Until so long after a write nothing is pushed: ten seconds are the shortest wait that there is.
const QUIET: Duration = Duration::from_secs(9);

/// How often it is looked whether a version is committed.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// Changes a row and has it pushed so many times in each of the databases, by turns.
pub fn publish(databases: &[Events], runs: u32, rest: Duration) -> Vec<Row> {
    let mut all: Vec<_> = databases.iter().map(Published::start).collect();
    for _ in 0..runs {
        all.iter_mut().for_each(Published::round);
    }
    let first = median(&all[0].commits);
    all.iter()
        .enumerate()
        .map(|(index, published)| published.row((index > 0).then_some(first), rest))
        .collect()
}

/// An application whose database is published, and what came of it.
struct Published {
    name: &'static str,
    publisher: Subscriber,
    database: Connection,
    manifests: PathBuf,
    version: u64,
    commits: Vec<Duration>,
    pushes: Vec<Duration>,
    read_max: u64,
    scans: usize,
    // Both end, and take their folders along, after the publisher.
    _client: Client,
    _server: Server,
}

impl Published {
    fn start(events: &Events) -> Published {
        let folder = workspace().join("target/bench");
        std::fs::create_dir_all(&folder).expect("target/bench can be made");
        let cached = events.cached(&folder).expect("a database can be made");
        let server = Server::start_with(release_programs(), Some(&folder), &["--log", "error"]);
        let client = Client::new_in(release_programs(), Some(&folder));
        let client = client.with_env("SQLRSYNC_ADMIN_KEY", &server.admin_key());
        client.use_server(server.url());
        std::fs::copy(cached, client.path("app.db")).expect("it can be copied");
        let database = Connection::open(client.path("app.db")).expect("it opens");
        let mode: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode");
        assert_eq!(mode, "wal");
        let command = client.command(&["app.db", "team/app.db", "--subscribe", "--json"]);
        let publisher = Subscriber::start("the publisher", command);
        publisher.wait_for_version(1);
        let mut new = Published {
            name: events.name,
            publisher,
            database,
            manifests: manifests(&server.data()),
            version: 1,
            commits: Vec::new(),
            pushes: Vec::new(),
            read_max: 0,
            scans: 0,
            _client: client,
            _server: server,
        };
        // The first push after the one that it began with may still scan: what it began from was new.
        new.round();
        (new.read_max, new.scans) = (0, 0);
        new.commits.clear();
        new.pushes.clear();
        new
    }

    /// A row changes, and its push is waited for.
    fn round(&mut self) {
        self.version += 1;
        let manifest = self.manifests.join(format!("{:020}", self.version));
        let read = measure::bytes_read(self.publisher.pid()).unwrap_or(0);
        let row = "UPDATE events SET amount = -?1 WHERE id = 1 + ?1 * 7919 % 100000";
        assert_eq!(self.database.execute(row, [self.version as i64]), Ok(1));
        sleep(QUIET);
        let deadline = Instant::now() + PATIENCE;
        while !manifest.exists() {
            assert!(Instant::now() < deadline, "no version was made: {}", self.publisher.report());
            sleep(LOOK_EVERY);
        }
        let committed = Instant::now();
        let said = self.publisher.wait_for_version(self.version);
        let after = committed.elapsed();
        let push = Duration::from_secs_f64(said["seconds"].as_f64().expect("seconds"));
        self.commits.push(push.saturating_sub(after));
        self.pushes.push(push);
        self.scans += usize::from(said["scanned"] == true);
        let now = measure::bytes_read(self.publisher.pid()).unwrap_or(u64::MAX);
        self.read_max = self.read_max.max(now.saturating_sub(read));
    }

    /// What was found; beside the first database's time, where this is another.
    fn row(&self, first: Option<Duration>, rest: Duration) -> Row {
        let time = median(&self.commits);
        let memory = measure::memory_peak(self.publisher.pid()).expect("the publisher runs");
        let share = processor_share(self.publisher.pid(), rest);
        let mut checks = vec![
            Check::at_most(
                "the median".to_owned(),
                time.as_secs_f64(),
                COMMIT_MAX.as_secs_f64(),
                &seconds(COMMIT_MAX),
            ),
            Check::note(format!("{} to the end of the push", seconds(median(&self.pushes)))),
            Check::at_most(format!("{} pushes scanned the file", self.scans), self.scans as f64, 0.0, "0"),
            Check::at_most(
                format!("{} read at most", bytes(self.read_max)),
                self.read_max as f64,
                READ_MAX as f64,
                &bytes(READ_MAX),
            ),
            Check::at_most(
                format!("{:.1} MB of memory at most, the publisher", memory as f64 / 1e6),
                memory as f64,
                MEMORY_MAX,
                "30 MB",
            ),
            Check::at_most(
                format!("{:.3} % of a core over {} at rest", share * 100.0, seconds(rest)),
                share,
                REST_MAX,
                "0.1 %",
            ),
        ];
        if let Some(first) = first {
            let ratio = time.as_secs_f64() / first.as_secs_f64();
            let found = format!("{ratio:.2} × the same in S ({})", seconds(first));
            checks.insert(1, Check::at_most(found, ratio, LARGE_RATIO_MAX, "1.5"));
        }
        let job = format!("{}: one row under --subscribe, timer to commit", self.name);
        Row { job, time, checks, ..Row::default() }
    }
}
