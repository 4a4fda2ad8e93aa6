//! Peers that ask for much and go away: what is done for them ends then, and not when it is done.
//!
//! The server has room for one such thing at a time, so that the room says whether it is still at work.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_server::settings::Settings;

use crate::public_client::{Ask, push};
use crate::support::{TestServer, changed, database, eventually, settings};

const NAME: &str = "/api/v1/replicas/team/app.db";

/// A server with room for one, in which who finds none waits for a second. No other limit of time ends anything.
fn with_room_for_one() -> TestServer {
    let hour = Seconds::new(3600).unwrap();
    TestServer::with(Settings {
        transfers_max: 1,
        busy_wait: Seconds::new(1).unwrap(),
        query_timeout: hour,
        diff_timeout: hour,
        idle_timeout: hour,
        ..settings()
    })
}

/// Sends a request, and waits for no answer.
fn begin(server: &TestServer, method: &str, what: &str, body: &str) -> TcpStream {
    let (key, len) = (&server.admin, body.len());
    let mut stream = server.connect();
    let head = format!("{method} {NAME}/{what} HTTP/1.1\r\nHost: test\r\nAuthorization: {key}\r\n");
    stream.write_all(format!("{head}Content-Length: {len}\r\n\r\n{body}").as_bytes()).unwrap();
    stream
}

/// The status of the smallest query.
fn ask_little(server: &TestServer) -> u16 {
    let body = json!({"sql": "SELECT 1"}).to_string();
    server.post(&format!("{NAME}/query"), &[("Authorization", &server.admin)], &body).0
}

/// Asserts that what was begun with this connection is at work until that is closed, and not after.
fn assert_ends_with(server: &TestServer, stream: TcpStream) {
    eventually("it is at work", || ask_little(server) == 503);
    assert_eq!(ask_little(server), 503, "it goes on by itself");
    drop(stream);
    // By itself it would take much longer than this waits.
    eventually("the room is free", || ask_little(server) == 200);
}

#[test]
fn a_query_ends_when_whoever_asked_hangs_up() {
    let server = with_room_for_one();
    push(&server, "team/app.db", &Ask::new(&server.admin, 3), &database(4096, 10, 1)).unwrap();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let stream = begin(&server, "POST", "query", &json!({"sql": endless}).to_string());
    assert_ends_with(&server, stream);
}

#[test]
fn a_difference_ends_when_whoever_reads_it_hangs_up() {
    let server = with_room_for_one();
    // What is said of the rows that differ is more than the sockets' buffers hold: 48 MB.
    let old = changed(&database(4096, 60, 1), "UPDATE events SET value = zeroblob(200000)");
    let new = changed(&old, "UPDATE events SET text = 'another'");
    for content in [&old, &new] {
        push(&server, "team/app.db", &Ask::new(&server.admin, 3), content).unwrap();
    }
    let mut stream = begin(&server, "GET", "diff?from=1&to=2", "");
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    assert_ends_with(&server, stream);
}
