//! The only place that writes to a session's socket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::end::End;
use super::queue::{Receiver, Sender, queue};

/// Something for the peer.
#[derive(Debug)]
pub enum Outgoing {
    /// A piece of the stream.
    Binary(Bytes),
    /// A text message.
    Text(String),
    /// Are you there?
    Ping,
    /// The end; nothing after it is sent.
    Close(End),
}

/// Puts messages into the queue of the writer.
pub type Outbox = Sender<Outgoing>;

/// A writer at work.
pub struct Writer {
    task: JoinHandle<()>,
}

impl Writer {
    /// Writes what comes into the queue until a close, a peer that does not read for `idle`, or the
    /// end of the queue.
    pub fn start(sink: SplitSink<WebSocket, Message>, bytes_max: usize, idle: Duration) -> (Outbox, Writer) {
        let (outbox, queued) = queue(bytes_max);
        (outbox, Writer { task: tokio::spawn(write(sink, queued, idle)) })
    }

    /// Returns when all is written, or nothing more can be.
    pub async fn finished(mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut queued: Receiver<Outgoing>, idle: Duration) {
    while let Some(first) = queued.receive().await {
        // What waits is written and flushed once: pieces of 4 KiB would else be a system call each.
        let mut next = Some(first);
        while let Some(item) = next {
            let closes = matches!(item, Outgoing::Close(_));
            // The socket's own buffer is bounded, so this waits for the peer when it is full.
            if !in_time(idle, sink.feed(message(item))).await {
                return;
            }
            if closes {
                in_time(idle, sink.flush()).await;
                return;
            }
            next = queued.try_receive();
        }
        if !in_time(idle, sink.flush()).await {
            return;
        }
    }
}

/// Whether something was written before the peer stood still for too long.
async fn in_time(idle: Duration, writing: impl Future<Output = Result<(), axum::Error>>) -> bool {
    match timeout(idle, writing).await {
        Ok(written) => written.is_ok(),
        Err(_) => {
            tracing::debug!("the peer did not read for the idle time");
            false
        }
    }
}

fn message(item: Outgoing) -> Message {
    match item {
        Outgoing::Binary(bytes) => Message::Binary(bytes),
        Outgoing::Text(text) => Message::Text(text.into()),
        Outgoing::Ping => Message::Ping(Bytes::new()),
        Outgoing::Close(end) => {
            Message::Close(Some(CloseFrame { code: end.code(), reason: end.reason().as_ref().into() }))
        }
    }
}
