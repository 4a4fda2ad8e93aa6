//! What the server keeps of what clients did, announced and reported, and who is told of it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sqlrsync_protocol::control;
use sqlrsync_protocol::key::Kind;
use sqlrsync_server::catalog::CLIENTS_MAX;

use crate::public_client::{Ask, Socket, pull, push};
use crate::support::{TestServer, database, eventually, settings};

/// What a publisher says of itself in headers.
fn publisher(key: &str) -> Ask<'_> {
    Ask::new(key, 2)
        .header("x-clientid", "machine-1")
        .header("x-localhostname", "laptop")
        .header("x-localabsolutepath", "/srv/app.db")
}

/// A server with one version of `team/app.db`, and the id of that replica.
fn published() -> (TestServer, String) {
    let server = TestServer::start();
    let done = push(&server, "team/app.db", &publisher(&server.admin), &database(4096, 10, 1)).unwrap();
    let id = done.config.replica_id.unwrap().to_string();
    (server, id)
}

fn status(server: &TestServer, key: &str) -> Value {
    let (status, _, body) =
        server.get("/api/v1/replicas/team/app.db/status", &[("Authorization", &format!("Bearer {key}"))]);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The entry of a client, which there is once.
fn client(status: &Value, client_id: &str) -> Value {
    let clients = status["clients"].as_array().unwrap();
    let mut of_client = clients.iter().filter(|client| client["client_id"] == client_id);
    let found = of_client.next().unwrap_or_else(|| panic!("no {client_id} in {status}"));
    assert!(of_client.next().is_none(), "{client_id} stands twice in {status}");
    found.clone()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value} is no time")).parse().unwrap()
}

/// Announces a push on a connection that stays open, and waits until the server knows.
fn announce(server: &TestServer, seconds: u32) -> Socket {
    let mut socket = Socket::open(server, "/sapi/push/team/app.db", &publisher(&server.admin)).unwrap();
    socket.greeted().unwrap();
    let before = client(&status(server, &server.admin), "machine-1")["push_due"].clone();
    socket.write(control::changed(seconds)).unwrap();
    eventually("CHANGED is noted", || {
        client(&status(server, &server.admin), "machine-1")["push_due"] != before
    });
    socket
}

fn report(error: &str) -> Value {
    json!({
        "error": error, "attempts": 3, "since": "2026-01-01T00:00:00Z", "clientID": "machine-1",
        "hostname": "laptop", "localPath": "/srv/app.db",
    })
}

#[test]
fn who_pushed_and_pulled_what_is_told() {
    let (server, id) = published();
    let follower = server.key(Kind::AccountPull, "team");
    for protocol in [2, 3] {
        let ask = Ask::new(&follower, protocol).header("x-clientid", &format!("replica-{protocol}"));
        pull(&server, "team/app.db", &ask, None).unwrap();
    }
    eventually("both pulls are noted", || {
        status(&server, &follower)["clients"].as_array().unwrap().len() == 3
    });
    let found = status(&server, &follower);
    assert_eq!((&found["replica"], &found["replica_id"]), (&json!("team/app.db"), &json!(id)));
    assert_eq!((&found["latest"], &found["overdue"]), (&json!(1), &json!(false)));
    let recent = Timestamp::now() - SignedDuration::from_mins(5);
    assert!(time(&found["latest_time"]) > recent);
    let publisher = client(&found, "machine-1");
    assert_eq!((&publisher["host"], &publisher["local_path"]), (&json!("laptop"), &json!("/srv/app.db")));
    assert!(time(&publisher["last_push"]) > recent);
    assert_eq!(publisher["last_push_version"], 1);
    assert_eq!((&publisher["last_pull"], &publisher["push_due"]), (&Value::Null, &Value::Null));
    assert_eq!((&publisher["overdue"], &publisher["errors"]), (&json!(false), &json!([])));
    for protocol in [2, 3] {
        let follower = client(&found, &format!("replica-{protocol}"));
        assert!(time(&follower["last_pull"]) > recent);
        assert_eq!((&follower["last_pull_version"], &follower["last_push"]), (&json!(1), &Value::Null));
    }
}

#[test]
fn a_machine_that_pushes_and_pulls_is_one_entry() {
    let (server, _) = published();
    // As the public client: a pull names neither host nor path.
    let ask = Ask::new(&server.admin, 2).header("x-clientid", "machine-1");
    pull(&server, "team/app.db", &ask, None).unwrap();
    eventually("the pull is noted", || {
        client(&status(&server, &server.admin), "machine-1")["last_pull"] != Value::Null
    });
    let machine = client(&status(&server, &server.admin), "machine-1");
    assert_eq!((&machine["host"], &machine["last_push_version"]), (&json!("laptop"), &json!(1)));
}

