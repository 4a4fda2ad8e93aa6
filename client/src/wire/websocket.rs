//! The WebSocket to a server: the page stream cut into binary messages, and beside it what the
//! server says in text messages.
//!
//! Two tasks stand between the socket and the blocking conversation, each with a bounded queue: one
//! writes (and pings), one reads. Until version 3 is agreed on the stream goes out in the pieces that
//! the public client sends, [`PIECE_LEN`] bytes with CONFIG and KEYREQUEST right after the first, so
//! that every server of the protocol understands it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use sqlrsync_protocol::control::{self, ClientSide, FromServer};
use sqlrsync_protocol::conversation::Wire;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::text::{self, Abort, Config, ServerText, TextError};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

use super::tcp::Counted;
use super::{Cancel, WireError};

/// The pieces in which the public client cuts its stream, in bytes.
const PIECE_LEN: usize = 4096;

/// The pieces of version 3, in bytes: as long as a message may be. A server that takes no message of that length says
/// so in [`MESSAGE_MAX_HEADER`].
const LONG_PIECE_LEN: usize = control::BINARY_MESSAGE_MAX;

/// The header of a server's answer with the longest message that it takes, in bytes.
const MESSAGE_MAX_HEADER: &str = "X-Sqlrsync-Message-Max";

/// Messages that wait in either direction; with [`LONG_PIECE_LEN`] it bounds what is held in memory.
const QUEUE_MAX: usize = 32;

/// How often a server hears that we are there, also while a large file is read.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The shortest time between two pings.
const PING_LEAST: Duration = Duration::from_millis(50);

/// How long a server may take to say what it has to say after a push, as the public client has it.
const HEAR_OUT_MAX: Duration = Duration::from_secs(30);

/// How long we wait for a server to close too.
const HANG_UP_MAX: Duration = Duration::from_secs(3);

/// How much longer than a silent server one is waited for that answers pings and says nothing: it is at work. A merge
/// may take a server five minutes, and so may the push that is in front of ours.
const AT_WORK_MAX: Duration = Duration::from_secs(6 * 60);

/// The longest message from a server, in bytes: a text, or a piece of the stream.
const MESSAGE_MAX: usize = if control::BINARY_MESSAGE_MAX > text::TEXT_MESSAGE_MAX {
    control::BINARY_MESSAGE_MAX
} else {
    text::TEXT_MESSAGE_MAX
};

/// An open connection, before anything was said on it.
pub type Socket = WebSocketStream<MaybeTlsStream<Counted>>;

/// What is sent before and beside the stream.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// What the version is about; empty for nothing.
    pub message: String,
    /// Ask for keys.
    pub request_keys: bool,
}

/// What the server said in text messages.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// All CONFIG taken together.
    pub config: Config,
    /// To be shown, in order.
    pub messages: Vec<String>,
}

/// A connection to a server.
pub struct WebSocket {
    /// `None` once we have hung up.
    out: Option<mpsc::Sender<Message>>,
    inward: mpsc::Receiver<Result<Bytes, WireError>>,
    said: Arc<Mutex<Said>>,
    cancel: Cancel,
    runtime: tokio::runtime::Handle,
    /// Messages that went out so far.
    written: Arc<AtomicU64>,
    /// How long the conversation may stand still on the server's side.
    standstill_max: Duration,
    /// What goes out after the first piece of the stream.
    after_first: VecDeque<Bytes>,
    piece_len: usize,
    long_pieces: LongPieces,
}

/// Connects: TLS where the address says so, then the handshake of HTTP.
///
/// # Errors
/// What tungstenite says; [`crate::connect`] turns it into whose fault it is.
pub async fn handshake(
    request: impl IntoClientRequest + Unpin,
    stream: Counted,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<(Socket, LongPieces), tungstenite::Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
        .write_buffer_size(LONG_PIECE_LEN)
        .max_write_buffer_size(4 * LONG_PIECE_LEN);
    let connector = tls.map_or(Connector::Plain, Connector::Rustls);
    tokio_tungstenite::client_async_tls_with_config(request, stream, Some(config), Some(connector))
        .await
        .map(|(socket, response)| (socket, LongPieces::of(response.headers())))
}

