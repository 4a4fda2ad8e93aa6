//! What overlaps waits as a conflict, whole, until somebody settles it.

use serde_json::{Value, json};
use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::team::{FILE, REMOTE, Team, assert_sound, name, objects, pull, push, write};

/// Two people who changed customer 1, the first of whom has pushed it; the second one's push waits.
fn in_conflict() -> Team {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(
        a,
        "UPDATE customers SET name = 'theirs' WHERE id = 1; UPDATE orders SET item = 'theirs' WHERE customer = 3",
    );
    push(a, "pushed");
    write(
        b,
        "UPDATE customers SET name = 'mine' WHERE id = 1;
         UPDATE orders SET item = 'mine' WHERE customer = 3;
         INSERT INTO notes VALUES('of b', 'overlaps with nothing')",
    );
    let said = push(b, "conflict");
    assert_eq!(said["conflict"], 1, "{said}");
    team
}

fn rows(client: &Client, number: u64) -> Vec<Value> {
    objects(&client.run(&["conflicts", REMOTE, &number.to_string(), "--json"]).ok())
}

fn latest_name(team: &Team) -> String {
    team.latest().text("SELECT name FROM customers WHERE id = 1")
}

#[test]
fn rows_that_overlap_are_published_to_nobody_and_wait() {
    let team = in_conflict();
    assert_eq!(team.versions(), 2, "nothing was published");
    assert_eq!(latest_name(&team), "theirs");
    assert_eq!(name(&team.machines[1], 1), "mine", "the file is left alone");
    let conflicts = team.conflicts();
    let [conflict] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!((&conflict["id"], &conflict["rows"]), (&1.into(), &2.into()), "{conflict}");
    for field in ["opened", "by"] {
        assert!(conflict[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {conflict}");
    }
    let tables = conflict["tables"].to_string();
    assert!(tables.contains("customers") && tables.contains("orders"), "{conflict}");
    assert!(!tables.contains("notes"), "{conflict}");
    assert!(team.server.check());
}

#[test]
fn a_conflict_is_shown_row_by_row() {
    let team = in_conflict();
    let client = team.stranger();
    let rows = rows(&client, 1);
    let of =
        |table: &str| rows.iter().find(|row| row["table"] == table).unwrap_or_else(|| panic!("{rows:?}"));
    let customer = of("customers");
    assert_eq!(customer["key"], json!({"id": 1}), "{customer}");
    let names = ["base", "theirs", "mine"].map(|side| customer[side]["name"].as_str().unwrap().to_owned());
    assert_eq!(names, ["customer 1", "theirs", "mine"]);
    assert_eq!(of("orders")["key"], json!({"customer": 3, "number": 1}));
    let text = client.run(&["conflicts", REMOTE, "1"]).ok().stdout;
    for word in ["customers", "customer 1", "theirs", "mine"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    client.run(&["conflicts", REMOTE, "2"]).code(10);
    client.run(&["conflicts", "team/none.db"]).code(10);
}

#[test]
fn a_later_push_by_the_same_client_adds_to_its_conflict() {
    let team = in_conflict();
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(b, "UPDATE customers SET name = 'mine too' WHERE id = 2");
    let said = push(b, "conflict");
    assert_eq!(said["conflict"], 1, "{said}");
    write(a, "UPDATE customers SET name = 'theirs too' WHERE id = 2");
    push(a, "pushed");
    // One without a change finds out that what it pushed now overlaps in one row more.
    write(b, "INSERT INTO notes VALUES('more of b', '')");
    push(b, "conflict");
    let conflicts = team.conflicts();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0]["rows"], 3, "{conflicts:?}");
    a.run(&["resolve", REMOTE, "1", "--keep", "mine"]).ok();
    let latest = team.latest();
    latest.assert_sound();
    assert_eq!(latest.text("SELECT group_concat(name) FROM customers WHERE id < 3"), "mine,mine too");
    assert_eq!(latest.number("SELECT count(*) FROM notes WHERE key LIKE '%of b'"), 2);
}

#[test]
fn another_client_has_a_conflict_of_its_own() {
    let team = Team::of(3);
    let [a, b, c] = [0, 1, 2].map(|n| &team.machines[n]);
    for (machine, outcome) in [(a, "pushed"), (b, "conflict"), (c, "conflict")] {
        write(machine, &format!("UPDATE customers SET name = 'of {outcome}' || random() WHERE id = 1"));
        push(machine, outcome);
    }
    let mut ids: Vec<u64> = team.conflicts().iter().map(|one| one["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn a_conflict_settled_for_mine_is_a_version_with_what_overlaps_with_nothing() {
    let team = in_conflict();
    let b = &team.machines[1];
    b.run(&["resolve", REMOTE, "1", "--keep", "mine", "-m", "b was right"]).ok();
    let latest = team.latest();
    latest.assert_sound();
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 1"), "mine");
    assert_eq!(latest.text("SELECT item FROM orders WHERE customer = 3"), "mine");
    assert_eq!(latest.number("SELECT count(*) FROM notes WHERE key = 'of b'"), 1);
    assert_eq!((team.versions(), team.conflicts().len()), (3, 0));
    b.run(&["log", REMOTE]).ok().says("b was right");
    goes_on(&team);
}

#[test]
fn a_conflict_settled_for_theirs_keeps_what_overlaps_with_nothing() {
    let team = in_conflict();
    team.machines[0].run(&["resolve", REMOTE, "1", "--keep", "theirs"]).ok();
    let latest = team.latest();
    latest.assert_sound();
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 1"), "theirs");
    assert_eq!(latest.text("SELECT item FROM orders WHERE customer = 3"), "theirs");
    assert_eq!(latest.number("SELECT count(*) FROM notes WHERE key = 'of b'"), 1);
    assert_eq!(team.conflicts().len(), 0);
    goes_on(&team);
}

/// After a settlement both are in step again, and the next push is an ordinary one.
#[track_caller]
fn goes_on(team: &Team) {
    let [a, b] = [&team.machines[0], &team.machines[1]];
    pull(b);
    pull(a);
    sample::assert_same(&a.path(FILE), &b.path(FILE));
    write(b, "UPDATE customers SET name = 'afterwards' WHERE id = 1");
    push(b, "pushed");
    assert_eq!(latest_name(team), "afterwards");
    assert_sound(&b.path(FILE));
    assert!(team.server.check());
}

#[test]
fn rows_can_be_settled_one_by_one() {
    let team = in_conflict();
    let b = &team.machines[1];
    // All of them must be named, or what becomes of the others.
    b.run(&["resolve", REMOTE, "1", "--row", "customers:1=mine"]).code(2).says("orders");
    b.run(&["resolve", REMOTE, "1", "--row", "customers:99=mine", "--keep", "mine"]).code_is_not(0);
    assert_eq!(team.versions(), 2);
    b.run(&["resolve", REMOTE, "1", "--row", "customers:1=mine", "--row", "orders:3,1=theirs"]).ok();
    let latest = team.latest();
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 1"), "mine");
    assert_eq!(latest.text("SELECT item FROM orders WHERE customer = 3"), "theirs");
    goes_on(&team);
}

#[test]
fn a_settlement_after_the_replica_has_moved_on_keeps_what_is_new() {
    let team = in_conflict();
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "UPDATE customers SET name = 'newer' WHERE id = 9");
    push(a, "pushed");
    let settled = b.run(&["resolve", REMOTE, "1", "--keep", "mine"]);
    if settled.code != 0 {
        // It may say first what is new.
        assert_eq!(settled.code, 3, "{settled:?}");
        b.run(&["resolve", REMOTE, "1", "--keep", "mine"]).ok();
    }
    let latest = team.latest();
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 1"), "mine");
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 9"), "newer");
    goes_on(&team);
}

#[test]
fn a_settlement_does_not_take_a_row_that_changed_again_since_it_was_shown() {
    let team = in_conflict();
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(
        a,
        "UPDATE customers SET name = 'theirs again' WHERE id = 1; UPDATE notes SET text = 'theirs' WHERE key = 'note 5'",
    );
    push(a, "pushed");
    let rows = rows(b, 1);
    let settled = b.run(&["resolve", REMOTE, "1", "--row", "customers:1=mine", "--row", "orders:3,1=mine"]);
    // Whoever settles has seen the row as it is now, or is told.
    let seen = rows.iter().any(|row| row["theirs"]["name"] == "theirs again");
    assert!(seen || settled.code == 3, "{rows:?} {settled:?}");
    if settled.code == 3 {
        b.run(&["resolve", REMOTE, "1", "--keep", "mine"]).ok();
    }
    let latest = team.latest();
    assert_eq!(latest.text("SELECT text FROM notes WHERE key = 'note 5'"), "theirs", "{settled:?}");
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 1"), "mine");
}

#[test]
fn a_conflict_is_settled_once() {
    let team = in_conflict();
    let b = &team.machines[1];
    b.run(&["resolve", REMOTE, "1", "--keep", "theirs"]).ok();
    b.run(&["resolve", REMOTE, "1", "--keep", "mine"]).code_is_not(0).says("settled");
    assert_eq!(latest_name(&team), "theirs");
    let all = objects(&b.run(&["conflicts", REMOTE, "--all", "--json"]).ok());
    assert_eq!(all.len(), 1, "it is still there to be looked at: {all:?}");
    b.run(&["resolve", REMOTE, "7", "--keep", "mine"]).code(10);
}

#[test]
fn a_pull_key_sees_a_conflict_and_cannot_settle_it() {
    let team = in_conflict();
    let key = team.server.create_key(&["--kind", "pull", "--replica", REMOTE]);
    let guest = Client::guest(&team.server).with_env("SQLRSYNC_AUTH_TOKEN", &key);
    assert_eq!(rows(&guest, 1).len(), 2);
    guest.run(&["resolve", REMOTE, "1", "--keep", "mine"]).code(4);
    Client::guest(&team.server).run(&["conflicts", REMOTE]).code(4);
    assert_eq!((team.versions(), team.conflicts().len()), (2, 1));
}

#[test]
fn a_deleted_row_and_a_changed_one_are_a_conflict_and_so_are_two_inserts_under_one_key() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "DELETE FROM notes WHERE key = 'note 1'; INSERT INTO notes VALUES('new', 'of a')");
    push(a, "pushed");
    write(b, "UPDATE notes SET text = 'kept' WHERE key = 'note 1'; INSERT INTO notes VALUES('new', 'of b')");
    push(b, "conflict");
    let rows = rows(b, 1);
    assert_eq!(rows.len(), 2, "{rows:?}");
    let deleted = rows.iter().find(|row| row["key"]["key"] == "note 1").unwrap();
    assert_eq!((&deleted["theirs"], &deleted["mine"]["text"]), (&Value::Null, &"kept".into()), "{deleted}");
    let inserted = rows.iter().find(|row| row["key"]["key"] == "new").unwrap();
    assert_eq!(
        (&inserted["base"], &inserted["theirs"]["text"]),
        (&Value::Null, &"of a".into()),
        "{inserted}"
    );
    b.run(&["resolve", REMOTE, "1", "--keep", "mine"]).ok();
    let latest = team.latest();
    latest.assert_sound();
    assert_eq!(latest.text("SELECT text FROM notes WHERE key = 'note 1'"), "kept");
    assert_eq!(latest.text("SELECT text FROM notes WHERE key = 'new'"), "of b");
}

