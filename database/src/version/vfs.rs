//! A file system for SQLite in which there is one database: the version that was opened with it. For a temporary
//! database there is none, and only files without a name.
//!
//! - Each open version registers one of its own, under a random name, and takes it away when it is closed.
//!   So temporary files, which SQLite opens without a name, are known to be this version's, and no SQL of
//!   whatever connection names another version's file.
//! - There is nothing else in it: no folder, no other database, no WAL. A journal and temporary files are
//!   [`Scratch`](super::scratch::Scratch).
//! - No panic leaves a function that SQLite calls: [`guarded`] turns one into an I/O error.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::ffi;

use super::error::Trouble;
use super::file::{self, Handle};
use super::shared::Shared;

/// What the database is called in its file system.
pub(super) const DATABASE: &CStr = c"version";

/// The longest name that SQLite makes here is that of the database with `-journal` behind it.
const NAME_MAX: c_int = 64;

/// Random bytes in the name of a file system.
const RANDOM_LEN: usize = 16;

/// What SQLite knows, with what its functions need behind it.
#[repr(C)]
struct Vfs {
    base: ffi::sqlite3_vfs,
    name: CString,
    shared: Arc<Shared>,
}

/// A file system that SQLite knows. Dropped after the connection that uses it.
pub(super) struct Registered(NonNull<Vfs>);

// SAFETY: what it points to is ours alone; SQLite changes only the list that it is in, under a lock of its own.
// The rest of it may be shared between threads, which is checked here.
unsafe impl Send for Registered
where
    CString: Send + Sync,
    Arc<Shared>: Send + Sync,
{
}

impl Registered {
    pub(super) fn new(shared: Arc<Shared>) -> rusqlite::Result<Registered> {
        let name = random_name();
        let base = ffi::sqlite3_vfs {
            iVersion: 1,
            szOsFile: file::SIZE,
            mxPathname: NAME_MAX,
            pNext: std::ptr::null_mut(),
            // The name's bytes are on the heap, and stay there as the `CString` is moved.
            zName: name.as_ptr(),
            pAppData: std::ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: Some(dl_open),
            xDlError: Some(dl_error),
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: None,
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        };
        let registered = Registered(NonNull::from(Box::leak(Box::new(Vfs { base, name, shared }))));
        // SAFETY: it stays where it is until `drop` takes it away, and begins with what SQLite knows.
        match unsafe { ffi::sqlite3_vfs_register(registered.0.as_ptr().cast(), 0) } {
            ffi::SQLITE_OK => Ok(registered),
            code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
        }
    }

    pub(super) fn name(&self) -> &CStr {
        // SAFETY: it is there until `drop`, and nobody writes to the name.
        unsafe { &(*self.0.as_ptr()).name }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        // SAFETY: as for the name.
        unsafe { &(*self.0.as_ptr()).shared }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: it was registered, or is not found, which does nothing. The connection is closed (or cannot
        // be reached any more), so nobody uses it, and it came from a box.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.0.as_ptr().cast());
            drop(Box::from_raw(self.0.as_ptr()));
        }
    }
}

/// A name that nobody guesses.
fn random_name() -> CString {
    let mut random = [0u8; RANDOM_LEN];
    // SAFETY: as many bytes are asked for as there are.
    unsafe { ffi::sqlite3_randomness(RANDOM_LEN as c_int, random.as_mut_ptr().cast()) };
    let mut name = String::from("sqlrsync-version-");
    random.iter().for_each(|byte| name.push_str(&format!("{byte:02x}")));
    CString::new(name).unwrap_or_default()
}

/// Runs what SQLite asked for. A panic becomes an error, and is noted.
pub(super) fn guarded(shared: &Shared, run: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        // Dropping what was thrown could throw again.
        std::mem::forget(panic);
        shared.keep(Trouble::Bug);
        ffi::SQLITE_IOERR
    })
}

/// What a file system belongs to.
///
/// # Safety
/// `vfs` is one that [`Registered`] made and still holds.
unsafe fn shared_of<'v>(vfs: *mut ffi::sqlite3_vfs) -> &'v Arc<Shared> {
    // SAFETY: it is the first field of a `Vfs`, which is there for as long as SQLite knows it, and nobody writes to
    // this one.
    unsafe { &(*vfs.cast::<Vfs>()).shared }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the VFS that is registered.
    let shared = unsafe { shared_of(vfs) };
    // SAFETY: `file` has room for a file of ours (`szOsFile`). Without methods SQLite does not close it.
    unsafe { (*file).pMethods = std::ptr::null() };
    guarded(shared, || {
        // SAFETY: a name is null or ends with a zero.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
        let Some(handle) = Handle::open(shared, name, flags) else { return ffi::SQLITE_CANTOPEN };
        // SAFETY: as above, and it is not open yet.
        unsafe { file::put(file, handle) };
        if !out_flags.is_null() {
            // SAFETY: SQLite gives a place for it, or null.
            unsafe { *out_flags = flags };
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    // SAFETY: SQLite calls this with the VFS that is registered, and a name that ends with a zero.
    let (shared, name) = unsafe { (shared_of(vfs), CStr::from_ptr(name)) };
    guarded(shared, || {
        if file::is_journal(name) {
            shared.files().journal = None;
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the VFS that is registered, and a name that ends with a zero.
    let (shared, name) = unsafe { (shared_of(vfs), CStr::from_ptr(name)) };
    guarded(shared, || {
        let exists = file::is_journal(name) && shared.files().journal.is_some();
        // SAFETY: SQLite gives a place for the answer.
        unsafe { *out = c_int::from(exists) };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    out_len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the name ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(out_len).is_ok_and(|room| name.len() <= room) {
        // SAFETY: there is room for it, and SQLite's buffer is not the name.
        unsafe { std::ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len()) };
        return ffi::SQLITE_OK;
    }
    ffi::SQLITE_CANTOPEN
}

/// There are no extensions in here.
unsafe extern "C" fn dl_open(_: *mut ffi::sqlite3_vfs, _: *const c_char) -> *mut c_void {
    std::ptr::null_mut()
}

/// What SQLite asks for after [`dl_open`]: there is nothing to add.
unsafe extern "C" fn dl_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) {}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's generator is seeded by the default VFS, not by this one, and `out` has room for `len`.
    unsafe { ffi::sqlite3_randomness(len, out.cast()) };
    len
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(Duration::from_micros(u64::from(microseconds.unsigned_abs())));
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    /// The Julian day of 1970-01-01 at midnight.
    const UNIX_EPOCH_DAY: f64 = 2_440_587.5;
    const SECONDS_OF_A_DAY: f64 = 86_400.0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // SAFETY: SQLite gives a place for it.
    unsafe { *out = UNIX_EPOCH_DAY + now.as_secs_f64() / SECONDS_OF_A_DAY };
    ffi::SQLITE_OK
}
