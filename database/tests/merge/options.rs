//! `cells` and `renumber`: off unless asked for.

use sqlrsync_database::merge::Side;
use sqlrsync_database::rows::Key;

use crate::support::{Three, counts, id, reasons};

fn cells(base: &str, theirs: &str, mine: &str) -> Three {
    let mut three = Three::new(base, theirs, mine);
    three.options.cells = true;
    three
}

fn renumber(base: &str, theirs: &str, mine: &str) -> Three {
    let mut three = Three::new(base, theirs, mine);
    three.options.renumber = true;
    three
}

const PEOPLE: &str = "CREATE TABLE people(id INTEGER PRIMARY KEY, name, town, age);
    INSERT INTO people VALUES (1, 'ann', 'oslo', 30), (2, 'bob', 'rome', 40)";

#[test]
fn with_cells_two_updates_of_different_columns_merge() {
    let (theirs, mine) = (
        "UPDATE people SET town = 'bonn', age = 31 WHERE id = 1",
        "UPDATE people SET name = 'anna', age = 31 WHERE id = 1",
    );
    assert_eq!(counts(&Three::new(PEOPLE, theirs, mine).conflict()), [("people", 1)], "not unless asked for");
    let three = cells(PEOPLE, theirs, mine);
    for three in [three.swapped(), three] {
        let merged = three.merged();
        assert_eq!(merged.rows("SELECT * FROM people"), ["1|anna|bonn|31", "2|bob|rome|40"]);
        assert_eq!(merged.summary.combined, 1);
    }
}

#[test]
fn with_cells_one_column_that_both_changed_is_still_a_conflict() {
    let three = cells(
        PEOPLE,
        "UPDATE people SET town = 'bonn', age = 1",
        "UPDATE people SET town = 'kiev' WHERE id = 1",
    );
    assert_eq!(counts(&three.conflict()), [("people", 1)]);
    let three =
        cells(PEOPLE, "DELETE FROM people WHERE id = 1", "UPDATE people SET town = 'kiev' WHERE id = 1");
    assert_eq!(counts(&three.conflict()), [("people", 1)]);
}

#[test]
fn with_renumber_mine_gets_a_new_rowid() {
    let three = renumber(
        PEOPLE,
        "INSERT INTO people VALUES (3, 'cy', '', 1)",
        "INSERT INTO people VALUES (3, 'dee', '', 1), (4, 'eve', '', 1)",
    );
    let merged = three.merged();
    assert_eq!(merged.rows("SELECT id, name FROM people"), ["1|ann", "2|bob", "3|cy", "4|eve", "5|dee"]);
    assert_eq!(merged.summary.renumbered, 1);
    // Without a declared key as well.
    let base = "CREATE TABLE log(line); INSERT INTO log VALUES ('a')";
    let three = renumber(base, "INSERT INTO log VALUES ('b')", "INSERT INTO log VALUES ('c')");
    assert_eq!(three.merged().rows("SELECT rowid, line FROM log"), ["1|a", "2|b", "3|c"]);
    // And above what AUTOINCREMENT has given out before.
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v)";
    let three = renumber(
        base,
        "INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (90, ''); DELETE FROM t WHERE id = 90",
        "INSERT INTO t VALUES (1, 'y')",
    );
    let merged = three.merged();
    assert_eq!(merged.rows("SELECT * FROM t"), ["1|x", "91|y"]);
    assert_eq!(merged.rows("SELECT seq FROM sqlite_sequence"), ["91"]);
}

const ORDERS: &str = "CREATE TABLE orders(id INTEGER PRIMARY KEY, who);
    CREATE TABLE lines(order_id INTEGER REFERENCES orders(id), line INT, what, PRIMARY KEY(order_id, line)) WITHOUT ROWID;
    CREATE TABLE notes(id INTEGER PRIMARY KEY, order_id INTEGER, line INT, note,
        FOREIGN KEY(order_id, line) REFERENCES lines(order_id, line));
    CREATE TABLE extra(order_id INTEGER PRIMARY KEY REFERENCES orders(id), gift);
    CREATE TABLE parts(id INTEGER PRIMARY KEY, whole INTEGER REFERENCES parts(id), of_extra REFERENCES extra, name);
    INSERT INTO orders VALUES (1, 'ann'); INSERT INTO lines VALUES (1, 1, 'pen')";

