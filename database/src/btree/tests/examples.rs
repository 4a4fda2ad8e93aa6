//! What is found, by example.

use super::support::{Image, change, changed, database, execute, find, roots};
use crate::btree::layout::Layout;
use crate::btree::page::Page;
use crate::btree::{ParentMap, Ranges, Touched, touched_of_unknown};

/// How many rowids the ranges of a table span.
fn span(found: &Touched, table: &str) -> u64 {
    match found.of(table) {
        None => 0,
        Some(Ranges::Rowids(ranges)) => {
            ranges.iter().map(|range| range.end().abs_diff(*range.start()) + 1).sum()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_row_of_a_hundred_thousand_is_found_with_a_page_a_level() {
    let connection = database(4096);
    execute(
        &connection,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, amount INTEGER);
         CREATE INDEX by_amount ON t(amount);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO t SELECT i, 'name ' || i, i * 7 % 1000 FROM n;",
    );
    let two = change(&connection, |connection| {
        execute(connection, "UPDATE t SET amount = 5000 WHERE id = 54321");
    });
    assert!(span(&two.found, "t") < 400, "{:?}", two.found);
    assert_eq!(two.found.read_more, None);
    assert!(two.old.reads <= 20 && two.new.reads <= 20, "{} {}", two.old.reads, two.new.reads);
    // All but the first page is said to come before it is read, so that it can be fetched ahead.
    let surprises = [two.old.surprises, two.new.surprises];
    assert!(surprises.iter().all(|&count| count <= 3), "{surprises:?}");
}

#[test]
fn where_nobody_knows_which_pages_changed_each_is_read_once() {
    let connection = database(1024);
    execute(
        &connection,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO t SELECT i, 'name ' || i FROM n;",
    );
    let (mut old, roots_old) = (Image::of(&connection), roots(&connection));
    execute(&connection, "UPDATE t SET name = 'another' WHERE id = 12345");
    let (mut new, roots_new) = (Image::of(&connection), roots(&connection));
    let found = touched_of_unknown(&mut old, &mut new, (&roots_old, &roots_new)).unwrap();
    assert!((1..300).contains(&span(&found, "t")) && found.read_more.is_none(), "{found:?}");
    for image in [&old, &new] {
        let pages = image.geometry.page_count.get() as usize;
        assert!((pages..pages + 20).contains(&image.reads), "{} of {pages}", image.reads);
    }
    let mut same = old.clone();
    let none = touched_of_unknown(&mut old, &mut same, (&roots_old, &roots_old)).unwrap();
    assert_eq!(none, Touched::default());
}

#[test]
fn a_byte_in_a_blob_of_40_kb_changes_an_overflow_page_and_not_its_leaf() {
    let connection = database(1024);
    execute(
        &connection,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
         INSERT INTO t SELECT i, zeroblob(40000) FROM n;",
    );
    let two = change(&connection, |connection| {
        // SQLite writes the pages of a chain that differ and no others.
        execute(
            connection,
            "UPDATE t SET b = CAST(substr(b, 1, 30000) || x'01' || substr(b, 30002) AS BLOB) WHERE id = 70",
        );
    });
    let pages = changed(&two.old, &two.new);
    assert_eq!(pages.len(), 1, "the leaf has not changed");
    assert!((1..10).contains(&span(&two.found, "t")), "{:?}", two.found);
    assert_eq!(two.found.read_more, None);
}

#[test]
fn ten_thousand_deleted_rows_change_few_pages_and_are_all_found() {
    let connection = database(4096);
    execute(
        &connection,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO t SELECT i, 'name ' || i FROM n;",
    );
    let two = change(&connection, |connection| {
        execute(connection, "DELETE FROM t WHERE id BETWEEN 40001 AND 50000");
    });
    assert!(changed(&two.old, &two.new).len() < 10, "freed leaves keep their bytes");
    let span = span(&two.found, "t");
    assert!((10_000..11_000).contains(&span), "{span}");
    assert_eq!(two.found.read_more, None);
}

#[test]
fn the_map_that_comes_out_serves_for_the_next_version() {
    let connection = database(512);
    execute(
        &connection,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
         INSERT INTO t SELECT i, randomblob(i % 1500) FROM n;",
    );
    let mut parents = ParentMap::build(&mut Image::of(&connection)).unwrap();
    for version in 0..20 {
        let (old, roots_old) = (Image::of(&connection), roots(&connection));
        execute(
            &connection,
            &format!(
                "DELETE FROM t WHERE id % 20 = {version};
                 INSERT INTO t SELECT id + 3000 + {version}, randomblob(700) FROM t WHERE id % 31 = 7;
                 UPDATE t SET b = randomblob(1200) WHERE id % 97 = {version};"
            ),
        );
        let two = find(old, Image::of(&connection), (&roots_old, &roots(&connection)), parents, &version);
        assert_eq!(two.found.read_more, None, "version {version}");
        parents = ParentMap::decode(&two.parents.encode()).unwrap();
    }
}

#[test]
fn one_key_of_twenty_thousand_is_found_with_a_page_a_level() {
    let connection = database(1024);
    execute(
        &connection,
        "CREATE TABLE t(region TEXT, id INTEGER, amount, PRIMARY KEY(region, id)) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO t SELECT 'region ' || (i % 7), i, i * 3 FROM n;",
    );
    for sql in [
        "UPDATE t SET amount = -1 WHERE region = 'region 3' AND id = 700 * 7 + 3",
        "DELETE FROM t WHERE region = 'region 6' AND id = 90 * 7 + 6",
        "INSERT INTO t VALUES ('region 2', -5, 'new')",
    ] {
        let two = change(&connection, |connection| execute(connection, sql));
        let Some(Ranges::Keys(keys)) = two.found.of("t") else { panic!("{:?}", two.found) };
        assert!(keys.len() < 300, "{sql}: {} keys", keys.len());
        assert_eq!(two.found.read_more, None, "{sql}");
        assert!(two.old.reads <= 20 && two.new.reads <= 20, "{sql}: {} {}", two.old.reads, two.new.reads);
    }
}

#[test]
fn a_table_that_loses_a_level_is_not_read_whole() {
    let connection = database(512);
    // Two levels of interior pages, the upper one hardly needed.
    execute(
        &connection,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1600)
         INSERT INTO t SELECT i, 'a name of some length, ' || i FROM n;",
    );
    let mut heights = Vec::new();
    // Somewhere on the way down the tree loses its upper level.
    for last in (1..16).rev().map(|hundreds| hundreds * 100) {
        let two = change(&connection, |connection| {
            execute(connection, &format!("DELETE FROM t WHERE id BETWEEN {} AND {}", last + 1, last + 100));
        });
        let span = span(&two.found, "t");
        assert!(span < 400, "{last}: {span}");
        assert_eq!(two.found.read_more, None);
        heights.push([height(&two.old, 2), height(&two.new, 2)]);
    }
    assert!(heights.contains(&[2, 1]), "{heights:?}");
}

/// How many levels of a tree are below its root.
fn height(image: &Image, root: u32) -> usize {
    let layout = Layout::decode(image.geometry, image.page(1).unwrap()).unwrap();
    let children = Page::decode(root, image.page(root).unwrap(), layout).unwrap().children().unwrap();
    children.first().map_or(0, |&child| 1 + height(image, child))
}

#[test]
fn a_table_that_was_rebuilt_is_read_whole_and_this_is_said() {
    let connection = database(1024);
    execute(
        &connection,
        "CREATE TABLE a(id INTEGER PRIMARY KEY, b); CREATE TABLE t(id INTEGER PRIMARY KEY, b);
         INSERT INTO a VALUES (1, 2); INSERT INTO t VALUES (1, 2);",
    );
    let two = change(&connection, |connection| {
        execute(
            connection,
            "CREATE TABLE fresh(id INTEGER PRIMARY KEY, b, c); INSERT INTO fresh SELECT id, b, 0 FROM t;
             DROP TABLE t; ALTER TABLE fresh RENAME TO t",
        );
    });
    assert_eq!(two.found.of("t"), Some(&Ranges::All));
    assert_eq!(two.found.of("a"), None);
    assert!(two.found.read_more.is_some());
}
