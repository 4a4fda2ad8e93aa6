//! The wire of a transfer's thread: the two queues of its session.

use std::time::Duration;

use bytes::Bytes;
use sqlrsync_protocol::conversation::Wire;
use sqlrsync_protocol::cutter::{CutError, Cutter};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::end::End;
use super::queue::Receiver;
use super::transfer::Parts;
use super::writer::{Outbox, Outgoing};
use crate::sessions::{Signal, told};

/// Type byte of ORIGIN_END, which is a piece of its own towards a client of version 1 or 2.
const ORIGIN_END: &[u8] = &[0x42];

/// Why nothing can be sent or received any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The peer is gone, or did not read for the idle time.
    #[error("the connection broke")]
    Gone,
    /// The peer sent nothing for the idle time.
    #[error("nothing was heard for too long")]
    Idle,
    /// The server ends the session.
    #[error("the server ended the session")]
    Ended(End),
    /// The stream cannot be cut as this client needs it.
    #[error(transparent)]
    Uncuttable(#[from] CutError),
}

/// Where in the stream a note may be put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Versions 1 and 2: nothing of the stream comes after this but ORIGIN_END.
    BeforeEnd,
    /// Version 3: between any two runs.
    Anywhere,
}

/// Makes a text message to be sent beside the stream, if there is something to say now.
type Notes<'a> = Box<dyn FnMut(Place) -> Option<String> + 'a>;

/// A wire over the queues of a session. Used on a thread, never in async code.
pub struct SocketWire<'a> {
    runtime: Handle,
    outbox: Outbox,
    inbox: Receiver<Bytes>,
    signal: watch::Receiver<Signal>,
    idle: Duration,
    cutter: Cutter,
    notes: Option<Notes<'a>>,
    version: u8,
    /// This side has given up: nothing more is awaited from the peer.
    failed: Option<WireError>,
}

impl<'a> SocketWire<'a> {
    /// The wire of a transfer of this session.
    pub fn new(parts: &Parts, outbox: Outbox, inbox: Receiver<Bytes>) -> SocketWire<'a> {
        SocketWire {
            runtime: parts.runtime.clone(),
            outbox,
            inbox,
            signal: parts.signal.clone(),
            idle: parts.limits.idle,
            cutter: Cutter::to_client(),
            notes: None,
            version: 0,
            failed: None,
        }
    }

    /// What is to be said beside the stream. Asked for at each [`Place`].
    pub fn notes(&mut self, make: impl FnMut(Place) -> Option<String> + 'a) {
        self.notes = Some(Box::new(make));
    }

    /// The version agreed on; 0 before that.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Sends beside the stream, in its order.
    pub fn put(&mut self, item: Outgoing) -> Result<(), WireError> {
        let bytes = match &item {
            Outgoing::Binary(bytes) => bytes.len(),
            Outgoing::Text(text) => text.len(),
            Outgoing::Ping | Outgoing::Close(_) => 0,
        };
        let sent = self.runtime.block_on(async { timeout(self.idle, self.outbox.send(item, bytes)).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WireError::Gone),
        }
    }

    fn note(&mut self, place: Place) -> Result<(), WireError> {
        match self.notes.as_mut().and_then(|make| make(place)) {
            Some(text) => self.put(Outgoing::Text(text)),
            None => Ok(()),
        }
    }

    fn check_signal(&self) -> Result<(), WireError> {
        let signal = *self.signal.borrow();
        if signal.cuts() { Err(WireError::Ended(End::of(signal))) } else { Ok(()) }
    }
}

impl Wire for SocketWire<'_> {
    type Error = WireError;

    fn send(&mut self, bytes: Bytes) -> Result<(), WireError> {
        // Here the stream is between two messages, so that an error can be told in it.
        let pieces = self.check_signal().and_then(|()| Ok(self.cutter.cut(bytes)?));
        let pieces = pieces.inspect_err(|error| self.failed = Some(*error))?;
        if self.version >= 3 {
            self.note(Place::Anywhere)?;
        }
        for piece in pieces {
            if *piece == *ORIGIN_END && self.version < 3 {
                self.note(Place::BeforeEnd)?;
            }
            self.put(Outgoing::Binary(piece))?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, WireError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let SocketWire { runtime, inbox, signal, idle, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                signal = told(signal, Signal::cuts) => Err(WireError::Ended(End::of(signal))),
                received = timeout(*idle, inbox.receive()) => received.map_err(|_| WireError::Idle),
            }
        })
    }

    fn agreed(&mut self, version: u8) {
        self.version = version;
        self.cutter.agreed(version);
    }
}
