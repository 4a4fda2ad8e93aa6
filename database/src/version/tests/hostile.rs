//! Contents that lie, fail or never end: an error in bounded time, and one that says what it was.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::exchange::{Fault, Refusal};

use super::*;

/// A content of which one page fails, for a reason of its own.
struct Failing {
    content: memory::Content,
    from: u32,
    panics: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("page {0} was not in its segment")]
struct Lost(u32);

impl Fault for Lost {
    fn refusal(&self) -> Refusal {
        Refusal::NotFound
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

impl Content for Failing {
    fn geometry(&self) -> Geometry {
        self.content.geometry()
    }

    fn fields(&self) -> HeaderFields {
        self.content.fields()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        assert!(!self.panics || page.get() < self.from, "this one panics");
        if page.get() >= self.from {
            return Err(Box::new(Lost(page.get())));
        }
        Content::read(&mut self.content, page, into)
    }
}

fn failing(from: u32, panics: bool) -> Result<VersionDatabase, VersionError> {
    let content = Failing { content: content(ROWS), from, panics };
    VersionDatabase::open(Box::new(content), Limits::default())
}

#[test]
fn a_page_that_cannot_be_read_says_why() {
    assert!(matches!(failing(1, false), Err(VersionError::Content(_))));
    let db = failing(6, false).unwrap();
    let error = db.connection().query_row("SELECT max(length(data)) FROM t", [], |_| Ok(())).unwrap_err();
    let error = db.explain(error);
    assert!(error.to_string().contains("was not in its segment"), "{error}");
    assert_eq!(error.refusal(), Refusal::NotFound);
    // Said once: what comes next is not blamed on it.
    assert!(matches!(db.explain(rusqlite::Error::InvalidQuery), VersionError::Sqlite(_)));
}

#[test]
fn a_change_that_met_a_page_that_cannot_be_read_is_no_new_version() {
    let db = failing(6, false).unwrap();
    assert!(db.connection().execute("UPDATE t SET data = NULL", []).is_err());
    assert!(matches!(db.written(), Err(VersionError::Content(_))));
}

#[test]
fn a_panic_of_the_content_ends_at_the_border() {
    let db = failing(6, true).unwrap();
    let error = db.connection().query_row("SELECT max(length(data)) FROM t", [], |_| Ok(())).unwrap_err();
    assert!(matches!(db.explain(error), VersionError::Bug));
}

#[test]
fn more_than_is_allowed_is_not_written_and_what_was_before_stands() {
    let content = content(ROWS);
    let limits = Limits { scratch: 4 << 20, ..Limits::default() };
    let db = VersionDatabase::open(Box::new(content.clone()), limits).unwrap();
    db.connection().execute("DELETE FROM t WHERE id = 1", []).unwrap();
    db.connection().execute_batch("PRAGMA cache_size = 10").unwrap();
    let error = db.connection().execute("UPDATE t SET data = zeroblob(20000)", []).unwrap_err();
    assert!(matches!(db.explain(error), VersionError::Scratch { max } if max == 4 << 20));
    let dir = tempfile::tempdir().unwrap();
    let result = reopened(&content, db.written().unwrap(), &dir);
    assert_eq!(number(&result, "SELECT count(*) FROM t WHERE length(data) = 20000"), 0);
    assert_eq!(number(&result, "SELECT count(*) FROM t"), 2000);
}

#[test]
fn two_hundred_megabytes_are_written_and_rolled_back() {
    let content = content(ROWS);
    let db = open(&content);
    let sql = "CREATE TABLE big (x);
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
               INSERT INTO big SELECT zeroblob(100000) FROM n";
    db.connection().execute_batch(sql).unwrap();
    db.connection().execute_batch("BEGIN; UPDATE big SET x = zeroblob(90000); ROLLBACK").unwrap();
    assert_eq!(number(db.connection(), "SELECT sum(length(x)) FROM big"), 200_000_000);
    db.connection().execute_batch("DROP TABLE big").unwrap();
    let mut written = db.written().unwrap();
    assert!(written.pages().count() > 40_000);
}

#[test]
fn a_version_is_used_no_longer_than_it_may_be() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let content = content(ROWS);
    let limits = Limits { time: Some(Duration::from_millis(100)), ..Limits::default() };
    // On a busy machine it may be over before it is open.
    let error = match VersionDatabase::open(Box::new(content.clone()), limits) {
        Ok(db) => {
            let error = db.connection().query_row(endless, [], |_| Ok(())).unwrap_err();
            assert!(matches!(db.check(), Err(VersionError::Deadline)));
            db.explain(error)
        }
        Err(error) => error,
    };
    assert!(matches!(error, VersionError::Deadline), "{error}");

    let cancel = Arc::new(AtomicBool::new(false));
    let limits = Limits { cancel: Some(Arc::clone(&cancel)), ..Limits::default() };
    let db = VersionDatabase::open(Box::new(content), limits).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| cancel.store(true, Ordering::Relaxed));
        let error = db.connection().query_row(endless, [], |_| Ok(())).unwrap_err();
        assert!(matches!(db.explain(error), VersionError::Cancelled));
    });
}