#[test]
fn an_announced_push_is_due_until_it_comes() {
    let (server, _) = published();
    let socket = announce(&server, 600);
    let due = time(&client(&status(&server, &server.admin), "machine-1")["push_due"]);
    let away = due.duration_since(Timestamp::now());
    assert!(away > SignedDuration::from_secs(500) && away <= SignedDuration::from_secs(600), "{away:?}");
    // Over another connection, and with nothing new.
    push(&server, "team/app.db", &publisher(&server.admin), &database(4096, 10, 1)).unwrap();
    let after = client(&status(&server, &server.admin), "machine-1");
    assert_eq!((&after["push_due"], &after["overdue"]), (&Value::Null, &json!(false)));
    drop(socket);
}

#[test]
fn a_pull_key_announces_nothing() {
    let (server, _) = published();
    let key = server.replica_key(Kind::ReplicaPull, "app.db");
    let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &publisher(&key)).unwrap();
    socket.greeted().unwrap();
    socket.write(control::changed(600)).unwrap();
    // The server has read it when it answers what came after it.
    socket.write(tokio_tungstenite::tungstenite::Message::Ping("after".into())).unwrap();
    while !matches!(socket.socket.read().unwrap(), tokio_tungstenite::tungstenite::Message::Pong(_)) {}
    let found = client(&status(&server, &server.admin), "machine-1");
    assert_eq!(found["push_due"], Value::Null);
}

#[test]
fn a_report_is_kept_until_a_push_succeeds() {
    let (server, id) = published();
    let (path, key) = (format!("/sapi/{id}"), server.replica_key(Kind::ReplicaPush, "app.db"));
    for (attempts, auth) in [(3, key.clone()), (4, format!("Bearer {key}"))] {
        let mut body = report("no route to host\u{1b}[2J");
        body["attempts"] = json!(attempts);
        let (status, _, answer) = server.post(&path, &[("Authorization", &auth)], &body.to_string());
        assert_eq!((status, answer.as_str()), (204, ""));
    }
    let errors = client(&status(&server, &server.admin), "machine-1")["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 1, "the same error is one report: {errors}");
    let error = &errors[0];
    assert_eq!(error["error"], "no route to host [2J", "nothing in it can steer a terminal");
    assert_eq!((&error["attempts"], &error["since"]), (&json!(4), &json!("2026-01-01T00:00:00Z")));
    assert_eq!((&error["host"], &error["local_path"]), (&json!("laptop"), &json!("/srv/app.db")));
    time(&error["reported"]);
    push(&server, "team/app.db", &publisher(&server.admin), &database(4096, 10, 2)).unwrap();
    assert_eq!(client(&status(&server, &server.admin), "machine-1")["errors"], json!([]));
}

#[test]
fn only_who_may_push_reports() {
    let (server, id) = published();
    let (path, body) = (format!("/sapi/{id}"), report("no route to host").to_string());
    let foreign = server.key(Kind::AccountAdmin, "other");
    let unknown_path = format!("/sapi/{}", "0".repeat(id.len()));
    let (pull_key, other) =
        (server.replica_key(Kind::ReplicaPull, "app.db"), server.replica_key(Kind::ReplicaPush, "other.db"));
    for (path, key, expected) in [
        (&path, server.admin.as_str(), 204),
        (&path, "", 401),
        (&path, "hunter2", 401),
        (&path, &pull_key, 403),
        (&path, &foreign, 404),
        (&path, &other, 404),
        (&unknown_path, &server.admin, 404),
    ] {
        let (status, _, answer) = server.post(path, &[("Authorization", key)], &body);
        assert_eq!(status, expected, "{answer}");
        assert_eq!(answer.lines().count(), usize::from(status != 204));
    }
    let hidden = server.post(&path, &[("Authorization", &foreign)], &body).2;
    let none = server.post(&unknown_path, &[("Authorization", &server.admin)], &body).2;
    assert_eq!(hidden, none, "what a key may not see is not there");
    assert_eq!(server.get(&path, &[("Authorization", &server.admin)]).0, 405);
}

#[test]
fn what_is_no_report_is_refused() {
    let (server, id) = published();
    let (path, key) = (format!("/sapi/{id}"), server.admin.as_str());
    let long = report(&"x".repeat(65 * 1024)).to_string();
    for body in ["", "{", "[]", "{}", r#"{"error":7}"#, r#"{"error":"x","since":"soon"}"#, &long] {
        let (status, _, answer) = server.post(&path, &[("Authorization", key)], body);
        assert_eq!((status, answer.lines().count()), (400, 1), "{answer}");
    }
    // Of which the server reads no byte more than it takes.
    let endless = [("Authorization", key), ("Content-Length", "1000000000000")];
    assert_eq!(server.ask("POST", &path, &endless, "").0, 400);
    let (status, ..) = server.post(&path, &[("Authorization", key)], r#"{"error":"x","later":[1]}"#);
    assert_eq!(status, 204, "what a later client adds is passed over");
}

#[test]
fn a_stranger_sees_the_latest_version_of_a_public_replica_and_nobody() {
    let (server, _) = published();
    let path = "/api/v1/replicas/team/app.db/status";
    assert_eq!(server.get(path, &[]).0, 401);
    let foreign = server.key(Kind::AccountPull, "other");
    assert_eq!(server.get(path, &[("Authorization", &foreign)]).0, 403);
    assert_eq!(
        server.get("/api/v1/replicas/team/none.db/status", &[("Authorization", &server.admin)]).0,
        404
    );
    assert_eq!(server.get("/api/v1/replicas/team/../status", &[("Authorization", &server.admin)]).0, 400);
    let public = sqlrsync_server::catalog::Visibility::Public;
    server.catalog().set_visibility("team", "app.db", public).unwrap();
    for headers in [&[][..], &[("Authorization", foreign.as_str())]] {
        let (status, _, body) = server.get(path, headers);
        let found: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &found["latest"], &found["clients"]), (200, &json!(1), &json!([])));
    }
    for kind in [Kind::ReplicaPull, Kind::ReplicaPush] {
        let key = server.replica_key(kind, "app.db");
        assert_eq!(client(&status(&server, &key), "machine-1")["host"], "laptop");
    }
}

