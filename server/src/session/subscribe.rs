//! `/sapi/subscribe`: notices of new versions.
//!
//! ```text
//! SUBSCRIBE → SUBSCRIBED, LATEST_VERSION; then LATEST_VERSION after each commit
//! UNSUBSCRIBE → no more of them
//! ```
//!
//! Only the newest version waits for a slow subscriber.

use axum::extract::ws::WebSocket;
use futures_util::StreamExt;
use jiff::Timestamp;
use sqlrsync_protocol::control::Direction;
use sqlrsync_protocol::subscription::{ClientMessage, ServerMessage, SubscriptionError};

use super::end::End;
use super::reader::{Read, Reader};
use super::writer::{Outbox, Outgoing, Writer};
use super::{Common, Heartbeat};
use crate::backend::Subscription;
use crate::catalog::ReplicaRecord;
use crate::sessions::{Signal, told};

/// A subscriber's connection.
pub struct SubscribeSession {
    /// What all sessions have.
    pub common: Common,
    /// The replica.
    pub record: ReplicaRecord,
}

impl SubscribeSession {
    /// Runs the session to its end.
    pub async fn run(self, socket: WebSocket) {
        let limits = self.common.limits;
        let (sink, stream) = socket.split();
        let (outbox, writer) = Writer::start(sink, limits.queue_bytes_max, limits.idle);
        let mut reader = Reader::new(stream, Direction::Pull);
        let end = self.serve(&mut reader, &outbox).await;
        self.common.end(end, outbox, writer, reader).await;
    }

    async fn serve(&self, reader: &mut Reader, outbox: &Outbox) -> End {
        let mut signal = self.common.session.signal();
        let mut heartbeat = Heartbeat::new(self.common.limits.ping);
        let mut subscription: Option<Subscription> = None;
        loop {
            let read = tokio::select! {
                biased;
                signal = told(&mut signal, |signal| signal != Signal::Go) => return End::of(signal),
                () = changed(&mut subscription) => {
                    let newest = subscription.as_mut().and_then(|heard| *heard.borrow_and_update());
                    if let Some(version) = newest {
                        send(outbox, &ServerMessage::LatestVersion(version)).await;
                    }
                    continue;
                }
                alive = heartbeat.beat(outbox) => {
                    if alive {
                        continue;
                    }
                    return End::Idle;
                }
                read = reader.next() => read,
            };
            heartbeat.heard();
            match read {
                Read::Text(text) => match ClientMessage::parse(text.as_str()) {
                    Ok(message) => self.answer(message, &mut subscription, outbox).await,
                    // Of a newer client, perhaps.
                    Err(SubscriptionError::Unknown) => {}
                    Err(error) => send(outbox, &ServerMessage::Error(error.to_string())).await,
                },
                Read::Alive => {}
                Read::Gone => return End::Done,
                Read::Stream(_) | Read::CommitMessage(_) | Read::Changed(_) | Read::Invalid(_) => {
                    return End::Invalid;
                }
            }
        }
    }

    async fn answer(&self, message: ClientMessage, subscription: &mut Option<Subscription>, outbox: &Outbox) {
        match message {
            ClientMessage::Subscribe(id) if id.as_ref().is_some_and(|id| id.as_str() != self.record.id) => {
                let text = "this connection is for another replica: its id is not the one subscribed to";
                send(outbox, &ServerMessage::Error(text.to_owned())).await;
            }
            ClientMessage::Subscribe(_) => {
                // Listens before it looks, so that no version falls between.
                let mut heard = self.common.backend.notices.subscribe(&self.record.id);
                heard.mark_unchanged();
                *subscription = Some(heard);
                send(outbox, &ServerMessage::Subscribed(self.record.id.parse().ok())).await;
                let record = self.record.clone();
                match self.common.backend.blocking(move |backend| backend.latest_version(&record)).await {
                    Ok(Some(version)) => send(outbox, &ServerMessage::LatestVersion(version)).await,
                    Ok(None) => {}
                    Err(refused) => send(outbox, &ServerMessage::Error(refused.text)).await,
                }
            }
            ClientMessage::Unsubscribe => *subscription = None,
            ClientMessage::Ping => send(outbox, &ServerMessage::Pong).await,
            ClientMessage::Pong => {}
        }
    }
}

/// Returns when there is news; never without a subscription.
async fn changed(subscription: &mut Option<Subscription>) {
    match subscription {
        Some(heard) => {
            if heard.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn send(outbox: &Outbox, message: &ServerMessage) {
    let text = message.to_text(&Timestamp::now().to_string());
    let len = text.len();
    // A closed queue means that the peer is gone, which the reader sees.
    let _ = outbox.send(Outgoing::Text(text), len).await;
}
