//! What is measured: each job with the real programs, in pairs with its rivals, medians of the pairs.
//!
//! The state that a job needs (a replica that is one version behind, a base that both know) is made by
//! the job before it, with the same programs.

mod by_wal;
mod history;
mod series;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlrsync_tests::bridge::Bridge;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::{self, Events};
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::release_programs;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::server::Server;

use crate::limits::Limits;
use crate::rivals;
use crate::sparse;
use crate::table::{Check, Row, bytes, median, seconds};
use series::Series;

/// More than is written anew for a changed row: its page in a segment, in a WAL and in what is kept beside.
const NEW_BYTES_A_ROW: u64 = 16 << 10;

/// A server, and what was found out about it so far.
pub struct Lab {
    folder: PathBuf,
    server: Server,
    key: String,
    limits: Limits,
    runs: usize,
    missed: usize,
}

impl Lab {
    /// Starts the server. All files go below `folder`.
    pub fn new(folder: &Path, limits: Limits, runs: usize) -> Lab {
        let server = Server::start_with(release_programs(), Some(folder), &[]);
        let key = server.admin_key();
        Lab { folder: folder.to_owned(), server, key, limits, runs, missed: 0 }
    }

    /// The jobs that move one database forth and back.
    pub fn transfers(&mut self, events: &Events, database: &Path, wants: &dyn Fn(&str) -> bool) {
        if wants("first") {
            self.first(events, database);
        }
        let mut pair = Pair::new(self, events, database);
        if wants("new") {
            self.new_file(events, &mut pair);
        }
        if wants("row") {
            self.changes(events, &mut pair, 1);
        }
        if wants("wal") {
            self.by_wal(events, &mut pair);
        }
        if wants("percent") {
            self.changes(events, &mut pair, events.rows() / 100);
        }
        if wants("unchanged") {
            self.unchanged(events, &mut pair);
        }
        if wants("v2") {
            self.version_two(events, &mut pair);
        }
    }

    fn first(&mut self, events: &Events, database: &Path) {
        let mut series = Series::default();
        let copy = self.folder.join("copy.tmp");
        for run in 0..self.runs {
            let client = self.machine();
            // The same file under another name: nothing has to be written before the measurement.
            let file = client.path("app.db");
            std::fs::hard_link(database, &file).expect("a link can be made");
            let _ = std::fs::remove_file(&copy);
            self.settle_for(events.bytes);
            series.rsync(rivals::rsync(&file, &copy));
            self.settle_for(events.bytes);
            self.ours(&client, &[text(&file), format!("team/first-{run}.db")], &mut series);
        }
        let _ = std::fs::remove_file(&copy);
        let mut row = series.row(&format!("{}: first push", events.name), Some(1.4));
        let (ours, theirs) = (median(&series.wire) as f64, median(&series.rsync_wire) as f64);
        row.checks.push(Check::at_most(
            format!("{:.2} × the bytes of rsync", ours / theirs),
            ours / theirs,
            0.6,
            "0.6",
        ));
        row.limit = Some((time(events.bytes, self.limits.compress), "one thread compresses everything"));
        self.report(&row);
    }

    fn new_file(&mut self, events: &Events, pair: &mut Pair) {
        let mut series = Series::default();
        let copy = self.folder.join("copy.tmp");
        for _ in 0..self.runs {
            let client = self.machine();
            let _ = std::fs::remove_file(&copy);
            self.settle_for(events.bytes);
            series.rsync(rivals::rsync(&pair.file, &copy));
            self.settle_for(events.bytes);
            let file = client.path("new.db");
            self.ours(&client, &[pair.remote.clone(), text(&file)], &mut series);
            std::fs::remove_file(&file).expect("what was pulled can be removed");
        }
        let _ = std::fs::remove_file(&copy);
        let mut row = series.row(&format!("{}: pull into a new file", events.name), Some(1.4));
        row.limit = Some((time(events.bytes, self.limits.write), "one thread writes and syncs everything"));
        self.report(&row);
    }

