//! Connections whose peers get to read what they were told last.
//!
//! A system that closes a socket with bytes in it that nobody has read, or that gets more of them, answers with a
//! reset; and a peer that gets a reset loses what it has not read yet: why it was refused. So where the server
//! is done with a connection before its peer is, it says that nothing more will come, and reads on for a bounded
//! time and number of bytes, which it throws away. The connection counts against the limits for as long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::gate::Permit;

/// For how long it is read on.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// How many bytes are read and thrown away: a peer that sends more than this after the end reads nothing at all.
const LINGER_BYTES_MAX: u64 = 64 << 20;

/// Thrown away at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// A connection that lingers when it is dropped.
#[derive(Debug)]
pub struct Lingering {
    /// `None` only while it is dropped.
    stream: Option<TcpStream>,
    /// The peer has said that nothing more comes, or the connection broke: there is nothing to wait for.
    over: bool,
    permit: Arc<Permit>,
}

impl Lingering {
    /// Of a connection that was let in with this permit, which is held to the very end.
    pub fn new(stream: TcpStream, permit: Arc<Permit>) -> Lingering {
        Lingering { stream: Some(stream), over: false, permit }
    }

    /// Polls the stream; a connection that broke is over.
    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let polled = poll(Pin::new(stream));
        self.over |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (into.filled().len(), into.remaining());
        let polled = self.poll(|stream| stream.poll_read(context, into));
        self.over |= matches!(polled, Poll::Ready(Ok(()))) && room > 0 && into.filled().len() == before;
        polled
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(context, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context))
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let (Some(stream), false) = (self.stream.take(), self.over) else { return };
        // Where the runtime ends there is nobody left to wait.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(linger(stream, self.permit.clone()));
        }
    }
}

async fn linger(mut stream: TcpStream, _permit: Arc<Permit>) {
    let read_on = async {
        stream.shutdown().await?;
        let (mut thrown, mut left) = ([0; CHUNK], LINGER_BYTES_MAX);
        loop {
            match stream.read(&mut thrown).await? as u64 {
                0 => return Ok::<_, io::Error>(()),
                len if len > left => return Ok(()),
                len => left -= len,
            }
        }
    };
    // A peer that is gone, or that never stops, is left to the system.
    let _ = timeout(LINGER_TIME_MAX, read_on).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::gate::Gate;

    /// Both ends of a connection, and the gate that it was let in by.
    async fn connection() -> (TcpStream, Lingering, Arc<Gate>) {
        let gate = Gate::new(1, 1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let permit = Arc::new(gate.admit(None).unwrap());
        (peer.unwrap(), Lingering::new(accepted.unwrap().0, permit), gate)
    }

    #[tokio::test]
    async fn a_peer_that_is_in_the_middle_of_sending_reads_what_it_was_told_last() {
        let (mut peer, mut stream, gate) = connection().await;
        stream.write_all(b"that is too long").await.unwrap();
        drop(stream);
        assert!(gate.admit(None).is_err(), "it counts while it is read on");
        // More than the sockets' buffers hold: it is taken, or this would wait for ever.
        peer.write_all(&vec![7; 16 << 20]).await.unwrap();
        let mut told = String::new();
        peer.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "that is too long");
        drop(peer);
        while gate.admit(None).is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_peer_that_has_closed_is_not_waited_for() {
        let (peer, mut stream, gate) = connection().await;
        drop(peer);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        drop(stream);
        assert!(gate.admit(None).is_ok());
    }
}
