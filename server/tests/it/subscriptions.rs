//! Notices of new versions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlrsync_protocol::control;
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_server::backend::Pusher;
use sqlrsync_server::catalog::{Actor, Policy, Rule, Visibility};
use sqlrsync_server::settings::Settings;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::public_client::{Ask, Socket, push};
use crate::support::{PATIENCE, TestServer, database, eventually, settings};

fn said(socket: &mut Socket) -> Value {
    match socket.read().unwrap() {
        Message::Text(text) => {
            let message: Value = serde_json::from_str(text.as_str()).unwrap();
            message["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            message
        }
        other => panic!("{other:?}"),
    }
}

fn subscribe(data: &str) -> String {
    format!(r#"{{"type":"SUBSCRIBE","data":{data},"timestamp":"2026-01-01T00:00:00Z"}}"#)
}

#[test]
fn a_subscriber_hears_of_the_latest_version_and_of_each_new_one() {
    let server = TestServer::start();
    let ask = Ask::new(&server.admin, 2);
    let done = push(&server, "team/app.db", &ask, &database(4096, 10, 1)).unwrap();
    let id = done.config.replica_id.unwrap();
    let key = server.replica_key(Kind::ReplicaPull, "app.db");
    let mut socket = Socket::open(&server, "/sapi/subscribe/team/app.db", &Ask::new(&key, 2)).unwrap();
    socket.write(subscribe(&format!(r#"{{"replicaID":"{id}"}}"#))).unwrap();
    let subscribed = said(&mut socket);
    assert_eq!(
        (&subscribed["type"], &subscribed["data"]["replicaID"]),
        (&"SUBSCRIBED".into(), &id.as_str().into())
    );
    for version in ["1", "2", "3"] {
        let latest = said(&mut socket);
        assert_eq!(latest["type"], "LATEST_VERSION");
        assert_eq!(latest["data"]["version"], version, "a string, and each in turn");
        let seed = version.parse::<u32>().unwrap() + 1;
        push(&server, "team/app.db", &ask, &database(4096, 10, seed)).unwrap();
    }
    assert_eq!(said(&mut socket)["data"]["version"], "4");
    // Nothing new is no news.
    push(&server, "team/app.db", &ask, &database(4096, 10, 4)).unwrap();
    for ping in ["PING", r#"{"type":"PING","timestamp":""}"#] {
        socket.write(ping).unwrap();
        assert_eq!(said(&mut socket)["type"], "PONG");
    }
    socket.write(r#"{"type":"UNSUBSCRIBE"}"#).unwrap();
    socket.write("PING").unwrap();
    assert_eq!(said(&mut socket)["type"], "PONG");
    push(&server, "team/app.db", &ask, &database(4096, 10, 9)).unwrap();
    socket.write("PING").unwrap();
    assert_eq!(said(&mut socket)["type"], "PONG", "no notice after UNSUBSCRIBE");
}

#[test]
fn what_is_no_subscription_is_answered_with_an_error() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    let mut socket =
        Socket::open(&server, "/sapi/subscribe/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    for text in ["{", "[]", &subscribe(r#"{"replicaID":"another"}"#), &subscribe(r#"{"replicaID":"../x"}"#)] {
        socket.write(text).unwrap();
        let error = said(&mut socket);
        assert_eq!(error["type"], "ERROR", "{text}");
        assert!(!error["data"]["message"].as_str().unwrap().is_empty());
    }
    socket.write(r#"{"type":"NEWER","data":{}}"#).unwrap();
    socket.write("PING").unwrap();
    assert_eq!(said(&mut socket)["type"], "PONG", "an unknown type is passed over");
    socket.write(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(socket.closed().unwrap().0, CloseCode::Policy);
}

/// A server with one version of `team/app.db`, and one subscriber to it that has read what it was told
/// and answered the ping that came with it.
fn subscribed(settings: Settings) -> (TestServer, Socket) {
    let server = TestServer::with(settings);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    let mut socket =
        Socket::open(&server, "/sapi/subscribe/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    socket.write(subscribe("{}")).unwrap();
    assert_eq!(said(&mut socket)["type"], "SUBSCRIBED");
    assert_eq!(said(&mut socket)["data"]["version"], "1");
    // The first time the ping is read and answered, and the second time the answer has come before.
    for _ in 0..2 {
        socket.write("PING").unwrap();
        assert_eq!(said(&mut socket)["type"], "PONG");
    }
    (server, socket)
}

fn announce(server: &TestServer, version: u64) {
    server.backend().notices.announce("team/app.db", VersionNumber::new(version).unwrap(), Pusher::default());
}

#[test]
fn a_subscriber_that_reads_nothing_for_a_while_gets_the_newest_only() {
    let (server, mut socket) = subscribed(settings());
    for version in 2..=1000 {
        announce(&server, version);
        if version % 100 == 0 {
            // So that the server had time to tell each of these.
            server.get("/livez", &[]);
        }
    }
    let mut versions = Vec::new();
    while versions.last().is_none_or(|last| last != "1000") {
        versions.push(said(&mut socket)["data"]["version"].as_str().unwrap().to_owned());
    }
    assert!(versions.len() <= 2, "what was on its way, and the newest: {versions:?}");
    socket.write("PING").unwrap();
    assert_eq!(said(&mut socket)["type"], "PONG", "and nothing else");
}

#[test]
fn a_subscriber_that_answers_no_ping_is_cut_off_in_time() {
    let patience = "3s".parse().unwrap();
    let (server, mut socket) = subscribed(Settings { subscriber_timeout: patience, ..settings() });
    let begin = Instant::now();
    for version in 2..10 {
        announce(&server, version);
    }
    // Below the WebSocket, so that no ping is answered.
    let mut bytes = Vec::new();
    socket.socket.get_mut().read_to_end(&mut bytes).unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    let told = bytes.windows(14).filter(|window| window == b"LATEST_VERSION").count();
    assert_eq!(told, 1, "one on its way at most");
    eventually("its session is over", || server.backend().sessions.count() == 0);
}

/// A WebSocket by hand, with the smallest receive buffer there is, that has asked for notices and never
/// reads.
fn stalled(address: SocketAddr, key: &str) -> TcpStream {
    use rustix::net::sockopt::set_socket_recv_buffer_size;
    use rustix::net::{AddressFamily, SocketType, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 1).unwrap();
    connect(&socket, &address).unwrap();
    let mut stream = TcpStream::from(socket);
    let head = format!(
        "GET /sapi/subscribe/team/app.db HTTP/1.1\r\nHost: test\r\nAuthorization: {key}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // With a mask of zeros the text goes as it is.
    let text = r#"{"type":"SUBSCRIBE"}"#;
    stream.write_all(&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

#[test]
fn a_socket_that_is_full_is_cut_off_and_nobody_waits_for_it() {
    let patience = "5s".parse().unwrap();
    let (server, mut reading) = subscribed(Settings { subscriber_timeout: patience, ..settings() });
    let stalled = stalled(server.address, &server.admin);
    eventually("both listen", || server.backend().sessions.count() == 2);
    let (begin, mut version) = (Instant::now(), 1);
    while server.backend().sessions.count() == 2 {
        assert!(begin.elapsed() < PATIENCE, "it is never cut off");
        version += 1;
        announce(&server, version);
        let asked = Instant::now();
        loop {
            let told = said(&mut reading);
            if told["data"]["version"].as_str() == Some(&version.to_string()) {
                break;
            }
        }
        assert!(asked.elapsed() < Duration::from_secs(4), "who reads has waited for who does not");
    }
    drop(stalled);
}

#[test]
fn a_replica_that_becomes_private_ends_what_anybody_might_have_and_nothing_else() {
    let server = TestServer::start();
    let ask = Ask::new(&server.admin, 2).header("x-visibility", "2");
    push(&server, "team/app.db", &ask, &database(4096, 10, 1)).unwrap();
    let (pull, other) =
        (server.replica_key(Kind::ReplicaPull, "app.db"), server.key(Kind::AccountPull, "other"));
    let open = |key: &str| {
        let mut socket = Socket::open(&server, "/sapi/subscribe/team/app.db", &Ask::new(key, 2)).unwrap();
        socket.write(subscribe("{}")).unwrap();
        assert_eq!(said(&mut socket)["type"], "SUBSCRIBED");
        assert_eq!(said(&mut socket)["type"], "LATEST_VERSION");
        socket
    };
    let (anybody, with_other) = (open(""), open(&other));
    let mut keep = [open(&server.admin), open(&pull)];
    // Open to fewer, but to these still.
    server.catalog().set_visibility("team", "app.db", Visibility::Unlisted).unwrap();
    let since = Instant::now();
    server.catalog().set_visibility("team", "app.db", Visibility::Private).unwrap();
    for mut socket in [anybody, with_other] {
        let (code, reason) = socket.closed().unwrap();
        assert_eq!(code, CloseCode::Policy);
        assert!(reason.contains("private"), "{reason}");
    }
    assert!(since.elapsed() < Duration::from_secs(45), "not by another limit: {:?}", since.elapsed());
    assert_eq!(server.get_upgrade("/sapi/subscribe/team/app.db", "").0, 401);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 2)).unwrap();
    for socket in &mut keep {
        assert_eq!(said(socket)["data"]["version"], "2");
    }
}

#[test]
fn what_makes_no_sense_is_said_and_a_flood_is_ended() {
    let (server, mut socket) = subscribed(settings());
    socket.write(r#"{"type":"UNSUBSCRIBE"}"#).unwrap();
    socket.write(r#"{"type":"UNSUBSCRIBE"}"#).unwrap();
    assert_eq!(said(&mut socket)["type"], "ERROR", "there was no subscription the second time");
    socket.write("x".repeat(9000)).unwrap();
    let error = said(&mut socket);
    assert!(error["data"]["message"].as_str().unwrap().contains("8192"), "{error}");
    // Each is answered as the first was, and the subscription stays one.
    for _ in 0..3 {
        socket.write(subscribe("{}")).unwrap();
        assert_eq!(said(&mut socket)["type"], "SUBSCRIBED");
        assert_eq!(said(&mut socket)["data"]["version"], "1");
    }
    announce(&server, 2);
    assert_eq!(said(&mut socket)["data"]["version"], "2");
    for _ in 0..1000 {
        if socket.write(subscribe("{}")).is_err() {
            break;
        }
    }
    let mut told = 0;
    let error = loop {
        let message = said(&mut socket);
        if message["type"] == "ERROR" {
            break message;
        }
        told += 1;
    };
    assert!(told < 2000 && error["data"]["message"].as_str().unwrap().contains("too many"), "{error}");
    assert_eq!(socket.closed().unwrap().0, CloseCode::Policy);
}

#[test]
fn a_message_that_is_far_too_long_is_said_and_ends_it() {
    let (_server, mut socket) = subscribed(settings());
    socket.write("x".repeat(100_000)).unwrap();
    assert_eq!(said(&mut socket)["type"], "ERROR");
    assert_eq!(socket.closed().unwrap().0, CloseCode::Size);
}

#[test]
fn an_idle_push_connection_hears_of_what_others_push_and_not_of_its_own() {
    let server = TestServer::start();
    let other = Ask::new(&server.admin, 2);
    let own = || other.clone().header("x-clientid", "laptop").header("x-localabsolutepath", "/app.db");
    push(&server, "team/app.db", &own(), &database(4096, 10, 1)).unwrap();
    let policy = Policy { rule: Rule::LatestWins, ..Policy::default() };
    server.catalog().set_policy("team", "app.db", policy, &Actor::operator()).unwrap();
    let mut reporting = Socket::open(&server, "/sapi/push/team/app.db", &own()).unwrap();
    reporting.greeted().unwrap();
    reporting.write(control::changed(5)).unwrap();
    let mut silent = Socket::open(&server, "/sapi/push/team/app.db", &own()).unwrap();
    silent.greeted().unwrap();
    push(&server, "team/app.db", &own(), &database(4096, 10, 2)).unwrap();
    push(&server, "team/app.db", &other, &database(4096, 10, 3)).unwrap();
    for socket in [&mut reporting, &mut silent] {
        let Message::Binary(told) = socket.read().unwrap() else { panic!("no binary message") };
        assert_eq!(*told, [control::NEW_REPLICA_VERSION]);
    }
    // Nothing more was said, and both can still push.
    push(&server, "team/app.db", &own(), &database(4096, 10, 4)).unwrap();
    push(&server, "team/other.db", &other, &database(4096, 10, 4)).unwrap();
    for socket in [&mut reporting, &mut silent] {
        socket.patience(Duration::from_millis(100));
        assert!(socket.read().is_err(), "neither its own nor another replica's");
    }
}
