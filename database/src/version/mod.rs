//! A stored version as a SQLite database: read where it is, page by page, and written to beside it.
//!
//! - SQLite opens a [`Content`] through a file system of ours ([`vfs`]). What is written goes into an overlay,
//!   and nothing ever into the content.
//! - What is open is hostile: [`harden`] says what SQL may do. Memory, temporary space and time are bounded,
//!   whatever the pages and the schema are.
//! - What goes wrong below SQLite comes out as what it was: ask [`VersionDatabase::explain`] for it.
//!
//! `docs/versions-as-databases.md` has the whole of it.

mod error;
mod file;
mod harden;
mod kept;
mod live;
mod overlaid;
mod overlay;
mod pulled;
mod query;
mod scratch;
mod shared;
mod stop;
mod temporary;
mod vfs;
mod written;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use sqlrsync_protocol::content::Content;
use sqlrsync_protocol::page::{PageCount, PageSize};

pub use error::VersionError;
pub use harden::VALUE_MAX;
pub use kept::KeptContent;
pub use live::LiveContent;
pub use pulled::PulledContent;
pub use query::{QueryLimits, QueryOutcome, QueryRow, query};
pub(crate) use temporary::TemporaryDatabase;
pub use written::Written;

use overlaid::OverlaidFile;
use scratch::Space;
use shared::Shared;
use stop::Stop;
use vfs::Registered;

/// How much an open version may write, sort and journal, in bytes: the overlay and SQLite's temporary files
/// together. As much as a merge of everything in a large database takes.
pub const SCRATCH_MAX: u64 = 16 << 30;

/// Within what a version is used.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long it may be used, from when it is opened; `None`: for as long as it takes.
    pub time: Option<Duration>,
    /// How much may be written, sorted and journalled, in bytes. It is on disk; in memory it is a few
    /// megabytes and some 16 bytes for each page that was written.
    pub scratch: u64,
    /// The folder for temporary files; `None`: the system's. They have no name and are gone with the process.
    pub temp_dir: Option<PathBuf>,
    /// Set to `true` by whoever wants it to stop.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { time: None, scratch: SCRATCH_MAX, temp_dir: None, cancel: None }
    }
}

/// A version that is open as a database. It can be written to; what was written is had by [`Self::written`],
/// and is gone when this is dropped.
pub struct VersionDatabase {
    connection: Connection,
    // After the connection, which uses it until it is closed.
    registered: Registered,
}

impl VersionDatabase {
    /// Opens a content.
    ///
    /// # Errors
    /// Where the content cannot be read, or is no database that SQLite can read.
    pub fn open(content: Box<dyn Content>, limits: Limits) -> Result<VersionDatabase, VersionError> {
        let page_size = content.geometry().page_size;
        let is_empty = content.geometry().page_count == PageCount::ZERO;
        let space = Space::new(limits.scratch, limits.temp_dir);
        let mut file = OverlaidFile::new(content, Arc::clone(&space));
        if !is_empty {
            check_page_size(&mut file, page_size)?;
        }
        let shared = Shared::new(file, space, Stop::new(limits.time, limits.cancel));
        let registered = Registered::new(shared).map_err(VersionError::of_sqlite)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(name_of_database(), flags, registered.name())
            .map_err(|error| explain(registered.shared(), error))?;
        let database = VersionDatabase { connection, registered };
        let harden = || {
            harden::harden(&database.connection, database.shared())?;
            if is_empty {
                database.connection.pragma_update(None, "page_size", page_size.bytes() as i64)?;
            }
            // Reads page 1, at the least: what is no database shows here.
            database.connection.query_row("PRAGMA schema_version", [], |_| Ok(()))
        };
        harden().map_err(|error| database.explain(error))?;
        database.check()?;
        database.shared().is_opened();
        Ok(database)
    }

