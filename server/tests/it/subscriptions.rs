//! Notices of new versions.

use serde_json::Value;
use sqlrsync_protocol::key::Kind;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::public_client::{Ask, Socket, push};
use crate::support::{TestServer, database};

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
