//! The public client, as far as a server can tell: `sqlite3_rsync` behind a WebSocket.
//!
//! The public client runs SQLite's own `sqlite3_rsync` and carries its stream in binary messages of at
//! most 4,096 bytes that know nothing of the messages in the stream. So does this, with any program that
//! speaks on stdin and stdout: the real one where it is installed, or `sqlrsync --protocol 2`.

use std::path::Path;
use std::process::Stdio;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::process::RUN_MAX;
use crate::raw::runtime;

/// The public client cuts its stream here.
const PIECE_LEN: usize = 4096;

/// The longest binary message that the public client takes.
const PIECE_LEN_MAX: usize = 4101;

/// The message "tell me the replica's id, path and version".
const CONFIG: u8 = 0x51;

/// The message of the stream that ends it, and a binary message of its own.
const ORIGIN_END: u8 = 0x42;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A machine with the public client.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    /// `http://HOST:PORT` of the server.
    pub server: &'a str,
    /// What goes into `Authorization`.
    pub key: &'a str,
    /// The program that speaks the stream: `sqlite3_rsync`, or `sqlrsync`.
    pub program: &'a Path,
    /// The client id.
    pub client_id: &'a str,
}

/// How a sync through the bridge went.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The text messages of the server, in order.
    pub texts: Vec<String>,
    /// Bytes of the stream and of control messages, both ways.
    pub bytes: u64,
    /// The longest binary message from the server.
    pub message_len_max: usize,
    /// The code that the server closed with.
    pub close_code: Option<u16>,
    /// What the program wrote to its standard error.
    pub stderr: String,
}

impl Ended {
    /// The value of a field of the server's CONFIG messages, the last one that has it.
    pub fn config(&self, field: &str) -> Option<String> {
        self.texts
            .iter()
            .rev()
            .filter_map(|text| text.strip_prefix("CONFIG="))
            .filter_map(|json| serde_json::from_str::<serde_json::Value>(json).ok())
            .find_map(|config| config[field].as_str().map(str::to_owned))
    }

    /// Whether the public client would have taken every message.
    pub fn keeps_to_the_message_length(&self) -> bool {
        self.message_len_max <= PIECE_LEN_MAX
    }
}

/// The server did not let the connection through: its status and the text below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Bridge<'_> {
    /// Pushes `file` to `remote` (`NS/PATH`, may be empty).
    ///
    /// # Errors
    /// The server refused the connection.
    pub fn push(&self, file: &Path, remote: &str) -> Result<Ended, Refused> {
        block_on(async {
            let mut headers = vec![("X-LocalHostname", "bridge".to_owned())];
            headers.push(("X-LocalAbsolutePath", file.display().to_string()));
            let socket = self.connect("push", remote, &headers).await?;
            let child = self.spawn(&["--origin".as_ref(), file.as_os_str(), remote.as_ref()]);
            Ok(carry(socket, child, Side::Origin).await)
        })
    }

    /// Pulls a version of `remote` (empty: the latest) into `file`.
    ///
    /// # Errors
    /// The server refused the connection.
    pub fn pull(&self, remote: &str, version: &str, file: &Path) -> Result<Ended, Refused> {
        block_on(async {
            let headers = [("X-ReplicaVersion", version.to_owned())];
            let socket = self.connect("pull", remote, &headers).await?;
            let child = self.spawn(&["--replica".as_ref(), remote.as_ref(), file.as_os_str()]);
            Ok(carry(socket, child, Side::Replica).await)
        })
    }

    fn spawn(&self, arguments: &[&std::ffi::OsStr]) -> Child {
        let mut command = Command::new(self.program);
        if !self.program.ends_with("sqlite3_rsync") {
            command.args(["--protocol", "2"]);
        }
        command.args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program can be started")
    }

    async fn connect(
        &self,
        what: &str,
        remote: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Socket, Refused> {
        let url = format!("{}/sapi/{what}/{remote}", self.server.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a valid address");
        let fixed =
            [("Authorization", self.key), ("X-ClientID", self.client_id), ("X-ClientVersion", "0.0.6")];
        let all = fixed.into_iter().chain(headers.iter().map(|(name, value)| (*name, value.as_str())));
        for (name, value) in all {
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a valid header"));
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                text: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            }),
            Err(error) => Err(Refused { status: 0, text: error.to_string() }),
        }
    }
}

/// A whole sync, which may take as long as a program may.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let limited = runtime().block_on(async { tokio::time::timeout(RUN_MAX, work).await });
    limited.expect("the program and the server come to an end")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Origin,
    Replica,
}

/// Carries the stream between the program and the socket until the server closes.
async fn carry(mut socket: Socket, mut child: Child, side: Side) -> Ended {
    let mut to_child = child.stdin.take();
    let mut from_child: Option<ChildStdout> = child.stdout.take();
    let mut ended = Ended::default();
    let mut piece = [0; PIECE_LEN];
    let mut asked = false;
    loop {
        tokio::select! {
            read = read_piece(&mut from_child, &mut piece) => match read {
                0 => from_child = None,
                n => {
                    send(&mut socket, &piece[..n], &mut ended).await;
                    if !asked {
                        asked = true;
                        send(&mut socket, &[CONFIG], &mut ended).await;
                    }
                }
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    ended.bytes += bytes.len() as u64;
                    ended.message_len_max = ended.message_len_max.max(bytes.len());
                    write(&mut to_child, &bytes).await;
                    if side == Side::Replica && bytes.first() == Some(&ORIGIN_END) {
                        to_child = None;
                    }
                }
                Some(Ok(Message::Text(text))) => ended.texts.push(text.to_string()),
                Some(Ok(Message::Close(frame))) => ended.close_code = frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
        }
    }
    drop(to_child);
    drop(from_child);
    let output = child.wait_with_output().await.expect("a child can be waited for");
    ended.stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ended
}

/// Reads what the program has to say; 0 at its end. Waits for ever once it has ended.
async fn read_piece(from: &mut Option<ChildStdout>, piece: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(piece).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// Gives the program what came from the server. One that has ended already needs nothing more.
async fn write(to: &mut Option<ChildStdin>, bytes: &[u8]) {
    if let Some(stdin) = to
        && (stdin.write_all(bytes).await.is_err() || stdin.flush().await.is_err())
    {
        *to = None;
    }
}

/// Sends a binary message. A server that hung up is noticed on reading.
async fn send(socket: &mut Socket, bytes: &[u8], ended: &mut Ended) {
    ended.bytes += bytes.len() as u64;
    let _ = socket.send(Message::binary(bytes.to_vec())).await;
}
