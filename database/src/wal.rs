//! Which pages changed since a known state, from the WAL: a push of one row reads a few pages of a
//! gigabyte. The answer is certain, or it is "read the whole file".
//!
//! Two grounds make it certain. Both begin with the same file, by device, inode and birth.
//!
//! - **The same WAL.** The known state ended at a frame of this WAL, and the snapshot ends at it or after
//!   it: what changed stands in the frames between. That they are the ones is proved by the salts, which
//!   SQLite changes when it starts a WAL over, and by the cumulative checksum: it is computed from the
//!   known frame over every byte of the frames between, and must come out as the snapshot's own. So it
//!   does not matter who overwrites frames while they are read.
//! - **A WAL of its own.** The known state had nothing in a WAL, and nobody has written to the database
//!   file since, by its size and times: no checkpoint has been made, so what changed stands in the frames
//!   from the first of the WAL to the snapshot's end. The checksum is computed from the WAL's header.
//!
//! Everything else is a scan ([`Scan`] says which), and so is what was not scanned for a day: the WAL
//! proves nothing about the rest of the file.
//!
//! The known state's end is the snapshot's own (`sqlite3_snapshot_get`), never the end that the file
//! shows: frames reach the file before they are committed, and a state remembered by them would miss
//! what they change. `database/src/wal/tests/` shows both.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use roaring::RoaringBitmap;
use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::Error;
use crate::fingerprint::{Fingerprint, Wal, WalPoint, beside, stat};
use crate::page_hashes::PageHashes;
use crate::pages::{ReadPages, read_dbpage};
use crate::snapshot::Snapshot;
use crate::wal_file::{FRAME_HEADER_LEN, FrameHeader, Sum, WalHeader};

/// How long the WAL is believed before the whole file is read once more.
const SCAN_EVERY_NS: i64 = 24 * 60 * 60 * 1_000_000_000;

/// So many frames are always walked; of more, only as many as a quarter of the file has pages. A scan
/// reads pages in a row, which is cheaper then.
const FRAMES_ALWAYS: u32 = 4096;

/// How many bytes of the WAL are read at a time (one frame at least).
const READ_LEN: usize = 256 << 10;

/// A state of the file whose page tree is at hand.
pub(crate) struct Known<'k> {
    /// What the file looked like.
    pub(crate) fingerprint: &'k Fingerprint,
    pub(crate) tree: &'k PageHashes,
    /// When every page of it was last read.
    pub(crate) last_scan_ns: Option<i64>,
    /// How many frames may be read at most; see [`frames_worth_reading`].
    pub(crate) frames_max: u32,
}

/// How many frames are read rather than a file of this size.
pub(crate) fn frames_worth_reading(geometry: Geometry) -> u32 {
    FRAMES_ALWAYS.max(geometry.page_count.get() / 4)
}

/// Why the whole file has to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Scan {
    #[error("the last scan was not in the last 24 hours")]
    Due,
    #[error("another file, or pages of another size")]
    OtherFile,
    #[error("it is not known where in the WAL the known state or the snapshot ends")]
    NoPoint,
    #[error("the WAL was started over since, or is another")]
    Reset,
    #[error("the WAL has more frames than it pays to read")]
    TooMany,
    #[error("the WAL's frames do not lead from the known state to the snapshot")]
    Broken,
    #[error("the first page changed and the WAL does not have it")]
    Contradiction,
}

/// What the WAL says.
#[derive(Debug)]
pub(crate) enum Changed {
    /// These pages may differ from the known state, and no others. The first is always among them, and
    /// so is every page past the known end.
    Pages(RoaringBitmap),
    /// Nothing that is certain.
    Unknown(Scan),
}

/// Asks the WAL what changed from the known state to the snapshot.
pub(crate) fn changed_pages(known: &Known<'_>, snapshot: &Snapshot) -> Result<Changed, Error> {
    match find(known, snapshot) {
        Ok(pages) => Ok(Changed::Pages(pages)),
        Err(Stop::Scan(scan)) => Ok(Changed::Unknown(scan)),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Wal(error)) => Err(Error::io("reading the WAL", &beside(snapshot.path(), "-wal"), error)),
    }
}

/// Why there is no answer.
enum Stop {
    Scan(Scan),
    Error(Error),
    Wal(std::io::Error),
}

