//! What this machine can do at best, one thread each, on the bytes of the benchmark's own database.

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sqlrsync_protocol::block::{Block, BlockBuilder, Effort};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{PageNumber, PageSize};

/// How much of the database is tried; more changes nothing.
const SAMPLE_LEN: u64 = 200_000_000;
/// Read at once, so that this process stays small.
const CHUNK_LEN: usize = 1 << 20;
const PAGE_LEN: usize = 4096;
/// Pages hashed together in a scan for what changed.
const GROUP_LEN: usize = 16 * PAGE_LEN;

/// Rates in bytes a second.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `read` from the page cache.
    pub read: f64,
    /// BLAKE3 of pages, each of them, sixteen side by side.
    pub hash: f64,
    /// BLAKE3 of 16 pages at once.
    pub hash_groups: f64,
    /// Blocks, as they travel and are stored.
    pub compress: f64,
    /// The same, back.
    pub decompress: f64,
    /// One TCP connection over loopback.
    pub send: f64,
    /// Written to a new file and synced.
    pub write: f64,
    /// Bytes of a block for each byte of pages.
    pub ratio: f64,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Limits of this machine, one thread, GB/s:")?;
        let mut line = |name: &str, rate: f64| writeln!(f, "  {name:<34} {:>6.2}", rate / 1e9);
        line("read (page cache)", self.read)?;
        line("hash each page", self.hash)?;
        line("hash groups of 16 pages", self.hash_groups)?;
        line("compress blocks", self.compress)?;
        line("decompress blocks", self.decompress)?;
        line("send over loopback", self.send)?;
        line("write a new file and sync it", self.write)?;
        writeln!(f, "  a block's bytes for a page's byte  {:>6.2}\n", self.ratio)
    }
}

/// Measures them on the first bytes of `database`; `folder` is where a file may be written.
pub fn measure(database: &Path, folder: &Path) -> Limits {
    // The first pass brings the sample into the page cache.
    let sample_len = each_chunk(database, |_| ());
    let read = rate(|| each_chunk(database, |chunk| _ = black_box(chunk)));
    let hash = stage(database, read, |chunk| {
        _ = black_box(PageHash::of_each(chunk, page_size()));
    });
    let hash_groups = stage(database, read, |chunk| {
        chunk.chunks_exact(GROUP_LEN).for_each(|group| _ = black_box(PageHash::of(group)));
    });
    let mut encoded = 0;
    let compress = stage(database, read, |chunk| encoded += blocks(chunk, |_| ()));
    let both = stage(database, read, |chunk| {
        let mut pages = Vec::new();
        blocks(chunk, |block| _ = black_box(block.decode(&mut pages)));
    });
    Limits {
        read,
        hash,
        hash_groups,
        compress,
        decompress: 1.0 / (1.0 / both - 1.0 / compress).max(1e-12),
        send: send(),
        write: write(database, folder),
        ratio: encoded as f64 / sample_len as f64,
    }
}

/// Calls `work` with the sample, a chunk at a time; returns its length.
fn each_chunk(database: &Path, mut work: impl FnMut(&[u8])) -> u64 {
    let mut file = File::open(database).expect("the database can be read").take(SAMPLE_LEN);
    let mut chunk = vec![0; CHUNK_LEN];
    let mut len = 0;
    loop {
        match file.read(&mut chunk).expect("the database can be read") {
            0 => return len,
            n => {
                work(&chunk[..n]);
                len += n as u64;
            }
        }
    }
}

/// The rate of some work on the sample, the time of reading it taken off.
fn stage(database: &Path, read: f64, mut work: impl FnMut(&[u8])) -> f64 {
    let all = rate(|| each_chunk(database, &mut work));
    1.0 / (1.0 / all - 1.0 / read).max(1e-12)
}

fn rate(work: impl FnOnce() -> u64) -> f64 {
    let begin = Instant::now();
    let bytes = work();
    bytes as f64 / begin.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

fn page_size() -> PageSize {
    PageSize::from_bytes(PAGE_LEN as u32).expect("a page size")
}

/// Calls `then` with the blocks of a chunk; returns their length.
fn blocks(chunk: &[u8], mut then: impl FnMut(&Block)) -> u64 {
    let size = page_size();
    let mut builder = BlockBuilder::new(size);
    let mut encoded = 0;
    let mut pages = chunk.chunks_exact(PAGE_LEN).zip(0..).peekable();
    while let Some((page, index)) = pages.next() {
        builder.push(PageNumber::from_index(index).expect("a page number"), page);
        if builder.is_full() || pages.peek().is_none() {
            let block = builder.finish(Effort::Fast).expect("it has pages");
            encoded += block.as_bytes().len() as u64;
            then(&block);
        }
    }
    encoded
}

fn send() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("it has an address");
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut chunk = vec![0; CHUNK_LEN];
        while stream.read(&mut chunk).is_ok_and(|n| n > 0) {}
    });
    rate(|| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        let chunk = vec![1; 256 * 1024];
        let count = 4 * SAMPLE_LEN / chunk.len() as u64;
        (0..count).for_each(|_| stream.write_all(&chunk).expect("sent"));
        drop(stream);
        reader.join().expect("all is read");
        count * chunk.len() as u64
    })
}

fn write(database: &Path, folder: &Path) -> f64 {
    let path = folder.join("limits.tmp");
    let rate = rate(|| {
        let mut file = File::create(&path).expect("a file can be made");
        let bytes = each_chunk(database, |chunk| file.write_all(chunk).expect("written"));
        file.sync_all().expect("synced");
        bytes
    });
    let _ = std::fs::remove_file(path);
    rate
}