#[test]
fn what_sqlite_makes_no_error_of_is_told_by_check() {
    let db = failing(6, false).unwrap();
    let found = text(db.connection(), "PRAGMA integrity_check");
    assert_ne!(found, "ok");
    assert!(matches!(db.check(), Err(VersionError::Content(_))));
    db.check().unwrap();
}

#[test]
fn a_page_size_that_page_1_does_not_have_is_refused() {
    let made = content(ROWS);
    let mut lying = made.clone();
    let mut page = made.page(PageNumber::FIRST).into_owned();
    page[16..18].copy_from_slice(&512u16.to_be_bytes());
    lying.set(PageNumber::FIRST, &page);
    let opened = VersionDatabase::open(Box::new(lying), Limits::default());
    assert!(matches!(opened.map(drop), Err(VersionError::PageSize { .. })));
}

#[test]
fn what_is_no_database_is_refused() {
    let mut noise = content(ROWS);
    let page = vec![0x10; noise.geometry().page_size.bytes()];
    noise.set(PageNumber::FIRST, &page);
    let opened = VersionDatabase::open(Box::new(noise), Limits::default()).map(drop).unwrap_err();
    assert_eq!(opened.refusal(), Refusal::Integrity, "{opened}");
}

/// What a merge and a query do, over whatever the pages are. All may fail.
fn use_all(content: memory::Content) {
    let limits = Limits { time: Some(Duration::from_secs(2)), scratch: 64 << 20, ..Limits::default() };
    let Ok(db) = VersionDatabase::open(Box::new(content), limits) else { return };
    let connection = db.connection();
    let statements = [
        "PRAGMA integrity_check",
        "SELECT count(*), sum(length(name)), sum(length(data)) FROM t",
        "SELECT * FROM t ORDER BY name",
        "SELECT * FROM f WHERE f MATCH 'word*'",
    ];
    for sql in statements {
        let _ = query(&db, sql, QueryLimits::default(), &mut |_| ControlFlow::Continue(()));
    }
    let changes = [
        "UPDATE t SET name = name || 'x' WHERE id % 5 = 0",
        "DELETE FROM t WHERE id > 1000",
        "INSERT INTO t SELECT id + 100000, name || 'y', zeroblob(5000) FROM t LIMIT 300",
        "INSERT INTO f VALUES ('word and words')",
        "DROP TABLE t",
    ];
    for sql in changes {
        let _ = connection.execute(sql, []).map_err(|error| db.explain(error));
    }
    if let Ok(mut written) = db.written() {
        assert!(written.pages().all(|page| page.is_ok()));
    }
}

/// A generator of numbers that are not random at all: a failure can be repeated.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// A content with some of its pages changed, as a hostile or a broken program might leave them.
pub(super) fn spoil(sound: &memory::Content, dice: &mut Dice) -> memory::Content {
    let count = sound.geometry().page_count.get() as usize;
    let size = sound.geometry().page_size.bytes();
    let mut content = sound.clone();
    for _ in 0..=dice.next(12) {
        // Pages near the front are the upper ones of trees.
        let among = if dice.next(2) == 0 { count.min(12) } else { count };
        let number = PageNumber::from_index(dice.next(among) as u32).unwrap();
        let mut page = content.page(number).into_owned();
        match dice.next(4) {
            0 => page = sound.page(PageNumber::from_index(dice.next(count) as u32).unwrap()).into_owned(),
            1 => page.iter_mut().for_each(|byte| *byte = dice.next(256) as u8),
            2 => page[dice.next(size)] ^= 1 << dice.next(8),
            // A pointer, a length or a count in the header of the page.
            _ => page[dice.next(16)] = dice.next(256) as u8,
        }
        content.set(number, &page);
    }
    content
}

