//! `/api/v1`: what is there, as JSON.
//!
//! A replica's name has any number of parts, so what is asked of it stands last in the path, and one route
//! takes them all: [`ROUTES`] says which there are. Each has a function here with its OpenAPI description;
//! a test holds the two together.

mod conflicts;
mod look;
mod openapi;
mod replica;
mod rules;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Extension, Query, Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;
use serde::de::DeserializeOwned;
use sqlrsync_protocol::key::Key;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_protocol::remote::RemoteName;
use tokio::time::timeout;

use super::router::App;
use super::{answer, handlers, request};
use crate::access::Caller;
use crate::backend::Backend;
use crate::listener::Peer;
use crate::refused::{Refused, Why};

pub use openapi::openapi;
pub use replica::replicas;

/// Longest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How many of a long list are told where nobody says how many.
const LIMIT_DEFAULT: usize = 100;

/// What stands before a replica's name.
const PREFIX: &str = "/api/v1/replicas/";

/// What can be asked of a replica, as it stands behind its name, and with which methods.
pub const ROUTES: &[(&str, &[Method])] = &[
    ("versions", &[Method::GET]),
    ("status", &[Method::GET]),
    ("policy", &[Method::GET, Method::PUT]),
    ("audit", &[Method::GET]),
    ("conflicts", &[Method::GET]),
    ("conflicts/{number}", &[Method::GET]),
    ("conflicts/{number}/rows", &[Method::GET]),
    ("conflicts/{number}/settle", &[Method::POST]),
    ("diff", &[Method::GET]),
    ("query", &[Method::POST]),
];

/// A request about a replica.
struct Asked {
    app: App,
    name: RemoteName,
    key: Option<Key>,
    conflict: Option<ConflictNumber>,
    address: Option<IpAddr>,
    uri: Uri,
    body: Body,
}

/// Every request below `/api/v1/replicas/`.
pub async fn of_replica(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let uri = request.uri().clone();
    let Some(target) = Target::of(uri.path()) else { return handlers::nothing_here(uri).await };
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    if !target.methods.contains(&method) {
        return wrong_method(method, target.methods).await;
    }
    let outcome = async {
        let (parts, body) = request.into_parts();
        let asked = Asked {
            name: request::parse_name(target.name)?,
            key: request::credentials(&parts.headers)?.key,
            conflict: target.conflict,
            address: peer.permit.address(),
            uri: parts.uri,
            body,
            app,
        };
        match (target.route, method) {
            ("versions", _) => replica::versions(asked).await,
            ("status", _) => replica::status(asked).await,
            ("policy", Method::PUT) => rules::set_policy(asked).await,
            ("policy", _) => rules::policy(asked).await,
            ("audit", _) => rules::audit(asked).await,
            ("conflicts", _) => conflicts::conflicts(asked).await,
            ("conflicts/{number}", _) => conflicts::conflict(asked).await,
            ("conflicts/{number}/rows", _) => conflicts::rows(asked).await,
            ("conflicts/{number}/settle", _) => conflicts::settle(asked).await,
            ("diff", _) => look::diff(asked).await,
            ("query", _) => look::query(asked).await,
            _ => Ok(handlers::nothing_here(asked.uri).await),
        }
    };
    outcome.await.unwrap_or_else(|refused: Refused| answer::refusal(&refused))
}

async fn wrong_method(method: Method, methods: &[Method]) -> Response {
    let mut response = handlers::wrong_method(method).await;
    let allowed: Vec<_> = methods.iter().map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// What a path means.
#[derive(PartialEq, Eq, Debug)]
struct Target<'a> {
    name: &'a str,
    route: &'static str,
    conflict: Option<ConflictNumber>,
    methods: &'static [Method],
}

impl<'a> Target<'a> {
    /// The route whose last parts are those of the path; `{number}` stands for a number.
    fn of(path: &'a str) -> Option<Target<'a>> {
        let path = path.strip_prefix(PREFIX)?;
        ROUTES.iter().find_map(|(route, methods)| {
            let (mut name, mut conflict) = (path, None);
            for part in route.rsplit('/') {
                let (rest, found) = name.rsplit_once('/')?;
                match part {
                    "{number}" => conflict = Some(ConflictNumber::new(found.parse().ok()?)?),
                    word if word == found => {}
                    _ => return None,
                }
                name = rest;
            }
            Some(Target { name, route, conflict, methods })
        })
    }
}

/// Says stop when it is dropped: when whoever asked is gone.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Becomes true then.
    fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Asked {
    /// Runs a call that blocks for a short time, with who asks. The body is not held on to meanwhile.
    fn call<T, F>(&self, call: F) -> impl Future<Output = Result<T, Refused>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Backend>, Caller, &RemoteName) -> Result<T, Refused> + Send + 'static,
    {
        let (key, name) = (self.key.clone(), self.name.clone());
        let backend = self.app.backend.clone();
        async move {
            let call = backend.blocking(move |backend| {
                let caller = backend.authenticate(key.as_ref())?;
                call(backend, caller, &name)
            });
            call.await
        }
    }

