//! Virtual tables and their shadow tables.

use sqlrsync_database::merge::{Reason, Side};

use crate::support::{Merged, Three, counts, id, reasons};

fn found(merged: &Merged, word: &str) -> Vec<String> {
    merged.rows(&format!("SELECT rowid FROM f WHERE f MATCH '{word}' ORDER BY rowid"))
}

fn checked(merged: &Merged) {
    merged.db.execute_batch("INSERT INTO f(f) VALUES ('integrity-check')").unwrap();
}

#[test]
fn a_full_text_index_that_one_side_changed_is_that_sides() {
    let base = "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('red fox'); CREATE TABLE t(id INTEGER PRIMARY KEY)";
    let three = Three::new(
        base,
        "INSERT INTO t VALUES (1)",
        "INSERT INTO f VALUES ('red hen'); DELETE FROM f WHERE rowid = 1",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        checked(&merged);
        assert_eq!((found(&merged, "red"), merged.summary.rebuilt.len()), (vec!["2".to_owned()], 0));
        assert_eq!(merged.rows("SELECT id FROM t"), ["1"]);
    }
}

#[test]
fn a_full_text_index_with_its_own_content_that_both_changed_is_made_again() {
    for module in
        ["fts5(x, y UNINDEXED)", "fts5(x, y, detail=none, columnsize=0)", "fts4(x, y)", "fts3(x, y)"]
    {
        let base = format!(
            "CREATE VIRTUAL TABLE f USING {module}; INSERT INTO f(rowid, x) VALUES (1, 'red fox'), (2, 'red hen'), (3, 'old dog')"
        );
        let three = Three::new(
            &base,
            "INSERT INTO f(rowid, x) VALUES (10, 'red cat'); DELETE FROM f WHERE rowid = 1",
            "INSERT INTO f(rowid, x) VALUES (20, 'red cow'); UPDATE f SET x = 'blue hen' WHERE rowid = 2",
        );
        for three in [three.swapped(), three] {
            let merged = three.merged();
            checked(&merged);
            assert_eq!(found(&merged, "red"), ["10", "20"], "{module}");
            assert_eq!((found(&merged, "blue"), found(&merged, "dog")), (vec!["2".into()], vec!["3".into()]));
            assert_eq!(merged.summary.rebuilt, ["f"]);
        }
    }
}

#[test]
fn one_document_that_both_changed_is_in_conflict() {
    let base = "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f(rowid, x) VALUES (1, 'red fox')";
    let three = || Three::new(base, "UPDATE f SET x = 'red hen'", "UPDATE f SET x = 'red cow'");
    assert_eq!(counts(&three().conflict()), [("f_content", 1)]);
    let merged = three().keep(Side::Mine).merged();
    checked(&merged);
    assert_eq!((found(&merged, "cow"), found(&merged, "hen")), (vec!["1".to_owned()], vec![]));
}

const DOCUMENTS: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, x);
    CREATE VIRTUAL TABLE f USING fts5(x, content='t', content_rowid='id');
    CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO f(rowid, x) VALUES (new.id, new.x); END;
    CREATE TRIGGER ad AFTER DELETE ON t BEGIN INSERT INTO f(f, rowid, x) VALUES ('delete', old.id, old.x); END;
    INSERT INTO t VALUES (1, 'red fox'), (2, 'red hen')";

#[test]
fn a_full_text_index_over_another_tables_content_is_made_again_from_the_merged_rows() {
    let three = Three::new(
        DOCUMENTS,
        "INSERT INTO t VALUES (3, 'red cat'); DELETE FROM t WHERE id = 1",
        "INSERT INTO t VALUES (4, 'red cow')",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        checked(&merged);
        assert_eq!(found(&merged, "red"), ["2", "3", "4"]);
    }
}

