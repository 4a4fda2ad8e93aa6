//! Bodies of the fuzz targets: each takes any bytes, must not panic, and what comes of them must be in
//! order. Unit tests call them over `fuzz/corpus/`; `docs/fuzzing.md` says how to fuzz for longer. Not part
//! of the public interface.

#![allow(clippy::unwrap_used, reason = "a panic is how a target says that it found something")]

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use roaring::RoaringBitmap;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};
use sqlrsync_protocol::fuzzing::Target;
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};

use crate::btree::{ParentMap, Ranges, Roots, TableRoot, Touched, seal, touched};
use crate::version::{Limits, QueryLimits, VersionDatabase, query};

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("parent_map", parent_map),
    ("schema_sql", schema_sql),
    ("stored_row", stored_row),
    ("touched", pages_that_differ),
    ("version", version),
];

/// The SQL of a schema, which becomes part of a script.
pub fn schema_sql(bytes: &[u8]) {
    crate::rows::fuzzing::schema_sql(bytes);
}

/// A key or a row as it is stored.
pub fn stored_row(bytes: &[u8]) {
    crate::rows::fuzzing::stored_row(bytes);
}

const PAGE: usize = 512;

/// More pages teach a fuzzer nothing that these do not.
const PAGES_MAX: usize = 64;

/// What stands before the pages in the input of [`pages_that_differ`].
const HEAD: usize = 9;

/// Pages of which every one that is read counts.
struct Pages {
    bytes: Vec<u8>,
    reads: usize,
}

impl Content for Pages {
    fn geometry(&self) -> Geometry {
        let page_count = PageCount((self.bytes.len() / PAGE) as u32);
        Geometry { page_size: PageSize::MIN, page_count }
    }

    fn fields(&self) -> HeaderFields {
        HeaderFields::default()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        self.reads += 1;
        into.copy_from_slice(self.bytes.chunks_exact(PAGE).nth(page.index() as usize).unwrap());
        Ok(())
    }
}

/// Two contents that differ in some pages, and what is found of their tables:
///
/// ```text
/// map 1, number of patches 1, (root, key columns) of three tables 6, root of an index 1
/// patches of 4 bytes: page, offset / 2, value, value
/// pages of the one content; the other has the patches
/// ```
pub fn pages_that_differ(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return };
    let Some((patches, pages)) = rest.split_at_checked(4 * usize::from(head[1])) else { return };
    let len = pages.len().min(PAGE * PAGES_MAX) / PAGE * PAGE;
    let mut old = Pages { bytes: pages[..len].to_vec(), reads: 0 };
    let mut new = Pages { bytes: old.bytes.clone(), reads: 0 };
    let mut changed = RoaringBitmap::new();
    for patch in patches.chunks_exact(4) {
        let at = usize::from(patch[0]) * PAGE + 2 * usize::from(patch[1]);
        if let Some(place) = new.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&patch[2..]);
            changed.insert(u32::from(patch[0]) + 1);
        }
    }
    let mut map = match head[0] % 3 {
        0 => ParentMap::build(&mut old).unwrap(),
        1 => ParentMap::decode(&sealed(pages)).unwrap_or_default(),
        _ => ParentMap::unknown(),
    };
    let roots = roots(head);
    (old.reads, new.reads) = (0, 0);
    let changed = ChangedPages::Known(changed);
    let found = touched(&mut old, &mut new, &changed, &mut map, (&roots, &roots)).unwrap();
    check(&found);
    // Four walks, a map and a list of free pages; and each cell may have a key that goes through all pages.
    let pages = len / PAGE;
    let most = 10 * pages + pages * (PAGE / 2) * pages + 1000;
    assert!(old.reads <= most && new.reads <= most, "{} and {} reads", old.reads, new.reads);
}

fn roots(head: &[u8; HEAD]) -> Roots {
    let mut roots = Roots::default();
    for (name, table) in ["a", "b", "c"].into_iter().zip(head[2..8].chunks_exact(2)) {
        let Some(root) = PageNumber::new(u32::from(table[0])) else { continue };
        let key_columns = (table[1] > 0).then_some(usize::from(table[1]));
        roots.tables.push(TableRoot { name: name.into(), root, key_columns });
    }
    roots.indexes.extend(PageNumber::new(u32::from(head[8])));
    roots
}

/// Ranges ascend and do not overlap, and no key stands twice.
fn check(found: &Touched) {
    for ranges in found.tables.values() {
        match ranges {
            Ranges::All => {}
            Ranges::Rowids(ranges) => {
                assert!(!ranges.is_empty() && ranges.iter().all(|range| !range.is_empty()));
                assert!(ranges.windows(2).all(|two| two[0].end() < two[1].start()));
            }
            Ranges::Keys(keys) => {
                assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
            }
        }
    }
}

/// The map of a content's pages as it is kept: as it is, and with its checksums made right.
pub fn parent_map(bytes: &[u8]) {
    for bytes in [bytes, &sealed(bytes)] {
        let Some(map) = ParentMap::decode(bytes) else { continue };
        // What is damaged is left out, and then comes back the same.
        let once = ParentMap::decode(&map.encode()).unwrap();
        let (mut map, mut once) = (map, once);
        let all = RoaringBitmap::from_iter(0..2000);
        assert_eq!(map.with_ancestors(&all), once.with_ancestors(&all));
    }
}

