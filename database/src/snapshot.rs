//! A snapshot of a live database: what one read transaction sees, the WAL included, while others write.
//!
//! - SQLite alone opens the file: opening it by hand would drop SQLite's locks on it. How pages are read
//!   is in [`crate::pages`].
//! - The file is opened for writing although nothing is written: a hot journal must be rolled back and
//!   a WAL left by a crash recovered, by whoever comes first.
//! - Dropping the snapshot ends the transaction and closes the connection.
//! - Others may change the file past SQLite: `cp` over it, another file put under its name, a removal. SQLite does not
//!   keep them out, nor notice, so it is looked for where it shows.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use sqlrsync_protocol::canonical::{DATABASE_HEADER_LEN, HeaderFields};
use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};

use crate::error::Error;
use crate::fingerprint::{Fingerprint, Mark, TICK, Wal, stat};
use crate::handle::has_moved;
use crate::pages::{ReadPages, View};

/// How long to wait for a lock that another program holds: what a reader in rollback mode waits for a
/// commit, and an apply for readers.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often a file is opened that was changed past SQLite as it was opened, and how long to wait in between: a file is
/// removed and made again in less, or copied, if it is no large one.
const OPENINGS_MAX: u32 = 4;
const OPENING_PAUSE: Duration = Duration::from_millis(50);

/// A file that cannot be read and was last written to longer ago is not being copied.
const COPYING_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Opens an existing database through SQLite. The path is absolute, so that SQLite does not take one
/// that begins with `file:` for a URI.
pub(crate) fn connect(path: &Path) -> Result<Connection, Error> {
    let mut openings = 1;
    loop {
        stat(path)?;
        match connect_once(path) {
            // It may have been removed since, or be back by now. What is really denied stays so.
            Err(Error::Denied { .. }) if openings < OPENINGS_MAX => openings += 1,
            connected => return connected,
        }
    }
}

fn connect_once(path: &Path) -> Result<Connection, Error> {
    let path_absolute =
        std::path::absolute(path).map_err(|error| Error::io("naming the file", path, error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path_absolute, flags)?;
        connection.busy_timeout(LOCK_WAIT)?;
        // What runs here is only ours; nothing that a schema brings along is to run with it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.pragma_update(None, "foreign_keys", false)?;
        Ok(connection)
    };
    open().map_err(|error| Error::sqlite(path, error))
}

/// A read transaction that sees one committed state.
pub(crate) struct Snapshot {
    path: PathBuf,
    connection: Connection,
    geometry: Geometry,
    fields: HeaderFields,
    fingerprint: Fingerprint,
    wal: Wal,
    /// What `stat` said after the transaction began, in rollback mode: it holds SHARED, and nobody who asks SQLite
    /// writes to the file before it ends.
    kept_still: Option<Metadata>,
}

impl Snapshot {
    /// Opens the file and fixes what is seen.
    pub(crate) fn open(path: &Path) -> Result<Snapshot, Error> {
        let mut openings = 1;
        loop {
            match Snapshot::open_once(path) {
                Err(error) if openings < OPENINGS_MAX && may_pass(path, &error) => openings += 1,
                opened => return opened,
            }
            std::thread::sleep(OPENING_PAUSE);
        }
    }

    fn open_once(path: &Path) -> Result<Snapshot, Error> {
        // Taken before the transaction begins: whatever is written after this look changes the ctime,
        // and so is found out, whether the transaction sees it or not.
        let before = settled_fingerprint(path)?;
        Snapshot::begin(path, before, connect(path)?)
    }

    fn begin(path: &Path, before: Fingerprint, connection: Connection) -> Result<Snapshot, Error> {
        let begin = || -> rusqlite::Result<Option<(Geometry, HeaderFields)>> {
            connection.execute_batch("BEGIN")?;
            look(&connection)
        };
        let seen = begin().map_err(|error| blame(path, &before, Error::sqlite(path, error)))?;
        // SQLite opens the WAL by its name, at the first read: it may be that of another file than is open.
        if has_moved(&connection) {
            return Err(match stat(path) {
                Ok(_) => Error::ChangedMeanwhile { path: path.to_path_buf() },
                Err(error) => error,
            });
        }
        let Some((geometry, fields)) = seen else { return Err(Error::Empty { path: path.to_path_buf() }) };
        let wal = wal_of(path, &connection)?;
        let kept_still = if fields.is_wal() { None } else { Some(stat(path)?) };
        Ok(Snapshot {
            path: path.to_path_buf(),
            connection,
            geometry,
            fields,
            fingerprint: before.with_wal(wal),
            wal,
            kept_still,
        })
    }

