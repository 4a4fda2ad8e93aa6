//! Servers that are not there, that are something else, or that stop.

use std::time::Duration;

use sqlrsync_tests::client::Client;
use sqlrsync_tests::fake::{FakeServer, nobody};
use sqlrsync_tests::faults::{Fault, Plan, Proxy, Way};
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::PATIENCE;
use sqlrsync_tests::{sample, trace};

use crate::REMOTE;

/// When a server by itself ends a connection that says nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

fn client_of(url: &str) -> Client {
    let client = Client::stranger().with_env("SQLRSYNC_AUTH_TOKEN", "a-key");
    client.use_server(url);
    sample::create(&client.path("app.db"));
    client
}

#[test]
fn a_server_that_is_not_there_means_try_later() {
    let client = client_of(&nobody());
    client.run(&["app.db", REMOTE]).code(5);
    client.run(&[REMOTE, "x.db"]).code(5);
    client.run(&["log", REMOTE]).code(5);
    assert!(!client.path("x.db").exists());
}

#[test]
fn something_that_is_no_sqlrsync_server_is_an_error() {
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Type: text/html\r\n\r\n<html>hello\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x01\x02\x03\x04\xff\xfe",
        b"",
    ];
    for answer in answers {
        let server = FakeServer::answering(answer);
        let client = client_of(&server.url());
        for arguments in [["app.db", REMOTE], [REMOTE, "x.db"]] {
            let outcome = client.run(&arguments);
            assert!([1, 5].contains(&outcome.code), "{answer:?}: {} {}", outcome.code, outcome.stderr);
            assert!(!outcome.stderr.is_empty());
        }
        assert!(!client.path("x.db").exists());
    }
}

#[test]
fn a_server_that_takes_short_messages_only_gets_no_longer_ones() {
    let server = Server::start_with(programs(), None, &["--message-bytes-max", "8KiB"]);
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    sample::execute(&app, "CREATE TABLE long (b); INSERT INTO long VALUES (randomblob(1000000))");
    client.run(&["app.db", REMOTE]).ok();
    client.run(&[REMOTE, "pulled.db"]).ok();
    sample::assert_same(&app, &client.path("pulled.db"));
}

#[test]
fn a_connection_that_breaks_is_an_error_and_the_next_push_goes_through() {
    let server = Server::start();
    let key = server.admin_key();
    let client = Client::guest(&server).with_env("SQLRSYNC_ADMIN_KEY", &key);
    sample::create(&client.path("app.db"));
    let proxy = Proxy::start(server.address(), Plan::Each(Fault::cut(Way::Up, 3000)));
    let outcome = client.run(&["app.db", REMOTE, "-s", &proxy.url()]);
    assert!([1, 5].contains(&outcome.code), "{} {}", outcome.code, outcome.stderr);
    assert_eq!(client.json(&["app.db", REMOTE, "-s", server.url()])["version"], 1);
    assert!(server.check());
}

#[test]
fn a_server_that_is_told_to_stop_stops_in_time_and_cleanly() {
    let mut server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    // One that is connected and says nothing must not hold it up.
    let key = server.admin_key();
    let idle = sqlrsync_tests::raw::RawSocket::connect(server.url(), "push/team/idle.db", &key).unwrap();
    let (status, time) = server.stop();
    assert!(status.success(), "{status}");
    assert!(time < IDLE_TIMEOUT, "{time:?}");
    drop(idle);
    assert!(server.check());
    client.run(&["app.db", REMOTE]).code(5);
}

#[test]
fn everything_is_there_after_a_restart() {
    let mut server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    server.restart();
    sample::change(&client.path("app.db"), 1, "after");
    assert_eq!(client.json(&["app.db"])["version"], 2);
    client.run(&["team/app.db@1", "old.db"]).ok();
}

#[test]
fn a_damaged_repository_is_found_by_check_and_not_served() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    assert!(server.check());
    let trace = trace::of_repository(&server.data());
    let (path, mut bytes) = trace.into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(server.command(&["check"]).status.code(), Some(12));
    let outcome = Client::admin(&server).run(&[REMOTE, "x.db"]);
    assert_eq!(outcome.code, 12, "{}", outcome.stderr);
}

#[test]
fn the_server_says_whether_it_lives() {
    let server = Server::start();
    for path in ["livez", "readyz"] {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

#[test]
fn plain_http_on_another_address_needs_behind_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(&sqlrsync_tests::programs::programs().server);
    command.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(folder.path().join("data"));
    let outcome = sqlrsync_tests::client::outcome_of(&mut command);
    assert_ne!(outcome.code, 0);
    assert!(outcome.stderr.contains("--behind-proxy"), "{}", outcome.stderr);
}
