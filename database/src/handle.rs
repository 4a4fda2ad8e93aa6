//! The database file past SQLite's page cache: read through the handle that SQLite itself has open, or
//! through another one that SQLite's VFS opens for us.
//!
//! Nothing is opened without SQLite. POSIX takes all of a process's locks on a file away when any of its
//! descriptors of that file is closed; SQLite's VFS knows that, and keeps a descriptor until no lock is left.

use std::ffi::{c_char, c_int};
use std::ptr::{NonNull, null_mut};

use rusqlite::{Connection, ffi};

/// How much is read in one call. SQLite itself asks its file for a page at most, which is not longer.
const READ_LEN: usize = 64 << 10;

const MAIN: *const c_char = c"main".as_ptr();

/// A code of SQLite's that is not `SQLITE_OK`.
pub(crate) type Code = c_int;

/// Fills `out` from the connection's own handle of its database file. A file that is shorter reads as zeros.
pub(crate) fn read(connection: &Connection, start: i64, out: &mut [u8]) -> Result<(), Code> {
    let mut file: *mut ffi::sqlite3_file = null_mut();
    control(connection, ffi::SQLITE_FCNTL_FILE_POINTER, &mut file)?;
    let file = NonNull::new(file).ok_or(ffi::SQLITE_INTERNAL)?;
    // SAFETY: the file object is SQLite's, and open for as long as the connection is; nobody else uses the
    // connection while it is borrowed.
    unsafe { read_pieces(file, start, out) }
}

/// Another handle of a connection's database file, for one thread at a time, and no longer than SQLite has the
/// file open itself.
pub(crate) struct Handle {
    /// The VFS's file object: as much memory as it asks for, aligned for whatever it keeps there.
    file: Box<[u64]>,
    name: *const c_char,
}

// SAFETY: no part of SQLite's file objects belongs to a thread: what several of them share is behind SQLite's
// own mutex, which is compiled in (rusqlite refuses a library without it).
unsafe impl Send for Handle {}

impl Handle {
    /// Opens it for reading. An error where the file under the connection's name is another by now, or
    /// cannot be opened again.
    pub(crate) fn open(connection: &Connection) -> Result<Handle, Code> {
        let mut vfs: *mut ffi::sqlite3_vfs = null_mut();
        control(connection, ffi::SQLITE_FCNTL_VFS_POINTER, &mut vfs)?;
        // SAFETY: a VFS stays where it is while a connection uses it; the name is the connection's and
        // ends with a zero.
        let (vfs_ref, name) = unsafe {
            let path = ffi::sqlite3_db_filename(connection.handle(), MAIN);
            if vfs.is_null() || path.is_null() {
                return Err(ffi::SQLITE_INTERNAL);
            }
            // A copy: the file object keeps the name, and may be dropped after the connection.
            (&*vfs, ffi::sqlite3_create_filename(path, c"".as_ptr(), c"".as_ptr(), 0, null_mut()))
        };
        let open = vfs_ref.xOpen.ok_or(ffi::SQLITE_INTERNAL)?;
        if name.is_null() {
            return Err(ffi::SQLITE_NOMEM);
        }
        let words = usize::try_from(vfs_ref.szOsFile).unwrap_or(0).div_ceil(size_of::<u64>());
        let mut handle = Handle { file: vec![0; words].into_boxed_slice(), name };
        let flags = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_READONLY;
        // SAFETY: the file object has the size that the VFS asks for and is not moved (it is boxed), the name
        // was made for this, and lives until the handle is dropped.
        let code = unsafe { open(vfs, name, handle.object().as_ptr(), flags, null_mut()) };
        if code != ffi::SQLITE_OK {
            return Err(code);
        }
        // Both are what lies under the name: they are the same.
        let mut moved: c_int = 1;
        control(connection, ffi::SQLITE_FCNTL_HAS_MOVED, &mut moved)?;
        if moved != 0 || handle.has_moved()? {
            return Err(ffi::SQLITE_READONLY_DBMOVED);
        }
        Ok(handle)
    }

    /// Fills `out`. A file that is shorter reads as zeros.
    pub(crate) fn read(&mut self, start: i64, out: &mut [u8]) -> Result<(), Code> {
        // SAFETY: the file is open until the handle is dropped, and nobody else has this object.
        unsafe { read_pieces(self.object(), start, out) }
    }

    fn object(&mut self) -> NonNull<ffi::sqlite3_file> {
        NonNull::from(&mut *self.file).cast()
    }

