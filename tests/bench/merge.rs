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
//! What belongs where: `arguments` is what is typed, `merge_lab` has the machines and the wire whose waits are timed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run stops and says where"
)]

mod arguments;
mod merge_lab;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlrsync_tests::events::{self, Events, LARGE, SMALL};
use sqlrsync_tests::measure;
use sqlrsync_tests::programs::on_path;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::table::{Check, Row, median, seconds};

use crate::arguments::Jobs;
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
    let mut reached = true;
    let mut report = |row: &Row| {
        print!("{}", row.text());
        reached &= row.reached();
    };
    let lab = Lab::new(plan.release);
    if plan.jobs.wants("merge") {
        merges(&lab, &plan).iter().for_each(&mut report);
    }
    if plan.jobs.wants("diff") {
        plan.databases
            .iter()
            .flat_map(|events| differences(&lab, events, plan.runs))
            .for_each(|row| report(&row));
    }
    if plan.jobs.wants("conflict") {
        report(&conflict(&lab, &plan.databases[if plan.release { 0 } else { 1 }]));
    }
    if !reached {
        println!("\nNot everything that is asked for was reached.");
    }
}

fn parse(words: &[String]) -> Plan {
    let mut plan = Plan { databases: [SMALL, LARGE], release: true, runs: 9, jobs: Jobs::default() };
    plan.jobs = arguments::parse(words, &JOBS, |flag, next| {
        match flag {
            "--small" => (plan.databases, plan.release) = (TINY, false),
            "--runs" => plan.runs = next.number(1000)? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    });
    plan
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

/// Two versions that differ in a row, and two that differ in a hundredth of them; and the same of files.
fn differences(lab: &Lab, events: &Events, runs: u32) -> Vec<Row> {
    let two = Two::new(lab, events);
    two.change(0, "id = 77", 1);
    two.push(0, "pushed");
    let one = Difference::measure(&two, (1, 2), runs);
    let mut random = Random::new(7);
    let few = events.rows() / 100;
    events::change_rows(&two.file(0), &mut random, few).expect("rows can be changed");
    two.push(0, "pushed");
    let percent = Difference::measure(&two, (1, 3), runs.min(3));
    let server_bytes_max = two.server_memory();
    let row = |of: &str, time: Duration, checks: Vec<Check>, server_bytes_max: u64| Row {
        job: format!("{}: diff of two {of}", events.name),
        time,
        server_bytes_max,
        checks,
        ..Row::default()
    };
    let in_server = format!("{} in the server", seconds(one.server));
    let soon =
        Check::at_most(in_server, one.server.as_secs_f64(), DIFF_MAX.as_secs_f64(), &seconds(DIFF_MAX));
    vec![
        row(
            "versions, one row",
            one.server,
            vec![soon, one.beside(one.server, Some(0.02))],
            server_bytes_max,
        ),
        row("files, one row", one.files, vec![one.beside(one.files, None)], 0),
        row(
            "versions, 1 % of the rows",
            percent.server,
            vec![percent.count(), percent.beside(percent.server, Some(0.5))],
            server_bytes_max,
        ),
        row(
            "files, 1 % of the rows",
            percent.files,
            vec![percent.count(), percent.beside(percent.files, None)],
            0,
        ),
    ]
}

/// What a comparison took.
struct Difference {
    /// Of two versions, in the server.
    server: Duration,
    /// Of the same as files, by the client.
    files: Duration,
    /// Of the files by `sqldiff`, where there is one.
    sqldiff: Option<Duration>,
    /// How many rows differ.
    rows: usize,
}

impl Difference {
    fn measure(two: &Two<'_>, (from, to): (u64, u64), runs: u32) -> Difference {
        let files = [two.file(1), two.file(0)];
        let [before, after] = files.each_ref().map(|file| file.to_str().expect("a path in UTF-8"));
        let (mut server, mut ours, mut rivals, mut rows) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..runs {
            let begin = Instant::now();
            let text = two.get(&format!("diff?from={from}&to={to}&format=json"));
            server.push(begin.elapsed());
            rows = text.lines().count();
            let begin = Instant::now();
            let found = two.machines[0].run(&["diff", before, after, "--json"]).ok();
            ours.push(begin.elapsed());
            assert_eq!(found.stdout.lines().count(), rows, "both find the same");
            if let Some(sqldiff) = on_path("sqldiff") {
                let run = measure::run(Command::new(sqldiff).args(&files)).expect("sqldiff can be started");
                assert!(run.status.success(), "sqldiff: {}", run.stderr);
                rivals.push(run.time);
            }
        }
        let sqldiff = (!rivals.is_empty()).then(|| median(&rivals));
        Difference { server: median(&server), files: median(&ours), sqldiff, rows }
    }

    fn count(&self) -> Check {
        Check::note(format!("{} rows differ", self.rows))
    }

    fn beside(&self, time: Duration, most: Option<f64>) -> Check {
        match self.sqldiff {
            Some(rival) => Check::ratio(time, "sqldiff", rival, most),
            None => Check::note("sqldiff is not on the PATH: it comes with sqlite3-tools".to_owned()),
        }
    }
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
