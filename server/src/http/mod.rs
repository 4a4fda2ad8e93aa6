//! HTTP: the routes, and handlers that turn a request into a call of the backend and its outcome
//! into an answer. Nothing is decided here.

pub mod answer;
mod handlers;
#[allow(dead_code, reason = "the routes that read requests come next")]
mod request;
pub mod router;
