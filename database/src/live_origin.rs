//! A live file as the origin of an exchange.
//!
//! - No read transaction stays open while a peer is waited for. Hash rounds are answered from a scan;
//!   what is sent comes from a second snapshot, with all that changed in between, through a spool.
//! - What changed is asked of the WAL first; where that has no certain answer, every page is read.
//! - What was agreed on is recorded under a fingerprint of the very snapshot that was sent, so that a
//!   later write is found whenever it was made.
//! - A file that was put back from a backup (the same inode, an older content) is not made from what was last
//!   agreed on: taken for that, it would delete what others did since. No base is proposed for it, and where it was
//!   put back after the base was proposed, the push ends.
//! - What is pushed is durable here before the replica commits it: a file that lost it in a power cut would take it
//!   back from the replica.
//! - One process at a time uses a file of kept hashes; the caller sees to that.

mod exchange;

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use roaring::RoaringBitmap;
use sqlrsync_protocol::exchange::{Base, Form, PushId, Wanted};
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::Geometry;

use crate::agreed::{Agreed, Kept, keep};
use crate::delta::Delta;
use crate::error::{Error, io_error};
use crate::fingerprint::{Fingerprint, real_path};
use crate::image::{Compare, Job, Outcome, Select, run};
use crate::legacy::LegacyHashes;
use crate::page_hashes::{Content, PageHashes};
use crate::pages::Pages;
use crate::scan::{Scanned, scan};
use crate::sending::{Sending, Unpacked, finish_writer, to_send};
use crate::snapshot::Snapshot;
use crate::spool::{SPOOL_MEMORY_MAX, spool};
use crate::staged::find_reusable;
use crate::wal::{Changed, Known, changed_pages, frames_worth_reading};

/// So many pages are always read one by one; of more, only as many as are a quarter of the file. More take
/// as long as all of them in a row.
const PICKED_ALWAYS: u32 = 256;

/// What is known of the file from before, and where to keep what is found out.
#[derive(Clone, Debug)]
pub struct LiveOriginOptions {
    /// The file with this database's page hashes. Written in [`LiveOrigin::agreed`] only.
    pub hashes: Option<PathBuf>,
    /// What [`LiveOrigin::agreed`] said last time.
    pub known: Option<Agreed>,
    /// The base to propose to the replica. It is proposed only if the page hashes are its own.
    pub base: Option<Base>,
    /// The id to push under.
    pub push_id: Option<PushId>,
    /// Read the whole file, whatever the WAL and the fingerprint say.
    pub scan: bool,
    /// An existing folder for files without a name: hashes, and blocks that a slow network lets wait.
    pub temp_dir: PathBuf,
}

/// A live database file that has pages to give.
pub struct LiveOrigin {
    path: PathBuf,
    options: LiveOriginOptions,
    /// The hashes kept from the last time, where they are whole.
    kept: Option<PageHashes>,
    /// Outside of the database as the peer was told.
    geometry: Option<Geometry>,
    scanned: Option<Scanned>,
    legacy: Option<LegacyHashes>,
    sending: Option<Sending>,
    /// Whether every page was read.
    read_all: bool,
    /// Whether the file is made from something else than what the kept hashes are of, for certain.
    is_another: bool,
}

impl std::fmt::Debug for LiveOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveOrigin")
            .field("path", &self.path)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

/// Which tree the pages sent are a difference to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ground {
    Nothing,
    Kept,
    Scanned,
}

impl LiveOrigin {
    /// Prepares to send the database at `path`. Nothing is read yet but its `stat`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::NotAFile`], [`Error::Denied`] for the file; [`Error::Io`] where the
    /// kept hashes cannot be opened.
    pub fn open(path: &Path, options: LiveOriginOptions) -> Result<LiveOrigin, Error> {
        let path = real_path(path)?;
        let kept = match &options.hashes {
            Some(path) => PageHashes::open(path)?,
            None => None,
        };
        Ok(LiveOrigin {
            path,
            options,
            kept,
            geometry: None,
            scanned: None,
            legacy: None,
            sending: None,
            read_all: false,
            is_another: false,
        })
    }

    /// Whether the whole file was read: because it had to be, or because most of it is sent.
    pub fn has_read_all(&self) -> bool {
        self.read_all
    }

