//! What the routes answer that have to do with no replica.

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;

use super::answer;
use super::router::App;
use crate::refused::{Refused, Why};

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
