//! A database that does not exist yet: written plainly into a file beside its place, made durable, and
//! put into place without overwriting anything. Three times faster than through SQLite.
//!
//! - Until it is whole it has a name of its own, mode 0600 and a lock (`flock`, which SQLite does not
//!   use). A killed run leaves it behind; the next run that writes in that folder, a minute later or more, removes
//!   what nobody has locked.
//! - It gets the mode that a program creating the database would have given it.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use tempfile::{NamedTempFile, TempPath};

use crate::error::{Error, io_error};
use crate::fingerprint::{Fingerprint, TICK, Wal, beside};
use crate::snapshot::settled_fingerprint;

/// How the name of an unfinished file begins. The rest is random.
const PREFIX: &str = ".sqlrsync-new-";

/// Unfinished files younger than this may be about to be locked by who just created them.
const LEFTOVER_AGE_MIN: Duration = Duration::from_secs(60);

/// A file that is not in its place yet. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: Arc<File>,
    temp_path: TempPath,
    mode: u32,
}

impl NewFile {
    /// Creates it in the folder of `path`.
    pub(crate) fn create(path: &Path) -> Result<NewFile, Error> {
        let folder = folder_of(path);
        remove_leftovers(&folder);
        let io = |error| Error::io("creating a file beside it", path, error);
        let temp: NamedTempFile = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&folder)
            .map_err(io)?;
        let (file, temp_path) = temp.into_parts();
        // What the umask leaves of 0666 is what it gets in the end.
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
        // Not every file system can lock; a leftover is then removed by its age alone.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(NewFile { file: Arc::new(file), temp_path, mode })
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Sets the length, makes all of it durable and gives it its mode.
    fn complete(&self, path: &Path, len: u64) -> Result<(), Error> {
        let complete = || {
            self.file.set_len(len)?;
            self.file.set_permissions(Permissions::from_mode(self.mode))?;
            self.file.sync_all()
        };
        complete().map_err(io_error("writing the new file for", path))
    }

    /// Puts it into its place, which must still be free, and returns the fingerprint of what was put.
    pub(crate) fn place(self, path: &Path, len: u64) -> Result<Fingerprint, Error> {
        self.complete(path, len)?;
        check_free(path)?;
        let io = |error| Error::io("putting the new file into place", path, error);
        let written = self.file.metadata().map_err(io)?;
        // From here on a write by somebody else has another mtime than ours.
        std::thread::sleep(TICK + Duration::from_millis(1));
        drop(self.file);
        self.temp_path.persist_noclobber(path).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Appeared { path: path.to_path_buf() },
            _ => Error::io("putting the new file into place", path, error.error),
        })?;
        File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io)?;
        let placed = settled_fingerprint(path)?;
        Ok(if placed.has_file_of(&written) { placed } else { placed.with_wal(Wal::Unknown) })
    }

    /// Completes it for being read through SQLite under its temporary name.
    pub(crate) fn into_source(self, path: &Path, len: u64) -> Result<TempPath, Error> {
        self.complete(path, len)?;
        Ok(self.temp_path)
    }
}

/// There is no file, and nothing that SQLite would take for the journal of a new one.
pub(crate) fn check_free(path: &Path) -> Result<(), Error> {
    for suffix in ["-wal", "-journal"] {
        let leftover = beside(path, suffix);
        if leftover.symlink_metadata().is_ok_and(|leftover| leftover.len() > 0) {
            return Err(Error::Leftover { path: path.to_path_buf(), leftover });
        }
    }
    Ok(())
}

/// The folder that a file stands in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Removes what killed runs left. It is no error where that fails: nothing depends on it.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_leftover(&entry.file_name(), &entry.path()).unwrap_or(false) {
            tracing::info!(file = %entry.path().display(), "removing what a killed run left");
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_leftover(name: &OsStr, path: &Path) -> std::io::Result<bool> {
    if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
        return Ok(false);
    }
    let metadata = path.symlink_metadata()?;
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    if !metadata.is_file() || age < LEFTOVER_AGE_MIN {
        return Ok(false);
    }
    Ok(flock(File::open(path)?, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Writes pages at their places in a file of pages.
pub(crate) fn write_page(file: &File, offset: u64, page: &[u8], path: &Path) -> Result<(), Error> {
    file.write_all_at(page, offset).map_err(io_error("writing the pages for", path))
}
