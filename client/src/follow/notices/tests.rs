//! The connection for notices against servers that are played here, on loopback.

use std::future::Future;

use tokio::net::TcpListener;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;

type Accepted = WebSocketStream<tokio::net::TcpStream>;

const DEADLINE: Duration = Duration::from_secs(30);

/// A client of a server that plays `play` on each connection, and what it hears.
struct Played {
    runtime: tokio::runtime::Runtime,
    mailbox: Arc<Mailbox>,
    cancel: Cancel,
}

impl Played {
    fn start<F>(silence_max: Duration, play: impl Fn(Accepted) -> F + Send + Sync + 'static) -> Played
    where
        F: Future<Output = ()> + Send,
    {
        let play = Arc::new(play);
        Played::answering(silence_max, move |stream| {
            let play = Arc::clone(&play);
            async move { play(accept_async(stream).await.unwrap()).await }
        })
    }

    fn answering<F>(
        silence_max: Duration,
        answer: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
    ) -> Played
    where
        F: Future<Output = ()>,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let server = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // The listener belongs to the other runtime; its socket does not.
            let listener = listener.into_std().unwrap();
            server.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    answer(stream).await;
                }
            });
        });
        let subscription = Subscription {
            remote: "team/app.db".parse().unwrap(),
            replica_id: Some("abc".parse().unwrap()),
            access: Access {
                server: format!("ws://{address}").parse().unwrap(),
                credential: None,
                ca_file: None,
                protocol: 3,
            },
            client_id: "me".to_owned(),
            silence_max,
        };
        let (mailbox, cancel) = (Arc::new(Mailbox::default()), Cancel::default());
        let keep = {
            let (mailbox, cancel) = (Arc::clone(&mailbox), cancel.clone());
            async move {
                let first = subscription.open().await;
                subscription.keep(first, mailbox, cancel).await;
            }
        };
        runtime.spawn(keep);
        Played { runtime, mailbox, cancel }
    }

    /// Waits for news that fit; what came before it is gone.
    fn wait_for(&self, what: &str, fits: impl Fn(&News) -> bool) -> News {
        self.runtime.block_on(async {
            let heard = async {
                loop {
                    let news = self.mailbox.take();
                    if fits(&news) {
                        return news;
                    }
                    self.mailbox.wait().await;
                }
            };
            tokio::time::timeout(DEADLINE, heard).await.unwrap_or_else(|_| panic!("no {what}"))
        })
    }

    fn why_down(&self) -> String {
        let news = self.wait_for("loss", |news| matches!(news.link, Some(Link::Down { .. })));
        match news.link {
            Some(Link::Down { why, .. }) => why.to_string(),
            _ => unreachable!(),
        }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn say(socket: &mut Accepted, text: impl Into<String>) {
    let _ = socket.send(Message::text(text.into())).await;
}

async fn text(socket: &mut Accepted) -> String {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return text.as_str().to_owned(),
            Some(Ok(_)) => {}
            _ => return String::new(),
        }
    }
}

/// Reads until the client goes.
async fn listen(mut socket: Accepted) {
    while let Some(Ok(_)) = socket.next().await {}
}

fn latest(version: u64) -> String {
    ServerMessage::LatestVersion(VersionNumber::new(version).unwrap()).to_text("2026-03-01T12:00:00Z")
}

#[test]
fn it_subscribes_and_hears_of_the_newest_version() {
    let played = Played::start(DEADLINE, |mut socket| async move {
        let first = text(&mut socket).await;
        assert!(first.contains(r#""type":"SUBSCRIBE""#) && first.contains(r#""replicaID":"abc""#), "{first}");
        say(&mut socket, ServerMessage::Subscribed(None).to_text("")).await;
        say(&mut socket, latest(7)).await;
        listen(socket).await;
    });
    let (mut up, mut version) = (false, None);
    while !up || version.is_none() {
        let news = played.wait_for("news", |news| news.link.is_some() || news.latest.is_some());
        up |= matches!(news.link, Some(Link::Up));
        version = version.or(news.latest);
    }
    assert_eq!(version.map(VersionNumber::get), Some(7));
}

#[test]
fn a_flood_of_notices_leaves_one_the_newest() {
    let played = Played::start(DEADLINE, |mut socket| async move {
        for version in 1..=20_000 {
            let _ = socket.feed(Message::text(latest(version))).await;
        }
        let _ = socket.flush().await;
        listen(socket).await;
    });
    let newest = |news: &News| news.latest.is_some_and(|version| version.get() == 20_000);
    played.wait_for("the last of them", newest);
    assert!(played.mailbox.take().latest.is_none(), "and nothing is left over");
}

#[test]
fn both_sides_are_pinged_and_answer() {
    // It pings at half of its patience.
    let played = Played::start(Duration::from_secs(2), |mut socket| async move {
        say(&mut socket, ServerMessage::Ping.to_text("")).await;
        let mut heard = Vec::new();
        while !(heard.contains(&"PONG".to_owned()) && heard.contains(&"PING".to_owned())) {
            let next = text(&mut socket).await;
            if next.is_empty() {
                return;
            }
            heard.push(next);
            say(&mut socket, ServerMessage::Pong.to_text("")).await;
        }
        say(&mut socket, latest(3)).await;
        listen(socket).await;
    });
    played.wait_for("both", |news| news.latest.is_some());
}

#[test]
fn a_silent_server_is_given_up_and_tried_again() {
    let played = Played::start(Duration::from_millis(300), |mut socket| async move {
        // Not even a pong: nothing is read.
        tokio::time::sleep(Duration::from_secs(1)).await;
        say(&mut socket, latest(1)).await;
    });
    assert!(played.why_down().contains("nothing was heard"));
    assert!(played.why_down().contains("nothing was heard"), "and again on the next connection");
}

#[test]
fn what_is_no_message_ends_the_connection_and_not_the_subscription() {
    let bad = [
        "{".to_owned(),
        r#"{"type":"LATEST_VERSION","data":{"version":"-1"}}"#.to_owned(),
        format!(r#"{{"type":"{}"}}"#, "a".repeat(9_000)),
        r#"{"type":"ERROR","data":{"message":"a\u001b[2Jb"}}"#.to_owned(),
    ];
    for bad in bad {
        let played = Played::start(DEADLINE, move |mut socket| {
            let bad = bad.clone();
            async move {
                // Of a newer server: passed over.
                say(&mut socket, r#"{"type":"NEWER","data":{"x":1}}"#).await;
                say(&mut socket, bad).await;
                listen(socket).await;
            }
        });
        let why = played.why_down();
        assert!(!why.contains('\u{1b}') && !why.contains("closed"), "{why}");
    }
}

#[test]
fn a_key_that_is_not_allowed_is_final_and_a_server_in_trouble_is_not() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let answering = |answer: &'static str| {
        Played::answering(DEADLINE, move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
    };
    let played = answering("HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nno key");
    let news = played.wait_for("refusal", |news| news.link.is_some());
    assert!(matches!(news.link, Some(Link::Refused(error)) if error.exit_code() == 4));
    let played = answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy");
    let news = played.wait_for("refusal", |news| news.link.is_some());
    assert!(matches!(news.link, Some(Link::Down { why, .. }) if why.exit_code() == 5));
}
