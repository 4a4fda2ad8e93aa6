//! Nothing that changed is ever taken for unchanged, and what did not change mostly is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_database::{Agreed, Fingerprint};
use sqlrsync_protocol::exchange::{Form, OriginPages, Since, Wanted};

use crate::support::{Bench, Memory, StopOnDrop, create, root_of};

/// Sends everything to nowhere, and returns what was sent as what was agreed on.
fn record(bench: &Bench, path: &Path) -> Agreed {
    let mut origin = bench.origin(path, &Memory::default()).unwrap();
    origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks }).unwrap();
    while origin.next_block().unwrap().is_some() {}
    origin.proof().unwrap();
    origin.agreed().unwrap()
}

fn unchanged(agreed: &Agreed, path: &Path) -> bool {
    agreed.fingerprint.proves_unchanged(&Fingerprint::of(path).unwrap())
}

/// Small, reproducible randomness.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn a_file_at_rest_is_unchanged_in_every_journal_mode() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
        let bench = Bench::new();
        let path = bench.path("a.db");
        let writer = create(&path, &format!("PRAGMA journal_mode = {mode}"), 100);
        let agreed = record(&bench, &path);
        assert!(unchanged(&agreed, &path), "{mode}");
        writer.execute_batch("UPDATE t SET name = 'other' WHERE id = 7").unwrap();
        assert!(!unchanged(&agreed, &path), "{mode}");
        let agreed = record(&bench, &path);
        drop(writer);
        // The last to close a WAL moves it into the file: that may look like a change.
        assert!(mode == "WAL" || unchanged(&agreed, &path), "{mode}");
        assert_eq!(agreed.root, root_of(&path));
    }
}

#[test]
fn what_was_recorded_in_the_tick_of_a_write_proves_nothing() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    create(&path, "", 1);
    let changed = std::fs::metadata(&path).unwrap();
    let changed_ns = changed.ctime() * 1_000_000_000 + changed.ctime_nsec();
    let now = Fingerprint::of(&path).unwrap();
    // As it would have been recorded so many milliseconds after the write.
    let recorded_after = |milliseconds: i64| -> Fingerprint {
        let mut recorded = serde_json::to_value(&now).unwrap();
        recorded["recorded_at_ns"] = (changed_ns + milliseconds * 1_000_000).into();
        serde_json::from_value(recorded).unwrap()
    };
    for early in [-5, 0, 9] {
        assert!(!recorded_after(early).proves_unchanged(&now), "{early} ms");
    }
    // A file system that keeps whole seconds may have just such a time.
    let tick = if changed.ctime_nsec() == 0 { 2001 } else { 11 };
    assert!(recorded_after(tick).proves_unchanged(&now));
}

#[test]
fn an_update_that_keeps_size_and_time_is_noticed() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    let writer = create(&path, "", 100);
    let agreed = record(&bench, &path);
    let before = std::fs::metadata(&path).unwrap();
    writer.execute_batch("UPDATE t SET name = 'other' WHERE id = 7").unwrap();
    drop(writer);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
    assert!(!unchanged(&agreed, &path));
}

#[test]
fn frames_that_were_written_and_not_committed_prove_nothing() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    let writer = create(&path, "PRAGMA journal_mode = WAL; PRAGMA cache_size = 5", 2000);
    writer.execute_batch("BEGIN; UPDATE t SET name = 'not yet'").unwrap();
    let agreed = record(&bench, &path);
    assert!(!unchanged(&agreed, &path), "the file already has frames that the snapshot did not see");
    writer.execute_batch("COMMIT").unwrap();
    assert!(!unchanged(&agreed, &path));
}

/// One thing that a program may do to its database.
fn disturb(path: &Path, connection: &mut Connection, random: &mut Random) {
    let checkpoint = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][random.below(4) as usize];
    let mode = ["WAL", "WAL", "DELETE", "TRUNCATE", "PERSIST"][random.below(5) as usize];
    let id = random.below(300);
    let value = random.below(1 << 30);
    let sql = match random.below(12) {
        0..=4 => format!("UPDATE t SET name = 'name {value:010}' WHERE id = {id}"),
        5 => format!("PRAGMA wal_checkpoint({checkpoint})"),
        6 => format!("PRAGMA journal_mode = {mode}"),
        7 => "VACUUM".to_string(),
        8 => format!("PRAGMA cache_size = 5; BEGIN; UPDATE t SET name = name || {value}; ROLLBACK"),
        9 => format!(
            "INSERT INTO t (name, data) VALUES ({value}, randomblob(3000)); DELETE FROM t WHERE id > 310"
        ),
        10 => format!("PRAGMA wal_autocheckpoint = {}", random.below(40)),
        _ => {
            *connection = Connection::open(path).unwrap();
            String::new()
        }
    };
    // Another connection in the way is no matter: something else comes next.
    let _ = connection.execute_batch(&sql);
    if !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
}

#[test]
fn a_random_writer_is_never_overlooked() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    let mut writer = create(&path, "PRAGMA journal_mode = WAL", 300);
    let mut random = Random(20_260);
    let (mut same, mut rounds) = (0, 0);
    let start = Instant::now();
    // On a slow machine it takes longer until there is enough to see.
    while start.elapsed() < Duration::from_secs(4)
        || (start.elapsed() < Duration::from_secs(60) && (rounds <= 20 || same <= rounds / 10))
    {
        let agreed = record(&bench, &path);
        for _ in 0..random.below(4) {
            disturb(&path, &mut writer, &mut random);
        }
        let unchanged = unchanged(&agreed, &path);
        let root = root_of(&path);
        assert!(!unchanged || root == agreed.root, "round {rounds} was overlooked");
        same += u32::from(unchanged);
        rounds += 1;
    }
    assert!(rounds > 20 && same > rounds / 10, "{same} of {rounds} proved");
}

#[test]
fn a_writer_at_work_during_the_snapshot_is_never_overlooked() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    let mut writer = create(&path, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", 300);
    writer.busy_timeout(Duration::from_secs(5)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = StopOnDrop(&stop);
        scope.spawn(|| {
            let mut random = Random(99);
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..random.below(6) {
                    disturb(&path, &mut writer, &mut random);
                }
                std::thread::sleep(Duration::from_millis(random.below(60)));
            }
        });
        let mut checked = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            let agreed = record(&bench, &path);
            // What is read between two looks that both prove it must be what was agreed on.
            if unchanged(&agreed, &path) {
                let read = record(&bench, &path);
                if unchanged(&agreed, &path) {
                    assert_eq!(read.root, agreed.root);
                    checked += 1;
                }
            }
        }
        drop(writing);
        assert!(checked > 0, "the writer never rested long enough");
    });
}
