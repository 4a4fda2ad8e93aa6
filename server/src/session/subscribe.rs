//! `/sapi/subscribe`: notices of new versions.
//!
//! ```text
//! SUBSCRIBE → SUBSCRIBED, LATEST_VERSION; then LATEST_VERSION after each commit
//! UNSUBSCRIBE → no more of them
//! ```
//!
//! There may be ten thousand of these, most of them silent for hours. So a session is one task with a
//! small buffer and one timer, and what it is told was written once for all.
//!
//! - Nothing is read while something waits to be written: a peer that asks and reads no answers fills
//!   its own buffers and not ours.
//! - Only the newest version waits for a slow subscriber, and who stands still is cut off: see [`pace`].
//!
//! [`pace`]: super::pace

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::subscription::{ClientMessage, ServerMessage, SubscriptionError};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::end::End;
use super::pace::{Due, Pace};
use super::reader::is_too_long;
use super::{CLOSE_TIME, Common};
use crate::backend::{Notice, Present, Subscription};
use crate::catalog::ReplicaRecord;
use crate::sessions::{Signal, told};

/// Longest message that is taken from a subscriber, in bytes. Twice what may make sense, so that a
/// message that is somewhat too long is answered and not only cut off.
pub const MESSAGE_BYTES_MAX: usize = 2 * sqlrsync_protocol::subscription::SUBSCRIPTION_MESSAGE_MAX;

/// How many messages a subscriber may send in [`RATE_TIME`]; it needs one or two.
const RATE_MAX: u32 = 600;

/// The time that [`RATE_MAX`] is for.
const RATE_TIME: Duration = Duration::from_secs(60);

/// A subscriber's connection.
pub struct SubscribeSession {
    /// What all sessions have.
    pub common: Common,
    /// The replica.
    pub record: ReplicaRecord,
    /// Shows the client among those that follow.
    pub present: Present,
}

/// What the session's task has in its hands.
struct Talk<'a> {
    session: &'a SubscribeSession,
    socket: &'a mut WebSocket,
    pace: Pace,
    rate: Rate,
    subscription: Option<Subscription>,
    /// The newest version that the peer was told.
    newest_told: Option<VersionNumber>,
    /// When something was put into the socket that is not written yet.
    unwritten: Option<Instant>,
}

/// What happens next.
enum Event {
    Signal(Signal),
    /// There may be a newer version.
    News,
    /// All was written.
    Written,
    Message(Message),
    /// The peer closed, or the connection broke.
    Gone,
    /// What comes is longer than is taken.
    TooLong,
    /// It is time to see what is due.
    Timer,
}

impl SubscribeSession {
    /// Runs the session to its end.
    pub async fn run(self, mut socket: WebSocket) {
        let limits = self.common.limits;
        let now = Instant::now();
        let talk = Talk {
            session: &self,
            socket: &mut socket,
            pace: Pace::new(limits.subscriber_ping, limits.subscriber_patience, now),
            rate: Rate { since: now, count: 0 },
            subscription: None,
            newest_told: None,
            unwritten: None,
        };
        let end = talk.run().await;
        close(socket, end).await;
    }
}

