//! The files of [`super::vfs`]: what SQLite does with the database, its journal and its temporary files.
//!
//! - A connection uses its files from one thread at a time, and no other connection has them: there is nothing
//!   to lock.
//! - What fails below SQLite is kept in [`Shared`] as what it was; SQLite gets the number for it.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use rusqlite::ffi;

use super::error::Trouble;
use super::scratch::Scratch;
use super::shared::Shared;
use super::vfs::{DATABASE, guarded};

/// The journal's name: SQLite makes it from the database's.
const JOURNAL: &CStr = c"version-journal";

/// How much of a journal, or of a temporary file, is kept in memory. There is one journal, and there may be
/// many temporary files.
const JOURNAL_MEMORY: usize = 1 << 20;
const TEMP_MEMORY: usize = 64 << 10;

/// What a sector is, for SQLite: the least there is, so that it journals no page beside one that changes.
const SECTOR_LEN: c_int = 512;

/// So large is a file of ours to SQLite.
pub(super) const SIZE: c_int = size_of::<File>() as c_int;

/// Whether this is the name of the journal.
pub(super) fn is_journal(name: &CStr) -> bool {
    name == JOURNAL
}

/// What SQLite has room for: its own part first, then ours.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// From a box.
    handle: *mut Handle,
}

/// An open file.
pub(super) struct Handle {
    shared: Arc<Shared>,
    kind: Kind,
}

enum Kind {
    Main,
    Journal,
    Temp(Scratch),
}

impl Handle {
    /// Opens a file; `None` where there is none and none may be.
    pub(super) fn open(shared: &Arc<Shared>, name: Option<&CStr>, flags: c_int) -> Option<Handle> {
        const TEMP: c_int = ffi::SQLITE_OPEN_TEMP_DB
            | ffi::SQLITE_OPEN_TEMP_JOURNAL
            | ffi::SQLITE_OPEN_TRANSIENT_DB
            | ffi::SQLITE_OPEN_SUBJOURNAL;
        let kind = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            let mut files = shared.files();
            if name != Some(DATABASE) || files.is_open || files.main.is_none() {
                return None;
            }
            files.is_open = true;
            Kind::Main
        } else if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 && name == Some(JOURNAL) {
            shared.files().journal.get_or_insert_with(|| Scratch::new(&shared.space, JOURNAL_MEMORY));
            Kind::Journal
        } else if flags & TEMP != 0 {
            Kind::Temp(Scratch::new(&shared.space, TEMP_MEMORY))
        } else {
            return None;
        };
        Some(Handle { shared: Arc::clone(shared), kind })
    }

    /// Gives how much was there; the rest is zeros.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, c_int> {
        let files = &mut *self.shared.files();
        let read = match (&self.kind, &mut files.main, &files.journal) {
            (Kind::Main, Some(_), _) if self.shared.stop.is_due() => return Err(ffi::SQLITE_INTERRUPT),
            (Kind::Main, Some(main), _) => {
                self.shared.count_read(into.len()).and_then(|()| main.read(offset, into))
            }
            (Kind::Journal, _, Some(journal)) => journal.read(offset, into),
            (Kind::Temp(scratch), ..) => scratch.read(offset, into),
            _ => return Err(ffi::SQLITE_IOERR_READ),
        };
        read.map_err(|trouble| self.failed(trouble, ffi::SQLITE_IOERR_READ))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), c_int> {
        let files = &mut *self.shared.files();
        let written = match (&mut self.kind, &mut files.main, &mut files.journal) {
            (Kind::Main, Some(main), _) => main.write(offset, bytes),
            (Kind::Journal, _, Some(journal)) => journal.write(offset, bytes),
            (Kind::Temp(scratch), ..) => scratch.write(offset, bytes),
            _ => return Err(ffi::SQLITE_IOERR_WRITE),
        };
        written.map_err(|trouble| self.failed(trouble, ffi::SQLITE_IOERR_WRITE))
    }

    fn truncate(&mut self, len: u64) -> Result<(), c_int> {
        let files = &mut *self.shared.files();
        let cut = match (&mut self.kind, &mut files.main, &mut files.journal) {
            (Kind::Main, Some(main), _) => main.truncate(len),
            (Kind::Journal, _, Some(journal)) => journal.truncate(len),
            (Kind::Temp(scratch), ..) => scratch.truncate(len),
            _ => return Err(ffi::SQLITE_IOERR_TRUNCATE),
        };
        cut.map_err(|trouble| self.failed(trouble, ffi::SQLITE_IOERR_TRUNCATE))
    }

    fn len(&self) -> u64 {
        let files = self.shared.files();
        match &self.kind {
            Kind::Main => files.main.as_ref().map_or(0, |main| main.len()),
            Kind::Journal => files.journal.as_ref().map_or(0, Scratch::len),
            Kind::Temp(scratch) => scratch.len(),
        }
    }

    /// Keeps the cause and gives SQLite's number for it.
    fn failed(&self, trouble: Trouble, code: c_int) -> c_int {
        let code = if matches!(trouble, Trouble::Full { .. }) { ffi::SQLITE_FULL } else { code };
        self.shared.keep(trouble);
        code
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if matches!(self.kind, Kind::Main) {
            self.shared.files().is_open = false;
        }
    }
}

