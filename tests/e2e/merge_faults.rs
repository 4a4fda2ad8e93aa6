//! A server that is killed at any moment of merges and settlements: what was acknowledged is there, `check`
//! proves everything, and a push that comes again is merged once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::history::assert_push_ids_differ;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::PATIENCE;
use sqlrsync_tests::team::{FILE, REMOTE, Team, push, try_push, write};

/// Kills in each test. Set the variable to kill more often.
const KILLS: u32 = 10;
const KILLS_ENV: &str = "SQLRSYNC_TEST_MERGE_KILLS";

fn kills() -> u32 {
    std::env::var(KILLS_ENV).ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// Starts a command, kills the server after that time, and lets the command end as it may. True where it
/// succeeded all the same.
fn killed_during(server: &mut Server, client: &Client, words: &[&str], after: Duration) -> bool {
    let running = client.start(words);
    std::thread::sleep(after);
    server.kill();
    let output = running.output();
    server.restart();
    output.status.success()
}

/// Repeats it until the server has answered for good; gives the exit code.
#[track_caller]
fn until_answered(client: &Client, words: &[&str]) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = client.run(words);
        if ![1, 5].contains(&outcome.code) {
            return outcome.code;
        }
        assert!(Instant::now() < deadline, "{words:?}: {outcome:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the audit log's entries of this action say of what is asked, sorted.
fn audited<T: Ord>(server: &Server, action: &str, asked: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let url = format!("{}/api/v1/replicas/{REMOTE}/audit?limit=1000", server.url());
    let key = format!("Bearer {}", server.admin_key());
    let mut answer = ureq::get(&url).header("Authorization", key).call().unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let entries = answer["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == action);
    let told = |entry: &Value| {
        assert!(entry["key"].is_u64() && entry["address"].is_string(), "who, and from where: {entry}");
        asked(entry).unwrap_or_else(|| panic!("of what: {entry}"))
    };
    let mut found: Vec<T> = entries.map(told).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_server_killed_while_it_merges_loses_and_doubles_nothing() {
    let mut team = Team::of(2);
    let mut random = Random::new(4);
    let mut expected = BTreeSet::new();
    // How long one takes, for the moments to be spread over.
    let began = Instant::now();
    write(&team.machines[0], "INSERT INTO notes VALUES('first', '')");
    push(&team.machines[0], "pushed");
    let time = began.elapsed().max(Duration::from_millis(20));
    expected.insert("first".to_owned());
    for round in 0..kills() {
        let who = (round as usize + 1) % 2;
        let row = format!("{who} {round}");
        write(&team.machines[who], &format!("INSERT INTO notes VALUES('{row}', '')"));
        let after = Duration::from_micros(random.below(2 * time.as_micros() as u64));
        killed_during(&mut team.server, &team.machines[who], &[FILE, REMOTE, "--quiet"], after);
        assert_eq!(until_answered(&team.machines[who], &[FILE, REMOTE, "--quiet"]), 0, "{row}");
        expected.insert(row);
        assert!(team.server.check(), "after round {round}");
    }
    assert_push_ids_differ(&team.server);
    let latest = team.latest();
    latest.assert_sound();
    for row in &expected {
        assert_eq!(latest.number(&format!("SELECT count(*) FROM notes WHERE key = '{row}'")), 1, "{row}");
    }
    // One version for each push and none twice: a merge of the same candidate again would add one.
    assert_eq!(team.versions(), 1 + expected.len() as u64);
    assert!(team.conflicts().is_empty());
    // Each was merged once, but for the first, which were made from the latest version.
    let merged = audited(&team.server, "merged", |entry| entry["version"].as_u64());
    let first = *merged.first().unwrap();
    assert!(first <= 3 && merged.iter().copied().eq(first..=team.versions()), "{merged:?}");
    // And kept before: once, but for one that was cut off right after its file was written, which is not known for
    // the same push when it comes again.
    let mut kept =
        audited(&team.server, "candidate-kept", |entry| entry["details"]["push"].as_str().map(str::to_owned));
    assert!(kept.len() >= merged.len(), "{kept:?}");
    let all = kept.len();
    kept.dedup();
    assert_eq!(kept.len(), all, "a push that was kept has one entry");
}

#[test]
fn a_server_killed_while_it_opens_or_settles_a_conflict_keeps_one_and_settles_it_once() {
    let mut team = Team::of(2);
    let mut random = Random::new(8);
    let time = Duration::from_millis(150);
    for round in 0..kills() {
        let id = 1 + round;
        write(&team.machines[0], &format!("UPDATE customers SET name = 'theirs {round}' WHERE id = {id}"));
        assert_eq!(until_answered(&team.machines[0], &[FILE, REMOTE, "--quiet"]), 0);
        write(&team.machines[1], &format!("UPDATE customers SET name = 'mine {round}' WHERE id = {id}"));
        let after = Duration::from_micros(random.below(time.as_micros() as u64));
        killed_during(&mut team.server, &team.machines[1], &[FILE, REMOTE, "--quiet"], after);
        assert_eq!(until_answered(&team.machines[1], &[FILE, REMOTE, "--quiet"]), 3, "round {round}");
        let (code, said) = try_push(&team.machines[1], &[]);
        assert_eq!(code, 3, "it waits: {said}");
        assert!(team.server.check(), "after the push of round {round}");
        let conflicts = team.conflicts();
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        let number = conflicts[0]["id"].to_string();
        assert_eq!(said["conflict"].to_string(), number, "{said}");

        let keep = if round % 2 == 0 { "mine" } else { "theirs" };
        let settle = ["resolve", REMOTE, &number, "--keep", keep];
        let versions = team.versions();
        let after = Duration::from_micros(random.below(time.as_micros() as u64));
        let done = killed_during(&mut team.server, &team.machines[1], &settle, after);
        if !team.conflicts().is_empty() {
            assert!(!done, "it was said to be settled, and waits");
            assert_eq!(until_answered(&team.machines[1], &settle), 0, "round {round}");
        }
        assert!(team.conflicts().is_empty());
        assert!(team.server.check(), "after the settlement of round {round}");
        assert!(team.versions() <= versions + 1, "settled once");
        let name = team.latest().text(&format!("SELECT name FROM customers WHERE id = {id}"));
        assert_eq!(name, format!("{keep} {round}"));
        for machine in &team.machines {
            machine.run(&[REMOTE]).ok();
        }
        sample::assert_same(&team.machines[0].path(FILE), &team.machines[1].path(FILE));
    }
    assert_push_ids_differ(&team.server);
    for action in ["conflict-opened", "conflict-settled"] {
        let conflicts = audited(&team.server, action, |entry| entry["conflict"].as_u64());
        assert!(conflicts.iter().copied().eq(1..=u64::from(kills())), "{action}: {conflicts:?}");
    }
}
