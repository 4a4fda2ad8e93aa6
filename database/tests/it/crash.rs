//! A process that is killed in the middle, and a disk that fills up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlrsync_database::Overwrite;

use crate::support::{Bench, Memory, create, dump, join, root_of};

const FROM: &str = "SQLRSYNC_TEST_FROM";
const TO: &str = "SQLRSYNC_TEST_TO";

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

#[test]
fn a_kill_leaves_the_old_or_the_new() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let (one, two, to) = (bench.path("one.db"), bench.path("two.db"), bench.path("to.db"));
        create(&one, &format!("PRAGMA journal_mode = {mode}"), 4000);
        create(&two, "", 9000);
        bench.copy(&one, &to, 3);
        let roots = [root_of(&one), root_of(&two)];
        let mut seen = [0, 0];
        for round in 0..14u64 {
            let mut child = child();
            child.env(FROM, format!("{}:{}", two.display(), one.display())).env(TO, &to);
            let mut child = child.stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(60 + round * 13 % 100));
            child.kill().unwrap();
            child.wait().unwrap();
            let root = root_of(&to);
            dump(&to);
            let place = roots.iter().position(|other| *other == root);
            seen[place.expect("neither the old nor the new")] += 1;
        }
        println!("{mode}: {seen:?}");
    }
}

#[test]
fn a_kill_leaves_a_new_file_whole_or_none() {
    let bench = Bench::new();
    let (from, to) = (bench.path("from.db"), bench.path("to.db"));
    create(&from, "", 20_000);
    for round in 0..12u64 {
        let mut child = child();
        child.env(FROM, &from).env(TO, &to).env("SQLRSYNC_TEST_ONCE", "1");
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + round * 12));
        child.kill().unwrap();
        child.wait().unwrap();
        if to.exists() {
            assert_eq!(root_of(&to), root_of(&from));
            std::fs::remove_file(&to).unwrap();
        }
    }
}

#[test]
fn a_disk_that_fills_up_changes_nothing_and_is_said_so() {
    for existing in [false, true] {
        let bench = Bench::new();
        let (from, to) = (bench.path("from.db"), bench.path("to.db"));
        create(&from, "", 20_000);
        let before = existing.then(|| {
            create(&to, "", 10);
            dump(&to)
        });
        // A limit on the length of files stands for the disk: a write past it fails as on a full one.
        let output = Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_copies", "--ignored", "--nocapture"])
            .envs([(FROM, from.as_path()), (TO, to.as_path()), ("SQLRSYNC_TEST_ONCE", Path::new("1"))])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("child failed") && said.contains("the disk is full"), "{said}");
        match before {
            Some(before) => assert_eq!(dump(&to), before),
            None => assert!(!to.exists()),
        }
        let left: Vec<_> =
            std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), if existing { 2 } else { 1 }, "{left:?}");
    }
}
