//! Measures pushes into, and pulls out of, a repository in a local folder: what the repository alone
//! costs, without network and database file.
//!
//! ```text
//! cargo run --release -p sqlrsync-repository --example measure_store -- FOLDER PAGES [sparse]
//! ```
//!
//! Pages are of 4 KiB and compress to about half, or to almost nothing where they are sparse: what one
//! changed page costs in a very large database can then be seen on a small disk. The folder has to be empty, and keeps what was made.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlrsync_protocol::block::{BlockBuilder, Effort};
use sqlrsync_protocol::exchange::{Committed, End, Form, Ground, OriginPages, ReplicaPages, Since, Wanted};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};
use sqlrsync_repository::{PushOptions, Replica, ReplicaId, Repository, SweepOptions};

/// Whether pages are all but zeros.
static SPARSE: AtomicBool = AtomicBool::new(false);

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(pages)) = (args.next(), args.next().and_then(|pages| pages.parse().ok())) else {
        eprintln!("usage: measure FOLDER PAGES [sparse]");
        std::process::exit(2);
    };
    let sparse = args.next().is_some_and(|arg| arg == "sparse");
    SPARSE.store(sparse, Ordering::Relaxed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let open = || Repository::local(folder.as_ref(), runtime.handle().clone()).unwrap();
    let id = ReplicaId::random().unwrap();
    let replica = open().replica(&id);
    push("first push", &replica, pages, &mut (1..=pages), 3);
    pull("pull of everything, as it came", &open().replica(&id), None);
    push("one page", &replica, pages, &mut std::iter::once(pages / 2), 3);
    push("one page, nothing cached", &open().replica(&id), pages, &mut std::iter::once(pages / 3), 3);
    let every = |n: u32| (1..pages).filter(move |page| page.wrapping_mul(2_654_435_761) % 100 == n);
    push("1 % of the pages", &replica, pages, &mut every(7), 3);
    for n in 0..96 {
        let page = (n * 7919) % pages + 1;
        push(
            if n == 95 { "one page, the 100th version" } else { "" },
            &replica,
            pages,
            &mut std::iter::once(page),
            3,
        );
    }
    if sparse {
        return;
    }
    hashes("20-byte hashes, the first time", &open().replica(&id), pages);
    hashes("20-byte hashes, from then on", &open().replica(&id), pages);
    push("one page by version 2", &open().replica(&id), pages, &mut std::iter::once(pages / 4), 2);
    hashes("20-byte hashes after that", &open().replica(&id), pages);
    pull("pull of everything", &open().replica(&id), None);
    pull("pull of one page", &open().replica(&id), Some(1));
    pull("pull of 1 % and 97 pages", &open().replica(&id), Some(98));
    let start = Instant::now();
    let report = open().check(&mut |_| {}).unwrap();
    say(
        "check",
        start.elapsed(),
        &format!("{} versions proved, {:?}", report.versions_proved, report.problems),
    );
    let start = Instant::now();
    let report = open().sweep(SweepOptions { grace: jiff::SignedDuration::ZERO }).unwrap();
    say("sweep", start.elapsed(), &format!("{} objects removed", report.objects_removed));
}

fn say(what: &str, took: Duration, more: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("").trim().to_owned();
    if !what.is_empty() {
        println!("{what:34} {:>9.1} ms  peak {peak:>10}  {more}", took.as_secs_f64() * 1e3);
    }
    // The next figure is of its own peak.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn fill(page: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    if SPARSE.load(Ordering::Relaxed) {
        page.fill(0);
        page[200..208].copy_from_slice(&state.to_be_bytes());
        return;
    }
    for half in page.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        half[..4].copy_from_slice(&(state as u32).to_be_bytes());
    }
    page[..100].fill(0);
}

fn push(
    what: &str,
    replica: &Replica,
    count: u32,
    numbers: &mut dyn Iterator<Item = u32>,
    version: u8,
) -> Committed {
    let size = PageSize::from_log2(12).unwrap();
    let options = PushOptions {
        database_bytes_max: u64::MAX,
        stage_scope: Some("measure".into()),
        stage_bytes_max: u64::MAX,
        ..PushOptions::default()
    };
    let salt = u64::from(std::process::id()) << 40 ^ Instant::now().elapsed().as_nanos() as u64;
    let (mut took, mut bytes, mut page) = (Duration::ZERO, 0, vec![0; size.bytes()]);
    let mut timed = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        took += start.elapsed();
    };
    let mut push = replica.push(options).unwrap();
    timed(&mut || {
        let geometry = Geometry { page_size: size, page_count: PageCount(count) };
        let held = push.begin(geometry, version).unwrap();
        push.staged().unwrap();
        let ground = match (held.base, version) {
            (None, _) => Ground::Nothing { recognised: false },
            (_, 3) => Ground::Held,
            _ => Ground::Compared,
        };
        push.accept(ground, None).unwrap();
    });
    let mut builder = BlockBuilder::new(size);
    let mut seed = 0;
    let mut numbers = numbers.filter(|n| *n != size.lock_page().get());
    let mut number = numbers.next();
    while let Some(n) = number {
        seed += 1;
        fill(&mut page, salt ^ u64::from(n) << 8 ^ seed << 30);
        number = numbers.next();
        if version < 3 {
            timed(&mut || push.take_page(PageNumber::new(n).unwrap(), &page).unwrap());
            continue;
        }
        builder.push(PageNumber::new(n).unwrap(), &page);
        if builder.is_full() || number.is_none() {
            let block = builder.finish(Effort::Fast).unwrap();
            bytes += block.as_bytes().len();
            timed(&mut || push.take_block(block.clone()).unwrap());
        }
    }
    let mut committed = None;
    timed(&mut || committed = Some(push.finish(End::PageCount(PageCount(count))).unwrap()));
    let stored = replica.latest().unwrap().unwrap().bytes_stored;
    say(what, took, &format!("{bytes} bytes of blocks, {stored} stored"));
    committed.unwrap()
}

fn hashes(what: &str, replica: &Replica, count: u32) {
    let start = Instant::now();
    let latest = replica.latest().unwrap().unwrap();
    let mut push =
        replica.push(PushOptions { database_bytes_max: u64::MAX, ..PushOptions::default() }).unwrap();
    push.begin(latest.geometry, 2).unwrap();
    push.group_hash(PageNumber::FIRST, 1).unwrap();
    for first in (2..=count).step_by(1000) {
        push.group_hash(PageNumber::new(first).unwrap(), 1000).unwrap();
    }
    say(what, start.elapsed(), "");
}

/// Pulls the latest version, or what it has that the one `back` before it does not.
fn pull(what: &str, replica: &Replica, back: Option<u64>) {
    let start = Instant::now();
    let latest = replica.latest().unwrap().unwrap();
    let since = match back {
        None => Since::Nothing,
        Some(back) => {
            let base = replica.manifest(latest.number.back(back).unwrap()).unwrap().unwrap();
            Since::Base(base.as_base())
        }
    };
    let mut origin = replica.origin(&latest).unwrap();
    origin.begin(Wanted { since, staged: Vec::new(), form: Form::Blocks }).unwrap();
    let (mut pages, mut bytes) = (0, 0);
    while let Some(block) = origin.next_block().unwrap() {
        pages += block.page_count();
        bytes += block.as_bytes().len();
    }
    say(what, start.elapsed(), &format!("{pages} pages, {bytes} bytes"));
}
