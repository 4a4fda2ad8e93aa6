//! The schema, and the numbers of the header.

use sqlrsync_database::merge::{Reason, SchemaClash, Side};

use crate::support::{Three, counts, dump, id, reasons, strings};

const BASE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(id INTEGER PRIMARY KEY, b);
    CREATE VIEW v AS SELECT a FROM t; CREATE INDEX by_b ON u(b);
    INSERT INTO t VALUES (1, 'x'), (2, 'y'); INSERT INTO u VALUES (1, 'p')";

#[test]
fn a_migration_on_one_side_and_rows_of_other_tables_merge_either_way() {
    let migration = "ALTER TABLE t ADD COLUMN c DEFAULT 5; CREATE TABLE w(x); INSERT INTO w VALUES (1); UPDATE t SET c = 6 WHERE id = 1";
    let rows = "UPDATE u SET b = 'q'; INSERT INTO u VALUES (2, 'r')";
    let three = Three::new(BASE, migration, rows);
    let merged = three.merged();
    assert_eq!(merged.on, Side::Theirs);
    let swapped = three.swapped().merged();
    assert_eq!(swapped.on, Side::Mine, "no statement of a schema is run again");
    for merged in [merged, swapped] {
        assert_eq!(merged.rows("SELECT * FROM t"), ["1|x|6", "2|y|5"]);
        assert_eq!(merged.rows("SELECT * FROM u"), ["1|q", "2|r"]);
        assert_eq!(merged.rows("SELECT x FROM w"), ["1"]);
    }
}

#[test]
fn alter_table_on_one_side_and_rows_of_it_on_the_other_are_in_conflict() {
    for migration in [
        "ALTER TABLE t ADD COLUMN c DEFAULT 5",
        "ALTER TABLE t RENAME TO s",
        "ALTER TABLE t RENAME COLUMN a TO z",
        "DROP VIEW v; DROP TABLE t",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM u; END",
    ] {
        let three = Three::new(BASE, migration, "INSERT INTO t VALUES (3, 'z')");
        let why = SchemaClash::RowsChanged { by: Side::Theirs };
        let expected = Reason::Schema { object: "t".into(), why };
        assert_eq!(three.conflict().reasons, [expected], "{migration}");
        let why = SchemaClash::RowsChanged { by: Side::Mine };
        assert_eq!(three.swapped().conflict().reasons, [Reason::Schema { object: "t".into(), why }]);
    }
}

#[test]
fn an_index_or_a_view_on_one_side_and_rows_on_the_other_merge() {
    let three = Three::new(
        BASE,
        "CREATE UNIQUE INDEX by_a ON t(a); DROP INDEX by_b; DROP VIEW v; CREATE VIEW v AS SELECT 1",
        "INSERT INTO t VALUES (3, 'z'); UPDATE u SET b = 'q'",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("SELECT count(*) FROM t INDEXED BY by_a WHERE a = 'z'"), ["1"]);
    }
    // The new index is unique, and the other side's rows are not.
    let three = Three::new(BASE, "CREATE UNIQUE INDEX by_a ON t(a)", "INSERT INTO t VALUES (3, 'x')");
    assert_eq!(reasons(&three.conflict()), ["together they break UNIQUE of t (a)"]);
}

#[test]
fn a_table_rebuilt_by_a_migration_merges_with_rows_of_other_tables_only() {
    let migration = "CREATE TABLE new_t(id INTEGER PRIMARY KEY, a TEXT NOT NULL, c); INSERT INTO new_t SELECT id, a, 7 FROM t;
        DROP VIEW v; DROP TABLE t; ALTER TABLE new_t RENAME TO t; CREATE VIEW v AS SELECT a FROM t";
    let three = Three::new(BASE, migration, "INSERT INTO u VALUES (2, 'r')");
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("SELECT * FROM t"), ["1|x|7", "2|y|7"]);
        assert_eq!(merged.rows("SELECT * FROM u"), ["1|p", "2|r"]);
    }
    let three = Three::new(BASE, migration, "UPDATE t SET a = 'z' WHERE id = 2");
    assert_eq!(three.conflict().reasons.len(), 1);
}

#[test]
fn two_different_migrations_are_in_conflict() {
    let three = Three::new(BASE, "CREATE TABLE w(x)", "ALTER TABLE u ADD COLUMN c");
    let clash = |object: &str| Reason::Schema { object: object.into(), why: SchemaClash::BothChanged };
    assert_eq!(three.conflict().reasons, [clash("u"), clash("w")]);
    let three =
        Three::new(BASE, "DROP VIEW v; CREATE VIEW v AS SELECT 1", "DROP VIEW v; CREATE VIEW v AS SELECT 2");
    assert_eq!(three.conflict().reasons, [clash("v")]);
    let (one, two) = (
        "CREATE TRIGGER g DELETE ON t BEGIN SELECT 1; END",
        "CREATE TRIGGER g DELETE ON t BEGIN SELECT 2; END",
    );
    assert_eq!(Three::new(BASE, one, two).conflict().reasons, [clash("g")]);
}

