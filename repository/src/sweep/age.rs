//! Since when an object is where it is. What nothing refers to goes only when that is long ago: what would refer
//! to it may be on its way, from another process or with a copy that is being put back.
//!
//! Of a local file the time of its last modification does not say: whoever copies it back usually sets it to
//! that of the original. When its entry changed does, and nobody can set that. A time in the future, as of a
//! clock that was set back since, is not long ago; nor is one that cannot be told.

use std::fs::Metadata;

use jiff::Timestamp;

use super::Sweep;
use crate::store::Listed;

impl Sweep<'_> {
    /// Whether an object has been there for the grace period.
    pub(super) fn is_old(&self, listed: &Listed) -> bool {
        if !self.is_past_grace(listed.modified) {
            return false;
        }
        let Some(folder) = self.repository.shared().store.local() else { return true };
        let file = std::fs::symlink_metadata(folder.join(listed.path.as_ref()));
        file.is_ok_and(|file| self.is_old_file(&file))
    }

    /// The same of a file that no listing of the store shows.
    pub(super) fn is_old_file(&self, file: &Metadata) -> bool {
        let modified = file.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
        [modified, here_since(file)].into_iter().all(|at| at.is_some_and(|at| self.is_past_grace(at)))
    }

    fn is_past_grace(&self, since: Timestamp) -> bool {
        self.now.duration_since(since) > self.options.grace
    }
}

#[cfg(unix)]
fn here_since(file: &Metadata) -> Option<Timestamp> {
    use std::os::unix::fs::MetadataExt;
    Timestamp::new(file.ctime(), i32::try_from(file.ctime_nsec()).ok()?).ok()
}

/// A copy was created when it was copied.
#[cfg(not(unix))]
fn here_since(file: &Metadata) -> Option<Timestamp> {
    Timestamp::try_from(file.created().ok()?).ok()
}
