//! A transfer's thread, and the loop that hands it what the socket brings.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::end::End;
use super::queue::{Receiver, Sender, queue};
use super::reader::{Read, Reader};
use super::wire::Incoming;
use super::writer::Outbox;
use super::{Heartbeat, Limits};
use crate::backend::Backend;
use crate::sessions::Signal;

/// What a transfer's thread needs of its session.
#[derive(Clone)]
pub struct Parts {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Waits for queues.
    pub runtime: Handle,
    /// Ends the session.
    pub signal: watch::Receiver<Signal>,
    /// Limits.
    pub limits: Limits,
    /// Names the session in the logs.
    pub session: u64,
}

/// A transfer that runs, or is about to.
pub struct Transfer {
    inbox: Sender<Incoming>,
    finished: oneshot::Receiver<End>,
    limits: Limits,
}

impl Transfer {
    /// Prepares (async) what `prepare` says, and then runs what that returns on a thread of its own.
    pub fn start<F, W>(
        kind: &'static str,
        limits: Limits,
        prepare: impl FnOnce(Receiver<Incoming>) -> F,
    ) -> Transfer
    where
        F: Future<Output = W> + Send + 'static,
        W: FnOnce() -> End + Send + 'static,
    {
        let (inbox, received) = queue(limits.queue_bytes_max);
        let (finish, finished) = oneshot::channel();
        let preparing = prepare(received);
        tokio::spawn(async move {
            let work = preparing.await;
            let spawned = std::thread::Builder::new().name(kind.to_owned()).spawn(move || {
                // Nobody waits any more where the session was given up.
                let _ = finish.send(work());
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread for a {kind}");
            }
        });
        Transfer { inbox, finished, limits }
    }

    /// Hands the thread what comes, until it has finished; `first` was read already.
    pub async fn feed(self, first: Bytes, reader: &mut Reader, outbox: &Outbox) -> End {
        let Transfer { inbox, mut finished, limits } = self;
        // Dropped when the peer is gone: the thread then sees the end of the stream.
        let mut inbox = Some(inbox);
        if let (Some(inbox), false) = (&inbox, first.is_empty()) {
            let len = first.len();
            inbox.try_send(Ok(first), len);
        }
        let mut heartbeat = Heartbeat::new(limits.ping);
        loop {
            let read = tokio::select! {
                biased;
                end = &mut finished => {
                    // The thread panicked, or there was none.
                    return end.unwrap_or(End::Failed);
                }
                // Keeps a peer waiting that hears nothing while its push is committed. A transfer has its
                // own idle time, so that whether it answers does not matter.
                _ = heartbeat.beat(outbox) => continue,
                read = reader.next(), if inbox.is_some() => read,
            };
            let incoming = match read {
                Read::Stream(bytes) => Ok(bytes),
                Read::Invalid(error) => {
                    tracing::debug!(%error, "the peer broke the rules");
                    Err(End::Invalid)
                }
                Read::TooLong => Err(End::TooLong { max: limits.message_bytes_max }),
                Read::Gone => {
                    inbox = None;
                    continue;
                }
                Read::CommitMessage(_) | Read::Changed(_) | Read::Alive => continue,
            };
            let (len, last) = (incoming.as_ref().map_or(0, Bytes::len), incoming.is_err());
            // The thread takes it, or ends and drops its end.
            let taken = match &inbox {
                Some(inbox) => inbox.send(incoming, len).await.is_ok(),
                None => false,
            };
            if last || !taken {
                inbox = None;
            }
        }
    }
}
