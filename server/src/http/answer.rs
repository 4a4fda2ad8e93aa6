//! Answers: a refusal as HTTP has it, and JSON.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::refused::{Refused, Why};

/// Says what kind of refusal it is, as a number: for our own client.
pub const REFUSAL_HEADER: HeaderName = HeaderName::from_static("x-sqlrsync-refusal");

/// The longest message that is taken on a WebSocket, in bytes: for our own client, whose pieces are longer than those of
/// the public one.
pub const MESSAGE_MAX_HEADER: HeaderName = HeaderName::from_static("x-sqlrsync-message-max");

/// After how many seconds who was refused for a limit may try again.
const RETRY_AFTER_S: u32 = 5;

/// The HTTP status of a refusal.
pub const fn status(why: Why) -> StatusCode {
    match why {
        Why::BadRequest => StatusCode::BAD_REQUEST,
        Why::NoKey | Why::BadKey => StatusCode::UNAUTHORIZED,
        Why::NotAllowed => StatusCode::FORBIDDEN,
        Why::NotFound => StatusCode::NOT_FOUND,
        Why::Conflict => StatusCode::CONFLICT,
        Why::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Why::TryLater => StatusCode::SERVICE_UNAVAILABLE,
        Why::Damaged | Why::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal as an answer: status, one line of text, and the header for our own client.
pub fn refusal(refused: &Refused) -> Response {
    let mut response = text(status(refused.why), format!("{}\n", one_line(&refused.text)));
    let headers = response.headers_mut();
    headers.insert(REFUSAL_HEADER, HeaderValue::from(refused.why.refusal() as u16));
    if matches!(refused.why, Why::TooMany | Why::TryLater) {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

/// Plain text.
pub fn text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// JSON.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => refusal(&Refused::failed("writing JSON", &error)),
    }
}

/// What a peer wrote itself can come back in a refusal; nothing of it may start a line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
