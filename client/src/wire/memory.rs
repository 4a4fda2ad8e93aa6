//! A wire between two threads of this process: for a local copy.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use sqlrsync_protocol::conversation::Wire;

use super::{Cancel, Traffic, WireError};

/// Messages on their way in one direction; each is at most a few hundred kilobytes.
const MESSAGES_MAX: usize = 8;

/// How often a waiting side looks whether it is to stop.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// One end.
#[derive(Debug)]
pub struct Memory {
    out: SyncSender<Bytes>,
    inward: Receiver<Bytes>,
    cancel: Cancel,
    traffic: Traffic,
}

/// The two ends of a wire.
pub fn pair(cancel: &Cancel) -> (Memory, Memory) {
    let (left_out, right_in) = sync_channel(MESSAGES_MAX);
    let (right_out, left_in) = sync_channel(MESSAGES_MAX);
    let end = |out, inward| Memory { out, inward, cancel: cancel.clone(), traffic: Traffic::default() };
    (end(left_out, left_in), end(right_out, right_in))
}

impl Memory {
    /// What went over this end.
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }
}

impl Wire for Memory {
    type Error = WireError;

    fn send(&mut self, bytes: Bytes) -> Result<(), WireError> {
        if self.cancel.is_cancelled() {
            return Err(WireError::Cancelled);
        }
        self.traffic.add_sent(bytes.len());
        // It may wait, but not for ever: who receives looks at the same flag, and hangs up.
        self.out.send(bytes).map_err(|_| WireError::Closed)
    }

    fn receive(&mut self) -> Result<Option<Bytes>, WireError> {
        while !self.cancel.is_cancelled() {
            match self.inward.recv_timeout(CANCEL_POLL) {
                Ok(bytes) => {
                    self.traffic.add_received(bytes.len());
                    return Ok(Some(bytes));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Err(WireError::Cancelled)
    }
}
