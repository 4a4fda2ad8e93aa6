//! A version beside a live file, to be compared with it: the file is what the pages are a difference to, as ever,
//! and what arrives stays in a file without a name.
//!
//! - The file is not written, nor its WAL, nor what is kept of its page hashes.
//! - Both contents are of one state of the file. In WAL mode one transaction sees it from the first look to the
//!   last, which keeps no writer waiting. In rollback mode it would: there it ends before a peer is waited for, and
//!   afterwards the file must be what it was.

use std::path::Path;
use std::sync::Arc;

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{ChangedPages, Content};
use sqlrsync_protocol::exchange::Ground;
use sqlrsync_protocol::page::{Geometry, PageNumber};

use super::{Database, FileReplica, FileReplicaOptions, Found, Overwrite, Tree};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::legacy::LegacyHashes;
use crate::receive::Received;
use crate::scan::scan;
use crate::snapshot::Snapshot;
use crate::version::{LiveContent, PulledContent};

/// A file, and the version that was pulled beside it. The transaction in which the file is read is open for as
/// long as one of the two is there.
pub struct Beside {
    /// The file.
    pub file: LiveContent,
    /// The version.
    pub version: PulledContent,
    /// In which pages they may differ. [`ChangedPages::Unknown`] where every page arrived.
    pub changed: ChangedPages,
}

/// Of a file that is left as it is.
#[derive(Default)]
pub(super) struct Aside {
    seen: Option<Seen>,
    arrived: Option<Arrived>,
}

/// The state of the file that the pages are a difference to.
enum Seen {
    Open(Box<Snapshot>),
    Was(Fingerprint),
}

struct Arrived {
    received: Received,
    geometry: Geometry,
    fields: Option<HeaderFields>,
}

impl FileReplica {
    /// Prepares to take a database beside the file at `path`, which stays as it is. [`FileReplica::beside`] has the
    /// two afterwards. What is known and kept of the file is made use of, and not written.
    ///
    /// # Errors
    /// As [`FileReplica::open`].
    pub fn open_beside(path: &Path, options: FileReplicaOptions) -> Result<FileReplica, Error> {
        // Whatever the file holds: nothing of it is lost.
        let options = FileReplicaOptions { overwrite: Overwrite::Force, ..options };
        let mut replica = FileReplica::open(path, options)?;
        replica.aside = Some(Aside::default());
        Ok(replica)
    }

    /// The file and what was pulled beside it, after the exchange succeeded.
    ///
    /// # Errors
    /// [`Error::ChangedMeanwhile`] where somebody wrote to the file since the exchange began, or may have: it can be
    /// tried again. [`Error::NothingAgreed`] before the end of an exchange. Else as for any file that is read.
    pub fn beside(self) -> Result<Beside, Error> {
        let FileReplica { aside, path, ground, .. } = self;
        let Some(Aside { seen: Some(seen), arrived: Some(arrived) }) = aside else {
            return Err(Error::NothingAgreed);
        };
        let snapshot = match seen {
            Seen::Open(snapshot) => *snapshot,
            Seen::Was(then) => {
                let snapshot = Snapshot::open_to_look(&path)?;
                if !snapshot.is_as_of(&then)? {
                    return Err(Error::ChangedMeanwhile { path });
                }
                snapshot
            }
        };
        let file = LiveContent::of(snapshot)?;
        let Arrived { received, geometry, fields } = arrived;
        let all = matches!(ground, Some(Ground::Nothing { .. }));
        let changed = if all {
            ChangedPages::Unknown
        } else {
            // Pages that only one of the two has differ, too.
            let (held, has) = (file.geometry().page_count.get(), geometry.page_count.get());
            let mut pages = received.pages.clone();
            pages.insert_range(held.min(has).saturating_add(1)..=held.max(has));
            ChangedPages::Known(pages)
        };
        let below = (!all).then(|| file.clone());
        let version = PulledContent::new(below, Arc::new(received), geometry, fields);
        Ok(Beside { file, version, changed })
    }

    /// Looks at the file, and keeps the look.
    pub(super) fn find_aside(&mut self, origin: Geometry, version: u8) -> Result<Found, Error> {
        let mut snapshot = Snapshot::open_to_look(&self.path)?;
        let geometry = snapshot.geometry();
        let found = if geometry.page_size == origin.page_size {
            let tree = match version {
                0..3 => None,
                _ => Some(self.tree_of(&mut snapshot)?),
            };
            let legacy = match version {
                0..3 => Some(LegacyHashes::scan(&mut snapshot, &self.temp_dir)?),
                _ => None,
            };
            Found::Database(Box::new(Database { geometry, tree, legacy }))
        } else {
            Found::Replaceable { vacant: false }
        };
        let seen = match snapshot.fields().is_wal() {
            true => Seen::Open(Box::new(snapshot)),
            false => Seen::Was(snapshot.fingerprint().clone()),
        };
        self.aside = Some(Aside { seen: Some(seen), arrived: None });
        Ok(found)
    }

    fn tree_of(&self, snapshot: &mut Snapshot) -> Result<Tree, Error> {
        if let Some((kept, known)) = self.of_known_root()
            && snapshot.is_as_of(&known.fingerprint)?
        {
            return Ok(Tree::Kept(kept.reader(), known.clone()));
        }
        Ok(Tree::Scanned(scan(snapshot, self.kept.as_ref(), None, &self.temp_dir)?))
    }

    /// Keeps what arrived, which is proved.
    pub(super) fn put_aside(
        &mut self,
        received: Received,
        geometry: Geometry,
        fields: Option<HeaderFields>,
    ) -> Result<(), Error> {
        let aside = self.aside.as_mut().ok_or(Error::Stopped)?;
        let fields = match fields {
            None if received.pages.contains(PageNumber::FIRST.get()) => {
                let mut page = vec![0; geometry.page_size.bytes()];
                received.read(PageNumber::FIRST, &mut page)?;
                Some(HeaderFields::of(&page))
            }
            fields => fields,
        };
        aside.arrived = Some(Arrived { received, geometry, fields });
        Ok(())
    }
}
