//! What was last agreed on about a local file and a remote, kept between runs.
//!
//! - It stands under the XDG state folder, in a folder of its own for each local path and remote, and
//!   counts only for the file (device and inode) that it was written for: of a file put in the place of
//!   another nothing is known but what the other was, which it may have been made from ([`MadeFrom`]).
//! - It is a help and never a truth that anything depends on: what is missing, damaged or of another
//!   file is as good as none, and costs a scan.
//! - The push id is durable before a byte is sent, so that a push whose answer was lost is recognised.
//! - One sqlrsync at a time works on a local file.

mod prune;
mod seen;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use sqlrsync_database::{Agreed, Fingerprint};
use sqlrsync_protocol::exchange::{Base, PushId};
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_protocol::possible_base::{PUSHES_MAX, PossibleBase};

use crate::error::Error;
use crate::files;

pub use seen::Seen;

/// The form of the file; another counts as none.
const FORMAT: u32 = 1;

/// How many pushes are remembered whose end is not known. The server is told of all of them.
const UNANSWERED_MAX: usize = PUSHES_MAX;

/// How long a second sqlrsync waits for the first to be done with a file.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often it looks meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The state of one local file towards one remote.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    path: PathBuf,
    remote: String,
    /// Device and inode of the file that this is the state of; `None` where there was none.
    file: Option<(u64, u64)>,
    kept: Kept,
}

/// What is in `state.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// For people who look into the folder.
    path: String,
    remote: String,
    device: u64,
    inode: u64,
    known: Option<Agreed>,
    /// Of the content in `known`, where the remote keeps versions and one of them is that content.
    version: Option<u64>,
    /// The content in `known` was pushed, and waits as this conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<u64>,
    push: Option<Push>,
    /// The ids of pushes before that one whose end is not known either, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<String>,
    /// Of the file that was in the place of this one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Before>,
}

/// What is left of a file's state when another is in its place.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    /// What was last agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// The version that it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// The ids of the pushes after that, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pushes: Vec<String>,
}

/// What a push says of the past of its file, beside the base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeFrom {
    /// Pushes of this very file whose end is not known, newest first, but for the one of [`State::push_id`]: what
    /// one of them sent is a version, perhaps, and then what the file was made from.
    pub unanswered: Vec<PushId>,
    /// What the file is made from or not: who knows.
    pub possible: PossibleBase,
}

/// A push that was begun and whose end is not known.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Push {
    id: String,
    fingerprint: Fingerprint,
}

impl State {
    /// The state of `path` (absolute, of a file that may not exist) towards `remote` (any text that
    /// names it). Never fails: what cannot be read counts as none.
    pub fn open(state_folder: &Path, path: &Path, remote: &str) -> State {
        let folder = state_folder.join("files").join(name_of(&[&path.to_string_lossy(), remote]));
        let kept = files::read_small(&folder.join("state.json"))
            .ok()
            .flatten()
            .and_then(|text| serde_json::from_str::<Kept>(&text).ok())
            .filter(|kept| kept.format == FORMAT);
        let file = identity(path);
        let kept = match kept {
            Some(kept) if file == Some((kept.device, kept.inode)) => kept,
            kept => {
                tracing::debug!(path = %path.display(), "no state that counts for this file");
                Kept { before: kept.map(Before::of), ..Kept::default() }
            }
        };
        State { folder, path: path.to_owned(), remote: remote.to_owned(), file, kept }
    }

    /// Where the hashes of the file's pages are kept. The folder is made.
    ///
    /// # Errors
    /// Where the state folder cannot be written.
    pub fn hashes(&self) -> Result<PathBuf, Error> {
        files::make_folder(&self.folder).map_err(Error::file(crate::error::MAKE, &self.folder))?;
        Ok(self.folder.join("pages"))
    }

    /// The same, for who only reads it: it may not be there.
    pub fn hashes_if_any(&self) -> PathBuf {
        self.folder.join("pages")
    }

    /// What was last agreed on, with the fingerprint that the file then had.
    pub fn known(&self) -> Option<Agreed> {
        self.kept.known.clone()
    }

    /// The conflict that the last push from this file opened or added to. It may have been settled since.
    pub fn conflict(&self) -> Option<ConflictNumber> {
        self.kept.conflict.and_then(ConflictNumber::new)
    }