    /// The connection. It has no other file, triggers and views are off, and so are foreign keys until somebody
    /// turns them on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether SQL may write what only SQLite itself should: shadow tables of virtual tables. It may not, until
    /// it is said so here; a merge that replays rows of shadow tables says so.
    ///
    /// # Errors
    /// Where SQLite does not take it.
    pub fn set_defensive(&self, on: bool) -> Result<(), VersionError> {
        let set = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, on);
        set.map(drop).map_err(|error| self.explain(error))
    }

    /// What an error of this connection comes from: the page that could not be read, the time that is over,
    /// and not only "disk I/O error".
    pub fn explain(&self, error: rusqlite::Error) -> VersionError {
        explain(self.shared(), error)
    }

    /// Whether something failed that nobody asked [`Self::explain`] about, below SQLite or since time is up. To
    /// be asked when something else than a `rusqlite::Error` says that it failed, and after `integrity_check` and
    /// what has virtual tables, which may swallow an error.
    ///
    /// # Errors
    /// What it was.
    pub fn check(&self) -> Result<(), VersionError> {
        match self.shared().take_trouble() {
            Some(trouble) => Err(trouble.into()),
            None => self.shared().stop.is_over().map_or(Ok(()), Err),
        }
    }

    /// Closes it, and gives what was committed. A transaction that is open is rolled back.
    ///
    /// # Errors
    /// Where reading or writing failed on the way and nobody asked for it, where what an error left in the
    /// middle could not be taken back, and where the page size was changed.
    pub fn written(self) -> Result<Written, VersionError> {
        self.settle();
        let VersionDatabase { connection, registered } = self;
        let closed = connection.close().map_err(|(_, error)| VersionError::of_sqlite(error));
        let shared = Arc::clone(registered.shared());
        drop(registered);
        closed?;
        if let Some(trouble) = shared.take_trouble() {
            return Err(trouble.into());
        }
        let mut files = shared.files();
        // SQLite deletes it when a transaction is over, either way.
        if files.journal.is_some() {
            return Err(VersionError::Unsettled);
        }
        let main = files.main.take().ok_or(VersionError::Bug)?;
        Written::new(main)
    }

    /// Ends what is open. Where an error left a change in the middle, SQLite takes it back when it next looks at
    /// the file, which may be now. That it did shows in the journal.
    fn settle(&self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        if self.shared().files().journal.is_some() {
            let _ = self.connection.query_row("PRAGMA schema_version", [], |_| Ok(()));
        }
    }

    fn shared(&self) -> &Shared {
        self.registered.shared()
    }
}

fn explain(shared: &Shared, error: rusqlite::Error) -> VersionError {
    match error.sqlite_error_code() {
        // A row that breaks a rule says nothing about pages.
        Some(ErrorCode::ConstraintViolation) => VersionError::Sqlite(error),
        Some(ErrorCode::OperationInterrupted) => shared.stop.why(),
        _ => match shared.take_trouble() {
            Some(trouble) => trouble.into(),
            None => VersionError::of_sqlite(error),
        },
    }
}

/// Bounds the memory of all of SQLite in this process, in bytes: beyond it a statement fails, of whatever
/// connection. Page caches are bounded for each; what a statement has in its registers is not. A program calls
/// this once, as it starts, with much more than it needs.
pub fn limit_heap(bytes: u64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // SAFETY: it takes a number and may be called at any time.
    unsafe { ffi::sqlite3_hard_heap_limit64(bytes) };
}

/// What page 1 says must be what the pages are: else SQLite would have pages of its own, across ours.
fn check_page_size(file: &mut OverlaidFile, stored: PageSize) -> Result<(), VersionError> {
    /// Where on page 1 the page size is, 65,536 written as 1.
    const PAGE_SIZE_AT: u64 = 16;
    let mut bytes = [0; 2];
    file.read(PAGE_SIZE_AT, &mut bytes)?;
    match u16::from_be_bytes(bytes) {
        1 if stored == PageSize::MAX => Ok(()),
        bytes if usize::from(bytes) == stored.bytes() => Ok(()),
        _ => Err(VersionError::PageSize { stored }),
    }
}

/// The database's name in its file system, as a path.
fn name_of_database() -> &'static str {
    vfs::DATABASE.to_str().unwrap_or_default()
}
