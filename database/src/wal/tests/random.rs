//! Thousands of rounds beside writers that do whatever programs do: no page is missed, and the obvious
//! rule misses some.
//!
//! 300 rounds in every test run. `SQLRSYNC_WAL_ROUNDS=10000` makes it as many
//! (`docs/live-files.md` has the command), `SQLRSYNC_WAL_SEED` begins with another seed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::folder;
use super::follower::{Follower, Tally};
use super::writer::{Random, Writer};

const DATABASE: &str = "SQLRSYNC_TEST_DATABASE";
const SEED: &str = "SQLRSYNC_WAL_SEED";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn rounds() -> u32 {
    number("SQLRSYNC_WAL_ROUNDS").and_then(|rounds| rounds.try_into().ok()).unwrap_or(300)
}

/// Says how it went, and that it showed something.
fn check(tally: &Tally) {
    println!("{tally:#?}");
    let Tally { rounds, changed_by_wal, wrong_missed, scans, .. } = tally;
    assert!(*changed_by_wal > rounds / 10, "the WAL was of use");
    assert!(*wrong_missed > 0, "the obvious rule is wrong");
    assert!(scans.values().sum::<u32>() > rounds / 50, "it was started over at times");
}

#[test]
fn no_page_is_missed_between_random_steps() {
    let dir = folder();
    let path = dir.path().join("a.db");
    let seed = number(SEED).unwrap_or(1);
    let wait = Duration::ZERO;
    let mut writers = [Writer::new(&path, seed, wait), Writer::new(&path, seed + 1, wait)];
    let mut follower = Follower::new(&path, dir.path());
    let mut random = Random::new(seed + 2);
    while follower.tally.rounds < rounds() {
        for _ in 0..random.below(9) {
            writers[random.below(2) as usize].step();
        }
        writers.iter_mut().for_each(Writer::let_readers_in);
        follower.round().unwrap();
    }
    check(&follower.tally);
}

/// A writer in a process of its own, until it is killed or told to close the database.
#[test]
#[ignore = "a part of the other tests"]
fn child_writes() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    write(Path::new(&path), number(SEED).unwrap_or(1));
}

/// Writes until there is a file `stop`.
fn write(path: &Path, seed: u64) {
    let mut writer = Writer::new(path, seed, Duration::from_millis(20));
    let stop = path.with_file_name("stop");
    while !stop.exists() {
        writer.step();
        let most = if writer.is_open() { 12_000 } else { 1000 };
        std::thread::sleep(Duration::from_micros(writer.random.below(most)));
    }
}

fn child(path: &Path, seed: u64) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "wal::tests::random::child_writes", "--ignored"]);
    child.env(DATABASE, path).env(SEED, seed.to_string());
    child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Writers that end when this is dropped, also by a test that fails: its scope waits for them.
struct Beside<'s> {
    process: Child,
    stop: &'s Path,
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        let _ = std::fs::write(self.stop, "");
        let _ = self.process.wait();
    }
}

/// Another file takes the place of the first, or the same one is made anew. Nobody has it open.
fn replace(path: &Path, random: &mut Random) {
    let other = path.with_file_name("other.db");
    match random.below(3) {
        0 => {
            let database = Connection::open(path).unwrap();
            database.execute("VACUUM INTO ?1", [other.to_str().unwrap()]).unwrap();
            drop(database);
            std::fs::rename(&other, path).unwrap();
        }
        1 => {
            // A copy in place: what a restored backup is.
            std::fs::copy(path, &other).unwrap();
            drop(Writer::new(path, random.below(1000), Duration::ZERO));
            std::fs::copy(&other, path).unwrap();
            std::fs::remove_file(&other).unwrap();
        }
        _ => std::fs::remove_file(path).unwrap(),
    }
}

#[test]
fn no_page_is_missed_beside_random_writers() {
    let dir = folder();
    let path = dir.path().join("a.db");
    let stop = dir.path().join("stop");
    let mut seed = number(SEED).unwrap_or(1) * 1000;
    let mut random = Random::new(seed);
    drop(Writer::new(&path, seed, Duration::ZERO));
    let mut follower = Follower::new(&path, dir.path());
    while follower.tally.rounds < rounds() {
        seed += 2;
        let last = (follower.tally.rounds + 20 + random.below(80) as u32).min(rounds());
        std::thread::scope(|scope| {
            let mut beside = Beside { process: child(&path, seed), stop: &stop };
            scope.spawn(|| write(&path, seed + 1));
            follow(&mut follower, last, &mut random);
            // A crash at any point, or an orderly end.
            if random.below(2) == 0 {
                beside.process.kill().unwrap();
            }
        });
        std::fs::remove_file(&stop).unwrap();
        if random.below(2) == 0 {
            // Closed by the last, so that nothing of the old file lies beside the new one.
            drop(Writer::new(&path, seed, Duration::ZERO));
            replace(&path, &mut random);
            drop(Writer::new(&path, seed, Duration::ZERO));
        }
    }
    check(&follower.tally);
}

/// Goes on to that many rounds. A round in which the file cannot be read, because a writer keeps it
/// locked, is none.
fn follow(follower: &mut Follower, rounds: u32, random: &mut Random) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while follower.tally.rounds < rounds {
        if let Err(error) = follower.round() {
            assert!(Instant::now() < deadline, "{error}");
        }
        std::thread::sleep(Duration::from_millis(random.below(16)));
    }
}
