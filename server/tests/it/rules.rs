//! The policy of a replica, the audit log, and the document that says what can be asked.

use serde_json::{Value, json};
use sqlrsync_protocol::key::Kind;

use crate::public_client::{Ask, push};
use crate::support::{TestServer, database};

fn get(server: &TestServer, path: &str, key: &str) -> (u16, Value) {
    let (status, _, body) = server.get(path, &[("Authorization", key)]);
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

#[test]
fn an_admin_sets_the_policy_and_the_audit_log_says_so() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    let (policy, audit) = ("/api/v1/replicas/team/app.db/policy", "/api/v1/replicas/team/app.db/audit");
    let merge = json!({"policy": "merge", "cells": false, "renumber": false});
    assert_eq!(get(&server, policy, &server.admin), (200, merge));
    let wanted = json!({"policy": "merge", "cells": true, "renumber": false});
    let put = |key: &str, body: &str| {
        let len = body.len().to_string();
        server.ask("PUT", policy, &[("Authorization", key), ("Content-Length", &len)], body).0
    };
    let pull = server.key(Kind::AccountPull, "team");
    let push_key = server.replica_key(Kind::ReplicaPush, "app.db");
    let foreign = server.key(Kind::AccountAdmin, "other");
    assert_eq!([&pull, &push_key, &foreign].map(|key| put(key, &wanted.to_string())), [403, 403, 403]);
    for nonsense in ["", "{}", r#"{"policy":"merge","x":1}"#, r#"{"policy":"reject","cells":true}"#] {
        assert_eq!(put(&server.admin, nonsense), 400, "{nonsense}");
    }
    assert_eq!(put(&server.admin, &wanted.to_string()), 200);
    assert_eq!(get(&server, policy, &pull), (200, wanted));
    assert_eq!(get(&server, policy, &foreign).0, 403);

    let (status, page) = get(&server, audit, &server.admin);
    assert_eq!(status, 200, "{page}");
    let changed = &page["entries"][0];
    assert_eq!(changed["action"], "policy-changed");
    assert_eq!((&changed["by"], &changed["address"]), (&"admin".into(), &"127.0.0.1".into()));
    assert_eq!(changed["details"]["cells"], true);
    assert_eq!(page["entries"][1]["action"], "key-created");
    let (_, page) = get(&server, &format!("{audit}?limit=1"), &pull);
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    assert_eq!(page["entries"][0]["address"], Value::Null, "addresses are for those that may push");
    let next = page["next_before"].as_i64().unwrap();
    let (_, page) = get(&server, &format!("{audit}?limit=1&before={next}"), &pull);
    assert_eq!(page["entries"][0]["action"], "key-created");
    assert_eq!(get(&server, audit, &foreign).0, 403);
}

#[test]
fn a_public_replica_shows_strangers_its_versions_and_nothing_of_its_conflicts() {
    let server = TestServer::start();
    let ask = Ask::new(&server.admin, 2).header("x-visibility", "2");
    push(&server, "team/app.db", &ask, &database(4096, 10, 1)).unwrap();
    assert_eq!(server.get("/api/v1/replicas/team/app.db/versions", &[]).0, 200);
    for route in ["policy", "audit"] {
        assert_eq!(server.get(&format!("/api/v1/replicas/team/app.db/{route}"), &[]).0, 401, "{route}");
    }
}

#[test]
fn the_openapi_document_is_served_and_a_wrong_method_is_told_the_right_ones() {
    let server = TestServer::start();
    let (status, head, body) = server.get("/api/v1/openapi.json", &[]);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"));
    let document: Value = serde_json::from_str(&body).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["paths"]["/api/v1/replicas/{name}/policy"]["put"].is_object());
    let (status, head, _) = server.ask("DELETE", "/api/v1/replicas/team/app.db/policy", &[], "");
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, put"), "{head}");
}