impl From<Scan> for Stop {
    fn from(scan: Scan) -> Stop {
        Stop::Scan(scan)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Stop {
        match error.kind() {
            // A checkpoint truncated it as it was read, or the last connection removed it.
            ErrorKind::UnexpectedEof | ErrorKind::NotFound => Stop::Scan(Scan::Reset),
            _ => Stop::Wal(error),
        }
    }
}

fn find(known: &Known<'_>, snapshot: &Snapshot) -> Result<RoaringBitmap, Stop> {
    let (then, seen) = (known.fingerprint, snapshot.fingerprint());
    if is_due(known.last_scan_ns, seen.recorded_at_ns) {
        return Err(Scan::Due.into());
    }
    // Looked at once more, for two reasons: between the look before and the opening another file may have
    // been put in its place; and only now it is certain that what was not checkpointed by now stands in
    // this transaction's own WAL.
    let now = stat(snapshot.path()).map_err(Stop::Error)?;
    let same_file = then.is_of(&now) && seen.is_of(&now);
    if !same_file || known.tree.geometry().page_size != snapshot.geometry().page_size {
        return Err(Scan::OtherFile.into());
    }
    let (from, to) = match (then.wal, seen.wal) {
        (Wal::Unknown, _) | (_, Wal::Unknown) => return Err(Scan::NoPoint.into()),
        (Wal::Frames(from), Wal::Frames(to)) => (Some(from), to),
        (Wal::Empty, Wal::Frames(to)) if then.proves_unwritten(&now) => (None, to),
        _ => return Err(Scan::Reset.into()),
    };
    let frames = walk(snapshot, from, to, known.frames_max)?;
    frames.changed(known, snapshot)
}

/// Whether a day has passed, or the clock was set back.
fn is_due(last_scan_ns: Option<i64>, now_ns: i64) -> bool {
    last_scan_ns.is_none_or(|last| !(0..SCAN_EVERY_NS).contains(&now_ns.saturating_sub(last)))
}

/// What stands in some frames in a row.
struct Frames {
    pages: RoaringBitmap,
    /// The fewest pages that the database had after one of their transactions.
    fewest_pages: u32,
    /// How many it had after the last; `None` without a frame.
    last_pages: Option<u32>,
}

/// Reads the frames after `from` (from the first, where none is given) up to `to`, and proves that
/// they are the ones that led there.
fn walk(snapshot: &Snapshot, from: Option<WalPoint>, to: WalPoint, frames_max: u32) -> Result<Frames, Stop> {
    let file = File::open(beside(snapshot.path(), "-wal"))?;
    let header = WalHeader::read(&file)?.ok_or(Scan::Reset)?;
    let page_size = snapshot.geometry().page_size.bytes() as u64;
    let same = |point: &WalPoint| (point.inode, point.salts) == (header.inode, header.salts);
    if !same(&to) || from.is_some_and(|from| !same(&from)) || header.page_size != page_size {
        return Err(Scan::Reset.into());
    }
    let begin = from.map_or(0, |from| from.frame);
    let count = to.frame.checked_sub(begin).ok_or(Scan::Broken)?;
    if count > frames_max {
        return Err(Scan::TooMany.into());
    }
    let mut sum = header.sum_from(from.map(|from| from.checksum)).ok_or(Scan::Broken)?;
    let mut frames = Frames { pages: RoaringBitmap::new(), fewest_pages: u32::MAX, last_pages: None };
    let frame_len = header.frame_len() as usize;
    let at_once = (READ_LEN / frame_len).max(1) as u32;
    let mut buffer = vec![0; frame_len * count.min(at_once) as usize];
    let mut index = begin;
    while index < to.frame {
        let some = &mut buffer[..frame_len * (to.frame - index).min(at_once) as usize];
        file.read_exact_at(some, header.frame_at(index))?;
        for frame in some.chunks_exact(frame_len) {
            frames.add(frame, &to.salts, &mut sum)?;
            index += 1;
        }
    }
    if sum.checksum() == to.checksum { Ok(frames) } else { Err(Scan::Broken.into()) }
}

impl Frames {
    fn add(&mut self, frame: &[u8], salts: &[u8; 8], sum: &mut Sum) -> Result<(), Scan> {
        let header = frame.first_chunk::<{ FRAME_HEADER_LEN as usize }>().ok_or(Scan::Broken)?;
        let header = FrameHeader::parse(header);
        sum.add_frame(frame);
        if header.salts != *salts || header.checksum != sum.checksum() || header.page == 0 {
            return Err(Scan::Broken);
        }
        self.pages.insert(header.page);
        self.last_pages = Some(header.committed_pages);
        if header.committed_pages > 0 {
            self.fewest_pages = self.fewest_pages.min(header.committed_pages);
        }
        Ok(())
    }

    /// The pages that may differ, once nothing contradicts it.
    fn changed(self, known: &Known<'_>, snapshot: &Snapshot) -> Result<RoaringBitmap, Stop> {
        let (before, now) = (known.tree.geometry().page_count, snapshot.geometry().page_count);
        if self.last_pages.unwrap_or(before.get()) != now.get() {
            return Err(Scan::Broken.into());
        }
        // So it looks where somebody copied a file over this one, beside its WAL. SQLite then reads a mixture.
        if !self.pages.contains(1) && !has_first_page_of(known.tree, snapshot).map_err(Stop::Error)? {
            return Err(Scan::Contradiction.into());
        }
        let mut pages = self.pages;
        pages.insert(1);
        // Pages that were cut off and came back need not have a frame.
        let kept = before.get().min(self.fewest_pages);
        pages.insert_range(kept.saturating_add(1)..=now.get());
        pages.remove_range(now.get().saturating_add(1)..=u32::MAX);
        Ok(pages)
    }
}

/// Whether the first page, with the fields that do not count, is as in `tree`.
fn has_first_page_of(tree: &PageHashes, snapshot: &Snapshot) -> Result<bool, Error> {
    let mut page = vec![0; snapshot.geometry().page_size.bytes()];
    read_dbpage(&snapshot.view(), PageNumber::FIRST, &mut page)?;
    make_canonical(&mut page);
    let hash = PageHash::of(&page);
    Ok(tree.fields() == snapshot.fields() && tree.pages_of_group(0)?.first() == Some(&hash))
}

#[cfg(test)]
mod tests;
