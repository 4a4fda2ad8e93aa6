//! Follows a file from snapshot to snapshot by what the WAL says, and reads every page of each as well, to
//! know what is true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::PageNumber;
use sqlrsync_protocol::tree::MemoryTree;

use crate::agreed::{Kept, keep};
use crate::error::Error;
use crate::fingerprint::{Fingerprint, Wal};
use crate::image::{Compare, Job, Select, run};
use crate::page_hashes::{Content, PageHashes};
use crate::pages::{Pages, ReadPages, read_dbpage};
use crate::snapshot::Snapshot;
use crate::wal::{Changed, Known, changed_pages, frames_worth_reading};

/// What a round came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// Nothing was remembered.
    First,
    /// The WAL said which pages; so many were read, and so many of them had changed.
    Pages { read: u64, changed: u64 },
    /// The whole file was read.
    Scan,
}

/// How all rounds went.
#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) rounds: u32,
    /// Rounds by the WAL, and those of them in which something had changed.
    pub(super) by_wal: u32,
    pub(super) changed_by_wal: u32,
    /// Why there was a scan, and how often.
    pub(super) scans: BTreeMap<String, u32>,
    /// Rounds in which the obvious rule would have missed a page.
    pub(super) wrong_missed: u32,
}

/// What is remembered of the last snapshot.
struct Remembered {
    tree: PageHashes,
    /// The hash of every page: the truth.
    image: Vec<PageHash>,
    fingerprint: Fingerprint,
    last_scan_ns: Option<i64>,
    /// What the obvious rule remembers: the end of the WAL that the file showed right before.
    shown: Wal,
}

pub(super) struct Follower {
    path: PathBuf,
    dir: PathBuf,
    remembered: Option<Remembered>,
    pub(super) tally: Tally,
}

impl Follower {
    pub(super) fn new(path: &Path, dir: &Path) -> Follower {
        let (path, dir) = (path.to_path_buf(), dir.to_path_buf());
        Follower { path, dir, remembered: None, tally: Tally::default() }
    }

    /// Forgets when the file was last scanned.
    pub(super) fn forget_scan(&mut self) {
        self.remembered.as_mut().unwrap().last_scan_ns = None;
    }

    /// What the WAL says of a snapshot, since the last round.
    pub(super) fn look(&self, snapshot: &Snapshot) -> Result<Changed, Error> {
        let remembered = self.remembered.as_ref().unwrap();
        look(remembered, &remembered.fingerprint, snapshot)
    }

    /// One push: takes from the WAL what it says, compares that with the truth, and remembers.
    pub(super) fn round(&mut self) -> Result<Said, Error> {
        let shown = Wal::of(&self.path)?;
        let mut snapshot = Snapshot::open(&self.path)?;
        let image = image_of(&snapshot)?;
        let before = self.remembered.as_ref();
        let changed = match before {
            Some(before) => look(before, &before.fingerprint, &snapshot)?,
            None => Changed::Pages(RoaringBitmap::new()),
        };
        if let Some(before) = before {
            let wrong = before.fingerprint.clone().with_wal(before.shown);
            if let Changed::Pages(pages) = look(before, &wrong, &snapshot)? {
                self.tally.wrong_missed += u32::from(missed(before, &image, &pages).is_some());
            }
        }
        let said = match (before, &changed) {
            (None, _) => Said::First,
            (Some(before), Changed::Pages(pages)) => {
                let missed = missed(before, &image, pages);
                assert_eq!(missed, None, "a page was missed; the WAL says {pages:?}");
                Said::Pages { read: pages.len(), changed: differing(before, &image).count() as u64 }
            }
            (Some(_), Changed::Unknown(reason)) => {
                *self.tally.scans.entry(reason.to_string()).or_default() += 1;
                Said::Scan
            }
        };
        self.remembered = Some(self.remember(&mut snapshot, changed, image, shown)?);
        self.tally.rounds += 1;
        if let Said::Pages { changed, .. } = said {
            self.tally.by_wal += 1;
            self.tally.changed_by_wal += u32::from(changed > 0);
        }
        Ok(said)
    }

    /// Brings the kept page hashes up to date as a push does, and checks the root that comes out.
    fn remember(
        &self,
        snapshot: &mut Snapshot,
        changed: Changed,
        image: Vec<PageHash>,
        shown: Wal,
    ) -> Result<Remembered, Error> {
        let (geometry, fields) = (snapshot.geometry(), snapshot.fields());
        let fingerprint = snapshot.fingerprint().clone();
        let path = self.dir.join("hashes");
        let before = self.remembered.as_ref();
        let tree = before.map(|before| before.tree.reader());
        let tree = tree.filter(|tree| tree.geometry().page_size == geometry.page_size);
        let last_scan_ns = before.and_then(|before| before.last_scan_ns);
        let (read, compare, last_scan_ns) = match (changed, &tree) {
            (Changed::Pages(pages), Some(tree)) => {
                (Pages::Only(pages), Compare::Picked(tree.reader()), last_scan_ns)
            }
            (_, tree) => {
                let base = tree.as_ref().map(PageHashes::reader);
                (Pages::All, Compare::Tree(base), Some(fingerprint.recorded_at_ns))
            }
        };
        let job = Job { read, compare, select: Select::default(), raw: false };
        let mut outcome = run(snapshot, job, None, &self.dir)?;
        let root = outcome.root.unwrap();
        assert_eq!(root, MemoryTree::new(geometry, &image).unwrap().root(), "the root is another");
        let kept = tree.map_or(Kept::Nothing, Kept::InPlace);
        keep(&path, kept, Content { geometry, root, fields }, &mut outcome.delta, &self.dir)?;
        let tree = PageHashes::open(&path)?.unwrap();
        Ok(Remembered { tree, image, fingerprint, last_scan_ns, shown })
    }
}

fn look(before: &Remembered, fingerprint: &Fingerprint, snapshot: &Snapshot) -> Result<Changed, Error> {
    let frames_max = frames_worth_reading(snapshot.geometry());
    let known = Known { fingerprint, tree: &before.tree, last_scan_ns: before.last_scan_ns, frames_max };
    changed_pages(&known, snapshot)
}

/// The hash of every page, read through SQLite alone.
fn image_of(snapshot: &Snapshot) -> Result<Vec<PageHash>, Error> {
    let view = snapshot.view();
    let mut page = vec![0; view.geometry.page_size.bytes()];
    let numbers = (0..view.geometry.page_count.get()).filter_map(PageNumber::from_index);
    let hash = |number| {
        read_dbpage(&view, number, &mut page)?;
        if number == PageNumber::FIRST {
            make_canonical(&mut page);
        }
        Ok(PageHash::of(&page))
    };
    numbers.map(hash).collect()
}

/// The pages of the new image that are not as they were.
fn differing<'i>(before: &'i Remembered, image: &'i [PageHash]) -> impl Iterator<Item = u32> + 'i {
    let differs = |at: &usize| before.image.get(*at) != image.get(*at);
    (0..image.len()).filter(differs).map(|at| at as u32 + 1)
}

/// The first of them that is not among `pages`.
fn missed(before: &Remembered, image: &[PageHash], pages: &RoaringBitmap) -> Option<u32> {
    differing(before, image).find(|page| !pages.contains(*page))
}
