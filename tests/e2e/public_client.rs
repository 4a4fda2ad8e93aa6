//! The public client's protocol, by `sqlite3_rsync` behind a WebSocket, or by `sqlrsync --protocol 2`
//! in its place where that is not installed.

use std::path::PathBuf;

use sqlrsync_tests::bridge::Bridge;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::programs::{on_path, programs};
use sqlrsync_tests::sample::{self, Sample};
use sqlrsync_tests::server::Server;

use crate::{REMOTE, not_shown};

fn program() -> PathBuf {
    on_path("sqlite3_rsync").unwrap_or_else(|| {
        not_shown("SQLite's own program as the public client", "sqlite3_rsync is not on the PATH");
        programs().client.clone()
    })
}

#[test]
fn a_version_two_peer_pushes_and_pulls_every_version() {
    let server = Server::start();
    let key = server.admin_key();
    let program = program();
    let bridge = Bridge { server: server.url(), key: &key, program: &program, client_id: "one" };
    let client = Client::guest(&server).with_env("SQLRSYNC_ADMIN_KEY", &key);
    let app = client.path("app.db");
    for page_size in [512, 4096, 65536] {
        let remote = format!("team/{page_size}.db");
        let _ = std::fs::remove_file(&app);
        Sample { page_size, rows: 2000, ..Sample::default() }.create(&app);
        for version in 1..=3 {
            sample::change(&app, version * 13, &format!("version {version}"));
            let ended = bridge.push(&app, &remote).unwrap();
            assert_eq!(ended.close_code, Some(1000), "{ended:?}");
            assert!(ended.keeps_to_the_message_length(), "{}", ended.message_len_max);
            assert_eq!(ended.config("committedVersionID"), Some(version.to_string()), "{ended:?}");
            assert_eq!(ended.config("keyType").as_deref(), Some("PUSH"));
        }
        let pulled = client.path(&format!("pulled-{page_size}.db"));
        for version in ["1", "", "-1"] {
            let ended = bridge.pull(&remote, version, &pulled).unwrap();
            assert_eq!(ended.close_code, Some(1000), "{ended:?}");
            assert!(ended.keeps_to_the_message_length(), "{}", ended.message_len_max);
            assert_eq!(sample::text(&pulled, "PRAGMA integrity_check"), "ok");
            let newest = match version {
                "1" => 1,
                "-1" => 2,
                _ => 3,
            };
            assert_eq!(sample::note(&pulled, newest * 13), format!("version {newest}"));
            let is_next = sample::note(&pulled, (newest + 1) * 13).starts_with("version");
            assert!(!is_next, "and nothing of the version after it");
        }
    }
    assert!(server.check());
}

#[test]
fn both_kinds_of_client_share_one_history() {
    let server = Server::start();
    let key = server.admin_key();
    let program = program();
    let bridge = Bridge { server: server.url(), key: &key, program: &program, client_id: "one" };
    let client = Client::guest(&server).with_env("SQLRSYNC_ADMIN_KEY", &key);
    let app = client.path("app.db");
    Sample { rows: 2000, ..Sample::default() }.create(&app);
    client.run(&["app.db", REMOTE]).ok();
    // What a client has pulled is what the server takes its push for.
    bridge.pull(REMOTE, "", &client.path("first.db")).unwrap();
    sample::change(&app, 1, "by the bridge");
    let ended = bridge.push(&app, REMOTE).unwrap();
    assert_eq!(ended.config("committedVersionID").as_deref(), Some("2"));
    sample::change(&app, 2, "by sqlrsync");
    let said = client.json(&["app.db", REMOTE]);
    assert_eq!(said["version"], 3);
    let pulled = client.path("pulled.db");
    bridge.pull(REMOTE, "", &pulled).unwrap();
    assert_eq!(sample::note(&pulled, 2), "by sqlrsync");
    client.run(&[REMOTE, "own.db"]).ok();
    sample::assert_same(&app, &client.path("own.db"));
}

#[test]
fn a_push_of_nothing_new_and_a_changed_page_size_end_well() {
    let server = Server::start();
    let key = server.admin_key();
    let program = program();
    let bridge = Bridge { server: server.url(), key: &key, program: &program, client_id: "one" };
    let client = Client::guest(&server).with_env("SQLRSYNC_ADMIN_KEY", &key);
    let app = client.path("app.db");
    Sample { journal: "delete", ..Sample::default() }.create(&app);
    bridge.push(&app, REMOTE).unwrap();
    let again = bridge.push(&app, REMOTE).unwrap();
    assert_eq!(again.close_code, Some(1000), "{again:?}");
    sample::execute(&app, "PRAGMA page_size = 8192; VACUUM");
    let other = bridge.push(&app, REMOTE).unwrap();
    assert_eq!(other.close_code, Some(1000), "{other:?}");
    client.run(&[REMOTE, "pulled.db"]).ok();
    sample::assert_same(&app, &client.path("pulled.db"));
}

#[test]
fn what_is_refused_is_refused_with_a_line_of_text() {
    let server = Server::start();
    let program = program();
    let client = Client::stranger();
    let app = client.path("app.db");
    sample::create(&app);
    let wrong = Bridge { server: server.url(), key: "wrong", program: &program, client_id: "one" };
    let refused = wrong.push(&app, REMOTE).unwrap_err();
    assert!([401, 403].contains(&refused.status), "{refused:?}");
    assert_eq!(refused.text.trim().lines().count(), 1, "{refused:?}");
    let key = server.admin_key();
    let right = Bridge { key: &key, ..wrong };
    let refused = right.pull("team/none.db", "", &client.path("x.db")).unwrap_err();
    assert_eq!(refused.status, 404);
    assert_eq!(refused.text.trim().lines().count(), 1, "{refused:?}");
}

#[test]
fn a_pull_key_on_a_push_is_told_in_the_stream() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    client.run(&["app.db", REMOTE]).ok();
    let key = server.create_key(&["--kind", "pull", "--replica", REMOTE]);
    let program = program();
    let bridge = Bridge { server: server.url(), key: &key, program: &program, client_id: "one" };
    sample::change(&app, 1, "must not arrive");
    match bridge.push(&app, REMOTE) {
        Ok(ended) => {
            assert_eq!(ended.config("keyType").as_deref(), Some("PULL"));
            assert!(ended.stderr.contains("ERROR"), "sqlite3_rsync prints it: {ended:?}");
        }
        Err(refused) => assert_eq!(refused.status, 403),
    }
    let log = client.run(&["log", REMOTE, "--json"]).ok();
    assert_eq!(log.stdout.lines().count(), 1);
}
