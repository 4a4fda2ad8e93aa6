//! How fast a live file is read, hashed, compressed and taken in, on this machine:
//!
//! ```text
//! cargo run --release -p sqlrsync-database --example measure_file -- FOLDER [MEGABYTES]
//! ```
//!
//! It makes a database of rows like an application's in FOLDER (and keeps it for the next time), and
//! prints what each step takes with the file in the page cache.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use rustix::time::{ClockId, clock_gettime};
use sqlrsync_database::{Agreed, Error, FileReplica, FileReplicaOptions, LiveOrigin, LiveOriginOptions};
use sqlrsync_protocol::block::{Block, BlockBuilder, Effort};
use sqlrsync_protocol::exchange::{Base, End, Form, Ground, OriginPages, ReplicaPages, Since, Wanted};
use sqlrsync_protocol::page::{PageNumber, PageSize};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: measure FOLDER [MEGABYTES]")?);
    let megabytes: u64 = args.next().map_or(Ok(1024), |text| text.parse())?;
    let path = folder.join(format!("measure-{megabytes}.db"));
    if !path.exists() {
        make(&path, megabytes)?;
    }
    let bytes = std::fs::metadata(&path)?.len();
    println!("{} MB in {}", bytes >> 20, path.display());
    exchanges(&folder, &path, bytes)?;
    // Before anything is mapped: what is mapped counts as memory too.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("peak memory unknown"));
    codecs(&path)?;
    raw_reads(&path, bytes)
}

/// A table of events with text, real and blob columns and two indexes.
fn make(path: &Path, megabytes: u64) -> Result<(), Failure> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE events (id INTEGER PRIMARY KEY, at REAL, kind TEXT, subject TEXT, body TEXT, data BLOB);
         CREATE INDEX events_at ON events (at);
         CREATE INDEX events_subject ON events (subject);
         BEGIN",
    )?;
    let words =
        ["order", "invoice", "login", "shipment", "refund", "customer", "created", "updated", "failed"];
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let sql = "INSERT INTO events (at, kind, subject, body, data) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = connection.prepare(sql)?;
    let mut row = 0u64;
    while !row.is_multiple_of(10_000) || std::fs::metadata(path)?.len() < megabytes << 20 {
        let body: Vec<&str> = (0..20 + random() % 20).map(|_| words[random() % words.len()]).collect();
        let data: Vec<u8> = (0..64 + random() % 64).map(|_| random() as u8).collect();
        let subject = format!("{}-{:08}", words[random() % words.len()], random() % 100_000_000);
        let at = 1.7e9 + row as f64 * 0.37;
        insert.execute(params![at, words[random() % words.len()], subject, body.join(" "), data])?;
        row += 1;
    }
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// A moment, by the wall clock and by the processor time of all threads: on a busy machine the second
/// says more.
struct Moment(Instant, Duration);

impl Moment {
    fn now() -> Moment {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Moment(Instant::now(), Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32))
    }

    fn show(&self, what: &str, bytes: u64) {
        let now = Moment::now();
        let (wall, cpu) = ((now.0 - self.0).as_secs_f64(), (now.1 - self.1).as_secs_f64());
        let rate = bytes as f64 / 1e9 / cpu;
        println!("{what:<50} {wall:>7.3} s, processor {cpu:>7.3} s, {rate:>7.2} GB/s of it");
    }
}

fn raw_reads(path: &Path, bytes: u64) -> Result<(), Failure> {
    for mmap in [0, 1u64 << 40] {
        let connection = Connection::open(path)?;
        connection.query_row(&format!("PRAGMA mmap_size = {mmap}"), [], |_| Ok(()))?;
        for _ in 0..2 {
            let start = Moment::now();
            let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage")?;
            let mut rows = statement.query([])?;
            let mut copy = Vec::with_capacity(256 * 1024);
            while let Some(row) = rows.next()? {
                copy.extend_from_slice(row.get_ref(0)?.as_blob()?);
                if copy.len() >= 256 * 1024 {
                    copy.clear();
                }
            }
            start.show(if mmap == 0 { "read all pages" } else { "read all pages, mmap" }, bytes);
        }
        let start = Moment::now();
        let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        for number in 1..=(bytes / 4096) as u32 {
            statement.query_row([number], |row| Ok(row.get_ref(0)?.as_blob()?.len()))?;
        }
        start.show("read all pages one by one", bytes);
    }
    Ok(())
}

/// One thread, over 64 MB from the middle of the file.
fn codecs(path: &Path) -> Result<(), Failure> {
    let connection = Connection::open(path)?;
    let count: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let first = count / 2;
    let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    let pages = (first..count.min(first + 16_384))
        .map(|number| statement.query_row([number], |row| row.get::<_, Vec<u8>>(0)))
        .collect::<Result<Vec<_>, _>>()?;
    let page_size = PageSize::from_bytes(pages[0].len() as u32).ok_or("page size")?;
    let bytes = pages.len() as u64 * page_size.bytes() as u64;
    for effort in [Effort::None, Effort::Fast, Effort::Small] {
        let start = Moment::now();
        let mut builder = BlockBuilder::new(page_size);
        let mut blocks: Vec<Block> = Vec::new();
        for (page, number) in pages.iter().zip(first..) {
            if builder.is_full() {
                blocks.extend(builder.finish(effort));
            }
            builder.push(PageNumber::new(number).ok_or("page number")?, page);
        }
        blocks.extend(builder.finish(effort));
        let encoded: usize = blocks.iter().map(|block| block.as_bytes().len()).sum();
        start.show(&format!("{effort:?}: compress, ratio {:.2}", bytes as f64 / encoded as f64), bytes);
        let start = Moment::now();
        let mut out = Vec::new();
        for block in &blocks {
            block.decode(&mut out)?;
        }
        start.show(&format!("{effort:?}: decompress"), bytes);
    }
    Ok(())
}

