//! A client that is as strict as the public one (releases 0.0.4 to 0.0.6), and fails where that does:
//!
//! - a binary message longer than 4,101 bytes
//! - a binary message that begins with 0x42 and is not ORIGIN_END alone
//! - PULL: no CONFIG before ORIGIN_END; anything but a close with 1000 after it
//! - PUSH: no CONFIG with `keyType` within half a second of opening; after ORIGIN_END a first text that
//!   is not CONFIG with the committed version; anything but a close with 1000 in the end
//!
//! It cuts its stream at 4,096 bytes with no regard to messages, and sends CONFIG and KEYREQUEST right
//! after the first binary message. In version 3 it is our own client: longer pieces, both ways.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlrsync_protocol::control;
use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, Quiet, ReplicaOptions, Summary, Wire, run_origin, run_replica,
};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::memory::{Content, MemoryError, MemoryOrigin, MemoryReplica};
use sqlrsync_protocol::text::{Config, KeyType, ServerText};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket, client};

use crate::support::{PATIENCE, TestServer};

const PUBLIC_PIECE_MAX: usize = 4101;
const ORIGIN_END: u8 = 0x42;
const REPLICA_ERROR: u8 = 0x62;

/// What a client asks for.
#[derive(Clone, Default)]
pub struct Ask<'a> {
    pub key: &'a str,
    /// Highest protocol version.
    pub protocol: u8,
    pub message: &'a str,
    pub request_keys: bool,
    pub headers: Vec<(&'static str, String)>,
}

impl<'a> Ask<'a> {
    pub fn new(key: &'a str, protocol: u8) -> Ask<'a> {
        Ask { key, protocol, ..Ask::default() }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Ask<'a> {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Why the client fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// What went well.
#[derive(Debug)]
pub struct Done {
    pub config: Config,
    pub messages: Vec<String>,
    pub summary: Summary,
}

pub type Failed = ExchangeError<MemoryError, Broken>;

/// An open WebSocket.
pub struct Socket {
    pub socket: WebSocket<TcpStream>,
    pub config: Config,
    pub messages: Vec<String>,
    after_first: Vec<Bytes>,
    version: u8,
    pull: bool,
    ended: bool,
}

impl Socket {
    /// Connects; a refusal comes back as status and text.
    pub fn open(server: &TestServer, path: &str, ask: &Ask<'_>) -> Result<Socket, (u16, String)> {
        let path = path.replace(' ', "%20");
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::from_str(ask.key).unwrap());
        headers.insert("x-clientversion", HeaderValue::from_static("0.0.6"));
        // It is always said; who says nothing of itself is nobody's next push.
        headers.insert("x-clientid", HeaderValue::from_static("one-and-the-same"));
        for (name, value) in &ask.headers {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let socket = match client(request, server.connect()) {
            Ok((socket, _)) => socket,
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                let body = answer.body().clone().unwrap_or_default();
                return Err((answer.status().as_u16(), String::from_utf8(body).unwrap()));
            }
            Err(error) => panic!("{error}"),
        };
        let mut after_first = vec![control::config()];
        if ask.request_keys {
            after_first.push(control::key_request());
        }
        Ok(Socket {
            socket,
            config: Config::default(),
            messages: Vec::new(),
            after_first,
            version: 0,
            pull: path.starts_with("/sapi/pull"),
            ended: false,
        })
    }

    /// The next message that is no ping.
    ///
    /// # Panics
    /// Nothing else comes for long.
    pub fn read(&mut self) -> Result<Message, Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing comes but pings");
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return Ok(message),
                Err(error) => return Err(Broken(error.to_string())),
            }
        }
    }

    pub fn write(&mut self, message: impl Into<Message>) -> Result<(), Broken> {
        self.socket.send(message.into()).map_err(|error| Broken(error.to_string()))
    }

    fn put(&mut self, piece: Bytes) -> Result<(), Broken> {
        self.write(piece)?;
        for request in std::mem::take(&mut self.after_first) {
            self.write(request)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Broken> {
        match text.parse() {
            Ok(ServerText::Config(config)) => self.config.merge(config),
            Ok(ServerText::Message(message)) => self.messages.push(message),
            other => return Err(Broken(format!("{text:?}: {other:?}"))),
        }
        Ok(())
    }

    /// The key type, which comes at once, before anything is asked: the public client waits half a second for it.
    pub fn greeted(&mut self) -> Result<KeyType, Broken> {
        let Message::Text(text) = self.read()? else { return Err(Broken("no CONFIG first".to_owned())) };
        self.text(text.as_str())?;
        self.config.key_type.ok_or_else(|| Broken("no keyType in the first CONFIG".to_owned()))
    }

    /// How long to wait for the server.
    pub fn patience(&self, time: Duration) {
        self.socket.get_ref().set_read_timeout(Some(time)).unwrap();
    }

    /// The close, with its code and reason.
    pub fn closed(&mut self) -> Result<(CloseCode, String), Broken> {
        match self.read()? {
            Message::Close(Some(frame)) => Ok((frame.code, frame.reason.to_string())),
            other => Err(Broken(format!("{other:?} in place of a close"))),
        }
    }

    fn well_closed(&mut self) -> Result<(), Broken> {
        match self.closed()? {
            (CloseCode::Normal, _) => Ok(()),
            other => Err(Broken(format!("closed with {other:?}"))),
        }
    }

    /// What ends a push: CONFIG first, then texts, then the close.
    fn push_answer(&mut self) -> Result<(), Failed> {
        let first = match self.read().map_err(ExchangeError::Wire)? {
            Message::Text(first) => first,
            Message::Binary(bytes) if bytes.first() == Some(&REPLICA_ERROR) => {
                let text = String::from_utf8(bytes[5..].to_vec()).unwrap();
                // What comes after it is for clients that know it.
                let text = match self.read() {
                    Ok(Message::Text(abort)) => format!("{text} [{abort}]"),
                    _ => text,
                };
                return Err(ExchangeError::Peer { refusal: Refusal::Failed, text });
            }
            _ => return Err(ExchangeError::Wire(Broken("no text at the end".to_owned()))),
        };
        self.push_texts(first.as_str()).map_err(ExchangeError::Wire)
    }

    fn push_texts(&mut self, first: &str) -> Result<(), Broken> {
        // In version 3 a push can end without a version, as a conflict.
        let has_version = first.contains("committedVersionID") || self.version >= 3;
        if !first.starts_with("CONFIG=") || !has_version {
            return Err(Broken(format!("the first text after the commit is {first}")));
        }
        self.text(first)?;
        loop {
            match self.read()? {
                Message::Text(text) => self.text(text.as_str())?,
                Message::Close(Some(frame)) if frame.code == CloseCode::Normal => return Ok(()),
                other => return Err(Broken(format!("{other:?} at the end"))),
            }
        }
    }

    fn binary(&mut self, bytes: Bytes) -> Result<Bytes, Broken> {
        if self.version >= 3 {
            return Ok(bytes);
        }
        if bytes.len() > PUBLIC_PIECE_MAX {
            return Err(Broken(format!("a message of {} bytes", bytes.len())));
        }
        if self.pull && bytes.first() == Some(&ORIGIN_END) {
            if bytes.len() > 1 {
                return Err(Broken("a message that begins with 0x42 and is not ORIGIN_END".to_owned()));
            }
            if self.config.replica_id.is_none() || self.config.committed_version.is_none() {
                return Err(Broken("no CONFIG before ORIGIN_END".to_owned()));
            }
            self.ended = true;
        }
        Ok(bytes)
    }
}

impl Wire for Socket {
    type Error = Broken;

    fn send(&mut self, mut bytes: Bytes) -> Result<(), Broken> {
        let piece = if self.version >= 3 { control::BINARY_MESSAGE_MAX } else { 4096 };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(piece));
            self.put(piece)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            match self.read()? {
                Message::Binary(bytes) => return self.binary(bytes).map(Some),
                Message::Text(text) => self.text(text.as_str())?,
                Message::Close(_) => return Ok(None),
                other => return Err(Broken(format!("{other:?}"))),
            }
        }
    }

    fn agreed(&mut self, version: u8) {
        self.version = version;
    }
}

