//! `sqlrsync status`: what clients did, announced and reported, told by the real server to the real client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use sqlrsync_protocol::control;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::raw::{RawSocket, SILENCE_MAX};
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{Subscriber, wait_until};

use crate::REMOTE;

/// A server, a client that has pushed version 1 of the sample, and a key.
struct Publisher {
    server: Server,
    client: Client,
    key: String,
}

impl Publisher {
    fn new() -> Publisher {
        let server = Server::start();
        let client = Client::admin(&server);
        sample::create(&client.path("app.db"));
        client.run(&["app.db", REMOTE]).ok();
        let key = server.admin_key();
        Publisher { server, client, key }
    }

    fn status(&self) -> Value {
        self.client.json(&["status", REMOTE])
    }

    /// What the server knows of the publisher itself.
    fn itself(&self) -> Value {
        let status = self.status();
        let clients = status["clients"].as_array().unwrap();
        let found = clients.iter().find(|client| !client["last_push"].is_null());
        found.unwrap_or_else(|| panic!("nobody has pushed: {status}")).clone()
    }

    /// As the public client announces a push: on a connection that carries nothing else, and with the names
    /// that the publisher pushes under. The connection stays open.
    fn announce(&self, seconds: u32) -> RawSocket {
        let itself = self.itself();
        let names = ["client_id", "host", "local_path"].map(|name| itself[name].as_str().unwrap());
        let path = format!("push/{REMOTE}");
        let mut socket = RawSocket::connect_as(self.server.url(), &path, &self.key, names).unwrap();
        socket.receive().expect("the server says which key it is");
        assert!(socket.send(&control::changed(seconds)));
        socket
    }

    fn push(&self, text: &str) {
        sample::change(&self.client.path("app.db"), 1, text);
        self.client.run(&["app.db"]).ok();
    }

    /// A report of the publisher, as the public protocol has it.
    fn report(&self, error: &str) -> Value {
        let itself = self.itself();
        json!({
            "error": error, "attempts": 5, "since": "2026-03-01T12:00:00Z", "clientID": itself["client_id"],
            "hostname": itself["host"], "localPath": itself["local_path"],
        })
    }

    fn reporter(&self) -> Reporter {
        let id = self.status()["replica_id"].as_str().unwrap().to_owned();
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
        Reporter { stream: BufReader::new(stream), path: format!("/sapi/{id}"), key: self.key.clone() }
    }
}

/// Posts reports, all over one connection.
struct Reporter {
    stream: BufReader<TcpStream>,
    path: String,
    key: String,
}

impl Reporter {
    /// Posts a report and gives the status of the answer.
    fn post(&mut self, report: &Value) -> u16 {
        let body = report.to_string();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: test\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.key,
            body.len()
        );
        self.stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
        let mut status = 0;
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "the server hung up");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        self.stream.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

#[test]
fn an_announced_push_is_due_then_overdue_until_it_comes() {
    let publisher = Publisher::new();
    assert_eq!(publisher.itself()["push_due"], Value::Null);
    let _idle = publisher.announce(600);
    wait_until("a push is due", || !publisher.itself()["push_due"].is_null());
    assert_eq!(publisher.itself()["overdue"], false);
    publisher.client.run(&["status", REMOTE]).ok().says("push in 9 min");

    let mut idle = publisher.announce(1);
    wait_until("the push is overdue", || publisher.itself()["overdue"] == true);
    assert_eq!(publisher.status()["overdue"], true);
    publisher.client.run(&["status", REMOTE]).ok().says("overdue ");
    // A new word puts it off again.
    assert!(idle.send(&control::changed(600)));
    wait_until("it is not overdue any more", || publisher.itself()["overdue"] == false);

    assert!(idle.send(&control::changed(0)));
    wait_until("the push is overdue", || publisher.itself()["overdue"] == true);
    publisher.push("at last");
    let status = publisher.status();
    assert_eq!((&status["latest"], &status["overdue"]), (&json!(2), &json!(false)));
    let itself = publisher.itself();
    assert_eq!((&itself["push_due"], &itself["last_push_version"]), (&Value::Null, &json!(2)));
}

#[test]
fn a_publisher_that_is_killed_before_its_push_is_overdue_until_somebody_pushes() {
    let publisher = Publisher::new();
    let client = &publisher.client;
    let flags = ["app.db", REMOTE, "--subscribe", "--waitIdle", "10s", "--json"];
    let running = Subscriber::start("the publisher", client.command(&flags));
    running.wait_for("the watch", |object| object["event"] == "watching");
    sample::change(&client.path("app.db"), 1, "written to");
    wait_until("the push is announced", || !publisher.itself()["push_due"].is_null());
    client.run(&["status", REMOTE]).ok().says("push in ");
    // Kills it.
    drop(running);
    wait_until("the push is overdue", || publisher.itself()["overdue"] == true);
    client.run(&["app.db", REMOTE]).ok();
    let itself = publisher.itself();
    assert_eq!((&itself["push_due"], &itself["overdue"]), (&Value::Null, &json!(false)));
    assert_eq!(itself["last_push_version"], 2);
}

