//! Whether a database that was written to has another content: a checkpoint, a `touch`, an UPDATE that
//! sets what was there and a transaction that was rolled back write files and change nothing.
//!
//! - Asked only where the file's fingerprint changed. What cannot be told counts as a change: then the
//!   push finds out.
//! - The content is compared with what it was at the last answer, not with what was pushed, so that a
//!   checkpoint after a write is no second write.
//! - A file whose WAL does not say is read only where it is small, and not all the time: reading it takes
//!   a [`READ_SHARE`]th of the time at most.

use std::path::PathBuf;
use std::time::Duration;

use sqlrsync_database::{Error, NowOptions, root_now};
use sqlrsync_protocol::hash::Root;

use crate::follow::clock;
use crate::state::{FileLock, State};

/// The largest file that is read to find out that nothing in it changed.
const READ_MAX: u64 = 64 << 20;

/// After a file was read, this many times as long must pass before it is read again.
const READ_SHARE: u32 = 10;

/// What a database's content was when it was last known.
#[derive(Debug)]
pub struct Content {
    state_folder: PathBuf,
    path: PathBuf,
    remote: String,
    temp_dir: PathBuf,
    root: Option<Root>,
    /// On [`clock`]: until then the file is not read.
    read_after: Duration,
}

impl Content {
    /// Of the database at `path`, as the state in `state_folder` knows it towards `remote`: right after
    /// the two agreed on it.
    pub fn agreed(state_folder: PathBuf, path: PathBuf, remote: String, temp_dir: PathBuf) -> Content {
        let root = State::open(&state_folder, &path, &remote).known().map(|known| known.root);
        Content { state_folder, path, remote, temp_dir, root, read_after: Duration::ZERO }
    }

    /// Whether the content is, for certain, what it was the last time.
    pub fn is_unchanged(&mut self) -> bool {
        let now = self.root_now().unwrap_or_else(|error| {
            tracing::debug!(%error, "it cannot be told whether the content changed");
            None
        });
        let same = now.is_some() && now == self.root;
        tracing::debug!(path = %self.path.display(), same, known = now.is_some(), "looked at the content");
        self.root = now;
        same
    }

    fn root_now(&mut self) -> Result<Option<Root>, crate::error::Error> {
        // The hashes are another's while it pushes or pulls.
        let Some(_lock) = FileLock::take_if_free(&self.state_folder, &self.path)? else { return Ok(None) };
        let state = State::open(&self.state_folder, &self.path, &self.remote);
        let Some(known) = state.known() else { return Ok(None) };
        let began = clock::now();
        let read_max = if began < self.read_after { 0 } else { READ_MAX };
        let options = NowOptions { read_max, temp_dir: &self.temp_dir };
        let look = match root_now(&self.path, &state.hashes()?, &known, options) {
            // Away, or a journal that is being replaced: the next look tells.
            Err(Error::Missing { .. }) => return Ok(None),
            other => other?,
        };
        if look.read_all {
            let ended = clock::now();
            self.read_after = ended + ended.saturating_sub(began) * READ_SHARE;
        }
        Ok(look.root)
    }
}
