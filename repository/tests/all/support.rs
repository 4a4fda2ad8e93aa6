//! What the tests share: a database as a list of pages, pushing and pulling it as a conversation would,
//! and a store that counts, fails and stops.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use sqlrsync_protocol::block::{BlockBuilder, Effort};
use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::exchange::{
    Base, Committed, End, Form, Ground, OriginPages, Proof, PushId, ReplicaPages, Since, Wanted,
};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize, VersionNumber};
use sqlrsync_protocol::tree::MemoryTree;
use sqlrsync_repository::{Error, Manifest, PushOptions, PushReplica, Replica, ReplicaId, Repository};

/// One runtime for all tests.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

pub fn runtime() -> tokio::runtime::Handle {
    RUNTIME.handle().clone()
}

pub fn memory() -> Repository {
    Repository::memory(runtime())
}

pub fn id() -> ReplicaId {
    ReplicaId::from_bytes(*b"a replica's id..")
}

pub fn number(n: u64) -> VersionNumber {
    VersionNumber::new(n).unwrap()
}

pub fn page(n: u32) -> PageNumber {
    PageNumber::new(n).unwrap()
}

pub fn options() -> PushOptions {
    PushOptions {
        author: "test".into(),
        stage_scope: Some("key".into()),
        database_bytes_max: 1 << 40,
        stage_bytes_max: 1 << 30,
        ..PushOptions::default()
    }
}

/// A database: its pages as they are in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    pub size: PageSize,
    /// Clones, and pages that are the same throughout, share their memory.
    pub pages: Vec<Page>,
}

pub type Page = Arc<Vec<u8>>;

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database of {} pages of {} bytes", self.pages.len(), self.size)
    }
}

/// A page that compresses to about half.
pub fn content(size: PageSize, seed: u64) -> Page {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = Vec::with_capacity(size.bytes());
    while page.len() < size.bytes() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page.extend((state as u32).to_be_bytes());
        page.extend([0; 4]);
    }
    Arc::new(page)
}

impl Database {
    pub fn new(size: PageSize, pages: u32, seed: u64) -> Database {
        let pages = (1..=pages).map(|n| content(size, seed << 32 | u64::from(n))).collect();
        Database { size, pages }
    }

    pub fn geometry(&self) -> Geometry {
        Geometry { page_size: self.size, page_count: PageCount(self.pages.len() as u32) }
    }

    pub fn set(&mut self, n: u32, seed: u64) {
        self.pages[n as usize - 1] = content(self.size, seed);
    }

    pub fn canonical(&self, n: u32) -> Page {
        let mut bytes = self.pages[n as usize - 1].clone();
        if n == 1 {
            make_canonical(Arc::make_mut(&mut bytes).as_mut_slice());
        }
        bytes
    }

    pub fn fields(&self) -> HeaderFields {
        self.pages.first().map(|page| HeaderFields::of(page)).unwrap_or_default()
    }

    pub fn root(&self) -> Root {
        let mut known: HashMap<*const Vec<u8>, PageHash> = HashMap::new();
        let hash = |n: u32| match n {
            1 => PageHash::of(&self.canonical(1)),
            n => {
                let page = &self.pages[n as usize - 1];
                *known.entry(Arc::as_ptr(page)).or_insert_with(|| PageHash::of(page))
            }
        };
        let hashes: Vec<PageHash> = (1..=self.pages.len() as u32).map(hash).collect();
        MemoryTree::new(self.geometry(), &hashes).unwrap().root()
    }

    pub fn proof(&self) -> Proof {
        Proof { page_count: self.geometry().page_count, root: self.root(), fields: self.fields() }
    }

    /// The pages that `old` does not have, or has otherwise.
    pub fn changed_since(&self, old: &Database) -> Vec<u32> {
        let same = |n: &u32| {
            let place = *n as usize - 1;
            self.size == old.size
                && old.pages.get(place).is_some_and(|page| {
                    Arc::ptr_eq(page, &self.pages[place]) || self.canonical(*n) == old.canonical(*n)
                })
        };
        (1..=self.pages.len() as u32).filter(|n| !same(n)).collect()
    }
}

