//! A process that is killed in the middle, and a disk that fills up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlrsync_database::Overwrite;

use crate::support::{Bench, Memory, create, dump, join, query, root_of};

const FROM: &str = "SQLRSYNC_TEST_FROM";
const TO: &str = "SQLRSYNC_TEST_TO";

/// How often a process is killed at least.
const ROUNDS_MIN: u64 = 12;

/// As many pages in each database of a page size, and all of them different.
const EIGHT_MEGABYTES: &str = "INSERT INTO t (data) VALUES (randomblob(8000000))";

/// How long a test goes on killing for an outcome that it has not seen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Copies one file after the other over the replica, on and on, until it is killed. Run as a process
/// of its own by the tests below.
#[test]
#[ignore = "a part of the other tests"]
fn child_copies() {
    let (Ok(from), Ok(to)) = (std::env::var(FROM), std::env::var(TO)) else { return };
    let (bench, to) = (Bench::new(), PathBuf::from(to));
    let once = std::env::var("SQLRSYNC_TEST_ONCE").is_ok();
    for from in from.split(':').cycle().take(if once { 1 } else { 1000 }) {
        let mut origin = bench.origin(Path::new(from), &Memory::default()).unwrap();
        let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Force).unwrap();
        if let Err(error) = join(&mut origin, &mut replica, 3).1 {
            println!("child failed: {error}");
        }
    }
}

fn child() -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "crash::child_copies", "--ignored", "--nocapture"]).stderr(Stdio::null());
    child
}

/// Starts the child and kills it after a moment. How long that may be grows with each round: a machine can be slow.
fn run_and_kill(from: &str, to: &Path, once: bool, round: u64) {
    let mut child = child();
    child.env(FROM, from).env(TO, to).stdout(Stdio::null());
    if once {
        child.env("SQLRSYNC_TEST_ONCE", "1");
    }
    let mut child = child.spawn().unwrap();
    // Any moment will do: what is shown has to hold at all of them.
    std::thread::sleep(Duration::from_millis(20 + round * 13 % (150 + 10 * round)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Goes on for some rounds, and until both outcomes were seen: a kill that never hits proves nothing.
fn until_both_were_seen(mut round: impl FnMut(u64) -> bool) {
    let started = Instant::now();
    let mut seen = [0, 0];
    for number in 0.. {
        seen[usize::from(round(number))] += 1;
        if number >= ROUNDS_MIN && !seen.contains(&0) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "only one of the two outcomes in {number} rounds: {seen:?}");
    }
}

#[test]
fn a_kill_leaves_the_old_or_the_new() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let (one, two, to) = (bench.path("one.db"), bench.path("two.db"), bench.path("to.db"));
        create(&one, &format!("PRAGMA journal_mode = {mode}"), 4000);
        create(&two, "", 9000);
        bench.copy(&one, &to, 3);
        let roots = [root_of(&one), root_of(&two)];
        let from = format!("{}:{}", two.display(), one.display());
        until_both_were_seen(|round| {
            run_and_kill(&from, &to, false, round);
            dump(&to);
            let found = root_of(&to);
            let place = roots.iter().position(|root| *root == found);
            place.expect("neither the old nor the new") == 1
        });
    }
}

#[test]
fn a_kill_leaves_a_new_file_whole_or_none() {
    let bench = Bench::new();
    let (from, to) = (bench.path("from.db"), bench.path("to.db"));
    create(&from, "", 20_000);
    until_both_were_seen(|round| {
        run_and_kill(from.to_str().unwrap(), &to, true, round);
        let made = to.exists();
        if made {
            assert_eq!(root_of(&to), root_of(&from));
            std::fs::remove_file(&to).unwrap();
        }
        made
    });
}

/// Copies in a child that can make no file longer than `len`, which is what a full disk is to it: a write
/// past that fails. Returns what it said.
fn copy_on_a_small_disk(from: &Path, to: &Path, len: u64) -> String {
    let output = Command::new("sh")
        // In blocks of 512 bytes.
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", len / 512)])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_copies", "--ignored", "--nocapture"])
        .envs([(FROM, from), (TO, to), ("SQLRSYNC_TEST_ONCE", Path::new("1"))])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files_beside(bench: &Bench) -> usize {
    std::fs::read_dir(bench.dir.path()).unwrap().count()
}

#[test]
fn a_disk_that_fills_up_while_pages_arrive_changes_nothing_and_is_said_so() {
    for existing in [false, true] {
        let bench = Bench::new();
        let (from, to) = (bench.path("from.db"), bench.path("to.db"));
        create(&from, "", 20_000);
        let before = existing.then(|| {
            create(&to, "", 10);
            dump(&to)
        });
        let said = copy_on_a_small_disk(&from, &to, 1 << 20);
        assert!(said.contains("child failed") && said.contains("the disk is full"), "{said}");
        match before {
            Some(before) => assert_eq!(dump(&to), before),
            None => assert!(!to.exists()),
        }
        assert_eq!(files_beside(&bench), if existing { 2 } else { 1 });
    }
}

/// The pages fit, and SQLite's journal or WAL of them, which is a little longer, does not. The replica is
/// of the same page size and changed in place, or of another one and replaced.
#[test]
fn a_disk_that_fills_up_in_the_transaction_changes_nothing_not_even_the_journal_mode() {
    for (page_size, mode) in [(512, "delete"), (512, "wal"), (1024, "delete"), (1024, "wal")] {
        let bench = Bench::new();
        let (from, to) = (bench.path("from.db"), bench.path("to.db"));
        create(&from, "PRAGMA page_size = 512", 0).execute_batch(EIGHT_MEGABYTES).unwrap();
        let pragmas = format!("PRAGMA page_size = {page_size}; PRAGMA journal_mode = {mode}");
        create(&to, &pragmas, 0).execute_batch(EIGHT_MEGABYTES).unwrap();
        let before = root_of(&to);
        let len = [&from, &to].map(|path| std::fs::metadata(path).unwrap().len()).into_iter().max().unwrap();
        let said = copy_on_a_small_disk(&from, &to, len + 2048);
        // SQLite's own words for a write that fails: where pages arrive, it is called a full disk.
        assert!(
            said.contains("child failed") && said.contains("disk I/O error"),
            "{page_size} {mode}: {said}"
        );
        let kept = query(&Connection::open(&to).unwrap(), "PRAGMA journal_mode");
        assert_eq!(kept, [format!("Text({mode:?})")], "pages of {page_size} bytes");
        assert_eq!(root_of(&to), before);
        assert_eq!(files_beside(&bench), 2);
    }
}