    /// One that leaves the file and its WAL as they are: the last to close a database would otherwise move what is
    /// in the WAL into the file. Where nothing is in it, closing removes what opening has made.
    pub(crate) fn open_to_look(path: &Path) -> Result<Snapshot, Error> {
        let snapshot = Snapshot::open(path)?;
        if snapshot.wal != Wal::Empty {
            let set = snapshot.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            set.map_err(|error| Error::sqlite(path, error))?;
        }
        Ok(snapshot)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The fields of page 1 that the canonical form leaves out.
    pub(crate) fn fields(&self) -> HeaderFields {
        self.fields
    }

    /// A fingerprint that belongs to what is seen here: a write that this snapshot does not show is
    /// found out later, whenever it was made. It does not say what the file is *now*, which is for
    /// [`Snapshot::is_as_of`]: the look is older than what is seen.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Whether what is seen here is, for certain, what the file had when `then` was taken. The file is looked at once
    /// more: whoever opened this waited, perhaps, for a commit that was made after the look before.
    pub(crate) fn is_as_of(&self, then: &Fingerprint) -> Result<bool, Error> {
        let is_same_wal = then.wal != Wal::Unknown && then.wal == self.wal;
        Ok(is_same_wal && then.proves_unwritten(&stat(&self.path)?))
    }

    /// Whether what is seen is, for certain, made from something else than the file with that fingerprint and those
    /// fields: it is older, as one that was put back from a backup, or another file.
    pub(crate) fn is_made_from_another(
        &self,
        fields: HeaderFields,
        then: Option<&Fingerprint>,
    ) -> Result<bool, Error> {
        let now = stat(&self.path)?;
        Ok(self.fields.is_put_back(fields) || then.is_some_and(|then| then.is_of_another(&now)))
    }
}

/// Whether the file was changed past SQLite just now, or may be in the middle of it.
fn may_pass(path: &Path, error: &Error) -> bool {
    match error {
        Error::ChangedMeanwhile { .. } => true,
        Error::NotADatabase { .. } | Error::Sqlite { .. } => {
            let age = stat(path).ok().and_then(|file| file.modified().ok()?.elapsed().ok());
            age.is_some_and(|age| age < COPYING_PAUSE_MAX)
        }
        _ => false,
    }
}

/// An error of SQLite's, where the file has been changed meanwhile: what was read belongs to nothing then.
pub(crate) fn blame(path: &Path, before: &Fingerprint, error: Error) -> Error {
    let is_changed = |now: &Metadata| match error {
        // A file in use is written to, and may not be open to us all the same.
        Error::Denied { .. } => before.is_of_another(now),
        Error::NotADatabase { .. } | Error::Sqlite { .. } => before.shows_a_write(now),
        _ => false,
    };
    match stat(path) {
        Err(missing @ Error::Missing { .. }) => missing,
        Ok(now) if is_changed(&now) => Error::ChangedMeanwhile { path: path.to_path_buf() },
        _ => error,
    }
}

/// Whether the database is in WAL mode; `None` where there is no file yet, or nothing in it.
///
/// # Errors
/// As [`crate::LiveOrigin`] has them for a file that cannot be read.
pub fn is_wal(path: &Path) -> Result<Option<bool>, Error> {
    match Snapshot::open(path) {
        Ok(snapshot) => Ok(Some(snapshot.fields().is_wal())),
        Err(Error::Missing { .. } | Error::Empty { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl ReadPages for Snapshot {
    fn view(&self) -> View<'_> {
        let Snapshot { path, connection, geometry, wal, .. } = self;
        View { path, connection, geometry: *geometry, wal: *wal }
    }

    fn check(&self) -> Result<(), Error> {
        let Some(then) = &self.kept_still else { return Ok(()) };
        // Another file under the name is no matter: the one that is open is as it was.
        if has_moved(&self.connection) || stat(&self.path).is_ok_and(|now| is_same_write(then, &now)) {
            return Ok(());
        }
        Err(Error::ChangedMeanwhile { path: self.path.clone() })
    }
}

fn is_same_write(then: &Metadata, now: &Metadata) -> bool {
    (then.size(), then.mtime(), then.mtime_nsec()) == (now.size(), now.mtime(), now.mtime_nsec())
}

/// A snapshot that goes on after it was read.
impl ReadPages for &mut Snapshot {
    fn view(&self) -> View<'_> {
        (**self).view()
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }
}

/// What a transaction sees that a connection has open, and in which nothing was written.
pub(crate) struct InTransaction<'c> {
    pub(crate) path: &'c Path,
    /// Borrowed alone, so that another thread may read.
    pub(crate) connection: &'c mut Connection,
    pub(crate) geometry: Geometry,
}

impl ReadPages for InTransaction<'_> {
    fn view(&self) -> View<'_> {
        // SQLite does not say of a write transaction where in the WAL it ends.
        View { path: self.path, connection: self.connection, geometry: self.geometry, wal: Wal::Unknown }
    }
}

/// Page size, page count and header fields as the open transaction sees them; `None` without a page.
pub(crate) fn look(connection: &Connection) -> rusqlite::Result<Option<(Geometry, HeaderFields)>> {
    let page_count: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let page_size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    if page_count == 0 {
        return Ok(None);
    }
    let sql = "SELECT data FROM sqlite_dbpage WHERE pgno = 1";
    let fields = connection.query_row(sql, [], |row| match row.get_ref(0)?.as_blob() {
        Ok(page) if page.len() >= DATABASE_HEADER_LEN => Ok(HeaderFields::of(page)),
        _ => Err(rusqlite::Error::InvalidQuery),
    })?;
    let page_size = PageSize::from_bytes(page_size).ok_or(rusqlite::Error::InvalidQuery)?;
    Ok(Some((Geometry { page_size, page_count: PageCount(page_count) }, fields)))
}