#[test]
fn flipped_and_mixed_up_pages_are_errors_in_bounded_time() {
    let sql = format!(
        "PRAGMA page_size = 1024; {ROWS} DELETE FROM t WHERE id BETWEEN 300 AND 500;
         CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f SELECT 'word ' || id FROM t"
    );
    let sound = content(&sql);
    let mut dice = Dice(4);
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < 80 && started.elapsed() < Duration::from_secs(20) {
        rounds += 1;
        use_all(spoil(&sound, &mut dice));
    }
    assert!(rounds > 5, "each of {rounds} took too long");
}

/// What SQLite holds in memory of the schema.
fn schema_memory(db: &VersionDatabase) -> i32 {
    let (mut now, mut most) = (0, 0);
    // SAFETY: the connection is open, and both are places to write to.
    unsafe {
        let (handle, what) = (db.connection().handle(), ffi::SQLITE_DBSTATUS_SCHEMA_USED);
        assert_eq!(ffi::sqlite3_db_status(handle, what, &mut now, &mut most, 0), ffi::SQLITE_OK);
    }
    now
}

#[test]
fn samples_of_an_index_are_not_read_into_memory() {
    let sound = content(&format!("{ROWS} ANALYZE"));
    let memory = schema_memory(&open(&sound));
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
               INSERT INTO sqlite_stat4 SELECT 't', 'sqlite_autoindex_t_1', '1 1', '1 1', '1 1', zeroblob(500) FROM n";
    let hostile = content(&format!("{ROWS} ANALYZE; {sql}"));
    let db = open(&hostile);
    assert_eq!(number(db.connection(), "SELECT count(*) >= 5000 FROM sqlite_stat4"), 1);
    assert_eq!(schema_memory(&db), memory);
}

#[test]
fn a_schema_without_end_is_not_read_to_its_end() {
    let text = "x".repeat(900_000);
    let views = |count: u32| {
        let view = |number| format!("CREATE VIEW v{number} AS SELECT '{text}';");
        content(&(0..count).map(view).collect::<String>())
    };
    open(&views(20));
    let opened = VersionDatabase::open(Box::new(views(50)), Limits::default()).map(drop);
    assert!(matches!(opened, Err(VersionError::Schema { .. })), "{opened:?}");
}

#[test]
fn views_that_multiply_end_in_time() {
    let shapes = [
        "SELECT x FROM {below} UNION ALL SELECT x FROM {below}",
        "SELECT a.x FROM {below} a, {below} b",
        "SELECT (SELECT x FROM {below}) + (SELECT x FROM {below}) AS x",
        "SELECT x FROM {below} WHERE x IN (SELECT x FROM {below})",
    ];
    for shape in shapes {
        let mut sql = String::from("CREATE TABLE t (x); CREATE VIEW v0 AS SELECT x FROM t;");
        for level in 1..=40 {
            let body = shape.replace("{below}", &format!("v{}", level - 1));
            sql += &format!("CREATE VIEW v{level} AS {body};");
        }
        let db = open(&content(&sql));
        let outside = db.connection().prepare("SELECT * FROM v0").unwrap_err();
        assert!(outside.to_string().contains("v0"), "a view outside of a query: {outside}");
        let ask = |view: &str, time: Duration| {
            let sql = format!("SELECT count(*) FROM {view}");
            query(&db, &sql, QueryLimits { time, ..QueryLimits::default() }, &mut |_| {
                ControlFlow::Continue(())
            })
        };
        // 4,096 uses of the first view take some milliseconds to compile.
        let late = ask("v12", Duration::from_millis(1));
        assert!(matches!(late, Err(VersionError::Deadline)), "{shape}: {late:?}");
        let endless = ask("v40", Duration::from_secs(10));
        assert!(matches!(endless, Err(VersionError::Query(_))), "{shape}: {endless:?}");
    }
}

