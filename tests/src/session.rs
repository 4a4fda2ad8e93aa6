//! SQLite's session extension, as far as a test applies a changeset with it. It is in the SQLite that the tests are
//! built with.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;

use rusqlite::{Connection, ffi};

type Conflict = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;

unsafe extern "C" {
    fn sqlite3changeset_apply(
        db: *mut ffi::sqlite3,
        len: c_int,
        changeset: *const c_void,
        filter: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int>,
        conflict: Conflict,
        context: *mut c_void,
    ) -> c_int;
}

/// Applies a changeset to a database, and gives SQLite's code. What does not fit ends it, and then nothing is applied.
pub fn apply(path: &Path, changeset: &[u8]) -> i32 {
    unsafe extern "C" fn abort(_: *mut c_void, _: c_int, _: *mut c_void) -> c_int {
        2 // SQLITE_CHANGESET_ABORT
    }
    let database = Connection::open(path).expect("the database opens");
    let len = c_int::try_from(changeset.len()).expect("a changeset of a test");
    // SAFETY: the connection is open throughout, the bytes are as many as said, and what is called back takes no
    // notice of what it is given.
    unsafe {
        let bytes = changeset.as_ptr().cast();
        sqlite3changeset_apply(database.handle(), len, bytes, None, abort, null_mut())
    }
}
