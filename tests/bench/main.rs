//! The benchmark: real programs over loopback, a local-folder repository, fsync on, beside `rsync` (and
//! `sqlite3_rsync`) on the same files in the same run.
//!
//! ```text
//! cargo bench -p sqlrsync-tests --bench transfer -- [--small] [--runs N] [JOB]...
//! ```
//!
//! Jobs: `first`, `new`, `row`, `wal`, `percent`, `unchanged`, `v2`, `versions`, `memory`, `sparse`; all of
//! them if none is named. `--small` takes the 100 MB database instead of the gigabyte, to see that
//! everything works. The databases are made once, from a seed, and kept in `target/bench`.
//!
//! What belongs where: `jobs` and `sparse` do what is measured, `rivals` runs the programs to compare with,
//! `limits` measures what the machine can do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run stops and says where"
)]

mod jobs;
mod limits;
mod rivals;
mod sparse;

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlrsync_tests::events::{Events, LARGE, SMALL};
use sqlrsync_tests::programs::{on_path, workspace};
use sqlrsync_tests::table;

/// 4 GB, for the memory that it must not take.
const HUGE: Events = Events { name: "XL", bytes: 4_000_000_000, seed: 3 };

/// 20 GB of pages.
const SPARSE_PAGES: u32 = 20_000_000_000_u64.div_ceil(4096) as u32;

const JOBS: [&str; 10] =
    ["first", "new", "row", "wal", "percent", "unchanged", "v2", "versions", "memory", "sparse"];

/// What was typed.
struct Plan {
    database: Events,
    memory: Events,
    runs: usize,
    jobs: Vec<String>,
}

impl Plan {
    fn wants(&self, job: &str) -> bool {
        self.jobs.is_empty() || self.jobs.iter().any(|wanted| wanted == job)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [word, name, folder] = arguments.as_slice()
        && word == "--generate"
    {
        return generate(name, Path::new(folder));
    }
    let plan = match parse(&arguments) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    };
    if on_path("rsync").is_none() {
        eprintln!("The benchmark compares with rsync: install it, so that it is on the PATH.");
        std::process::exit(1);
    }
    run(&plan);
}

fn parse(arguments: &[String]) -> Result<Plan, String> {
    let mut plan = Plan { database: LARGE, memory: HUGE, runs: 5, jobs: Vec::new() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--small" => (plan.database, plan.memory) = (SMALL, LARGE),
            "--runs" => {
                let runs = words.next().and_then(|runs| runs.parse().ok()).filter(|runs| *runs > 0);
                plan.runs = runs.ok_or("--runs needs a number")?;
            }
            job if JOBS.contains(&job) => plan.jobs.push(job.to_owned()),
            other => return Err(format!("no such job: {other}; there are {}", JOBS.join(", "))),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) {
    let folder = workspace().join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench can be made");
    let limits = limits::measure(&database(&plan.database, &folder), &folder);
    print!("{limits}");
    let mut lab = jobs::Lab::new(&folder, limits, plan.runs);
    if ["first", "new", "row", "wal", "percent", "unchanged", "v2"].iter().any(|job| plan.wants(job)) {
        lab.transfers(&plan.database, &database(&plan.database, &folder), &|job| plan.wants(job));
    }
    if plan.wants("versions") {
        lab.versions(&plan.database, &database(&plan.database, &folder));
    }
    if plan.wants("memory") {
        lab.memory(&plan.memory, &database(&plan.memory, &folder));
    }
    if plan.wants("sparse") {
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