#[test]
fn a_full_text_index_whose_content_is_gone_is_in_conflict_as_a_whole() {
    // Each side has changed the index before its content was given another column, or was dropped.
    for migration in [
        "ALTER TABLE t RENAME COLUMN x TO y",
        "DROP TABLE t",
        "DROP TABLE t; CREATE VIEW t AS SELECT 1 AS id, 2 AS x",
    ] {
        let base = format!("{DOCUMENTS}; {migration}");
        let add = |id: i64| format!("INSERT INTO f(rowid, x) VALUES ({id}, 'red cat')");
        let three = || Three::new(&base, &add(7), &add(8));
        let expected = Reason::VirtualTable { table: "f".into(), module: "fts5".into() };
        assert_eq!(three().conflict().reasons, [expected], "{migration}");
        let merged = three().keep(Side::Mine).merged();
        assert_eq!(found(&merged, "red cat"), ["8"], "{migration}");
    }
}

/// Whether an index has what its content says, where that is in another table as well.
fn fits_its_content(merged: &Merged) {
    merged.db.execute_batch("INSERT INTO f(f, rank) VALUES ('integrity-check', 1)").unwrap();
}

#[test]
fn an_index_that_one_side_changed_is_made_again_where_its_content_is_kept_as_the_other_has_it() {
    let with_parent = DOCUMENTS.replace("PRIMARY KEY, x)", "PRIMARY KEY, x, p REFERENCES p(id))");
    let base = format!(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1);
         {}; INSERT INTO t VALUES (7, 'red dog', 1)",
        with_parent.replace("'red fox'", "'red fox', NULL").replace("'red hen'", "'red hen', NULL")
    );
    let three = |theirs: &str, mine: &str| Three::new(&base, theirs, mine);
    let others = "INSERT INTO t VALUES (3, 'red cat', 1); DELETE FROM t WHERE id = 1";
    // Mine's table is kept, and theirs rows do not fit into it.
    let schema = three(others, "ALTER TABLE t ADD COLUMN c").keep(Side::Mine).merged();
    // A row that only theirs changed is taken back, be it by name or since it misses its parent.
    let row = three(others, "INSERT INTO p VALUES (2)").choose("t", id(3), Side::Mine).merged();
    let gone = "DELETE FROM t WHERE id = 7; DELETE FROM p WHERE id = 1";
    let parent = three("INSERT INTO t VALUES (3, 'red cat', 1)", gone);
    let parent = parent.keep(Side::Mine).merged();
    for (merged, expected) in [(schema, vec!["1", "2", "7"]), (row, vec!["2", "7"]), (parent, vec!["1", "2"])]
    {
        fits_its_content(&merged);
        assert_eq!(found(&merged, "red"), expected);
    }
}

#[test]
fn a_document_that_one_side_changed_is_chosen_with_its_index_and_a_shadow_row_is_not() {
    let base =
        "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f(rowid, x) VALUES (1, 'red fox'), (2, 'red hen');
        CREATE TABLE o(id INTEGER PRIMARY KEY)";
    let theirs = "UPDATE f SET x = 'old fox' WHERE rowid = 1; UPDATE f SET x = 'old hen' WHERE rowid = 2";
    let three = || Three::new(base, theirs, "INSERT INTO o VALUES (1)");
    for three in [
        three().choose("f_content", id(1), Side::Mine),
        three().swapped().choose("f_content", id(1), Side::Theirs),
    ] {
        let merged = three.merged();
        checked(&merged);
        assert_eq!((found(&merged, "red"), found(&merged, "old")), (vec!["1".into()], vec!["2".into()]));
    }
    // The averages of the index: no row that anybody wrote.
    let merged = three().choose("f_data", id(1), Side::Mine).choose("f_data", id(10), Side::Mine).merged();
    checked(&merged);
    assert_eq!(found(&merged, "old"), ["1", "2"]);
}

