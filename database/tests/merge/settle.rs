//! Settling a conflict: for all rows, or row by row.

use sqlrsync_database::merge::Side;

use crate::support::{Three, counts, id, text};

const BASE: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')";
const THEIRS: &str =
    "UPDATE t SET v = 'a1' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (4, 'd1')";
const MINE: &str = "UPDATE t SET v = 'a2' WHERE id = 1; UPDATE t SET v = 'b2' WHERE id = 2;
    INSERT INTO t VALUES (4, 'd2'); UPDATE t SET v = 'c2' WHERE id = 3; INSERT INTO t VALUES (5, 'e2')";

#[test]
fn keeping_one_side_takes_its_rows_where_both_changed_and_all_others_of_both() {
    let theirs = Three::new(BASE, THEIRS, MINE).keep(Side::Theirs).merged();
    assert_eq!(theirs.rows("SELECT * FROM t"), ["1|a1", "3|c2", "4|d1", "5|e2"]);
    let mine = Three::new(BASE, THEIRS, MINE).keep(Side::Mine).merged();
    assert_eq!(mine.rows("SELECT * FROM t"), ["1|a2", "2|b2", "3|c2", "4|d2", "5|e2"]);
}

#[test]
fn rows_are_chosen_one_by_one_and_the_rest_stays_in_conflict() {
    let three = Three::new(BASE, THEIRS, MINE).choose("t", id(1), Side::Mine);
    let conflict = three.conflict();
    assert_eq!(counts(&conflict), [("t", 2)]);
    assert_eq!(conflict.rows[0].key, id(2));
    let three = three.choose("t", id(2), Side::Theirs).choose("t", id(4), Side::Mine);
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|a2", "3|c2", "4|d2", "5|e2"]);
}

#[test]
fn a_choice_by_row_goes_before_the_choice_for_all() {
    let three = Three::new(BASE, THEIRS, MINE).keep(Side::Theirs).choose("t", id(4), Side::Mine);
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|a1", "3|c2", "4|d2", "5|e2"]);
}

#[test]
fn a_row_that_only_one_side_changed_can_be_chosen_too() {
    // 3 was changed by mine alone: theirs is what the base had. 4 stays theirs.
    let three = Three::new(BASE, THEIRS, MINE).keep(Side::Theirs).choose("t", id(3), Side::Theirs);
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|a1", "3|c", "4|d1", "5|e2"]);
    // And a row that theirs alone changed, taken back.
    let three = Three::new(BASE, "DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (9, 'x')");
    let three = three.choose("t", id(2), Side::Mine);
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|a", "2|b", "3|c", "9|x"]);
}

#[test]
fn a_choice_for_what_is_not_there_changes_nothing() {
    let three = Three::new(BASE, "DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (9, 'x')");
    let three = three
        .choose("t", id(77), Side::Mine)
        .choose("t", text("77"), Side::Mine)
        .choose("t", id(1), Side::Mine)
        .choose("nowhere", id(1), Side::Theirs);
    assert_eq!(three.merged().rows("SELECT id FROM t"), ["1", "3", "9"]);
}

#[test]
fn a_broken_constraint_is_settled_by_taking_one_of_its_rows() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, mail UNIQUE); INSERT INTO t VALUES (1, 'a')";
    let three =
        || Three::new(base, "INSERT INTO t VALUES (2, 'x')", "INSERT INTO t VALUES (3, 'x'), (4, 'y')");
    assert_eq!(counts(&three().conflict()), [("t", 2)]);
    let mine = three().keep(Side::Mine).merged();
    assert_eq!(mine.rows("SELECT * FROM t"), ["1|a", "3|x", "4|y"]);
    let theirs = three().keep(Side::Theirs).merged();
    assert_eq!(theirs.rows("SELECT * FROM t"), ["1|a", "2|x", "4|y"]);
    let row = three().choose("t", id(3), Side::Theirs).merged();
    assert_eq!(row.rows("SELECT * FROM t"), ["1|a", "2|x", "4|y"]);
    let row = three().choose("t", id(2), Side::Mine).merged();
    assert_eq!(row.rows("SELECT * FROM t"), ["1|a", "3|x", "4|y"]);
}

