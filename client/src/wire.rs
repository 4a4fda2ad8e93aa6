//! The wires that a conversation runs over: a WebSocket to a server, pipes to a peer, or memory
//! between two threads. All of them block; what has to wait for several things at once does so on
//! threads or tasks behind them.

pub mod certificate;
pub mod child;
pub mod memory;
pub mod pipes;
pub mod tcp;
pub mod tls;
pub mod websocket;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlrsync_protocol::exchange::Refusal;

/// Why a wire gave up.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side was silent for too long.
    #[error("nothing was heard for {0}")]
    Silent(String),
    /// The server ended it, and said why.
    #[error("{1}")]
    Aborted(Refusal, String),
    /// A message that cannot be, at the level of the wire.
    #[error("{0}")]
    Malformed(String),
    /// What the system says.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The user said stop.
    #[error("stopped")]
    Cancelled,
}

/// Whether the user, or the system, said stop. Cheap to clone and to ask.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    flag: AtomicBool,
    hurry: AtomicBool,
    notify: tokio::sync::Notify,
}

impl Cancel {
    /// Says stop, for good.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// Whether it was said.
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst)
    }

    /// Says stop again, to whoever takes his time.
    pub fn hurry(&self) {
        self.0.hurry.store(true, Ordering::SeqCst);
        self.cancel();
    }

    /// Waits until it is said for the second time.
    pub async fn hurried(&self) {
        loop {
            let said = self.0.notify.notified();
            if self.0.hurry.load(Ordering::SeqCst) {
                return;
            }
            said.await;
        }
    }

    /// Waits until it is said.
    pub async fn cancelled(&self) {
        let said = self.0.notify.notified();
        if !self.is_cancelled() {
            said.await;
        }
    }
}

/// Bytes that went over a wire, each way.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<TrafficState>);

#[derive(Debug, Default)]
struct TrafficState {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Counts bytes sent.
    pub fn add_sent(&self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes received.
    pub fn add_received(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}
