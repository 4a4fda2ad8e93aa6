//! The OpenAPI document: generated from the functions that answer.

use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::super::answer;
use super::{conflicts, look, replica, rules};
use crate::backend::DiffEnd;

/// Everything below `/api/v1`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sqlrsync-server",
        description = "Versions of SQLite databases: what is there, what changed, and what waits to be \
                       settled. A name is NAMESPACE/PATH; its slashes are written as they are. A refusal is \
                       a status and one line of plain text.",
    ),
    modifiers(&Keys),
    components(schemas(DiffEnd)),
    security((), ("key" = [])),
    paths(
        openapi,
        replica::replicas,
        replica::versions,
        replica::status,
        rules::policy,
        rules::set_policy,
        rules::audit,
        conflicts::conflicts,
        conflicts::conflict,
        conflicts::rows,
        conflicts::settle,
        look::diff,
        look::query,
    )
)]
struct Document;

/// Says how a key is given.
struct Keys;

impl utoipa::Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key.")).build();
        document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "document", responses((status = 200)))]
pub async fn openapi() -> Response {
    answer::json(&Document::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{PREFIX, ROUTES};
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut routes: BTreeSet<String> =
            ["GET /api/v1/openapi.json", "GET /api/v1/replicas"].map(str::to_owned).into();
        for (route, methods) in ROUTES {
            routes.extend(methods.iter().map(|method| format!("{method} {PREFIX}{{name}}/{route}")));
        }
        assert_eq!(described, routes);
    }
}
