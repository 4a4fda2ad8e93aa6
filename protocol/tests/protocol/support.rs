//! What several tests need: recordings, a wire that plays a script, databases from a seed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, Quiet, ReplicaOptions, Summary, Wire, run_origin, run_replica,
};
use sqlrsync_protocol::exchange::{Fault as _, OriginPages};
use sqlrsync_protocol::memory::{
    Content, MemoryError, MemoryOrigin, MemoryReplica, MemoryWire, WireCut, wires,
};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};

/// A wire whose other end is a recording: it gives these pieces, then is closed, and keeps what is sent.
#[derive(Default)]
pub struct Script {
    pub input: VecDeque<Bytes>,
    pub sent: Vec<u8>,
}

impl Script {
    pub fn of(bytes: &[u8], mut cut: impl FnMut(usize) -> usize) -> Script {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut input = VecDeque::new();
        while !rest.is_empty() {
            let len = cut(rest.len()).clamp(1, rest.len());
            input.push_back(rest.split_to(len));
        }
        Script { input, sent: Vec::new() }
    }
}

impl Wire for Script {
    type Error = Infallible;

    fn send(&mut self, bytes: Bytes) -> Result<(), Infallible> {
        self.sent.extend_from_slice(&bytes);
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Infallible> {
        Ok(self.input.pop_front())
    }
}

/// Numbers from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// A recorded session of sqlite3_rsync.
pub struct Case {
    pub name: String,
    pub protocol: u8,
    pub origin: Content,
    pub replica_before: Option<Content>,
    pub replica_after: Content,
    pub origin_bytes: Vec<u8>,
    pub replica_bytes: Vec<u8>,
}

fn recordings() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/recordings/vectors")
}

fn unzip(path: PathBuf) -> Option<Vec<u8>> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

fn database(bytes: &[u8]) -> Content {
    let size = u16::from_be_bytes([bytes[16], bytes[17]]);
    let size = if size == 1 { 65_536 } else { size.into() };
    Content::from_file(PageSize::from_bytes(size).unwrap(), bytes)
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        std::fs::read_dir(recordings()).unwrap().map(|entry| case(&entry.unwrap())).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(cases.len(), 10);
    cases
}

fn case(entry: &std::fs::DirEntry) -> Case {
    let file = |name: &str| unzip(entry.path().join(name));
    let json = std::fs::read_to_string(entry.path().join("case.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    Case {
        name: entry.file_name().into_string().unwrap(),
        protocol: json["protocol"].as_u64().unwrap() as u8,
        origin: database(&file("origin.db.gz").unwrap()),
        replica_before: file("replica-before.db.gz").as_deref().map(database),
        replica_after: database(&file("replica-after.db.gz").unwrap()),
        origin_bytes: file("origin-to-replica.bin.gz").unwrap(),
        replica_bytes: file("replica-to-origin.bin.gz").unwrap(),
    }
}

/// A database of random pages, some of them zeros.
pub fn random_content(page_size: PageSize, pages: u32, random: &mut Random) -> Content {
    let geometry = Geometry { page_size, page_count: PageCount(pages) };
    let mut content = Content::zeros(geometry);
    for number in content.numbers() {
        if random.below(8) > 0 || number == PageNumber::FIRST {
            content.set(number, &random_page(page_size, random));
        }
    }
    content
}

pub fn random_page(page_size: PageSize, random: &mut Random) -> Vec<u8> {
    let byte = random.below(256) as u8;
    (0..page_size.bytes()).map(|i| if i % 16 == 0 { random.below(256) as u8 } else { byte }).collect()
}

/// A later state of a database: another number of pages, and some changed.
pub fn changed(content: &Content, pages: u32, changes: usize, random: &mut Random) -> Content {
    let old = content.geometry();
    let mut new = content.clone();
    new.resize(PageCount(pages));
    for number in new.numbers().skip(old.page_count.get() as usize) {
        new.set(number, &random_page(old.page_size, random));
    }
    for _ in 0..changes {
        if let Some(number) = PageNumber::new(1 + random.below(pages as usize) as u32) {
            new.set(number, &random_page(old.page_size, random));
        }
    }
    new
}

pub type Outcome = Result<Summary, ExchangeError<MemoryError, WireCut>>;

/// Joins the two through a wire of pieces and room as given, each side on a thread of its own.
pub fn exchange_over(
    (origin_options, replica_options): (OriginOptions, ReplicaOptions),
    origin: &mut impl OriginPages<Error = MemoryError>,
    replica: &mut MemoryReplica,
    (near, mut far): (MemoryWire, MemoryWire),
) -> (Outcome, Outcome) {
    std::thread::scope(move |scope| {
        // Each end goes with its side, also where that panics: the other one waits for it.
        let mut near = near;
        let far = scope.spawn(move || {
            let outcome = run_replica(replica_options, replica, &mut far, &mut Quiet);
            drop(far);
            outcome
        });
        let near_outcome = run_origin(origin_options, origin, &mut near, &mut Quiet);
        drop(near);
        (near_outcome, far.join().unwrap())
    })
}

/// As [`exchange_over`], with the default options and wire.
pub fn exchange(
    origin: &mut impl OriginPages<Error = MemoryError>,
    replica: &mut MemoryReplica,
) -> (Outcome, Outcome) {
    exchange_over(Default::default(), origin, replica, wires(1000, 4))
}

/// The exchange succeeds and leaves the replica with the content; what it came to, for both sides.
pub fn copies(
    origin: &mut MemoryOrigin,
    replica: &mut MemoryReplica,
    content: &Content,
) -> (Summary, Summary) {
    let (near, far) = exchange(origin, replica);
    assert_eq!(replica.content().map(Content::root), Some(content.root()));
    (near.unwrap(), far.unwrap())
}

/// What an outcome says, for comparing.
pub fn told(outcome: &Outcome) -> String {
    match outcome {
        Ok(_) => "done".into(),
        Err(ExchangeError::Local(error)) => format!("local: {}", error.public_text()),
        Err(ExchangeError::Peer { refusal, text }) => format!("peer: {refusal:?} {text}"),
        Err(ExchangeError::Protocol(violation)) => format!("protocol: {violation}"),
        Err(ExchangeError::Wire(_)) => "wire".into(),
        Err(ExchangeError::Closed) => "closed".into(),
    }
}
