//! Killed at any moment, cut at any byte: what was acknowledged is there, what was not is there whole or
//! not at all, and a replica is the old one or the new one.

use std::time::Duration;

use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::{self, Events};
use sqlrsync_tests::faults::{Fault, Plan, Proxy, Way};
use sqlrsync_tests::random::Random;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::{sample, trace};

use crate::REMOTE;

const DATABASE: Events = Events { name: "crash", bytes: 4_000_000, seed: 5 };

/// How many times each kind of process is killed. Enough to meet every phase of a transfer over the
/// runs of a week, and little enough for each of them.
const ROUNDS: usize = 12;

/// How long a transfer of [`DATABASE`] takes at most; the kills are spread over it.
fn transfer_time(client: &Client, arguments: &[&str]) -> Duration {
    let begin = std::time::Instant::now();
    client.run(arguments).ok();
    begin.elapsed()
}

fn some_of(time: Duration, random: &mut Random) -> Duration {
    Duration::from_micros(random.below(u64::try_from(time.as_micros()).unwrap().max(1)))
}

/// The newest version on the server.
fn latest(client: &Client) -> u64 {
    let log = client.run(&["log", REMOTE, "--json"]).ok().stdout;
    let newest: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    newest["version"].as_u64().unwrap()
}

#[test]
fn a_server_killed_during_pushes_keeps_every_acknowledged_version_whole() {
    let mut server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    DATABASE.create(&app).unwrap();
    let time = transfer_time(&client, &["app.db", REMOTE]);
    let mut random = Random::new(11);
    let mut acknowledged = 1;
    for _ in 0..ROUNDS {
        events::change_rows(&app, &mut random, 3000).unwrap();
        let push = client.start(&["app.db", REMOTE, "--json"]);
        std::thread::sleep(some_of(time, &mut random));
        server.kill();
        let output = push.output();
        server.restart();
        if output.status.success() {
            let said: serde_json::Value = serde_json::from_slice(output.stdout.trim_ascii()).unwrap();
            acknowledged = said["version"].as_u64().unwrap();
        }
        assert!(latest(&client) >= acknowledged, "an acknowledged version is gone");
        assert!(server.check(), "a version is not whole");
    }
    // And it goes on: the client and the server agree on what there is.
    let said = client.json(&["app.db", REMOTE]);
    assert!(["pushed", "unchanged"].contains(&said["outcome"].as_str().unwrap()));
    let puller = Client::admin(&server);
    puller.run(&[REMOTE]).ok();
    sample::assert_same(&app, &puller.path("app.db"));
}

#[test]
fn a_client_killed_while_it_pushes_makes_no_broken_version_and_can_push_again() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    DATABASE.create(&app).unwrap();
    let time = transfer_time(&client, &["app.db", REMOTE]);
    let mut random = Random::new(12);
    for _ in 0..ROUNDS {
        events::change_rows(&app, &mut random, 3000).unwrap();
        let mut push = client.start(&["app.db", REMOTE]);
        std::thread::sleep(some_of(time, &mut random));
        push.kill();
        assert!(server.check(), "a version is not whole");
    }
    client.run(&["app.db", REMOTE]).ok();
    let puller = Client::admin(&server);
    puller.run(&[REMOTE]).ok();
    sample::assert_same(&app, &puller.path("app.db"));
}

#[test]
fn a_client_killed_while_it_pulls_leaves_the_old_database_or_the_new_one() {
    let server = Server::start();
    let (pusher, puller) = (Client::admin(&server), Client::admin(&server));
    let app = pusher.path("app.db");
    DATABASE.create(&app).unwrap();
    pusher.run(&["app.db", REMOTE]).ok();
    let time = transfer_time(&puller, &[REMOTE]);
    let mut random = Random::new(13);
    let mut old = sample::content(&app);
    for round in 0..ROUNDS {
        events::change_rows(&app, &mut random, 3000).unwrap();
        pusher.run(&["app.db", REMOTE]).ok();
        let new = sample::content(&app);
        let mut pull = puller.start(&[REMOTE]);
        std::thread::sleep(some_of(time * 2, &mut random));
        pull.kill();
        let now = sample::content(&puller.path("app.db"));
        assert!(now == old || now == new, "round {round}: neither the old nor the new database");
        puller.run(&[REMOTE]).ok();
        assert!(sample::content(&puller.path("app.db")) == new, "round {round}: the next pull brings it");
        old = new;
    }
}