#[test]
fn a_chain_of_foreign_keys_is_settled_as_far_as_it_reaches() {
    let base = "CREATE TABLE a(id INTEGER PRIMARY KEY, up REFERENCES a(id) ON DELETE CASCADE);
        INSERT INTO a VALUES (1, NULL), (2, 1), (3, 2)";
    let theirs = "PRAGMA foreign_keys = ON; DELETE FROM a WHERE id = 1; INSERT INTO a VALUES (10, NULL)";
    let mine = "INSERT INTO a VALUES (4, 3), (5, 4), (6, NULL)";
    let three = || Three::new(base, theirs, mine);
    assert_eq!(
        counts(&three().conflict()),
        [("a", 5)],
        "two children, and three that were deleted above them"
    );
    assert_eq!(three().keep(Side::Theirs).merged().rows("SELECT id FROM a"), ["6", "10"]);
    assert_eq!(
        three().keep(Side::Mine).merged().rows("SELECT id FROM a"),
        ["1", "2", "3", "4", "5", "6", "10"]
    );
}

#[test]
fn a_conflict_shows_every_row_that_a_choice_for_all_would_take() {
    let base = "CREATE TABLE c(id INTEGER PRIMARY KEY, n); INSERT INTO c VALUES (1, 'A'), (2, 'B');
        CREATE TABLE a(id INTEGER PRIMARY KEY, c NOT NULL REFERENCES c, t);
        CREATE TABLE u(id INTEGER PRIMARY KEY, mail UNIQUE);
        CREATE TABLE s(k TEXT PRIMARY KEY, v); INSERT INTO s VALUES ('x', 0)";
    let three = |theirs: &str, mine: &str| Three::new(base, theirs, mine);
    // A child of a parent that the other side deleted, beside a row that both changed.
    let children = || {
        three(
            "DELETE FROM c WHERE id = 1; UPDATE s SET v = 1",
            "INSERT INTO a VALUES (10, 1, 'p'), (11, 1, 'q'), (12, 2, 'r'); UPDATE s SET v = 2",
        )
    };
    let conflict = children().conflict();
    assert_eq!(counts(&conflict), [("a", 2), ("c", 1), ("s", 1)]);
    assert_eq!(conflict.reasons.len(), 2, "{:?}", conflict.reasons);
    assert_eq!(children().keep(Side::Theirs).merged().rows("SELECT id FROM a"), ["12"]);
    assert_eq!(children().keep(Side::Mine).merged().rows("SELECT id FROM c"), ["1", "2"]);
    // Two rows of one name, likewise, where which of them is kept says nothing of the third.
    let names = || {
        three(
            "INSERT INTO u VALUES (1, 'a'); UPDATE s SET v = 1",
            "INSERT INTO u VALUES (2, 'a'), (3, 'b'); UPDATE s SET v = 2",
        )
    };
    assert_eq!(counts(&names().conflict()), [("s", 1), ("u", 2)]);
    assert_eq!(names().keep(Side::Theirs).merged().rows("SELECT id FROM u"), ["1", "3"]);
}

#[test]
fn what_choices_by_row_and_for_all_draw_in_together_is_said() {
    let base =
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p);
        CREATE TABLE s(k TEXT PRIMARY KEY, v); INSERT INTO s VALUES ('x', 0)";
    let mine = "INSERT INTO p VALUES (50); INSERT INTO c VALUES (7, 50); UPDATE s SET v = 2";
    let three = || Three::new(base, "UPDATE s SET v = 1", mine);
    assert_eq!(counts(&three().conflict()), [("s", 1)], "either side can be kept without another row");
    for side in [Side::Theirs, Side::Mine] {
        assert_eq!(three().keep(side).merged().drawn.count, 0);
    }
    // Who takes back the parent takes back its child.
    let merged = three().choose("p", id(50), Side::Theirs).keep(Side::Theirs).merged();
    assert_eq!(merged.rows("SELECT id FROM c"), [""; 0]);
    let [(table, key)] = &merged.drawn.rows[..] else { panic!("{:?}", merged.drawn) };
    assert_eq!((merged.drawn.count, &*table.name, key), (1, "c", &id(7)));
}