#[test]
fn a_replica_in_folders_and_one_without_a_version_have_a_status() {
    let server = TestServer::start();
    push(&server, "team/a b/c/app.db", &publisher(&server.admin), &database(4096, 10, 1)).unwrap();
    let key = [("Authorization", server.admin.as_str())];
    let (_, _, body) = server.get("/api/v1/replicas/team/a%20b/c/app.db/status", &key);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["replica"], "team/a b/c/app.db");
    server.replica_key(Kind::ReplicaPush, "empty.db");
    let (_, _, body) = server.get("/api/v1/replicas/team/empty.db/status", &key);
    let found: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&found["latest"], &found["clients"]), (&Value::Null, &json!([])));
}

#[test]
fn who_follows_is_shown_as_long_as_it_does() {
    let (server, _) = published();
    let key = server.replica_key(Kind::ReplicaPull, "app.db");
    let ask = Ask::new(&key, 2).header("x-clientid", "replica-1");
    let socket = Socket::open(&server, "/sapi/subscribe/team/app.db", &ask).unwrap();
    let found = status(&server, &key);
    let following =
        ["replica-1", "machine-1"].map(|client_id| client(&found, client_id)["following"] == true);
    assert_eq!(following, [true, false]);
    drop(socket);
    eventually("it is gone", || status(&server, &key)["clients"].as_array().unwrap().len() == 1);
}

#[test]
fn what_was_told_outlasts_a_restart() {
    let (server, id) = published();
    drop(announce(&server, 600));
    let key = server.admin.clone();
    let (status_code, ..) =
        server.post(&format!("/sapi/{id}"), &[("Authorization", &key)], &report("no route").to_string());
    assert_eq!(status_code, 204);
    // Stopped in the same moment: what was not written yet is written now.
    let server = TestServer::on(server.into_folder(), settings());
    let found = client(&status(&server, &key), "machine-1");
    assert_eq!((&found["last_push_version"], &found["errors"][0]["error"]), (&json!(1), &json!("no route")));
    assert!(time(&found["push_due"]) > Timestamp::now());
}

#[test]
fn who_pushed_is_known_from_the_versions_where_the_rest_is_lost() {
    let (server, _) = published();
    push(&server, "team/app.db", &publisher(&server.admin), &database(4096, 10, 2)).unwrap();
    let versions = server.get("/api/v1/replicas/team/app.db/versions", &[("Authorization", &server.admin)]).2;
    let versions: Value = serde_json::from_str(&versions).unwrap();
    let folder = server.into_folder();
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join("data").join(name));
    }
    let server = TestServer::on(folder, settings());
    let found = client(&status(&server, &server.admin), "machine-1");
    assert_eq!((&found["host"], &found["last_push_version"]), (&json!("laptop"), &json!(2)));
    let away = time(&found["last_push"]).duration_since(time(&versions["versions"][0]["time"]));
    assert!(away.abs() < SignedDuration::from_secs(1), "the version's own time: {away:?}");
}

#[test]
fn hostile_names_are_bounded_and_printable_and_many_of_them_stay_few() {
    let (server, id) = published();
    let key = server.admin.clone();
    let mut body = report("x");
    body["clientID"] = json!(format!("evil\u{202e}\n{}", "i".repeat(3000)));
    body["hostname"] = json!("h\u{0}\u{7f}o".repeat(1000));
    body["localPath"] = json!("p".repeat(5000));
    assert_eq!(server.post(&format!("/sapi/{id}"), &[("Authorization", &key)], &body.to_string()).0, 204);
    let found = status(&server, &key);
    let entry = &found["clients"][0];
    let texts = ["client_id", "host", "local_path"].map(|name| entry[name].as_str().unwrap().to_owned());
    assert_eq!(texts.each_ref().map(String::len), [255, 255, 1024]);
    assert!(texts[0].starts_with("evil i") && texts.iter().all(|text| !text.contains(char::is_control)));
    for number in 0..(2 * CLIENTS_MAX) {
        let body = json!({"error": "x", "clientID": format!("flood {number}")}).to_string();
        assert_eq!(server.post(&format!("/sapi/{id}"), &[("Authorization", &key)], &body).0, 204);
    }
    let clients = status(&server, &key)["clients"].as_array().unwrap().len();
    assert_eq!(clients, CLIENTS_MAX as usize);
}
