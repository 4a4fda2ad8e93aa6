//! Watching a database for writes.
//!
//! - What the system reports is a hint: it wakes whoever waits, and says nothing. Whether something
//!   changed is answered by the file's [`Fingerprint`] alone.
//! - The folder is watched and not the file, so that one that is renamed into its place, or deleted and
//!   made anew, is seen. A watch is lost without a word where a disk is unmounted, and hears nothing of
//!   what another machine writes to a network disk: so the file is looked at every [`LOOK_EVERY`], and
//!   then the watch is made again where its folder is another one.
//! - The database file is never opened here.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sqlrsync_database::Fingerprint;
use tokio::sync::Notify;

/// How often a file is looked at that nothing was heard of.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The same where the system does not report.
const LOOK_OFTEN: Duration = Duration::from_secs(2);

/// How long to wait after a hint: a transaction is many writes, and a burst is many transactions.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What belongs to a database and changes with its content, after its own name.
const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// What a look at the file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The same as the last time, for certain.
    Same,
    /// Something else, or what may be something else.
    Changed,
    /// There is no file that can be looked at.
    Missing,
}

/// A database that is watched.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    folder: PathBuf,
    names: Arc<[OsString]>,
    hints: Arc<Notify>,
    watcher: Option<FolderWatch>,
    /// What the file was when it was last looked at.
    seen: Option<Fingerprint>,
}

/// A watcher of the system's, and the folder (device and inode) that it has.
#[derive(Debug)]
struct FolderWatch {
    folder: (u64, u64),
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches the database at `path` (absolute, without symbolic links), which may not exist.
    pub fn new(path: &Path) -> Watch {
        let name = path.file_name().unwrap_or_default();
        let names = SUFFIXES.iter().map(|suffix| joined(name, suffix)).collect();
        let folder = path.parent().unwrap_or(path).to_owned();
        let mut watch = Watch {
            path: path.to_owned(),
            folder,
            names,
            hints: Arc::new(Notify::new()),
            watcher: None,
            seen: None,
        };
        watch.renew();
        watch
    }

    /// What the file is now; `None` where it cannot be looked at.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let error = match Fingerprint::of(&self.path) {
            Ok(now) => return Some(now),
            Err(error) => error,
        };
        tracing::debug!(%error, "the database cannot be looked at");
        None
    }

    /// Looks at the file; what it is now is what the next look is compared with.
    pub fn look(&mut self) -> Look {
        self.renew();
        let seen = self.seen.clone();
        self.look_after(seen)
    }

    /// As [`Watch::look`], but compares with what is known from elsewhere: the file is the same where
    /// it still is one of these.
    pub fn look_after(&mut self, known: impl IntoIterator<Item = Fingerprint>) -> Look {
        let Some(now) = self.fingerprint() else { return Look::Missing };
        let same = known.into_iter().any(|known| known.proves_unchanged(&now));
        self.seen = Some(now);
        if same { Look::Same } else { Look::Changed }
    }

    /// How long to wait for a hint before the file is looked at without one.
    pub fn look_every(&self) -> Duration {
        if self.watcher.is_some() { LOOK_EVERY } else { LOOK_OFTEN }
    }

    /// Returns once the system reports something, or has since the last call.
    pub async fn hint(&self) {
        self.hints.notified().await;
    }

    /// Makes the watch anew where the folder is not the one that is watched.
    fn renew(&mut self) {
        let folder = std::fs::metadata(&self.folder).ok().map(|data| (data.dev(), data.ino()));
        if folder.is_some() && folder == self.watcher.as_ref().map(|watcher| watcher.folder) {
            return;
        }
        self.watcher = None;
        let Some(folder) = folder else { return };
        match self.watcher() {
            Ok(watcher) => self.watcher = Some(FolderWatch { folder, _watcher: watcher }),
            // The file is looked at more often instead.
            Err(error) => tracing::debug!(%error, "the folder cannot be watched"),
        }
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let (names, hints) = (self.names.clone(), self.hints.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| concerns(&event, &names)) {
                hints.notify_one();
            }
        })?;
        watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Whether an event may be about a write to one of the files with these names.
fn concerns(event: &notify::Event, names: &[OsString]) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        // Reading, our own for one.
        EventKind::Access(_) => return false,
        _ => {}
    }
    // Without a path: some were lost.
    event.need_rescan()
        || event.paths.is_empty()
        || event
            .paths
            .iter()
            .filter_map(|path| path.file_name())
            .any(|name| names.iter().any(|it| it == name))
}

fn joined(name: &OsStr, suffix: &str) -> OsString {
    let mut joined = name.to_owned();
    joined.push(suffix);
    joined
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
