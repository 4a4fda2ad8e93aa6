//! Conflicts: which wait, what each is about, and their settlement.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::page::ConflictNumber;
use utoipa::{IntoParams, ToSchema};

use super::super::answer;
use super::{Asked, Cancel, LIMIT_DEFAULT};
use crate::backend::{ConflictInfo, ConflictsPage, RowsPage, Settlement};
use crate::refused::{Refused, Why};

/// What is asked for of the conflicts.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ConflictsQuery {
    /// Only conflicts with a higher number.
    after: Option<u64>,
    /// At most so many: 100 where nothing is said, and never more than 1000.
    limit: Option<usize>,
    /// Also those that are over.
    all: Option<bool>,
}

/// The conflicts of a replica that wait to be settled, oldest first. For keys of the replica.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/conflicts", tag = "conflicts",
    params(("name" = String, Path, description = "NAMESPACE/PATH"), ConflictsQuery),
    responses((status = 200, body = ConflictsPage)),
)]
pub(super) async fn conflicts(asked: Asked) -> Result<Response, Refused> {
    let query: ConflictsQuery = asked.query()?;
    let which = (query.after.unwrap_or(0), query.all.unwrap_or(false));
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let page = asked.call(move |backend, caller, name| backend.conflicts(&caller, name, which, limit));
    Ok(answer::json(&page.await?))
}

/// A conflict, as it is now. For keys of the replica.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/conflicts/{number}", tag = "conflicts",
    params(
        ("name" = String, Path, description = "NAMESPACE/PATH"),
        ("number" = u64, Path, description = "The conflict"),
    ),
    responses((status = 200, body = ConflictInfo)),
)]
pub(super) async fn conflict(asked: Asked) -> Result<Response, Refused> {
    let number = number(&asked)?;
    let cancel = Cancel::default();
    let flag = cancel.flag();
    let info = asked.long(move |backend, caller, name| backend.conflict(&caller, name, number, &flag));
    Ok(answer::json(&info.await?))
}

/// What is asked for of the rows of a conflict.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RowsQuery {
    /// Only rows after so many.
    after: Option<u64>,
    /// At most so many: 100 where nothing is said, and never more than 1000.
    limit: Option<usize>,
}

/// The rows of a conflict, as they are now. For keys of the replica.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/conflicts/{number}/rows", tag = "conflicts",
    params(
        ("name" = String, Path, description = "NAMESPACE/PATH"),
        ("number" = u64, Path, description = "The conflict"),
        RowsQuery,
    ),
    responses((status = 200, body = RowsPage)),
)]
pub(super) async fn rows(asked: Asked) -> Result<Response, Refused> {
    let query: RowsQuery = asked.query()?;
    let which = (query.after.unwrap_or(0), query.limit.unwrap_or(LIMIT_DEFAULT));
    let number = number(&asked)?;
    let cancel = Cancel::default();
    let flag = cancel.flag();
    let page =
        asked.long(move |backend, caller, name| backend.conflict_rows(&caller, name, number, which, &flag));
    Ok(answer::json(&page.await?))
}

/// A conflict that was settled.
#[derive(Serialize, ToSchema)]
pub(super) struct Settled {
    /// The conflict.
    conflict: u64,
    /// The version that came of it.
    version: u64,
}

/// Settles a conflict, which makes a version. For keys that may push. Answered with 409 where the latest
/// version has moved on and there is something new to choose: nothing is settled then, and the rows of the
/// conflict say what is new.
#[utoipa::path(
    post, path = "/api/v1/replicas/{name}/conflicts/{number}/settle", tag = "conflicts",
    params(
        ("name" = String, Path, description = "NAMESPACE/PATH"),
        ("number" = u64, Path, description = "The conflict"),
    ),
    request_body = Settlement,
    responses(
        (status = 200, body = Settled),
        (status = 409, description = "There is more to choose, or the conflict is over"),
    ),
)]
pub(super) async fn settle(mut asked: Asked) -> Result<Response, Refused> {
    let number = number(&asked)?;
    let wanted: Settlement = asked.json().await?;
    let address = asked.address;
    // Until the version is being made: that is not left half done.
    let cancel = Cancel::default();
    let flag = cancel.flag();
    let version = asked.long_with_turn(move |backend, caller, name| {
        backend.settle(&caller, name, number, &wanted, address, &flag)
    });
    let version = version.await?;
    Ok(answer::json(&Settled { conflict: number.get(), version: version.get() }))
}

fn number(asked: &Asked) -> Result<ConflictNumber, Refused> {
    asked.conflict.ok_or_else(|| Refused::new(Why::BadRequest, "conflicts count from 1"))
}