/// Makes an open file of what SQLite gave room for.
///
/// # Safety
/// `file` has room for [`SIZE`] bytes and is not open.
pub(super) unsafe fn put(file: *mut ffi::sqlite3_file, handle: Handle) {
    let base = ffi::sqlite3_file { pMethods: &METHODS };
    let handle = Box::into_raw(Box::new(handle));
    // SAFETY: there is room for it, aligned as SQLite aligns all its memory, and nothing in it to drop.
    unsafe { file.cast::<File>().write(File { base, handle }) };
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// What an open file is, for one call.
///
/// # Safety
/// `file` was made by [`put`] and not closed since, and no other call for it is under way.
unsafe fn handle_of<'f>(file: *mut ffi::sqlite3_file) -> &'f mut Handle {
    // SAFETY: `put` wrote a `File` there with a handle from a box, which `close` alone frees.
    unsafe { &mut *(*file.cast::<File>()).handle }
}

/// Runs a call for a file; what it gives in the end is a number.
fn answer(handle: &mut Handle, run: impl FnOnce(&mut Handle) -> Result<c_int, c_int>) -> c_int {
    let shared = Arc::clone(&handle.shared);
    guarded(&shared, || run(handle).unwrap_or_else(|code| code))
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once, and does not use it after that.
    let handle = unsafe { Box::from_raw((*file.cast::<File>()).handle) };
    // SAFETY: as above.
    unsafe { (*file).pMethods = std::ptr::null() };
    let shared = Arc::clone(&handle.shared);
    guarded(&shared, || {
        drop(handle);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, out: *mut c_void, len: c_int, offset: i64) -> c_int {
    let (Ok(len), Ok(offset)) = (usize::try_from(len), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite calls this with an open file, one call at a time.
    let handle = unsafe { handle_of(file) };
    // SAFETY: SQLite gives room for `len` bytes; they are written before they become a slice, which must not
    // be of bytes that nobody wrote.
    let into = unsafe {
        out.cast::<u8>().write_bytes(0, len);
        std::slice::from_raw_parts_mut(out.cast::<u8>(), len)
    };
    answer(handle, |handle| match handle.read(offset, into)? {
        there if there == len => Ok(ffi::SQLITE_OK),
        // SQLite wants the rest to be zeros, which it is.
        _ => Ok(ffi::SQLITE_IOERR_SHORT_READ),
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    let (Ok(len), Ok(offset)) = (usize::try_from(len), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite calls this with an open file, one call at a time, and with `len` bytes.
    let (handle, bytes) = unsafe { (handle_of(file), std::slice::from_raw_parts(bytes.cast::<u8>(), len)) };
    answer(handle, |handle| handle.write(offset, bytes).map(|()| ffi::SQLITE_OK))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    let Ok(len) = u64::try_from(len) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: SQLite calls this with an open file, one call at a time.
    let handle = unsafe { handle_of(file) };
    answer(handle, |handle| handle.truncate(len).map(|()| ffi::SQLITE_OK))
}

/// Nothing here outlives the process.
unsafe extern "C" fn sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: SQLite calls this with an open file, one call at a time.
    let handle = unsafe { handle_of(file) };
    answer(handle, |handle| {
        let len = i64::try_from(handle.len()).map_err(|_| ffi::SQLITE_IOERR_FSTAT)?;
        // SAFETY: SQLite gives a place for it.
        unsafe { *out = len };
        Ok(ffi::SQLITE_OK)
    })
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// It has none of the additional ones.
unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_LEN
}

/// A write changes no byte beside it, and nothing is lost in a crash that anybody would look for.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SAFE_APPEND | ffi::SQLITE_IOCAP_SEQUENTIAL
}