    /// Version and root that this file and the remote last had in common. Where a push was merged or is in
    /// conflict, that is what was sent, which no version is: the next push then brings what is new since,
    /// and takes nothing back that others did.
    pub fn base(&self) -> Option<Base> {
        let known = self.kept.known.as_ref()?;
        Some(Base { version: self.kept.version.and_then(VersionNumber::new), root: known.root })
    }

    /// The id for a push of what the file holds now: that of the last push, where its end is not known
    /// and the file is as it was then, or a new one. It is durable when this returns.
    ///
    /// # Errors
    /// Where the file is gone, or the state folder cannot be written.
    pub fn push_id(&mut self) -> Result<PushId, Error> {
        let now = Fingerprint::of(&self.path)?;
        self.is_of(now.file());
        if let Some(push) = &self.kept.push
            && push.fingerprint.proves_unchanged(&now)
            && let Some(id) = parse_push_id(&push.id)
        {
            return Ok(id);
        }
        if let Some(before) = self.kept.push.take() {
            self.kept.unanswered.push(before.id);
            keep_last(&mut self.kept.unanswered);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Error::Random(error.to_string()))?;
        self.kept.push = Some(Push { id: hex(&id), fingerprint: now });
        self.write()?;
        Ok(PushId(id))
    }

    /// What a push says of the file's past. `is_stated`: the base is proposed. Where it is not, though something was
    /// agreed on, the file is older than that or its hashes are gone, and all that is known here may be of
    /// another file.
    pub fn made_from(&self, is_stated: bool) -> MadeFrom {
        let ids = |texts: &[String]| texts.iter().rev().filter_map(|id| parse_push_id(id)).collect();
        let unanswered = ids(&self.kept.unanswered);
        match (self.base(), &self.kept.before) {
            (Some(_), _) if is_stated => MadeFrom { unanswered, ..MadeFrom::default() },
            (Some(base), _) => MadeFrom {
                unanswered: Vec::new(),
                possible: PossibleBase { pushes: unanswered, agreed: Some(base) },
            },
            (None, Some(before)) => MadeFrom {
                unanswered,
                possible: PossibleBase { pushes: ids(&before.pushes), agreed: before.base() },
            },
            (None, None) => MadeFrom { unanswered, ..MadeFrom::default() },
        }
    }

    /// Records what both sides now have in common, and that no push is open. `version` is the one that
    /// holds this very content.
    ///
    /// # Errors
    /// Where the state folder cannot be written. The transfer is done all the same.
    pub fn agree(&mut self, agreed: &Agreed, version: Option<VersionNumber>) -> Result<(), Error> {
        self.keep(agreed, version, None)
    }

    /// Records what was pushed and has become part of a merge, or of a conflict: a content that the server
    /// knows and that is no version.
    ///
    /// # Errors
    /// As [`State::agree`].
    pub fn agree_as_sent(&mut self, agreed: &Agreed, conflict: Option<ConflictNumber>) -> Result<(), Error> {
        self.keep(agreed, None, conflict)
    }

    fn keep(
        &mut self,
        agreed: &Agreed,
        version: Option<VersionNumber>,
        conflict: Option<ConflictNumber>,
    ) -> Result<(), Error> {
        // Another file may be in its place by now, of which this says nothing.
        self.file = Some(agreed.fingerprint.file());
        self.kept.known = Some(agreed.clone());
        self.kept.version = version.map(VersionNumber::get);
        self.kept.conflict = conflict.map(ConflictNumber::get);
        self.kept.push = None;
        self.kept.unanswered.clear();
        self.kept.before = None;
        self.write()?;
        if let Some(all) = self.folder.parent() {
            prune::prune(all, SystemTime::now());
        }
        Ok(())
    }

    /// Records that no push is open, where nothing was agreed on that could be kept.
    ///
    /// # Errors
    /// Where the state folder cannot be written.
    pub fn end_push(&mut self) -> Result<(), Error> {
        let unanswered = std::mem::take(&mut self.kept.unanswered);
        // What was sent is later than all that is known of the file before.
        let before = self.kept.before.take();
        match self.kept.push.take() {
            None if unanswered.is_empty() && before.is_none() => Ok(()),
            _ => self.write(),
        }
    }

