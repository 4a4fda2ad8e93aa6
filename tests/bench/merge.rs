//! The benchmark of merging: a row merged into a large database and into a smaller one, differences beside
//! `sqldiff` on the same files in the same run, a conflict of ten thousand rows.
//!
//! ```text
//! cargo bench -p sqlrsync-tests --bench merge -- [--small] [--runs N] [JOB]...
//! ```
//!
//! Jobs: `merge`, `diff`, `conflict`; all of them if none is named. `--small` takes databases of 5 and 1 MB
//! and the programs as this one was built (`cargo bench --profile dev`), to see that everything works; its
//! figures say nothing. The databases are made once, from a seed, and kept in `target/bench`.
//!
//! What belongs where: `merge_lab` has the machines and the wire whose waits are timed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run stops and says where"
)]

mod merge_lab;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlrsync_tests::events::{self, Events, LARGE, SMALL};
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::on_path;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::table::{Check, Row, median, seconds};

use crate::merge_lab::{Lab, REMOTE, Two};

const JOBS: [&str; 3] = ["merge", "diff", "conflict"];

/// The databases with `--small`.
const TINY: [Events; 2] =
    [Events { name: "1 MB", bytes: 1_000_000, seed: 1 }, Events { name: "5 MB", bytes: 5_000_000, seed: 2 }];

/// What a merge of one row may take, and how much more on the large database than on the small one.
const MERGE_MAX: Duration = Duration::from_millis(100);
const MERGE_RATIO_MAX: f64 = 1.5;

/// What the server may take to compare two versions that differ in a row.
const DIFF_MAX: Duration = Duration::from_millis(50);

/// Rows of the conflict that is listed, and how long that may take.
const CONFLICT_ROWS: u32 = 10_000;
const LISTED_WITHIN: Duration = Duration::from_secs(1);

/// How soon "at once" is.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What was typed.
struct Plan {
    databases: [Events; 2],
    release: bool,
    runs: u32,
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
    let mut reached = true;
    let mut report = |row: &Row| {
        print!("{}", row.text());
        reached &= row.reached();
    };
    let lab = Lab::new(plan.release);
    if plan.wants("merge") {
        merges(&lab, &plan).iter().for_each(&mut report);
    }
    if plan.wants("diff") {
        plan.databases
            .iter()
            .flat_map(|events| differences(&lab, events, plan.runs))
            .for_each(|row| report(&row));
    }
    if plan.wants("conflict") {
        report(&conflict(&lab, &plan.databases[if plan.release { 0 } else { 1 }]));
    }
    if !reached {
        println!("\nNot everything that is asked for was reached.");
    }
}

