//! What scripts rely on: exit codes, `--json`, what is printed where.

use sqlrsync_tests::client::Client;
use sqlrsync_tests::raw::RawSocket;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::wait_until;
use sqlrsync_tests::team::{Team, push, write};
use tokio_tungstenite::tungstenite::Message;

use crate::REMOTE;

#[test]
fn the_last_line_of_json_has_what_is_promised() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    let check = |said: serde_json::Value, outcome: &str, version: Option<u64>| {
        assert_eq!(said["outcome"], outcome);
        if version.is_some() {
            assert_eq!(said["version"].as_u64(), version, "{said}");
        }
        for name in ["pages_sent", "pages_received", "bytes_sent", "bytes_received"] {
            assert!(said[name].is_u64(), "{name} is a number: {said}");
        }
        said
    };
    let said = check(client.json(&["app.db", REMOTE]), "pushed", Some(1));
    assert!(said["pages_sent"].as_u64() > Some(10) && said["bytes_sent"].as_u64() > Some(1000), "{said}");
    check(client.json(&["app.db"]), "unchanged", Some(1));
    let said = check(client.json(&[REMOTE, "b.db"]), "pulled", Some(1));
    assert!(
        said["pages_received"].as_u64() > Some(10) && said["bytes_received"].as_u64() > Some(1000),
        "{said}"
    );
    check(client.json(&["app.db", "./c.db"]), "copied", None);
}

#[test]
fn every_line_of_json_is_an_object() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    for arguments in
        [&["app.db", REMOTE, "--json"][..], &[REMOTE, "b.db", "--json"], &["log", REMOTE, "--json"]]
    {
        let outcome = client.run(arguments).ok();
        for line in outcome.stdout.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value.is_object(), "{line}");
        }
    }
}

#[test]
fn wrong_usage_is_2() {
    let client = Client::stranger();
    client.run(&["--no-such-flag"]).code(2);
    client.run(&["a.db", "b.db", "c.db"]).code(2);
    client.run(&["team/app.db", "team/other.db"]).code(2);
    client.run(&["team/app.db@seven", "a.db"]).code(2);
    client.run(&["team/../app.db", "a.db"]).code(2);
    client.run(&["log"]).code(2);
}

#[test]
fn a_failure_is_said_on_stderr_in_plain_words_and_without_a_bar() {
    let client = Client::stranger();
    client.use_server(&sqlrsync_tests::fake::nobody());
    sample::create(&client.path("app.db"));
    let client = client.with_env("SQLRSYNC_ADMIN_KEY", "x");
    let outcome = client.run(&["app.db", REMOTE]);
    assert_ne!(outcome.code, 0);
    assert!(!outcome.stderr.is_empty());
    assert!(!outcome.stderr.contains('\u{1b}'), "no colours and bars into a file: {:?}", outcome.stderr);
    assert!(!outcome.stdout.contains('\u{1b}'));
}

#[test]
fn files_that_cannot_be_pushed_are_named_with_the_reason() {
    let server = Server::start();
    let client = Client::admin(&server);
    std::fs::write(
        client.path("text.db"),
        "this is no database, but long enough to be looked at ".repeat(100),
    )
    .unwrap();
    std::fs::write(client.path("zero.db"), "").unwrap();
    std::fs::create_dir(client.path("folder.db")).unwrap();
    for name in ["text.db", "zero.db", "folder.db", "missing.db"] {
        let outcome = client.run(&[name, "team/odd.db"]);
        assert!(outcome.code == 1 || outcome.code == 10, "{name}: {} {}", outcome.code, outcome.stderr);
        assert!(outcome.stderr.contains(name), "{name} is named: {}", outcome.stderr);
    }
    client.run(&["log", "team/odd.db"]).code(10);
    assert!(!client.path("missing.db").exists());
}

#[test]
fn a_refusal_has_its_exit_code_in_every_version_of_the_protocol() {
    let team = Team::on(Server::with_flags(&["--busy-wait", "1s"]), 2);
    let [a, b] = &team.machines[..] else { panic!() };
    write(a, "UPDATE customers SET name = 'of a' WHERE id = 3");
    push(a, "pushed");
    write(b, "UPDATE customers SET name = 'of b' WHERE id = 3");
    let key = team.server.admin_key();
    for protocol in ["1", "2", "3"] {
        let with = |words: &[&str]| b.run(&[words, &["--protocol", protocol]].concat());
        // Before the stream begins.
        with(&["app.db", REMOTE, "--pushKey", "wrong"]).code(4);
        with(&[REMOTE, "x.db", "--pullKey", "wrong"]).code(4);
        with(&["team/none.db", "x.db"]).code(10);
        with(&["team/app.db@9", "x.db"]).code(10);
        // In it: somebody else is pushing, and does not go on.
        let mut first = RawSocket::connect(team.server.url(), "push/team/app.db", &key).unwrap();
        assert!(first.send(&[0x41, 2, 12, 0, 0, 1, 0]));
        while !matches!(first.receive(), Some(Message::Binary(_))) {}
        with(&["app.db", REMOTE]).code(5).says("another push");
        drop(first);
        // What overlaps is a conflict, however it was pushed.
        wait_until("the turn is free", || with(&["app.db", REMOTE]).code == 3);
    }
    team.policy(&["reject"]);
    write(b, "UPDATE customers SET name = 'of b again' WHERE id = 3");
    for protocol in ["1", "2", "3"] {
        b.run(&["app.db", REMOTE, "--protocol", protocol]).code(3);
    }
}

#[test]
fn completions_and_manual_pages_can_be_made() {
    let client = Client::stranger();
    for shell in ["bash", "zsh", "fish"] {
        assert!(client.run(&["completions", shell]).ok().stdout.contains("sqlrsync"), "{shell}");
    }
    client.run(&["config", "show"]).ok();
}

#[test]
fn a_configuration_by_xdg_counts_and_a_flag_counts_more() {
    let server = Server::start();
    let client = Client::stranger().with_env("SQLRSYNC_ADMIN_KEY", &server.admin_key());
    sample::create(&client.path("app.db"));
    client.use_server(&sqlrsync_tests::fake::nobody());
    client.run(&["app.db", REMOTE]).code(5);
    client.run(&["app.db", REMOTE, "--server", server.url()]).ok();
    client.run(&[REMOTE, "b.db", "-s", server.url()]).ok();
}
