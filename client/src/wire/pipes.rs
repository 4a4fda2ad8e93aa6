//! A wire over two byte streams: stdin and stdout, or the pipes of a program.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use bytes::Bytes;
use sqlrsync_protocol::conversation::Wire;

use super::{Cancel, Traffic, WireError};

/// What one read takes at most, in bytes.
const READ_LEN: usize = 64 * 1024;

/// Reads that wait to be taken.
const QUEUE_MAX: usize = 16;

/// A wire over a reader and a writer. A thread of its own reads, so that a peer that writes while we
/// write is not kept waiting for us.
pub struct Pipes {
    /// `None` once we have hung up.
    out: Option<Box<dyn Write + Send>>,
    inward: Receiver<io::Result<Bytes>>,
    cancel: Cancel,
    traffic: Traffic,
}

impl Pipes {
    /// Takes both streams. The reading thread ends with its stream.
    pub fn new(
        inward: impl Read + Send + 'static,
        out: impl Write + Send + 'static,
        cancel: &Cancel,
    ) -> Pipes {
        let (give, take) = sync_channel(QUEUE_MAX);
        let traffic = Traffic::default();
        let count = traffic.clone();
        let mut inward = inward;
        thread::spawn(move || {
            let mut buffer = vec![0; READ_LEN];
            loop {
                let read = match inward.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(len) => Ok(Bytes::copy_from_slice(&buffer[..len])),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                count.add_received(read.as_ref().map_or(0, Bytes::len));
                let last = read.is_err();
                if give.send(read).is_err() || last {
                    return;
                }
            }
        });
        Pipes { out: Some(Box::new(out)), inward: take, cancel: cancel.clone(), traffic }
    }

    /// What went over it.
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    fn failed(&self, error: io::Error) -> WireError {
        match error.kind() {
            _ if self.cancel.is_cancelled() => WireError::Cancelled,
            io::ErrorKind::BrokenPipe => WireError::Closed,
            _ => WireError::Io(error),
        }
    }
}

impl Wire for Pipes {
    type Error = WireError;

    fn send(&mut self, bytes: Bytes) -> Result<(), WireError> {
        let out = self.out.as_mut().ok_or(WireError::Closed)?;
        let sent = out.write_all(&bytes).and_then(|()| out.flush());
        sent.map_err(|error| self.failed(error))?;
        self.traffic.add_sent(bytes.len());
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, WireError> {
        match self.inward.recv() {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) if self.cancel.is_cancelled() => Err(WireError::Cancelled),
            Err(_) => Ok(None),
        }
    }
}
