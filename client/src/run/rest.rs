//! Requests to the server's REST API: plain HTTP beside the WebSockets, with the same key, the same trust
//! and the same errors.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::remote::RemoteName;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::connect::{of_tls, percent_encode, refused, with_place};
use crate::error::Error;
use crate::plan::{Access, Credential};
use crate::prompt::ask_for_key;
use crate::wire::{certificate, tls};

/// The longest answer that is read, in bytes.
const ANSWER_LEN_MAX: u64 = 16 << 20;

/// The longest answer that has rows: a query gives 16 MiB of values, which JSON makes six times as long at
/// the worst.
const ROWS_LEN_MAX: u64 = 128 << 20;

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long a stream may take from its first byte to its last.
const STREAM_MAX: Duration = Duration::from_secs(60 * 60);

/// How long the server may take to do what it was asked for: a settlement merges. Longer than a server allows for any
/// of it by itself, so that it can say so.
const DONE_MAX: Duration = Duration::from_secs(15 * 60);

/// The longest line of a stream, in bytes: a row with all its values, as JSON.
const LINE_LEN_MAX: u64 = 64 << 20;

/// The longest object that is looked for at the end of a stream of something else, in bytes.
const END_LEN_MAX: usize = 64 << 10;

/// After it stands how long it is: ten digits and a line feed.
const END_DIGITS_LEN: usize = 11;

/// What is read of a stream at once, in bytes.
const STREAM_BUFFER_LEN: usize = 64 << 10;

type Answer = ureq::http::Response<ureq::Body>;

/// A server's REST API.
pub struct Rest {
    agent: ureq::Agent,
    access: Access,
}

/// Where the API has something about a replica: `log` is at `.../versions`, for example.
pub fn replica_path(remote: &RemoteName, what: &str) -> String {
    format!("/api/v1/replicas/{}/{what}", percent_encode(&remote.to_string()))
}

/// A long answer.
pub struct Stream {
    reader: BufReader<ureq::BodyReader<'static>>,
    line: Vec<u8>,
    access: Access,
}

impl Stream {
    /// The next line, without its end; `None` after the last. Empty lines are passed over.
    ///
    /// # Errors
    /// Where the connection breaks, or the line is longer than any may be.
    pub fn line(&mut self) -> Result<Option<&[u8]>, Error> {
        loop {
            self.line.clear();
            let read = (&mut self.reader).take(LINE_LEN_MAX + 1).read_until(b'\n', &mut self.line);
            read.map_err(|error| self.cut(&error))?;
            if self.line.len() as u64 > LINE_LEN_MAX {
                return Err(not_this(&self.access, &format!("a line is longer than {LINE_LEN_MAX} bytes")));
            }
            if self.line.is_empty() {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(self.line.trim_ascii()));
            }
        }
    }

    /// The next line as what it says.
    ///
    /// # Errors
    /// As [`Stream::line`], and where it says something else.
    pub fn object<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let access = self.access.clone();
        let Some(line) = self.line()? else { return Ok(None) };
        serde_json::from_slice(line).map(Some).map_err(|error| not_this(&access, &error.to_string()))
    }

    /// Copies what is left, but for the object at its end, behind which stands how long it is. So much as that may be
    /// is held back until the object is there and read: where it is not, the end of what comes before it is not written.
    ///
    /// # Errors
    /// Where the connection breaks or nothing like that is at the end; what `out` says is [`Error::Output`].
    pub fn copy_to_end<T: DeserializeOwned>(&mut self, out: &mut impl Write) -> Result<T, Error> {
        const HELD_MAX: usize = END_LEN_MAX + END_DIGITS_LEN;
        let mut held = Vec::new();
        loop {
            let piece = match self.reader.fill_buf() {
                Ok(piece) => piece,
                Err(error) => return Err(cut(&self.access, &error)),
            };
            if piece.is_empty() {
                break;
            }
            held.extend_from_slice(piece);
            let len = piece.len();
            self.reader.consume(len);
            if held.len() >= 2 * HELD_MAX {
                let past = held.len() - HELD_MAX;
                out.write_all(&held[..past]).map_err(Error::Output)?;
                held.drain(..past);
            }
        }
        let (before, end) = split_end(&held).ok_or_else(|| not_this(&self.access, "it has no end"))?;
        let end = serde_json::from_slice(end).map_err(|error| not_this(&self.access, &error.to_string()))?;
        out.write_all(before).map_err(Error::Output)?;
        Ok(end)
    }

    fn cut(&self, error: &std::io::Error) -> Error {
        cut(&self.access, error)
    }
}

