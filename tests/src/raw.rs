//! A WebSocket to a server, by hand: for what no proper client sends.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::bridge::Refused;

/// How long a peer may say nothing but pings in a test.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A connection that blocks.
#[derive(Debug)]
pub struct RawSocket {
    runtime: Runtime,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl RawSocket {
    /// Opens `/sapi/{path}` with that key.
    ///
    /// # Errors
    /// The server refused it before it became a WebSocket.
    pub fn connect(server: &str, path: &str, key: &str) -> Result<RawSocket, Refused> {
        RawSocket::connect_as(server, path, key, ["raw", "raw", "/raw.db"])
    }

    /// As [`RawSocket::connect`], saying to be the client of this id, on this host, with this database.
    ///
    /// # Errors
    /// The server refused it before it became a WebSocket.
    pub fn connect_as(
        server: &str,
        path: &str,
        key: &str,
        [client_id, host, local_path]: [&str; 3],
    ) -> Result<RawSocket, Refused> {
        let runtime = runtime();
        let url = format!("{}/sapi/{path}", server.replacen("http", "ws", 1));
        let mut request = url
            .into_client_request()
            .map_err(|error| Refused { status: 0, text: format!("no request: {error}") })?;
        let headers = [
            ("Authorization", key),
            ("X-ClientID", client_id),
            ("X-ClientVersion", "0.0.6"),
            ("X-LocalHostname", host),
            ("X-LocalAbsolutePath", local_path),
        ];
        for (name, value) in headers {
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a valid header"));
        }
        match in_time(&runtime, connect_async(request)) {
            Ok((socket, _)) => Ok(RawSocket { runtime, socket }),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                text: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            }),
            Err(error) => Err(Refused { status: 0, text: error.to_string() }),
        }
    }

    /// Sends a binary message; false once the server has hung up.
    ///
    /// # Panics
    /// The server takes nothing for [`SILENCE_MAX`].
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        in_time(&self.runtime, self.socket.send(Message::binary(bytes.to_vec()))).is_ok()
    }

    /// The next binary or text message; `None` once the server closed.
    ///
    /// # Panics
    /// The server is silent for [`SILENCE_MAX`]: it must never leave a peer waiting.
    pub fn receive(&mut self) -> Option<Message> {
        let socket = &mut self.socket;
        in_time(&self.runtime, async {
            loop {
                match socket.next().await {
                    Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => return Some(message),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        })
    }

    /// Everything until the server closes: the binary messages as one stream, and the texts.
    pub fn receive_all(&mut self) -> (Vec<u8>, Vec<String>) {
        let (mut stream, mut texts) = (Vec::new(), Vec::new());
        while let Some(message) = self.receive() {
            match message {
                Message::Binary(bytes) => stream.extend_from_slice(&bytes),
                Message::Text(text) => texts.push(text.to_string()),
                _ => {}
            }
        }
        (stream, texts)
    }
}

/// What a server does in time, or the test fails.
fn in_time<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    let limited = runtime.block_on(async { tokio::time::timeout(SILENCE_MAX, work).await });
    limited.expect("the server goes on, answers or closes")
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}