#[test]
fn a_client_killed_while_it_pulls_into_a_new_file_leaves_no_half_of_it() {
    let server = Server::start();
    let client = Client::admin(&server);
    DATABASE.create(&client.path("app.db")).unwrap();
    let content = sample::content(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    let time = transfer_time(&client, &[REMOTE, "time.db"]);
    let mut random = Random::new(14);
    for _ in 0..ROUNDS {
        let mut pull = client.start(&[REMOTE, "new.db"]);
        std::thread::sleep(some_of(time, &mut random));
        pull.kill();
        let new = client.path("new.db");
        if new.exists() {
            assert!(sample::content(&new) == content);
            std::fs::remove_file(&new).unwrap();
        }
        client.run(&[REMOTE, "new.db"]).ok();
        assert!(sample::content(&new) == content);
        std::fs::remove_file(&new).unwrap();
    }
}

/// Where to cut: all of the beginning, where every byte is another step, and a sample of the rest.
fn cuts(total: u64) -> Vec<u64> {
    let beginning = (0..total.min(900)).step_by(37);
    let rest = (0..12).map(|part| 900 + total.saturating_sub(900) * part / 12);
    beginning.chain(rest).chain([total.saturating_sub(3), total.saturating_sub(1)]).collect()
}

#[test]
fn a_push_cut_at_any_byte_changes_nothing_and_goes_through_the_next_time() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    client.run(&["app.db", REMOTE]).ok();
    sample::change(&app, 1, "changed");
    // As long as one that goes through: a second replica with the same history.
    let twin = Client::admin(&server);
    std::fs::copy(&app, twin.path("app.db")).unwrap();
    let proxy = Proxy::start(server.address(), Plan::Clean);
    twin.run(&["app.db", "team/twin.db", "-s", &proxy.url()]).ok();
    let (up, down) = proxy.carried();
    let before = trace::of_repository(&server.data());
    let versions = |client: &Client| client.run(&["log", "team/cut.db", "--json"]);
    let ups = cuts(up).into_iter().map(|bytes| Fault::cut(Way::Up, bytes));
    let downs = cuts(down).into_iter().step_by(3).map(|bytes| Fault::cut(Way::Down, bytes));
    for cut in ups.chain(downs) {
        let proxy = Proxy::start(server.address(), Plan::Each(cut));
        let outcome = client.run(&["app.db", "team/cut.db", "-s", &proxy.url()]);
        if outcome.code == 0 {
            continue;
        }
        assert!([1, 5].contains(&outcome.code), "{cut:?}: {} {}", outcome.code, outcome.stderr);
        // Only the answer may have been lost: then the version is there, and whole.
        let log = versions(&client);
        if log.code == 10 || log.stdout.is_empty() {
            let now = trace::of_repository(&server.data());
            let new: Vec<_> = now.keys().filter(|path| !before.contains_key(*path)).collect();
            assert!(now == before, "{cut:?} left {new:?}");
        }
    }
    client.run(&["app.db", "team/cut.db", "-s", server.url()]).ok();
    assert_eq!(versions(&client).ok().stdout.lines().count(), 1, "the repeated push is the same version");
    assert!(server.check());
    let puller = Client::admin(&server);
    puller.run(&["team/cut.db", "pulled.db"]).ok();
    sample::assert_same(&app, &puller.path("pulled.db"));
}

#[test]
fn a_pull_cut_at_any_byte_leaves_the_database_as_it_was() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    client.run(&["app.db", REMOTE]).ok();
    client.run(&["team/app.db", "pulled.db"]).ok();
    let old = sample::content(&client.path("pulled.db"));
    sample::execute(&app, "UPDATE notes SET text = text || ' changed' WHERE id % 3 = 0");
    client.run(&["app.db"]).ok();
    let new = sample::content(&app);
    let other = Client::admin(&server);
    std::fs::copy(client.path("pulled.db"), other.path("pulled.db")).unwrap();
    let proxy = Proxy::start(server.address(), Plan::Clean);
    client.run(&["team/app.db", "whole.db", "-s", &proxy.url()]).ok();
    let (_, down) = proxy.carried();
    for cut in cuts(down) {
        let proxy = Proxy::start(server.address(), Plan::Each(Fault::cut(Way::Down, cut)));
        let outcome = client.run(&["team/app.db", "pulled.db", "-s", &proxy.url()]);
        let now = sample::content(&client.path("pulled.db"));
        assert!(now == if outcome.code == 0 { &*new } else { &*old }, "cut at {cut}: {}", outcome.stderr);
        if outcome.code == 0 {
            break;
        }
        let outcome = client.run(&["team/app.db", "fresh.db", "-s", &proxy.url()]);
        assert_eq!(client.path("fresh.db").exists(), outcome.code == 0, "cut at {cut}");
        let _ = std::fs::remove_file(client.path("fresh.db"));
        let _ = std::fs::remove_file(client.path("fresh.db-sqlrsync"));
    }
    client.run(&["team/app.db", "pulled.db", "-s", server.url()]).ok();
    assert!(sample::content(&client.path("pulled.db")) == new);
}
