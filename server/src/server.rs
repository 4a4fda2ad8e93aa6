//! A running server: bound, serving, and stopped in good order.
//!
//! Stopping: no new connection is taken; sessions without a transfer end at once (close code 1001);
//! transfers may finish for [`FINISH_TIME`], then they are cut; after [`STOP_TIME`] more the server
//! is done, whatever still runs. Ten seconds in all are promised.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlrsync_repository::Repository;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backend::{Activity, Backend};
use crate::catalog::{self, ActivityTable, Catalog};
use crate::data_folder::{self, DataFolder, Lock};
use crate::first_start;
use crate::gate::Gate;
use crate::http::router::{App, router};
use crate::listener::{Listener, Timeouts};
use crate::new_key;
use crate::refused::Refused;
use crate::revocations;
use crate::session::Limits;
use crate::sessions::{Sessions, Signal};
use crate::settings::Settings;
use crate::sweeper;
use crate::tls::{self, Tls};

/// How long transfers may go on after the server was told to stop.
const FINISH_TIME: Duration = Duration::from_secs(7);

/// How long what was cut may take to end.
const STOP_TIME: Duration = Duration::from_secs(2);

/// How many connections may wait to be accepted, where the system allows as many: after a restart all
/// subscribers come back at once, and one that finds no place tries again a second later at the earliest.
const BACKLOG: u32 = 4096;

/// How long it may take to write what clients did last.
const NOTE_TIME: Duration = Duration::from_millis(300);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder.
    #[error(transparent)]
    DataFolder(#[from] data_folder::Error),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The first admin key.
    #[error(transparent)]
    Key(#[from] new_key::Error),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] sqlrsync_repository::Error),
    /// What the repository holds cannot be registered.
    #[error("the repository's replicas cannot be looked through: {0}")]
    Recovery(Refused),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The namespace of the first start has a name that none may have.
    #[error("{name:?} cannot be the first namespace: {error}")]
    Namespace {
        /// The name.
        name: String,
        /// What is wrong with it.
        error: sqlrsync_protocol::remote::NameError,
    },
    /// What was given is no address.
    #[error("{0:?} is no address to listen on: give HOST:PORT, as in 127.0.0.1:7777")]
    Address(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As it was given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The system gives no more threads.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// Keys would travel in the clear.
    #[error(
        "{0} can be reached from other machines, and keys would travel in the clear: use --tls-cert and \
         --tls-key, or --behind-proxy where a proxy does TLS"
    )]
    PlainHttp(SocketAddr),
}

/// What a server serves, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder; it is made where there is none.
    pub data: PathBuf,
    /// Everything else.
    pub settings: Settings,
}

/// A running server. Dropped without [`Server::shutdown`] it goes on until the runtime ends.
pub struct Server {
    address: SocketAddr,
    tls: Option<Tls>,
    first_key: Option<first_start::FirstKey>,
    backend: Arc<Backend>,
    sessions: Arc<Sessions>,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    background: [JoinHandle<()>; 2],
    _revocations: revocations::Watch,
    activity: Arc<Activity>,
    temporary: PathBuf,
    _lock: Lock,
}

