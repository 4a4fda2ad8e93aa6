//! A manifest that is lost, or has not been copied back yet: nothing else goes because of it, and everybody is
//! told until it is there again.

use std::path::{Path, PathBuf};

use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::trace;

use crate::REMOTE;

const VERSIONS: usize = 4;

/// A server with versions of one database, in which note 1 is "version N", and that was stopped.
fn versions() -> (Server, Client) {
    let mut server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    for version in 1..=VERSIONS {
        sample::change(&app, 1, &format!("version {version}"));
        client.run(&["app.db", REMOTE]).ok();
    }
    server.stop();
    (server, client)
}

/// The manifests in a data folder, the oldest first.
fn manifests(data: &Path) -> Vec<PathBuf> {
    let all = trace::of_repository(data).into_keys();
    all.filter(|path| path.parent().is_some_and(|folder| folder.ends_with("manifests"))).collect()
}

fn assert_all_versions(client: &Client) {
    for version in 1..=VERSIONS {
        let file = format!("back-{version}.db");
        client.run(&[format!("{REMOTE}@{version}"), file.clone()]).ok();
        assert_eq!(sample::note(&client.path(&file), 1), format!("version {version}"));
        std::fs::remove_file(client.path(&file)).unwrap();
    }
}

#[test]
fn a_lost_manifest_is_told_to_everybody_and_removes_and_renames_nothing() {
    let (mut server, client) = versions();
    let manifests = manifests(&server.data());
    assert_eq!(manifests.len(), VERSIONS);
    sample::change(&client.path("app.db"), 2, "not pushed yet");
    for (lost, manifest) in (1..VERSIONS).zip(&manifests) {
        let bytes = std::fs::read(manifest).unwrap();
        std::fs::remove_file(manifest).unwrap();
        let before = trace::of_repository(&server.data());
        let swept = server.command(&["sweep", "--json"]);
        let said = String::from_utf8_lossy(&swept.stdout).into_owned();
        assert!(swept.status.success() && said.contains("\"objects_removed\":0"), "{lost}: {said}");
        assert!(!said.contains("\"replicas_skipped\":[]"), "{lost}: {said}");
        assert_eq!(server.command(&["check"]).status.code(), Some(12));
        server.restart();
        client.run(&["log", REMOTE]).code(12);
        client.run(&[REMOTE, "none.db"]).code(12);
        client.run(&[format!("{REMOTE}@{VERSIONS}"), "none.db".into()]).code(12);
        client.run(&["app.db", REMOTE]).code(12).says("check");
        assert_eq!(trace::of_repository(&server.data()), before, "{lost}");
        assert!(server.log().contains("is not swept"), "{}", server.log());
        // Put back, it is as if nothing had been, without another start.
        std::fs::write(manifest, bytes).unwrap();
        assert_all_versions(&client);
        server.stop();
        assert!(server.check());
    }
    server.restart();
    assert_eq!(client.json(&["app.db", REMOTE])["version"], VERSIONS + 1);
}

#[test]
fn a_newest_manifest_that_is_not_copied_back_yet_loses_nothing_to_a_server_that_is_started() {
    let (mut server, client) = versions();
    let newest = manifests(&server.data()).pop().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::remove_file(&newest).unwrap();
    let before = trace::of_repository(&server.data());
    assert!(server.command(&["sweep"]).status.success());
    server.restart();
    server.stop();
    assert_eq!(trace::of_repository(&server.data()), before);
    std::fs::write(&newest, bytes).unwrap();
    server.restart();
    assert_all_versions(&client);
    assert!(server.check());
}