    /// What was agreed on, after the whole exchange succeeded in version 3. Keeps the page hashes
    /// where the options say.
    ///
    /// # Errors
    /// [`Error::NothingAgreed`] before the end of an exchange, and after one of version 1 or 2;
    /// [`Error::Io`] and [`Error::DiskFull`] where the hashes cannot be kept.
    pub fn agreed(mut self) -> Result<Agreed, Error> {
        let sending = self.sending.take().ok_or(Error::NothingAgreed)?;
        if sending.raw {
            return Err(Error::NothingAgreed);
        }
        let root = self.root_of(&sending)?;
        let Sending { geometry, fields, ref fingerprint, last_scan_ns, ground, .. } = sending;
        let agreed = Agreed { root, geometry, fingerprint: fingerprint.clone(), last_scan_ns };
        if let Some(path) = self.options.hashes.take() {
            let content = Content { geometry, root, fields };
            let kept = match ground {
                Ground::Nothing => Kept::Nothing,
                Ground::Kept => self.kept.take().map_or(Kept::Nothing, Kept::InPlace),
                Ground::Scanned => self.scanned.take().map_or(Kept::Nothing, Kept::Scanned),
            };
            let mut sending = sending;
            let delta = sending.outcome.as_mut().map(|outcome| &mut outcome.delta);
            keep(&path, kept, content, delta.ok_or(Error::NothingAgreed)?, &self.options.temp_dir)?;
        }
        Ok(agreed)
    }

    /// The tree of the content as the last scan found it, scanning if there was none.
    fn scanned(&mut self) -> Result<&mut Scanned, Error> {
        if self.scanned.is_none() {
            let mut snapshot = self.snapshot()?;
            let kept_at = self.options.hashes.as_deref();
            self.read_all = true;
            self.scanned = Some(scan(&mut snapshot, self.kept.as_ref(), kept_at, &self.options.temp_dir)?);
        }
        self.scanned.as_mut().ok_or(Error::Stopped)
    }

    fn legacy(&mut self) -> Result<&mut LegacyHashes, Error> {
        if self.legacy.is_none() {
            let mut snapshot = self.snapshot()?;
            self.read_all = true;
            self.legacy = Some(LegacyHashes::scan(&mut snapshot, &self.options.temp_dir)?);
        }
        self.legacy.as_mut().ok_or(Error::Stopped)
    }

    /// The fingerprint under which the kept hashes were recorded.
    fn kept_fingerprint(&self) -> Option<&Fingerprint> {
        let known = self.options.known.as_ref()?;
        (known.root == self.kept.as_ref()?.root()).then_some(&known.fingerprint)
    }

    /// Whether the file still is, for certain, what the kept hashes are of.
    fn kept_is_current(&self) -> Result<bool, Error> {
        match self.kept_fingerprint() {
            Some(_) if self.options.scan => Ok(false),
            Some(then) => Ok(then.proves_unchanged(&Fingerprint::of(&self.path)?)),
            None => Ok(false),
        }
    }

    fn ground_of(&self, base: &Base) -> Result<Ground, Error> {
        if self.kept.as_ref().is_some_and(|kept| kept.root() == base.root) {
            Ok(Ground::Kept)
        } else if self.scanned.as_ref().is_some_and(|scanned| scanned.hashes.root() == base.root) {
            Ok(Ground::Scanned)
        } else {
            Err(Error::Invalid("a difference to a base that is not known here"))
        }
    }

    fn tree(&self, ground: Ground) -> Option<&PageHashes> {
        match ground {
            Ground::Nothing => None,
            Ground::Kept => self.kept.as_ref(),
            Ground::Scanned => self.scanned.as_ref().map(|scanned| &scanned.hashes),
        }
    }

    fn fingerprint_of(&self, ground: Ground) -> Option<&Fingerprint> {
        match ground {
            Ground::Nothing => None,
            Ground::Kept => self.kept_fingerprint(),
            Ground::Scanned => self.scanned.as_ref().map(|scanned| &scanned.fingerprint),
        }
    }

    /// When every page of what a tree is of was last read.
    fn last_scan_of(&self, ground: Ground) -> Option<i64> {
        match ground {
            Ground::Nothing => None,
            Ground::Kept => self.options.known.as_ref().and_then(|known| known.last_scan_ns),
            Ground::Scanned => self.scanned.as_ref().map(|scanned| scanned.fingerprint.recorded_at_ns),
        }
    }

