//! Thousands of subscribers in this process: WebSockets by hand, a task and a few hundred bytes each, so
//! that what is measured is the server and not them.
//!
//! A subscriber answers pings, as every WebSocket program does, and notes when it was told of which
//! version. They come from several loopback addresses, so that there are ports enough.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// How many open their connection at the same time.
const OPENING_MAX: usize = 128;

/// How many addresses they come from: 127.0.0.2 and on.
const ADDRESSES: usize = 8;

/// The longest message that a server sends here, in bytes.
const MESSAGE_MAX: usize = 1024;

/// The largest answer to the request for a WebSocket, in bytes.
const HEAD_MAX: usize = 4096;

/// Subscribers to one replica. They go when it is dropped.
#[derive(Debug)]
pub struct Crowd {
    board: Arc<Board>,
    runtime: Option<Runtime>,
}

/// What they were told.
#[derive(Debug, Default)]
struct Board {
    /// How many were told, and by when the first, the middle one and the last, of the version that is
    /// waited for.
    told: Mutex<Told>,
    more: Condvar,
    version: AtomicU64,
    subscribed: AtomicUsize,
    lost: AtomicUsize,
    /// Those that were made to stop reading do.
    stop_reading: AtomicBool,
}

#[derive(Debug, Default)]
struct Told {
    at: Vec<Instant>,
}

/// When a version was told.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To the first of them.
    pub first: Instant,
    /// To the middle one.
    pub middle: Instant,
    /// To the last one.
    pub last: Instant,
}

/// What the members of a crowd do.
#[derive(Clone, Copy, Debug)]
pub struct Members {
    /// Those that read.
    pub reading: usize,
    /// Those that read and answer once and then stop, with the smallest receive buffer there is.
    pub stalled: usize,
}

impl Crowd {
    /// Opens them all; each has been told of the version that is the newest.
    ///
    /// # Errors
    /// One could not be opened, or it took longer than `at_most`.
    pub fn open(
        server: SocketAddr,
        replica: &str,
        key: &str,
        members: Members,
        at_most: Duration,
    ) -> io::Result<Crowd> {
        Crowd::open_over(None, server, replica, key, members, at_most)
    }