#[test]
fn a_contentless_full_text_index_that_both_changed_is_in_conflict() {
    for options in ["content=''", "content='', contentless_delete=1", "content='', contentless_unindexed=1"] {
        let base = format!(
            "CREATE VIRTUAL TABLE f USING fts5(x, {options}); INSERT INTO f(rowid, x) VALUES (1, 'red')"
        );
        let three = || {
            Three::new(
                &base,
                "INSERT INTO f(rowid, x) VALUES (2, 'red')",
                "INSERT INTO f(rowid, x) VALUES (3, 'red')",
            )
        };
        let conflict = three().conflict();
        let expected = Reason::VirtualTable { table: "f".into(), module: "fts5".into() };
        assert_eq!(conflict.reasons, [expected], "{options}");
        let merged = three().keep(Side::Mine).merged();
        assert_eq!(found(&merged, "red"), ["1", "3"]);
        let merged = three().keep(Side::Theirs).merged();
        assert_eq!(found(&merged, "red"), ["1", "2"]);
    }
}

#[test]
fn an_index_whose_table_got_other_rowids_is_made_again() {
    let base = "CREATE TABLE t(k TEXT PRIMARY KEY, x); CREATE VIRTUAL TABLE f USING fts5(x, content='t');
        CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO f(rowid, x) VALUES (new.rowid, new.x); END; INSERT INTO t VALUES ('a', 'red')";
    let three =
        Three::new(base, "INSERT INTO t VALUES ('b', 'red b')", "INSERT INTO t VALUES ('c', 'red c')");
    let merged = three.merged();
    checked(&merged);
    assert_eq!(
        merged.rows("SELECT k FROM t WHERE rowid IN (SELECT rowid FROM f WHERE f MATCH 'red') ORDER BY k"),
        ["a", "b", "c"]
    );
}

#[test]
fn an_rtree_is_that_sides_or_in_conflict() {
    let base = "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); INSERT INTO r VALUES (1, 0, 1); CREATE TABLE t(id INTEGER PRIMARY KEY)";
    let three = Three::new(
        base,
        "INSERT INTO t VALUES (1)",
        "INSERT INTO r VALUES (2, 5, 6); DELETE FROM r WHERE id = 1",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("SELECT id FROM r WHERE x0 > 4"), ["2"]);
        assert_eq!(merged.rows("SELECT rtreecheck('r')"), ["ok"]);
    }
    let both = || Three::new(base, "INSERT INTO r VALUES (3, 1, 2)", "INSERT INTO r VALUES (4, 1, 2)");
    assert_eq!(
        reasons(&both().conflict()),
        ["both sides changed the rtree table r, which cannot be made again from its content"]
    );
    let merged = both().keep(Side::Mine).merged();
    assert_eq!(
        (merged.rows("SELECT id FROM r"), merged.rows("SELECT rtreecheck('r')")),
        (vec!["1".into(), "4".into()], vec!["ok".into()])
    );
    let same = Three::new(
        base,
        "INSERT INTO r VALUES (3, 1, 2)",
        "INSERT INTO r VALUES (3, 1, 2); INSERT INTO t VALUES (1)",
    );
    assert_eq!(same.merged().rows("SELECT id FROM r"), ["1", "3"]);
}

/// An R-tree, a contentless index and one with content of its own, written by a trigger of `place`.
const WRITTEN_BY_A_TRIGGER: &str = "CREATE TABLE place(id INTEGER PRIMARY KEY, x, name);
    CREATE TABLE other(id INTEGER PRIMARY KEY, x);
    CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);
    CREATE VIRTUAL TABLE bare USING fts5(name, content='');
    CREATE VIRTUAL TABLE own USING fts5(name);
    CREATE TRIGGER put AFTER INSERT ON place BEGIN
        INSERT INTO [R] VALUES (new.id, new.x, new.x);
        INSERT INTO bare(rowid, name) VALUES (new.id, new.name);
        INSERT INTO own(rowid, name) VALUES (new.id, new.name);
    END;
    INSERT INTO place VALUES (1, 1, 'red')";