    /// The pages in which the snapshot may differ from `ground`, where the WAL knows them.
    fn changed_by_wal(&self, ground: Ground, snapshot: &Snapshot) -> Result<Option<RoaringBitmap>, Error> {
        let (Some(tree), Some(fingerprint)) = (self.tree(ground), self.fingerprint_of(ground)) else {
            return Ok(None);
        };
        if self.options.scan && ground == Ground::Kept {
            return Ok(None);
        }
        let (last_scan_ns, frames_max) =
            (self.last_scan_of(ground), frames_worth_reading(snapshot.geometry()));
        let known = Known { fingerprint, tree, last_scan_ns, frames_max };
        match changed_pages(&known, snapshot)? {
            Changed::Pages(pages) => {
                tracing::debug!(path = %self.path.display(), pages = pages.len(), "the WAL says what changed");
                Ok(Some(pages))
            }
            Changed::Unknown(reason) => {
                tracing::debug!(path = %self.path.display(), %reason, "the WAL does not say what changed");
                Ok(None)
            }
        }
    }

    /// What the file hashes to now, where that is known without reading all of it.
    fn root_without_scan(&self) -> Result<Option<Root>, Error> {
        let Some(kept) = &self.kept else { return Ok(None) };
        if self.kept_is_current()? {
            return Ok(Some(kept.root()));
        }
        let snapshot = Snapshot::open(&self.path)?;
        let Some(pages) = self.changed_by_wal(Ground::Kept, &snapshot)? else { return Ok(None) };
        let compare = Compare::Picked(kept.reader());
        let job = Job { read: Pages::Only(pages), compare, select: Select::default(), raw: false };
        Ok(run(snapshot, job, None, &self.options.temp_dir)?.root)
    }

