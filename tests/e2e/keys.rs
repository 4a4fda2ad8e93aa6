//! Who may do what, and names that cannot be.

use serde_json::Value;
use sqlrsync_protocol::memory::Content;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::fake::FakeServer;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::{sample, trace};

use crate::REMOTE;

/// A server with one version of `team/app.db`.
fn with_one_version() -> (Server, Client) {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    (server, client)
}

fn pusher(server: &Server, key: &str) -> Client {
    let client = Client::guest(server).with_env("SQLRSYNC_AUTH_TOKEN", key);
    sample::create(&client.path("app.db"));
    sample::change(&client.path("app.db"), 1, "mine");
    client
}

#[test]
fn keys_that_are_wrong_or_missing_move_nothing() {
    let (server, _) = with_one_version();
    let before = trace::of_repository(&server.data());
    let foreign = Server::start();
    let mut flipped = server.admin_key();
    flipped.pop();
    for key in ["nonsense", &foreign.admin_key(), &flipped] {
        let client = pusher(&server, key);
        client.run(&["app.db", REMOTE]).code(4);
        client.run(&[REMOTE, "pulled.db"]).code(4);
        client.run(&["log", REMOTE]).code(4);
        assert!(!client.path("pulled.db").exists());
    }
    let guest = Client::guest(&server);
    guest.run(&[REMOTE, "pulled.db"]).code(4);
    assert!(trace::of_repository(&server.data()) == before);
}

#[test]
fn a_pull_key_pulls_and_cannot_push() {
    let (server, _) = with_one_version();
    let before = trace::of_repository(&server.data());
    for scope in [["--replica", REMOTE], ["--namespace", "team"]] {
        let key = server.create_key(&[&["--kind", "pull"], &scope[..]].concat());
        let client = pusher(&server, &key);
        client.run(&[REMOTE, "pulled.db"]).ok();
        client.run(&["app.db", REMOTE]).code(4);
        client.run(&["app.db", "team/new.db"]).code(4);
        let flags = ["app.db", REMOTE, "--pushKey", &key];
        let other = Client::guest(&server).with_env("SQLRSYNC_ADMIN_KEY", &key);
        sample::create(&other.path("app.db"));
        other.run(&flags[..2]).code(4);
        client.run(&flags).code(4);
    }
    assert!(trace::of_repository(&server.data()) == before);
}

#[test]
fn a_push_key_is_for_its_replica_only() {
    let (server, _) = with_one_version();
    let key = server.create_key(&["--kind", "push", "--replica", REMOTE]);
    let client = pusher(&server, &key);
    // A database that nobody knows, in place of the other.
    assert_eq!(client.json(&["app.db", REMOTE, "--force"])["version"], 2);
    client.run(&["app.db", "team/other.db"]).code(4);
    client.run(&["team/other.db", "x.db"]).code(4);
}

