//! Constraints on the result.

use sqlrsync_database::merge::{ConstraintKind, Reason, Side};

use crate::support::{Three, counts, id, reasons};

#[test]
fn two_rows_may_swap_what_is_unique() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, mail UNIQUE, n);
        INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0)";
    let swap = "UPDATE t SET mail = NULL; UPDATE t SET mail = 'b' WHERE id = 1; UPDATE t SET mail = 'c' WHERE id = 2;
        UPDATE t SET mail = 'a' WHERE id = 3; UPDATE t SET mail = 'd' WHERE id = 4";
    let three = Three::new(base, "INSERT INTO t VALUES (5, 'e', 0); UPDATE t SET n = 1 WHERE id = 4", swap);
    let expected = ["1|b|0", "2|c|0", "3|a|0", "4|d|1", "5|e|0"];
    assert_eq!(three.merged().rows("SELECT * FROM t"), expected);
    assert_eq!(three.swapped().merged().rows("SELECT * FROM t"), expected);
    // In a table whose key is not the rowid, where each row keeps its rowid through that.
    let base =
        "CREATE TABLE t(k TEXT PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES ('x', 1), ('y', 2), ('z', 3)";
    let swap = "UPDATE t SET u = -u; UPDATE t SET u = 2 WHERE k = 'x'; UPDATE t SET u = 1 WHERE k = 'y'; UPDATE t SET u = 3 WHERE k = 'z'";
    let merged = Three::new(base, "INSERT INTO t VALUES ('w', 4)", swap).merged();
    assert_eq!(merged.rows("SELECT rowid, k, u FROM t"), ["1|x|2", "2|y|1", "3|z|3", "4|w|4"]);
    assert_eq!(merged.summary.moved, 0);
}

#[test]
fn a_unique_value_passes_from_one_sides_row_to_the_others() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, mail UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    // Theirs lets go of what mine takes... in another row: nobody loses anything.
    let three = Three::new(
        base,
        "UPDATE t SET mail = 'z' WHERE id = 1",
        "DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 'b')",
    );
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|z", "3|b"]);
}

#[test]
fn a_broken_unique_names_the_constraint_and_both_rows() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, UNIQUE(a, b))";
    let three = Three::new(base, "INSERT INTO t VALUES (1, 'x', 'y')", "INSERT INTO t VALUES (2, 'x', 'y')");
    let conflict = three.conflict();
    assert_eq!(
        conflict.reasons,
        [Reason::Constraint { kind: ConstraintKind::Unique, table: "t".into(), name: "a, b".into() }]
    );
    let mut keys: Vec<_> = conflict.rows.iter().map(|row| row.key.clone()).collect();
    keys.sort_by_key(|key| key.to_bytes());
    assert_eq!(keys, [id(1), id(2)]);
    assert!(conflict.rows.iter().all(|row| row.base.is_none() && row.theirs.is_some() != row.mine.is_some()));
}

#[test]
fn a_row_that_two_rows_stop_names_both() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE)";
    let three = Three::new(
        base,
        "INSERT INTO t VALUES (1, 'x', 'p'), (2, 'q', 'y')",
        "INSERT INTO t VALUES (3, 'x', 'y')",
    );
    for three in [three.swapped(), three] {
        assert_eq!(counts(&three.conflict()), [("t", 3)]);
    }
}

#[test]
fn unique_indexes_over_expressions_and_parts_of_a_table_name_both_rows() {
    for index in ["t(lower(a))", "t(a COLLATE NOCASE)", "t(b) WHERE b > 0"] {
        let base = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE UNIQUE INDEX i ON {index}");
        let three = Three::new(&base, "INSERT INTO t VALUES (1, 'X', 1)", "INSERT INTO t VALUES (2, 'x', 1)");
        assert_eq!(counts(&three.conflict()), [("t", 2)], "{index}");
    }
}

