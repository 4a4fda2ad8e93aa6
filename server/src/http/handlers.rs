//! What each route answers.

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use tokio::task::spawn_blocking;

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
    match spawn_blocking(move || app.backend.ready()).await {
        Ok(Ok(())) => answer::text(StatusCode::OK, "ok\n"),
        Ok(Err(refused)) => answer::refusal(&Refused { why: Why::TryLater, ..refused }),
        Err(error) => answer::refusal(&Refused::failed("a probe", &error)),
    }
}

/// Any other path.
pub async fn nothing_here(uri: Uri) -> Response {
    answer::refusal(&Refused::new(Why::NotFound, format!("there is nothing at {}", uri.path())))
}

/// A known path, asked for with another method than GET.
pub async fn wrong_method(method: Method) -> Response {
    answer::text(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not answered here: use GET\n"))
}
