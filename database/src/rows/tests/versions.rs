//! The diff where the server and the client use it: two versions that are open over their pages, or two files, and
//! only the rows that the pages that changed may concern.

use std::path::Path;

use rusqlite::Connection;
use sqlrsync_protocol::content::ChangedPages;

use super::property::{by_diff, by_reading_all, for_every};
use super::random::{History, Temper};
use super::support::{Found, all, changed, diff_within};
use crate::btree::tests::support::{Image, changed as changed_pages};
use crate::btree::{ParentMap, Roots, Touched, touched, touched_of_unknown};
use crate::rows::{Go, Schema, diff};
use crate::version::{Limits, LiveContent, VersionDatabase};

/// Copies a database into a file, which is open then.
fn copied(database: &Connection, path: &Path) -> Connection {
    let mut file = Connection::open(path).unwrap();
    let backup = rusqlite::backup::Backup::new(database, &mut file).unwrap();
    backup.run_to_completion(1000, std::time::Duration::ZERO, None).unwrap();
    drop(backup);
    file
}

/// The pages of a database.
fn image(database: &Connection) -> Image {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("database");
    drop(copied(database, &path));
    Image::from_bytes(std::fs::read(&path).unwrap())
}

fn roots(database: &VersionDatabase) -> Roots {
    let schema = Schema::read(database.connection()).unwrap();
    Roots { tables: schema.table_roots(), indexes: schema.index_roots() }
}

/// The diff of two versions by the pages that changed between them.
fn diff_by_pages(old: &Connection, new: &Connection) -> (Touched, Found) {
    let (mut old, mut new) = (image(old), image(new));
    let open = |image: &Image| VersionDatabase::open(Box::new(image.clone()), Limits::default()).unwrap();
    let (before, after) = (open(&old), open(&new));
    let differing = ChangedPages::Known(changed_pages(&old, &new));
    let mut parents = ParentMap::build(&mut old).unwrap();
    let roots = (roots(&before), roots(&after));
    let touched = touched(&mut old, &mut new, &differing, &mut parents, (&roots.0, &roots.1)).unwrap();
    let found = diff_within(before.connection(), after.connection(), &touched);
    (touched, found)
}

#[test]
fn the_diff_by_changed_pages_is_what_a_reader_of_both_databases_finds() {
    let mut by_pages = 0;
    for_every(4, Temper::Wild, |history, old, new| {
        let (touched, found) = diff_by_pages(old, new);
        by_pages += usize::from(!touched.everything);
        assert_eq!(by_diff(&found), by_reading_all(&history.specs, old, new), "{touched:?}");
    });
    assert!(by_pages > 10, "the pages were of no use: {by_pages}");
}

/// Two files as the client compares them: each as one read transaction sees it, its WAL included.
fn diff_of_files(old: &Connection, new: &Connection) -> (Touched, Found) {
    let folder = tempfile::tempdir().unwrap();
    let in_wal = |database: &Connection, name: &str| {
        let path = folder.path().join(name);
        let file = copied(database, &path);
        // Some pages are in the file, and some in the WAL.
        file.execute_batch("PRAGMA journal_mode = WAL; PRAGMA user_version = 7").unwrap();
        let content = LiveContent::open(&path).unwrap();
        file.execute_batch("CREATE TABLE later(x)").unwrap();
        content
    };
    let (mut old, mut new) = (in_wal(old, "old"), in_wal(new, "new"));
    let open =
        |content: &LiveContent| VersionDatabase::open(Box::new(content.clone()), Limits::default()).unwrap();
    let (before, after) = (open(&old), open(&new));
    let touched = touched_of_unknown(&mut old, &mut new, (&roots(&before), &roots(&after))).unwrap();
    let found = diff_within(before.connection(), after.connection(), &touched);
    let slowly = diff_within(before.connection(), after.connection(), &all());
    assert_eq!(sorted(&found), sorted(&slowly), "{touched:?}");
    (touched, found)
}

