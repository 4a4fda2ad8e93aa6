//! Several clients: two pushes at once, replicas with changes of their own. What merges is in `merge`.

use sqlrsync_tests::client::{Client, Outcome};
use sqlrsync_tests::events::{self, Events};
use sqlrsync_tests::random::Random;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;

use crate::REMOTE;

#[test]
fn two_pushes_at_once_make_two_whole_versions_or_one_is_told_to_come_back() {
    let server = Server::start();
    let clients: Vec<Client> = (0..2).map(|_| Client::admin(&server)).collect();
    for (n, client) in clients.iter().enumerate() {
        let seed = n as u64;
        Events { name: "both", bytes: 6_000_000, seed }.create(&client.path("app.db")).unwrap();
    }
    for round in 0..4 {
        // Two databases that have nothing in common: each is to be a version as it is.
        let pushes: Vec<_> =
            clients.iter().map(|client| client.start(&["app.db", REMOTE, "--force"])).collect();
        for push in pushes {
            let Outcome { code, stderr, .. } = push.output().into();
            assert!([0, 5].contains(&code), "round {round}: {code} {stderr}");
        }
        for (n, client) in clients.iter().enumerate() {
            events::change_rows(&client.path("app.db"), &mut Random::new(round * 2 + n as u64), 100).unwrap();
        }
    }
    assert!(server.check());
    let log = clients[0].run(&["log", REMOTE, "--json"]).ok();
    let versions: Vec<u64> = log
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["version"].as_u64().unwrap())
        .collect();
    let expected: Vec<u64> = (1..=versions.len() as u64).rev().collect();
    assert_eq!(versions, expected, "numbers without gaps");
    for version in versions {
        let file = format!("v{version}.db");
        clients[0].run(&[format!("{REMOTE}@{version}"), file.clone()]).ok();
        assert_eq!(sample::text(&clients[0].path(&file), "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_replica_with_changes_of_its_own_is_kept_until_force() {
    let server = Server::start();
    let (pusher, puller) = (Client::admin(&server), Client::admin(&server));
    sample::create(&pusher.path("app.db"));
    pusher.run(&["app.db", REMOTE]).ok();
    puller.run(&[REMOTE]).ok();
    sample::change(&puller.path("app.db"), 5, "mine");
    sample::change(&pusher.path("app.db"), 6, "theirs");
    pusher.run(&["app.db"]).ok();
    puller.run(&[REMOTE]).code(1).says("--force");
    assert_eq!(sample::note(&puller.path("app.db"), 5), "mine");
    puller.run(&[REMOTE, "app.db", "--force"]).ok();
    sample::assert_same(&pusher.path("app.db"), &puller.path("app.db"));
}

#[test]
fn a_file_that_sqlrsync_knows_nothing_of_is_not_overwritten() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    let other = client.path("other.db");
    sample::create(&other);
    sample::change(&other, 1, "precious");
    let before = std::fs::read(&other).unwrap();
    client.run(&[REMOTE, "other.db"]).code(1);
    client.run(&["app.db", "./other.db"]).code(1);
    assert!(std::fs::read(&other).unwrap() == before);
}

#[test]
fn a_changed_page_size_is_pushed_whole_and_pulled_with_force_only() {
    let server = Server::start();
    let (pusher, puller) = (Client::admin(&server), Client::admin(&server));
    let app = pusher.path("app.db");
    sample::Sample { journal: "delete", ..sample::Sample::default() }.create(&app);
    pusher.run(&["app.db", REMOTE]).ok();
    puller.run(&[REMOTE]).ok();
    sample::execute(&app, "PRAGMA page_size = 8192; VACUUM");
    assert_eq!(sample::number(&app, "PRAGMA page_size"), 8192);
    assert_eq!(pusher.json(&["app.db"])["version"], 2);
    let before = std::fs::read(puller.path("app.db")).unwrap();
    puller.run(&[REMOTE]).code(1).says("--force");
    assert!(std::fs::read(puller.path("app.db")).unwrap() == before);
    puller.run(&[REMOTE, "app.db", "--force"]).ok();
    sample::assert_same(&app, &puller.path("app.db"));
    puller.run(&["team/app.db@1", "old.db"]).ok();
    assert_eq!(sample::number(&puller.path("old.db"), "PRAGMA page_size"), 4096);
}
