//! Keys that are revoked while their connections are open: each ends, long before anything else would end it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlrsync_protocol::control;
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::page::PageNumber;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::public_client::{Ask, Socket, push};
use crate::support::{TestServer, database, eventually};

/// The beginning of a push of many pages that never come.
const BEGIN: &[u8] = &[0x41, 2, 12, 0, 0, 1, 0];

/// It takes a quarter of a second on a machine that has nothing else to do. The limits that would end such a
/// connection otherwise begin with a minute.
const AT_ONCE: Duration = Duration::from_secs(45);

fn ends_at_once(mut socket: Socket, since: Instant) {
    loop {
        match socket.read().unwrap() {
            Message::Close(Some(frame)) => {
                assert_eq!(frame.code, CloseCode::Policy);
                assert!(frame.reason.contains("revoked"), "{}", frame.reason);
                break;
            }
            Message::Close(None) => panic!("closed without a reason"),
            _ => {}
        }
    }
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

#[test]
fn a_subscriber_and_an_idle_pusher_are_closed() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    for path in ["/sapi/subscribe/team/app.db", "/sapi/push/team/app.db"] {
        let key = server.replica_key(Kind::ReplicaPush, "app.db");
        let mut socket = Socket::open(&server, path, &Ask::new(&key, 2)).unwrap();
        if path.contains("push") {
            socket.greeted().unwrap();
            socket.write(control::changed(5)).unwrap();
        }
        // Another key's connection stays.
        let mut other = Socket::open(&server, path, &Ask::new(&server.admin, 2)).unwrap();
        let since = Instant::now();
        server.revoke(&key);
        ends_at_once(socket, since);
        assert_eq!(server.get_upgrade(path, &key).0, 401);
        other.write("PING").unwrap();
        if path.contains("subscribe") {
            assert!(matches!(other.read().unwrap(), Message::Text(_)));
        }
    }
}

#[test]
fn a_push_in_the_middle_is_told_and_closed_and_the_next_one_need_not_wait() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 1000, 1)).unwrap();
    let key = server.replica_key(Kind::ReplicaPush, "app.db");
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&key, 2)).unwrap();
    socket.greeted().unwrap();
    socket.write(Bytes::from_static(BEGIN)).unwrap();
    // Its hashes: the turn is taken.
    let Message::Binary(hashes) = socket.read().unwrap() else { panic!() };
    assert_eq!(hashes[0], 0x64);
    let since = Instant::now();
    server.revoke(&key);
    let error = loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) if bytes.first() == Some(&0x62) => break bytes,
            Message::Binary(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(String::from_utf8_lossy(&error[5..]).contains("revoked"));
    ends_at_once(socket, since);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 2)).unwrap();
}

#[test]
fn a_push_whose_key_was_revoked_a_moment_before_its_end_is_not_committed() {
    let server = TestServer::start();
    let key = server.replica_key(Kind::ReplicaPush, "app.db");
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&key, 1)).unwrap();
    socket.greeted().unwrap();
    socket.write(Bytes::from_static(&[0x41, 1, 12, 0, 0, 0, 1])).unwrap();
    // Its hashes: the turn is taken.
    let Message::Binary(_) = socket.read().unwrap() else { panic!() };
    let content = database(4096, 0, 1);
    let mut page = vec![0x44, 0, 0, 0, 1];
    page.extend(content.page(PageNumber::FIRST).iter());
    socket.write(Bytes::from(page)).unwrap();
    server.revoke(&key);
    // Sooner than the session hears of it.
    socket.write(Bytes::from_static(&[0x45, 0, 0, 0, 1, 0x42])).unwrap();
    let error = loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) if bytes.first() == Some(&0x62) => break bytes,
            Message::Binary(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let told = String::from_utf8_lossy(&error[5..]);
    assert!(told.contains("nothing was committed") || told.contains("revoked"), "{told}");
    let (status, _, body) = server.get_upgrade("/sapi/pull/team/app.db", &server.admin);
    assert_eq!(status, 404, "{body}");
}

#[test]
fn a_key_asked_for_over_the_wire_goes_with_the_replica_key_that_asked() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    let ask = Ask { request_keys: true, ..Ask::new(&server.admin, 2) };
    let given = push(&server, "team/app.db", &ask, &content).unwrap().config;
    let (push_key, pull_key) = (given.new_push_key.unwrap(), given.new_pull_key.unwrap());
    let ask = Ask { request_keys: true, ..Ask::new(push_key.secret(), 2) };
    let derived = push(&server, "team/app.db", &ask, &content).unwrap().config.new_pull_key.unwrap();
    assert_eq!(server.get_upgrade("/sapi/pull/team/app.db", derived.secret()).0, 101);
    server.revoke(push_key.secret());
    eventually("a derived key opens nothing", || {
        server.get_upgrade("/sapi/pull/team/app.db", derived.secret()).0 == 401
    });
    assert_eq!(server.get_upgrade("/sapi/pull/team/app.db", pull_key.secret()).0, 101, "the admin's stays");
}