#[test]
fn a_new_child_of_a_deleted_parent_is_a_conflict_that_names_the_constraint() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(a, "DELETE FROM orders WHERE customer = 8; DELETE FROM customers WHERE id = 8");
    push(a, "pushed");
    write(b, "INSERT INTO orders VALUES(8, 2, 'for nobody')");
    push(b, "conflict");
    let text = b.run(&["conflicts", REMOTE, "1"]).ok().stdout;
    assert!(text.to_lowercase().contains("foreign key"), "{text}");
    b.run(&["resolve", REMOTE, "1", "--keep", "theirs"]).ok();
    team.latest().assert_sound();
}

#[test]
fn a_conflict_shows_the_rows_that_keeping_a_side_would_take_with_it() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    write(
        a,
        "DELETE FROM orders WHERE customer = 9; DELETE FROM customers WHERE id = 9;
         UPDATE notes SET text = 'theirs' WHERE key = 'note 1'",
    );
    push(a, "pushed");
    write(
        b,
        "INSERT INTO orders VALUES(9, 2, 'of b'), (9, 3, 'of b');
         UPDATE notes SET text = 'mine' WHERE key = 'note 1'",
    );
    push(b, "conflict");
    let mut shown: Vec<_> =
        rows(b, 1).iter().map(|row| format!("{} {}", row["table"], row["why"].is_null())).collect();
    shown.sort();
    assert_eq!(shown, ["\"customers\" false", "\"notes\" true", "\"orders\" false", "\"orders\" false"]);
    let text = b.run(&["conflicts", REMOTE, "1"]).ok().stdout;
    assert!(text.contains("theirs deleted it") && text.contains("FOREIGN KEY"), "{text}");
    // What breaks a constraint is settled by one of its rows.
    b.run(&["resolve", REMOTE, "1", "--row", "customers:9=mine"]).code(2).says("notes");
    b.run(&["resolve", REMOTE, "1", "--row", "notes:note 1=mine"]).code(3).says("customers:9");
    assert_eq!((team.versions(), team.conflicts().len()), (2, 1));
    b.run(&["resolve", REMOTE, "1", "--row", "notes:note 1=mine", "--row", "customers:9=mine"]).ok();
    let latest = team.latest();
    latest.assert_sound();
    assert_eq!(latest.number("SELECT count(*) FROM orders WHERE customer = 9"), 2);
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 9"), "customer 9");
}
