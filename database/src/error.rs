//! Why a live file could not be read or written: what is wrong, whose fault it is, what to do next.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use sqlrsync_protocol::block::BlockError;
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::page::PageSize;

/// Why a database file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("{}: no such file", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link to something that does not exist.
    #[error(
        "{}: a link to {}, which does not exist. Remove the link, or name the file that is meant",
        .path.display(), .target.display()
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A directory, a device, a socket.
    #[error("{}: not a regular file", .path.display())]
    NotAFile {
        /// What is no file.
        path: PathBuf,
    },
    /// Not SQLite's format, or encrypted.
    #[error("{}: not a SQLite database, or an encrypted one", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A database without a page, mostly a file of zero bytes.
    #[error("{}: the database is empty (zero bytes): there is nothing to push", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No permission for the file, or for the `-wal`, `-shm` or `-journal` that must stand beside it.
    #[error(
        "{}: no permission. SQLite must read and write the file, and create the -wal, -shm or -journal \
         beside it: check the rights of the file and of its folder", .path.display()
    )]
    Denied {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite said.
        #[source]
        source: Box<Error>,
    },
    /// Somebody holds a lock for longer than we wait.
    #[error(
        "{}: another program is reading or writing the database and did not finish in time: try again",
        .path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// No room on the disk.
    #[error("{}: the disk is full, nothing was changed", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The replica has content that the origin does not know, and nobody said to overwrite it.
    #[error(
        "{}: the file has changes of its own, or was never synced with this origin, and is left as it is. \
         Pull into another file, push the changes first, or overwrite them with --force", .path.display()
    )]
    LocallyChanged {
        /// The replica.
        path: PathBuf,
    },
    /// Somebody wrote to it in between, or put another file in its place.
    #[error(
        "{}: the file was changed by another program in the middle of this, and is left as it is: try again",
        .path.display()
    )]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// The replica has another page size.
    #[error(
        "{}: the file has pages of {held} bytes and the origin has pages of {origin}. Pull into another \
         file, or replace it with --force", .path.display()
    )]
    PageSize {
        /// The replica.
        path: PathBuf,
        /// Its page size.
        held: PageSize,
        /// The origin's page size.
        origin: PageSize,
    },
    /// The file is gone, yet its journal is there: SQLite would mix it into a new file of that name.
    #[error(
        "{}: the database does not exist, yet {} does. Move that away first: SQLite would mix it into the \
         new file", .path.display(), .leftover.display()
    )]
    Leftover {
        /// The database that does not exist.
        path: PathBuf,
        /// The journal or WAL that does.
        leftover: PathBuf,
    },
    /// Something was created where the new file was to go.
    #[error("{}: the file did not exist before and was created by another program meanwhile: try again", .path.display())]
    Appeared {
        /// The file.
        path: PathBuf,
    },
    /// The peer sent, or asked for, what it may not.
    #[error("the peer broke the protocol: {0}")]
    Invalid(&'static str),
    /// A block from the peer is not one.
    #[error("the peer sent a broken block: {0}")]
    Block(#[from] BlockError),
    /// What arrived is not what the origin says it sent.
    #[error("what arrived does not add up to what the origin says it sent: nothing was changed")]
    Proof,
    /// Nothing proves what was agreed on.
    #[error("nothing was agreed on: the exchange did not end, or its protocol version proves nothing")]
    NothingAgreed,
    /// The file of page hashes is not what it was written as.
    #[error(
        "{}: the stored page hashes were damaged and have been removed: run again, and the database is scanned",
        .path.display()
    )]
    Hashes {
        /// The file with the hashes.
        path: PathBuf,
    },
    /// Reading or writing a file that is no database failed.
    #[error("{}: {doing} failed: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("{}: {source}", .path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The SQLite in this program does not do.
    #[error("this program was built with a SQLite that does not do: {0}")]
    Library(String),
    /// The other end of a thread of this process is gone; the error that ended it is reported there.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// From an I/O error, with what the system's reasons mean here.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::DiskFull { path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                let source = Box::new(Error::Io { doing, path: path.clone(), source });
                Error::Denied { path, source }
            }
            _ => Error::Io { doing, path, source },
        }
    }

    /// From an error of SQLite, with what its codes mean here.
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> Error {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Error::NotADatabase { path },
            Some(
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed,
            ) => Error::Busy { path },
            Some(ErrorCode::DiskFull) => Error::DiskFull { path },
            _ if is_moved(&source) => Error::ChangedMeanwhile { path },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                let source = Box::new(Error::Sqlite { path: path.clone(), source });
                Error::Denied { path, source }
            }
            _ => Error::Sqlite { path, source },
        }
    }
}

/// Whether SQLite found another file under the name of the one that it has open, or none.
fn is_moved(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_READONLY_DBMOVED)
}

/// The closure that turns an I/O error into ours, for `map_err`.
pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::io(doing, &path, source)
}

impl Fault for Error {
    fn refusal(&self) -> Refusal {
        match self {
            Error::Missing { .. } | Error::Dangling { .. } => Refusal::NotFound,
            Error::Busy { .. }
            | Error::ChangedMeanwhile { .. }
            | Error::Appeared { .. }
            | Error::Hashes { .. } => Refusal::TryLater,
            Error::Invalid(_) | Error::Block(_) => Refusal::Invalid,
            Error::Proof => Refusal::Integrity,
            Error::LocallyChanged { .. } => Refusal::NotWanted,
            _ => Refusal::Failed,
        }
    }

    fn public_text(&self) -> String {
        match self {
            Error::Missing { .. } | Error::Dangling { .. } => "no such file or folder".into(),
            Error::NotAFile { .. } | Error::NotADatabase { .. } => "not a SQLite database".into(),
            Error::Empty { .. } => "the database is empty".into(),
            Error::Denied { .. } => "no permission for the database file".into(),
            Error::Busy { .. } => "the database is in use, try again".into(),
            Error::DiskFull { .. } => "the disk is full".into(),
            Error::LocallyChanged { .. } => {
                "the replica has changes of its own and was not overwritten".into()
            }
            Error::ChangedMeanwhile { .. } | Error::Appeared { .. } => {
                "the replica was changed meanwhile, try again".into()
            }
            Error::PageSize { held, origin, .. } => {
                // The words are sqlite3_rsync's, which may be who hears them.
                format!("page size mismatch; origin is {origin} bytes and replica is {held} bytes")
            }
            Error::Leftover { .. } => "a journal without its database is in the way".into(),
            Error::Invalid(_) | Error::Block(_) | Error::Proof | Error::NothingAgreed => self.to_string(),
            Error::Hashes { .. }
            | Error::Io { .. }
            | Error::Sqlite { .. }
            | Error::Library(_)
            | Error::Stopped => "the database file could not be read or written".into(),
        }
    }
}
