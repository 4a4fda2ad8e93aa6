//! The wire of a transfer's thread: the two queues of its session.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlrsync_protocol::conversation::Wire;
use sqlrsync_protocol::cutter::{CutError, Cutter};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::end::End;
use super::patience::Patience;
use super::queue::Receiver;
use super::transfer::Parts;
use super::writer::{Outbox, Outgoing};
use crate::sessions::{Signal, told};

/// Type byte of ORIGIN_END, which is a piece of its own towards a client of version 1 or 2.
const ORIGIN_END: &[u8] = &[0x42];

/// A piece of the stream; or why there will be no more of it, where the peer is there to be told.
pub type Incoming = Result<Bytes, End>;

/// Why nothing can be sent or received any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The peer is gone, or did not read for the idle time.
    #[error("the connection broke")]
    Gone,
    /// The peer sent nothing for the idle time.
    #[error("nothing was heard for too long")]
    Idle,
    /// The peer moved less than the least rate, for longer than that is borne.
    #[error("the peer was slower than the least rate for too long")]
    Slow,
    /// The peer moved so little while others waited for its turn that it is theirs.
    #[error("others waited for the peer's turn, and it was too slow")]
    InTheWay,
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
    inbox: Receiver<Incoming>,
    signal: watch::Receiver<Signal>,
    idle: Duration,
    patience: Patience,
    /// How many wait for what this transfer holds; `None` where nobody can.
    waited_for: Option<watch::Receiver<usize>>,
    cutter: Cutter,
    notes: Option<Notes<'a>>,
    version: u8,
    /// At the other end is our own client.
    own_client: bool,
    /// This side has given up: nothing more is awaited from the peer.
    failed: Option<WireError>,
}

