//! Peers that send what they may not: each is told, where it listens, and nothing is changed.

use std::io::{Read, Write};
use std::time::Instant;

use bytes::Bytes;
use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::Fault;
use sqlrsync_protocol::memory::Content;
use tokio_tungstenite::tungstenite::Message;

use crate::public_client::{Ask, Socket, pull, push};
use crate::support::{PATIENCE, TestServer, database, eventually, settings};

/// Opens a push, sends these messages, and returns the text of the REPLICA_ERROR that comes, if one
/// does before the close.
fn pushed(server: &TestServer, name: &str, messages: &[Bytes]) -> Option<String> {
    let mut socket =
        Socket::open(server, &format!("/sapi/push/{name}"), &Ask::new(&server.admin, 2)).unwrap();
    socket.greeted().unwrap();
    for message in messages {
        // The server may have closed already.
        if socket.write(message.clone()).is_err() {
            break;
        }
    }
    let mut told = None;
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) if bytes.first() == Some(&0x62) => {
                told = Some(String::from_utf8_lossy(&bytes[5..]).into_owned());
            }
            Ok(Message::Text(text)) => assert!(!text.contains("committedVersionID"), "committed: {text}"),
            Ok(Message::Close(_)) | Err(_) => return told,
            Ok(_) => {}
        }
    }
}