impl Server {
    /// Opens the data folder, listens, and serves on the current runtime from now on.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Server, Error> {
        let settings = &config.settings;
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => {
                Some(Tls::load(tls::Files { certificate: certificate.clone(), key: key.clone() })?)
            }
            _ => None,
        };
        let plain_is_safe = tls.is_some() || settings.behind_proxy;
        let socket = listen(&settings.listen, plain_is_safe).await?;
        let address = socket
            .local_addr()
            .map_err(|source| Error::Listen { address: settings.listen.clone(), source })?;
        let folder = DataFolder::create(&config.data)?;
        let lock = folder.lock()?;
        let temporary = folder.temporary(&lock)?;
        let catalog = Catalog::open(&folder.catalog())?;
        let first_key = first_start::prepare(&catalog, &settings.namespace)?;

        let sessions = Arc::new(Sessions::default());
        let revocations =
            revocations::watch(Catalog::open(&folder.catalog())?, sessions.clone()).map_err(Error::Thread)?;
        let repository = Repository::local(&folder.repository(), Handle::current())?;
        let activity = Activity::new(ActivityTable::open(&folder.catalog())?);
        let backend =
            Arc::new(Backend::new(catalog, repository, activity.clone(), sessions.clone(), settings));
        sweeper::sweep_alone(&backend.repository).await;
        recover(&backend).await?;
        let sweeper = sweeper::start(backend.repository.clone(), settings.sweep_interval.duration());
        let writer = activity.start();
        let gate = Gate::new(settings.connections_max, settings.connections_per_address_max);
        let behind_proxy = settings.behind_proxy;
        let router = router(App {
            backend: backend.clone(),
            limits: Limits::of(settings),
            gate: gate.clone(),
            behind_proxy,
        });
        let timeouts = Timeouts {
            handshake: settings.handshake_timeout.duration(),
            header: settings.header_timeout.duration(),
        };
        let (stop, stopped) = watch::channel(false);
        let listener = Listener { socket, tls: tls.clone(), gate, behind_proxy, timeouts, router };
        let listener = tokio::spawn(listener.run(stopped));
        Ok(Server {
            address,
            tls,
            first_key,
            backend,
            sessions,
            stop,
            listener,
            background: [sweeper, writer],
            _revocations: revocations,
            activity,
            temporary,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The folder for temporary files. It is for whose process this is to say that they go there.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// What it does without HTTP, for a program that runs a server inside itself.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// The key that the first start of a data folder makes, once.
    pub fn take_first_key(&mut self) -> Option<first_start::FirstKey> {
        self.first_key.take()
    }

    /// Reads certificate and key again, for connections from now on.
    pub fn reload_tls(&self) {
        match self.tls.as_ref().map(Tls::reload) {
            None => tracing::info!("nothing to read again: there is no TLS"),
            Some(Ok(())) => tracing::info!("read the certificate and the key again"),
            Some(Err(error)) => tracing::error!(%error, "the old certificate stays in use"),
        }
    }

    /// Stops as the module says.
    pub async fn shutdown(self) {
        tracing::info!(sessions = self.sessions.count(), "stopping");
        self.stop.send_replace(true);
        self.sessions.signal_all(Signal::Stopping);
        if timeout(FINISH_TIME, self.sessions.none_left()).await.is_err() {
            tracing::warn!(sessions = self.sessions.count(), "cutting what has not finished");
            self.sessions.signal_all(Signal::Stop);
            let _ = timeout(STOP_TIME, self.sessions.none_left()).await;
        }
        // Requests without a WebSocket are short; who is slow to read an answer is not waited for.
        let _ = timeout(Duration::from_millis(500), self.listener).await;
        self.background.iter().for_each(JoinHandle::abort);
        let _ = timeout(NOTE_TIME, self.activity.write_off_the_async_threads()).await;
        tracing::info!("stopped");
    }
}

/// Registers what the catalog has lost, and puts into the audit log what a server that was killed did last.
async fn recover(backend: &Arc<Backend>) -> Result<(), Error> {
    let found = backend.blocking(|backend| backend.register_found()).await.map_err(Error::Recovery)?;
    if found > 0 {
        tracing::warn!(replicas = found, "registered replicas that the catalog did not know");
    }
    let pending = backend.blocking(|backend| Ok(backend.conclude_pending(None)?)).await;
    pending.map_err(Error::Recovery)?;
    Ok(())
}

/// Binds the first address of `text` that can be bound.
async fn listen(text: &str, plain_is_safe: bool) -> Result<TcpListener, Error> {
    let fail = |source| Error::Listen { address: text.to_owned(), source };
    let addresses: Vec<SocketAddr> = match text.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        // As opposed to a name that cannot be looked up now.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(Error::Address(text.to_owned()));
        }
        Err(error) => return Err(fail(error)),
    };
    if let Some(open) = addresses.iter().find(|address| !plain_is_safe && !address.ip().is_loopback()) {
        return Err(Error::PlainHttp(*open));
    }
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match bind(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(fail(failed))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that starts again must not wait until its old connections are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
