//! What SQL may do to an open version, whose pages and whose schema may both be hostile.
//!
//! - Nothing that the schema brings along runs: no trigger, no view (but in a query), no function that is not
//!   harmless, no extension, no foreign key action until somebody asks for foreign keys.
//! - No other file is opened: no ATTACH but of temporary ones, no WAL.
//! - Lengths, depths and times have limits, so that a schema cannot make a statement endless.
//! - The authorizer and the progress handler are SQLite's C functions and not rusqlite's, which panic on a name
//!   that is not UTF-8.

use std::ffi::{CStr, c_char, c_int, c_void};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ffi};

use super::shared::{Mode, Shared};

/// The longest value or row, in bytes. SQLite's own limit of a gigabyte is too much for a machine on which a
/// merge has the same row from three databases, each several times over.
pub const VALUE_MAX: i32 = 256 << 20;

/// The longest statement, in bytes, those of the schema among them. A table has 2,000 columns at most.
const SQL_MAX: i32 = 1 << 20;

/// Instructions of a statement: views within views multiply. The longest that the merge has needs some 100 for
/// each of 2,000 columns.
const INSTRUCTIONS_MAX: i32 = 1_000_000;

/// How deep an expression is, which SQLite walks on its stack. This is SQLite's own limit, which a schema
/// that was made elsewhere may have used.
const DEPTH_MAX: i32 = 1000;

/// Terms of a compound SELECT: SQLite's own limit.
const COMPOUND_MAX: i32 = 500;

/// Tables, indexes, views and triggers: each is in memory for as long as a version is open.
const OBJECTS_MAX: i32 = 100_000;

/// The longest pattern of LIKE or GLOB, which may take its length squared.
const PATTERN_MAX: i32 = 10_000;

/// SQLite's page cache, in KiB: what a B-tree's upper pages take in a large database.
const CACHE_KIB: u32 = 8192;

/// The optimization that reads `sqlite_stat4`, as `sqlite3_test_control` has it. A pushed table of that name can
/// have as many samples as somebody put there, and SQLite would read all of them into memory.
const STAT4: u32 = 0x800;

/// Instructions between two looks at the clock: some 50 microseconds.
const INSTRUCTIONS_BETWEEN: c_int = 1000;

/// Turns off what may be off, sets what has a limit, and asks `shared` whether to stop and what is allowed.
/// `shared` outlives the connection.
pub(super) fn harden(connection: &Connection, shared: &Shared) -> rusqlite::Result<()> {
    let settings = [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
    ];
    for (setting, on) in settings {
        connection.set_db_config(setting, on)?;
    }
    let limits = [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_MAX),
        (Limit::SQLITE_LIMIT_VDBE_OP, INSTRUCTIONS_MAX),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, DEPTH_MAX),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, COMPOUND_MAX),
        (Limit::SQLITE_LIMIT_SCHEMA, OBJECTS_MAX),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_MAX),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ];
    for (limit, max) in limits {
        connection.set_limit(limit, max)?;
    }
    let data = (&raw const *shared).cast_mut().cast::<c_void>();
    // SAFETY: the connection is open and used by this thread alone, and `shared` outlives it.
    let disabled = unsafe {
        let handle = connection.handle();
        ffi::sqlite3_progress_handler(handle, INSTRUCTIONS_BETWEEN, Some(is_due), data);
        ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_OPTIMIZATIONS, handle, STAT4);
        ffi::sqlite3_enable_load_extension(handle, 0)
    };
    done(disabled)?;
    // Some of these parse the schema, and so stand under the limits above. What nobody keeps need not be
    // synced. Temporary files are ours and bounded: in memory they would not be.
    connection.execute_batch(&format!(
        "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = FILE;
         PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB}"
    ))?;
    // Last, since it does not allow what stands above.
    // SAFETY: as before.
    done(unsafe { ffi::sqlite3_set_authorizer(connection.handle(), Some(authorize), data) })
}