#[test]
fn the_same_migration_on_both_sides_merges_with_rows_of_both() {
    let migration = "ALTER TABLE t ADD COLUMN c DEFAULT 5; ALTER TABLE u DROP COLUMN id; DROP VIEW v;"
        .replace("ALTER TABLE u DROP COLUMN id;", "");
    let three = Three::new(
        BASE,
        &format!("{migration} UPDATE t SET a = 'X' WHERE id = 1; INSERT INTO t VALUES (3, 'z', 9)"),
        &format!(
            "{migration} UPDATE t SET c = 6 WHERE id = 2; INSERT INTO t VALUES (4, 'w', 9); CREATE INDEX i ON t(c)"
        ),
    );
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|X|5", "2|y|6", "3|z|9", "4|w|9"]);
    }
    // A row that one side deleted, and the other has only migrated.
    let three = Three::new(
        BASE,
        &format!("{migration} DELETE FROM t WHERE id = 1"),
        &format!("{migration} UPDATE t SET a = 'Y' WHERE id = 2"),
    );
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT * FROM t"), ["2|Y|5"]);
    }
    // The migration writes every row, each with the same value in the new column.
    let migration = "ALTER TABLE t ADD COLUMN c; UPDATE t SET c = a || '!'";
    let three = Three::new(BASE, migration, &format!("{migration}; UPDATE t SET a = 'Y' WHERE id = 2"));
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|x|x!", "2|Y|y!"]);
    }
    // One old column changed alike on both sides, and another one on one side: two changes of one row.
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'x', 'p')";
    let three = Three::new(
        base,
        &format!("{migration}; UPDATE t SET a = 'y'"),
        &format!("{migration}; UPDATE t SET a = 'y', b = 'q'"),
    );
    for three in [three.swapped(), three] {
        assert_eq!(three.conflict().row_count, 1);
    }
    let three = Three::new(
        BASE,
        &format!("{migration}; UPDATE t SET c = 1"),
        &format!("{migration}; UPDATE t SET c = 2"),
    );
    assert_eq!(three.conflict().row_count, 2);
}

#[test]
fn what_one_side_wrote_into_a_column_that_both_renamed_is_not_lost() {
    let migration = "DROP VIEW v; ALTER TABLE t RENAME COLUMN a TO c;";
    // A NULL was written: a column that was only added would have one as well.
    let null = format!("{migration} UPDATE t SET c = NULL WHERE id = 1");
    let untouched = Three::new(BASE, migration, &null);
    let deleted = Three::new(BASE, &format!("{migration} DELETE FROM t WHERE id = 1"), &null);
    for three in [untouched.swapped(), untouched, deleted.swapped(), deleted] {
        assert_eq!(counts(&three.conflict()), [("t", 1)]);
    }
}

#[test]
fn a_broken_unique_names_both_rows_where_both_added_a_column() {
    let migration = "ALTER TABLE t ADD COLUMN c DEFAULT 5;";
    let three = Three::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); INSERT INTO t VALUES (1, 'x')",
        &format!("{migration} INSERT INTO t VALUES (2, 'y', 1)"),
        &format!("{migration} INSERT INTO t VALUES (3, 'y', 2)"),
    );
    for three in [three.swapped(), three] {
        assert_eq!(counts(&three.conflict()), [("t", 2)]);
        assert_eq!(three.keep(Side::Mine).merged().rows("SELECT count(*) FROM t"), ["2"]);
    }
}

#[test]
fn keeping_one_side_of_a_schema_conflict_keeps_its_schema_and_the_rows_that_fit() {
    let theirs = "ALTER TABLE t ADD COLUMN c DEFAULT 5; UPDATE u SET b = 'theirs'";
    let mine = "CREATE TABLE w(x); INSERT INTO w VALUES (1); INSERT INTO t VALUES (3, 'z'); INSERT INTO u VALUES (2, 'mine')";
    let kept = Three::new(BASE, theirs, mine).keep(Side::Theirs).merged();
    assert_eq!(kept.rows("SELECT * FROM t"), ["1|x|5", "2|y|5"]);
    assert_eq!(kept.rows("SELECT * FROM u"), ["1|theirs", "2|mine"]);
    let kept = Three::new(BASE, theirs, mine).keep(Side::Mine).merged();
    assert_eq!(kept.rows("SELECT * FROM t"), ["1|x", "2|y", "3|z"]);
    assert_eq!(kept.rows("SELECT * FROM u"), ["1|theirs", "2|mine"]);
    assert_eq!(kept.rows("SELECT * FROM w"), ["1"]);
}

