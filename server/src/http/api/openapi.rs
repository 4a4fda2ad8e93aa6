//! The OpenAPI document: generated from the functions that answer.

use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, ResponseBuilder, Type};

use super::super::answer;
use super::{conflicts, look, replica, rules};
use crate::backend::{DiffEnd, DiffFormat};

/// Everything below `/api/v1`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sqlrsync-server",
        description = "Versions of SQLite databases: what is there, what changed, and what waits to be \
                       settled. A name is NAMESPACE/PATH; its slashes are written as they are. A refusal is \
                       a status and one line of plain text.",
    ),
    modifiers(&Keys, &Refusals),
    components(schemas(DiffEnd, DiffFormat)),
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

/// Says what every other answer is.
struct Refusals;

impl utoipa::Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let line = ContentBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String))).build();
        let refusal = ResponseBuilder::new()
            .description("Refused, and why, in one line: docs/server.md has the statuses.")
            .content("text/plain", line)
            .build();
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), refusal.clone().into());
            }
        }
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

    /// All that `$ref` names.
    fn references<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
        if let Some(reference) = value.get("$ref").and_then(serde_json::Value::as_str) {
            found.push(reference);
        }
        value
            .as_object()
            .into_iter()
            .flat_map(|object| object.values())
            .for_each(|value| references(value, found));
        value.as_array().into_iter().flatten().for_each(|value| references(value, found));
    }

    #[test]
    fn what_the_document_refers_to_is_there_and_refusals_are_described_everywhere() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let refusal = &operation["responses"]["default"]["content"]["text/plain"];
                assert!(refusal.is_object(), "{method} {path}");
            }
        }
    }

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