#[test]
fn a_constraint_that_says_replace_deletes_nobodys_row() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b NOT NULL ON CONFLICT REPLACE DEFAULT 5)";
    let three = Three::new(base, "INSERT INTO t VALUES (1, 'x', 1)", "INSERT INTO t VALUES (2, 'x', 1)");
    assert_eq!(counts(&three.conflict()), [("t", 2)]);
    let base = "CREATE TABLE t(k TEXT PRIMARY KEY ON CONFLICT IGNORE, u UNIQUE ON CONFLICT IGNORE)";
    let three = Three::new(base, "INSERT INTO t VALUES ('a', 1)", "INSERT INTO t VALUES ('b', 1)");
    assert_eq!(counts(&three.conflict()), [("t", 2)]);
}

#[test]
fn a_check_that_only_the_combined_row_breaks_is_in_conflict() {
    let base =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, low INT, high INT, CONSTRAINT in_order CHECK (low <= high));
        INSERT INTO t VALUES (1, 10, 20)";
    let mut three = Three::new(base, "UPDATE t SET low = 15", "UPDATE t SET high = 12");
    three.options.cells = true;
    assert_eq!(reasons(&three.conflict()), ["together they break CHECK of t (in_order)"]);
    let mut three = Three::new(base, "UPDATE t SET low = 15", "UPDATE t SET high = 16");
    three.options.cells = true;
    assert_eq!(three.merged().rows("SELECT * FROM t"), ["1|15|16"]);
}

const FAMILY: &str = "CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
    CREATE TABLE child(id INTEGER PRIMARY KEY, parent INT REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE);
    INSERT INTO parent VALUES (1, 'a'), (2, 'b'); INSERT INTO child VALUES (1, 1), (2, 2);
    PRAGMA foreign_keys = ON;";

#[test]
fn a_cascade_on_one_side_and_a_new_child_on_the_other_are_in_conflict() {
    let three = Three::new(
        FAMILY,
        "PRAGMA foreign_keys = ON; DELETE FROM parent WHERE id = 1",
        "INSERT INTO child VALUES (3, 1)",
    );
    for three in [three.swapped(), three] {
        let conflict = three.conflict();
        assert_eq!(
            reasons(&conflict),
            ["together they break FOREIGN KEY of child (parent REFERENCES parent)"]
        );
        assert_eq!(counts(&conflict), [("child", 1), ("parent", 1)]);
    }
}

#[test]
fn no_cascade_fires_in_a_merge() {
    // Mine moved parent 2 to 20 and its child with it; theirs touched neither.
    let three = Three::new(
        FAMILY,
        "INSERT INTO parent VALUES (3, 'c')",
        "PRAGMA foreign_keys = ON; UPDATE parent SET id = 20 WHERE id = 2; DELETE FROM parent WHERE id = 1",
    );
    let merged = three.merged();
    assert_eq!(merged.rows("SELECT * FROM child"), ["2|20"]);
    assert_eq!(merged.rows("SELECT id FROM parent"), ["3", "20"]);
}

#[test]
fn a_parent_that_was_deleted_and_is_there_again_satisfies_its_children() {
    let three = Three::new(
        FAMILY,
        "INSERT INTO child VALUES (3, 2)",
        "DELETE FROM parent WHERE id = 2; INSERT INTO parent VALUES (2, 'new')",
    );
    assert_eq!(three.merged().rows("SELECT * FROM child"), ["1|1", "2|2", "3|2"]);
}

#[test]
fn foreign_keys_in_a_circle_and_deferred_ones_merge() {
    let base = "CREATE TABLE a(id INTEGER PRIMARY KEY, b REFERENCES b(id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE b(id INTEGER PRIMARY KEY, a NOT NULL REFERENCES a(id));
        INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1)";
    let three = Three::new(
        base,
        "INSERT INTO a VALUES (2, 2); INSERT INTO b VALUES (2, 2)",
        "INSERT INTO a VALUES (3, 4); INSERT INTO b VALUES (4, 3); DELETE FROM a WHERE id = 1; DELETE FROM b WHERE id = 1",
    );
    assert_eq!(
        three.merged().rows("SELECT a.id, b.id FROM a JOIN b ON a.b = b.id AND b.a = a.id"),
        ["2|2", "3|4"]
    );
    let three =
        Three::new(base, "UPDATE b SET a = 1", "INSERT INTO a VALUES (9, 77); INSERT INTO b VALUES (77, 9)");
    assert_eq!(three.merged().rows("SELECT count(*) FROM a"), ["2"]);
}