    /// Pushes and pulls after `count` rows have changed, a base known on both ways. The pushes find what
    /// changed by a scan; `by_wal` has the other way.
    fn changes(&mut self, events: &Events, pair: &mut Pair, count: u64) {
        let (mut push, mut pull) = (Series::default(), Series::default());
        for run in 0..self.runs {
            events::change_rows(&pair.file, &mut pair.random, count).expect("rows can be changed");
            // The rivals write into files that are in memory already.
            let new_bytes = count.saturating_mul(NEW_BYTES_A_ROW).min(events.bytes);
            self.settle_for(new_bytes);
            // Each of them is once the first to read the new pages.
            if run % 2 == 0 {
                self.ours(&pair.pusher, &pair.push_by_scan(), &mut push);
            }
            pair.rivals(&mut push);
            if run % 2 == 1 {
                self.ours(&pair.pusher, &pair.push_by_scan(), &mut push);
            }
            self.settle_for(new_bytes);
            self.ours(&pair.puller, &pair.pull(), &mut pull);
        }
        pull.rsync.clone_from(&push.rsync);
        pull.sqlite3_rsync.clone_from(&push.sqlite3_rsync);
        let scan = time(events.bytes, self.limits.read) + time(events.bytes, self.limits.hash_groups);
        let what = if count == 1 { "one changed row" } else { "1 % of the rows changed at random" };
        let mut rows = [
            push.row(
                &format!("{}: push of {what}, base known", events.name),
                Some(if count == 1 { 0.35 } else { 0.08 }),
            ),
            pull.row(
                &format!("{}: pull of {what}, base known", events.name),
                Some(if count == 1 { 0.15 } else { 0.12 }),
            ),
        ];
        if count == 1 {
            rows[0].checks.push(push.wire_check(30_000));
            rows[0].limit = Some((scan, "one thread reads and hashes the file"));
            rows[1].checks.push(pull.wire_check(10_000));
        } else {
            let changed = median(&pull.page_bytes);
            let ratio = median(&pull.wire) as f64 / changed as f64;
            let found = format!("{ratio:.2} × the bytes of the changed pages ({})", bytes(changed));
            rows[0].limit =
                Some((scan + time(changed, self.limits.compress), "reads, hashes, compresses what changed"));
            rows[1].checks.push(Check::at_most(found, ratio, 0.6, "0.6"));
            rows[1].limit =
                Some((time(changed, self.limits.write), "one thread writes and syncs what changed"));
        }
        rows.iter().for_each(|row| self.report(row));
    }

    fn unchanged(&mut self, events: &Events, pair: &mut Pair) {
        // Recorded within 10 ms of a change, a fingerprint proves nothing yet: one push on the way there.
        self.ours(&pair.pusher, &pair.push(), &mut Series::default());
        let mut series = Series::default();
        for _ in 0..self.runs {
            self.ours(&pair.pusher, &pair.push(), &mut series);
        }
        let mut row = series.row(&format!("{}: push, nothing changed", events.name), None);
        row.checks.push(Check::at_most("time".into(), row.time.as_secs_f64(), 0.05, "50 ms"));
        let read = series.client_read_max.max(series.server_read_max);
        let found = format!(
            "read: client {}, server {}",
            bytes(series.client_read_max),
            bytes(series.server_read_max)
        );
        row.checks.push(Check::at_most(found, read as f64, 1e6, "1 MB"));
        self.report(&row);
    }

    /// A peer of protocol version 2: `sqlite3_rsync` itself behind a WebSocket, as in the public client.
    fn version_two(&mut self, events: &Events, pair: &mut Pair) {
        let Some(program) = rivals::sqlite3_rsync_path() else {
            println!("push by a version 2 peer: NOT MEASURED, sqlite3_rsync is not on the PATH\n");
            return;
        };
        let url = self.server.url().to_owned();
        let key = self.key.clone();
        let bridge = Bridge { server: &url, key: &key, program: &program, client_id: "bench" };
        let mut series = Series::default();
        // The first push, and the first that asks for hashes, are not what is measured.
        for run in 0..self.runs + 2 {
            events::change_rows(&pair.file, &mut pair.random, 1).expect("a row can be changed");
            settle();
            let rival = rivals::sqlite3_rsync(&pair.file, &pair.sqlite3_rsync_copy);
            measure::forget_memory_peak(self.server.pid());
            let read = measure::bytes_read(self.server.pid()).unwrap_or(0);
            let begin = Instant::now();
            let ended = bridge.push(&pair.file, "team/version-two.db").expect("the server takes the push");
            let time = begin.elapsed();
            assert_eq!(ended.close_code, Some(1000), "{ended:?}");
            if run >= 2 {
                series.times.push(time);
                series.wire.push(ended.bytes);
                series.loopback.push(ended.bytes);
                series.sqlite3_rsync(rival);
                series.server_bytes_max = series.server_bytes_max.max(self.server_memory());
                let now = measure::bytes_read(self.server.pid()).unwrap_or(0);
                // What came in over the socket was read by the server as well.
                series.server_read_max = series.server_read_max.max((now - read).saturating_sub(ended.bytes));
            }
        }
        let mut row = series.row(&format!("{}: push of one row by a version 2 peer", events.name), None);
        let time = median(&series.times);
        row.checks[0] = Check::ratio(time, "sqlite3_rsync", median(&series.sqlite3_rsync), Some(1.0));
        row.checks.push(Check::note(format!("the server read {} of files", bytes(series.server_read_max))));
        self.report(&row);
    }