impl<'a> SocketWire<'a> {
    /// The wire of a transfer of this session.
    pub fn new(parts: &Parts, outbox: Outbox, inbox: Receiver<Incoming>, own_client: bool) -> SocketWire<'a> {
        SocketWire {
            runtime: parts.runtime.clone(),
            outbox,
            inbox,
            signal: parts.signal.clone(),
            idle: parts.limits.idle,
            patience: Patience::new(parts.limits.rate_min, parts.limits.rate_window, parts.limits.idle),
            waited_for: None,
            cutter: Cutter::to_client(),
            notes: None,
            version: 0,
            own_client,
            failed: None,
        }
    }

    /// Others may wait for what this transfer holds, so many: it is hurried while they do.
    pub fn waited_for(&mut self, by: watch::Receiver<usize>) {
        self.waited_for = Some(by);
    }

    /// What is to be said beside the stream. Asked for at each [`Place`].
    pub fn notes(&mut self, make: impl FnMut(Place) -> Option<String> + 'a) {
        self.notes = Some(Box::new(make));
    }

    /// The version agreed on; 0 before that.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Whether the peer can tell a refusal from the text of an error.
    pub fn knows_refusals(&self) -> bool {
        self.own_client || self.version >= 3
    }

    /// Why the wire took nothing more of the stream, if that is so.
    pub fn refused(&self) -> Option<WireError> {
        self.failed
    }

    /// Sends beside the stream, in its order.
    pub fn put(&mut self, item: Outgoing) -> Result<(), WireError> {
        let bytes = match &item {
            Outgoing::Binary(bytes) => bytes.len(),
            Outgoing::Text(text) => text.len(),
            Outgoing::Ping | Outgoing::Close(_) => 0,
        };
        let started = Instant::now();
        // A peer that reads too slowly is not told so: what it has not read yet stands before that.
        let hurried = self.waited_for.as_ref().is_some_and(|by| *by.borrow() > 0);
        let left = if hurried { self.patience.left_hurried() } else { self.patience.left() };
        let at_most = self.idle.min(left);
        let sent = self.runtime.block_on(async { timeout(at_most, self.outbox.send(item, bytes)).await });
        self.patience.waited(started.elapsed(), bytes);
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

/// Returns when so much time is over and somebody waits.
async fn in_the_way(waited_for: Option<&mut watch::Receiver<usize>>, left: Duration) {
    if let Some(waited_for) = waited_for {
        sleep(left).await;
        if waited_for.wait_for(|waiting| *waiting > 0).await.is_ok() {
            return;
        }
    }
    std::future::pending().await
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
        let SocketWire { runtime, inbox, outbox, signal, idle, patience, waited_for, .. } = self;
        let (at_most, else_) = match patience.left() {
            left if left < *idle => (left, WireError::Slow),
            _ => (*idle, WireError::Idle),
        };
        let mut waiting = None;
        let received = runtime.block_on(async {
            let too_long = async {
                // The peer cannot answer what is still on its way to it, over a line that may be slow.
                outbox.drained().await;
                waiting = Some(Instant::now());
                tokio::select! {
                    biased;
                    () = sleep(at_most) => else_,
                    () = in_the_way(waited_for.as_mut(), patience.left_hurried()) => WireError::InTheWay,
                }
            };
            tokio::select! {
                biased;
                signal = told(signal, Signal::cuts) => Err(WireError::Ended(End::of(signal))),
                received = inbox.receive() => received.transpose().map_err(WireError::Ended),
                error = too_long => Err(error),
            }
        })?;
        let waited = waiting.map_or(Duration::ZERO, |since| since.elapsed());
        patience.waited(waited, received.as_ref().map_or(0, Bytes::len));
        Ok(received)
    }

    fn agreed(&mut self, version: u8) {
        self.version = version;
        self.cutter.agreed(version);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Runtime;

    use super::super::queue::{Sender, queue};
    use super::*;

    const MOMENT: Duration = Duration::from_millis(100);

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
    }

    struct Bench {
        peer: Sender<Incoming>,
        written: Receiver<Outgoing>,
        _signal: watch::Sender<Signal>,
    }

    fn wire(runtime: &Runtime, idle: Duration, patience: Patience) -> (SocketWire<'static>, Bench) {
        let ((outbox, written), (peer, inbox)) = (queue(1000), queue(1000));
        let (sender, signal) = watch::channel(Signal::Go);
        let wire = SocketWire {
            runtime: runtime.handle().clone(),
            outbox,
            inbox,
            signal,
            idle,
            patience,
            waited_for: None,
            cutter: Cutter::to_client(),
            notes: None,
            version: 0,
            own_client: false,
            failed: None,
        };
        (wire, Bench { peer, written, _signal: sender })
    }

    #[test]
    fn a_peer_that_trickles_is_slow_and_one_that_is_silent_is_idle() {
        let runtime = runtime();
        let (mut trickled, bench) = wire(&runtime, 1000 * MOMENT, Patience::new(1 << 20, 2 * MOMENT, MOMENT));
        let trickle = runtime.spawn(async move {
            while bench.peer.send(Ok(Bytes::from_static(b"x")), 1).await.is_ok() {
                sleep(MOMENT / 10).await;
            }
        });
        let error = loop {
            if let Err(error) = trickled.receive() {
                break error;
            }
        };
        assert_eq!(error, WireError::Slow);
        drop(trickled);
        runtime.block_on(trickle).unwrap();

        let (mut silent, _bench) = wire(&runtime, MOMENT, Patience::new(1, 1000 * MOMENT, MOMENT));
        assert_eq!(silent.receive().unwrap_err(), WireError::Idle);
    }

    #[test]
    fn a_peer_that_trickles_is_in_the_way_only_while_others_wait() {
        let runtime = runtime();
        let (mut wire, bench) = wire(&runtime, 100 * MOMENT, Patience::new(1 << 20, 1000 * MOMENT, MOMENT));
        let (waiting, waited_for) = watch::channel(0);
        wire.waited_for(waited_for);
        let trickle = runtime.spawn(async move {
            while bench.peer.send(Ok(Bytes::from_static(b"x")), 1).await.is_ok() {
                sleep(MOMENT / 10).await;
            }
        });
        let started = Instant::now();
        while started.elapsed() < 3 * MOMENT {
            assert_eq!(wire.receive().unwrap().unwrap(), "x", "nobody waits");
        }
        waiting.send_replace(1);
        let error = loop {
            if let Err(error) = wire.receive() {
                break error;
            }
        };
        assert_eq!(error, WireError::InTheWay);
        drop(wire);
        runtime.block_on(trickle).unwrap();
    }

    #[test]
    fn time_in_which_the_server_works_or_its_own_bytes_are_on_the_way_does_not_count() {
        let runtime = runtime();
        // Longer than the peer is kept from answering by whatever else the machine does.
        let idle = 10 * MOMENT;
        let (mut wire, mut bench) = wire(&runtime, idle, Patience::new(1000, idle, idle));
        wire.put(Outgoing::Ping).unwrap();
        let peer = runtime.spawn(async move {
            // A slow line: it takes longer than the idle time until the peer has read it all.
            sleep(2 * idle).await;
            bench.written.receive().await;
            bench.peer.send(Ok(Bytes::from_static(b"answer")), 6).await.unwrap();
            bench
        });
        assert_eq!(wire.receive().unwrap().unwrap(), "answer");
        runtime.block_on(peer).unwrap();
    }
}