#[test]
fn orphans_that_were_there_before_stop_nothing() {
    let base = format!("{FAMILY} PRAGMA foreign_keys = OFF; INSERT INTO child VALUES (50, 500), (51, 501)");
    // Theirs deletes one orphan; mine writes the other one, and adds an orphan of its own.
    let three = Three::new(
        &base,
        "DELETE FROM child WHERE id = 50",
        "UPDATE child SET parent = 502 WHERE id = 51; INSERT INTO child VALUES (52, 503)",
    );
    assert_eq!(three.merged().rows("SELECT * FROM child"), ["1|1", "2|2", "51|502", "52|503"]);
    // An orphan that goes hides no new one: SQLite's own count would.
    let three = Three::new(
        &base,
        "DELETE FROM child WHERE id IN (50, 51); DELETE FROM child WHERE parent = 1; DELETE FROM parent WHERE id = 1",
        "INSERT INTO child VALUES (52, 1)",
    );
    for three in [three.swapped(), three] {
        assert_eq!(counts(&three.conflict()), [("child", 1), ("parent", 1)]);
    }
}

#[test]
fn a_foreign_key_compares_as_its_parent_does() {
    let base = "CREATE TABLE p(name TEXT COLLATE NOCASE PRIMARY KEY, a, b, UNIQUE(a, b)) WITHOUT ROWID;
        CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p, x, y, FOREIGN KEY(x, y) REFERENCES p(a, b));
        INSERT INTO p VALUES ('Ann', 1, 2)";
    let three = Three::new(
        base,
        "INSERT INTO p VALUES ('Bob', 3, 4)",
        "INSERT INTO c VALUES (1, 'ANN', 1, 2), (2, NULL, 9, NULL)",
    );
    assert_eq!(three.merged().rows("SELECT count(*) FROM c"), ["2"]);
    let three = Three::new(base, "DELETE FROM p", "INSERT INTO c VALUES (1, 'ANN', NULL, NULL)");
    for three in [three.swapped(), three] {
        assert_eq!(counts(&three.conflict()), [("c", 1), ("p", 1)]);
    }
    let three = Three::new(base, "UPDATE p SET b = 5", "INSERT INTO c VALUES (1, 'ANN', 1, 2)");
    for three in [three.swapped(), three] {
        assert_eq!(reasons(&three.conflict()), ["together they break FOREIGN KEY of c (x, y REFERENCES p)"]);
    }
}

#[test]
fn many_parents_that_are_gone_are_looked_for_at_once() {
    let base = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, p INT REFERENCES p);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO p SELECT i FROM n;
        INSERT INTO c VALUES (1000, 9999)";
    let three = Three::new(
        base,
        "INSERT INTO c VALUES (1, 300), (2, 400), (3, 500); INSERT INTO c VALUES (4, 8888)",
        "DELETE FROM p WHERE id <= 400",
    );
    for three in [three.swapped(), three] {
        let conflict = three.conflict();
        assert_eq!(counts(&conflict), [("c", 2), ("p", 2)]);
    }
}