    /// A large database through the same memory.
    pub fn memory(&mut self, events: &Events, database: &Path) {
        let mut pair = Pair::new(self, events, database);
        events::change_rows(&pair.file, &mut pair.random, 1).expect("a row can be changed");
        let mut series = Series::default();
        self.ours(&pair.pusher, &pair.push(), &mut series);
        self.ours(&pair.puller, &pair.pull(), &mut series);
        pair.established.client_bytes_max = pair.established.client_bytes_max.max(series.client_bytes_max);
        pair.established.server_bytes_max = pair.established.server_bytes_max.max(series.server_bytes_max);
        let job = format!("{}: first push, pull, push and pull of a row", events.name);
        let row = Row {
            time: pair.established.times.iter().chain(&series.times).sum(),
            ..pair.established.row(&job, None)
        };
        self.report(&row);
    }

    /// One page of a very large database, told to the server, beside the same of a small one.
    pub fn sparse(&mut self, pages: u32) {
        let small = sparse::pushes(&self.server, &self.key, 24_600, self.runs);
        let large = sparse::pushes(&self.server, &self.key, pages, self.runs);
        let size = bytes(u64::from(pages) * 4096);
        let (time, small_time) = (median(&large.times), median(&small.times));
        let ratio = time.as_secs_f64() / small_time.as_secs_f64();
        let memory = large.server_bytes_max as f64 / small.server_bytes_max as f64;
        let row = Row {
            job: format!("{size}: push of one page that the client knows"),
            time,
            wire_bytes: median(&large.wire),
            server_bytes_max: large.server_bytes_max,
            checks: vec![
                Check::at_most(
                    format!("{ratio:.2} × the same into S ({})", seconds(small_time)),
                    ratio,
                    2.0,
                    "2",
                ),
                Check::at_most(
                    format!("{memory:.2} × the memory ({})", bytes(small.server_bytes_max)),
                    memory,
                    2.0,
                    "2",
                ),
            ],
            ..Row::default()
        };
        self.report(&row);
    }

    /// Says how it went in all.
    pub fn finish(self) {
        let missed = self.missed;
        println!(
            "{}",
            if missed == 0 {
                "Every target was reached.".into()
            } else {
                format!("{missed} targets were missed.")
            }
        );
    }

    /// One measured run of the client.
    fn ours<S: AsRef<std::ffi::OsStr>>(
        &self,
        client: &Client,
        arguments: &[S],
        series: &mut Series,
    ) -> Value {
        let server = self.server.pid();
        measure::forget_memory_peak(server);
        let loopback = measure::loopback_bytes();
        let server_read = measure::bytes_read(server).unwrap_or(0);
        let run = client.measure(arguments);
        assert!(run.status.success(), "the client failed: {}{}", run.stdout, run.stderr);
        let said: Value =
            run.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let number = |name: &str| said[name].as_u64().unwrap_or_else(|| panic!("no {name} in {said}"));
        series.times.push(run.time);
        series.wire.push(number("bytes_sent") + number("bytes_received"));
        series.page_bytes.push((number("pages_sent") + number("pages_received")) * 4096);
        let loopback = measure::loopback_bytes().zip(loopback).map_or(0, |(after, before)| after - before);
        series.loopback.push(loopback);
        series.client_bytes_max = series.client_bytes_max.max(run.memory_bytes_max);
        series.server_bytes_max = series.server_bytes_max.max(self.server_memory());
        series.client_read_max = series.client_read_max.max(run.bytes_read.unwrap_or(u64::MAX));
        let server_read = measure::bytes_read(server).unwrap_or(u64::MAX) - server_read;
        series.server_read_max = series.server_read_max.max(server_read);
        said
    }