/// Pushes a content.
pub fn push(server: &TestServer, name: &str, ask: &Ask<'_>, content: &Content) -> Result<Done, Failed> {
    push_from(server, name, ask, MemoryOrigin::new(content.clone()))
}

/// Pushes what an origin has.
pub fn push_from(
    server: &TestServer,
    name: &str,
    ask: &Ask<'_>,
    mut origin: MemoryOrigin,
) -> Result<Done, Failed> {
    let mut socket = Socket::open(server, &format!("/sapi/push/{name}"), ask).expect("let in");
    socket.greeted().map_err(ExchangeError::Wire)?;
    if !ask.message.is_empty() {
        socket.put(control::commit_message(ask.message).unwrap()).map_err(ExchangeError::Wire)?;
    }
    let options = OriginOptions { version_max: ask.protocol, await_close: false, ..OriginOptions::default() };
    let summary = run_origin(options, &mut origin, &mut socket, &mut Quiet)?;
    socket.push_answer()?;
    Ok(Done { config: socket.config, messages: socket.messages, summary })
}

/// Pulls into what is there, which may be nothing.
pub fn pull(
    server: &TestServer,
    name: &str,
    ask: &Ask<'_>,
    before: Option<&Content>,
) -> Result<(Content, Done), Failed> {
    let mut socket = Socket::open(server, &format!("/sapi/pull/{name}"), ask).expect("let in");
    let mut replica = MemoryReplica::of(before.cloned());
    let options = ReplicaOptions { version_max: ask.protocol, ..ReplicaOptions::default() };
    let summary = run_replica(options, &mut replica, &mut socket, &mut Quiet)?;
    if summary.version < 3 {
        assert!(socket.ended, "the pull ended without ORIGIN_END");
        socket.well_closed().map_err(ExchangeError::Wire)?;
    } else {
        // Version 3 has said all that it has to; what comes still are texts, and the close.
        while let Message::Text(text) = socket.read().map_err(ExchangeError::Wire)? {
            socket.text(text.as_str()).map_err(ExchangeError::Wire)?;
        }
    }
    let content = replica.content().cloned().expect("a content");
    Ok((content, Done { config: socket.config, messages: socket.messages, summary }))
}

/// The text of an error that the server has told.
pub fn told(failed: &Failed) -> &str {
    match failed {
        ExchangeError::Peer { text, .. } => text,
        other => panic!("the server told nothing: {other:?}"),
    }
}
