//! A prepared statement that reads and binds values bit for bit.
//!
//! rusqlite reads text as UTF-8, so a UTF-16 database's texts would be converted on the way, and what is no
//! valid UTF-16 lost. This asks SQLite for text in the encoding that the caller names; where that is the
//! database's own, the bytes are those in the file.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;

use rusqlite::{Connection, ffi};

use super::error::Error;
use super::schema::Encoding;
use super::value::Value;

// libsqlite3-sys leaves out what speaks UTF-16.
unsafe extern "C" {
    fn sqlite3_column_text16(statement: *mut ffi::sqlite3_stmt, column: c_int) -> *const c_void;
    fn sqlite3_column_bytes16(statement: *mut ffi::sqlite3_stmt, column: c_int) -> c_int;
}

/// A prepared statement of a connection.
pub struct Statement<'c> {
    raw: *mut ffi::sqlite3_stmt,
    connection: &'c Connection,
    /// What is said of it in an error.
    doing: String,
    /// Not to be sent to another thread, as its connection.
    _raw: PhantomData<*mut ()>,
}

impl<'c> Statement<'c> {
    /// Prepares the first statement of a text; `doing` is what an error says of it.
    pub fn prepare(
        connection: &'c Connection,
        sql: &str,
        doing: impl Into<String>,
    ) -> Result<Statement<'c>, Error> {
        let mut statement =
            Statement { raw: std::ptr::null_mut(), connection, doing: doing.into(), _raw: PhantomData };
        let len = c_int::try_from(sql.len()).map_err(|_| Error::Schema("a statement over it is too long"))?;
        // SAFETY: the connection is open while it is borrowed, and the text is `len` bytes.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                connection.handle(),
                sql.as_ptr().cast(),
                len,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &mut statement.raw,
                std::ptr::null_mut(),
            )
        };
        statement.check(code)?;
        if statement.raw.is_null() {
            return Err(Error::Schema("a statement over it is empty"));
        }
        Ok(statement)
    }

    fn check(&self, code: c_int) -> Result<(), Error> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.failure(code)) }
    }

    fn failure(&self, code: c_int) -> Error {
        // SAFETY: the connection is open, and the message is copied before it is used again.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.connection.handle())) };
        let message = message.to_string_lossy().into_owned();
        let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message));
        Error::Sqlite { doing: self.doing.clone(), source }
    }

    /// Binds a value to the parameter of a number, counted from 1. A text has the encoding given.
    pub fn bind(&mut self, parameter: usize, value: &Value, encoding: Encoding) -> Result<(), Error> {
        // SAFETY: SQLITE_TRANSIENT makes SQLite copy the bytes.
        unsafe { self.bind_as(parameter, value, encoding, ffi::SQLITE_TRANSIENT()) }
    }

    /// # Safety
    /// Where `ownership` is SQLITE_STATIC, the value is there, as it is, until the parameter is bound again.
    unsafe fn bind_as(
        &mut self,
        parameter: usize,
        value: &Value,
        encoding: Encoding,
        ownership: ffi::sqlite3_destructor_type,
    ) -> Result<(), Error> {
        let (raw, index) = (self.raw, parameter as c_int);
        // SAFETY: the statement lives; the bytes are as many as said, and are there as the caller says.
        let code = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(raw, index),
                Value::Integer(value) => ffi::sqlite3_bind_int64(raw, index, *value),
                Value::Real(value) => ffi::sqlite3_bind_double(raw, index, *value),
                Value::Blob(bytes) if bytes.is_empty() => ffi::sqlite3_bind_zeroblob(raw, index, 0),
                Value::Blob(bytes) => {
                    ffi::sqlite3_bind_blob64(raw, index, bytes.as_ptr().cast(), bytes.len() as u64, ownership)
                }
                Value::Text(bytes) => {
                    let marked = with_mark(bytes, encoding);
                    let ownership = if marked.is_some() { ffi::SQLITE_TRANSIENT() } else { ownership };
                    let bytes = marked.as_deref().unwrap_or(bytes);
                    // An empty slice has no address that SQLite would take for a text.
                    let start = if bytes.is_empty() { c"".as_ptr() } else { bytes.as_ptr().cast() };
                    ffi::sqlite3_bind_text64(
                        raw,
                        index,
                        start,
                        bytes.len() as u64,
                        ownership,
                        encoding.code() as u8,
                    )
                }
            }
        };
        self.check(code)
    }

    /// Binds values to parameters from 1 on.
    pub fn bind_all(&mut self, values: &[Value], encoding: Encoding) -> Result<(), Error> {
        for (index, value) in values.iter().enumerate() {
            self.bind(index + 1, value, encoding)?;
        }
        Ok(())
    }

    /// Runs it to its end with values for its parameters from 1 on. They are not copied.
    pub(crate) fn run_with(&mut self, values: &[&Value], encoding: Encoding) -> Result<(), Error> {
        let bound = Bound::new(self, values, encoding)?;
        while bound.statement.step()? {}
        Ok(())
    }

    /// The first row with values for its parameters from 1 on, `None` where there is no row. They are not copied.
    pub(crate) fn first_with(
        &mut self,
        values: &[&Value],
        encoding: Encoding,
    ) -> Result<Option<Vec<Value>>, Error> {
        let bound = Bound::new(self, values, encoding)?;
        if bound.statement.step()? { bound.statement.values(0, encoding).map(Some) } else { Ok(None) }
    }

    /// Whether there is a row with values for its parameters from 1 on. They are not copied.
    pub(crate) fn any_with(&mut self, values: &[&Value], encoding: Encoding) -> Result<bool, Error> {
        Bound::new(self, values, encoding)?.statement.step()
    }

    /// Goes to the next row; whether there is one.
    pub fn step(&mut self) -> Result<bool, Error> {
        // SAFETY: the statement lives.
        match unsafe { ffi::sqlite3_step(self.raw) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(self.failure(code)),
        }
    }

    /// Ends what runs, so that it can be bound and stepped again. What is bound stays bound.
    pub fn reset(&mut self) {
        // SAFETY: the statement lives. The code is that of the last step, which said it already.
        unsafe { ffi::sqlite3_reset(self.raw) };
    }

    /// Runs it to its end, and makes it ready to be run again.
    pub fn run(&mut self) -> Result<(), Error> {
        let result = loop {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.reset();
        result
    }

    /// How many values its rows have.
    pub fn columns(&self) -> usize {
        // SAFETY: the statement lives.
        let count = unsafe { ffi::sqlite3_column_count(self.raw) };
        usize::try_from(count).unwrap_or(0)
    }

    /// A value of the row that it stands on, its text in the encoding given.
    pub fn value(&self, column: usize, encoding: Encoding) -> Result<Value, Error> {
        let (raw, index) = (self.raw, column as c_int);
        // SAFETY: the statement lives and stands on a row; a column that it has not reads as NULL.
        Ok(unsafe {
            match ffi::sqlite3_column_type(raw, index) {
                ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_column_int64(raw, index)),
                ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_column_double(raw, index)),
                ffi::SQLITE_TEXT => Value::Text(self.text(index, encoding)?),
                ffi::SQLITE_BLOB => {
                    let start = ffi::sqlite3_column_blob(raw, index);
                    Value::Blob(self.copied(start.cast(), ffi::sqlite3_column_bytes(raw, index))?)
                }
                _ => Value::Null,
            }
        })
    }

    /// Whether a value of the row that it stands on is that of another statement's row, bit for bit. Texts are
    /// compared in the encoding given. Nothing is copied.
    pub(crate) fn is_same(
        &self,
        column: usize,
        other: &Statement<'_>,
        other_column: usize,
        encoding: Encoding,
    ) -> bool {
        let (this, that) = ((self.raw, column as c_int), (other.raw, other_column as c_int));
        // SAFETY: both statements live and stand on a row; a column that they have not reads as NULL.
        unsafe {
            let kind = ffi::sqlite3_column_type(this.0, this.1);
            if kind != ffi::sqlite3_column_type(that.0, that.1) {
                return false;
            }
            match kind {
                ffi::SQLITE_INTEGER => {
                    ffi::sqlite3_column_int64(this.0, this.1) == ffi::sqlite3_column_int64(that.0, that.1)
                }
                ffi::SQLITE_FLOAT => {
                    let bits = |(raw, index)| ffi::sqlite3_column_double(raw, index).to_bits();
                    bits(this) == bits(that)
                }
                ffi::SQLITE_TEXT | ffi::SQLITE_BLOB => {
                    let utf16 = kind == ffi::SQLITE_TEXT && encoding != Encoding::Utf8;
                    match (bytes_of(this, kind, utf16), bytes_of(that, kind, utf16)) {
                        (Some(one), Some(other)) => one == other,
                        // Without memory it is looked at again, and said.
                        _ => false,
                    }
                }
                _ => true,
            }
        }
    }

    /// All values of the row that it stands on, from a column on.
    pub fn values(&self, from: usize, encoding: Encoding) -> Result<Vec<Value>, Error> {
        (from..self.columns()).map(|column| self.value(column, encoding)).collect()
    }

    /// A value as an integer, as SQLite converts it.
    pub fn integer(&self, column: usize) -> i64 {
        // SAFETY: the statement lives; a column that it has not reads as 0.
        unsafe { ffi::sqlite3_column_int64(self.raw, column as c_int) }
    }

    /// A value as text that must be UTF-8, or `None` for NULL; refused where it is longer than `most`.
    pub fn string(&self, column: usize, most: usize, what: &'static str) -> Result<Option<String>, Error> {
        let (raw, index) = (self.raw, column as c_int);
        // SAFETY: the statement lives. The pointer is good until the next call on this column, and the
        // length that SQLite says is that of the text behind it.
        unsafe {
            if ffi::sqlite3_column_type(raw, index) == ffi::SQLITE_NULL {
                return Ok(None);
            }
            let start = ffi::sqlite3_column_text(raw, index);
            let len = ffi::sqlite3_column_bytes(raw, index);
            if usize::try_from(len).unwrap_or(0) > most {
                return Err(Error::TooMany { what, most });
            }
            let bytes = self.copied(start, len)?;
            let text = String::from_utf8(bytes).map_err(|_| Error::Schema("a text in it is not UTF-8"))?;
            Ok(Some(text))
        }
    }

    /// # Safety
    /// The statement stands on a row whose column is text.
    unsafe fn text(&self, index: c_int, encoding: Encoding) -> Result<Vec<u8>, Error> {
        // SAFETY: as above; the length is asked for after the conversion, in the same encoding.
        unsafe {
            if encoding == Encoding::Utf8 {
                let start = ffi::sqlite3_column_text(self.raw, index);
                return self.copied(start, ffi::sqlite3_column_bytes(self.raw, index));
            }
            let start = sqlite3_column_text16(self.raw, index);
            let mut bytes = self.copied(start.cast(), sqlite3_column_bytes16(self.raw, index))?;
            if encoding != Encoding::native_utf16() {
                // An odd byte at the end stays where it is: SQLite swaps by twos as well.
                bytes.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            }
            Ok(bytes)
        }
    }

    /// # Safety
    /// `len` bytes stand at `start`, where it is not null.
    unsafe fn copied(&self, start: *const u8, len: c_int) -> Result<Vec<u8>, Error> {
        let len = usize::try_from(len).unwrap_or(0);
        if start.is_null() {
            // SQLite had no memory for a conversion; an empty blob has no address either.
            return if len == 0 { Ok(Vec::new()) } else { Err(self.failure(ffi::SQLITE_NOMEM)) };
        }
        // SAFETY: by the contract of this function.
        Ok(unsafe { std::slice::from_raw_parts(start, len) }.to_vec())
    }
}

