//! The data folder: what stands where in it, and who may use it.
//!
//! ```text
//! catalog.db      namespaces, replica paths, key hashes
//! repository/     the versions
//! serve.lock      held by the server that serves this folder
//! tmp/            temporary files of merges and comparisons, which have no names; emptied at each start
//! first-admin-key where the first start had no terminal to show it on
//! ```
//!
//! It is for its owner only (0700): the catalog has hashes of keys, the repository everything else.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustix::fs::FlockOperation;

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made or read.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server serves it.
    #[error("another server serves the data folder {}: stop it first, or use another --data", .0.display())]
    InUse(PathBuf),
    /// There is no such folder.
    #[error("there is no data folder {}: `sqlrsync-server serve` makes one, or name it with --data", .0.display())]
    Missing(PathBuf),
    /// Without a home folder there is no default for it.
    #[error("there is no home folder to keep the data in: name a folder with --data")]
    NoHome,
}

/// A data folder that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder(PathBuf);

/// Held while a server serves the folder; the system lets go of it when the process ends, however.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl DataFolder {
    /// Where the data is where nobody says otherwise: `sqlrsync-server` in the XDG data folder.
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn default_path() -> Result<PathBuf, Error> {
        let base = etcetera::choose_base_strategy().map_err(|_| Error::NoHome)?;
        Ok(base.data_dir().join("sqlrsync-server"))
    }

    /// Opens the folder, and makes it (0700) where there is none.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn create(path: &Path) -> Result<DataFolder, Error> {
        let fail = |source| Error::Folder { path: path.to_owned(), source };
        if !path.is_dir() {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(fail)?;
            }
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                made => made.map_err(fail)?,
            }
        }
        DataFolder::open(path)
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Folder`].
    pub fn open(path: &Path) -> Result<DataFolder, Error> {
        match path.metadata() {
            Ok(found) if found.is_dir() => {
                if found.permissions().mode() & 0o077 != 0 {
                    tracing::warn!(folder = %path.display(), "other users can look into the data folder: chmod 700 it");
                }
                Ok(DataFolder(path.to_owned()))
            }
            Ok(_) => {
                Err(Error::Folder { path: path.to_owned(), source: io::ErrorKind::NotADirectory.into() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing(path.to_owned())),
            Err(source) => Err(Error::Folder { path: path.to_owned(), source }),
        }
    }

    /// Takes the folder for one server.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Folder`].
    pub fn lock(&self) -> Result<Lock, Error> {
        let fail = |source| Error::Folder { path: self.0.clone(), source };
        let path = self.0.join("serve.lock");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(fail)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse(self.0.clone())),
            Err(error) => Err(fail(error.into())),
        }
    }

    /// The folder for temporary files, which is made, or emptied: the server whose they were is gone, since the
    /// folder is locked for this one.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn temporary(&self, _locked: &Lock) -> Result<PathBuf, Error> {
        let path = self.0.join("tmp");
        let make = || {
            match DirBuilder::new().mode(0o700).create(&path) {
                // It may be a link to a larger disk: what is in it goes, and not itself.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => empty(&path)?,
                made => made?,
            }
            path.canonicalize()
        };
        make().map_err(|source| Error::Folder { path: path.clone(), source })
    }

    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn is_empty(&self) -> Result<bool, Error> {
        let first = self.0.read_dir().and_then(|mut entries| entries.next().transpose());
        first.map(|first| first.is_none()).map_err(|source| Error::Folder { path: self.0.clone(), source })
    }

    /// Whether a server has ever used it. Who may not look into it is told so, and not that there is nothing.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn holds_data(&self) -> Result<bool, Error> {
        for path in [self.catalog(), self.repository()] {
            if path.try_exists().map_err(|source| Error::Folder { path, source })? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The catalog's file.
    pub fn catalog(&self) -> PathBuf {
        self.0.join("catalog.db")
    }

    /// The repository's folder.
    pub fn repository(&self) -> PathBuf {
        self.0.join("repository")
    }
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_for_its_owner_only_and_for_one_server() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        assert!(matches!(DataFolder::open(&path), Err(Error::Missing(_))));
        let folder = DataFolder::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let lock = folder.lock().unwrap();
        assert!(matches!(DataFolder::create(&path).unwrap().lock(), Err(Error::InUse(_))));
        let temporary = folder.temporary(&lock).unwrap();
        assert_eq!(temporary.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(temporary.join("left by a server that was killed"), "").unwrap();
        assert_eq!(folder.temporary(&lock).unwrap().read_dir().unwrap().count(), 0);
        drop(lock);
        folder.lock().unwrap();
        std::fs::write(parent.path().join("file"), "").unwrap();
        assert!(matches!(DataFolder::create(&parent.path().join("file")), Err(Error::Folder { .. })));
    }

    #[test]
    fn a_folder_that_cannot_be_looked_into_is_not_an_empty_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(parent.path()).unwrap();
        assert!(!folder.holds_data().unwrap());
        // Fails for everybody, as missing rights do for all but root.
        std::os::unix::fs::symlink("catalog.db", folder.catalog()).unwrap();
        assert!(matches!(folder.holds_data(), Err(Error::Folder { .. })));
    }
}