    /// The same, over TLS where what is to be trusted is given.
    ///
    /// # Errors
    /// As [`Crowd::open`].
    pub fn open_over(
        tls: Option<Arc<ClientConfig>>,
        server: SocketAddr,
        replica: &str,
        key: &str,
        members: Members,
        at_most: Duration,
    ) -> io::Result<Crowd> {
        let tls = tls.map(TlsConnector::from);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let board = Arc::new(Board::default());
        let doors = Arc::new(Semaphore::new(OPENING_MAX));
        for number in 0..members.reading + members.stalled {
            let (board, doors, tls) = (board.clone(), doors.clone(), tls.clone());
            let request = request(replica, key, number);
            let stalls = number >= members.reading;
            runtime.spawn(async move {
                let outcome = async {
                    let door = doors.acquire().await.map_err(io::Error::other)?;
                    let stream = connect(number, server, stalls).await?;
                    match tls {
                        None => subscriber(stream, &request, stalls, &board, door).await,
                        Some(tls) => {
                            let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
                            let stream = tls.connect(name, stream).await?;
                            subscriber(stream, &request, stalls, &board, door).await
                        }
                    }
                }
                .await;
                if outcome.is_err() {
                    board.lost.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let crowd = Crowd { board, runtime: Some(runtime) };
        let deadline = Instant::now() + at_most;
        while crowd.board.subscribed.load(Ordering::SeqCst) < members.reading + members.stalled {
            if crowd.lost() > 0 || Instant::now() > deadline {
                let (open, lost) = (crowd.board.subscribed.load(Ordering::SeqCst), crowd.lost());
                return Err(io::Error::other(format!("{open} subscribers are open and {lost} were lost")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        crowd.board.stop_reading.store(true, Ordering::SeqCst);
        Ok(crowd)
    }

    /// How many connections ended.
    pub fn lost(&self) -> usize {
        self.board.lost.load(Ordering::SeqCst)
    }

    /// From now on what counts is who was told of this version, or a later one.
    pub fn expect(&self, version: u64) {
        let mut told = self.board.lock();
        told.at.clear();
        self.board.version.store(version, Ordering::SeqCst);
    }

    /// Waits until so many were told of the version; `None` where that takes longer than `at_most`.
    pub fn told(&self, count: usize, at_most: Duration) -> Option<Times> {
        let told = self.board.lock();
        let waited = self.board.more.wait_timeout_while(told, at_most, |told| told.at.len() < count);
        let (told, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let at = told.at.get(..count)?;
        Some(Times { first: *at.first()?, middle: *at.get(count / 2)?, last: *at.last()? })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, before: &mut u64, version: u64) {
        let wanted = self.version.load(Ordering::SeqCst);
        if wanted > 0 && *before < wanted && version >= wanted {
            let mut told = self.lock();
            told.at.push(Instant::now());
            drop(told);
            self.more.notify_all();
        }
        *before = version.max(*before);
    }
}

/// Each is a machine of its own: a server may keep what it knows of each.
fn request(replica: &str, key: &str, number: usize) -> Vec<u8> {
    let head = format!(
        "GET /sapi/subscribe/{replica} HTTP/1.1\r\nHost: crowd\r\nAuthorization: {key}\r\nX-ClientID: crowd-{number}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.extend(frame(0x1, br#"{"type":"SUBSCRIBE","data":{},"timestamp":"2026-01-01T00:00:00Z"}"#));
    bytes
}

/// A client's frame. With a mask of zeros its content goes as it is.
fn frame(opcode: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).ok().filter(|len| *len < 126).expect("a short message");
    let mut bytes = vec![0x80 | opcode, 0x80 | len, 0, 0, 0, 0];
    bytes.extend_from_slice(content);
    bytes
}

async fn subscriber(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
    stalls: bool,
    board: &Board,
    door: SemaphorePermit<'_>,
) -> io::Result<()> {
    stream.write_all(request).await?;
    read_head(&mut stream).await?;
    let mut told = 0;
    let (mut counted, mut answered) = (false, false);
    let mut door = Some(door);
    loop {
        if stalls && answered && board.stop_reading.load(Ordering::SeqCst) {
            // Holds the connection and reads nothing more.
            return std::future::pending().await;
        }
        let (opcode, content) = read_message(&mut stream).await?;
        match opcode {
            0x1 => {
                if let Some(version) = latest_version(&content) {
                    board.note(&mut told, version);
                }
            }
            0x8 => return Err(io::Error::other("closed")),
            0x9 => {
                stream.write_all(&frame(0xA, &content)).await?;
                answered = true;
            }
            _ => {}
        }
        if answered && told > 0 && !counted {
            counted = true;
            board.subscribed.fetch_add(1, Ordering::SeqCst);
            drop(door.take());
        }
    }
}

async fn connect(number: usize, server: SocketAddr, small: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + number % ADDRESSES).unwrap_or(2);
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0))?;
    if small {
        socket.set_recv_buffer_size(1)?;
    }
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads the answer to the request, byte by byte: what follows it is a message already.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        if head.len() > HEAD_MAX {
            return Err(io::Error::other("an endless answer"));
        }
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()))
    }
}

/// The next message's opcode and content.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let len = match head[1] & 0x7f {
        126 => usize::from(stream.read_u16().await?),
        127 => usize::MAX,
        len => usize::from(len),
    };
    if len > MESSAGE_MAX {
        return Err(io::Error::other("a message that is too long"));
    }
    let mut content = vec![0; len];
    stream.read_exact(&mut content).await?;
    Ok((head[0] & 0x0f, content))
}

fn latest_version(text: &[u8]) -> Option<u64> {
    let message: serde_json::Value = serde_json::from_slice(text).ok()?;
    (message["type"] == "LATEST_VERSION").then(|| message["data"]["version"].as_str()?.parse().ok())?
}