/// A statement to which values are bound that are borrowed. Not to be forgotten, and so nothing outside this
/// file has one.
struct Bound<'s, 'c> {
    statement: &'s mut Statement<'c>,
}

impl<'s, 'c> Bound<'s, 'c> {
    fn new(
        statement: &'s mut Statement<'c>,
        values: &'s [&'s Value],
        encoding: Encoding,
    ) -> Result<Bound<'s, 'c>, Error> {
        statement.reset();
        let bound = Bound { statement };
        for (index, value) in values.iter().enumerate() {
            // SAFETY: the values live as long as this does, which unbinds them.
            unsafe { bound.statement.bind_as(index + 1, value, encoding, ffi::SQLITE_STATIC())? };
        }
        Ok(bound)
    }
}

impl Drop for Bound<'_, '_> {
    fn drop(&mut self) {
        self.statement.reset();
        // SAFETY: the statement lives and does not run.
        unsafe { ffi::sqlite3_clear_bindings(self.statement.raw) };
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: it is not used after this; null is allowed.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

/// The bytes of a text or a blob, until its statement goes on; `None` where there is no memory for them.
///
/// # Safety
/// The statement stands on a row, and the slice is not used after that row.
unsafe fn bytes_of<'r>(
    (raw, index): (*mut ffi::sqlite3_stmt, c_int),
    kind: c_int,
    utf16: bool,
) -> Option<&'r [u8]> {
    // SAFETY: by the contract of this function; the length is asked for in the form of the pointer.
    unsafe {
        let (start, len) = if utf16 {
            (sqlite3_column_text16(raw, index).cast(), sqlite3_column_bytes16(raw, index))
        } else if kind == ffi::SQLITE_TEXT {
            (ffi::sqlite3_column_text(raw, index), ffi::sqlite3_column_bytes(raw, index))
        } else {
            (ffi::sqlite3_column_blob(raw, index).cast::<u8>(), ffi::sqlite3_column_bytes(raw, index))
        };
        let len = usize::try_from(len).ok()?;
        match start.is_null() {
            true => (len == 0).then_some(&[]),
            false => Some(std::slice::from_raw_parts(start, len)),
        }
    }
}

