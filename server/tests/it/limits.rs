//! Connections, time, turns: what is over a limit is told so and costs nothing more.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_server::settings::Settings;
use sqlrsync_server::size::ByteSize;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::public_client::{Ask, Socket, push, told};
use crate::support::{TestServer, database, eventually, settings};

const BEGIN: &[u8] = &[0x41, 2, 12, 0, 0, 1, 0];

/// A limit that no test shortens: what it would have ended was ended by another.
const IDLE_DEFAULT: Duration = Duration::from_secs(60);

fn one_second() -> Seconds {
    Seconds::new(1).unwrap()
}

#[test]
fn connections_over_the_limit_are_told_to_come_back() {
    for (settings, status) in [
        (Settings { connections_max: 2, ..settings() }, 503),
        (Settings { connections_per_address_max: 2, ..settings() }, 429),
    ] {
        let server = TestServer::with(settings);
        let first = Socket::open(&server, "/sapi/push/team/a.db", &Ask::new(&server.admin, 2)).unwrap();
        let _second = Socket::open(&server, "/sapi/push/team/b.db", &Ask::new(&server.admin, 2)).unwrap();
        let (found, head, body) = server.get("/livez", &[]);
        assert_eq!(found, status);
        assert!(head.contains("retry-after:") && body.contains("try again later"), "{head}\n{body}");
        drop(first);
        eventually("a connection that went makes room", || server.get("/livez", &[]).0 == 200);
    }
}

#[test]
fn behind_a_proxy_the_forwarded_address_counts() {
    let server =
        TestServer::with(Settings { behind_proxy: true, connections_per_address_max: 1, ..settings() });
    let ask = |address: &str| Ask::new(&server.admin, 2).header("x-forwarded-for", address);
    let open = |address: &str| Socket::open(&server, "/sapi/push/team/a.db", &ask(address));
    let _first = open("192.0.2.1").unwrap();
    assert_eq!(open("192.0.2.1").map(drop).unwrap_err().0, 429);
    assert_eq!(open("198.51.100.9, 192.0.2.1").map(drop).unwrap_err().0, 429, "what came before is made up");
    let _other = open("192.0.2.2").unwrap();
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let server = TestServer::with(Settings { header_timeout: one_second(), ..settings() });
    for sent in ["", "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = server.connect();
        stream.write_all(sent.as_bytes()).unwrap();
        let started = Instant::now();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let elapsed = started.elapsed();
        // By this limit: without it, it would take the ten seconds of the default.
        assert!(elapsed < Duration::from_secs(9) && elapsed > Duration::from_millis(500), "{elapsed:?}");
    }
    let mut stream = server.connect();
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(40_000));
    let _ = stream.write_all(long.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
}

#[test]
fn a_push_that_stands_still_is_cut_off_and_makes_way() {
    // The second one waits for its turn for as long as it takes.
    let busy_wait = Seconds::new(3600).unwrap();
    let server = TestServer::with(Settings { idle_timeout: one_second(), busy_wait, ..settings() });
    let content = database(4096, 500, 1);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    socket.greeted().unwrap();
    socket.write(Bytes::from_static(BEGIN)).unwrap();
    let started = Instant::now();
    // While it stands still a second one waits for its turn, and gets it.
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 500, 2)).unwrap();
    assert!(started.elapsed() < IDLE_DEFAULT, "{:?}", started.elapsed());
    let mut error = None;
    let frame = loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) if bytes[0] == 0x62 => error = Some(bytes),
            Message::Close(frame) => break frame.unwrap(),
            _ => {}
        }
    };
    assert!(error.is_some() && frame.code == CloseCode::Policy, "{frame:?}");
}