impl Talk<'_> {
    /// Until there is a reason to end.
    async fn run(mut self) -> End {
        let common = &self.session.common;
        let mut signal = common.session.signal();
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            self.tell();
            let outcome = match self.next(&mut signal, timer.as_mut()).await {
                Event::Signal(signal) => Some(End::of(signal)),
                Event::News => None,
                Event::Written => {
                    self.unwritten = None;
                    None
                }
                Event::Message(message) => self.take(message).await,
                Event::Gone => Some(End::Done),
                Event::TooLong => {
                    let end = End::TooLong { max: MESSAGE_BYTES_MAX };
                    self.error(&end.reason());
                    Some(end)
                }
                Event::Timer => self.on_time(Instant::now()),
            };
            if let Some(end) = outcome {
                return end;
            }
        }
    }

    async fn next(&mut self, signal: &mut watch::Receiver<Signal>, mut timer: Pin<&mut Sleep>) -> Event {
        let deadline = self.deadline();
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        // News that may not be told yet are looked at when they may.
        let hears = self.unwritten.is_none() && self.pace.is_open();
        tokio::select! {
            biased;
            signal = told(signal, |signal| signal != Signal::Go) => Event::Signal(signal),
            () = changed(self.subscription.as_mut().filter(|_| hears)) => Event::News,
            event = traffic(self.socket, self.unwritten.is_some()) => event,
            () = timer => Event::Timer,
        }
    }

    /// When there is something to do even if nothing happens.
    fn deadline(&self) -> Instant {
        let patience = self.session.common.limits.subscriber_patience;
        let due = match self.pace.due(Instant::now()) {
            Due::At(at) => at,
            Due::Ping | Due::GiveUp => Instant::now(),
        };
        self.unwritten.map_or(due, |since| (since + patience).min(due))
    }

    fn on_time(&mut self, now: Instant) -> Option<End> {
        let patience = self.session.common.limits.subscriber_patience;
        if self.unwritten.is_some_and(|since| since + patience <= now) {
            return Some(End::Idle);
        }
        match self.pace.due(now) {
            Due::At(_) => None,
            Due::GiveUp => Some(End::Idle),
            Due::Ping => {
                self.pace.ping_along(now);
                self.put(Message::Ping(Bytes::new()));
                None
            }
        }
    }

    /// Tells the newest version where there is a newer one than was told, and it may be told now.
    fn tell(&mut self) {
        if self.unwritten.is_some() || !self.pace.is_open() {
            return;
        }
        let Some(subscription) = &mut self.subscription else { return };
        let newest = subscription.borrow_and_update().clone();
        if let Some(notice) = newest.filter(|notice| Some(notice.version) > self.newest_told) {
            self.tell_version(&notice);
        }
    }

    fn tell_version(&mut self, notice: &Arc<Notice>) {
        // Valid UTF-8: it was made from a string.
        let Ok(text) = Utf8Bytes::try_from(notice.text.clone()) else { return };
        self.newest_told = Some(notice.version);
        self.put(Message::Text(text));
        if self.pace.ping_along(Instant::now()) {
            self.put(Message::Ping(Bytes::new()));
        }
    }

    /// What the peer said, and whether that ends the session.
    async fn take(&mut self, message: Message) -> Option<End> {
        let now = Instant::now();
        if let Message::Pong(_) = &message {
            // However many versions there are, what was asked for is welcome.
            if self.pace.pong(now) {
                return None;
            }
        }
        self.pace.heard(now);
        if !self.rate.allows(now) {
            self.error("too many messages: a subscription needs one");
            return Some(End::TooMany);
        }
        match message {
            Message::Text(text) => match ClientMessage::parse(text.as_str()) {
                Ok(message) => self.answer(message).await,
                // Of a newer client, perhaps.
                Err(SubscriptionError::Unknown) => {}
                Err(error) => self.error(&error.to_string()),
            },
            Message::Binary(_) => return Some(End::Invalid),
            // The answer of the library to a ping is written with the next flush.
            Message::Ping(_) => self.unwritten = self.unwritten.or(Some(now)),
            Message::Pong(_) => {}
            Message::Close(_) => return Some(End::Done),
        }
        None
    }

    async fn answer(&mut self, message: ClientMessage) {
        let record = &self.session.record;
        match message {
            ClientMessage::Subscribe(id) if id.as_ref().is_some_and(|id| id.as_str() != record.id) => {
                self.error("this connection is for another replica: its id is not the one subscribed to");
            }
            ClientMessage::Subscribe(_) => self.subscribe().await,
            ClientMessage::Unsubscribe => {
                if self.subscription.take().is_none() {
                    self.error("there is no subscription that could end");
                }
            }
            ClientMessage::Ping => self.say(&ServerMessage::Pong),
            ClientMessage::Pong => {}
        }
    }

    /// Begins the subscription, or answers again on one that is there. The newest version is told next,
    /// by [`Talk::tell`].
    async fn subscribe(&mut self) {
        let SubscribeSession { common, record, .. } = self.session;
        if self.subscription.is_none() {
            // Listens before it looks, so that no version falls between.
            self.subscription = Some(common.backend.notices.subscribe(&record.name()));
        }
        self.newest_told = None;
        self.say(&ServerMessage::Subscribed(record.id.parse().ok()));
        let known = self.subscription.as_ref().is_some_and(|subscription| subscription.borrow().is_some());
        if !known {
            let record = record.clone();
            let looked = common.backend.blocking(move |backend| backend.find_latest(&record)).await;
            if let Err(refused) = looked {
                self.error(&refused.text);
            }
        }
    }

    fn error(&mut self, text: &str) {
        self.say(&ServerMessage::Error(text.to_owned()));
    }

    fn say(&mut self, message: &ServerMessage) {
        let text = message.to_text(&Timestamp::now().to_string());
        self.put(Message::Text(text.into()));
    }

    /// Puts a message into the socket's buffer. What is put in before the next is read is a handful of
    /// short texts; that it was not taken shows when the rest is written.
    fn put(&mut self, message: Message) {
        if self.socket.start_send_unpin(message).is_ok() {
            self.unwritten = self.unwritten.or_else(|| Some(Instant::now()));
        }
    }
}

/// Writes what is unwritten, or else reads. Cancelling loses nothing.
async fn traffic(socket: &mut WebSocket, unwritten: bool) -> Event {
    if unwritten {
        return match socket.flush().await {
            Ok(()) => Event::Written,
            Err(_) => Event::Gone,
        };
    }
    match socket.next().await {
        Some(Ok(message)) => Event::Message(message),
        Some(Err(error)) if is_too_long(&error) => Event::TooLong,
        Some(Err(_)) | None => Event::Gone,
    }
}

/// Returns when there is news; never without a subscription.
async fn changed(subscription: Option<&mut Subscription>) {
    if let Some(heard) = subscription
        && heard.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Writes the close and waits until the peer has closed in turn, for [`CLOSE_TIME`] in all.
async fn close(mut socket: WebSocket, end: End) {
    let frame = CloseFrame { code: end.code(), reason: end.reason().as_ref().into() };
    let closing = async {
        // Where the peer has closed already there is nothing to send, and the answer to its close goes out
        // with the next read.
        let _ = socket.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(CLOSE_TIME, closing).await;
}

/// Counts a peer's messages.
#[derive(Clone, Copy)]
struct Rate {
    since: Instant,
    count: u32,
}

impl Rate {
    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= RATE_TIME {
            *self = Rate { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= RATE_MAX
    }
}
