//! Watching a database for writes.
//!
//! - What the system reports is a hint: it wakes whoever waits, and says nothing. That nothing changed is
//!   answered by the file's [`Fingerprint`], which costs nothing; where that is another one, by its
//!   [`Content`], as far as that can be told cheaply.
//! - The folder is watched and not the file, so that one that is renamed into its place, or deleted and
//!   made anew, is seen. A watch is lost without a word where a disk is unmounted, and hears nothing of
//!   what another machine writes to a network disk: so the file is looked at every [`LOOK_EVERY`], and
//!   then the watch is made again where its folder is another one.
//! - The database file is never opened here; [`Content`] opens it through SQLite, and not for long.
//! - A file's times say nothing where the wall clock was set back behind them. What a file shows for
//!   [`SHOWS_AFTER`] by a clock that is never set is known all the same, so such a file is not taken for
//!   one that is written to all the time.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sqlrsync_database::{Fingerprint, SHOWS_AFTER};
use tokio::sync::Notify;

use super::content::Content;
use crate::follow::clock;

/// How often a file is looked at that nothing was heard of.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The same where the system does not report, or what was seen is not certain yet.
const LOOK_OFTEN: Duration = Duration::from_secs(2);

/// How long to wait after a hint: a transaction is many writes, and a burst is many transactions.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What belongs to a database and changes with its content, after its own name.
const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// What a look at the file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The same content as the last time, for certain.
    Same,
    /// Another content, or what may be another.
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
    seen: Option<Seen>,
    /// What it held then; `None` where nothing was agreed on yet.
    content: Option<Content>,
}

/// What a file shows.
#[derive(Clone, Debug)]
struct Seen {
    fingerprint: Fingerprint,
    /// The first and the last look that it showed this, on [`clock`].
    since: Duration,
    last: Duration,
}

impl Seen {
    /// Whether every write after the last look shows.
    fn is_certain(&self) -> bool {
        self.last.saturating_sub(self.since) > SHOWS_AFTER
    }
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
            content: None,
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
        let seen = self.seen.as_ref().map(|seen| seen.fingerprint.clone());
        self.look_after(seen)
    }

    /// As [`Watch::look`], but compares with what is known from elsewhere: the file is the same where
    /// it still is one of these.
    pub fn look_after(&mut self, known: impl IntoIterator<Item = Fingerprint>) -> Look {
        let Some(now) = self.fingerprint() else { return Look::Missing };
        let certain = self.seen.as_ref().filter(|seen| seen.is_certain()).map(|seen| &seen.fingerprint);
        let same = known.into_iter().any(|known| {
            // What is known was taken at the last look or after it.
            let shown = certain.is_some_and(|seen| seen.shows_the_same(&known));
            known.proves_unchanged(&now) || (shown && known.shows_the_same(&now))
        });
        self.saw(now);
        // Asked after the fingerprint was taken: what is written from here on gives another one.
        let same = same || self.content.as_mut().is_some_and(Content::is_unchanged);
        if same { Look::Same } else { Look::Changed }
    }

    /// From now on a write counts only where it changes this content. `None` where it is not known.
    pub fn expect(&mut self, content: Option<Content>) {
        self.content = content;
    }

    fn saw(&mut self, now: Fingerprint) {
        let last = clock::now();
        match &mut self.seen {
            Some(seen) if seen.fingerprint.shows_the_same(&now) => {
                seen.last = last;
                // One that proves something is kept: the clock may have been set back since.
                if !seen.fingerprint.is_settled() {
                    seen.fingerprint = now;
                }
            }
            seen => *seen = Some(Seen { fingerprint: now, since: last, last }),
        }
    }

    /// How long to wait for a hint before the file is looked at without one.
    pub fn look_every(&self) -> Duration {
        let certain = |seen: &Seen| seen.fingerprint.is_settled() || seen.is_certain();
        let certain = self.seen.as_ref().is_none_or(certain);
        if self.watcher.is_some() && certain { LOOK_EVERY } else { LOOK_OFTEN }
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
