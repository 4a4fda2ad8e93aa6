//! One replica that follows: how soon after the server's commit a new version can be read in it, and what
//! the program takes while nothing happens.
//!
//! The commit is the moment at which the manifest appeared, by the file system's clock (ticks of 4 ms at
//! most); the version can be read when a connection that was open all the time sees the changed row.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::Events;
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::{release_programs, workspace};
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{PATIENCE, Subscriber};
use sqlrsync_tests::tls::Certificate;

use crate::live_load::{over, processor_share, trusting};
use crate::table::{Check, Row, median, seconds};

/// How often the replica is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(500);

const MEDIAN_MAX: Duration = Duration::from_millis(100);
const WORST_MAX: Duration = Duration::from_millis(300);

/// What a subscription at rest may take: of a core, and of memory in bytes.
pub const REST_MAX: f64 = 0.001;
pub const MEMORY_MAX: f64 = 30_000_000.0;

/// Follows `versions` changes of a row.
pub fn follow(events: &Events, versions: u32, rest: Duration, tls: Option<&Certificate>) -> Row {
    let folder = workspace().join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench can be made");
    let cached = events.cached(&folder).expect("a database can be made");
    let tls_flags = tls.map(Certificate::server_flags);
    let flags: Vec<&str> =
        ["--log", "error"].into_iter().chain(tls_flags.iter().flatten().map(String::as_str)).collect();
    let server = Server::start_with(release_programs(), Some(&folder), &flags);
    let client = Client::new_in(release_programs(), Some(&folder));
    let client = match tls {
        Some(certificate) => trusting(client, certificate),
        None => client,
    };
    let client = client.with_env("SQLRSYNC_ADMIN_KEY", &server.admin_key());
    client.use_server(server.url());
    std::fs::copy(cached, client.path("app.db")).expect("it can be copied");
    client.run(&["app.db", "team/app.db"]).ok();
    let command = client.command(&["team/app.db", "./replica.db", "--subscribe", "--json"]);
    let mut follower = Subscriber::start("the follower", command);
    follower.wait_for_version(1);

    let origin = Connection::open(client.path("app.db")).expect("it opens");
    let replica = Connection::open(client.path("replica.db")).expect("it opens");
    let manifests = manifests(&server.data());
    let times: Vec<Duration> = (1..=versions)
        .map(|number| {
            let change = origin
                .execute("UPDATE events SET amount = ? WHERE id = ?", params![-f64::from(number), number]);
            assert_eq!(change, Ok(1));
            let mut push = client.command(&["app.db", "--quiet"]).spawn().expect("the client can be started");
            let seen = wait_for(&replica, number);
            assert!(push.wait().is_ok_and(|status| status.success()), "the push succeeds");
            let time = seen.duration_since(committed(&manifests, number + 1)).unwrap_or_default();
            // The follower is at rest again before the next one.
            follower.wait_for_version(u64::from(number) + 1);
            time
        })
        .collect();
    let memory = measure::memory_peak(follower.pid()).expect("the follower runs");
    let share = processor_share(follower.pid(), rest);
    assert_eq!(follower.stop(), 0);
    row(events, &times, memory, share, rest, over(tls))
}

fn row(events: &Events, times: &[Duration], memory: u64, share: f64, rest: Duration, over: &str) -> Row {
    let mut sorted = times.to_vec();
    sorted.sort();
    let (middle, worst) = (median(times), sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]);
    let of = |what: &str, time: Duration, most: Duration| {
        let found = format!("{} {what}", seconds(time));
        Check::at_most(found, time.as_secs_f64(), most.as_secs_f64(), &seconds(most))
    };
    Row {
        job: format!("{}: from the commit of a row to a replica that has it{over}", events.name),
        time: middle,
        checks: vec![
            of("the median", middle, MEDIAN_MAX),
            of("the 99th of a hundred", worst, WORST_MAX),
            Check::at_most(
                format!("{:.1} MB of memory at most, the follower", memory as f64 / 1e6),
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
        ],
        ..Row::default()
    }
}

/// The folder of the only replica's manifests.
pub fn manifests(data: &Path) -> PathBuf {
    let replicas = data.join("repository/replicas");
    let mut found = std::fs::read_dir(replicas).expect("the repository can be read");
    found.next().expect("there is a replica").expect("it can be read").path().join("manifests")
}

/// When a version came to be: a link changes a file's ctime.
fn committed(manifests: &Path, version: u32) -> SystemTime {
    let data = std::fs::metadata(manifests.join(format!("{version:020}"))).expect("it was committed");
    let (seconds, nanos) = (data.ctime().cast_unsigned(), data.ctime_nsec().cast_unsigned());
    UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// Reads the replica until it has the change of that number; returns when that was.
fn wait_for(replica: &Connection, number: u32) -> SystemTime {
    let deadline = Instant::now() + PATIENCE;
    let mut read = replica.prepare_cached("SELECT amount FROM events WHERE id = ?").expect("it can be read");
    loop {
        let amount: rusqlite::Result<f64> = read.query_row(params![number], |row| row.get(0));
        if amount == Ok(-f64::from(number)) {
            return SystemTime::now();
        }
        assert!(Instant::now() < deadline, "the version does not come: {amount:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}
