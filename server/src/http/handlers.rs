//! What each route answers.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;

use super::router::App;
use super::{answer, request};
use crate::refused::{Refused, Why};

/// How many versions, or replicas, are told where nobody says how many.
const LIMIT_DEFAULT: usize = 100;

/// `GET /`: what this is.
pub async fn index() -> Response {
    let line = concat!("sqlrsync-server ", env!("CARGO_PKG_VERSION"), ": versions of SQLite databases\n");
    answer::text(StatusCode::OK, line)
}

/// `GET /livez`: the process answers.
pub async fn live() -> Response {
    answer::text(StatusCode::OK, "ok\n")
}

/// `GET /readyz`: what a request needs answers.
pub async fn ready(State(app): State<App>) -> Response {
    match app.backend.blocking(|backend| backend.ready()).await {
        Ok(()) => answer::text(StatusCode::OK, "ok\n"),
        Err(refused) => answer::refusal(&Refused { why: Why::TryLater, ..refused }),
    }
}

/// Any other path.
pub async fn nothing_here(uri: Uri) -> Response {
    answer::refusal(&Refused::new(Why::NotFound, format!("there is nothing at {}", uri.path())))
}

/// A known path, asked for with a method that it does not have; the header `Allow` has those that it has.
pub async fn wrong_method(method: Method) -> Response {
    let line = format!("{method} is not answered here: the header Allow says what is\n");
    answer::text(StatusCode::METHOD_NOT_ALLOWED, line)
}

/// What is asked for of a long list.
#[derive(Deserialize)]
pub struct VersionsQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

/// What is asked of a replica: `GET /api/v1/replicas/{namespace}/{path}/` and
///
/// - `versions`: the versions, newest first;
/// - `status`: the latest version, and what is known of its clients.
///
/// The name has any number of parts, so what is asked of it stands last.
pub async fn of_replica(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<VersionsQuery>,
) -> Response {
    let path = uri.path().strip_prefix("/api/v1/replicas/").unwrap_or_default();
    match path.rsplit_once('/') {
        Some((name, "versions")) => versions(&app, &headers, request::parse_name(name), query).await,
        Some((name, "status")) => status(&app, &headers, request::parse_name(name)).await,
        _ => nothing_here(uri).await,
    }
}

async fn status(app: &App, headers: &HeaderMap, name: Result<RemoteName, Refused>) -> Response {
    respond(async {
        let (name, key) = (name?, request::credentials(headers)?.key);
        let call = app.backend.blocking(move |backend| {
            let caller = backend.authenticate(key.as_ref())?;
            backend.status(&caller, &name)
        });
        call.await
    })
    .await
}

async fn versions(
    app: &App,
    headers: &HeaderMap,
    name: Result<RemoteName, Refused>,
    query: VersionsQuery,
) -> Response {
    respond(async move {
        let (name, key) = (name?, request::credentials(headers)?.key);
        let before = query.before.map(|number| {
            VersionNumber::new(number).ok_or_else(|| Refused::new(Why::BadRequest, "versions count from 1"))
        });
        let before = before.transpose()?;
        let call = app.backend.blocking(move |backend| {
            let caller = backend.authenticate(key.as_ref())?;
            backend.history(&caller, &name, before, query.limit.unwrap_or(LIMIT_DEFAULT))
        });
        call.await
    })
    .await
}

/// What is asked for of the list of replicas.
#[derive(Deserialize)]
pub struct ReplicasQuery {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/replicas`: the replicas that the key opens.
pub async fn replicas(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<ReplicasQuery>,
) -> Response {
    respond(async move {
        let key = request::credentials(&headers)?.key;
        let call = app.backend.blocking(move |backend| {
            let caller = backend.authenticate(key.as_ref())?;
            let after = query.after.unwrap_or_default();
            backend.replicas(&caller, &after, query.limit.unwrap_or(LIMIT_DEFAULT))
        });
        Ok(serde_json::json!({ "replicas": call.await? }))
    })
    .await
}

async fn respond<T: Serialize>(outcome: impl Future<Output = Result<T, Refused>>) -> Response {
    match outcome.await {
        Ok(value) => answer::json(&value),
        Err(refused) => answer::refusal(&refused),
    }
}
