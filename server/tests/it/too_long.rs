//! A message over the limit: whoever sends it is told so, and by how much, while it is still sending.

use std::io::Write;
use std::net::TcpStream;

use sqlrsync_protocol::duration::Seconds;
use sqlrsync_server::settings::Settings;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::public_client::{Ask, Socket, push};
use crate::support::{TestServer, database, settings};

/// What the server takes by default, in bytes.
const MAX: usize = 64 << 10;

/// The beginning of a push of version 2.
const BEGIN: &[u8] = &[0x41, 2, 12, 0, 0, 1, 0];

/// More than the sockets' buffers hold: who sends it reads nothing before it is taken.
const FAR_TOO_LONG: usize = 16 << 20;

/// Writes one masked binary frame of `len` bytes, the key all zeros; true where all of it was taken.
fn send(mut stream: &TcpStream, len: usize) -> bool {
    let mut head = vec![0x82, 0xff];
    head.extend((len as u64).to_be_bytes());
    head.extend([0; 4]);
    stream.write_all(&head).is_ok() && stream.write_all(&vec![0x41; len]).is_ok()
}

/// Sends a message over the limit, and returns the errors of the stream, the texts, and the close.
fn told(socket: &mut Socket, len: usize) -> (Vec<String>, Vec<String>, CloseCode, String) {
    assert!(send(socket.socket.get_ref(), len), "the server takes what it throws away");
    let (mut errors, mut texts) = (Vec::new(), Vec::new());
    loop {
        match socket.read().expect("the close, and not a reset") {
            Message::Binary(bytes) if matches!(bytes[0], 0x62 | 0x43) => {
                errors.push(String::from_utf8_lossy(&bytes[5..]).into_owned());
            }
            Message::Text(text) => texts.push(text.to_string()),
            Message::Close(Some(frame)) => return (errors, texts, frame.code, frame.reason.to_string()),
            Message::Close(None) => panic!("a close that says nothing"),
            _ => {}
        }
    }
}

fn assert_says(text: &str, max: usize) {
    assert!(text.contains("the client sent") && text.contains("too long"), "whose fault it is: {text}");
    assert!(text.contains(&format!("{max} bytes")), "and what the limit is: {text}");
}

#[test]
fn a_message_over_the_limit_is_answered_with_1009_and_the_limit() {
    // A close that is only waited for would take this long.
    let server = TestServer::with(Settings { idle_timeout: Seconds::new(60).unwrap(), ..settings() });
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 20, 1)).unwrap();
    for len in [MAX + 1, FAR_TOO_LONG] {
        for (path, begun) in
            [("push/team/app.db", false), ("push/team/app.db", true), ("pull/team/app.db", true)]
        {
            let ask = Ask::new(&server.admin, 2);
            let mut socket = Socket::open(&server, &format!("/sapi/{path}"), &ask).unwrap();
            if path.starts_with("push") {
                socket.greeted().unwrap();
                if begun {
                    socket.write(bytes::Bytes::from_static(BEGIN)).unwrap();
                }
            }
            if begun {
                let Message::Binary(_) = socket.read().unwrap() else { panic!("{path}: not begun") };
            }
            let (errors, _, code, reason) = told(&mut socket, len);
            assert_eq!(code, CloseCode::Size, "{path}, {len} bytes: {reason}");
            assert_says(&reason, MAX);
            assert_says(errors.last().expect("an error in the stream"), MAX);
        }
    }
}

#[test]
fn a_subscriber_is_told_so_too() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 20, 1)).unwrap();
    for len in [16 * 1024 + 1, FAR_TOO_LONG] {
        let mut socket =
            Socket::open(&server, "/sapi/subscribe/team/app.db", &Ask::new(&server.admin, 2)).unwrap();
        let (_, texts, code, reason) = told(&mut socket, len);
        assert_eq!(code, CloseCode::Size, "{len} bytes: {reason}");
        assert_says(&reason, 16 * 1024);
        assert_says(texts.last().expect("an ERROR"), 16 * 1024);
    }
}