/// What to push.
#[derive(Clone)]
pub struct Push<'d> {
    pub database: &'d Database,
    pub base: Option<(&'d Database, Option<VersionNumber>)>,
    pub push_id: Option<PushId>,
    pub options: PushOptions,
}

impl<'d> Push<'d> {
    pub fn of(database: &'d Database) -> Self {
        Push { database, base: None, push_id: None, options: options() }
    }

    pub fn on(mut self, base: &'d Database, version: u64) -> Self {
        self.base = Some((base, VersionNumber::new(version)));
        self
    }

    pub fn id(mut self, id: u8) -> Self {
        self.push_id = Some(PushId([id; 16]));
        self
    }

    /// Opens the push and goes as far as the first block.
    pub fn open(&self, replica: &Replica) -> std::result::Result<PushReplica, Error> {
        let mut push = replica.push(self.options.clone())?;
        let held = push.begin(self.database.geometry(), 3)?;
        push.staged()?;
        let ground = match self.base {
            None => Ground::Nothing { recognised: false },
            Some((base, version)) => {
                let named = Base { version, root: base.root() };
                if held.base == Some(named) { Ground::Held } else { Ground::Proposed(named) }
            }
        };
        assert!(push.accept(ground, self.push_id)?, "the base is not accepted");
        Ok(push)
    }

    pub fn numbers(&self) -> Vec<u32> {
        let lock = self.database.size.lock_page().get();
        let mut numbers = match self.base {
            Some((base, _)) => self.database.changed_since(base),
            None => (1..=self.database.pages.len() as u32).collect(),
        };
        numbers.retain(|n| *n != lock);
        numbers
    }

    pub fn run(&self, replica: &Replica) -> std::result::Result<Committed, Error> {
        let mut push = self.open(replica)?;
        send(&mut push, self.database, &self.numbers())?;
        push.finish(End::Proof(self.database.proof()))
    }
}

/// Sends pages in blocks.
pub fn send(push: &mut PushReplica, database: &Database, numbers: &[u32]) -> std::result::Result<(), Error> {
    let mut builder = BlockBuilder::new(database.size);
    for &n in numbers {
        if builder.is_full() {
            push.take_block(builder.finish(Effort::Fast).unwrap())?;
        }
        builder.push(page(n), &database.canonical(n));
    }
    match builder.finish(Effort::Fast) {
        Some(block) => push.take_block(block),
        None => Ok(()),
    }
}

/// Reads all of a version, in both forms, and shows that they are the same.
pub fn pull(replica: &Replica, version: &Manifest) -> std::result::Result<Database, Error> {
    let size = version.geometry.page_size;
    let count = version.geometry.page_count.get() as usize;
    let zeros = Arc::new(vec![0; size.bytes()]);
    let mut database = Database { size, pages: vec![zeros; count] };
    let blocks = pull_blocks(replica, version, Since::Nothing)?;
    for (n, page) in blocks {
        database.pages[n as usize - 1] = Arc::new(page);
    }
    if let Some(first) = database.pages.first_mut() {
        version.fields.put(Arc::make_mut(first).as_mut_slice());
    }
    let mut origin = replica.origin(version)?;
    origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Pages })?;
    let mut page = vec![0; size.bytes()];
    let mut single = 0;
    while let Some(n) = origin.next_page(&mut page)? {
        assert!(page == *database.pages[n.index() as usize], "page {n}");
        single += 1;
    }
    let lock = usize::from(version.geometry.page_count.contains(size.lock_page()));
    assert_eq!(single + lock, count);
    Ok(database)
}

/// The pages that a pull gives, in order.
pub fn pull_blocks(
    replica: &Replica,
    version: &Manifest,
    since: Since,
) -> std::result::Result<Vec<(u32, Vec<u8>)>, Error> {
    let mut origin = replica.origin(version)?;
    origin.begin(Wanted { since, staged: Vec::new(), form: Form::Blocks })?;
    let mut pages = Vec::new();
    let mut raw = Vec::new();
    while let Some(block) = origin.next_block()? {
        block.decode(&mut raw).unwrap();
        for (n, page) in block.pages().zip(raw.chunks_exact(block.page_size().bytes())) {
            assert!(pages.last().is_none_or(|(last, _)| *last < n.get()), "page {n} is out of order");
            pages.push((n.get(), page.to_vec()));
        }
    }
    assert_eq!(origin.proof()?.root, version.root);
    Ok(pages)
}