    /// From now on it is the state of that file. Where another was put into the place of the first since this was
    /// opened, what is known of the first is no more than what it may have been made from.
    fn is_of(&mut self, file: (u64, u64)) {
        if self.file.replace(file) != Some(file) {
            self.kept = Kept { before: Some(Before::of(std::mem::take(&mut self.kept))), ..Kept::default() };
        }
    }

    fn write(&mut self) -> Result<(), Error> {
        let Some((device, inode)) = self.file else { return Ok(()) };
        self.kept = Kept {
            format: FORMAT,
            path: self.path.to_string_lossy().into_owned(),
            remote: self.remote.clone(),
            device,
            inode,
            known: self.kept.known.take(),
            version: self.kept.version,
            conflict: self.kept.conflict,
            push: self.kept.push.take(),
            unanswered: std::mem::take(&mut self.kept.unanswered),
            before: self.kept.before.take(),
        };
        let file = self.folder.join("state.json");
        let text = serde_json::to_vec_pretty(&self.kept).map_err(|error| Error::File {
            doing: "write",
            path: file.clone(),
            source: error.into(),
        })?;
        files::replace(&file, &text, 0o600).map_err(Error::file("write", &file))
    }
}

impl Before {
    /// What a file's state leaves.
    fn of(kept: Kept) -> Before {
        let Kept { known, version, before, unanswered, push, .. } = kept;
        let mut left = match known {
            Some(known) => Before { root: Some(known.root.to_string()), version, pushes: Vec::new() },
            // Nothing was agreed on since the file came in the place of another.
            None => before.unwrap_or_default(),
        };
        left.pushes.extend(unanswered);
        left.pushes.extend(push.map(|push| push.id));
        keep_last(&mut left.pushes);
        left
    }

    fn base(&self) -> Option<Base> {
        let root = self.root.as_ref()?.parse().ok()?;
        Some(Base { version: self.version.and_then(VersionNumber::new), root })
    }
}

/// Of many pushes whose end is not known the last ones.
fn keep_last(pushes: &mut Vec<String>) {
    pushes.drain(..pushes.len().saturating_sub(UNANSWERED_MAX));
}

/// Held while a run works on a local file.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock of `path`, and waits a few seconds for it.
    ///
    /// # Errors
    /// [`Error::InUse`] where another keeps it; or the state folder cannot be written.
    pub fn take(state_folder: &Path, path: &Path) -> Result<FileLock, Error> {
        let name = name_of(&[&path.to_string_lossy()]);
        let lock = FileLock::take_within(state_folder, &name, LOCK_WAIT)?;
        lock.ok_or_else(|| Error::InUse { path: path.to_owned() })
    }

    /// Takes the lock of `path` where nobody has it.
    ///
    /// # Errors
    /// Where the state folder cannot be written.
    pub fn take_if_free(state_folder: &Path, path: &Path) -> Result<Option<FileLock>, Error> {
        FileLock::take_within(state_folder, &name_of(&[&path.to_string_lossy()]), Duration::ZERO)
    }

    /// Takes the lock of whoever publishes `path`: held from the first push to the last, beside the lock
    /// of each push.
    ///
    /// # Errors
    /// [`Error::Published`] where another publishes it; or the state folder cannot be written.
    pub fn take_to_publish(state_folder: &Path, path: &Path) -> Result<FileLock, Error> {
        let name = name_of(&[&path.to_string_lossy(), "publish"]);
        let lock = FileLock::take_within(state_folder, &name, Duration::ZERO)?;
        lock.ok_or_else(|| Error::Published { path: path.to_owned() })
    }

    /// `None` where another keeps it for longer than that.
    fn take_within(state_folder: &Path, name: &str, wait: Duration) -> Result<Option<FileLock>, Error> {
        let folder = state_folder.join("locks");
        files::make_folder(&folder).map_err(Error::file(crate::error::MAKE, &folder))?;
        let name = folder.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&name);
        let file = file.map_err(Error::file("open", &name))?;
        let deadline = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(FileLock { _file: file })),
                Err(TryLockError::Error(error)) => return Err(Error::file("lock", &name)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => return Ok(None),
            }
        }
    }
}

/// Device and inode; `None` where there is no file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

/// A file name for these texts: no two lists of texts have the same.
fn name_of(texts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 name of a state folder");
    for text in texts {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hex(&hasher.finalize().as_bytes()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_push_id(text: &str) -> Option<PushId> {
    let mut id = [0; 16];
    if text.len() != 2 * id.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(PushId(id))
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
