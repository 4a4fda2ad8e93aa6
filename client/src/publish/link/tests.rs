//! The link against a server that does what each test needs of one.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_async;

use super::*;
use crate::plan::{Access, KeysWanted, LocalFile};

/// How long anything may take; it takes milliseconds, and a second where it reconnects.
const DEADLINE: Duration = Duration::from_secs(30);

fn link_to(address: SocketAddr) -> Link {
    let access = Access {
        server: format!("ws://{address}").parse().unwrap(),
        credential: None,
        ca_file: None,
        protocol: 3,
    };
    let push = Push {
        local: LocalFile { typed: "app.db".into(), path: "/srv/app.db".into() },
        remote: Some("team/app.db".parse().unwrap()),
        replica_id: None,
        access,
        message: String::new(),
        visibility: None,
        request_keys: KeysWanted::No,
        dry: false,
        force: false,
        merge: false,
        scan: false,
    };
    Link::start(&push, "me".to_owned())
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come"),
    }
}

/// The next connection, with what the key is for said on it.
async fn accept(listener: &TcpListener, key_type: KeyType) -> WebSocketStream<TcpStream> {
    let (stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut socket = accept_async(stream).await.unwrap();
    let config = ServerText::Config(Config { key_type: Some(key_type), ..Config::default() });
    socket.send(Message::text(config.to_string())).await.unwrap();
    socket
}

/// The seconds of the next CHANGED.
async fn changed(socket: &mut WebSocketStream<TcpStream>) -> u32 {
    loop {
        match within("CHANGED", socket.next()).await {
            Some(Ok(Message::Binary(bytes))) => {
                assert_eq!((bytes.len(), bytes[0]), (5, control::CHANGED));
                return u32::from_le_bytes(bytes[1..].try_into().unwrap());
            }
            Some(Ok(_)) => {}
            other => panic!("no CHANGED but {other:?}"),
        }
    }
}

async fn status_is(link: &mut Link, wanted: Status) {
    within("the status", async {
        while link.status() != wanted {
            link.changed().await;
        }
    })
    .await;
}

fn in_seconds(seconds: u64) -> Duration {
    clock::now() + Duration::from_secs(seconds)
}

#[tokio::test]
async fn what_is_announced_goes_out_and_again_on_the_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = link_to(listener.local_addr().unwrap());
    let mut first = accept(&listener, KeyType::Push).await;
    status_is(&mut link, Status::Open(KeyType::Push)).await;
    link.announce(in_seconds(600));
    assert_eq!(changed(&mut first).await, 600);
    link.announce(in_seconds(310));
    assert_eq!(changed(&mut first).await, 310);

    drop(first);
    let mut second = accept(&listener, KeyType::Push).await;
    let left = changed(&mut second).await;
    assert!((280..=310).contains(&left), "what is left by then, and not {left} s");
}

#[tokio::test]
async fn what_is_over_or_late_is_not_announced_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = link_to(listener.local_addr().unwrap());
    link.announce(in_seconds(600));
    link.withdraw();
    let mut first = accept(&listener, KeyType::Push).await;
    status_is(&mut link, Status::Open(KeyType::Push)).await;
    link.announce(clock::now());
    link.announce(in_seconds(77));
    assert_eq!(changed(&mut first).await, 77, "and nothing before it");
}

#[tokio::test]
async fn it_is_known_what_the_key_is_for_and_that_nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut link = link_to(listener.local_addr().unwrap());
    assert_eq!(link.status(), Status::Opening);
    let socket = accept(&listener, KeyType::Pull).await;
    status_is(&mut link, Status::Open(KeyType::Pull)).await;
    drop(listener);
    drop(socket);
    status_is(&mut link, Status::Down).await;
}

#[tokio::test]
async fn dropping_it_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link_to(listener.local_addr().unwrap());
    let mut socket = accept(&listener, KeyType::Push).await;
    drop(link);
    within("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    // Nobody comes again.
    let again = tokio::time::timeout(Duration::from_secs(3), listener.accept()).await;
    assert!(again.is_err(), "it reconnects after its end");
}

#[tokio::test]
async fn many_announcements_while_nobody_reads_become_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link_to(listener.local_addr().unwrap());
    for n in 0..10_000 {
        link.announce(in_seconds(1_000 + n));
    }
    let mut socket = accept(&listener, KeyType::Push).await;
    let seconds = changed(&mut socket).await;
    assert!((10_980..=10_999).contains(&seconds), "the newest, and not {seconds}");
}
