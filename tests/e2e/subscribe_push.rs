//! A database that is pushed by itself, with the real programs and real seconds:
//! `sqlrsync LOCAL NAMESPACE/PATH --subscribe`.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{Subscriber, wait_until};

use crate::REMOTE;

/// So far apart, writes are looked at one by one.
const ONE_BY_ONE: Duration = Duration::from_millis(1500);

fn publish(client: &Client, flags: &[&str]) -> Subscriber {
    let command = client.command(&[&["app.db", REMOTE, "--subscribe", "--json"], flags].concat());
    Subscriber::start("the publisher", command)
}

fn event(name: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["event"] == name
}

/// When the server expects the next push.
fn push_due(client: &Client) -> Option<String> {
    let status = client.json(&["status", REMOTE]);
    let clients = status["clients"].as_array().unwrap();
    clients.iter().find_map(|client| client["push_due"].as_str().map(str::to_owned))
}

fn outcomes(publisher: &Subscriber, kind: &str) -> Vec<u64> {
    let objects = publisher.objects();
    let of_kind = objects.iter().filter(|object| object["outcome"] == kind);
    of_kind.filter_map(|object| object["version"].as_u64()).collect()
}

/// A publisher that has made its first version and watches.
fn watching(client: &Client, flags: &[&str]) -> Subscriber {
    sample::create(&client.path("app.db"));
    let publisher = publish(client, flags);
    publisher.wait_for("the watch", event("watching"));
    assert_eq!(publisher.version(), Some(1), "it begins with a push");
    publisher
}

fn assert_pushed(client: &Client) {
    client.run(&[REMOTE, "copy.db"]).ok();
    sample::assert_same(&client.path("app.db"), &client.path("copy.db"));
}

#[test]
fn what_is_written_is_pushed_ten_seconds_after_the_last_write() {
    let server = Server::start();
    let client = Client::admin(&server);
    let mut publisher = watching(&client, &["--waitIdle", "10s"]);
    let database = client.path("app.db");
    let first_write = Instant::now();
    sample::change(&database, 1, "first");
    let announced = publisher.wait_for("the write", event("written"));
    assert_eq!(announced["push_in_seconds"], 10);
    wait_until("the server knows of the push", || push_due(&client).is_some());
    sample::change(&database, 2, "second");
    let last_write = Instant::now();
    // A machine that took so long for this much has pushed the first by itself.
    let versions: &[u64] = if first_write.elapsed() < Duration::from_secs(9) { &[1, 2] } else { &[1, 2, 3] };
    publisher.wait_for_version(versions.len() as u64);
    wait_until("the server knows that it came", || push_due(&client).is_none());
    assert!(last_write.elapsed() >= Duration::from_secs(9), "{:?}", last_write.elapsed());
    assert_pushed(&client);
    assert_eq!(publisher.stop(), 0);
    assert_eq!(outcomes(&publisher, "pushed"), versions, "{}", publisher.report());
}

#[test]
fn a_database_that_is_renamed_into_place_is_pushed() {
    let server = Server::start();
    let client = Client::admin(&server);
    let mut publisher = watching(&client, &[]);
    let other = client.path("other.db");
    sample::Sample { journal: "delete", rows: 900, ..Default::default() }.create(&other);
    std::fs::rename(&other, client.path("app.db")).unwrap();
    publisher.wait_for_version(2);
    assert_pushed(&client);
    assert_eq!(publisher.stop(), 0);
}

#[test]
fn a_write_that_changes_nothing_is_announced_to_nobody_and_pushes_nothing() {
    let server = Server::start();
    let client = Client::admin(&server);
    let database = client.path("app.db");
    sample::create(&database);
    // An application that has it open, so that its WAL stays.
    let open = rusqlite::Connection::open(&database).unwrap();
    // SQLite writes the page, and it is what it was.
    let noop =
        "BEGIN; UPDATE notes SET at = 7.5 WHERE id = 2; UPDATE notes SET at = 1.5 WHERE id = 2; COMMIT";
    let noops: [&dyn Fn(); 4] = [
        &|| open.execute_batch(noop).unwrap(),
        &|| open.execute_batch("BEGIN; DELETE FROM notes; ROLLBACK").unwrap(),
        // By a program: closing the file in this process would drop the locks of the connection.
        &|| assert!(Command::new("touch").arg(&database).status().unwrap().success()),
        &|| open.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap(),
    ];
    let mut publisher = publish(&client, &["--waitIdle", "10s"]);
    publisher.wait_for("the watch", event("watching"));
    for noop in noops {
        noop();
        // Longer than a burst of writes is waited for, and than a file that was read is not read again.
        std::thread::sleep(ONE_BY_ONE);
    }
    sample::change(&database, 1, "real");
    publisher.wait_for("the write", event("written"));
    std::thread::sleep(ONE_BY_ONE);
    open.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    publisher.wait_for_version(2);
    assert_pushed(&client);
    assert_eq!(publisher.stop(), 0);
    let objects = publisher.objects();
    let written = objects.iter().filter(|object| event("written")(object)).count();
    assert_eq!(written, 1, "only the real one: {}", publisher.report());
    let said: Vec<&str> = objects.iter().filter_map(|object| object["outcome"].as_str()).collect();
    assert_eq!(said, ["pushed", "pushed"], "{}", publisher.report());
}

#[test]
fn the_second_publisher_of_a_file_is_told() {
    let server = Server::start();
    let client = Client::admin(&server);
    let mut publisher = watching(&client, &[]);
    client.run(&["app.db", REMOTE, "--subscribe"]).code(1).says("publishes").says("already");
    // A single push beside it is none of its business.
    client.run(&["app.db", REMOTE]).ok();
    assert_eq!(publisher.stop(), 0);
}

#[test]
fn a_file_that_is_not_there_at_the_start_is_a_mistake() {
    let server = Server::start();
    let client = Client::admin(&server);
    client.run(&["app.db", REMOTE, "--subscribe"]).code_is_not(0).says("app.db");
}

#[test]
fn a_publisher_may_start_before_its_server() {
    let mut server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    server.kill();
    let mut publisher = publish(&client, &[]);
    let failed = publisher.wait_for("a failure", event("failed"));
    assert_eq!((&failed["retry"], &failed["retries"]), (&1.into(), &5.into()), "{failed}");
    server.restart();
    publisher.wait_for_version(1);
    assert_eq!(publisher.stop(), 0);
}

#[test]
fn with_a_key_that_may_only_pull_it_warns_and_follows() {
    let server = Server::start();
    let origin = Client::admin(&server);
    sample::create(&origin.path("app.db"));
    origin.run(&["app.db", REMOTE]).ok();
    let key = server.create_key(&["--kind", "pull", "--replica", REMOTE]);
    let guest = Client::guest(&server).with_env("SQLRSYNC_AUTH_TOKEN", &key);
    let mut follower = publish(&guest, &["--waitIdle", "1h"]);
    follower.wait_for("a pull", |object| object["outcome"] == "pulled");
    assert!(follower.stderr().contains("may pull and not push"), "{}", follower.report());
    sample::change(&origin.path("app.db"), 1, "of the origin");
    origin.run(&["app.db"]).ok();
    follower.wait_for_version(2);
    sample::assert_same(&origin.path("app.db"), &guest.path("app.db"));
    assert_eq!(follower.stop(), 0);
}
