//! What a user does, line by line.

use std::process::Command;

use sqlrsync_tests::client::{Client, outcome_of};
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{Subscriber, wait_until};

use crate::REMOTE;

#[test]
fn a_database_is_pushed_changed_pushed_again_and_every_version_pulled_elsewhere() {
    let server = Server::start();
    let here = Client::admin(&server);
    let app = here.path("app.db");
    sample::create(&app);
    let first = here.path("first.db");
    sample::execute(&app, &format!("VACUUM INTO '{}'", first.display()));

    // sqlrsync app.db team/app.db -m "first"
    let said = here.json(&["app.db", REMOTE, "-m", "first"]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("pushed"), Some(1)));
    assert!(
        here.path("app.db-sqlrsync").exists(),
        "the file that names the remote stands beside the database"
    );

    // sqlrsync app.db, and the admin key is not needed any more
    let here = here.with_env("SQLRSYNC_ADMIN_KEY", "");
    sample::change(&app, 7, "changed");
    let said = here.json(&["app.db"]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("pushed"), Some(2)));
    sample::change(&app, 8, "changed too");
    assert_eq!(here.json(&["app.db"])["version"], 3);

    // sqlrsync team/app.db, elsewhere; again: what changed
    let elsewhere = Client::admin(&server);
    let said = elsewhere.json(&[REMOTE]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("pulled"), Some(3)));
    let copy = elsewhere.path("app.db");
    sample::assert_same(&app, &copy);
    sample::change(&app, 9, "and again");
    here.json(&["app.db"]);
    let said = elsewhere.json(&[REMOTE]);
    assert_eq!((said["outcome"].as_str(), said["version"].as_u64()), (Some("pulled"), Some(4)));
    assert!(said["pages_received"].as_u64().unwrap() < 10, "only what changed: {said}");
    sample::assert_same(&app, &copy);

    // sqlrsync team/app.db@1 old.db
    elsewhere.run(&["team/app.db@1", "old.db"]).ok();
    assert_eq!(sample::note(&elsewhere.path("old.db"), 7), sample::note(&first, 7));
    assert_eq!(sample::note(&elsewhere.path("old.db"), 7).split(' ').next(), Some("note"));

    // sqlrsync log team/app.db
    let log = elsewhere.run(&["log", REMOTE]).ok();
    assert!(log.stdout.contains("first"), "{}", log.stdout);

    // sqlrsync a.db ./b.db
    assert_eq!(here.json(&["app.db", "./b.db"])["outcome"], "copied");
    sample::assert_same(&app, &here.path("b.db"));
    assert!(server.check());
}

#[test]
fn the_script_beside_a_pulled_database_pulls_again() {
    let server = Server::start();
    let here = Client::admin(&server);
    sample::create(&here.path("app.db"));
    here.run(&["app.db", REMOTE]).ok();
    let elsewhere = Client::admin(&server);
    elsewhere.run(&[REMOTE]).ok();
    sample::change(&here.path("app.db"), 3, "news");
    here.run(&["app.db"]).ok();

    let elsewhere = elsewhere.with_env("SQLRSYNC_ADMIN_KEY", "");
    let script = elsewhere.path("app.db-sqlrsync");
    let folder = programs().client.parent().unwrap().to_owned();
    let path = std::env::join_paths(
        std::iter::once(folder).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    outcome_of(elsewhere.command_of(&script, &[] as &[&str]).env("PATH", path)).ok();
    assert_eq!(sample::note(&elsewhere.path("app.db"), 3), "news");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&script).unwrap());
    assert_eq!(mode & 0o777, 0o700, "it holds a key");
}

#[test]
fn the_first_start_makes_an_admin_key_and_says_how_to_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(&programs().server);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let mut server = Subscriber::start("the server", command);
    // On one of its outputs each: what scripts wait for, and what people read.
    wait_until("it listens", || {
        server.stdout().lines().any(|line| line.starts_with("listening on http://127.0.0.1:"))
    });
    wait_until("the next command is said", || (server.stdout() + &server.stderr()).contains("sqlrsync "));
    assert_eq!(server.stop(), 0);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&data).unwrap());
    assert_eq!(mode & 0o077, 0, "the data folder is its owner's only");
}