/// A content that says stop as its hundredth page is read, and counts what is read after that.
struct Cancelling {
    content: memory::Content,
    cancel: Arc<AtomicBool>,
    read: Arc<AtomicU32>,
}

impl Content for Cancelling {
    fn geometry(&self) -> Geometry {
        self.content.geometry()
    }

    fn fields(&self) -> HeaderFields {
        self.content.fields()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        if self.read.fetch_add(1, Ordering::Relaxed) == 100 {
            self.cancel.store(true, Ordering::Relaxed);
        }
        Content::read(&mut self.content, page, into)
    }
}

#[test]
fn one_instruction_that_reads_a_whole_table_is_stopped_between_two_pages() {
    let content = content(&format!("PRAGMA page_size = 512; {ROWS}"));
    let (cancel, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let limits = Limits { cancel: Some(Arc::clone(&cancel)), ..Limits::default() };
    let content = Cancelling { content, cancel, read: Arc::clone(&read) };
    let db = VersionDatabase::open(Box::new(content), limits).unwrap();
    // Counting the rows of a table is one instruction.
    let error = db.connection().query_row("SELECT count(*) FROM t NOT INDEXED", [], |_| Ok(())).unwrap_err();
    assert!(matches!(db.explain(error), VersionError::Cancelled));
    assert_eq!(read.load(Ordering::Relaxed), 101);
}

#[test]
fn a_folder_for_temporary_files_that_is_not_there_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { temp_dir: Some(dir.path().join("nowhere")), ..Limits::default() };
    let db = VersionDatabase::open(Box::new(content(ROWS)), limits).unwrap();
    // Little is in memory.
    db.connection().execute("UPDATE t SET name = name || 'x' WHERE id < 10", []).unwrap();
    let error = db.connection().execute("UPDATE t SET data = zeroblob(30000)", []).unwrap_err();
    let error = db.explain(error);
    assert!(matches!(error, VersionError::Disk { doing: "made", .. }), "{error}");
}

/// A content that fails for a while.
struct Moody {
    content: memory::Content,
    fails: Arc<AtomicBool>,
}

impl Content for Moody {
    fn geometry(&self) -> Geometry {
        self.content.geometry()
    }

    fn fields(&self) -> HeaderFields {
        self.content.fields()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(Box::new(Lost(page.get()))),
            false => Content::read(&mut self.content, page, into),
        }
    }
}

#[test]
fn a_change_that_an_error_cuts_off_is_taken_back_and_the_next_one_counts() {
    let content = content(ROWS);
    let fails = Arc::new(AtomicBool::new(false));
    let moody = Moody { content: content.clone(), fails: Arc::clone(&fails) };
    let db = VersionDatabase::open(Box::new(moody), Limits::default()).unwrap();
    let connection = db.connection();
    connection.execute_batch("PRAGMA cache_size = 10; BEGIN").unwrap();
    connection.execute("UPDATE t SET data = zeroblob(3000) WHERE id < 1000", []).unwrap();
    fails.store(true, Ordering::Relaxed);
    let error = connection.execute("UPDATE t SET data = zeroblob(3000) WHERE id >= 1000", []).unwrap_err();
    assert!(matches!(db.explain(error), VersionError::Content(_)));
    fails.store(false, Ordering::Relaxed);
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").unwrap();
    }
    connection.execute("UPDATE t SET name = 'new' WHERE id = 7", []).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let result = reopened(&content, db.written().unwrap(), &dir);
    assert_eq!(number(&result, "SELECT count(*) FROM t WHERE length(data) = 3000"), 0);
    assert_eq!(text(&result, "SELECT name FROM t WHERE id = 7"), "new");
}

#[test]
fn nothing_of_the_schema_runs_by_itself() {
    let sql = format!(
        "{ROWS} CREATE TABLE log (x); CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES (1); END;
         CREATE TABLE child (p REFERENCES t ON DELETE CASCADE); INSERT INTO child VALUES (1)"
    );
    let db = open(&content(&sql));
    db.connection()
        .execute_batch("INSERT INTO t VALUES (9000, 'n', NULL); DELETE FROM t WHERE id = 1")
        .unwrap();
    assert_eq!(number(db.connection(), "SELECT count(*) FROM log"), 0);
    assert_eq!(number(db.connection(), "SELECT count(*) FROM child"), 1);
}
