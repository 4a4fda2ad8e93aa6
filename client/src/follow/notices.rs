//! The connection on which a server tells of new versions. A task keeps it: it subscribes, pings,
//! reconnects for ever, and leaves what it hears in a [`Mailbox`], where the newest of each kind waits
//! for whoever is busy with a pull. So nothing piles up, however much a server says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_protocol::subscription::{ClientMessage, ServerMessage, SubscriptionError};
use sqlrsync_protocol::text::{ReplicaIdText, printable};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use super::backoff::{Backoff, obeying, random};
use super::clock;
use crate::connect::{self, Asking, Purpose};
use crate::error::Error;
use crate::plan::Access;
use crate::wire::websocket::Socket;
use crate::wire::{Cancel, Traffic};

/// How often the server, and every proxy between, hears that we are there.
pub const PING_EVERY: Duration = Duration::from_secs(30);

/// How long the last words may take to be written.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// How the connection is.
#[derive(Debug)]
pub enum Link {
    /// New versions will be told.
    Up,
    /// It is lost, and tried again.
    Down {
        /// Why.
        why: Error,
        /// After how long.
        again_in: Duration,
    },
    /// The server does not want us any more, and waiting does not help.
    Refused(Error),
}

/// What came since somebody last asked: the newest of each kind.
#[derive(Debug, Default)]
pub struct News {
    /// How the connection is, where that changed.
    pub link: Option<Link>,
    /// The newest version that the server spoke of.
    pub latest: Option<VersionNumber>,
}

/// Where news waits.
#[derive(Debug, Default)]
pub struct Mailbox {
    news: Mutex<News>,
    came: Notify,
}

impl Mailbox {
    fn put(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.lock());
        self.came.notify_one();
    }

    /// Takes what is there, at once.
    pub fn take(&self) -> News {
        std::mem::take(&mut *self.lock())
    }

    /// Returns when there may be something new.
    pub async fn wait(&self) {
        self.came.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is subscribed to, and how.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The replica.
    pub remote: RemoteName,
    /// Its id, where it is known.
    pub replica_id: Option<ReplicaIdText>,
    /// Server, key, certificates.
    pub access: Access,
    /// This machine's id.
    pub client_id: String,
    /// How long a server may say nothing, not even answer a ping.
    pub silence_max: Duration,
}

impl Subscription {
    /// Opens a connection.
    ///
    /// # Errors
    /// As [`connect::connect`].
    pub async fn open(&self) -> Result<Socket, Error> {
        let asking = Asking {
            purpose: Purpose::Subscribe,
            remote: Some(&self.remote),
            replica_id: self.replica_id.as_ref(),
            access: &self.access,
            client_id: &self.client_id,
        };
        connect::open(&asking, &Traffic::default(), self.silence_max).await
    }

    /// Goes on with a first connection, or without one, until it is cancelled or refused.
    pub async fn keep(self, first: Result<Socket, Error>, mailbox: Arc<Mailbox>, cancel: Cancel) {
        let mut backoff = Backoff::default();
        let mut opened = first;
        loop {
            let lost = match opened {
                Ok(socket) => Connection::new(&self, &mailbox).run(socket, &cancel).await,
                Err(error) => Lost { why: error, worked: Duration::ZERO },
            };
            match lost.why {
                Error::Cancelled => return,
                why if is_final(&why) => return mailbox.put(|news| news.link = Some(Link::Refused(why))),
                why => {
                    let again_in = obeying(&why, backoff.failed(lost.worked, random()));
                    mailbox.put(|news| news.link = Some(Link::Down { why, again_in }));
                    opened = tokio::select! {
                        () = cancel.cancelled() => return,
                        opened = self.open_after(again_in) => opened,
                    };
                }
            }
        }
    }

    async fn open_after(&self, wait: Duration) -> Result<Socket, Error> {
        clock::sleep_until(clock::now() + wait).await;
        self.open().await
    }
}

/// What ends a subscription that has worked: the key was revoked, or the replica is private now.
pub fn is_final(error: &Error) -> bool {
    matches!(error, Error::Refused { refusal: Refusal::NotAllowed, .. } | Error::NoKey { .. })
}

/// How a connection ended.
struct Lost {
    why: Error,
    /// For how long it had been subscribed.
    worked: Duration,
}

/// One connection from SUBSCRIBE to its end.
struct Connection<'a> {
    subscription: &'a Subscription,
    mailbox: &'a Mailbox,
    who: String,
    /// When the server last gave a sign of life, and we did.
    heard: Duration,
    pinged: Duration,
    subscribed: Option<Duration>,
}

