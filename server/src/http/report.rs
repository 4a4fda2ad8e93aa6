//! `POST /sapi/{replicaID}`: what a client reports of a push that keeps failing.
//!
//! The key is looked at before the body; the body has a greatest length, and a time in which it has to come.

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use super::router::App;
use super::{answer, request};
use crate::catalog::{ClientName, Report};
use crate::refused::{Refused, Why};

/// Longest report that is read, in bytes.
const REPORT_BYTES_MAX: usize = 64 * 1024;

/// A report as it comes. Only the error has to be there; what a later client adds is passed over.
#[derive(Deserialize)]
struct Told {
    error: String,
    #[serde(default)]
    attempts: u32,
    since: Option<Timestamp>,
    #[serde(default, rename = "clientID")]
    client_id: String,
    #[serde(default)]
    hostname: String,
    #[serde(default, rename = "localPath")]
    local_path: String,
}

/// Takes a report down.
pub async fn report(State(app): State<App>, Path(replica): Path<String>, request: Request) -> Response {
    match take(&app, replica, request).await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(refused) => answer::refusal(&refused),
    }
}

async fn take(app: &App, replica: String, request: Request) -> Result<(), Refused> {
    let key = request::credentials(request.headers())?.key;
    let allowed = app.backend.blocking(move |backend| {
        let caller = backend.authenticate(key.as_ref())?;
        backend.may_report(&caller, &replica)
    });
    let record = allowed.await?;
    let bad = |what: String| Refused::new(Why::BadRequest, what);
    let too_long = || bad(format!("the report is longer than {REPORT_BYTES_MAX} bytes, or was cut"));
    let body = request.into_body();
    if body.size_hint().lower() > REPORT_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let body = timeout(app.limits.idle, to_bytes(body, REPORT_BYTES_MAX)).await;
    let body = body.map_err(|_| bad("the report did not come in time".to_owned()))?;
    let body = body.map_err(|_| too_long())?;
    let told: Told = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("the report is no JSON object as it has to be: {error}")))?;
    let client = ClientName::new(&told.client_id, &told.hostname, &told.local_path);
    app.backend.note_report(&record, client, Report::new(&told.error, told.attempts, told.since));
    Ok(())
}
