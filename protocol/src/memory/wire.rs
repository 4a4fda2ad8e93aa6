//! Two ends of a wire in memory, for two sides on two threads. It can be made to hold next to nothing,
//! and to break after a number of bytes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;

use crate::conversation::Wire;

/// How long an end waits for the other one: minutes, since only two sides that wait for each other take as long.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// The wire was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the wire was cut")]
pub struct WireCut;

/// One end.
#[derive(Debug)]
pub struct MemoryWire {
    out: Option<SyncSender<Bytes>>,
    input: Receiver<Bytes>,
    /// Pieces of at most so many bytes are sent.
    piece: usize,
    /// So many bytes more can be sent.
    left: usize,
    /// All that was sent, for those who want to look.
    pub sent: Vec<u8>,
    /// The version agreed on.
    pub version: Option<u8>,
}

/// Two ends of a wire that cuts what is sent into pieces of at most `piece` bytes and holds `room` of
/// them in each direction (0: a sender waits until its piece is taken).
pub fn wires(piece: usize, room: usize) -> (MemoryWire, MemoryWire) {
    let (a_out, b_in) = sync_channel(room);
    let (b_out, a_in) = sync_channel(room);
    let end = |out, input| MemoryWire {
        out: Some(out),
        input,
        piece: piece.max(1),
        left: usize::MAX,
        sent: Vec::new(),
        version: None,
    };
    (end(a_out, a_in), end(b_out, b_in))
}

impl MemoryWire {
    /// Breaks the wire once this end has sent so many bytes.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.left = bytes;
        self
    }
}

impl Wire for MemoryWire {
    type Error = WireCut;

    fn send(&mut self, bytes: Bytes) -> Result<(), WireCut> {
        let fits = bytes.len().min(self.left);
        self.left -= fits;
        self.sent.extend_from_slice(&bytes[..fits]);
        let out = self.out.as_ref().ok_or(WireCut)?;
        for piece in bytes[..fits].chunks(self.piece) {
            out.send(Bytes::copy_from_slice(piece)).map_err(|_| WireCut)?;
        }
        if fits < bytes.len() {
            self.out = None;
            return Err(WireCut);
        }
        Ok(())
    }

    /// # Panics
    /// The other end neither says anything nor goes, for minutes: a test that hangs is a failed test.
    fn receive(&mut self) -> Result<Option<Bytes>, WireCut> {
        match self.input.recv_timeout(SILENCE_MAX) {
            Ok(piece) => Ok(Some(piece)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => panic!("the other side of the wire hangs"),
        }
    }

    fn agreed(&mut self, version: u8) {
        self.version = Some(version);
    }
}