/// What comes before the object at the end, and the object.
fn split_end(all: &[u8]) -> Option<(&[u8], &[u8])> {
    let (all, digits) = all.split_last_chunk::<END_DIGITS_LEN>()?;
    let digits = str::from_utf8(digits).ok()?.strip_suffix('\n')?;
    let len = digits.parse().ok().filter(|len| *len <= END_LEN_MAX)?;
    all.split_at_checked(all.len().checked_sub(len)?)
}

fn cut(access: &Access, error: &std::io::Error) -> Error {
    Error::Cut { who: format!("the server {}", access.server), why: error.to_string() }
}

fn not_this(access: &Access, why: &str) -> Error {
    Error::NotThisServer {
        server: access.server.to_string(),
        why: format!("its answer cannot be read ({why})"),
    }
}

impl Rest {
    /// # Errors
    /// Where the certificates to trust cannot be read.
    pub fn new(access: &Access) -> Result<Rest, Error> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("sqlrsync/", env!("CARGO_PKG_VERSION")));
        if access.server.tls() {
            let trusted = tls::certificates(access.ca_file.as_deref())?;
            let roots = trusted.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
            let roots = RootCerts::new_with_certs(&roots.collect::<Vec<_>>());
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Rest { agent: config.build().new_agent(), access: access.clone() })
    }

    /// Asks for something about `remote`. Without a key what is public can be read; where the server
    /// wants one, the user is asked.
    ///
    /// # Errors
    /// As a pull has them: unreachable, refused, no server of ours.
    pub fn get<T: DeserializeOwned>(
        &mut self,
        remote: &RemoteName,
        what: &str,
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        self.get_within(remote, what, query, (ANSWER_MAX, ANSWER_LEN_MAX))
    }

    /// As [`Rest::get`], for what takes the server long to find out.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub fn get_patiently<T: DeserializeOwned>(
        &mut self,
        remote: &RemoteName,
        what: &str,
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        self.get_within(remote, what, query, (DONE_MAX, ROWS_LEN_MAX))
    }

    fn get_within<T: DeserializeOwned>(
        &mut self,
        remote: &RemoteName,
        what: &str,
        query: &[(&str, String)],
        (time, len_max): (Duration, u64),
    ) -> Result<T, Error> {
        let body =
            self.asking(remote, "pull", |rest| rest.whole(rest.got(remote, what, query, time)?, len_max))?;
        self.parsed(&body)
    }

    /// Asks for something long about `remote`, as a stream.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub fn get_stream(
        &mut self,
        remote: &RemoteName,
        what: &str,
        query: &[(&str, String)],
    ) -> Result<Stream, Error> {
        self.asking(remote, "pull", |rest| {
            rest.begun(rest.got(remote, what, query, STREAM_MAX)?).map(|body| rest.stream(body))
        })
    }

    /// Has something done about `remote`, with a key that may push, and takes what the server says of it.
    ///
    /// # Errors
    /// As [`Rest::get`].
    pub fn post_for<T: DeserializeOwned>(
        &mut self,
        remote: &RemoteName,
        what: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let path = replica_path(remote, what);
        let body = self
            .asking(remote, "push", |rest| rest.whole(rest.posted(&path, body, DONE_MAX)?, ROWS_LEN_MAX))?;
        self.parsed(&body)
    }

    /// Tries without a key where none was found, and asks the user for one where the server wants one.
    fn asking<T>(
        &mut self,
        remote: &RemoteName,
        verb: &'static str,
        ask: impl Fn(&Rest) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match ask(self) {
                Err(Error::Refused { refusal: Refusal::NotAllowed, .. })
                    if self.access.credential.is_none() =>
                {
                    self.access.credential = Some(ask_for_key(verb, &remote.to_string())?);
                }
                got => return got,
            }
        }
    }

    fn got(
        &self,
        remote: &RemoteName,
        what: &str,
        query: &[(&str, String)],
        within: Duration,
    ) -> Result<Answer, Error> {
        let mut request = self.agent.get(self.access.server.http(&replica_path(remote, what)));
        for (name, value) in query {
            request = request.query(name, value);
        }
        if let Some(key) = self.key() {
            request = request.header("Authorization", key);
        }
        let request = request.config().timeout_global(Some(within)).build();
        request.call().map_err(|error| self.unanswered(&error))
    }

    fn posted(&self, path: &str, body: &impl Serialize, within: Duration) -> Result<Answer, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Output(error.into()))?;
        let request = self.agent.post(self.access.server.http(path)).content_type("application/json");
        let request = match self.key() {
            Some(key) => request.header("Authorization", key),
            None => request,
        };
        let request = request.config().timeout_global(Some(within)).build();
        request.send(&body[..]).map_err(|error| self.unanswered(&error))
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| not_this(&self.access, &error.to_string()))
    }

    /// Tells the server something; what it answers is not looked at.
    ///
    /// # Errors
    /// As [`Rest::get`], but nobody is asked for a key.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<(), Error> {
        self.whole(self.posted(path, body, ANSWER_MAX)?, ANSWER_LEN_MAX).map(drop)
    }

    fn key(&self) -> Option<&str> {
        self.access.credential.as_ref().map(|Credential { key, .. }| key.secret())
    }

    /// The answer's body, where it is no refusal.
    fn begun(&self, answer: Answer) -> Result<ureq::Body, Error> {
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let (head, mut body) = answer.into_parts();
        let text = body.with_config().limit(ANSWER_LEN_MAX).read_to_vec();
        let text = text.map_err(|error| self.unanswered(&error))?;
        Err(with_place(refused(&self.access.server, head.status, &head.headers, &text), &self.access))
    }

    fn whole(&self, answer: Answer, len_max: u64) -> Result<Vec<u8>, Error> {
        let mut body = self.begun(answer)?;
        let body = body.with_config().limit(len_max).read_to_vec();
        body.map_err(|error| self.unanswered(&error))
    }

    fn stream(&self, body: ureq::Body) -> Stream {
        let reader = BufReader::with_capacity(STREAM_BUFFER_LEN, body.into_reader());
        Stream { reader, line: Vec::new(), access: self.access.clone() }
    }

    fn unanswered(&self, error: &ureq::Error) -> Error {
        let (server, why) = (self.access.server.to_string(), error.to_string());
        match error {
            ureq::Error::Rustls(error) => certificate::refused(server, error),
            ureq::Error::Tls(_) => certificate::refused_for(server, why),
            ureq::Error::Protocol(_) | ureq::Error::BodyExceedsLimit(_) => {
                Error::NotThisServer { server, why }
            }
            ureq::Error::Io(error) => match of_tls(error) {
                Some(error) => certificate::refused(server, error),
                None => Error::Unreachable { server, why: error.to_string() },
            },
            _ => Error::Unreachable { server, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use serde_json::json;

    use super::*;
    use crate::plan::KeySource;

    /// A server that answers one request with this, and gives the request back.
    fn answers_once(answer: &'static str) -> (Access, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        let credential =
            Some(Credential { key: "abc".parse().unwrap(), source: KeySource::Flag, place: String::new() });
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            // The bodies here are objects, and end as one.
            while !request.ends_with(b"}") {
                let n = stream.read(&mut piece).unwrap();
                assert_ne!(n, 0, "it ended in the middle of a request");
                request.extend_from_slice(&piece[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (Access { server, credential, ca_file: None, protocol: 3 }, thread)
    }

    #[test]
    fn what_the_server_is_told_goes_out_with_the_key_and_its_no_is_an_error() {
        let (access, server) = answers_once("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        Rest::new(&access).unwrap().post("/sapi/some-id", &json!({ "attempts": 6 })).unwrap();
        let request = server.join().unwrap();
        assert!(request.starts_with("POST /sapi/some-id HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("\r\nauthorization: abc\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"attempts\":6}"), "{request}");

        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
        let (access, _server) = answers_once(refusal);
        let error = Rest::new(&access).unwrap().post("/sapi/some-id", &json!({})).unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
    }

    #[test]
    fn a_server_that_has_no_time_says_for_how_long() {
        let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let (access, _server) = answers_once(busy);
        let error = Rest::new(&access).unwrap().post("/sapi/some-id", &json!({})).unwrap_err();
        let Error::Refused { retry_after, .. } = error else { panic!("{error}") };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
    }
}