type Sink = SplitSink<Socket, Message>;

impl<'a> Connection<'a> {
    fn new(subscription: &'a Subscription, mailbox: &'a Mailbox) -> Connection<'a> {
        let who = format!("the server {}", subscription.access.server);
        let now = clock::now();
        Connection { subscription, mailbox, who, heard: now, pinged: now, subscribed: None }
    }

    async fn run(mut self, socket: Socket, cancel: &Cancel) -> Lost {
        let (mut sink, mut stream) = socket.split();
        let subscribe = ClientMessage::Subscribe(self.subscription.replica_id.clone());
        let mut ended = self.say(&mut sink, &subscribe).await;
        while ended.is_ok() {
            ended = tokio::select! {
                message = stream.next() => match message {
                    Some(Ok(message)) => self.take(message, &mut sink).await,
                    Some(Err(error)) => Err(self.cut(error.to_string())),
                    None => Err(self.cut("it closed the connection")),
                },
                () = clock::sleep_until(self.next_look()) => self.look(&mut sink).await,
                () = cancel.cancelled() => Err(Error::Cancelled),
            };
        }
        // A server that is told goodbye has nothing to wait for; one that is gone does not hear it.
        let _ = tokio::time::timeout(CLOSE_MAX, sink.close()).await;
        let worked = self.subscribed.map_or(Duration::ZERO, |since| clock::now().saturating_sub(since));
        Lost { why: ended.err().unwrap_or(Error::Cancelled), worked }
    }

    /// A silent server is pinged in time to answer, however short its patience was set.
    fn ping_every(&self) -> Duration {
        PING_EVERY.min(self.subscription.silence_max / 2)
    }

    fn next_look(&self) -> Duration {
        (self.pinged + self.ping_every()).min(self.heard + self.subscription.silence_max)
    }

    /// It is time for a ping, or too late for one.
    async fn look(&mut self, sink: &mut Sink) -> Result<(), Error> {
        let now = clock::now();
        if now >= self.heard + self.subscription.silence_max {
            let silence = self.subscription.silence_max.as_secs();
            return Err(self.cut(format!("nothing was heard for {silence} s")));
        }
        if now >= self.pinged + self.ping_every() {
            self.pinged = now;
            self.say(sink, &ClientMessage::Ping).await?;
        }
        Ok(())
    }

    async fn take(&mut self, message: Message, sink: &mut Sink) -> Result<(), Error> {
        self.heard = clock::now();
        match message {
            Message::Text(text) => match ServerMessage::parse(text.as_str()) {
                Ok(message) => self.hear(message, sink).await,
                // Of a newer server.
                Err(SubscriptionError::Unknown) => Ok(()),
                Err(error) => Err(Error::Protocol { who: self.who.clone(), why: error.to_string() }),
            },
            Message::Close(frame) => {
                let reason = frame.map(|frame| printable(frame.reason.as_str())).unwrap_or_default();
                let reason = if reason.is_empty() { "it closed the connection".to_owned() } else { reason };
                Err(self.cut(reason))
            }
            // The library answers pings; nothing else has a meaning here.
            _ => Ok(()),
        }
    }

    async fn hear(&mut self, message: ServerMessage, sink: &mut Sink) -> Result<(), Error> {
        match message {
            ServerMessage::Subscribed(_) => {
                self.subscribed.get_or_insert(self.heard);
                self.mailbox.put(|news| news.link = Some(Link::Up));
                Ok(())
            }
            ServerMessage::LatestVersion(version) => {
                self.mailbox.put(|news| news.latest = Some(version));
                Ok(())
            }
            ServerMessage::Error(text) => Err(Error::Refused {
                who: self.who.clone(),
                refusal: Refusal::Failed,
                text,
                retry_after: None,
            }),
            ServerMessage::Ping => self.say(sink, &ClientMessage::Pong).await,
            ServerMessage::Pong => Ok(()),
        }
    }

    /// Says something; a peer that does not read is not waited for longer than for its own words.
    async fn say(&self, sink: &mut Sink, message: &ClientMessage) -> Result<(), Error> {
        let text = message.to_text(&Timestamp::now().to_string());
        let sent = tokio::time::timeout(self.subscription.silence_max, sink.send(Message::text(text))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.cut(error.to_string())),
            Err(_) => Err(self.cut("it reads nothing")),
        }
    }

    fn cut(&self, why: impl Into<String>) -> Error {
        Error::Cut { who: self.who.clone(), why: why.into() }
    }
}

#[cfg(test)]
mod tests;
