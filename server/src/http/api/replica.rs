//! What is there: replicas, versions, and what is known of clients.

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::router::App;
use super::super::{answer, request};
use super::{Asked, Cancel, LIMIT_DEFAULT, is_set, version};
use crate::backend::{CountedPage, HistoryPage, ListedReplica, Status};
use crate::refused::Refused;

/// What is asked for of the versions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionsQuery {
    /// Only versions before this one.
    #[param(minimum = 1)]
    before: Option<u64>,
    /// At most so many: 100 where nothing is said, and never more than 1000.
    limit: Option<usize>,
    /// With the rows that each version changed, by table. Then there are as many versions in an answer as are
    /// counted soon, 100 at most.
    stat: Option<String>,
}

/// The versions of a replica, newest first. With `stat`, for keys of the replica.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/versions", tag = "versions",
    params(("name" = String, Path, description = "NAMESPACE/PATH"), VersionsQuery),
    responses(
        (status = 200, body = HistoryPage),
        (status = 200, description = "With stat", body = CountedPage),
    ),
)]
pub(super) async fn versions(asked: Asked) -> Result<Response, Refused> {
    let query: VersionsQuery = asked.query()?;
    let before = query.before.map(version).transpose()?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if is_set(query.stat.as_deref()) {
        let cancel = Cancel::default();
        let flag = cancel.flag();
        let page = asked.long(move |backend, caller, name| {
            backend.counted_history(&caller, name, (before, limit), &flag)
        });
        return Ok(answer::json(&page.await?));
    }
    let page = asked.call(move |backend, caller, name| backend.history(&caller, name, before, limit));
    Ok(answer::json(&page.await?))
}

/// The latest version of a replica, and what is known of its clients.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/status", tag = "versions",
    params(("name" = String, Path, description = "NAMESPACE/PATH")),
    responses((status = 200, body = Status)),
)]
pub(super) async fn status(asked: Asked) -> Result<Response, Refused> {
    let status = asked.call(|backend, caller, name| backend.status(&caller, name)).await?;
    Ok(answer::json(&status))
}

/// What is asked for of the list of replicas.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReplicasQuery {
    /// Only replicas whose path comes after this one.
    after: Option<String>,
    /// At most so many: 100 where nothing is said, and never more than 1000.
    limit: Option<usize>,
}

/// Replicas.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplicasPage {
    /// In order of path.
    replicas: Vec<ListedReplica>,
}

/// The replicas that the key opens.
#[utoipa::path(
    get, path = "/api/v1/replicas", tag = "versions", params(ReplicasQuery),
    responses((status = 200, body = ReplicasPage)),
)]
pub async fn replicas(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<ReplicasQuery>,
) -> Response {
    let outcome = async {
        let key = request::credentials(&headers)?.key;
        let call = app.backend.blocking(move |backend| {
            let caller = backend.authenticate(key.as_ref())?;
            let after = query.after.unwrap_or_default();
            backend.replicas(&caller, &after, query.limit.unwrap_or(LIMIT_DEFAULT))
        });
        Ok(ReplicasPage { replicas: call.await? })
    };
    match outcome.await {
        Ok(page) => answer::json(&page),
        Err(refused) => answer::refusal(&refused),
    }
}