fn bytes(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

#[test]
fn nothing_comes_of_streams_that_are_none() {
    let server = TestServer::start();
    let content = database(4096, 100, 1);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let begin: &[u8] = &[0x41, 2, 12, 0, 0, 0, 2];
    let page = [&[0x44, 0, 0, 0, 1][..], &[7; 4096]].concat();
    let cases: Vec<(&str, Vec<Bytes>)> = vec![
        ("not ORIGIN_BEGIN", vec![bytes(&[&[0x99, 1, 2, 3]])]),
        ("a page first", vec![bytes(&[&page])]),
        ("ORIGIN_END first", vec![bytes(&[&[0x42]])]),
        ("page size 2^40", vec![bytes(&[&[0x41, 2, 40, 0, 0, 0, 1]])]),
        ("version 0", vec![bytes(&[&[0x41, 0, 12, 0, 0, 0, 1]])]),
        ("two beginnings", vec![bytes(&[begin, begin])]),
        ("a text of 4 GiB", vec![bytes(&[&[0x46, 0xff, 0xff, 0xff, 0xff]])]),
        ("an error of 4 GiB", vec![bytes(&[&[0x43, 0xff, 0xff, 0xff, 0xff, b'x']])]),
        ("page 0", vec![bytes(&[begin, &[0x44, 0, 0, 0, 0], &[7; 4096]])]),
        ("the lock page", vec![bytes(&[begin, &[0x44, 0, 4, 0, 1], &[7; 4096]])]),
        ("a page that is missing at the end", vec![bytes(&[begin, &[0x45, 0, 0, 9, 9, 0x42]])]),
        ("details of more than there is", vec![bytes(&[begin, &[0x47, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]])]),
        ("a page, then what is no message", vec![bytes(&[begin, &page, &[0x99]])]),
        ("pages that are neither sent nor there", vec![bytes(&[begin, &page, &[0x45, 0, 1, 0, 0, 0x42]])]),
        ("a commit message cut short", vec![bytes(&[&[0x54, 0, 9, b'a']])]),
        ("a CHANGED of a wrong length", vec![bytes(&[&[0x57, 0]])]),
    ];
    for (what, messages) in &cases {
        let told = pushed(&server, "team/app.db", messages);
        assert!(told.is_some(), "{what}: nothing was said");
        pushed(&server, "team/new.db", messages);
    }
    let (now, done) = pull(&server, "team/app.db", &Ask::new(&server.admin, 2), None).unwrap();
    assert!(now == content && done.config.committed_version.unwrap().get() == 1, "nothing has changed");
    assert_eq!(server.get_upgrade("/sapi/pull/team/new.db", &server.admin).0, 404, "nothing is left");
    assert!(server.catalog().replica("team", "new.db").unwrap().is_none(), "nothing is left");
}

#[test]
fn random_bytes_change_nothing() {
    let server = TestServer::start();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..40 {
        let mut noise = |len: usize| -> Bytes {
            (0..len)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect::<Vec<u8>>()
                .into()
        };
        let mut messages = vec![noise(1 + round * 97)];
        if round % 2 == 0 {
            messages.insert(0, bytes(&[&[0x41, 1 + (round % 3) as u8, 12, 0, 0, 1, 0]]));
        }
        messages.push(noise(1 + round));
        pushed(&server, "team/noise.db", &messages);
    }
    assert_eq!(server.get_upgrade("/sapi/pull/team/noise.db", &server.admin).0, 404);
}

#[test]
fn a_push_that_is_cut_anywhere_is_not_there() {
    let server = TestServer::start();
    let content = database(1024, 60, 1);
    let stream = stream_of(&content);
    let cuts = (0..stream.len()).step_by(stream.len() / 40 + 1).chain([stream.len() - 1]);
    for cut in cuts {
        let mut socket =
            Socket::open(&server, "/sapi/push/team/cut.db", &Ask::new(&server.admin, 1)).unwrap();
        socket.greeted().unwrap();
        for piece in stream[..cut].chunks(4096) {
            socket.write(Bytes::copy_from_slice(piece)).unwrap();
        }
        // Without a close, as when a cable is pulled.
        socket.socket.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        drop(socket);
    }
    // Versions 1 and 2 cannot be continued: nothing is kept for it.
    eventually("no registration is left", || server.catalog().replica("team", "cut.db").unwrap().is_none());
    push(&server, "team/cut.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let (_, done) = pull(&server, "team/cut.db", &Ask::new(&server.admin, 2), None).unwrap();
    assert_eq!(done.config.committed_version.unwrap().get(), 1, "none of the cut ones was committed");
}

/// A whole push of version 1 into nothing, as one run.
fn stream_of(content: &Content) -> Vec<u8> {
    let geometry = content.geometry();
    let count = geometry.page_count.get().to_be_bytes();
    let mut stream = vec![0x41, 1, geometry.page_size.log2()];
    stream.extend(count);
    for number in content.numbers() {
        stream.push(0x44);
        stream.extend(number.get().to_be_bytes());
        stream.extend(content.page(number).iter());
    }
    stream.push(0x45);
    stream.extend(count);
    stream.push(0x42);
    stream
}

#[test]
fn a_database_over_the_limit_is_refused_and_says_why() {
    let server = TestServer::with(sqlrsync_server::settings::Settings {
        database_bytes_max: sqlrsync_server::size::ByteSize(64 << 10),
        ..settings()
    });
    let content = database(4096, 5000, 1);
    for protocol in 1..=3 {
        let failed = push(&server, "team/app.db", &Ask::new(&server.admin, protocol), &content).unwrap_err();
        let ExchangeError::Peer { text, .. } = &failed else { panic!("{failed:?}") };
        assert!(text.contains("65536"), "{text}");
        assert_eq!(failed.refusal().exit_code(), 1);
    }
    assert!(server.catalog().replica("team", "app.db").unwrap().is_none());
}

#[test]
fn hostile_paths_are_bad_requests() {
    let server = TestServer::start();
    let long = "a".repeat(300);
    for path in [
        "/sapi/push/team/../x.db",
        "/sapi/push/team/%2e%2e/x.db",
        "/sapi/pull/..%2f..%2fetc/passwd",
        "/sapi/push/team//x.db",
        "/sapi/push/team/",
        "/sapi/push/team",
        "/sapi/push/team/%00",
        "/sapi/push/team/a%0d%0aX-Evil:%201",
        "/sapi/push/team/%1b%5b2J",
        &format!("/sapi/push/team/{long}"),
        &format!("/sapi/push/team/{}", "a/".repeat(600) + "b"),
        "/sapi/subscribe/te$am/x.db",
    ] {
        let (status, head, body) = server.get_upgrade(path, &server.admin);
        assert_eq!(status, 400, "{path}: {body}");
        assert!(
            body.lines().count() == 1 && !body.contains('\u{1b}') && !head.contains("x-evil"),
            "{body:?}"
        );
    }
}

#[test]
fn a_frame_that_claims_two_to_the_sixty_second_bytes_takes_no_memory() {
    let server = TestServer::start();
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    socket.greeted().unwrap();
    let stream = socket.socket.get_mut();
    stream.write_all(&[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).unwrap();
    let mut rest = Vec::new();
    let since = Instant::now();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < 1000 && since.elapsed() < PATIENCE, "closed, and little said");
    assert_eq!(server.get("/livez", &[]).0, 200);
}

#[test]
fn a_refusal_names_its_kind_to_our_own_client() {
    let refused = sqlrsync_server::access::Caller::pull_key_pushes();
    assert_eq!(refused.refusal().exit_code(), 4);
}