/// The end of the WAL as the open read transaction sees it.
pub(crate) fn wal_of(path: &Path, connection: &Connection) -> Result<Wal, Error> {
    match snapshot_mark(connection) {
        Some(mark) => Wal::at_mark(path, &mark),
        // Rollback mode, or a WAL in which nothing was ever committed.
        None => Ok(match Wal::of(path)? {
            Wal::Empty => Wal::Empty,
            _ => Wal::Unknown,
        }),
    }
}

/// Takes the file's fingerprint, once more after a moment where the file was written just now, so that
/// the next run has something that proves.
pub(crate) fn settled_fingerprint(path: &Path) -> Result<Fingerprint, Error> {
    let first = Fingerprint::of(path)?;
    if first.is_settled() {
        return Ok(first);
    }
    std::thread::sleep(TICK + Duration::from_millis(1));
    Fingerprint::of(path)
}

/// `sqlite3_snapshot_get`; `None` outside of WAL mode and before the first commit to a WAL.
///
/// The 48 bytes are the header of the WAL-index, whose layout is part of the file format
/// (<https://www.sqlite.org/walformat.html#the_wal_index_header>): at 16 the last frame, at 24 its
/// cumulative checksum, at 32 the salts as they stand in the WAL.
fn snapshot_mark(connection: &Connection) -> Option<Mark> {
    let mut raw: *mut ffi::sqlite3_snapshot = std::ptr::null_mut();
    // SAFETY: the handle is open for as long as `connection` is borrowed, the name ends with a zero, and
    // `raw` is only written to.
    let code = unsafe { ffi::sqlite3_snapshot_get(connection.handle(), c"main".as_ptr(), &mut raw) };
    if code != ffi::SQLITE_OK || raw.is_null() {
        return None;
    }
    // SAFETY: on success SQLite gives a snapshot of 48 bytes (`sqlite3_snapshot.hidden`) that is ours.
    let bytes: [u8; 48] = unsafe { raw.cast::<[u8; 48]>().read_unaligned() };
    // SAFETY: it came from `sqlite3_snapshot_get` and is not used after this.
    unsafe { ffi::sqlite3_snapshot_free(raw) };
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut salts = [0; 8];
    salts.copy_from_slice(&bytes[32..40]);
    let mut checksum = [0; 8];
    checksum[..4].copy_from_slice(&word(24).to_be_bytes());
    checksum[4..].copy_from_slice(&word(28).to_be_bytes());
    Some(Mark { salts, frame: word(16), checksum })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &Path, mode: &str) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
        connection
    }

    #[test]
    fn a_commit_after_the_look_and_before_the_transaction_is_not_taken_for_what_was_there_before() {
        for mode in ["DELETE", "WAL"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let writer = create(&path, mode);
            let then = Snapshot::open(&path).unwrap().fingerprint().clone();
            assert!(Snapshot::open(&path).unwrap().is_as_of(&then).unwrap(), "{mode}: nothing was written");
            let before = settled_fingerprint(&path).unwrap();
            let connection = connect(&path).unwrap();
            writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
            let snapshot = Snapshot::begin(&path, before, connection).unwrap();
            assert!(!snapshot.is_as_of(&then).unwrap(), "{mode}");
        }
    }

    #[test]
    fn a_file_with_the_wal_of_another_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(create(&path, "WAL"));
        let before = settled_fingerprint(&path).unwrap();
        let connection = connect(&path).unwrap();
        // Its WAL is opened with the first read only, and by name.
        std::fs::remove_file(&path).unwrap();
        let _other = create(&path, "WAL");
        let error = Snapshot::begin(&path, before, connection).err().unwrap();
        assert!(matches!(error, Error::ChangedMeanwhile { .. }), "{error}");
        Snapshot::open(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_read_while_it_is_copied_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        drop(create(&path, "DELETE"));
        let whole = std::fs::read(&path).unwrap();
        for half in [&b"half a text of some other program"[..], &whole[..whole.len() / 2]] {
            std::fs::write(&path, &whole).unwrap();
            let before = settled_fingerprint(&path).unwrap();
            let connection = connect(&path).unwrap();
            std::fs::write(&path, half).unwrap();
            let error = Snapshot::begin(&path, before, connection).err().unwrap();
            assert!(matches!(error, Error::ChangedMeanwhile { .. }), "{error}");
            let error = Snapshot::open(&path).err().unwrap();
            assert!(!matches!(error, Error::ChangedMeanwhile { .. }), "it stays like that: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Snapshot::open(&path).err().unwrap(), Error::Missing { .. }));
    }
}
