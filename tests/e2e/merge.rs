//! Several people push from one base, and what they wrote does not overlap: merged. What a replica's policy
//! makes of such a push.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::stop::StopOnDrop;
use sqlrsync_tests::team::{FILE, REMOTE, Team, assert_sound, name, pull, push, push_with, try_push, write};

#[test]
fn two_people_push_from_one_base_and_both_find_both_rows() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'by b' WHERE id = 2; INSERT INTO orders VALUES(2, 2, 'of b')");
    let before = sample::content(&b.path(FILE));
    let said = push(b, "merged");
    assert_eq!(said["version"], 3, "{said}");
    assert!(sample::content(&b.path(FILE)) == before, "a push changes nothing here");
    for machine in [a, b] {
        pull(machine);
        assert_eq!((name(machine, 1), name(machine, 2)), ("by a".to_owned(), "by b".to_owned()));
        assert_sound(&machine.path(FILE));
    }
    sample::assert_same(&a.path(FILE), &b.path(FILE));
    // And from here on as if nothing had been.
    write(b, "DELETE FROM orders WHERE customer = 2 AND number = 2");
    assert_eq!(push(b, "pushed")["version"], 4);
    assert!(team.server.check());
}

#[test]
fn a_merge_is_said_in_a_plain_sentence() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'by b' WHERE id = 2");
    let outcome = b.run(&[FILE]).ok();
    assert!(outcome.stdout.contains("merged") && outcome.stdout.contains('3'), "{outcome:?}");
}

#[test]
fn the_same_change_on_both_sides_is_no_conflict() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    for machine in [a, b] {
        write(
            machine,
            "UPDATE customers SET name = 'both' WHERE id = 7; DELETE FROM notes WHERE key = 'note 9'",
        );
    }
    write(a, "INSERT INTO notes VALUES('only a', 'a')");
    write(b, "INSERT INTO notes VALUES('only b', 'b')");
    push(a, "pushed");
    push(b, "merged");
    let latest = team.latest();
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 7"), "both");
    assert_eq!(latest.number("SELECT count(*) FROM notes WHERE key IN ('note 9', 'only a', 'only b')"), 2);
}

#[test]
fn with_merge_the_file_has_what_the_others_wrote_as_well() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'by b' WHERE id = 2");
    let said = push_with(b, &["--merge"], "merged");
    assert_eq!((&said["version"], &said["pulled"]), (&3.into(), &true.into()), "{said}");
    assert_eq!((name(b, 1), name(b, 2)), ("by a".to_owned(), "by b".to_owned()));
    push(b, "unchanged");
    write(b, "UPDATE customers SET name = 'by b again' WHERE id = 1");
    assert_eq!(push(b, "pushed")["version"], 4, "it is made from the latest");
}

