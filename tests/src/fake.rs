//! Servers that are not what they should be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use sqlrsync_protocol::control::{BINARY_MESSAGE_MAX, Direction, FromClient, ServerSide};
use sqlrsync_protocol::conversation::{OriginOptions, Quiet, Wire, run_origin};
use sqlrsync_protocol::memory::{Content, MemoryOrigin};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::port::Port;
use crate::raw::{SILENCE_MAX, runtime};

/// For how long a server that says something late looks first whether the client is still there.
const LATE: Duration = Duration::from_millis(700);

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
            let runtime = runtime();
            if let Some(socket) = accept(&runtime, stream) {
                runtime.block_on(play(socket, &messages));
            }
        })
    }

    /// Gives every puller this content, and this text message a while after the puller has all of it: unless that
    /// closed in the meantime.
    pub fn giving(content: Content, late: &str) -> FakeServer {
        let late = late.to_owned();
        FakeServer::with(move |stream| {
            let runtime = runtime();
            let Some(socket) = accept(&runtime, stream) else { return };
            let sorter = ServerSide::new(Direction::Pull);
            let mut wire = ServerWire { runtime, socket, sorter };
            let mut origin = MemoryOrigin::new(content.clone());
            if run_origin(OriginOptions::default(), &mut origin, &mut wire, &mut Quiet).is_ok() {
                wire.say_late(&late);
            }
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
    static PORT: OnceLock<Port> = OnceLock::new();
    format!("http://{}", PORT.get_or_init(Port::hold).address())
}

type Socket = WebSocketStream<tokio::net::TcpStream>;

fn accept(runtime: &tokio::runtime::Runtime, stream: TcpStream) -> Option<Socket> {
    stream.set_nonblocking(true).expect("it can be set");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
        accept_async(stream).await.ok()
    })
}

/// The server's end of a WebSocket, for a conversation. It answers no control message.
struct ServerWire {
    runtime: tokio::runtime::Runtime,
    socket: Socket,
    sorter: ServerSide,
}

impl ServerWire {
    fn say_late(&mut self, text: &str) {
        let socket = &mut self.socket;
        self.runtime.block_on(async {
            let closed = async {
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_close() {
                        break;
                    }
                }
            };
            if tokio::time::timeout(LATE, closed).await.is_err() {
                let _ = socket.send(Message::text(text)).await;
            }
            close(socket).await;
        });
    }
}

impl Wire for ServerWire {
    type Error = tungstenite::Error;

    fn send(&mut self, mut bytes: Bytes) -> Result<(), tungstenite::Error> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(BINARY_MESSAGE_MAX));
            self.runtime.block_on(self.socket.send(Message::Binary(piece)))?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, tungstenite::Error> {
        loop {
            let next =
                self.runtime.block_on(async { tokio::time::timeout(SILENCE_MAX, self.socket.next()).await });
            match next.expect("the client goes on or closes").transpose()? {
                Some(Message::Binary(bytes)) => match self.sorter.receive(bytes) {
                    Ok(FromClient::Stream(bytes)) => return Ok(Some(bytes)),
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                },
                Some(Message::Close(_)) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }
}

async fn play(mut socket: Socket, messages: &[Vec<u8>]) {
    for message in messages {
        if socket.send(Message::binary(message.clone())).await.is_err() {
            return;
        }
    }
    // Reads what the client says until it is silent: a reset would hide what was sent.
    while let Ok(Some(Ok(_))) = tokio::time::timeout(Duration::from_millis(300), socket.next()).await {}
    close(&mut socket).await;
}

/// Closes, and reads on until the client has gone: one that is slow may have more to say, and closing with that
/// unread would be a reset.
async fn close(socket: &mut Socket) {
    let _ = socket.close(None).await;
    let gone = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = tokio::time::timeout(SILENCE_MAX, gone).await;
}
