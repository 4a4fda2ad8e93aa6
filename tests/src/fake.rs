//! Servers that are not what they should be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::raw::runtime;

/// A server that takes every WebSocket and sends the same to each client, whatever that says.
#[derive(Debug)]
pub struct FakeServer {
    address: SocketAddr,
}

impl FakeServer {
    /// Sends these binary messages once the client has said something, then closes.
    pub fn sending(messages: Vec<Vec<u8>>) -> FakeServer {
        let messages = Arc::new(messages);
        FakeServer::with(move |stream| {
            let messages = Arc::clone(&messages);
            runtime().block_on(async move {
                stream.set_nonblocking(true).expect("it can be set");
                let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
                if let Ok(socket) = accept_async(stream).await {
                    play(socket, &messages).await;
                }
            });
        })
    }

    /// Answers every connection with these bytes instead of HTTP, or with nothing at all.
    pub fn answering(bytes: &'static [u8]) -> FakeServer {
        FakeServer::with(move |mut stream| {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        })
    }

    fn with(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("it has an address");
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || handle(stream));
            }
        });
        FakeServer { address }
    }

    /// The address that clients are to use.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An address of the loopback interface where nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    format!("http://{}", listener.local_addr().expect("it has an address"))
}

async fn play(mut socket: WebSocketStream<tokio::net::TcpStream>, messages: &[Vec<u8>]) {
    for message in messages {
        if socket.send(Message::binary(message.clone())).await.is_err() {
            return;
        }
    }
    // Reads what the client says until it is silent: a reset would hide what was sent.
    while let Ok(Some(Ok(_))) = tokio::time::timeout(Duration::from_millis(300), socket.next()).await {}
    let _ = socket.close(None).await;
}