#[test]
fn a_revoked_key_is_refused_at_once_while_the_server_runs() {
    let (server, _) = with_one_version();
    let made = server.create_key(&["--kind", "push", "--replica", REMOTE, "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let client = pusher(&server, key);
    client.run(&["app.db", REMOTE, "--force"]).ok();
    let listed = server.command(&["key", "list", "--json"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(&format!("\"{id}\"")), "{listed}");
    assert!(!listed.contains(key), "a key is shown once, when it is made");
    assert!(server.command(&["key", "revoke", id]).status.success());
    sample::change(&client.path("app.db"), 2, "after");
    client.run(&["app.db", REMOTE]).code(4);
    client.run(&[REMOTE, "pulled.db"]).code(4);
}

#[test]
fn key_create_prints_the_key_alone_or_as_json() {
    let server = Server::start();
    let key = server.create_key(&["--kind", "pull", "--namespace", "team"]);
    assert!(!key.contains(char::is_whitespace), "{key:?}");
    let json = server.create_key(&["--kind", "pull", "--namespace", "team", "--json"]);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert!(value["key"].as_str().is_some_and(|key| key.len() > 20), "{json}");
}

#[test]
fn no_key_is_in_a_log_or_in_the_data_folder() {
    let (server, client) = with_one_version();
    let key = server.create_key(&["--kind", "push", "--replica", REMOTE]);
    pusher(&server, &key).run(&["app.db", REMOTE, "--force"]).ok();
    client.run(&[REMOTE, "pulled.db"]).ok();
    let log = server.log();
    assert!(!log.is_empty() && !log.contains("sqlr_"));
    for (path, bytes) in trace::of_folder(&server.data(), |_| false) {
        let found = bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!found, "the key stands in {}", path.display());
    }
}

/// How many keys there are.
fn keys_of(server: &Server) -> usize {
    String::from_utf8(server.command(&["key", "list", "--json"]).stdout).unwrap().lines().count()
}

#[test]
fn a_second_run_asks_for_no_key_wherever_the_first_could_keep_its_own() {
    let server = Server::start();
    let client = Client::admin(&server);
    // A name that stands in no script, and one file pushed to two places, of which one has the file beside it.
    for name in ["app.db", "two\nlines.db"] {
        sample::create(&client.path(name));
    }
    let mut counts = Vec::new();
    for _ in 0..3 {
        for (file, remote) in
            [("app.db", "team/a.db"), ("app.db", "team/b.db"), ("./two\nlines.db", "team/c.db")]
        {
            client.run(&[file, remote]).ok();
            client.run(&[remote, file]).ok();
        }
        counts.push(keys_of(&server));
    }
    assert_eq!(counts, [counts[0]; 3]);
}

#[test]
fn a_stored_key_that_was_revoked_is_said_to_be_stored_and_is_replaced() {
    let server = Server::start();
    let client = Client::guest(&server);
    sample::create(&client.path("app.db"));
    let key = server.admin_key();
    client.run(&["app.db", "team/mine.db", "--pushKey", &key]).ok();
    let listed = String::from_utf8(server.command(&["key", "list", "--json"]).stdout).unwrap();
    for line in listed.lines() {
        let key: Value = serde_json::from_str(line).unwrap();
        if key["scope"] == "team/mine.db" {
            assert!(server.command(&["key", "revoke", key["id"].as_str().unwrap()]).status.success());
        }
    }
    client.run(&["app.db"]).code(4).says("local-secrets.toml");
    client.run(&["team/mine.db", "app.db"]).code(4).says("app.db-sqlrsync");
    client.run(&["app.db", "--pushKey", &key]).ok();
    client.run(&["app.db"]).ok();
    client.run(&["team/mine.db", "app.db"]).ok();
    let before = keys_of(&server);
    client.run(&["app.db", "--pushKey", &key]).ok();
    assert_eq!(keys_of(&server), before, "one that does is not replaced");
}

#[test]
fn the_id_of_a_replica_goes_to_its_own_server_only() {
    let (one, other) = (Server::start(), Server::start());
    let client = Client::stranger();
    sample::create(&client.path("app.db"));
    for server in [&one, &other] {
        client.run(&["app.db", REMOTE, "--server", server.url(), "--pushKey", &server.admin_key()]).ok();
        client.run(&["app.db", "--server", server.url()]).ok();
        client.run(&[REMOTE, "app.db", "--server", server.url()]).ok();
    }
    let beside = std::fs::read_to_string(client.path("app.db-sqlrsync")).unwrap();
    assert!(beside.contains(one.url().strip_prefix("http").unwrap()), "it stays the first one's: {beside}");
}

#[test]
fn no_filter_gets_a_key_into_a_log() {
    for filter in ["trace", "info,tungstenite=trace,hyper=trace,h2=trace,axum=trace,tokio_tungstenite=trace"]
    {
        let server = Server::with_flags(&["--log", filter]);
        let client = Client::admin(&server);
        sample::create(&client.path("app.db"));
        for protocol in ["1", "3"] {
            let remote = format!("team/app{protocol}.db");
            // Both are given keys of their own, which the server sends in a frame.
            client.run(&["app.db", &remote, "--protocol", protocol]).ok();
            client.run(&[&remote, &format!("pulled{protocol}.db"), "--protocol", protocol]).ok();
        }
        client.run(&["log", "team/app3.db"]).ok();
        let log = server.log();
        assert!(log.contains("INFO"), "{filter}: {log}");
        let found = log.lines().find(|line| line.contains("sqlr_"));
        assert!(found.is_none(), "{filter}: {found:?}");
    }
}

#[test]
fn a_key_that_the_server_says_after_all_pages_is_kept() {
    let client = Client::stranger().with_env("SQLRSYNC_AUTH_TOKEN", "a-key");
    sample::create(&client.path("app.db"));
    let bytes = std::fs::read(client.path("app.db")).unwrap();
    let content = Content::from_file(PageSize::from_bytes(4096).unwrap(), &bytes);
    let server = FakeServer::giving(content, r#"CONFIG={"newPullKey":"said-at-last"}"#);
    client.use_server(&server.url());
    client.run(&[REMOTE, "pulled.db"]).ok();
    sample::assert_same(&client.path("app.db"), &client.path("pulled.db"));
    let beside = std::fs::read_to_string(client.path("pulled.db-sqlrsync")).unwrap();
    assert!(beside.contains("said-at-last"), "{beside}");
}

#[test]
fn who_may_not_look_learns_nothing_about_what_is_there() {
    let (server, _) = with_one_version();
    let client = Client::guest(&server).with_env("SQLRSYNC_AUTH_TOKEN", "nonsense");
    let there = client.run(&[REMOTE, "x.db"]);
    let not_there = client.run(&["team/not-there.db", "x.db"]);
    assert_eq!(there.code, not_there.code);
}

#[test]
fn public_and_unlisted_replicas_are_pulled_without_a_key() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", "team/public.db", "--public"]).ok();
    client.run(&["app.db", "team/unlisted.db", "--unlisted"]).ok();
    client.run(&["app.db", "team/private.db"]).ok();
    let guest = Client::guest(&server);
    guest.run(&["team/public.db"]).ok();
    guest.run(&["team/unlisted.db"]).ok();
    guest.run(&["team/private.db"]).code(4);
    sample::assert_same(&client.path("app.db"), &guest.path("public.db"));
}

#[test]
fn hostile_names_are_refused_on_both_sides() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    let long = format!("team/{}.db", "n".repeat(300));
    for name in ["team/../../etc/x.db", "team//x.db", "team/a\u{7}b.db", "team/./x.db", "team/", &long] {
        let outcome = client.run(&["app.db", name]);
        assert!([1, 2].contains(&outcome.code), "{name:?}: {} {}", outcome.code, outcome.stderr);
        let outcome = client.run(&[name, "./out.db"]);
        assert!([1, 2].contains(&outcome.code), "{name:?}: {} {}", outcome.code, outcome.stderr);
    }
    // Past the client's own check.
    let key = server.admin_key();
    for path in [
        "push/team/%2e%2e/x.db",
        "push/team//x.db",
        "push/team/a%00b",
        "push/team/a%0ab",
        "pull/..%2f..%2fetc",
    ] {
        let refused = sqlrsync_tests::raw::RawSocket::connect(server.url(), path, &key).err();
        let status = refused.unwrap_or_else(|| panic!("{path} was let in")).status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let path = format!("push/team/{}", "n".repeat(300));
    let refused = sqlrsync_tests::raw::RawSocket::connect(server.url(), &path, &key).err();
    assert!(refused.is_some_and(|refused| (400..500).contains(&refused.status)));
    assert!(trace::of_repository(&server.data()).keys().all(|path| !path.to_string_lossy().contains("nnnn")));
}

#[test]
fn what_is_unknown_is_not_found() {
    let server = Server::start();
    let client = Client::admin(&server);
    client.run(&["team/none.db", "x.db"]).code(10);
    assert!(!client.path("x.db").exists());
}