/// The text with a byte order mark of its encoding before it, where it begins with one itself: SQLite takes
/// a mark at the beginning of a bound UTF-16 text away.
fn with_mark(text: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    let mark = match encoding {
        Encoding::Utf8 => return None,
        Encoding::Utf16le => [0xff, 0xfe],
        Encoding::Utf16be => [0xfe, 0xff],
    };
    matches!(text.get(..2), Some([0xff, 0xfe] | [0xfe, 0xff])).then(|| [&mark, text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_bound_to_be_run_with_is_bound_no_more() {
        for encoding in [Encoding::Utf8, Encoding::Utf16le, Encoding::Utf16be] {
            let db = Connection::open_in_memory().unwrap();
            db.pragma_update(None, "encoding", encoding.as_str()).unwrap();
            db.execute_batch("CREATE TABLE t(v, w)").unwrap();
            // The second begins with a byte order mark, which SQLite must not take for one.
            let texts = [vec![0x41, 0, 0x42, 0], vec![0xff, 0xfe, 0x41, 0], Vec::new()];
            let mut insert = Statement::prepare(&db, "INSERT INTO t VALUES (?1, ?2)", "a test").unwrap();
            for text in &texts {
                let values = [Value::Text(text.clone()), Value::Blob(text.clone())];
                insert.run_with(&values.iter().collect::<Vec<_>>(), encoding).unwrap();
            }
            insert.run().unwrap();
            drop(insert);
            let mut select = Statement::prepare(&db, "SELECT v, w FROM t", "a test").unwrap();
            for text in texts {
                assert!(select.step().unwrap());
                let values = select.values(0, encoding).unwrap();
                assert_eq!(values, [Value::Text(text.clone()), Value::Blob(text)]);
            }
            assert!(select.step().unwrap());
            assert_eq!(select.values(0, encoding).unwrap(), [Value::Null, Value::Null]);
            let query = "SELECT w FROM t WHERE v = ?1 OR v IS ?1";
            let mut query = Statement::prepare(&db, query, "a test").unwrap();
            assert!(query.any_with(&[&Value::Text(Vec::new())], encoding).unwrap());
            assert!(!query.any_with(&[&Value::Text(vec![9, 0])], encoding).unwrap());
            let first = query.first_with(&[&Value::Null], encoding).unwrap();
            assert_eq!(first, Some(vec![Value::Null]));
        }
    }
}