/// Tables are in the same order either way; within one, keys need not be.
fn sorted(found: &Found) -> Vec<String> {
    let mut rows: Vec<String> = found.rows.iter().map(|change| format!("{change:?}")).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn the_diff_of_two_files_is_the_one_that_reads_all_rows() {
    let mut by_pages = 0;
    for_every(4, Temper::Wild, |history, old, new| {
        let (touched, found) = diff_of_files(old, new);
        by_pages += usize::from(!touched.everything);
        assert_eq!(by_diff(&found), by_reading_all(&history.specs, old, new), "{touched:?}");
    });
    assert!(by_pages > 10, "the pages were of no use: {by_pages}");
}

#[test]
fn every_kind_of_schema_is_read_in_an_open_version() {
    let (old, new) = changed(
        "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v COLLATE NOCASE, g AS (v || 1) STORED);
         CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE INDEX i ON a(v);
         CREATE VIEW v AS SELECT * FROM a; CREATE TRIGGER r AFTER INSERT ON a BEGIN DELETE FROM w; END;
         CREATE VIRTUAL TABLE docs USING fts5(body); CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
         INSERT INTO w VALUES('k', 1); PRAGMA user_version = 3",
        "DROP TRIGGER r; INSERT INTO a(v) VALUES(1); UPDATE w SET v = 2; INSERT INTO docs VALUES('x'); INSERT INTO box VALUES(1, 2, 3)",
    );
    let (_, found) = diff_by_pages(&old, &new);
    let mut tables: Vec<&str> = found.summary.tables.keys().map(String::as_str).collect();
    tables.retain(|table| !table.starts_with("docs_") && !table.starts_with("box_"));
    assert_eq!(tables, ["a", "sqlite_sequence", "w"]);
    assert_eq!(found.schema.len(), 1);
}

#[test]
fn damaged_databases_end_in_a_difference_or_an_error() {
    let mut errors = 0;
    for_every(3, Temper::Wild, |history, old, new| {
        let (whole, mut damaged) = (image(old), image(new));
        let mut random = History::new(history.specs.len() as u64 + 77, Temper::Wild).random;
        for _ in 0..1 + random.below(8) {
            let len = damaged.bytes.len() as u64;
            // Not the schema: its damage is found as it is opened.
            let at = damaged.geometry.page_size.bytes() as u64;
            if len > at {
                damaged.bytes[(at + random.below(len - at)) as usize] = random.below(256) as u8;
            }
        }
        let limits = || Limits { time: Some(std::time::Duration::from_secs(20)), ..Limits::default() };
        let open = |image: &Image| VersionDatabase::open(Box::new(image.clone()), limits());
        // A long schema goes on in other pages.
        let (Ok(before), Ok(after)) = (open(&whole), open(&damaged)) else { return };
        for (old, new) in [(&before, &after), (&after, &before)] {
            let everything = Touched::everything("it is a test");
            let found = diff(old.connection(), new.connection(), &everything, &mut |_| Ok(Go::On));
            errors += usize::from(found.is_err());
        }
    });
    assert!(errors > 5, "the damage did nothing: {errors}");
}

#[test]
fn a_page_that_is_its_own_child_is_not_read_without_end() {
    let (old, new) = changed(
        "PRAGMA page_size = 512; CREATE TABLE t(id INTEGER PRIMARY KEY, v);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) INSERT INTO t SELECT i, 'some text' FROM n",
        "",
    );
    let mut image = image(&new);
    let root: u32 = new.query_row("SELECT rootpage FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    let at = (root as usize - 1) * 512;
    // All cells of the root lead to the page of the first one.
    let cells = usize::from(u16::from_be_bytes([image.bytes[at + 3], image.bytes[at + 4]]));
    assert!(image.bytes[at] == 5 && cells > 3, "an interior page");
    let cell = |image: &Image, index: usize| {
        let pointer = at + 12 + 2 * index;
        at + usize::from(u16::from_be_bytes([image.bytes[pointer], image.bytes[pointer + 1]]))
    };
    let first = image.bytes[cell(&image, 0)..][..4].to_vec();
    for index in 1..cells {
        let place = cell(&image, index);
        image.bytes[place..place + 4].copy_from_slice(&first);
    }
    let damaged = VersionDatabase::open(Box::new(image), Limits::default()).unwrap();
    let everything = Touched::everything("it is a test");
    assert!(diff(&old, damaged.connection(), &everything, &mut |_| Ok(Go::On)).is_err());
}
