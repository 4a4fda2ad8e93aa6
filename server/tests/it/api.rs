//! What is read over HTTP.

use serde_json::Value;
use sqlrsync_protocol::key::Kind;

use crate::public_client::{Ask, push};
use crate::support::{TestServer, database};

#[test]
fn versions_are_listed_newest_first_and_in_pages() {
    let server = TestServer::start();
    for seed in 1..=5 {
        let message = format!("number {seed}");
        let ask = Ask { message: &message, ..Ask::new(&server.admin, 2) }.header("x-localhostname", "laptop");
        push(&server, "team/a b/app.db", &ask, &database(4096, 100, seed)).unwrap();
    }
    let key = [("Authorization", server.admin.as_str())];
    let path = "/api/v1/replicas/team/a%20b/app.db/versions";
    let (status, _, body) = server.get(&format!("{path}?limit=2"), &key);
    assert_eq!(status, 200, "{body}");
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["replica"], "team/a b/app.db");
    assert_eq!(page["next_before"], 4);
    let first = &page["versions"][0];
    assert_eq!((&first["version"], &first["message"]), (&5.into(), &"number 5".into()));
    assert_eq!(first["host"], "laptop");
    assert_eq!(first["page_size"], 4096);
    assert_eq!(first["database_bytes"].as_u64(), first["page_count"].as_u64().map(|count| count * 4096));
    assert!(first["pages_changed"].as_u64() > Some(0) && first["bytes_stored"].as_u64() > Some(0));
    assert_eq!(first["root"].as_str().unwrap().len(), 64);
    first["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (_, _, body) = server.get(&format!("{path}?before=3"), &key);
    let page: Value = serde_json::from_str(&body).unwrap();
    let numbers: Vec<_> =
        page["versions"].as_array().unwrap().iter().map(|version| &version["version"]).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(page["next_before"], Value::Null);

    assert_eq!(server.get(path, &[]).0, 401);
    assert_eq!(server.get(&format!("{path}?before=0"), &key).0, 400);
    assert_eq!(server.get(&format!("{path}?before=x"), &key).0, 400);
    assert_eq!(server.get("/api/v1/replicas/team/none.db/versions", &key).0, 404);
    assert_eq!(server.get("/api/v1/replicas/team/../versions", &key).0, 400);
    let foreign = server.key(Kind::AccountPull, "other");
    assert_eq!(server.get(path, &[("Authorization", &foreign)]).0, 403);
}

#[test]
fn who_has_no_key_reads_what_versions_say_and_not_who_made_them_where() {
    let server = TestServer::start();
    let ask = Ask { message: "before the move", ..Ask::new(&server.admin, 2) };
    let ask = ask.header("x-visibility", "2").header("x-localhostname", "laptop");
    push(&server, "team/app.db", &ask, &database(4096, 10, 1)).unwrap();
    let first = |headers: &[(&str, &str)]| -> Value {
        let (status, _, body) = server.get("/api/v1/replicas/team/app.db/versions", headers);
        assert_eq!(status, 200, "{body}");
        let page: Value = serde_json::from_str(&body).unwrap();
        page["versions"][0].clone()
    };
    let foreign = server.key(Kind::AccountPull, "other");
    for anybody in [&[][..], &[("Authorization", foreign.as_str())]] {
        let seen = first(anybody);
        assert_eq!((&seen["host"], &seen["author"]), (&"".into(), &"".into()));
        assert_eq!(seen["message"], "before the move");
    }
    let seen = first(&[("Authorization", &server.admin)]);
    assert_eq!((&seen["host"], &seen["author"]), (&"laptop".into(), &"admin".into()));
}

#[test]
fn the_replicas_that_a_key_opens_are_listed() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    for name in ["team/b.db", "team/a.db"] {
        push(&server, name, &Ask::new(&server.admin, 2).header("x-visibility", "2"), &content).unwrap();
    }
    let one = server.replica_key(Kind::ReplicaPull, "b.db");
    for (key, expected) in [(&server.admin, &["team/a.db", "team/b.db"][..]), (&one, &["team/b.db"])] {
        let (status, _, body) = server.get("/api/v1/replicas", &[("Authorization", key)]);
        assert_eq!(status, 200);
        let list: Value = serde_json::from_str(&body).unwrap();
        let names: Vec<_> = list["replicas"].as_array().unwrap().iter().map(|one| &one["replica"]).collect();
        assert_eq!(names, expected);
        assert_eq!(list["replicas"][0]["visibility"], "public");
    }
    assert_eq!(server.get("/api/v1/replicas", &[]).0, 401);
}

#[test]
fn every_answer_says_which_server_it_is() {
    let server = TestServer::start();
    for (path, status) in
        [("/", 200), ("/livez", 200), ("/readyz", 200), ("/nothing", 404), ("/sapi/push/x", 400)]
    {
        let (found, head, body) = server.get(path, &[]);
        assert_eq!(found, status, "{path}: {body}");
        assert!(head.contains(&format!("x-sqlrsync-server: {}", env!("CARGO_PKG_VERSION"))), "{head}");
        assert_eq!(body.lines().count(), 1);
    }
    let (status, _, body) = server.get("/sapi/pull/team/app.db", &[]);
    assert_eq!(status, 401, "who may not is told so before anything else: {body}");
    let (status, _, body) = server.get("/sapi/push/team/app.db", &[("Authorization", &server.admin)]);
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("WebSocket"), "{body}");
}