/// What is done to the database of [`version`] after the query: some of it works on the seeds.
const CHANGES: [&str; 7] = [
    "CREATE TABLE new(k PRIMARY KEY, v) WITHOUT ROWID",
    "INSERT INTO new SELECT id, zeroblob(id * 30) FROM a",
    "UPDATE a SET b = b || 'x' WHERE id % 2",
    "DELETE FROM b WHERE k > 70",
    "DROP TABLE c",
    "REINDEX",
    "PRAGMA integrity_check",
];

/// A stored version that is opened as a database, asked and changed. What SQLite makes of it is its own affair;
/// what was written is in order and can be read, and nothing takes long.
///
/// ```text
/// length of a query 1, the query, pages
/// ```
pub fn version(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first() else { return };
    let Some((sql, pages)) = rest.split_at_checked(usize::from(*len)) else { return };
    let len = pages.len().min(PAGE * PAGES_MAX) / PAGE * PAGE;
    let pages = Pages { bytes: pages[..len].to_vec(), reads: 0 };
    let time = Duration::from_secs(1);
    let limits = || Limits { time: Some(time), scratch: 8 << 20, ..Limits::default() };
    let Ok(db) = VersionDatabase::open(Box::new(pages), limits()) else { return };
    let asked = QueryLimits { time, rows: 100, bytes: 100_000, scratch: 1 << 20 };
    let _ = query(&db, &String::from_utf8_lossy(sql), asked, &mut |row| {
        assert_eq!(row.values.len(), row.columns.len());
        ControlFlow::Continue(())
    });
    for change in CHANGES {
        if let Err(error) =
            db.connection().prepare(change).and_then(|mut sql| sql.query([])?.next().map(drop))
        {
            let _ = db.explain(error);
        }
    }
    let Ok(mut written) = db.written() else { return };
    let count = written.geometry.page_count;
    let numbers: Vec<_> = written.pages().map(|page| page.unwrap().0).collect();
    assert!(numbers.is_sorted() && numbers.last().is_none_or(|last| count.contains(*last)));
    let _ = VersionDatabase::open(Box::new(written), limits());
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    seal(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;
    use sqlrsync_protocol::fuzzing::{corpus_of, run_over_corpora};

    use super::*;
    use crate::random::Random;

    #[test]
    fn every_target_holds_over_its_corpus() {
        run_over_corpora(TARGETS);
    }

    #[test]
    fn bytes_that_were_changed_anywhere_do_no_harm() {
        let mut random = Random::new(7);
        for (name, body) in TARGETS {
            for file in fs::read_dir(corpus_of(name)).unwrap() {
                let seed = fs::read(file.unwrap().path()).unwrap();
                for _ in 0..300 {
                    let mut bytes = seed.clone();
                    for _ in 0..=random.below(4) {
                        let at = random.below(bytes.len() as u64) as usize;
                        // Where the headers of pages are, one bit means most.
                        let at = if random.one_in(2) { at } else { at - at % PAGE % 200 };
                        bytes[at] = random.next() as u8;
                    }
                    bytes.truncate(bytes.len() - random.below(3) as usize * 100 % bytes.len());
                    body(&bytes);
                }
            }
        }
    }

    /// A small database with tables of both kinds, chains, free pages and interior pages.
    fn database(auto_vacuum: bool) -> (Vec<u8>, [u8; 7]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        let connection = Connection::open(&path).unwrap();
        let sql = format!(
            "PRAGMA page_size=512; PRAGMA auto_vacuum={};
             CREATE TABLE a(id INTEGER PRIMARY KEY, b); CREATE TABLE b(k, v, PRIMARY KEY(k, v)) WITHOUT ROWID;
             CREATE TABLE c(x); CREATE INDEX i ON a(b);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
             INSERT INTO a SELECT i, 'text ' || i FROM n;
             INSERT INTO b SELECT id * 1.5, zeroblob(id * 12) FROM a WHERE id > 42;
             INSERT INTO c SELECT zeroblob(id * 90) FROM a WHERE id < 9;
             DELETE FROM c WHERE rowid % 3 = 0",
            u8::from(auto_vacuum)
        );
        connection.execute_batch(&sql).unwrap();
        let root = |name: &str| -> u8 {
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            connection.query_row(sql, [name], |row| row.get(0)).unwrap()
        };
        let roots = [root("a"), 0, root("b"), 2, root("c"), 0, root("i")];
        (fs::read(&path).unwrap(), roots)
    }

    /// Writes the seeds: `cargo test -p sqlrsync-database --lib -- --ignored write_seeds`.
    #[test]
    #[ignore = "writes into fuzz/corpus"]
    fn write_seeds() {
        for auto_vacuum in [false, true] {
            let (database, roots) = database(auto_vacuum);
            let name = if auto_vacuum { "auto-vacuum" } else { "plain" };
            let count = (database.len() / PAGE) as u8;
            let mut bytes = vec![0, count];
            bytes.extend(roots);
            // A byte at the end of each page.
            (0..count).for_each(|page| bytes.extend([page, 254, 7, 7]));
            bytes.extend(&database);
            let sql = "SELECT * FROM a JOIN b ON k > id ORDER BY v, a.b LIMIT 9";
            let version = [&[sql.len() as u8], sql.as_bytes(), &database].concat();
            let mut old = Pages { bytes: database, reads: 0 };
            let map = ParentMap::build(&mut old).unwrap().encode();
            for (target, bytes) in [("touched", bytes), ("parent_map", map), ("version", version)] {
                let folder = corpus_of(target);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
            }
        }
    }
}
