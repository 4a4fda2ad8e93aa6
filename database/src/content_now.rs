//! What a live file hashes to now, where that can be told cheaply: so that a checkpoint, a `touch`, an
//! UPDATE that sets what was there and a transaction that was rolled back are no changes.
//!
//! - The answer is certain, or there is none. It rests on what was agreed on and the page hashes kept
//!   with it: the fingerprint, then the WAL (see [`crate::wal`]), then every page where the caller allows
//!   so many bytes to be read.
//! - Little is read of a WAL: this is asked after every burst of writes, and what has changed much has
//!   changed.
//! - The read transaction and its connection end with the call.

use std::path::Path;

use sqlrsync_protocol::hash::Root;

use crate::agreed::Agreed;
use crate::error::Error;
use crate::fingerprint::{Fingerprint, real_path};
use crate::image::{Compare, Job, Select, run};
use crate::page_hashes::PageHashes;
use crate::pages::Pages;
use crate::snapshot::Snapshot;
use crate::wal::{Changed, Known, changed_pages};

/// So many frames of a WAL are read at most.
const FRAMES_MAX: u32 = 1024;

/// So many pages that a WAL names are hashed at most.
const PAGES_MAX: u64 = 256;

/// How far a look may go.
#[derive(Clone, Copy, Debug)]
pub struct NowOptions<'o> {
    /// Where the WAL does not say what changed, a file of at most so many bytes is read.
    pub read_max: u64,
    /// An existing folder for files without a name.
    pub temp_dir: &'o Path,
}

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// What the content hashes to; `None` where only reading the file would tell.
    pub root: Option<Root>,
    /// Whether the whole file was read.
    pub read_all: bool,
}

/// Looks at the file at `path`, of which `known` was agreed on and `hashes` is the file with the page
/// hashes of that. One process at a time uses that file; the caller sees to it.
///
/// # Errors
/// As [`crate::LiveOrigin`] has them for a file that cannot be read, and for the page hashes.
pub fn root_now(path: &Path, hashes: &Path, known: &Agreed, options: NowOptions<'_>) -> Result<Look, Error> {
    const NOTHING: Look = Look { root: None, read_all: false };
    let path = real_path(path)?;
    let Some(kept) = PageHashes::open(hashes)?.filter(|kept| kept.root() == known.root) else {
        return Ok(NOTHING);
    };
    if known.fingerprint.proves_unchanged(&Fingerprint::of(&path)?) {
        return Ok(Look { root: Some(known.root), read_all: false });
    }
    let snapshot = match Snapshot::open(&path) {
        Ok(snapshot) => snapshot,
        Err(Error::Empty { .. }) => return Ok(NOTHING),
        Err(error) => return Err(error),
    };
    let (fingerprint, last_scan_ns) = (&known.fingerprint, known.last_scan_ns);
    let asked = Known { fingerprint, tree: &kept, last_scan_ns, frames_max: FRAMES_MAX };
    let (read, compare) = match changed_pages(&asked, &snapshot)? {
        Changed::Pages(pages) if pages.len() <= PAGES_MAX => {
            (Pages::Only(pages), Compare::Picked(kept.reader()))
        }
        Changed::Pages(_) => return Ok(NOTHING),
        Changed::Unknown(reason) => {
            tracing::debug!(path = %path.display(), %reason, "the WAL does not say whether anything changed");
            if bytes(&snapshot) > options.read_max
                || kept.geometry().page_size != snapshot.geometry().page_size
            {
                return Ok(NOTHING);
            }
            (Pages::All, Compare::Tree(Some(kept.reader())))
        }
    };
    let read_all = matches!(read, Pages::All);
    let job = Job { read, compare, select: Select::default(), raw: false };
    let root = run(snapshot, job, None, options.temp_dir)?.root;
    Ok(Look { root, read_all })
}

fn bytes(snapshot: &Snapshot) -> u64 {
    let geometry = snapshot.geometry();
    u64::from(geometry.page_count.get()) * geometry.page_size.bytes() as u64
}
