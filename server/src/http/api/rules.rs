//! What becomes of pushes that were made from an older version, and who did what.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::answer;
use super::{Asked, LIMIT_DEFAULT};
use crate::catalog::{AuditEntry, Policy, Rule};
use crate::refused::Refused;

/// The policy of a replica.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyBody {
    /// What becomes of a push that was made from an older version.
    policy: Rule,
    /// With `merge`: two updates of one row that touch different columns are merged.
    #[serde(default)]
    cells: bool,
    /// With `merge`: of two rows inserted under one generated key the later one gets a new one.
    #[serde(default)]
    renumber: bool,
}

impl From<Policy> for PolicyBody {
    fn from(policy: Policy) -> PolicyBody {
        PolicyBody { policy: policy.rule, cells: policy.cells, renumber: policy.renumber }
    }
}

/// What becomes of a push that was made from an older version. For keys of the replica.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/policy", tag = "conflicts",
    params(("name" = String, Path, description = "NAMESPACE/PATH")),
    responses((status = 200, body = PolicyBody)),
)]
pub(super) async fn policy(asked: Asked) -> Result<Response, Refused> {
    let policy = asked.call(|backend, caller, name| backend.policy(&caller, name)).await?;
    Ok(answer::json(&PolicyBody::from(policy)))
}

/// Says what becomes of a push that was made from an older version, from the next push on. For admin keys.
#[utoipa::path(
    put, path = "/api/v1/replicas/{name}/policy", tag = "conflicts",
    params(("name" = String, Path, description = "NAMESPACE/PATH")),
    request_body = PolicyBody,
    responses((status = 200, body = PolicyBody)),
)]
pub(super) async fn set_policy(mut asked: Asked) -> Result<Response, Refused> {
    let PolicyBody { policy: rule, cells, renumber } = asked.json().await?;
    let (policy, address) = (Policy { rule, cells, renumber }, asked.address);
    asked.call(move |backend, caller, name| backend.set_policy(&caller, name, policy, address)).await?;
    Ok(answer::json(&PolicyBody::from(policy)))
}

/// What is asked for of the audit log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only entries before this one, by its `id`.
    before: Option<i64>,
    /// At most so many: 100 where nothing is said, and never more than 1000.
    limit: Option<usize>,
}

/// Entries of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    /// Newest first.
    entries: Vec<AuditEntry>,
    /// What to give for `before` to read on; `null` at the end.
    next_before: Option<i64>,
}

/// Who did what to a replica. For keys of the replica; addresses are told to those that may push.
#[utoipa::path(
    get, path = "/api/v1/replicas/{name}/audit", tag = "audit",
    params(("name" = String, Path, description = "NAMESPACE/PATH"), AuditQuery),
    responses((status = 200, body = AuditPage)),
)]
pub(super) async fn audit(asked: Asked) -> Result<Response, Refused> {
    let query: AuditQuery = asked.query()?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let found = asked.call(move |backend, caller, name| backend.audit(&caller, name, query.before, limit));
    let (entries, more) = found.await?;
    let next_before = entries.last().filter(|_| more).map(|last| last.id);
    Ok(answer::json(&AuditPage { entries, next_before }))
}