    /// Settles before a program that writes a new file of `bytes`, by writing such a file and removing it.
    ///
    /// The memory of a virtual machine that is free for a while goes back to its host, and who is the first
    /// to write there again waits for every page of it. So both find memory that was in use a moment ago.
    fn settle_for(&self, bytes: u64) {
        let path = self.folder.join("warm.tmp");
        let mut file = File::create(&path).expect("a file can be made");
        std::io::copy(&mut std::io::repeat(1).take(bytes), &mut file).expect("a file can be written");
        settle();
        std::fs::remove_file(&path).expect("a file can be removed");
    }

    fn report(&mut self, row: &Row) {
        println!("{}", row.text());
        self.missed += row
            .checks
            .iter()
            .filter(|check| check.target.as_ref().is_some_and(|(_, reached)| !reached))
            .count();
    }

    fn server_memory(&self) -> u64 {
        measure::memory_peak(self.server.pid()).unwrap_or(0)
    }

    /// A machine with the admin key.
    fn machine(&self) -> Client {
        let client = Client::new_in(release_programs(), Some(&self.folder));
        client.use_server(self.server.url());
        client.with_env("SQLRSYNC_ADMIN_KEY", &self.key)
    }

    fn repository_bytes(&self) -> u64 {
        folder_bytes(&self.server.data())
    }

    /// What the version that a pair began with takes in the repository.
    fn bytes_of_first_version(&self, pair: &Pair) -> u64 {
        self.repository_bytes() - pair.repository_before
    }
}

/// A pusher and a puller of one replica, with the copies of the rivals, all at the same version.
struct Pair {
    pusher: Client,
    puller: Client,
    file: PathBuf,
    remote: String,
    rsync_copy: PathBuf,
    sqlite3_rsync_copy: PathBuf,
    random: Random,
    /// The first push and the first pull.
    established: Series,
    repository_before: u64,
}

impl Pair {
    fn new(lab: &Lab, events: &Events, database: &Path) -> Pair {
        let repository_before = lab.repository_bytes();
        let (pusher, puller) = (lab.machine(), lab.machine());
        let file = pusher.path("app.db");
        let remote = format!("team/{}-{repository_before}.db", events.name.to_lowercase());
        let rsync_copy = pusher.path("rsync.db");
        let sqlite3_rsync_copy = pusher.path("sqlite3_rsync.db");
        for copy in [&file, &rsync_copy, &sqlite3_rsync_copy] {
            std::fs::copy(database, copy).expect("the database can be copied");
        }
        settle();
        let mut established = Series::default();
        lab.ours(&pusher, &[text(&file), remote.clone()], &mut established);
        lab.ours(&puller, &[remote.clone(), "app.db".into()], &mut established);
        let random = Random::new(events.seed + 1000);
        Pair {
            pusher,
            puller,
            file,
            remote,
            rsync_copy,
            sqlite3_rsync_copy,
            random,
            established,
            repository_before,
        }
    }

    fn push(&self) -> [String; 2] {
        [text(&self.file), self.remote.clone()]
    }

    /// A push that reads the whole file, whatever its WAL says.
    fn push_by_scan(&self) -> [String; 3] {
        let [file, remote] = self.push();
        [file, remote, "--scan".into()]
    }

    fn pull(&self) -> [String; 2] {
        [self.remote.clone(), "app.db".into()]
    }

    fn rivals(&self, series: &mut Series) {
        settle();
        series.rsync(rivals::rsync(&self.file, &self.rsync_copy));
        settle();
        series.sqlite3_rsync(rivals::sqlite3_rsync(&self.file, &self.sqlite3_rsync_copy));
        settle();
    }
}

/// Writes everything out that waits for the disk: what one run left must not be paid by the next.
fn settle() {
    // SAFETY: takes and returns nothing.
    unsafe { libc::sync() };
}

fn text(path: &Path) -> String {
    path.to_str().expect("the path is UTF-8").to_owned()
}

fn time(bytes: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate)
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