#[test]
fn what_triggers_wrote_for_rows_that_are_not_kept_is_not_kept() {
    let three = || {
        Three::new(
            WRITTEN_BY_A_TRIGGER,
            "ALTER TABLE place ADD COLUMN note",
            "INSERT INTO place VALUES (2, 5, 'blue'); INSERT INTO other VALUES (7, 7)",
        )
    };
    let found = |merged: &Merged| {
        let rows = |sql: &str| merged.rows(sql);
        assert_eq!(rows("SELECT rtreecheck('r')"), ["ok"]);
        assert_eq!(rows("SELECT id FROM other"), ["7"], "what nothing stands against is merged");
        let blue = ["bare", "own"].map(|table| rows(&format!("SELECT rowid FROM {table}('blue')")));
        assert_eq!((&blue[0], rows("SELECT id FROM r")), (&blue[1], rows("SELECT id FROM place")));
        blue[0].clone()
    };
    assert_eq!(reasons(&three().conflict()).len(), 1);
    for (three, side) in [(three(), Side::Theirs), (three().swapped(), Side::Mine)] {
        assert_eq!(found(&three.keep(side).merged()), [""; 0]);
    }
    // Where the side is kept that wrote them, so is what it wrote.
    for (three, side) in [(three(), Side::Mine), (three().swapped(), Side::Theirs)] {
        assert_eq!(found(&three.keep(side).merged()), ["2"]);
    }
}

#[test]
fn what_triggers_of_other_tables_wrote_as_well_is_that_sides() {
    let base = format!(
        "{WRITTEN_BY_A_TRIGGER}; CREATE TRIGGER put_other AFTER INSERT ON other BEGIN
            INSERT INTO r VALUES (new.id, new.x, new.x); END"
    );
    let mine = "INSERT INTO place VALUES (2, 5, 'blue'); INSERT INTO other VALUES (7, 7)";
    let three = Three::new(&base, "ALTER TABLE place ADD COLUMN note", mine).keep(Side::Theirs);
    let merged = three.merged();
    assert_eq!(merged.rows("SELECT id FROM r"), ["1", "2", "7"]);
    assert_eq!(merged.rows("SELECT rowid FROM own('blue')"), [""; 0], "nothing but place writes it");
}

#[test]
fn a_shadow_table_changed_without_its_virtual_table_is_part_of_it() {
    let base =
        "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f(rowid, x) VALUES (1, 'red fox'), (2, 'red hen')";
    // On one side it is taken as it stands, wrong as it is.
    let mut three = Three::new(
        &format!("{base}; CREATE TABLE t(a)"),
        "INSERT INTO t VALUES (1)",
        "UPDATE f_content SET c0 = 'blue' WHERE id = 1",
    );
    three.damaged = true;
    assert_eq!(three.merged().rows("SELECT x FROM f WHERE rowid = 1"), ["blue"]);
    // On both, the index is made again, which also mends it.
    let three = Three::new(
        base,
        "INSERT INTO f(rowid, x) VALUES (3, 'red cow')",
        "UPDATE f_content SET c0 = 'blue' WHERE id = 1",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        checked(&merged);
        assert_eq!(
            (found(&merged, "red"), found(&merged, "blue")),
            (vec!["2".to_owned(), "3".into()], vec!["1".to_owned()])
        );
    }
}

#[test]
fn tables_of_a_module_that_is_not_known_are_one_thing_with_it() {
    let base = "CREATE TABLE m_chunks(id INTEGER PRIMARY KEY, v); CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO m_chunks VALUES (1, 'a');
        PRAGMA writable_schema = ON;
        INSERT INTO sqlite_schema VALUES ('table', 'm', 'm', 0, 'CREATE VIRTUAL TABLE m USING unheard_of(x)'); PRAGMA writable_schema = RESET";
    let three =
        Three::new(base, "INSERT INTO m_chunks VALUES (2, 'b')", "INSERT INTO m_chunks VALUES (3, 'c')");
    let expected = Reason::VirtualTable { table: "m".into(), module: "unheard_of".into() };
    assert_eq!(three.conflict().reasons, [expected]);
    assert_eq!(three.keep(Side::Theirs).merged().rows("SELECT id FROM m_chunks"), ["1", "2"]);
    let three = Three::new(base, "INSERT INTO m_chunks VALUES (2, 'b')", "INSERT INTO t VALUES (3)");
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT id FROM m_chunks"), ["1", "2"]);
    }
}
