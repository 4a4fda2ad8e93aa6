//! Making durable what programs have committed to a database, before anybody else relies on it.
//!
//! A commit need not be on the disk: in WAL mode with `synchronous = NORMAL` nothing is synced before the next
//! checkpoint, and in rollback mode a commit is the removal of the journal, which SQLite syncs with `EXTRA` only.
//! After a power cut such a file is an earlier one than what was pushed from it, with nothing in it that says so:
//! taken for what came of the pushed version, it would delete from the next one all that it has lost.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, io_error};
use crate::fingerprint::beside;
use crate::new_file::folder_of;

/// Syncs what stands beside the database at `path` and its folder. The database file itself SQLite has synced, where
/// it was not told to sync nothing at all; it is not opened by hand.
///
/// # Errors
/// [`Error::Io`] where the disk fails.
pub(crate) fn make_durable(path: &Path) -> Result<(), Error> {
    let sync = || -> io::Result<()> {
        sync_if_there(&beside(path, "-wal"))?;
        sync_if_there(&folder_of(path))
    };
    sync().map_err(io_error("syncing what is in the file", path))
}

/// What may not be opened was not written by us, and some file systems have no sync of folders.
fn sync_if_there(path: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) => match error.kind() {
            NotFound | PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_knows_no_sync_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        make_durable(&folder.path().join("no.db")).unwrap();
        make_durable(&folder.path().join("no folder/no.db")).unwrap();
        make_durable(Path::new("/proc/version")).unwrap();
    }
}