/// How long the pieces of version 3 are that a server takes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongPieces(usize);

impl LongPieces {
    /// What a server says, within what every server takes and what is ever sent.
    fn of(headers: &HeaderMap) -> LongPieces {
        let said = headers.get(MESSAGE_MAX_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        LongPieces(said.unwrap_or(LONG_PIECE_LEN).clamp(PIECE_LEN, LONG_PIECE_LEN))
    }
}

impl WebSocket {
    /// Takes an open connection; its tasks run on the runtime that this is called in.
    /// `silence_max` is how long a server may say nothing, not even answer a ping.
    ///
    /// # Errors
    /// Where the greeting cannot be queued.
    pub fn new(
        (socket, long_pieces): (Socket, LongPieces),
        greeting: &Greeting,
        silence_max: Duration,
        cancel: &Cancel,
    ) -> Result<WebSocket, WireError> {
        let (sink, stream) = socket.split();
        let (out, to_write) = mpsc::channel(QUEUE_MAX);
        let (read, inward) = mpsc::channel(QUEUE_MAX);
        let said = Arc::new(Mutex::new(Said::default()));
        let written = Arc::new(AtomicU64::new(0));
        // In time to be answered, however short a silence is put up with.
        let ping_every = PING_EVERY.min(silence_max / 2).max(PING_LEAST);
        tokio::spawn(write(sink, to_write, Arc::clone(&written), ping_every));
        let reader = Reader { read, said: said.clone(), sorter: ClientSide::new(), silence_max };
        tokio::spawn(reader.run(stream, cancel.clone()));

        let mut after_first: VecDeque<Bytes> = [control::config()].into();
        if greeting.request_keys {
            after_first.push_back(control::key_request());
        }
        let mut wire = WebSocket {
            out: Some(out),
            inward,
            said,
            cancel: cancel.clone(),
            runtime: tokio::runtime::Handle::current(),
            written,
            standstill_max: silence_max.saturating_add(AT_WORK_MAX),
            after_first,
            piece_len: PIECE_LEN,
            long_pieces,
        };
        if !greeting.message.is_empty() {
            let message = control::commit_message(&greeting.message)
                .map_err(|error| WireError::Malformed(error.to_string()))?;
            wire.put_first(message)?;
        }
        Ok(wire)
    }

    /// A first message, and what comes right after it.
    fn put_first(&mut self, first: Bytes) -> Result<(), WireError> {
        let out = self.out.as_ref().ok_or(WireError::Closed)?;
        for message in std::iter::once(first).chain(self.after_first.drain(..)) {
            // The queue is empty and longer than these few.
            out.try_send(Message::Binary(message)).map_err(|_| WireError::Closed)?;
        }
        Ok(())
    }

    fn put(&mut self, piece: Bytes) -> Result<(), WireError> {
        if !self.after_first.is_empty() {
            return self.put_first(piece);
        }
        let out = self.out.as_ref().ok_or(WireError::Closed)?;
        out.blocking_send(Message::Binary(piece)).map_err(|_| self.stopped())
    }

    /// The conversation is over, and it is the server that closes: hears it out, and returns all it said.
    ///
    /// # Errors
    /// Where the server aborted, or the connection was lost before it closed.
    pub fn hear_out(mut self) -> Result<Said, WireError> {
        self.drain(HEAR_OUT_MAX)?;
        Ok(self.said())
    }

    /// The conversation is over for both sides, and it is the server that closes: it may have something left to say,
    /// as a key that it was asked for a moment before. What does not come within a while changes nothing any more.
    pub fn last_words(mut self) -> Said {
        if let Err(error) = self.drain(HANG_UP_MAX) {
            tracing::debug!(%error, "the connection was not closed in order");
        }
        self.said()
    }

    /// The conversation is over for both sides: closes, and returns all that the server said.
    pub fn hang_up(mut self) -> Said {
        self.out = None;
        // What comes now changes nothing any more; what we sent last has to get out.
        if let Err(error) = self.drain(HANG_UP_MAX) {
            tracing::debug!(%error, "the connection was not closed in order");
        }
        self.said()
    }

