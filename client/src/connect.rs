//! Reaching a server: the request as the public client makes it, and what each way of failing means.

use std::path::PathBuf;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::possible_base::PossibleBase;
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};
use sqlrsync_protocol::text::ReplicaIdText;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{ProtocolError, TlsError};

use crate::error::Error;
use crate::plan::{Access, Visibility};
use crate::server_url::ServerUrl;
use crate::state::MadeFrom;
use crate::wire::websocket::{self, Greeting, LongPieces, Socket, WebSocket};
use crate::wire::{Cancel, Traffic, certificate, tcp, tls};

/// How long one address, and then the handshake, may take, unless a silent server is waited for even less.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The header in which our own server says what kind of refusal it is.
const REFUSAL_HEADER: &str = "X-Sqlrsync-Refusal";

/// The most bytes of a refusal's body that are looked at.
const BODY_LEN_MAX: usize = 4096;

/// What a connection is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A push; the path of the database here, and who may see a new replica.
    Push {
        /// Absolute.
        local: PathBuf,
        /// `None`: private.
        visibility: Option<Visibility>,
        /// Make it the newest version as it is, whatever others pushed meanwhile.
        force: bool,
        /// What is known of the file's past.
        made_from: MadeFrom,
    },
    /// A pull of a version.
    Pull(VersionSelector),
    /// Notices of new versions.
    Subscribe,
    /// A push connection that announces pushes and makes none; the path of the database here.
    Announce {
        /// Absolute.
        local: PathBuf,
    },
}

/// Everything that the request says.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    /// What for.
    pub purpose: Purpose,
    /// Which replica; `None`: the server names it.
    pub remote: Option<&'a RemoteName>,
    /// Its id, where it is known.
    pub replica_id: Option<&'a ReplicaIdText>,
    /// Server, key, certificates.
    pub access: &'a Access,
    /// This machine's id.
    pub client_id: &'a str,
}

/// Connects, and returns the wire with the counters of its socket.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::NotThisServer`], [`Error::Tls`], [`Error::Refused`], [`Error::Cancelled`].
pub fn connect(
    runtime: &tokio::runtime::Runtime,
    asking: &Asking<'_>,
    greeting: &Greeting,
    silence_max: Duration,
    cancel: &Cancel,
) -> Result<(WebSocket, Traffic), Error> {
    let traffic = Traffic::default();
    let socket = runtime.block_on(async {
        tokio::select! {
            opened = shake_hands(asking, &traffic, silence_max) => opened,
            () = cancel.cancelled() => Err(Error::Cancelled),
        }
    })?;
    let _in_runtime = runtime.enter();
    let wire = WebSocket::new(socket, greeting, silence_max, cancel)
        .map_err(|error| unreachable(&asking.access.server, &error.to_string()))?;
    Ok((wire, traffic))
}

/// Opens the socket alone: for a connection that carries no page stream.
///
/// # Errors
/// As [`connect`], but for being cancelled: whoever stops waiting drops the future.
pub async fn open(asking: &Asking<'_>, traffic: &Traffic, silence_max: Duration) -> Result<Socket, Error> {
    shake_hands(asking, traffic, silence_max).await.map(|(socket, _)| socket)
}

async fn shake_hands(
    asking: &Asking<'_>,
    traffic: &Traffic,
    silence_max: Duration,
) -> Result<(Socket, LongPieces), Error> {
    let connect_max = silence_max.min(CONNECT_MAX);
    let server = &asking.access.server;
    let tls = server.tls().then(|| tls::config(asking.access.ca_file.as_deref())).transpose()?;
    let request = request(asking)?;
    let stream = tcp::connect(server.host(), server.port(), connect_max, traffic.clone()).await;
    let stream = stream.map_err(|error| unreachable(server, &error.to_string()))?;
    let shaken = tokio::time::timeout(connect_max, websocket::handshake(request, stream, tls)).await;
    let shaken = shaken.map_err(|_| unreachable(server, "it accepted the connection and did not answer"))?;
    shaken.map_err(|error| with_place(not_opened(server, error), asking.access))
}

fn unreachable(server: &ServerUrl, why: &str) -> Error {
    Error::Unreachable { server: server.to_string(), why: why.to_owned() }
}

