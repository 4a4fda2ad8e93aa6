//! The accept loop: counts connections, does TLS, and serves HTTP/1.1 with a time limit on
//! everything that a peer can make slow.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tower_service::Service;

use crate::gate::{Full, Gate, Permit};
use crate::http::answer;
use crate::linger::Lingering;
use crate::refused::{Refused, Why};
use crate::tls::Tls;

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// How long a connection may last that carries requests and no WebSocket: what ends a peer that
/// does not read its answers.
const REQUESTS_TIME_MAX: Duration = Duration::from_secs(300);

/// How many connections over the limit are told so at the same time; the others are just closed.
const REFUSALS_MAX: usize = 64;

/// How long a refused connection may take to read why.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(5);

/// How long to wait where the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time limits of a connection before it is a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, also of the next one on the same connection.
    pub header: Duration,
}

/// Who is at the other end of a request; an extension of each.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address: a proxy's, where one is in front.
    pub address: IpAddr,
    /// Held for as long as the connection lasts, in whatever form.
    pub permit: Arc<Permit>,
}

/// Everything that the loop needs.
pub struct Listener {
    /// Bound and listening.
    pub socket: TcpListener,
    /// `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Counts connections.
    pub gate: Arc<Gate>,
    /// A connection is a proxy's and does not count by address.
    pub behind_proxy: bool,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Answers the requests.
    pub router: Router,
}

/// How a connection learns that the server stops, and the server that the connection has ended.
struct Ending {
    stop: watch::Receiver<bool>,
    _open: mpsc::Sender<()>,
}

impl Listener {
    /// Accepts until `stop` says true, then lets requests that are being answered finish.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        // Every connection holds a sender: when none is left, `gone` ends.
        let (open, mut gone) = mpsc::channel(1);
        let refusals = Gate::new(REFUSALS_MAX, REFUSALS_MAX);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    self.admit(
                        stream,
                        address,
                        &refusals,
                        Ending { stop: stop.clone(), _open: open.clone() },
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        drop(open);
        let _: Option<()> = gone.recv().await;
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, refusals: &Arc<Gate>, ending: Ending) {
        let ip = address.ip().to_canonical();
        let counted = (!self.behind_proxy).then_some(ip);
        let admitted = match self.gate.admit(counted) {
            Ok(permit) => Ok(Peer { address: ip, permit: Arc::new(permit) }),
            Err(full) => {
                tracing::warn!(peer = %ip, ?full, "connection over the limit");
                // Without room even for the refusal the connection is dropped here.
                let Ok(permit) = refusals.admit(None) else { return };
                Err((full, Arc::new(permit)))
            }
        };
        // Small messages answer each other in a sync; waiting to fill packets costs a round trip each.
        let _ = stream.set_nodelay(true);
        let permit = match &admitted {
            Ok(peer) => &peer.permit,
            Err((_, permit)) => permit,
        };
        let stream = Lingering::new(stream, permit.clone());
        let (tls, timeouts, router) =
            (self.tls.as_ref().map(Tls::acceptor), self.timeouts, self.router.clone());
        tokio::spawn(async move {
            let Some(tls) = tls else {
                return serve(stream, admitted, timeouts, router, ending).await;
            };
            match timeout(timeouts.handshake, tls.accept(stream)).await {
                Ok(Ok(stream)) => serve(stream, admitted, timeouts, router, ending).await,
                Ok(Err(error)) => tracing::debug!(peer = %ip, %error, "no TLS handshake"),
                Err(_) => tracing::debug!(peer = %ip, "TLS handshake took too long"),
            }
        });
    }
}

async fn serve<S>(
    stream: S,
    admitted: Result<Peer, (Full, Arc<Permit>)>,
    timeouts: Timeouts,
    router: Router,
    ending: Ending,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(timeouts.header)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let stream = TokioIo::new(stream);
    match admitted {
        Ok(peer) => {
            let address = peer.address;
            let service = service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                router.clone().call(request)
            });
            let mut connection = pin!(http.serve_connection(stream, service).with_upgrades());
            let Ending { mut stop, _open } = ending;
            let ended = timeout(REQUESTS_TIME_MAX, async {
                tokio::select! {
                    ended = &mut connection => return ended,
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                // The request that is being answered still is; another one is not read.
                connection.as_mut().graceful_shutdown();
                connection.await
            });
            if let Ok(Err(error)) = ended.await {
                tracing::debug!(peer = %address, %error, "connection ended");
            }
        }
        Err((full, _permit)) => {
            http.keep_alive(false);
            let service = service_fn(move |_| async move { Ok::<_, Infallible>(over_limit(full)) });
            let _ = timeout(REFUSAL_TIME_MAX, http.serve_connection(stream, service)).await;
        }
    }
}

fn over_limit(full: Full) -> hyper::Response<Body> {
    answer::refusal(&match full {
        Full::All => {
            Refused::new(Why::TryLater, "the server has as many connections as it takes: try again later")
        }
        Full::Address => address_full(),
    })
}

/// What a peer is told whose address has too many connections.
pub fn address_full() -> Refused {
    Refused::new(Why::TooMany, "there are too many connections from this address: try again later")
}
