//! Reads a session's socket: tells control messages from the stream.

use std::error::Error;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use sqlrsync_protocol::control::{ControlError, Direction, FromClient, ServerSide};
use tokio::sync::watch;
use tokio::time::Instant;

/// What the client has asked for beside the stream.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// CONFIG: "tell me the replica's id, path and version".
    pub config: bool,
    /// KEYREQUEST: "make me keys".
    pub keys: bool,
    /// Either may still come: the first message or one of the two was the last.
    pub open: bool,
    /// When the last binary message came.
    pub last: Instant,
}

/// What came.
#[derive(Debug)]
pub enum Read {
    /// A piece of the stream, not empty.
    Stream(Bytes),
    /// COMMITMESSAGE.
    CommitMessage(String),
    /// CHANGED, in how many seconds a push follows.
    Changed(u32),
    /// A sign of life (a text means nothing here), or something that [`Asked`] has noted.
    Alive,
    /// The peer closed, or the connection broke.
    Gone,
    /// The peer sent what it may not send.
    Invalid(ControlError),
    /// The peer sends a message that is longer than is taken; nothing can be read after it.
    TooLong,
}

/// Whether nothing more can be read because a message is longer than is taken, as opposed to a connection
/// that broke.
pub fn is_too_long(error: &axum::Error) -> bool {
    let inner = error.source().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(tungstenite::Error::Capacity(_)))
}

/// The reading half of a session.
pub struct Reader {
    stream: SplitStream<WebSocket>,
    side: ServerSide,
    pieces: u64,
    asked: watch::Sender<Asked>,
    /// A message was too long, and nothing more can be read.
    ended: bool,
}

impl Reader {
    /// Reads from `stream`.
    pub fn new(stream: SplitStream<WebSocket>, direction: Direction) -> Reader {
        let asked = Asked { config: false, keys: false, open: true, last: Instant::now() };
        Reader {
            stream,
            side: ServerSide::new(direction),
            pieces: 0,
            asked: watch::Sender::new(asked),
            ended: false,
        }
    }

    /// What was asked for so far, and later.
    pub fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.subscribe()
    }

    /// The next thing. Cancelling loses nothing.
    pub async fn next(&mut self) -> Read {
        match self.stream.next().await {
            Some(Err(error)) if is_too_long(&error) => {
                self.ended = true;
                Read::TooLong
            }
            None | Some(Err(_)) | Some(Ok(Message::Close(_))) => Read::Gone,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => Read::Alive,
            Some(Ok(Message::Binary(bytes))) => self.binary(bytes),
        }
    }

    /// Whether nothing more can be read although the peer is there.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Reads what still comes, until the peer has closed.
    pub async fn drain(mut self) {
        while !matches!(self.stream.next().await, None | Some(Err(_))) {}
    }

    fn binary(&mut self, bytes: Bytes) -> Read {
        let read = match self.side.receive(bytes) {
            Ok(FromClient::Stream(bytes)) if bytes.is_empty() => return Read::Alive,
            Ok(FromClient::Stream(bytes)) => {
                self.pieces += 1;
                Read::Stream(bytes)
            }
            Ok(FromClient::CommitMessage(text)) => Read::CommitMessage(text),
            Ok(FromClient::Changed { seconds }) => Read::Changed(seconds),
            Ok(FromClient::Config) => self.note(|asked| asked.config = true),
            Ok(FromClient::KeyRequest) => self.note(|asked| asked.keys = true),
            Err(error) => Read::Invalid(error),
        };
        let closes = matches!(read, Read::Stream(_)) && self.pieces > 1;
        self.note(|asked| {
            asked.open = !(closes || asked.config && asked.keys);
            asked.last = Instant::now();
        });
        read
    }

    fn note(&self, change: impl FnOnce(&mut Asked)) -> Read {
        self.asked.send_modify(change);
        Read::Alive
    }
}
