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