#[test]
fn a_parent_table_dropped_on_one_side_and_a_new_child_on_the_other_are_in_conflict() {
    let base =
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p);
        INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 1)";
    let three = || Three::new(base, "INSERT INTO c VALUES (2, 1)", "DELETE FROM c; DROP TABLE p");
    assert_eq!(reasons(&three().conflict()), ["together they break FOREIGN KEY of c (p REFERENCES p)"]);
    assert_eq!(three().keep(Side::Theirs).merged().rows("SELECT id FROM c"), ["2"]);
    assert_eq!(three().keep(Side::Mine).merged().rows("SELECT id FROM c"), Vec::<String>::new());
}

#[test]
fn a_row_of_a_table_that_the_sides_do_not_have_alike_cannot_be_chosen() {
    let theirs = "ALTER TABLE t ADD COLUMN c DEFAULT 5; INSERT INTO t VALUES (3, 'z', 6)";
    for side in [Side::Theirs, Side::Mine] {
        let three = Three::new(BASE, theirs, "INSERT INTO u VALUES (2, 'r')");
        let three = three.choose("t", id(1), side).choose("t", id(3), side);
        assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|x|5", "2|y|5", "3|z|6"]);
    }
}

#[test]
fn the_numbers_of_the_header_merge_by_themselves() {
    let three = Three::new(
        &format!("{BASE}; PRAGMA user_version = 1; PRAGMA application_id = 9"),
        "PRAGMA user_version = 2; INSERT INTO u VALUES (5, '')",
        "PRAGMA application_id = 10; INSERT INTO t VALUES (5, '')",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("PRAGMA user_version"), ["2"]);
        assert_eq!(merged.rows("PRAGMA application_id"), ["10"]);
    }
    let both = || Three::new(BASE, "PRAGMA user_version = 2", "PRAGMA user_version = 3");
    let setting = Reason::Setting { name: "user_version", base: 0, theirs: 2, mine: 3 };
    assert_eq!(both().conflict().reasons, [setting]);
    assert_eq!(both().keep(Side::Mine).merged().rows("PRAGMA user_version"), ["3"]);
    let same =
        Three::new(BASE, "PRAGMA user_version = 2", "PRAGMA user_version = 2; INSERT INTO t VALUES (7, 7)");
    assert_eq!(same.merged().rows("PRAGMA user_version"), ["2"]);
}

#[test]
fn statistics_are_not_merged() {
    let three = Three::new(
        BASE,
        "ANALYZE",
        "INSERT INTO u VALUES (2, 'z'); ANALYZE; UPDATE sqlite_stat1 SET stat = '9'",
    );
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT count(*) FROM u"), ["2"]);
    }
}

#[test]
fn wal_and_rollback_files_merge() {
    let base = format!("PRAGMA journal_mode = WAL; {BASE}; PRAGMA wal_checkpoint(TRUNCATE)");
    let three = Three::new(
        &base,
        "PRAGMA journal_mode = DELETE; INSERT INTO t VALUES (3, 'w')",
        "INSERT INTO t VALUES (4, 'v')",
    );
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT id FROM t"), ["1", "2", "3", "4"]);
    }
}

#[test]
fn a_database_of_another_page_size_merges() {
    let three = Three::new(
        BASE,
        "PRAGMA page_size = 512; VACUUM; INSERT INTO t VALUES (3, 'w')",
        "INSERT INTO t VALUES (4, 'v')",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("SELECT id FROM t"), ["1", "2", "3", "4"]);
    }
}

#[test]
fn a_damaged_database_is_a_conflict_and_not_written() {
    let many = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
        INSERT INTO t SELECT i, hex(randomblob(20)) FROM n";
    let three = Three::new(
        &format!("{BASE}; {many}"),
        "UPDATE t SET a = 1 WHERE id = 10",
        "INSERT INTO u VALUES (2, 'v')",
    );
    let before = dump(&three.open("theirs"));
    let path = three.path("mine");
    let mut bytes = std::fs::read(&path).unwrap();
    let root: usize = strings(&three.open("mine"), "SELECT rootpage FROM sqlite_schema WHERE name = 't'")[0]
        .parse()
        .unwrap();
    bytes[(root - 1) * 4096..][..64].fill(0x77);
    std::fs::write(&path, bytes).unwrap();
    let sides = [three.open("base"), three.open("theirs"), three.open("mine")];
    let everything = sqlrsync_database::btree::Touched::everything("this is a test");
    let merge = sqlrsync_database::merge::merge(
        sqlrsync_database::merge::Sides {
            base: &sides[0],
            theirs: &sides[1],
            mine: &sides[2],
            base_theirs: &everything,
            base_mine: &everything,
        },
        &three.options,
        &three.resolve,
    );
    let sqlrsync_database::merge::Merge::Conflict(conflict) = merge.unwrap() else { panic!("it merged") };
    assert!(
        matches!(&conflict.reasons[..], [Reason::Unsupported { why }] if why.contains("malformed")),
        "{conflict:?}"
    );
    assert_eq!(dump(&three.open("theirs")), before);
}