#[test]
fn who_follows_is_shown_while_it_does() {
    let publisher = Publisher::new();
    let follower = Client::admin(&publisher.server);
    let running = Subscriber::start("the follower", follower.command(&[REMOTE, "--subscribe", "--json"]));
    let follows = || {
        let status = publisher.status();
        let clients = status["clients"].as_array().unwrap();
        clients.iter().filter(|client| client["following"] == true).count()
    };
    wait_until("it follows", || follows() == 1);
    publisher.client.run(&["status", REMOTE]).ok().says("follows");
    drop(running);
    wait_until("it is gone", || follows() == 0);
}

#[test]
fn a_reported_failure_is_shown_until_a_push_succeeds() {
    let publisher = Publisher::new();
    let report = publisher.report("the network is down\u{1b}[2J");
    assert_eq!(publisher.reporter().post(&report), 204);
    let errors = publisher.itself()["errors"].clone();
    assert_eq!((errors[0]["attempts"].as_u64(), errors.as_array().unwrap().len()), (Some(5), 1));
    let shown =
        publisher.client.run(&["status", REMOTE]).ok().says("the network is down [2J").says("5 attempts");
    assert!(!shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
    publisher.push("it works again");
    assert_eq!(publisher.itself()["errors"], json!([]));
}

#[test]
fn who_pulled_is_shown_with_its_host() {
    let publisher = Publisher::new();
    let key = publisher.server.create_key(&["--kind", "pull", "--replica", REMOTE]);
    let follower = Client::guest(&publisher.server).with_env("SQLRSYNC_AUTH_TOKEN", &key);
    follower.run(&[REMOTE, "copy.db"]).ok();
    let host = publisher.itself()["host"].clone();
    wait_until("the pull is known", || {
        let status = publisher.status();
        status["clients"].as_array().unwrap().iter().any(|client| {
            client["last_pull_version"] == 1 && client["host"] == host && client["last_push"].is_null()
        })
    });
    // A pull key is for the replica: it sees who else has it.
    assert_eq!(follower.json(&["status", REMOTE])["clients"].as_array().unwrap().len(), 2);
    follower.run(&["status", REMOTE]).ok().says("last pull").says("v1 ");
}

#[test]
fn a_killed_server_keeps_what_it_was_told_a_moment_before() {
    let mut publisher = Publisher::new();
    let mut reporter = publisher.reporter();
    let idle = publisher.announce(600);
    assert_eq!(reporter.post(&publisher.report("the network is down")), 204);
    // Not asked for, which would have it written at once.
    let catalog = rusqlite::Connection::open(publisher.server.data().join("catalog.db")).unwrap();
    catalog.busy_timeout(SILENCE_MAX).unwrap();
    wait_until("both are written", || {
        let question =
            "SELECT (SELECT count(*) FROM client WHERE push_due IS NOT NULL) + count(*) FROM client_report";
        catalog.query_row(question, [], |row| row.get::<_, u32>(0)).unwrap() == 2
    });
    publisher.server.restart();
    drop((idle, catalog));
    let itself = publisher.itself();
    assert_eq!(itself["errors"][0]["error"], "the network is down");
    assert!(!itself["push_due"].is_null());
    assert_eq!(itself["last_push_version"], 1);
}

#[test]
fn ten_thousand_names_take_bounded_room() {
    let publisher = Publisher::new();
    let mut reporter = publisher.reporter();
    for number in 0..10_000 {
        let report =
            json!({"error": "e".repeat(500), "clientID": format!("flood {number}"), "localPath": "/x"});
        assert_eq!(reporter.post(&report), 204);
    }
    let status = publisher.status();
    let clients = status["clients"].as_array().unwrap();
    assert!(clients.len() <= 500, "{}", clients.len());
    assert!(clients.iter().any(|client| client["client_id"] == "flood 9999"), "the newest are kept");
    let errors: usize = clients.iter().map(|client| client["errors"].as_array().unwrap().len()).sum();
    assert!(errors <= 200, "{errors}");
    let bytes = std::fs::metadata(publisher.server.data().join("catalog.db")).unwrap().len();
    assert!(bytes < 4 << 20, "{bytes}");
    publisher.push("and a push is as ever");
    assert_eq!(publisher.status()["latest"], 2);
}

#[test]
fn status_ends_as_scripts_expect() {
    let publisher = Publisher::new();
    let Publisher { server, client, .. } = &publisher;
    client.run(&["status", "team/none.db"]).code(10);
    Client::guest(server).run(&["status", REMOTE]).code(4);
    let foreign = server.create_key(&["--kind", "pull", "--namespace", "other"]);
    Client::guest(server).with_env("SQLRSYNC_AUTH_TOKEN", &foreign).run(&["status", REMOTE]).code(4);
    client.run(&["status", REMOTE, "--server", "ws://127.0.0.1:9"]).code(5);
    client.run(&["status", "app.db"]).code(2);
    let output = client.run(&["status", REMOTE, "--json"]).ok();
    assert_eq!(output.stdout.lines().count(), 1);
    assert_eq!(output.json()["replica"], REMOTE);
}

#[test]
fn a_stranger_sees_the_latest_version_of_a_public_replica_and_nobody() {
    let publisher = Publisher::new();
    publisher.server.command(&["replica", "visibility", REMOTE, "public"]);
    let stranger = Client::guest(&publisher.server);
    let status = stranger.json(&["status", REMOTE]);
    assert_eq!((&status["latest"], &status["clients"]), (&json!(1), &json!([])));
    stranger.run(&["status", REMOTE]).ok().says("version 1").says("who has a key");
}