#[test]
fn an_orphan_is_known_again_where_a_migration_renamed_what_names_its_parent() {
    let base = "CREATE TABLE p(x, y, UNIQUE(x, y)); INSERT INTO p VALUES (1, 2), (3, 4), (5, 5);
        CREATE TABLE c(id INTEGER PRIMARY KEY, a, b, n, FOREIGN KEY(a, b) REFERENCES p(x, y));
        INSERT INTO c VALUES (1, 1, 2, 0), (2, 3, 4, 0), (3, 4, 3, 0)";
    let renamed = "ALTER TABLE c RENAME COLUMN a TO first; ALTER TABLE c RENAME COLUMN id TO number";
    let reordered = "CREATE TABLE d(id INTEGER PRIMARY KEY, second, first, FOREIGN KEY(second, first) REFERENCES p(y, x));
        INSERT INTO d SELECT id, b, a FROM c; DROP TABLE c; ALTER TABLE d RENAME TO c";
    for theirs in [renamed, reordered] {
        let three = Three::new(base, theirs, "DELETE FROM p WHERE x = 1");
        for three in [three.swapped(), three] {
            assert_eq!(three.merged().rows("SELECT count(*) FROM c"), ["3"], "{theirs}");
        }
    }
    // Another foreign key of the same columns: what was an orphan by the old one is not one by the new one.
    let other = "CREATE TABLE d(id INTEGER PRIMARY KEY, a, b, n, FOREIGN KEY(b, a) REFERENCES p(x, y));
        INSERT INTO d SELECT * FROM c; DROP TABLE c; ALTER TABLE d RENAME TO c";
    let three = Three::new(base, other, "DELETE FROM p WHERE x = 3");
    for three in [three.swapped(), three] {
        assert_eq!(counts(&three.conflict()), [("p", 1)]);
    }
    // The key is another column, so that nothing says which row is which.
    let moved =
        "CREATE TABLE d(a, b, n, id INTEGER, m INTEGER PRIMARY KEY, FOREIGN KEY(a, b) REFERENCES p(x, y));
        INSERT INTO d SELECT a, b, n, id, id FROM c; DROP TABLE c; ALTER TABLE d RENAME TO c";
    let three = Three::new(base, moved, "DELETE FROM p WHERE x = 1");
    for three in [three.swapped(), three] {
        assert_eq!(counts(&three.conflict()), [("p", 1)]);
    }
}

#[test]
fn many_parents_that_are_gone_are_known_where_both_renamed_their_key() {
    let base = "CREATE TABLE p(id INTEGER PRIMARY KEY, n INT UNIQUE);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p INT REFERENCES p(n));
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO p SELECT i, i FROM n";
    let migration = "ALTER TABLE p RENAME COLUMN n TO number;";
    let three = Three::new(
        base,
        &format!("{migration} INSERT INTO c VALUES (1, 300)"),
        &format!("{migration} DELETE FROM p WHERE id <= 400"),
    );
    // Each row is another one on both sides, by its new column: they are chosen.
    for (three, side) in [(three.swapped(), Side::Theirs), (three, Side::Mine)] {
        assert_eq!(
            three.keep(side).merged().rows("SELECT count(*), (SELECT count(*) FROM c) FROM p"),
            ["100|0"]
        );
    }
}

#[test]
fn triggers_do_not_fire() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE log(v);
        CREATE TRIGGER a AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id); END;
        CREATE TRIGGER b BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'never'); END;
        INSERT INTO t VALUES (1, 1)";
    let three = Three::new(base, "UPDATE t SET v = 2", "INSERT INTO t VALUES (2, 2)");
    for three in [three.swapped(), three] {
        assert_eq!(three.merged().rows("SELECT v FROM log"), ["1", "2"]);
    }
}

#[test]
fn autoincrement_takes_the_larger_number() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE u(id INTEGER PRIMARY KEY AUTOINCREMENT);
        INSERT INTO t(v) VALUES ('a')";
    let three = Three::new(
        base,
        "INSERT INTO t(id, v) VALUES (50, 'x'); DELETE FROM t WHERE id = 50",
        "INSERT INTO t(id, v) VALUES (20, 'y'); INSERT INTO u VALUES (7); DELETE FROM u",
    );
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("SELECT id FROM t"), ["1", "20"]);
        assert_eq!(merged.rows("SELECT * FROM sqlite_sequence ORDER BY name"), ["t|50", "u|7"]);
    }
    // Both sides inserted under the next number: the same row, twice.
    let three = Three::new(base, "INSERT INTO t(v) VALUES ('x')", "INSERT INTO t(v) VALUES ('y')");
    assert_eq!(three.conflict().rows[0].key, id(2));
}

#[test]
fn what_this_program_does_not_know_is_a_conflict_and_no_broken_database() {
    let three = Three::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t(id INTEGER PRIMARY KEY, a CHECK (unheard_of(a) > 0))' WHERE name = 't';
         PRAGMA writable_schema = RESET",
        "PRAGMA ignore_check_constraints = ON; UPDATE t SET a = 'y' WHERE id = 1",
        "PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES (2, 'z')",
    );
    let conflict = three.conflict();
    assert!(
        matches!(&conflict.reasons[..], [Reason::Unsupported { why }] if why.contains("unheard_of")),
        "{conflict:?}"
    );
    assert!(!conflict.can_be_settled());
}