/// The request: the path and the headers of `/sapi/push`, `/sapi/pull` and `/sapi/subscribe`.
fn request(asking: &Asking<'_>) -> Result<Request<()>, Error> {
    let kind = match asking.purpose {
        Purpose::Push { .. } | Purpose::Announce { .. } => "push",
        Purpose::Pull(_) => "pull",
        Purpose::Subscribe => "subscribe",
    };
    let name = asking.remote.map(|name| percent_encode(&name.to_string())).unwrap_or_default();
    let url = asking.access.server.websocket(&format!("/sapi/{kind}/{name}"));
    let mut request = url.into_client_request().map_err(|error| {
        Error::usage(format!("the server's address cannot be used: {error}"), "see --server")
    })?;
    headers(asking, request.headers_mut());
    Ok(request)
}

fn headers(asking: &Asking<'_>, headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: &[u8]| {
        // A path or a host name may have bytes that no header can carry; then it goes without.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            headers.insert(name, value);
        }
    };
    let key = asking.access.credential.as_ref().map(|found| found.key.secret()).unwrap_or_default();
    put(AUTHORIZATION.as_str(), key.as_bytes());
    put("X-ClientID", asking.client_id.as_bytes());
    put("X-ClientVersion", concat!("sqlrsync ", env!("CARGO_PKG_VERSION")).as_bytes());
    if let Some(id) = asking.replica_id {
        put("X-ReplicaID", id.as_str().as_bytes());
    }
    // The public client says it on a push only. `status` names who pulls and follows by it too.
    put("X-LocalHostname", gethostname::gethostname().as_encoded_bytes());
    if let Purpose::Push { local, .. } | Purpose::Announce { local } = &asking.purpose {
        put("X-LocalAbsolutePath", local.as_os_str().as_encoded_bytes());
    }
    if let Purpose::Push { force: true, .. } = asking.purpose {
        put("X-Force", b"1");
    }
    if let Purpose::Push { made_from: MadeFrom { unanswered, possible }, .. } = &asking.purpose {
        let unanswered = PossibleBase { pushes: unanswered.clone(), agreed: None };
        for (name, list) in [("X-Unanswered-Pushes", &unanswered), ("X-Possible-Base", possible)] {
            if !list.is_empty() {
                put(name, list.to_string().as_bytes());
            }
        }
    }
    match &asking.purpose {
        Purpose::Push { visibility: Some(Visibility::Unlisted), .. } => put("X-Visibility", b"1"),
        Purpose::Push { visibility: Some(Visibility::Public), .. } => put("X-Visibility", b"2"),
        Purpose::Pull(version) => put("X-ReplicaVersion", version.to_header().as_bytes()),
        // Our own server lets a key that may only pull in then, to tell that it is one.
        Purpose::Announce { .. } => put("X-Sqlrsync-Purpose", b"announce"),
        Purpose::Push { visibility: None, .. } | Purpose::Subscribe => {}
    }
    if let Some(key) = headers.get_mut(AUTHORIZATION) {
        key.set_sensitive(true);
    }
}

/// Percent-encodes everything but what a path may have as it is (RFC 3986, section 2.3).
pub fn percent_encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Why there is no connection, by what came in the place of one.
fn not_opened(server: &ServerUrl, error: tungstenite::Error) -> Error {
    let not_this = |why: String| Error::NotThisServer { server: server.to_string(), why };
    match error {
        tungstenite::Error::Http(response) => {
            let (head, body) = response.into_parts();
            refused(server, head.status, &head.headers, &body.unwrap_or_default())
        }
        tungstenite::Error::Tls(TlsError::Rustls(error)) => certificate::refused(server.to_string(), &error),
        tungstenite::Error::Tls(error) => certificate::refused_for(server.to_string(), error.to_string()),
        tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            unreachable(server, "it closed the connection without an answer")
        }
        tungstenite::Error::Io(error) => match of_tls(&error) {
            Some(error) => certificate::refused(server.to_string(), error),
            None => unreachable(server, &error.to_string()),
        },
        other => not_this(other.to_string()),
    }
}