    /// What the server says next in the conversation. That it answers pings is not enough for ever; that it still
    /// takes what we have said is.
    fn next(&mut self) -> Result<Option<Result<Bytes, WireError>>, WireError> {
        loop {
            let written = self.written.load(Ordering::Relaxed);
            let inward = &mut self.inward;
            let waited = self
                .runtime
                .block_on(async { tokio::time::timeout(self.standstill_max, inward.recv()).await });
            match waited {
                Ok(message) => return Ok(message),
                Err(_) if self.written.load(Ordering::Relaxed) != written => {}
                Err(_) => {
                    let time = self.standstill_max.as_secs();
                    return Err(WireError::Silent(format!("{time} s but that the connection is there")));
                }
            }
        }
    }

    fn drain(&mut self, within: Duration) -> Result<(), WireError> {
        let inward = &mut self.inward;
        let closed = self.runtime.block_on(async {
            let close = async {
                while let Some(message) = inward.recv().await {
                    message?;
                }
                Ok(())
            };
            // The timer is made in here: it belongs to the runtime.
            tokio::time::timeout(within, close).await
        });
        if self.cancel.is_cancelled() {
            return Err(WireError::Cancelled);
        }
        closed.unwrap_or(Ok(()))
    }

    /// What the server has said so far.
    pub fn said(&self) -> Said {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stopped(&self) -> WireError {
        if self.cancel.is_cancelled() { WireError::Cancelled } else { WireError::Closed }
    }
}

impl Wire for WebSocket {
    type Error = WireError;

    fn send(&mut self, mut bytes: Bytes) -> Result<(), WireError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.piece_len));
            self.put(piece)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, WireError> {
        match self.next()? {
            Some(message) => message.map(Some),
            None if self.cancel.is_cancelled() => Err(WireError::Cancelled),
            None => Ok(None),
        }
    }

    fn agreed(&mut self, version: u8) {
        if version >= 3 {
            self.piece_len = self.long_pieces.0;
        }
    }
}

