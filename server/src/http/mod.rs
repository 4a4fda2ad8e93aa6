//! HTTP: the routes, and handlers that turn a request into a call of the backend and its outcome
//! into an answer. Nothing is decided here.

pub mod answer;
pub mod api;
mod handlers;
mod report;
mod request;
pub mod router;
mod sockets;
