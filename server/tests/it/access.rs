//! Who may do what, with which status. (The whole matrix is a unit test of `access`.)

use sqlrsync_protocol::key::Kind;

use crate::public_client::{Ask, Socket, pull, push};
use crate::support::{TestServer, database};

const SWITCHING: u16 = 101;

#[test]
fn each_kind_of_key_opens_what_it_is_for() {
    let server = TestServer::start();
    let ask = Ask::new(&server.admin, 2);
    push(&server, "team/app.db", &ask, &database(4096, 10, 1)).unwrap();
    push(&server, "team/other.db", &ask, &database(4096, 10, 1)).unwrap();
    let foreign = server.key(Kind::AccountAdmin, "other");
    let [push_key, pull_key] =
        [Kind::ReplicaPush, Kind::ReplicaPull].map(|kind| server.replica_key(kind, "app.db"));
    let account_pull = server.key(Kind::AccountPull, "team");
    let revoked = server.key(Kind::AccountAdmin, "team");
    server.revoke(&revoked);
    let unknown = sqlrsync_protocol::key::Key::new(Kind::AccountAdmin, [9; 21]).secret();

    // Key, then the status of: pull, pull another, pull one that is not there, push, push another, subscribe.
    let expected: [(&str, [u16; 6]); 9] = [
        ("", [401, 401, 401, 401, 401, 401]),
        ("not-a-key", [401; 6]),
        (&unknown, [401; 6]),
        (&revoked, [401; 6]),
        (&server.admin, [SWITCHING, SWITCHING, 404, SWITCHING, SWITCHING, SWITCHING]),
        (&account_pull, [SWITCHING, SWITCHING, 404, SWITCHING, SWITCHING, SWITCHING]),
        (&push_key, [SWITCHING, 403, 403, SWITCHING, 403, SWITCHING]),
        (&pull_key, [SWITCHING, 403, 403, SWITCHING, 403, SWITCHING]),
        (&foreign, [403; 6]),
    ];
    for (key, statuses) in expected {
        let paths = [
            "/sapi/pull/team/app.db",
            "/sapi/pull/team/other.db",
            "/sapi/pull/team/none.db",
            "/sapi/push/team/app.db",
            "/sapi/push/team/other.db",
            "/sapi/subscribe/team/app.db",
        ];
        let kind = key.rsplit_once('_').map_or(key, |(kind, _)| kind);
        for (path, expected) in paths.into_iter().zip(statuses) {
            let (status, head, body) = server.get_upgrade(path, key);
            assert_eq!(status, expected, "{kind} {path}: {body}");
            if status != SWITCHING {
                assert_eq!(body.lines().count(), 1, "{body}");
                assert!(head.contains("x-sqlrsync-refusal:"), "{head}");
                assert!(key.len() < 20 || !body.contains(key), "a key came back");
            }
        }
    }
}

#[test]
fn without_a_key_a_private_replica_and_none_at_all_look_the_same() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    let foreign = server.key(Kind::AccountPull, "other");
    for key in ["", &foreign] {
        let [private, none] = ["app.db", "nil.db"].map(|path| {
            let (status, head, body) = server.get_upgrade(&format!("/sapi/pull/team/{path}"), key);
            let date = head.lines().find(|line| line.starts_with("date")).unwrap_or_default().to_owned();
            (status, head.replace(&date, ""), body.replace(path, "PATH"))
        });
        assert_eq!(private, none);
    }
}

#[test]
fn unlisted_and_public_replicas_are_pulled_without_a_key_and_pushed_with_one() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    for (visibility, name) in [("1", "team/unlisted.db"), ("2", "team/public.db")] {
        let ask = Ask::new(&server.admin, 2).header("x-visibility", visibility);
        push(&server, name, &ask, &content).unwrap();
        let nobody = Ask { request_keys: true, ..Ask::new("", 2) };
        let (pulled, done) = pull(&server, name, &nobody, None).unwrap();
        assert!(pulled == content);
        assert_eq!(done.config.new_pull_key, None, "who has no key is given none");
        assert_eq!(server.get_upgrade(&format!("/sapi/push/{name}"), "").0, 401);
        let foreign = server.key(Kind::AccountAdmin, "other");
        assert_eq!(server.get_upgrade(&format!("/sapi/pull/{name}"), &foreign).0, 101);
        assert_eq!(server.get_upgrade(&format!("/sapi/push/{name}"), &foreign).0, 403);
    }
}

#[test]
fn a_version_that_is_not_there_is_not_found() {
    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &database(4096, 10, 1)).unwrap();
    for (version, status) in [("2", 404), ("-1", 404), ("99999999999", 404), ("x", 400), ("0", 400)] {
        let ask = Ask::new(&server.admin, 2).header("x-replicaversion", version);
        let refused = Socket::open(&server, "/sapi/pull/team/app.db", &ask).map(drop).unwrap_err();
        assert_eq!(refused.0, status, "{version}: {}", refused.1);
    }
    server.replica_key(Kind::ReplicaPush, "never-pushed.db");
    let (status, _, body) = server.get_upgrade("/sapi/pull/team/never-pushed.db", &server.admin);
    assert_eq!((status, body.as_str()), (404, "team/never-pushed.db has no version yet\n"));
}

#[test]
fn an_id_that_is_another_replicas_or_none_is_refused_beside_a_name() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    let id_of = |name: &str| {
        let done = push(&server, name, &Ask::new(&server.admin, 2), &content).unwrap();
        done.config.replica_id.unwrap().to_string()
    };
    let (own, other) = (id_of("team/app.db"), id_of("team/other.db"));
    for path in ["/sapi/push/team/app.db", "/sapi/pull/team/app.db", "/sapi/subscribe/team/app.db"] {
        for id in [other.as_str(), "nonsense"] {
            let ask = Ask::new(&server.admin, 2).header("x-replicaid", id);
            let (status, body) = Socket::open(&server, path, &ask).map(drop).unwrap_err();
            assert_eq!(status, 404, "{path} {id}: {body}");
            assert!(body.contains("another replica"), "{body}");
        }
        Socket::open(&server, path, &Ask::new(&server.admin, 2).header("x-replicaid", &own)).unwrap();
    }
    // A name that none has is mistyped where an id was given, and no new replica.
    for id in [own.as_str(), "nonsense"] {
        let ask = Ask::new(&server.admin, 2).header("x-replicaid", id);
        let (status, body) = Socket::open(&server, "/sapi/push/team/ap.db", &ask).map(drop).unwrap_err();
        assert_eq!(status, 404, "{id}: {body}");
        assert!(
            body.contains("there is no replica team/ap.db") && body.contains("leave the id out"),
            "{body}"
        );
    }
}

#[test]
fn a_request_without_a_name_means_the_replica_of_the_key_or_of_the_id() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    let done = push(&server, "team/app.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let id = done.config.replica_id.unwrap();
    let key = server.replica_key(Kind::ReplicaPull, "app.db");
    assert!(pull(&server, "", &Ask::new(&key, 2), None).unwrap().0 == content);
    let by_id = Ask::new(&server.admin, 2).header("x-replicaid", id.as_str());
    assert!(pull(&server, "", &by_id, None).unwrap().0 == content);
    let done = push(&server, "", &by_id, &database(4096, 10, 2)).unwrap();
    assert_eq!(done.config.replica_path.unwrap().to_string(), "team/app.db");
    let foreign = server.key(Kind::AccountPull, "other");
    let by_id = Ask::new(&foreign, 2).header("x-replicaid", id.as_str());
    assert_eq!(Socket::open(&server, "/sapi/pull/", &by_id).map(drop).unwrap_err().0, 400);
}