/// Writes what is queued, and pings. Ends when the wire is dropped or the socket fails.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Message>,
    written: Arc<AtomicU64>,
    ping_every: Duration,
) {
    let mut ping = tokio::time::interval(ping_every);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ping.reset();
    loop {
        let message = tokio::select! {
            message = queue.recv() => message,
            _ = ping.tick() => Some(Message::Ping(Bytes::new())),
        };
        let Some(message) = message else { break };
        let counts = u64::from(message.is_binary());
        if sink.feed(message).await.is_err() {
            return;
        }
        written.fetch_add(counts, Ordering::Relaxed);
        // What is queued already goes out with it.
        if queue.is_empty() && sink.flush().await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

/// The task that reads.
struct Reader {
    read: mpsc::Sender<Result<Bytes, WireError>>,
    said: Arc<Mutex<Said>>,
    sorter: ClientSide,
    silence_max: Duration,
}

impl Reader {
    async fn run(mut self, mut stream: SplitStream<Socket>, cancel: Cancel) {
        loop {
            let next = tokio::select! {
                next = tokio::time::timeout(self.silence_max, stream.next()) => next,
                () = cancel.cancelled() => return,
            };
            let passed_on = match next {
                Err(_) => Err(WireError::Silent(format!("{} s", self.silence_max.as_secs()))),
                Ok(None) => return,
                Ok(Some(Ok(Message::Close(_)))) => return,
                Ok(Some(Ok(message))) => self.take(message),
                Ok(Some(Err(error))) => Err(lost(error)),
            };
            let last = passed_on.is_err();
            if let Some(item) = passed_on.transpose() {
                tokio::select! {
                    sent = self.read.send(item) => if sent.is_err() { return },
                    () = cancel.cancelled() => return,
                }
            }
            if last {
                return;
            }
        }
    }

    /// A piece of the stream, or nothing where the message was something else.
    fn take(&mut self, message: Message) -> Result<Option<Bytes>, WireError> {
        match message {
            Message::Binary(bytes) => match self.sorter.receive(bytes) {
                FromServer::Stream(bytes) => Ok(Some(bytes)),
                FromServer::NewReplicaVersion => Ok(None),
            },
            Message::Text(text) => self.take_text(text.as_str()).map(|()| None),
            _ => Ok(None),
        }
    }

    fn take_text(&mut self, text: &str) -> Result<(), WireError> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match text.parse::<ServerText>() {
            Ok(ServerText::Config(config)) => said.config.merge(config),
            Ok(ServerText::Message(text)) if said.messages.len() < QUEUE_MAX => said.messages.push(text),
            Ok(ServerText::Message(_)) => {}
            Ok(ServerText::Abort(Abort::Text(text))) => {
                return Err(WireError::Aborted(Refusal::Failed, text));
            }
            Ok(ServerText::Abort(Abort::VersionConflict(latest))) => {
                let text = format!("version {latest} is there already");
                return Err(WireError::Aborted(Refusal::Conflict, text));
            }
            Err(TextError::Unknown) => tracing::debug!("a text message of an unknown kind"),
            Err(error) => return Err(WireError::Malformed(error.to_string())),
        }
        Ok(())
    }
}

fn lost(error: tungstenite::Error) -> WireError {
    use tungstenite::Error;
    match error {
        Error::Io(error) => WireError::Io(error),
        Error::ConnectionClosed | Error::AlreadyClosed => WireError::Closed,
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => WireError::Closed,
        other => WireError::Malformed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_long_as_the_server_takes_them_and_never_shorter_than_every_server_does() {
        let of = |said: &str| {
            LongPieces::of(
                &[(MESSAGE_MAX_HEADER.parse().unwrap(), said.parse().unwrap())].into_iter().collect(),
            )
        };
        assert_eq!(of("8192"), LongPieces(8192));
        for said in ["65536", "65537", "99999999999999999999", "-1", "all"] {
            assert_eq!(of(said), LongPieces(LONG_PIECE_LEN), "{said}");
        }
        assert_eq!(of("0"), LongPieces(PIECE_LEN));
        assert_eq!(LongPieces::of(&HeaderMap::new()), LongPieces(LONG_PIECE_LEN));
    }

    /// To a server that answers pings, and says something after so many messages.
    fn to_a_busy_server(silence_max: Duration, busy: usize) -> (tokio::runtime::Runtime, WebSocket) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let wire = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                let mut looks = 0;
                // Each look sends the pongs that are due.
                while let Some(Ok(_)) = socket.next().await {
                    looks += 1;
                    if looks == busy {
                        socket.send(Message::Binary(Bytes::from_static(b"done"))).await.unwrap();
                    }
                }
            });
            let traffic = crate::wire::Traffic::default();
            let stream = super::super::tcp::connect("127.0.0.1", address.port(), PING_EVERY, traffic).await;
            let opened = handshake(format!("ws://{address}/"), stream.unwrap(), None).await.unwrap();
            WebSocket::new(opened, &Greeting::default(), silence_max, &Cancel::default()).unwrap()
        });
        (runtime, wire)
    }

    #[test]
    fn a_server_at_work_is_waited_for_however_short_a_silence_is_put_up_with() {
        // A message of ours, and six pings: three times as long as it may be silent.
        let (_runtime, mut wire) = to_a_busy_server(Duration::from_secs(2), 7);
        wire.send(Bytes::from_static(b"A")).unwrap();
        assert_eq!(wire.receive().unwrap().as_deref(), Some(&b"done"[..]));
    }

    #[test]
    fn a_server_that_answers_pings_and_nothing_else_is_not_waited_for_without_end() {
        let (_runtime, mut wire) = to_a_busy_server(Duration::from_secs(60), usize::MAX);
        wire.standstill_max = Duration::from_millis(100);
        wire.send(Bytes::from_static(b"A")).unwrap();
        assert!(matches!(wire.receive(), Err(WireError::Silent(_))));
    }
}
