//! Every route of the server.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, get, post};

use super::{answer, api, handlers, report, request, sockets};
use crate::backend::Backend;
use crate::gate::Gate;
use crate::listener::{Peer, address_full};
use crate::session::Limits;

/// Says that this is a sqlrsync server, and its version.
pub const SERVER_HEADER: HeaderName = HeaderName::from_static("x-sqlrsync-server");

/// How much of a path is logged, in characters.
const LOGGED_PATH_MAX: usize = 300;

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// All that is not HTTP.
    pub backend: Arc<Backend>,
    /// Limits of the WebSocket sessions.
    pub limits: Limits,
    /// Counts what a proxy forwards, by address.
    pub gate: Arc<Gate>,
    /// Whether a proxy says who the client is.
    pub behind_proxy: bool,
}

/// The routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/", get(handlers::index))
        .route("/livez", get(handlers::live))
        .route("/readyz", get(handlers::ready))
        .route("/sapi/push", get(sockets::push))
        .route("/sapi/push/", get(sockets::push))
        .route("/sapi/push/{*name}", get(sockets::push))
        .route("/sapi/pull", get(sockets::pull))
        .route("/sapi/pull/", get(sockets::pull))
        .route("/sapi/pull/{*name}", get(sockets::pull))
        .route("/sapi/subscribe", get(sockets::subscribe))
        .route("/sapi/subscribe/", get(sockets::subscribe))
        .route("/sapi/subscribe/{*name}", get(sockets::subscribe))
        .route("/sapi/{replica_id}", post(report::report))
        .route("/api/v1/openapi.json", get(api::openapi))
        .route("/api/v1/replicas", get(api::replicas))
        .route("/api/v1/replicas/{*name}", any(api::of_replica))
        .fallback(handlers::nothing_here)
        .method_not_allowed_fallback(handlers::wrong_method)
        .layer(from_fn(log_request))
        .layer(from_fn_with_state(app.clone(), count_forwarded))
        .layer(map_response(say_who_answers))
        .with_state(app)
}

/// One line for each request. What is refused shows at the usual level: an operator looks for it.
async fn log_request(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    let method = request.method().clone();
    // Percent-encoded still, so that nothing in it can break a line.
    let path: String = request.uri().path().chars().take(LOGGED_PATH_MAX).collect();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if status >= 400 {
        tracing::info!(?peer, %method, path, status, "refused");
    } else {
        tracing::debug!(?peer, %method, path, status, "answered");
    }
    response
}

/// Behind a proxy the client's address counts, and not the proxy's.
async fn count_forwarded(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if app.behind_proxy {
        let Some(address) = request::forwarded_for(request.headers()) else {
            // A proxy's own probe, or a proxy that says nothing: only the limit for all applies.
            return next.run(request).await;
        };
        match app.gate.admit_forwarded(address) {
            Ok(permit) => request.extensions_mut().insert(Peer { address, permit: Arc::new(permit) }),
            Err(_) => return answer::refusal(&address_full()),
        };
    }
    next.run(request).await
}

async fn say_who_answers(mut response: Response) -> Response {
    response.headers_mut().insert(SERVER_HEADER, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    if response.status() == StatusCode::UNAUTHORIZED {
        // RFC 9110 wants it; the scheme is the bare key that the public client sends.
        response.headers_mut().insert(
            axum::http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("SQLRsync realm=\"replicas\""),
        );
    }
    response
}
