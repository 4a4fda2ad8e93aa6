//! The benchmark of what stays open: subscribers, and how soon they know.
//!
//! ```text
//! cargo bench -p sqlrsync-tests --bench live -- [--subscribers N] [--seconds N] [--versions N] [--tls] [JOB]...
//! ```
//!
//! Jobs: `idle` (memory and processor time of the server with thousands of subscribers, and how soon all
//! of them are told), `stalled` (one that has stopped reading, beside 999 that read), `follow` (from the
//! commit to the new version in a replica, S and L, and what a follower takes at rest), `publish` (from
//! the end of a publisher's timer to the commit, S and L, and what a publisher takes at rest); all of them
//! if none is named. With `--tls`, `idle` and `follow` go over TLS. The programs are the release programs on loopback. Everything is bounded in count and
//! time.
//!
//! What belongs where: `arguments` is what is typed, `live_load` has the jobs with many subscribers, `live_latency` those with one
//! replica that follows, `live_publish` those with a database that is published.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run stops and says where"
)]

mod arguments;
mod live_latency;
mod live_load;
mod live_publish;

use std::time::Duration;

use sqlrsync_tests::events::{LARGE, SMALL};
use sqlrsync_tests::table;
use sqlrsync_tests::tls::Certificate;

use crate::arguments::Jobs;

const JOBS: [&str; 4] = ["idle", "stalled", "follow", "publish"];

/// How many changed rows are published in each database; every one takes ten seconds of waiting.
const PUBLISHED: u32 = 10;

/// What was typed.
struct Plan {
    subscribers: usize,
    /// How long a server at rest is looked at.
    rest: Duration,
    versions: u64,
    /// How many versions a follower is timed with.
    latencies: u32,
    /// What the server has, where it speaks TLS.
    tls: Option<Certificate>,
    jobs: Jobs,
}

fn main() {
    let plan = parse(&arguments::typed());
    let mut reached = true;
    let mut report = |row: table::Row| {
        print!("{}", row.text());
        reached &= row.reached();
    };
    if plan.jobs.wants("idle") {
        report(live_load::idle(plan.subscribers, plan.rest, plan.tls.as_ref()));
    }
    if plan.jobs.wants("stalled") {
        report(live_load::stalled(plan.versions));
    }
    if plan.jobs.wants("follow") {
        for events in [SMALL, LARGE] {
            report(live_latency::follow(&events, plan.latencies, plan.rest, plan.tls.as_ref()));
        }
    }
    if plan.jobs.wants("publish") {
        live_publish::publish(&[SMALL, LARGE], PUBLISHED, plan.rest).into_iter().for_each(&mut report);
    }
    if !reached {
        println!("\nNot everything that is asked for was reached.");
    }
}

fn parse(words: &[String]) -> Plan {
    let mut plan = Plan {
        subscribers: 10_000,
        rest: Duration::from_secs(20),
        versions: 50,
        latencies: 100,
        tls: None,
        jobs: Jobs::default(),
    };
    plan.jobs = arguments::parse(words, &JOBS, |flag, next| {
        match flag {
            "--subscribers" => plan.subscribers = next.number(50_000)? as usize,
            "--seconds" => plan.rest = Duration::from_secs(next.number(600)?),
            "--versions" => {
                plan.versions = next.number(1000)?;
                plan.latencies = plan.versions as u32;
            }
            "--tls" => plan.tls = Some(Certificate::new()),
            _ => return Ok(false),
        }
        Ok(true)
    });
    plan
}
