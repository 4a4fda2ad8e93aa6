//! SQLite's session extension, as far as the tests compare with it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use rusqlite::{Connection, ffi};

use crate::rows::Value;

type Session = c_void;
type Iter = c_void;
type Conflict = unsafe extern "C" fn(*mut c_void, c_int, *mut Iter) -> c_int;

unsafe extern "C" {
    fn sqlite3session_create(db: *mut ffi::sqlite3, name: *const c_char, session: *mut *mut Session)
    -> c_int;
    fn sqlite3session_delete(session: *mut Session);
    fn sqlite3session_attach(session: *mut Session, table: *const c_char) -> c_int;
    fn sqlite3session_diff(
        session: *mut Session,
        from: *const c_char,
        table: *const c_char,
        error: *mut *mut c_char,
    ) -> c_int;
    fn sqlite3session_changeset(session: *mut Session, len: *mut c_int, changeset: *mut *mut c_void)
    -> c_int;
    fn sqlite3changeset_start(iter: *mut *mut Iter, len: c_int, changeset: *const c_void) -> c_int;
    fn sqlite3changeset_next(iter: *mut Iter) -> c_int;
    fn sqlite3changeset_op(
        iter: *mut Iter,
        table: *mut *const c_char,
        columns: *mut c_int,
        op: *mut c_int,
        indirect: *mut c_int,
    ) -> c_int;
    fn sqlite3changeset_pk(iter: *mut Iter, key: *mut *mut u8, columns: *mut c_int) -> c_int;
    fn sqlite3changeset_old(iter: *mut Iter, column: c_int, value: *mut *mut ffi::sqlite3_value) -> c_int;
    fn sqlite3changeset_new(iter: *mut Iter, column: c_int, value: *mut *mut ffi::sqlite3_value) -> c_int;
    fn sqlite3changeset_finalize(iter: *mut Iter) -> c_int;
    fn sqlite3changeset_apply(
        db: *mut ffi::sqlite3,
        len: c_int,
        changeset: *const c_void,
        filter: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int>,
        conflict: Conflict,
        context: *mut c_void,
    ) -> c_int;
}

/// A change as a changeset has it; `None` where a value is undefined.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub table: String,
    pub op: c_int,
    pub key: Vec<u8>,
    pub old: Vec<Option<Value>>,
    pub new: Vec<Option<Value>>,
}

/// What the session extension finds to differ between tables of two databases.
pub(super) fn session_diff(old: &Connection, new: &Connection, tables: &[String]) -> Vec<u8> {
    let mut both = Connection::open_in_memory().unwrap();
    backup(new, &mut both, "main");
    both.execute_batch("ATTACH ':memory:' AS old").unwrap();
    backup(old, &mut both, "old");
    let mut changeset = null_mut();
    let mut len = 0;
    // SAFETY: the connection is open throughout, and all names end with a zero.
    unsafe {
        let mut session = null_mut();
        assert_eq!(sqlite3session_create(both.handle(), c"main".as_ptr(), &mut session), 0);
        for table in tables {
            let name = CString::new(table.as_str()).unwrap();
            assert_eq!(sqlite3session_attach(session, name.as_ptr()), 0);
            assert_eq!(
                sqlite3session_diff(session, c"old".as_ptr(), name.as_ptr(), null_mut()),
                0,
                "{table}"
            );
        }
        assert_eq!(sqlite3session_changeset(session, &mut len, &mut changeset), 0);
        sqlite3session_delete(session);
        taken(changeset, len)
    }
}

fn backup(from: &Connection, to: &mut Connection, name: &str) {
    let backup = rusqlite::backup::Backup::new_with_names(from, "main", to, name).unwrap();
    backup.run_to_completion(1000, std::time::Duration::ZERO, None).unwrap();
}

/// # Safety
/// `len` bytes that SQLite allocated stand there; they are freed.
unsafe fn taken(bytes: *mut c_void, len: c_int) -> Vec<u8> {
    if bytes.is_null() {
        return Vec::new();
    }
    // SAFETY: by the contract of this function.
    unsafe {
        let copied = std::slice::from_raw_parts(bytes.cast::<u8>(), len as usize).to_vec();
        ffi::sqlite3_free(bytes);
        copied
    }
}

/// Reads a changeset with SQLite's own reader; what it says, in a fixed order.
pub(super) fn read(changeset: &[u8]) -> Vec<Said> {
    let mut all = Vec::new();
    // SAFETY: the bytes outlive the iterator, and each value is copied before the next step.
    unsafe {
        let mut iter = null_mut();
        assert_eq!(sqlite3changeset_start(&mut iter, changeset.len() as c_int, changeset.as_ptr().cast()), 0);
        loop {
            match sqlite3changeset_next(iter) {
                ffi::SQLITE_ROW => all.push(said(iter)),
                code => {
                    assert_eq!(code, ffi::SQLITE_DONE);
                    break;
                }
            }
        }
        assert_eq!(sqlite3changeset_finalize(iter), 0);
    }
    all.sort_by_key(|said| format!("{said:?}"));
    all
}

/// # Safety
/// The iterator stands on a change.
unsafe fn said(iter: *mut Iter) -> Said {
    let (mut table, mut columns, mut op, mut indirect) = (std::ptr::null(), 0, 0, 0);
    let mut key = null_mut();
    // SAFETY: what SQLite hands out is good until the next step.
    unsafe {
        assert_eq!(sqlite3changeset_op(iter, &mut table, &mut columns, &mut op, &mut indirect), 0);
        assert_eq!(sqlite3changeset_pk(iter, &mut key, null_mut()), 0);
        let side = |read: unsafe extern "C" fn(*mut Iter, c_int, *mut *mut ffi::sqlite3_value) -> c_int,
                    there| {
            let one = |column| {
                let mut value = null_mut();
                assert_eq!(read(iter, column, &mut value), 0);
                (!value.is_null()).then(|| self::value(value))
            };
            (0..if there { columns } else { 0 }).map(one).collect()
        };
        Said {
            table: CStr::from_ptr(table).to_string_lossy().into_owned(),
            op,
            key: std::slice::from_raw_parts(key, columns as usize).to_vec(),
            old: side(sqlite3changeset_old, op != ffi::SQLITE_INSERT),
            new: side(sqlite3changeset_new, op != ffi::SQLITE_DELETE),
        }
    }
}

/// # Safety
/// It is a value.
unsafe fn value(value: *mut ffi::sqlite3_value) -> Value {
    // SAFETY: by the contract of this function; the length belongs to the form that was asked for.
    unsafe {
        let bytes = |start: *const u8| {
            let len = ffi::sqlite3_value_bytes(value) as usize;
            if len == 0 { Vec::new() } else { std::slice::from_raw_parts(start, len).to_vec() }
        };
        match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => Value::Text(bytes(ffi::sqlite3_value_text(value))),
            ffi::SQLITE_BLOB => Value::Blob(bytes(ffi::sqlite3_value_blob(value).cast())),
            _ => Value::Null,
        }
    }
}

/// Applies a changeset; any conflict ends it.
pub(super) fn apply(to: &Connection, changeset: &[u8]) -> c_int {
    unsafe extern "C" fn abort(_: *mut c_void, _: c_int, _: *mut Iter) -> c_int {
        2 // SQLITE_CHANGESET_ABORT
    }
    // SAFETY: the connection is open and the bytes are as many as said.
    unsafe {
        sqlite3changeset_apply(
            to.handle(),
            changeset.len() as c_int,
            changeset.as_ptr().cast(),
            None,
            abort,
            null_mut(),
        )
    }
}