fn parse(arguments: &[String]) -> Result<Plan, String> {
    let mut plan = Plan { databases: [SMALL, LARGE], release: true, runs: 9, jobs: Vec::new() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--small" => (plan.databases, plan.release) = (TINY, false),
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

/// Makes the file of a database: in a process of its own, whose memory is not that of what is measured.
fn generate(name: &str, folder: &Path) {
    let events = [SMALL, LARGE].into_iter().chain(TINY).find(|events| events.name == name);
    events.expect("a known name").cached(folder).expect("a database can be made");
}

/// Two people change a row each and push in turns, and never pull: each push is merged.
fn merges(lab: &Lab, plan: &Plan) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for events in &plan.databases {
        let two = Two::new(lab, events);
        let mut times = Vec::new();
        let mut whole = Vec::new();
        for run in 0..plan.runs {
            two.change(0, &format!("id = {}", 2 * run + 1), run);
            two.push(0, if run == 0 { "pushed" } else { "merged" });
            two.change(1, &format!("id = {}", 2 * run + 2), run);
            // The first one makes what is kept for the others.
            let begin = Instant::now();
            let waited = two.push_timed(1, "merged");
            if run > 0 || plan.runs == 1 {
                whole.push(begin.elapsed());
                times.push(waited);
            }
        }
        let time = median(&times);
        let most = MERGE_MAX.as_secs_f64();
        let mut checks = vec![
            Check::at_most(
                format!("{} from the last byte to the answer", seconds(time)),
                time.as_secs_f64(),
                most,
                &seconds(MERGE_MAX),
            ),
            Check::note(format!("{} the whole push", seconds(median(&whole)))),
        ];
        if let Some(small) = rows.first() {
            let ratio = time.as_secs_f64() / small.time.as_secs_f64();
            checks.push(Check::at_most(
                format!("{ratio:.2} × the same on {}", plan.databases[0].name),
                ratio,
                MERGE_RATIO_MAX,
                "1.5",
            ));
        }
        let server_bytes_max = two.server_memory();
        let job = format!("{}: a pushed row is merged", events.name);
        rows.push(Row { job, time, server_bytes_max, checks, ..Row::default() });
    }
    rows
}

/// Two versions that differ in a row, and two that differ in a hundredth of them.
fn differences(lab: &Lab, events: &Events, runs: u32) -> Vec<Row> {
    let two = Two::new(lab, events);
    let (before, after) = (two.file(1), two.file(0));
    two.change(0, "id = 77", 1);
    two.push(0, "pushed");
    let one = difference(&two, (1, 2), [&before, &after], runs);
    let mut random = Random::new(7);
    let few = events.rows() / 100;
    events::change_rows(&after, &mut random, few).expect("rows can be changed");
    two.push(0, "pushed");
    let percent = difference(&two, (1, 3), [&before, &after], runs.min(3));
    let row = |what: &str,
               (time, rows, sqldiff): (Duration, usize, Option<Duration>),
               most: Option<Duration>,
               share| {
        let mut checks = vec![Check::note(format!("{rows} rows differ"))];
        if let Some(most) = most {
            let found = format!("{} in the server", seconds(time));
            checks.push(Check::at_most(found, time.as_secs_f64(), most.as_secs_f64(), &seconds(most)));
        }
        checks.push(match sqldiff {
            Some(rival) => Check::ratio(time, "sqldiff", rival, Some(share)),
            None => Check::note("sqldiff is not on the PATH: it comes with sqlite3-tools".to_owned()),
        });
        let server_bytes_max = two.server_memory();
        Row {
            job: format!("{}: diff of two versions, {what}", events.name),
            time,
            server_bytes_max,
            checks,
            ..Row::default()
        }
    };
    vec![row("one row", one, Some(DIFF_MAX), 0.02), row("1 % of the rows", percent, None, 0.5)]
}

/// How long the server takes to compare two versions, how many rows differ, and how long `sqldiff` takes for
/// the same on files.
fn difference(
    two: &Two<'_>,
    (from, to): (u64, u64),
    files: [&Path; 2],
    runs: u32,
) -> (Duration, usize, Option<Duration>) {
    let (mut times, mut rivals, mut rows) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        let begin = Instant::now();
        let text = two.get(&format!("diff?from={from}&to={to}&format=json"));
        times.push(begin.elapsed());
        rows = text.lines().count();
        if let Some(sqldiff) = on_path("sqldiff") {
            let run = measure::run(Command::new(sqldiff).args(files)).expect("sqldiff can be started");
            assert!(run.status.success(), "sqldiff: {}", run.stderr);
            rivals.push(run.time);
        }
    }
    (median(&times), rows, (!rivals.is_empty()).then(|| median(&rivals)))
}

/// A conflict of ten thousand rows is listed.
fn conflict(lab: &Lab, events: &Events) -> Row {
    let two = Two::new(lab, events);
    for (who, outcome) in [(0, "pushed"), (1, "conflict")] {
        two.change(who, &format!("id <= {CONFLICT_ROWS}"), who as u32);
        two.push(who, outcome);
    }
    let begin = Instant::now();
    let page = two.get("conflicts/1/rows");
    let first = begin.elapsed();
    assert!(!page.is_empty(), "there is a first page");
    let begin = Instant::now();
    let listed = two.machines[0].run(&["conflicts", REMOTE, "1", "--json"]).ok();
    let time = begin.elapsed();
    let rows = listed.stdout.lines().count();
    let at_most = |what: &str, time: Duration, most: Duration| {
        Check::at_most(
            format!("{} {what}", seconds(time)),
            time.as_secs_f64(),
            most.as_secs_f64(),
            &seconds(most),
        )
    };
    Row {
        job: format!("{}: a conflict of {CONFLICT_ROWS} rows is listed", events.name),
        time,
        server_bytes_max: two.server_memory(),
        checks: vec![
            // Of very long rows not all are kept for the listing; the others are only counted.
            Check {
                found: format!("{rows} rows are listed"),
                target: Some(("all of them".to_owned(), rows == CONFLICT_ROWS as usize)),
            },
            at_most("the listing", time, LISTED_WITHIN),
            at_most("the first page", first, AT_ONCE),
        ],
        ..Row::default()
    }
}