    /// As [`Asked::call`], for a call that may take minutes.
    fn long<T, F>(&self, call: F) -> impl Future<Output = Result<T, Refused>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Backend>, Caller, &RemoteName) -> Result<T, Refused> + Send + 'static,
    {
        let (key, name, address) = (self.key.clone(), self.name.clone(), self.address);
        let (backend, wait) = (self.app.backend.clone(), self.app.limits.busy_wait);
        // Room and turns are for those that may.
        let may = self.call(|backend, caller, name| backend.may_look(&caller, name));
        async move {
            may.await?;
            let call = move |backend: &Arc<Backend>| {
                let caller = backend.authenticate(key.as_ref())?;
                call(backend, caller, &name)
            };
            backend.long(address, wait, call).await
        }
    }

    /// As [`Asked::long`], with the turn to make a version.
    fn long_with_turn<T, F>(&self, call: F) -> impl Future<Output = Result<T, Refused>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Backend>, Caller, &RemoteName) -> Result<T, Refused> + Send + 'static,
    {
        let (key, name, address) = (self.key.clone(), self.name.clone(), self.address);
        let (backend, wait) = (self.app.backend.clone(), self.app.limits.busy_wait);
        let may = self.call(|backend, caller, name| backend.may_settle(&caller, name));
        async move {
            may.await?;
            let turn = name.clone();
            let call = move |backend: &Arc<Backend>| {
                let caller = backend.authenticate(key.as_ref())?;
                call(backend, caller, &name)
            };
            backend.long_with_turn(&turn, address, wait, call).await
        }
    }

    /// What stands behind the question mark.
    fn query<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        match Query::try_from_uri(&self.uri) {
            Ok(Query(query)) => Ok(query),
            Err(error) => Err(Refused::new(Why::BadRequest, error.body_text())),
        }
    }

    /// The body, which is a JSON object of a bounded length and comes in time.
    async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Refused> {
        let bad = |what: String| Refused::new(Why::BadRequest, what);
        let too_long = || bad(format!("the body is longer than {BODY_BYTES_MAX} bytes, or was cut"));
        let body = std::mem::replace(&mut self.body, Body::empty());
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_long());
        }
        let body = timeout(self.app.limits.idle, to_bytes(body, BODY_BYTES_MAX)).await;
        let body = body.map_err(|_| bad("the body did not come in time".to_owned()))?;
        let body = body.map_err(|_| too_long())?;
        serde_json::from_slice(&body)
            .map_err(|error| bad(format!("the body is not the JSON object that is wanted here: {error}")))
    }
}

/// Whether something is asked for that is asked for by name: `stat`, `stat=1`, `stat=true`.
fn is_set(value: Option<&str>) -> bool {
    value.is_some_and(|value| matches!(value, "" | "1" | "true"))
}

/// A version number of a query.
fn version(number: u64) -> Result<VersionNumber, Refused> {
    VersionNumber::new(number).ok_or_else(|| Refused::new(Why::BadRequest, "versions count from 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_stands_last_however_many_parts_the_name_has() {
        let of = |path: &str| Target::of(path).map(|target| (target.name.to_owned(), target.route));
        let found = |name: &str, route| Some((name.to_owned(), route));
        assert_eq!(of("/api/v1/replicas/team/app.db/versions"), found("team/app.db", "versions"));
        assert_eq!(of("/api/v1/replicas/team/versions/status"), found("team/versions", "status"));
        assert_eq!(of("/api/v1/replicas/team/a/b/c.db/audit"), found("team/a/b/c.db", "audit"));
        assert_eq!(of("/api/v1/replicas/team/app.db"), None);
        assert_eq!(of("/api/v1/replicas/versions"), None);
        assert_eq!(of("/api/v1/other/team/app.db/versions"), None);
    }
}
