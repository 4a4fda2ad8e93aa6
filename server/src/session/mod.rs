//! WebSocket sessions: what happens on `/sapi/...` after the upgrade.
//!
//! A session has three parts, joined by queues that are bounded in bytes ([`queue`]):
//!
//! ```text
//! reader (the session's task)  socket → control messages are acted on, the stream goes to the thread
//! writer (a task)              queue → socket
//! transfer (a thread)          run_replica or run_origin over a [`wire::SocketWire`]
//! ```
//!
//! - Bytes of a peer that does not read, or of a disk that is slow, wait in a queue; when it is full,
//!   whoever fills it waits, and a peer that stands still for the idle time is cut off.
//! - A push connection without a push costs no thread: it may stay open for days.
//! - A subscriber is a single task instead: see [`subscribe`].
//! - A signal (the key was revoked, the server stops) reaches all three.

mod end;
mod outcome;
mod pace;
mod patience;
pub mod pull;
pub mod push;
pub mod queue;
mod reader;
mod stream_notices;
pub mod subscribe;
mod transfer;
mod wire;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::backend::Backend;
use crate::listener::Peer;
use crate::sessions::{Session, Signal, told};
use crate::settings::Settings;
use end::End;
use reader::Reader;
use writer::{Outbox, Outgoing, Writer};

/// Limits of every session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a transfer may stand still because of the peer.
    pub idle: Duration,
    /// How many bytes a second the peer of a transfer has to move while it is waited for.
    pub rate_min: u64,
    /// For how long it may be slower.
    pub rate_window: Duration,
    /// How often a silent peer is pinged.
    pub ping: Duration,
    /// How long a silent subscriber is left alone before it is pinged.
    pub subscriber_ping: Duration,
    /// How long a subscriber may take to read what it was sent.
    pub subscriber_patience: Duration,
    /// How long a push waits for its turn.
    pub busy_wait: Duration,
    /// Longest message that is taken, in bytes.
    pub message_bytes_max: usize,
    /// Bytes that wait in each direction.
    pub queue_bytes_max: usize,
}

impl Limits {
    /// From the settings.
    pub fn of(settings: &Settings) -> Limits {
        Limits {
            idle: settings.idle_timeout.duration(),
            rate_min: settings.rate_min.0,
            rate_window: settings.rate_window.duration(),
            ping: settings.ping_interval.duration(),
            subscriber_ping: settings.subscriber_ping_interval.duration(),
            subscriber_patience: settings.subscriber_timeout.duration(),
            busy_wait: settings.busy_wait.duration(),
            message_bytes_max: settings.message_bytes_max.as_usize(),
            queue_bytes_max: settings.queue_bytes_max.as_usize(),
        }
    }
}

/// A peer that is silent for so many pings is gone.
const PINGS_UNANSWERED_MAX: u32 = 3;

/// How long the last messages may take to be written, and the peer to close in turn.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// What every session has.
pub struct Common {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Limits.
    pub limits: Limits,
    /// Its place among the open sessions.
    pub session: Session,
    /// Who is at the other end; holds the connection's permit.
    pub peer: Peer,
}

impl Common {
    /// Ends the session: what is queued is written, however slowly the peer reads as long as it does,
    /// then the close, and the peer has [`CLOSE_TIME`] to close in turn. A session that was told to
    /// end has no longer than that in all.
    async fn end(self, end: End, outbox: Outbox, writer: Writer, reader: Reader) {
        // Where nobody takes it the writer has ended already.
        let closing = async {
            let _ = timeout(self.limits.idle, outbox.send(Outgoing::Close(end), 0)).await;
            drop(outbox);
            writer.finished().await;
        };
        let mut signal = self.session.signal();
        let cut = async {
            told(&mut signal, Signal::cuts).await;
            sleep(CLOSE_TIME).await;
        };
        // Read while writing: a peer that cannot send on reads nothing. Where no message can be read any more,
        // the connection itself lingers: see [`crate::linger`].
        let readable = !reader.ended();
        let peer_closes = reader.drain();
        tokio::pin!(peer_closes);
        let closed = async {
            if !readable {
                return closing.await;
            }
            tokio::select! {
                () = closing => {
                    let _ = timeout(CLOSE_TIME, peer_closes).await;
                }
                () = &mut peer_closes => {}
            }
        };
        tokio::select! {
            () = closed => {}
            () = cut => {}
        }
    }

    fn parts(&self) -> transfer::Parts {
        transfer::Parts {
            backend: self.backend.clone(),
            runtime: Handle::current(),
            signal: self.session.signal(),
            limits: self.limits,
            session: self.session.id(),
        }
    }
}

/// Pings a peer that says nothing, and counts what it leaves unanswered.
struct Heartbeat {
    interval: Duration,
    next: Instant,
    unanswered: u32,
}

impl Heartbeat {
    fn new(interval: Duration) -> Heartbeat {
        Heartbeat { interval, next: Instant::now() + interval, unanswered: 0 }
    }

    /// The peer gave a sign of life.
    fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// Waits for the next beat and pings; false where the peer left too many unanswered. Cancelling
    /// loses nothing.
    async fn beat(&mut self, outbox: &Outbox) -> bool {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.interval;
        self.unanswered += 1;
        // A full queue will be written, or the writer gives up.
        outbox.try_send(Outgoing::Ping, 0);
        self.unanswered <= PINGS_UNANSWERED_MAX
    }
}
