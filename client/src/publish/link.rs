//! The connection on which a publisher announces its pushes: `/sapi/push/...` with CHANGED and pings on
//! it, and never a page. A task keeps it and reconnects for ever; what is to be announced, and what is
//! known of the connection, are each a single value where the newest counts, so that nothing piles up.
//!
//! What was announced on a connection that is gone is announced again on the next, with the seconds that
//! are left then. No push waits for this connection.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use sqlrsync_protocol::control;
use sqlrsync_protocol::text::{Config, KeyType, ServerText};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{self, Message};

use super::schedule::seconds_until;
use crate::connect::{self, Asking, Purpose};
use crate::error::Error;
use crate::follow::backoff::{Backoff, random};
use crate::follow::clock;
use crate::plan::Push;
use crate::wire::Traffic;
use crate::wire::websocket::Socket;

/// How often the server, and every proxy between, hears that we are there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// A server that answers no ping for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made for the first time, or the server has not yet said what the key is for.
    Opening,
    /// The server has said what the key is for.
    Open(KeyType),
    /// It is lost, and tried again.
    Down,
}

/// The task that keeps the connection; dropping this ends it.
#[derive(Debug)]
pub struct Link {
    /// When the announced push is due, on [`clock`]; `None`: nothing is announced.
    due: watch::Sender<Option<Duration>>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts the task on the runtime that this is called in.
    pub fn start(push: &Push, client_id: String) -> Link {
        let (due, announced) = watch::channel(None);
        let (tell, status) = watch::channel(Status::Opening);
        let keeper = Keeper { push: push.clone(), client_id, due: announced, status: tell };
        Link { due, status, task: tokio::spawn(keeper.keep()) }
    }

    /// A push follows at that time.
    pub fn announce(&self, due: Duration) {
        self.due.send_replace(Some(due));
    }

    /// The push that was announced is over.
    pub fn withdraw(&self) {
        self.due.send_replace(None);
    }

    /// How the connection is.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Returns when [`Link::status`] may have changed.
    pub async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            // The task is gone, which it never is by itself.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    push: Push,
    client_id: String,
    due: watch::Receiver<Option<Duration>>,
    status: watch::Sender<Status>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let began = clock::now();
            let worked = match self.open().await {
                Ok(socket) => {
                    self.serve(socket).await;
                    clock::now().saturating_sub(began)
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection to announce pushes on");
                    Duration::ZERO
                }
            };
            self.status.send_replace(Status::Down);
            let again = clock::now() + backoff.failed(worked, random());
            clock::sleep_until(again).await;
        }
    }

    async fn open(&self) -> Result<Socket, Error> {
        let purpose = Purpose::Announce { local: self.push.local.path.clone() };
        let asking = Asking {
            purpose,
            remote: self.push.remote.as_ref(),
            replica_id: self.push.replica_id.as_ref(),
            access: &self.push.access,
            client_id: &self.client_id,
        };
        connect::open(&asking, &Traffic::default(), connect::CONNECT_MAX).await
    }

    /// Uses a connection until it is lost.
    async fn serve(&mut self, mut socket: Socket) {
        // What was announced before has to be said again.
        self.due.mark_changed();
        let mut heard = clock::now();
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ping.reset();
        loop {
            let sent = tokio::select! {
                message = socket.next() => {
                    heard = clock::now();
                    match message {
                        Some(Ok(message)) if !message.is_close() => self.hear(&message),
                        _ => return,
                    }
                    continue;
                }
                changed = self.due.changed() => match changed {
                    Ok(()) => self.say(&mut socket).await,
                    Err(_) => return,
                },
                _ = ping.tick() => {
                    if clock::now().saturating_sub(heard) > SILENCE_MAX {
                        tracing::debug!("the server is silent");
                        return;
                    }
                    send(&mut socket, Message::Ping(Bytes::new())).await
                }
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "the connection to announce pushes on is lost");
                return;
            }
        }
    }

    /// Announces what is to be announced now.
    async fn say(&mut self, socket: &mut Socket) -> tungstenite::Result<()> {
        let (due, now) = (*self.due.borrow_and_update(), clock::now());
        match due {
            // A time that has passed says nothing: the push runs, or fails and is reported.
            Some(due) if due > now => {
                send(socket, Message::Binary(control::changed(seconds_until(due, now)))).await
            }
            _ => Ok(()),
        }
    }

    fn hear(&self, message: &Message) {
        let Message::Text(text) = message else { return };
        if let Ok(ServerText::Config(Config { key_type: Some(key_type), .. })) = text.as_str().parse() {
            self.status.send_replace(Status::Open(key_type));
        }
    }
}

/// Sends within the time after which a connection counts as lost.
async fn send(socket: &mut Socket, message: Message) -> tungstenite::Result<()> {
    let sent = tokio::time::timeout(SILENCE_MAX, socket.send(message)).await;
    sent.unwrap_or(Err(tungstenite::Error::ConnectionClosed))
}

#[cfg(test)]
#[path = "link/tests.rs"]
mod tests;