fn exchanges(folder: &Path, path: &Path, bytes: u64) -> Result<(), Failure> {
    let (from, to) = (folder.join("measure-from.hashes"), folder.join("measure-to.hashes"));
    let _ = std::fs::remove_file(&from);
    let known = send("first push, blocks thrown away", folder, path, &from, None, bytes, |_| Ok(()))?;

    let target = folder.join("measure-copy.db");
    let _ = std::fs::remove_file(&target);
    let options = FileReplicaOptions { hashes: Some(to.clone()), ..FileReplicaOptions::default() };
    let mut replica = FileReplica::open(&target, options)?;
    replica.begin(known.geometry, 3)?;
    replica.accept(Ground::Nothing { recognised: false }, None)?;
    let start = Moment::now();
    let mut origin = open(folder, path, &from, Some(&known))?;
    origin.begin(wanted(Since::Nothing))?;
    while let Some(block) = origin.next_block()? {
        replica.take_block(block)?;
    }
    let proof = origin.proof()?;
    replica.finish(End::Proof(proof))?;
    start.show("first push into a new file, same process", bytes);
    std::fs::remove_file(&target)?;

    let connection = Connection::open(path)?;
    connection.execute("UPDATE events SET at = at + 1 WHERE id = 4711", [])?;
    drop(connection);
    let known = send("push of one row", folder, path, &from, Some(&known), bytes, |_| Ok(()))?;
    let known = send("push of nothing", folder, path, &from, Some(&known), bytes, |_| Ok(()))?;
    let connection = Connection::open(path)?;
    connection.execute("UPDATE events SET at = at + 0.01 WHERE id % 100 = 7", [])?;
    drop(connection);
    let known = send("push of 1 % of the rows", folder, path, &from, Some(&known), bytes, |_| Ok(()))?;
    by_wal(folder, path, &from, known, bytes)
}

/// Pushes of an application's database that is open in WAL mode, told by the WAL what changed.
fn by_wal(folder: &Path, path: &Path, hashes: &Path, mut known: Agreed, bytes: u64) -> Result<(), Failure> {
    let application = Connection::open(path)?;
    application.execute_batch("PRAGMA journal_mode = WAL; UPDATE events SET at = at + 1 WHERE id = 1")?;
    known =
        send("push after the journal mode changed", folder, path, hashes, Some(&known), bytes, |_| Ok(()))?;
    for id in 1..=5 {
        application.execute("UPDATE events SET at = at + 1 WHERE id = ?1 * 4711", [id])?;
        std::thread::sleep(Duration::from_millis(50));
        let read = bytes_read();
        known = send("push of one row by the WAL", folder, path, hashes, Some(&known), 0, |_| Ok(()))?;
        println!("  {} bytes read", bytes_read() - read);
    }
    application.execute_batch("PRAGMA journal_mode = DELETE")?;
    Ok(())
}

/// What this process has asked the system to read so far.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|line| line.parse().ok()).unwrap_or_default()
}

fn open(folder: &Path, path: &Path, hashes: &Path, known: Option<&Agreed>) -> Result<LiveOrigin, Error> {
    let options = LiveOriginOptions {
        hashes: Some(hashes.to_path_buf()),
        known: known.cloned(),
        base: known.map(|known| Base { version: None, root: known.root }),
        push_id: None,
        scan: false,
        temp_dir: folder.to_path_buf(),
    };
    LiveOrigin::open(path, options)
}

fn wanted(since: Since) -> Wanted {
    Wanted { since, staged: Vec::new(), form: Form::Blocks }
}

fn send(
    what: &str,
    folder: &Path,
    path: &Path,
    hashes: &Path,
    known: Option<&Agreed>,
    bytes: u64,
    mut take: impl FnMut(Block) -> Result<(), Error>,
) -> Result<Agreed, Failure> {
    let start = Moment::now();
    let mut origin = open(folder, path, hashes, known)?;
    origin.geometry()?;
    let since = origin.base()?.map_or(Since::Nothing, Since::Base);
    origin.begin(wanted(since))?;
    let (mut pages, mut sent) = (0, 0);
    while let Some(block) = origin.next_block()? {
        pages += block.page_count();
        sent += block.as_bytes().len();
        take(block)?;
    }
    origin.proof()?;
    start.show(&format!("{what}: {pages} pages, {sent} bytes"), bytes);
    let start = Moment::now();
    let agreed = origin.agreed()?;
    start.show("  and keeping the hashes", bytes);
    Ok(agreed)
}
