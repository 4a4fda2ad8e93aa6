//! Any version pulled; the log; what would happen; nothing changed.

use serde_json::Value;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;

use crate::REMOTE;

/// A server with five versions of one database, in which note 1 is "version N".
fn five_versions() -> (Server, Client) {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    for version in 1..=5 {
        sample::change(&app, 1, &format!("version {version}"));
        let said = client.json(&["app.db", REMOTE, "-m", &format!("the {version}th")]);
        assert_eq!(said["version"], version);
    }
    (server, client)
}

#[test]
fn every_way_to_name_a_version_gives_that_version() {
    let (_server, client) = five_versions();
    for (name, version) in [
        ("@1", 1),
        ("@v2", 2),
        ("@3", 3),
        ("@latest", 5),
        ("@latest-2", 3),
        ("@", 5),
        ("", 5),
        ("@latest-4", 1),
    ] {
        let file = format!("pulled{}.db", name.replace('@', "-"));
        let said = client.json(&[format!("{REMOTE}{name}"), file.clone()]);
        assert_eq!(said["version"], version, "{name}");
        assert_eq!(sample::note(&client.path(&file), 1), format!("version {version}"), "{name}");
    }
}

#[test]
fn one_file_can_go_back_to_an_older_version_and_forth_again() {
    let (_server, client) = five_versions();
    for version in [4, 2, 5, 1] {
        client.run(&[format!("{REMOTE}@{version}"), "one.db".into()]).ok();
        assert_eq!(sample::note(&client.path("one.db"), 1), format!("version {version}"));
    }
}

#[test]
fn versions_that_are_not_there_are_not_found() {
    let (_server, client) = five_versions();
    for name in ["@6", "@latest-5", "@v99"] {
        client.run(&[format!("{REMOTE}{name}"), "none.db".into()]).code(10);
    }
    assert!(!client.path("none.db").exists(), "nothing is left behind");
}

#[test]
fn the_log_has_every_version_newest_first() {
    let (_server, client) = five_versions();
    let log = client.run(&["log", REMOTE, "--json"]).ok();
    let lines: Vec<Value> = log.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = lines.iter().filter_map(|line| line["version"].as_u64()).collect();
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    assert!(log.stdout.contains("the 3th"), "the messages are there: {}", log.stdout);
    let text = client.run(&["log", REMOTE]).ok().stdout;
    assert!(text.find("the 5th").unwrap() < text.find("the 1th").unwrap(), "{text}");
    client.run(&["log", "team/none.db"]).code(10);
}

#[test]
fn an_unchanged_database_makes_no_version() {
    let (_server, client) = five_versions();
    let said = client.json(&["app.db"]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("unchanged"), Some(5)));
    assert_eq!(said["pages_sent"], 0);
    client.run(&[REMOTE, "pulled.db"]).ok();
    let said = client.json(&[REMOTE, "pulled.db"]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("unchanged"), Some(5)));
    assert_eq!(said["pages_received"], 0);
}

#[test]
fn a_row_in_an_open_database_is_pushed_without_reading_the_whole_file() {
    let (_server, client) = five_versions();
    let application = rusqlite::Connection::open(client.path("app.db")).unwrap();
    application.execute_batch("UPDATE notes SET at = 1 WHERE id = 2").unwrap();
    assert_eq!(client.json(&["app.db"])["scanned"], false, "nobody had it open at the last push");
    application.execute_batch("UPDATE notes SET at = 2 WHERE id = 2").unwrap();
    let said = client.json(&["app.db"]);
    assert_eq!((&said["outcome"], &said["scanned"]), (&"pushed".into(), &false.into()));
    application.execute_batch("UPDATE notes SET at = 3 WHERE id = 2").unwrap();
    assert_eq!(client.json(&["app.db", "--scan"])["scanned"], true);
    assert_eq!(client.json(&["app.db"])["scanned"], false, "nothing changed");
    application.execute_batch("UPDATE notes SET at = 4 WHERE id = 2").unwrap();
    assert_eq!(client.json(&["app.db"])["scanned"], false);
    client.run(&[REMOTE, "pulled.db"]).ok();
    sample::assert_same(&client.path("app.db"), &client.path("pulled.db"));
}

#[test]
fn a_change_that_is_taken_back_makes_no_version_either() {
    let (_server, client) = five_versions();
    let app = client.path("app.db");
    // A number of the same size is changed in place, so that the page's bytes come back as well.
    sample::execute(&app, "UPDATE notes SET at = at + 1 WHERE id = 2");
    sample::execute(&app, "UPDATE notes SET at = at - 1 WHERE id = 2");
    assert_eq!(client.json(&["app.db"])["outcome"], "unchanged");
}

#[test]
fn a_dry_run_says_what_would_move_and_moves_nothing() {
    let (server, client) = five_versions();
    sample::change(&client.path("app.db"), 1, "not yet");
    let before = sqlrsync_tests::trace::of_repository(&server.data());
    client.run(&["app.db", "--dry"]).ok().says("as version 6");
    for protocol in ["1", "2", "3"] {
        let said = client.json(&["app.db", "--dry", "--protocol", protocol]);
        assert_eq!((&said["outcome"], &said["version"]), (&"pushed".into(), &6.into()), "{said}");
        let said = client.json(&["app.db", "team/new.db", "--dry", "--protocol", protocol]);
        assert_eq!((&said["outcome"], &said["version"]), (&"pushed".into(), &1.into()), "{said}");
    }
    client.run(&[REMOTE, "dry.db", "--dry"]).ok();
    assert!(!client.path("dry.db").exists());
    assert!(sqlrsync_tests::trace::of_repository(&server.data()) == before, "the repository is as it was");
    assert_eq!(client.json(&["app.db"])["version"], 6, "and the push is still to be made");
    let said = client.json(&["app.db", "--dry"]);
    assert_eq!((&said["outcome"], &said["version"]), (&"unchanged".into(), &6.into()), "{said}");
    client.run(&["app.db", "--replicaID", "nonsense"]).code(10).says("another replica");
    client.run(&["app.db", "team/ap.db", "--replicaID", "nonsense"]).code(10).says("leave the id out");
    client.run(&["log", "team/ap.db"]).code(10);
}

#[test]
fn a_database_without_any_state_of_the_client_is_compared_by_hashes() {
    let (_server, client) = five_versions();
    std::fs::remove_dir_all(client.home().join(".local")).ok();
    sample::change(&client.path("app.db"), 1, "version 6");
    let said = client.json(&["app.db"]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("pushed"), Some(6)));
    assert!(said["pages_sent"].as_u64().unwrap() < 10, "only what changed: {said}");
}

#[test]
fn pull_after_pull_the_replica_is_not_read_again() {
    for journal in ["wal", "delete"] {
        let server = Server::start();
        let (pusher, puller) = (Client::admin(&server), Client::admin(&server));
        let app = pusher.path("app.db");
        sample::Sample { journal, rows: 10_000, ..sample::Sample::default() }.create(&app);
        pusher.run(&["app.db", REMOTE]).ok();
        puller.run(&[REMOTE]).ok();
        let len = std::fs::metadata(puller.path("app.db")).unwrap().len();
        for row in 1..=3 {
            sample::change(&app, row, "changed");
            pusher.run(&["app.db"]).ok();
            let run = puller.measure(&[REMOTE]);
            assert!(run.status.success(), "{}", run.stderr);
            let read = run.bytes_read.expect("the system counts what a process reads");
            assert!(read < len / 4, "{journal}, pull {row}: {read} bytes read for a file of {len}");
        }
        sample::assert_same(&app, &puller.path("app.db"));
    }
}
