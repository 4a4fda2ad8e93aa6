//! The trap of merging: after a merge the pusher still has what it sent. Were the merge taken for its base, its
//! next push would take away what the others wrote, in silence.

use std::collections::BTreeSet;
use std::path::Path;

use sqlrsync_tests::sample;
use sqlrsync_tests::team::{self, FILE, Team, assert_sound, pull, push, write};

/// So many times each of two pushes in turn.
const ROUNDS: u32 = 50;

/// The keys of the notes in a database.
fn rows(file: &Path) -> BTreeSet<String> {
    let database = rusqlite::Connection::open(file).unwrap();
    let mut statement = database.prepare("SELECT key FROM notes").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn insert(file: &Path, key: &str) {
    sample::execute(file, &format!("INSERT INTO notes VALUES('{key}', 'text of {key}')"));
}

#[test]
fn two_who_push_in_turns_for_fifty_rounds_and_never_pull_both_have_every_row() {
    let team = Team::of(2);
    for round in 0..ROUNDS {
        for (who, machine) in team.machines.iter().enumerate() {
            insert(&machine.path(FILE), &format!("{who} {round}"));
            let outcome = if round == 0 && who == 0 { "pushed" } else { "merged" };
            push(machine, outcome);
        }
    }
    assert_eq!(team.versions(), 1 + 2 * u64::from(ROUNDS));
    for machine in &team.machines {
        pull(machine);
        let found = rows(&machine.path(FILE));
        for (who, round) in (0..2).flat_map(|who| (0..ROUNDS).map(move |round| (who, round))) {
            assert!(found.contains(&format!("{who} {round}")), "{who} {round}");
        }
        assert_eq!(found.len() as u32, team::CUSTOMERS + 2 * ROUNDS);
        assert_sound(&machine.path(FILE));
    }
    sample::assert_same(&team.machines[0].path(FILE), &team.machines[1].path(FILE));
    assert!(team.server.check());
}

#[test]
fn changed_and_deleted_rows_of_two_who_never_pull_stay_changed_and_deleted() {
    let team = Team::of(2);
    for round in 0..10 {
        for (who, machine) in team.machines.iter().enumerate() {
            let id = 1 + 2 * round + who as u32;
            write(
                machine,
                &format!(
                    "UPDATE customers SET name = '{who} {round}' WHERE id = {id};
                     DELETE FROM orders WHERE customer = {};
                     UPDATE notes SET text = 'touched by {who} in {round}' WHERE key = 'note {}'",
                    100 + id,
                    1 + who
                ),
            );
            push(machine, if round == 0 && who == 0 { "pushed" } else { "merged" });
        }
    }
    let latest = team.latest();
    latest.assert_sound();
    let renamed =
        "SELECT count(*) FROM customers WHERE id <= 20 AND name = ((id + 1) % 2) || ' ' || ((id - 1) / 2)";
    assert_eq!(latest.number(renamed), 20);
    assert_eq!(latest.number("SELECT count(*) FROM orders WHERE customer BETWEEN 101 AND 120"), 0);
    assert_eq!(latest.number("SELECT count(*) FROM notes WHERE text LIKE 'touched by % in 9'"), 2);
}