#[test]
fn with_merge_a_file_that_is_written_to_meanwhile_keeps_every_write() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    let file = b.path(FILE);
    let (stop, written) = (AtomicBool::new(false), AtomicU32::new(0));
    write(b, "INSERT INTO notes VALUES('counter', 0)");
    std::thread::scope(|scope| {
        let _writing = StopOnDrop(&stop);
        scope.spawn(|| {
            let database = rusqlite::Connection::open(&file).unwrap();
            database.busy_timeout(Duration::from_secs(30)).unwrap();
            while !stop.load(Ordering::SeqCst) {
                database.execute("UPDATE notes SET text = text + 1 WHERE key = 'counter'", []).unwrap();
                written.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 0..5 {
            write(a, &format!("UPDATE customers SET name = 'round {round}' WHERE id = 1"));
            a.run(&[FILE]).ok();
            let said = push_with(b, &["--merge"], "merged");
            if said["pulled"] == false {
                let text = said["messages"].to_string();
                assert!(!text.is_empty(), "{said}");
            }
        }
    });
    let counted = sample::number(&file, "SELECT CAST(text AS INTEGER) FROM notes WHERE key = 'counter'");
    assert_eq!(counted, i64::from(written.load(Ordering::SeqCst)), "no write is lost");
    // Nobody is in its way any more. What became of the file before that is all right too: all was pulled, and perhaps
    // pushed.
    let (code, said) = try_push(b, &["--merge"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(name(b, 1), "round 4");
    assert_sound(&file);
}

#[test]
fn a_changed_schema_merges_with_rows_of_other_tables_and_is_a_conflict_with_its_own() {
    for (theirs, outcome) in [
        ("INSERT INTO notes VALUES('of b', 'there')", "merged"),
        ("INSERT INTO customers(id, name) VALUES(5000, 'of b')", "conflict"),
    ] {
        let team = Team::of(2);
        let [a, b] = [&team.machines[0], &team.machines[1]];
        write(
            a,
            "ALTER TABLE customers ADD COLUMN phone TEXT DEFAULT 'none';
             UPDATE customers SET phone = '1' WHERE id = 1",
        );
        push(a, "pushed");
        write(b, theirs);
        push(b, outcome);
        let latest = team.latest();
        latest.assert_sound();
        assert_eq!(latest.text("SELECT phone FROM customers WHERE id = 1"), "1");
        let merged = latest.number("SELECT count(*) FROM notes WHERE key = 'of b'");
        assert_eq!(merged, i64::from(outcome == "merged"));
    }
}

#[test]
fn a_policy_of_reject_says_which_version_is_the_latest_and_changes_nothing() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    team.policy(&["reject"]);
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'by b' WHERE id = 2");
    let outcome = b.run(&[FILE]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(outcome.stderr.contains("version 2"), "{}", outcome.stderr);
    assert_eq!((team.versions(), team.conflicts().len()), (2, 0));
    assert_eq!(name(b, 2), "by b", "the file is left alone");
    // A running server heeds another policy from the next push on.
    team.policy(&["merge"]);
    push(b, "merged");
}

#[test]
fn a_policy_of_latest_wins_takes_what_was_pushed_and_keeps_the_other_version() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    team.policy(&["latest-wins"]);
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'by b' WHERE id = 1");
    push(b, "pushed");
    assert_eq!(team.latest().text("SELECT name FROM customers WHERE id = 1"), "by b");
    let old = team.stranger();
    old.run(&["team/app.db@2", "old.db"]).ok();
    assert_eq!(sample::text(&old.path("old.db"), "SELECT name FROM customers WHERE id = 1"), "by a");
    sample::assert_same(&old.path("old.db"), &a.path(FILE));
}

#[test]
fn within_merge_cells_of_one_row_merge_only_where_that_is_asked_for() {
    for (cells, outcome) in [(false, "conflict"), (true, "merged")] {
        let team = Team::of(2);
        let [a, b] = [&team.machines[0], &team.machines[1]];
        if cells {
            team.policy(&["merge", "--cells"]);
        }
        write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
        push(a, "pushed");
        write(b, "UPDATE customers SET city = 'by b' WHERE id = 1");
        push(b, outcome);
        if cells {
            assert_eq!(team.latest().text("SELECT name || city FROM customers WHERE id = 1"), "by aby b");
        }
    }
}

#[test]
fn within_merge_generated_keys_are_renumbered_only_where_that_is_asked_for() {
    for (renumber, outcome) in [(false, "conflict"), (true, "merged")] {
        let team = Team::of(2);
        let [a, b] = [&team.machines[0], &team.machines[1]];
        if renumber {
            team.policy(&["merge", "--renumber"]);
        }
        for (machine, who, outcome) in [(a, "a", "pushed"), (b, "b", outcome)] {
            write(
                machine,
                &format!(
                    "INSERT INTO customers(name, city) VALUES('of {who}', 'there');
                     INSERT INTO orders VALUES(last_insert_rowid(), 1, 'ordered from {who}')"
                ),
            );
            push(machine, outcome);
        }
        if renumber {
            let latest = team.latest();
            latest.assert_sound();
            for who in ["a", "b"] {
                let sql = format!(
                    "SELECT item FROM customers JOIN orders ON customer = id WHERE name = 'of {who}'"
                );
                assert_eq!(latest.text(&sql), format!("ordered from {who}"));
            }
        }
    }
}

#[test]
fn a_push_with_force_is_the_next_version_as_it_is() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'by b' WHERE id = 2");
    push_with(b, &["--force"], "pushed");
    assert_eq!(team.latest().text("SELECT name FROM customers WHERE id = 1"), "customer 1");
}

#[test]
fn who_has_nothing_new_is_told_that_there_is_a_newer_version() {
    let team = Team::of(2);
    let [a, b]: [&Client; 2] = [&team.machines[0], &team.machines[1]];
    write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    push(a, "pushed");
    let said = push(b, "unchanged");
    assert_eq!(said["latest"], 2, "{said}");
    assert_eq!(team.versions(), 2);
    b.run(&[REMOTE]).ok();
    assert_eq!(name(b, 1), "by a");
}