fn done(code: c_int) -> rusqlite::Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

unsafe extern "C" fn is_due(data: *mut c_void) -> c_int {
    // SAFETY: `set_hooks` gave what outlives the connection.
    let shared = unsafe { &*data.cast::<Shared>() };
    c_int::from(shared.stop.is_due())
}

unsafe extern "C" fn authorize(
    data: *mut c_void,
    action: c_int,
    one: *const c_char,
    two: *const c_char,
    _: *const c_char,
    _: *const c_char,
) -> c_int {
    // SAFETY: `set_hooks` gave what outlives the connection.
    let shared = unsafe { &*data.cast::<Shared>() };
    // Compiling asks nobody else whether to stop.
    if shared.mode() == Mode::Query && shared.stop.is_due() {
        return ffi::SQLITE_DENY;
    }
    // SAFETY: SQLite gives texts that end with a zero, or null.
    let text = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes());
    match is_allowed(shared.mode(), action, text(one), text(two)) {
        true => ffi::SQLITE_OK,
        false => ffi::SQLITE_DENY,
    }
}

/// Functions that reach out of the database, or write where no statement says so.
const FUNCTIONS_DENIED: [&str; 4] = ["load_extension", "fts3_tokenizer", "sqlite_log", "optimize"];

/// Settings that what is here relies on, and those of the whole process.
const PRAGMAS_FIXED: [&str; 14] = [
    "cell_size_check",
    "data_store_directory",
    "hard_heap_limit",
    "journal_mode",
    "journal_size_limit",
    "locking_mode",
    "mmap_size",
    "read_uncommitted",
    "soft_heap_limit",
    "temp_store",
    "temp_store_directory",
    "threads",
    "trusted_schema",
    "wal_checkpoint",
];

/// Pragmas that a query may ask: with what in parentheses they are told which table is meant.
const PRAGMAS_OF_TABLES: [&str; 8] = [
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// Pragmas that a query may ask, and that would be set by a value.
const PRAGMAS_OF_DATABASE: [&str; 12] = [
    "application_id",
    "auto_vacuum",
    "collation_list",
    "data_version",
    "encoding",
    "freelist_count",
    "function_list",
    "module_list",
    "page_count",
    "page_size",
    "schema_version",
    "user_version",
];

fn is_one_of(name: Option<&[u8]>, names: &[&str]) -> bool {
    name.is_some_and(|name| names.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(name)))
}

/// Whether a statement may be made that does this. What `one` and `two` are depends on the action:
/// <https://www.sqlite.org/c3ref/c_alter_table.html>.
fn is_allowed(mode: Mode, action: c_int, one: Option<&[u8]>, two: Option<&[u8]>) -> bool {
    match (mode, action) {
        // Those that have no file, for which VACUUM wants it. The limit on attached databases comes first.
        (Mode::Own, ffi::SQLITE_ATTACH) => matches!(one, Some(b"" | b":memory:")),
        (_, ffi::SQLITE_FUNCTION) => !is_one_of(two, &FUNCTIONS_DENIED),
        (Mode::Own, ffi::SQLITE_PRAGMA) => two.is_none() || !is_one_of(one, &PRAGMAS_FIXED),
        (Mode::Own, _) => true,
        (Mode::Query, ffi::SQLITE_PRAGMA) => {
            is_one_of(one, &PRAGMAS_OF_TABLES) || (two.is_none() && is_one_of(one, &PRAGMAS_OF_DATABASE))
        }
        // A virtual table prepares its writes when it is opened. What runs them is refused otherwise: the
        // statement must say that it reads only, and `query_only` is on.
        (Mode::Query, ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE) => true,
        (Mode::Query, ffi::SQLITE_SELECT | ffi::SQLITE_READ | ffi::SQLITE_RECURSIVE) => true,
        (Mode::Query, _) => false,
    }
}
