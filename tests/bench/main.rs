//! The benchmark: real programs over loopback, a local-folder repository, fsync on, beside `rsync` (and
//! `sqlite3_rsync`) on the same files in the same run.
//!
//! ```text
//! cargo bench -p sqlrsync-tests --bench transfer -- [--small] [--runs N] [JOB]...
//! ```
//!
//! Jobs: `first`, `new`, `row`, `wal`, `percent`, `unchanged`, `v2`, `versions`, `churned`, `memory`, `sparse`; all of
//! them if none is named. `--small` takes the 100 MB database instead of the gigabyte, to see that
//! everything works. The databases are made once, from a seed, and kept in `target/bench`.
//!
//! What belongs where: `arguments` is what is typed, `jobs` and `sparse` do what is measured, `rivals` runs the programs to compare with,
//! `limits` measures what the machine can do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run stops and says where"
)]

mod arguments;
mod jobs;
mod limits;
mod rivals;
mod sparse;

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlrsync_tests::events::{Events, LARGE, SMALL};
use sqlrsync_tests::programs::{on_path, workspace};
use sqlrsync_tests::table;

use crate::arguments::Jobs;

/// 4 GB, for the memory that it must not take.
const HUGE: Events = Events { name: "XL", bytes: 4_000_000_000, seed: 3 };

/// 20 GB of pages.
const SPARSE_PAGES: u32 = 20_000_000_000_u64.div_ceil(4096) as u32;

const JOBS: [&str; 11] =
    ["first", "new", "row", "wal", "percent", "unchanged", "v2", "versions", "churned", "memory", "sparse"];

/// What was typed.
struct Plan {
    database: Events,
    memory: Events,
    runs: usize,
    jobs: Jobs,
}

fn main() {
    let arguments = arguments::typed();
    if let [word, name, folder] = arguments.as_slice()
        && word == "--generate"
    {
        return generate(name, Path::new(folder));
    }
    let plan = parse(&arguments);
    if on_path("rsync").is_none() {
        eprintln!("The benchmark compares with rsync: install it, so that it is on the PATH.");
        std::process::exit(1);
    }
    run(&plan);
}

fn parse(words: &[String]) -> Plan {
    let mut plan = Plan { database: LARGE, memory: HUGE, runs: 5, jobs: Jobs::default() };
    plan.jobs = arguments::parse(words, &JOBS, |flag, next| {
        match flag {
            "--small" => (plan.database, plan.memory) = (SMALL, LARGE),
            "--runs" => plan.runs = next.number(1000)? as usize,
            _ => return Ok(false),
        }
        Ok(true)
    });
    plan
}

fn run(plan: &Plan) {
    let folder = workspace().join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench can be made");
    let limits = limits::measure(&database(&plan.database, &folder), &folder);
    print!("{limits}");
    let mut lab = jobs::Lab::new(&folder, limits, plan.runs);
    if ["first", "new", "row", "wal", "percent", "unchanged", "v2"].iter().any(|job| plan.jobs.wants(job)) {
        lab.transfers(&plan.database, &database(&plan.database, &folder), &|job| plan.jobs.wants(job));
    }
    if plan.jobs.wants("versions") {
        lab.versions(&plan.database, &database(&plan.database, &folder));
    }
    if plan.jobs.wants("churned") {
        lab.churned(&plan.database, &database(&plan.database, &folder));
    }
    if plan.jobs.wants("memory") {
        lab.memory(&plan.memory, &database(&plan.memory, &folder));
    }
    if plan.jobs.wants("sparse") {
        lab.sparse(if plan.database.name == LARGE.name { SPARSE_PAGES } else { SPARSE_PAGES / 20 });
    }
    lab.finish();
}

/// The database's file, made by a process of its own: what this process once held in memory would count
/// as the peak of every program that it starts.
fn database(events: &Events, folder: &Path) -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    let made = Command::new(this).args(["--generate", events.name]).arg(folder).status();
    assert!(made.is_ok_and(|status| status.success()), "the database {} was not made", events.name);
    events.cached(folder).expect("it is there")
}

fn generate(name: &str, folder: &Path) {
    let events = [SMALL, LARGE, HUGE].into_iter().find(|events| events.name == name);
    events.expect("a known name").cached(folder).expect("a database can be made");
}
