//! Requests to the server's REST API: plain HTTP beside the WebSockets, with the same key, the same trust
//! and the same errors.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::remote::RemoteName;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::connect::{percent_encode, refused};
use crate::error::Error;
use crate::plan::{Access, Credential};
use crate::prompt::ask_for_key;
use crate::wire::tls;

/// The longest answer that is read, in bytes.
const ANSWER_LEN_MAX: u64 = 16 << 20;

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A server's REST API.
pub struct Rest {
    agent: ureq::Agent,
    access: Access,
}

/// Where the API has something about a replica: `log` is at `.../versions`, for example.
pub fn replica_path(remote: &RemoteName, what: &str) -> String {
    format!("/api/v1/replicas/{}/{what}", percent_encode(&remote.to_string()))
}

impl Rest {
    /// # Errors
    /// Where the certificates to trust cannot be read.
    pub fn new(access: &Access) -> Result<Rest, Error> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(ANSWER_MAX))
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
        let path = replica_path(remote, what);
        loop {
            match self.get_once(&path, query) {
                Err(Error::Refused { refusal: Refusal::NotAllowed, .. })
                    if self.access.credential.is_none() =>
                {
                    self.access.credential = Some(ask_for_key("pull", &remote.to_string())?);
                }
                got => return got,
            }
        }
    }

    fn get_once<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Error> {
        let mut request = self.agent.get(self.access.server.http(path));
        for (name, value) in query {
            request = request.query(name, value);
        }
        if let Some(key) = self.key() {
            request = request.header("Authorization", key);
        }
        let body = self.body_of(request.call())?;
        serde_json::from_slice(&body).map_err(|error| Error::NotThisServer {
            server: self.access.server.to_string(),
            why: format!("its answer cannot be read ({error})"),
        })
    }

    /// Tells the server something; what it answers is not looked at.
    ///
    /// # Errors
    /// As [`Rest::get`], but nobody is asked for a key.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<(), Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Output(error.into()))?;
        let request = self.agent.post(self.access.server.http(path)).content_type("application/json");
        let request = match self.key() {
            Some(key) => request.header("Authorization", key),
            None => request,
        };
        self.body_of(request.send(&body[..])).map(|_| ())
    }

    fn key(&self) -> Option<&str> {
        self.access.credential.as_ref().map(|Credential { key, .. }| key.secret())
    }

    fn body_of(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut response = response.map_err(|error| self.unanswered(&error))?;
        let body = response.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec();
        let body = body.map_err(|error| self.unanswered(&error))?;
        if !response.status().is_success() {
            return Err(refused(&self.access.server, response.status(), response.headers(), &body));
        }
        Ok(body)
    }

    fn unanswered(&self, error: &ureq::Error) -> Error {
        let (server, why) = (self.access.server.to_string(), error.to_string());
        match error {
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Error::Tls { server, why },
            ureq::Error::Protocol(_) | ureq::Error::BodyExceedsLimit(_) => {
                Error::NotThisServer { server, why }
            }
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
        let credential = Some(Credential { key: "abc".parse().unwrap(), source: KeySource::Flag });
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