/// Shows that a version is this database.
pub fn assert_holds(replica: &Replica, version: u64, database: &Database) {
    let manifest = replica.manifest(number(version)).unwrap().expect("the version is there");
    assert_eq!(manifest.root, database.root());
    assert!(pull(replica, &manifest).unwrap() == *database, "version {version} is another database");
}

/// Shows that nothing in a repository is broken.
pub fn assert_sound(repository: &Repository) {
    let report = repository.check(&mut |_| {}).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.versions_proved, report.versions);
}

/// A store that counts what is asked of it, and that can stop: as for a process that was killed, no
/// later call does anything then.
#[derive(Debug)]
pub struct Watched {
    inner: Arc<dyn ObjectStore>,
    pub counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub struct Counts {
    /// Reads of segments, and the bytes of these.
    pub segment_reads: AtomicU64,
    pub segment_bytes: AtomicU64,
    pub reads: AtomicU64,
    pub listings: AtomicU64,
    pub writes: AtomicU64,
    /// The write that stops the store, counted from 1; 0 for none.
    pub stop_at: AtomicU64,
    /// Whether the write that stops the store is carried out.
    pub last_is_done: AtomicBool,
    pub stopped: AtomicBool,
}

impl Watched {
    pub fn new(inner: Arc<dyn ObjectStore>) -> (Arc<Watched>, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Arc::new(Watched { inner, counts: counts.clone() }), counts)
    }
}

fn gone() -> object_store::Error {
    object_store::Error::Generic { store: "watched", source: "the process was killed".into() }
}

impl Counts {
    /// Whether a write is carried out, and whether its answer arrives.
    fn write(&self) -> (bool, bool) {
        if self.stopped.load(Ordering::SeqCst) {
            return (false, false);
        }
        let at = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if at == self.stop_at.load(Ordering::SeqCst) {
            self.stopped.store(true, Ordering::SeqCst);
            return (self.last_is_done.load(Ordering::SeqCst), false);
        }
        (true, true)
    }

    fn read(&self) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst) { Err(gone()) } else { Ok(()) }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watched {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (done, answered) = self.counts.write();
        if !done {
            return Err(gone());
        }
        let outcome = self.inner.put_opts(location, payload, opts).await;
        if answered { outcome } else { Err(gone()) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !self.counts.write().0 {
            return Err(gone());
        }
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(WatchedUpload { inner: Some(inner), counts: self.counts.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.counts.read()?;
        let head = options.head;
        let found = self.inner.get_opts(location, options).await?;
        if location.as_ref().contains("/segments/") && !head {
            self.counts.segment_reads.fetch_add(1, Ordering::SeqCst);
            self.counts.segment_bytes.fetch_add(found.range.end - found.range.start, Ordering::SeqCst);
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.counts.read()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.counts.write().0 {
            self.inner.delete_stream(locations)
        } else {
            Box::pin(futures_util::stream::once(async { Err(gone()) }))
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counts.read()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct WatchedUpload {
    inner: Option<Box<dyn MultipartUpload>>,
    counts: Arc<Counts>,
}

#[async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match (self.counts.write().0, &mut self.inner) {
            (true, Some(inner)) => inner.put_part(data),
            _ => Box::pin(async { Err(gone()) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (done, answered) = self.counts.write();
        let outcome = match (done, &mut self.inner) {
            (true, Some(inner)) => inner.complete().await,
            _ => Err(gone()),
        };
        if answered { outcome } else { Err(gone()) }
    }

    async fn abort(&mut self) -> Result<()> {
        match (self.counts.write().0, &mut self.inner) {
            (true, Some(inner)) => inner.abort().await,
            _ => Err(gone()),
        }
    }
}

impl Drop for WatchedUpload {
    fn drop(&mut self) {
        // A killed process does not tidy up.
        if self.counts.stopped.load(Ordering::SeqCst) {
            std::mem::forget(self.inner.take());
        }
    }
}