    /// Opens a snapshot. It must have the page size that the peer was told.
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let snapshot = Snapshot::open(&self.path)?;
        match self.geometry {
            Some(told) if told.page_size != snapshot.geometry().page_size => {
                Err(Error::ChangedMeanwhile { path: self.path.clone() })
            }
            _ => Ok(snapshot),
        }
    }

    /// The replica takes what is sent for something made from the base, as it was told when the file was looked at. If
    /// it has been put back from a backup since, or replaced, that would delete what others did.
    fn check_made_from(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let is_another = match (&self.scanned, &self.kept) {
            (Some(scanned), _) => {
                snapshot.is_made_from_another(scanned.hashes.fields(), Some(&scanned.fingerprint))?
            }
            (None, Some(kept)) if !self.is_another => {
                snapshot.is_made_from_another(kept.fields(), self.kept_fingerprint())?
            }
            _ => false,
        };
        if is_another { Err(Error::ChangedMeanwhile { path: self.path.clone() }) } else { Ok(()) }
    }

    /// What changed since `ground`, and nothing at all where the fingerprint proves that nothing did.
    fn send_since(&mut self, ground: Ground, wanted: Wanted) -> Result<Sending, Error> {
        if let (Some(tree), Some(then)) = (self.tree(ground), self.fingerprint_of(ground))
            && !(self.options.scan && ground == Ground::Kept)
            && then.proves_unchanged(&Fingerprint::of(&self.path)?)
        {
            return Ok(Sending {
                geometry: tree.geometry(),
                fields: tree.fields(),
                fingerprint: then.clone(),
                last_scan_ns: self.last_scan_of(ground),
                ground,
                raw: false,
                to_send: Some(0),
                reused: None,
                spool: None,
                thread: None,
                outcome: Some(Outcome { delta: Delta::new(&self.options.temp_dir), root: None, changed: 0 }),
                pages: Unpacked::default(),
            });
        }
        let snapshot = self.snapshot()?;
        self.check_made_from(&snapshot)?;
        let tree =
            self.tree(ground).filter(|tree| tree.geometry().page_size == snapshot.geometry().page_size);
        let ground = if tree.is_some() { ground } else { Ground::Nothing };
        let select = Select { all: tree.is_none(), changed: true, ..Select::default() };
        let picked = self.changed_by_wal(ground, &snapshot)?;
        let (read, compare) = pick(picked, tree, snapshot.geometry());
        self.send(snapshot, ground, Job { read, compare, select, raw: false }, wanted)
    }

    /// What the comparison found, and what changed since it was made.
    fn send_compared(
        &mut self,
        differing: RoaringBitmap,
        held: u32,
        wanted: Wanted,
    ) -> Result<Sending, Error> {
        let raw = wanted.form == Form::Pages;
        let snapshot = self.snapshot()?;
        let unchanged = match (raw, &self.legacy, &self.scanned) {
            (true, Some(legacy), _) => legacy.is_of(&snapshot)?,
            // Nobody asked for a hash: nothing to have changed since.
            (true, None, _) => true,
            (false, _, Some(scanned)) => snapshot.is_as_of(&scanned.fingerprint)?,
            (false, _, None) => false,
        };
        let geometry = snapshot.geometry();
        let count = geometry.page_count.get();
        let with_differing = |mut pages: RoaringBitmap| {
            pages |= &differing;
            pages.insert_range(held.saturating_add(1)..=count);
            pages.remove_range(count.saturating_add(1)..=u32::MAX);
            pages
        };
        let (read, compare) = match (unchanged, raw, &self.legacy) {
            (true, ..) => (pages_or_all(with_differing(RoaringBitmap::new()), geometry), Compare::Not),
            (false, true, Some(legacy)) => (Pages::All, Compare::Legacy(legacy.reader()?)),
            (false, true, None) => (Pages::All, Compare::Tree(None)),
            (false, false, _) => {
                let picked = self.changed_by_wal(Ground::Scanned, &snapshot)?.map(with_differing);
                pick(picked, self.tree(Ground::Scanned), geometry)
            }
        };
        let ground = if self.scanned.is_some() { Ground::Scanned } else { Ground::Nothing };
        let select = Select { changed: true, pages: differing, past: Some(held), ..Select::default() };
        self.send(snapshot, ground, Job { read, compare, select, raw }, wanted)
    }

    /// Starts the thread that reads, compares, compresses and spools.
    fn send(
        &mut self,
        mut snapshot: Snapshot,
        ground: Ground,
        mut job: Job,
        wanted: Wanted,
    ) -> Result<Sending, Error> {
        let (geometry, fields) = (snapshot.geometry(), snapshot.fields());
        let fingerprint = snapshot.fingerprint().clone();
        let (writer, spool) = spool(&self.options.temp_dir, geometry.page_size, SPOOL_MEMORY_MAX);
        let (tell, reused) = channel();
        let to_send = to_send(geometry, &job);
        let raw = job.raw;
        let reads_all = matches!(job.read, Pages::All);
        let last_scan_ns = match &job.compare {
            Compare::Tree(_) => Some(fingerprint.recorded_at_ns),
            _ => self.last_scan_of(ground),
        };
        let temp_dir = self.options.temp_dir.clone();
        let work = move || -> Result<Outcome, Error> {
            let (reusable, skip) = find_reusable(&mut snapshot, &wanted.staged)?;
            // Nobody listens where there was nothing staged.
            let _ = tell.send(reusable);
            job.select.skip = skip;
            finish_writer(writer, |writer| run(snapshot, job, Some(writer), &temp_dir))
        };
        let thread = std::thread::Builder::new().name("origin".into()).spawn(work);
        let thread = thread.map_err(io_error("starting a thread for", &self.path))?;
        self.read_all |= reads_all;
        Ok(Sending {
            geometry,
            fields,
            fingerprint,
            last_scan_ns,
            ground,
            raw,
            to_send,
            reused: Some(reused),
            spool: Some(spool),
            thread: Some(thread),
            outcome: None,
            pages: Unpacked::default(),
        })
    }

    /// The root of the image, once all of it was read.
    fn root_of(&self, sending: &Sending) -> Result<Root, Error> {
        let outcome = sending.outcome.as_ref().ok_or(Error::NothingAgreed)?;
        let known = || self.tree(sending.ground).map(PageHashes::root);
        match outcome.root.or_else(known) {
            Some(root) => Ok(root),
            // Versions 1 and 2 prove nothing.
            None if sending.raw => Ok(Root([0; Root::LEN])),
            None => Err(Error::NothingAgreed),
        }
    }
}

/// What is read, and what it is compared with: the picked pages, where they are known and few.
fn pick(picked: Option<RoaringBitmap>, tree: Option<&PageHashes>, geometry: Geometry) -> (Pages, Compare) {
    let tree = tree.map(PageHashes::reader);
    match (picked.map(|pages| pages_or_all(pages, geometry)), tree) {
        (Some(few @ Pages::Only(_)), Some(tree)) => (few, Compare::Picked(tree)),
        (_, tree) => (Pages::All, Compare::Tree(tree)),
    }
}

fn pages_or_all(pages: RoaringBitmap, geometry: Geometry) -> Pages {
    let most = PICKED_ALWAYS.max(geometry.page_count.get() / 4);
    if pages.len() <= u64::from(most) { Pages::Only(pages) } else { Pages::All }
}