#[test]
fn a_puller_that_does_not_read_is_cut_off() {
    let busy_wait = Seconds::new(3600).unwrap();
    let server =
        TestServer::with(Settings { idle_timeout: one_second(), transfers_max: 1, busy_wait, ..settings() });
    // More than the sockets' buffers hold.
    let content = database(4096, 200_000, 1);
    push(&server, "team/app.db", &Ask::new(&server.admin, 3), &content).unwrap();
    let mut socket = Socket::open(&server, "/sapi/pull/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    let Message::Binary(_begin) = socket.read().unwrap() else { panic!() };
    // An empty replica of version 1: everything is wanted, and then nothing is read.
    socket.write(Bytes::from_static(&[0x61, 1])).unwrap();
    socket.write(Bytes::from_static(&[0x65])).unwrap();
    let started = Instant::now();
    // The only place for a transfer is free again once it was cut off.
    push(&server, "team/other.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    assert!(started.elapsed() < IDLE_DEFAULT, "{:?}", started.elapsed());
    drop(socket);
}

/// The beginning of a push of version 1: page size 4096, 1,048,576 pages.
const BEGIN_MANY: &[u8] = &[0x41, 1, 12, 0, 16, 0, 0];

#[test]
fn a_push_that_trickles_is_cut_off_and_told_why_and_makes_way() {
    let server = TestServer::with(Settings {
        rate_min: ByteSize(100 << 10),
        rate_window: one_second(),
        transfers_max: 1,
        busy_wait: Seconds::new(3600).unwrap(),
        ..settings()
    });
    assert_makes_way(&server, "least rate");
}

#[test]
fn a_push_that_trickles_makes_way_for_others_as_soon_as_one_that_stands_still() {
    // For itself it may trickle for five minutes.
    let idle_timeout = one_second();
    let server = TestServer::with(Settings { rate_min: ByteSize(100 << 10), idle_timeout, ..settings() });
    assert_makes_way(&server, "others waited");
}

/// Asserts that a push that trickles is cut off before another one has waited in vain, and is told this.
fn assert_makes_way(server: &TestServer, why: &str) {
    let content = database(4096, 500, 1);
    let mut socket = Socket::open(server, "/sapi/push/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    socket.greeted().unwrap();
    socket.write(Bytes::from_static(BEGIN_MANY)).unwrap();
    let Message::Binary(_hashes) = socket.read().unwrap() else { panic!() };
    let mut trickling = socket.socket.get_ref().try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        // A masked WebSocket frame of one byte, the key all zeros: ORIGIN_MSG, which is a text that never ends.
        for byte in [0x46, 0, 1, 0, 0].into_iter().chain(std::iter::repeat(b'x')) {
            if trickling.write_all(&[0x82, 0x81, 0, 0, 0, 0, byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    // It holds the turn, and the only place where there is one; both are free once it is cut off.
    push(server, "team/app.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let (mut told, mut closed) = (String::new(), None);
    while closed.is_none() {
        match socket.read().unwrap() {
            Message::Binary(bytes) if bytes[0] == 0x62 => told = String::from_utf8_lossy(&bytes[5..]).into(),
            Message::Close(frame) => closed = frame,
            _ => {}
        }
    }
    assert!(told.contains(why) && told.contains("try again"), "{told}");
    assert_eq!(closed.unwrap().code, CloseCode::Policy);
    drop(socket);
    trickle.join().unwrap();
}

#[test]
fn a_slow_push_that_keeps_the_least_rate_is_not_cut_off() {
    // Longer than any pause of a machine that has much else to do.
    let window = Seconds::new(4).unwrap();
    let server = TestServer::with(Settings {
        rate_min: ByteSize(1 << 10),
        rate_window: window,
        idle_timeout: window,
        ..settings()
    });
    let content = database(4096, 1000, 1);
    let geometry = content.geometry();
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&server.admin, 1)).unwrap();
    socket.greeted().unwrap();
    let mut stream = vec![0x41, 1, geometry.page_size.log2()];
    stream.extend(geometry.page_count.get().to_be_bytes());
    socket.write(Bytes::from(stream.split_off(0))).unwrap();
    let Message::Binary(_hashes) = socket.read().unwrap() else { panic!() };
    for number in content.numbers() {
        stream.push(0x44);
        stream.extend(number.get().to_be_bytes());
        stream.extend(content.page(number).iter());
    }
    stream.push(0x45);
    stream.extend(geometry.page_count.get().to_be_bytes());
    stream.push(0x42);
    let started = Instant::now();
    // About 20 KB a second, for longer than both.
    for piece in stream.chunks(4000) {
        socket.write(Bytes::copy_from_slice(piece)).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        started.elapsed() > Duration::from_secs(4),
        "too short to show anything: {:?}",
        started.elapsed()
    );
    loop {
        match socket.read().unwrap() {
            Message::Text(text) if text.contains("\"committedVersionID\":\"1\"") => break,
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_address_has_its_share_of_the_transfers_and_pushes_that_wait_for_a_turn_take_none() {
    let server = TestServer::with(Settings {
        behind_proxy: true,
        busy_wait: one_second(),
        transfers_max: 3,
        transfers_per_address_max: 2,
        ..settings()
    });
    let from = |address: &str| Ask::new(&server.admin, 2).header("x-forwarded-for", address);
    let begin = |name: &str| {
        let mut socket =
            Socket::open(&server, &format!("/sapi/push/team/{name}"), &from("192.0.2.1")).unwrap();
        socket.greeted().unwrap();
        socket.write(Bytes::from_static(BEGIN)).unwrap();
        socket
    };
    let mut first = begin("a.db");
    let Message::Binary(_hashes) = first.read().unwrap() else { panic!() };
    // These wait for the turn of the first, from an address that has room for one more.
    let _waiting = [begin("a.db"), begin("a.db"), begin("a.db")];
    let content = database(4096, 10, 1);
    push(&server, "team/b.db", &from("192.0.2.1"), &content).unwrap();
    let mut second = begin("c.db");
    let Message::Binary(_hashes) = second.read().unwrap() else { panic!() };
    let failed = push(&server, "team/d.db", &from("192.0.2.1"), &content).unwrap_err();
    assert!(told(&failed).contains("from this address"), "{failed:?}");
    let pulled = Socket::open(&server, "/sapi/pull/team/b.db", &from("192.0.2.1")).map(drop).unwrap_err();
    assert_eq!(pulled.0, 429, "{pulled:?}");
    push(&server, "team/d.db", &from("192.0.2.2"), &content).unwrap();
}

#[test]
fn a_second_push_that_waits_too_long_is_told_to_try_again() {
    let server = TestServer::with(Settings { busy_wait: one_second(), ..settings() });
    let content = database(4096, 500, 1);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let ask = Ask::new(&server.admin, 2).header("x-localhostname", "laptop");
    let mut first = Socket::open(&server, "/sapi/push/team/app.db", &ask).unwrap();
    first.greeted().unwrap();
    first.write(Bytes::from_static(BEGIN)).unwrap();
    let Message::Binary(_) = first.read().unwrap() else { panic!() };
    for protocol in [2, 3] {
        let failed = push(&server, "team/app.db", &Ask::new(&server.admin, protocol), &content).unwrap_err();
        let told = told(&failed);
        assert!(told.contains("another push") && told.contains("from laptop"), "{told}");
        if protocol == 3 {
            assert_eq!(failed.refusal().exit_code(), 5);
        }
    }
    drop(first);
    eventually("the turn is free", || {
        push(&server, "team/app.db", &Ask::new(&server.admin, 2), &content).is_ok()
    });
}

#[test]
fn a_silent_connection_is_pinged_and_one_that_does_not_answer_is_dropped() {
    let server = TestServer::with(Settings { ping_interval: one_second(), ..settings() });
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    socket.greeted().unwrap();
    assert!(matches!(socket.socket.read().unwrap(), Message::Ping(_)));
    // Below the WebSocket from here on, so that no ping is answered; the server closes in the end.
    let mut bytes = Vec::new();
    socket.socket.get_mut().read_to_end(&mut bytes).unwrap();
    let close = [&u16::from(CloseCode::Policy).to_be_bytes(), &b"nothing was heard"[..]].concat();
    assert!(bytes.windows(close.len()).any(|window| window == close), "{bytes:?}");
}

#[test]
fn stopping_takes_seconds_whatever_a_peer_does() {
    let mut server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 500, 1)).unwrap();
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
    socket.greeted().unwrap();
    socket.write(Bytes::from_static(BEGIN)).unwrap();
    let Message::Binary(_hashes) = socket.read().unwrap() else { panic!() };
    let took = server.stop();
    assert!(took < IDLE_DEFAULT, "{took:?}");
    let mut told = String::new();
    let frame = loop {
        match socket.read().unwrap() {
            Message::Binary(bytes) if bytes[0] == 0x62 => told = String::from_utf8_lossy(&bytes[5..]).into(),
            Message::Close(frame) => break frame.unwrap(),
            _ => {}
        }
    };
    assert!(frame.code == CloseCode::Away && told.contains("try again"), "{frame:?} {told}");
}

#[test]
fn stopping_ends_idle_sessions_at_once_and_lets_a_push_finish() {
    let mut server = TestServer::start();
    let content = database(4096, 20, 1);
    let mut idle = Socket::open(&server, "/sapi/push/team/a.db", &Ask::new(&server.admin, 2)).unwrap();
    idle.greeted().unwrap();
    let mut subscriber = Socket::open(&server, "/sapi/subscribe/team/a.db", &Ask::new(&server.admin, 2));
    assert!(subscriber.as_mut().is_err(), "nothing is there yet");
    let mut pushing = Socket::open(&server, "/sapi/push/team/b.db", &Ask::new(&server.admin, 1)).unwrap();
    pushing.greeted().unwrap();
    let geometry = content.geometry();
    let mut head = vec![0x41, 1, geometry.page_size.log2()];
    head.extend(geometry.page_count.get().to_be_bytes());
    pushing.write(Bytes::from(head)).unwrap();
    let Message::Binary(_) = pushing.read().unwrap() else { panic!() };

    let finishing = std::thread::spawn(move || {
        // Who does nothing is told before the push has come to its end.
        assert_eq!(idle.closed().unwrap(), (CloseCode::Away, "server stopping, try again".to_owned()));
        for number in content.numbers() {
            let mut page = vec![0x44];
            page.extend(number.get().to_be_bytes());
            page.extend(content.page(number).iter());
            for piece in page.chunks(4096) {
                pushing.write(Bytes::copy_from_slice(piece)).unwrap();
            }
        }
        let mut end = vec![0x45];
        end.extend(geometry.page_count.get().to_be_bytes());
        end.push(0x42);
        pushing.write(Bytes::from(end)).unwrap();
        let mut committed = false;
        loop {
            match pushing.read() {
                Ok(Message::Text(text)) => committed |= text.contains("\"committedVersionID\":\"1\""),
                Ok(Message::Close(_)) | Err(_) => return committed,
                Ok(_) => {}
            }
        }
    });
    server.stop();
    assert!(finishing.join().unwrap(), "the push was committed and acknowledged");
}
