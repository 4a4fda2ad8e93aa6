//! The whole way of a merge over open versions: which rows may differ, how they do, and the result.

use std::time::Instant;

use roaring::RoaringBitmap;
use sqlrsync_protocol::content::ChangedPages;

use super::hostile::{Dice, spoil};
use super::*;
use crate::btree::{ParentMap, Roots, Touched, touched};
use crate::merge::{Merge, MergeOptions, Resolutions, Side, Sides, merge};
use crate::rows::Schema;

/// Changes a content by plain SQLite.
fn changed(content: &memory::Content, sql: &str) -> memory::Content {
    let db = open(content);
    db.connection().execute_batch(sql).unwrap();
    let mut written = db.written().unwrap();
    let mut changed = content.clone();
    changed.resize(written.geometry.page_count);
    let fields = written.fields;
    for page in written.pages() {
        let (number, mut page) = page.unwrap();
        if number == PageNumber::FIRST {
            fields.put(&mut page);
        }
        changed.set(number, &page);
    }
    changed
}

struct Opened {
    db: VersionDatabase,
    roots: Roots,
}

fn opened(content: &memory::Content) -> Option<Opened> {
    let limits = Limits { time: Some(Duration::from_secs(5)), scratch: 64 << 20, ..Limits::default() };
    let db = VersionDatabase::open(Box::new(content.clone()), limits).ok()?;
    let schema = Schema::read(db.connection()).ok()?;
    let roots = Roots { tables: schema.table_roots(), indexes: schema.index_roots() };
    Some(Opened { db, roots })
}

fn differing(old: &memory::Content, new: &memory::Content) -> ChangedPages {
    let last = old.geometry().page_count.get().max(new.geometry().page_count.get());
    let mut pages = RoaringBitmap::new();
    for number in (1..=last).filter_map(PageNumber::new) {
        let both = old.geometry().page_count.contains(number) && new.geometry().page_count.contains(number);
        if !both || old.canonical(number) != new.canonical(number) {
            pages.insert(number.get());
        }
    }
    ChangedPages::Known(pages)
}

fn touched_by(old: (&memory::Content, &Opened), new: (&memory::Content, &Opened)) -> Option<Touched> {
    let (mut from, mut to) = (old.0.clone(), new.0.clone());
    let mut map = ParentMap::build(&mut from).ok()?;
    touched(&mut from, &mut to, &differing(old.0, new.0), &mut map, (&old.1.roots, &new.1.roots)).ok()
}

/// Merges; `None` where something says that it cannot.
fn merged(
    base: &memory::Content,
    theirs: &memory::Content,
    mine: &memory::Content,
) -> Option<(Merge, Option<Written>)> {
    let (base_db, theirs_db, mine_db) = (opened(base)?, opened(theirs)?, opened(mine)?);
    let base_theirs = touched_by((base, &base_db), (theirs, &theirs_db))?;
    let base_mine = touched_by((base, &base_db), (mine, &mine_db))?;
    let sides = Sides {
        base: base_db.db.connection(),
        theirs: theirs_db.db.connection(),
        mine: mine_db.db.connection(),
        base_theirs: &base_theirs,
        base_mine: &base_mine,
    };
    let merge = merge(sides, &MergeOptions::default(), &Resolutions::default()).ok()?;
    let on = match &merge {
        Merge::Merged { on: Side::Theirs, .. } => Some(theirs_db),
        Merge::Merged { on: Side::Mine, .. } => Some(mine_db),
        Merge::Conflict(_) => None,
    };
    let written = match on {
        Some(opened) => Some(opened.db.written().ok()?),
        None => None,
    };
    Some((merge, written))
}

const SCHEMA: &str = "
    CREATE TABLE parts (code TEXT, size INTEGER, note BLOB, PRIMARY KEY (code, size)) WITHOUT ROWID;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
    INSERT INTO parts SELECT 'part ' || i, i, zeroblob(i) FROM n;";

#[test]
fn two_versions_that_changed_other_rows_merge_through_the_overlay() {
    for setting in ["page_size = 512", "encoding = 'UTF-16le'", "journal_mode = WAL", "auto_vacuum = FULL"] {
        let base = content(&format!("PRAGMA {setting}; {ROWS} {SCHEMA}"));
        let theirs =
            changed(&base, "UPDATE t SET name = 'theirs' WHERE id = 5; DELETE FROM parts WHERE size > 400");
        let mine = changed(
            &base,
            "UPDATE t SET data = zeroblob(100000) WHERE id = 6; DELETE FROM t WHERE id = 5000;
             INSERT INTO parts VALUES ('new', 1, x'01')",
        );
        let (merge, written) = merged(&base, &theirs, &mine).unwrap();
        let Merge::Merged { on, .. } = merge else { panic!("{setting}: {merge:?}") };
        let dir = tempfile::tempdir().unwrap();
        let result = reopened(if on == Side::Theirs { &theirs } else { &mine }, written.unwrap(), &dir);
        assert_eq!(text(&result, "SELECT name FROM t WHERE id = 5"), "theirs", "{setting}");
        assert_eq!(number(&result, "SELECT length(data) FROM t WHERE id = 6"), 100_000);
        assert_eq!(number(&result, "SELECT count(*) FROM t"), 2000);
        assert_eq!(number(&result, "SELECT count(*) FROM parts"), 401);
    }
}

#[test]
fn a_spoilt_candidate_ends_a_merge_or_leaves_the_latest_version_sound() {
    let base = content(&format!("PRAGMA page_size = 1024; {ROWS} {SCHEMA}"));
    let theirs =
        changed(&base, "UPDATE t SET name = 'theirs' WHERE id = 5; DELETE FROM parts WHERE size > 400");
    let mine = changed(&base, "UPDATE t SET data = zeroblob(1000) WHERE id % 100 = 6");
    let mut dice = Dice(9);
    let started = Instant::now();
    let (mut rounds, mut done) = (0, 0);
    while rounds < 40 && started.elapsed() < Duration::from_secs(20) {
        rounds += 1;
        let old = if dice.next(4) == 0 { spoil(&base, &mut dice) } else { base.clone() };
        let spoilt = spoil(&mine, &mut dice);
        if let Some((Merge::Merged { on: Side::Theirs, .. }, Some(written))) = merged(&old, &theirs, &spoilt)
        {
            let dir = tempfile::tempdir().unwrap();
            reopened(&theirs, written, &dir);
            done += 1;
        }
    }
    assert!(rounds > 5, "each of {rounds} took too long");
    assert!(done > 0 || rounds < 40, "none of {rounds} was merged");
}