    fn has_moved(&mut self) -> Result<bool, Code> {
        let file = self.object();
        let mut moved: c_int = 1;
        // SAFETY: the file is open, and this operation writes an `int` to where the last argument points.
        let code = unsafe {
            let methods = (*file.as_ptr()).pMethods.as_ref();
            let control = methods.and_then(|methods| methods.xFileControl).ok_or(ffi::SQLITE_INTERNAL)?;
            control(file.as_ptr(), ffi::SQLITE_FCNTL_HAS_MOVED, (&raw mut moved).cast())
        };
        if code == ffi::SQLITE_OK { Ok(moved != 0) } else { Err(code) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let file = self.object();
        // SAFETY: a VFS that opened nothing leaves no methods; what is open is closed once. Then nobody uses
        // the name any more.
        unsafe {
            if let Some(close) = (*file.as_ptr()).pMethods.as_ref().and_then(|methods| methods.xClose) {
                close(file.as_ptr());
            }
            ffi::sqlite3_free_filename(self.name);
        }
    }
}

/// Whether the file that the connection has open is not what lies under its name any more: another was put there, or
/// it was removed.
pub(crate) fn has_moved(connection: &Connection) -> bool {
    let mut moved: c_int = 0;
    // A VFS that cannot tell has no such names.
    control(connection, ffi::SQLITE_FCNTL_HAS_MOVED, &mut moved).is_ok() && moved != 0
}

/// Asks the connection's own file for something that is written to `answer`.
fn control<T>(connection: &Connection, operation: c_int, answer: &mut T) -> Result<(), Code> {
    // SAFETY: the connection is open, and each of the operations used here writes one value of the type
    // that its caller has for it.
    let code = unsafe {
        ffi::sqlite3_file_control(connection.handle(), MAIN, operation, std::ptr::from_mut(answer).cast())
    };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
}

/// # Safety
/// `file` is an open file of SQLite's that nobody else uses meanwhile.
unsafe fn read_pieces(file: NonNull<ffi::sqlite3_file>, start: i64, out: &mut [u8]) -> Result<(), Code> {
    // SAFETY: the methods of an open file are a table that never changes.
    let methods = unsafe { (*file.as_ptr()).pMethods.as_ref() };
    let read = methods.and_then(|methods| methods.xRead).ok_or(ffi::SQLITE_INTERNAL)?;
    for (piece, offset) in out.chunks_mut(READ_LEN).zip((start..).step_by(READ_LEN)) {
        // SAFETY: the file is open, and `piece` has as many bytes as are asked for.
        match unsafe { read(file.as_ptr(), piece.as_mut_ptr().cast(), piece.len() as c_int, offset) } {
            // So SQLite takes a file that is shorter, too.
            ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ => {}
            code => return Err(code),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("a.db")).unwrap();
        connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(100000))").unwrap();
        (dir, connection)
    }

    #[test]
    fn another_handle_reads_what_sqlites_own_reads() {
        let (dir, connection) = database();
        let mut handle = Handle::open(&connection).unwrap();
        let (mut own, mut other) = (vec![0; 110_000], vec![1; 110_000]);
        read(&connection, 4096, &mut own).unwrap();
        handle.read(4096, &mut other).unwrap();
        assert_eq!(own, other);
        drop((handle, connection));
        let file = std::fs::read(dir.path().join("a.db")).unwrap();
        assert_eq!(own[..file.len() - 4096], file[4096..]);
        assert!(own[file.len() - 4096..].iter().all(|byte| *byte == 0), "past the end there are zeros");
    }

    #[test]
    fn a_handle_that_is_closed_takes_no_lock_away() {
        let (dir, connection) = database();
        connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        drop(Handle::open(&connection).unwrap());
        assert!(!another_process_begins(&dir), "the lock is still held");
        connection.execute_batch("COMMIT").unwrap();
        assert!(another_process_begins(&dir));
    }

    const DATABASE: &str = "SQLRSYNC_TEST_HANDLE_DATABASE";

    /// POSIX locks do not keep out the process that holds them.
    fn another_process_begins(dir: &tempfile::TempDir) -> bool {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "handle::tests::begins_a_transaction", "--ignored"]);
        child.env(DATABASE, dir.path().join("a.db"));
        let output = child.output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(words.contains("1 passed") || words.contains("database is locked"), "{words}");
        output.status.success()
    }

    #[test]
    #[ignore = "what the test above runs in another process"]
    fn begins_a_transaction() {
        // Run for its own sake, with all that is ignored, there is nothing to do.
        let Some(path) = std::env::var_os(DATABASE) else { return };
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    }

    #[test]
    fn a_file_that_was_put_under_the_name_meanwhile_is_not_read() {
        let (dir, connection) = database();
        std::fs::copy(dir.path().join("a.db"), dir.path().join("b.db")).unwrap();
        std::fs::rename(dir.path().join("b.db"), dir.path().join("a.db")).unwrap();
        assert_eq!(Handle::open(&connection).err(), Some(ffi::SQLITE_READONLY_DBMOVED));
    }
}