/// rustls reports its own errors inside of those of the system.
pub fn of_tls(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// An answer over HTTP that is no switch to a WebSocket.
pub fn refused(server: &ServerUrl, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let said = headers.get(REFUSAL_HEADER).and_then(|value| value.to_str().ok()?.parse::<u8>().ok());
    let html = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/html"));
    let body = String::from_utf8_lossy(&body[..body.len().min(BODY_LEN_MAX)]);
    let text = body.trim();
    let foreign = html || text.starts_with('<') || !(status.is_client_error() || status.is_server_error());
    if said.is_none() && foreign {
        return Error::NotThisServer { server: server.to_string(), why: format!("it answers {status}") };
    }
    let refusal = said.map_or_else(|| by_status(status), Refusal::from_u8);
    let text = if text.is_empty() { status.to_string() } else { text.to_owned() };
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Error::Refused {
        who: format!("the server {server}"),
        refusal,
        text,
        retry_after: retry_after.map(Duration::from_secs),
    }
}

/// Says of a key that does not do where it stands: there may be several, and only one is to be replaced.
pub fn with_place(mut error: Error, access: &Access) -> Error {
    if let Error::Refused { refusal: Refusal::NotAllowed, text, .. } = &mut error
        && let Some(key) = &access.credential
    {
        text.push_str(&format!(" (the key is from {})", key.place));
    }
    error
}

/// What a status means where the server does not say it in its header.
fn by_status(status: StatusCode) -> Refusal {
    match status.as_u16() {
        400 => Refusal::Invalid,
        401 | 403 => Refusal::NotAllowed,
        404 => Refusal::NotFound,
        408 | 429 | 502 | 503 | 504 => Refusal::TryLater,
        _ => Refusal::Failed,
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::exchange::{Base, PushId};
    use sqlrsync_protocol::hash::Root;
    use sqlrsync_protocol::page::VersionNumber;

    use super::*;
    use crate::plan::{Credential, KeySource};

    fn access() -> Access {
        Access {
            server: "ws://127.0.0.1:1".parse().unwrap(),
            credential: Some(Credential {
                key: "abc".parse().unwrap(),
                source: KeySource::Flag,
                place: String::new(),
            }),
            ca_file: None,
            protocol: 3,
        }
    }

    #[test]
    fn a_push_says_what_the_public_client_says() {
        let access = access();
        let remote = "team/größe 2.db".parse().unwrap();
        let asking = Asking {
            purpose: Purpose::Push {
                local: "/srv/app.db".into(),
                visibility: Some(Visibility::Public),
                force: true,
                made_from: MadeFrom {
                    unanswered: vec![PushId([0; 16]), PushId([0x1a; 16])],
                    possible: PossibleBase {
                        pushes: vec![PushId([0x2b; 16])],
                        agreed: Some(Base { version: VersionNumber::new(7), root: Root([0x3c; 32]) }),
                    },
                },
            },
            remote: Some(&remote),
            replica_id: None,
            access: &access,
            client_id: "me",
        };
        let request = request(&asking).unwrap();
        assert_eq!(request.uri().path(), "/sapi/push/team/gr%C3%B6%C3%9Fe%202.db");
        for (name, value) in [
            ("authorization", "abc"),
            ("x-clientid", "me"),
            ("x-visibility", "2"),
            ("x-localabsolutepath", "/srv/app.db"),
            ("x-force", "1"),
            ("x-unanswered-pushes", "00000000000000000000000000000000,1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a"),
            ("x-possible-base", &format!("{},{}@7", "2b".repeat(16), "3c".repeat(32))),
        ] {
            assert_eq!(request.headers()[name], value);
        }
        assert!(!request.headers().contains_key("x-replicaversion"));
    }

    #[test]
    fn without_a_key_the_header_is_empty_and_a_pull_names_its_version() {
        let access = Access { credential: None, ..access() };
        let remote = "team/a.db".parse().unwrap();
        let asking = Asking {
            purpose: Purpose::Pull("latest-2".parse().unwrap()),
            remote: Some(&remote),
            replica_id: None,
            access: &access,
            client_id: "me",
        };
        let request = request(&asking).unwrap();
        assert_eq!(request.headers()["authorization"], "");
        assert_eq!(request.headers()["x-replicaversion"], "-2");
        assert!(!request.headers().contains_key("x-localabsolutepath"));
    }

    fn exit_code(status: u16, header: Option<&str>, kind: &str, body: &str) -> u8 {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        if let Some(code) = header {
            headers.insert("x-sqlrsync-refusal", code.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        refused(&access().server, status, &headers, body.as_bytes()).exit_code()
    }

    #[test]
    fn a_refusal_becomes_its_exit_code() {
        for (status, code) in
            [(400, 1), (401, 4), (403, 4), (404, 10), (409, 1), (413, 1), (429, 5), (503, 5)]
        {
            assert_eq!(exit_code(status, None, "text/plain", "no"), code, "{status}");
        }
        assert_eq!(exit_code(409, Some("3"), "text/plain", "conflict"), 3);
    }

    #[test]
    fn a_web_server_is_not_taken_for_ours() {
        for (status, kind, body) in
            [(404, "text/html", "<html>"), (200, "text/plain", "ok"), (302, "text/plain", "")]
        {
            let status_code = StatusCode::from_u16(status).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            let error = refused(&access().server, status_code, &headers, body.as_bytes());
            assert!(matches!(error, Error::NotThisServer { .. }), "{status}");
        }
    }
}