#[test]
fn with_renumber_the_foreign_keys_that_name_it_follow() {
    let new = |who: &str| {
        format!(
            "INSERT INTO orders VALUES (2, '{who}'); INSERT INTO lines VALUES (2, 1, '{who} ink'), (2, 2, '{who} pad');
             INSERT INTO notes VALUES (1, 2, 1, '{who} blue'), (2, 1, 1, '{who} old'); INSERT INTO extra VALUES (2, '{who} bow');
             INSERT INTO parts VALUES (1, NULL, 2, '{who}'), (2, 1, NULL, '{who}'), (3, 2, 2, '{who}')"
        )
    };
    for (theirs, mine) in [("bob", "cy"), ("cy", "bob")] {
        let merged = renumber(ORDERS, &new(theirs), &new(mine)).merged();
        let orders = "SELECT o.id, who, what, note, gift FROM orders o JOIN lines l ON l.order_id = o.id
            JOIN extra e ON e.order_id = o.id LEFT JOIN notes n ON n.order_id = o.id AND n.line = l.line ORDER BY o.id, l.line";
        let row = |id: i64, who: &str, what: &str, note: &str| {
            let note = if note.is_empty() { "NULL".into() } else { format!("{who} {note}") };
            format!("{id}|{who}|{who} {what}|{note}|{who} bow")
        };
        let expected = [
            row(2, theirs, "ink", "blue"),
            row(2, theirs, "pad", ""),
            row(3, mine, "ink", "blue"),
            row(3, mine, "pad", ""),
        ];
        assert_eq!(merged.rows(orders), expected);
        let parts = "SELECT id, whole, of_extra FROM parts ORDER BY id";
        assert_eq!(merged.rows(parts), ["1|NULL|2", "2|1|NULL", "3|2|2", "4|NULL|3", "5|4|NULL", "6|5|3"]);
        assert_eq!(merged.rows("SELECT DISTINCT name FROM parts WHERE id > 3"), [mine]);
        let notes = "SELECT id, order_id, note FROM notes WHERE order_id = 1 ORDER BY id";
        assert_eq!(merged.rows(notes), [format!("2|1|{theirs} old"), format!("4|1|{mine} old")]);
    }
}

#[test]
fn with_renumber_onto_mine_theirs_keeps_its_number() {
    // Mine changed the schema, so that theirs is applied onto it.
    let three = renumber(
        ORDERS,
        "INSERT INTO orders VALUES (2, 'bob'); INSERT INTO lines VALUES (2, 1, 'b')",
        "INSERT INTO orders VALUES (2, 'cy'); INSERT INTO lines VALUES (2, 1, 'c'); CREATE TABLE more(x)",
    );
    let merged = three.merged();
    assert_eq!(merged.on, Side::Mine);
    assert_eq!(merged.rows("SELECT * FROM orders"), ["1|ann", "2|bob", "3|cy"]);
    assert_eq!(merged.rows("SELECT * FROM lines"), ["1|1|pen", "2|1|b", "3|1|c"]);
}

#[test]
fn what_cannot_follow_keeps_its_row_in_conflict() {
    let base = "CREATE TABLE p(id INTEGER PRIMARY KEY, v); CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p(id))";
    let three = renumber(
        base,
        "INSERT INTO p VALUES (1, 'x')",
        "INSERT INTO p VALUES (1, 'y'); INSERT INTO c VALUES (1, '1')",
    );
    let conflict = three.conflict();
    assert_eq!((counts(&conflict), &conflict.rows[0].key), (vec![("p", 1)], &id(1)));
    // The largest rowid there is has no next.
    let base = "CREATE TABLE t(v)";
    let three = renumber(
        base,
        "INSERT INTO t(rowid, v) VALUES (9223372036854775807, 'x')",
        "INSERT INTO t(rowid, v) VALUES (9223372036854775807, 'y')",
    );
    assert_eq!(three.conflict().rows[0].key, Key::Rowid(i64::MAX));
}

#[test]
fn a_renumbered_row_that_breaks_a_constraint_is_shown_as_it_would_be() {
    let base = "CREATE TABLE t(id INTEGER PRIMARY KEY, mail UNIQUE)";
    let three = || renumber(base, "INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    assert_eq!(three().merged().rows("SELECT * FROM t"), ["1|a", "2|b"], "alike: nothing to renumber");
    let three = || renumber(base, "INSERT INTO t VALUES (1, 'a'), (7, 'q')", "INSERT INTO t VALUES (1, 'q')");
    let conflict = three().conflict();
    assert_eq!(reasons(&conflict), ["together they break UNIQUE of t (mail)"]);
    assert!(conflict.rows.iter().any(|row| row.key == id(8) && row.mine.is_some() && row.theirs.is_none()));
    assert_eq!(three().keep(Side::Theirs).merged().rows("SELECT * FROM t"), ["1|a", "7|q"]);
    assert_eq!(three().keep(Side::Mine).merged().rows("SELECT * FROM t"), ["1|a", "8|q"]);
}
