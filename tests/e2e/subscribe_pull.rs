//! A replica that follows, with the real programs: `sqlrsync NAMESPACE/PATH --subscribe`.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::faults::{Fault, Plan, Proxy, What, When};
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{Subscriber, wait_until};

use crate::REMOTE;

/// A server, and a client that has pushed version 1 of the sample.
fn published() -> (Server, Client) {
    let server = Server::start();
    let origin = Client::admin(&server);
    sample::create(&origin.path("app.db"));
    origin.run(&["app.db", REMOTE]).ok();
    (server, origin)
}

/// Changes a row and pushes; returns the version.
fn push_change(origin: &Client, text: &str) -> u64 {
    sample::change(&origin.path("app.db"), 1, text);
    origin.json(&["app.db"])["version"].as_u64().unwrap()
}

fn follow(client: &Client, flags: &[&str]) -> Subscriber {
    Subscriber::start("a follower", client.command(&[&[REMOTE, "--subscribe", "--json"], flags].concat()))
}

fn signal(follower: &Subscriber, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(follower.pid()).unwrap();
    // SAFETY: sends a signal to a child that nobody has waited for yet, so the id is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// How many of the objects so far are like that.
fn count(follower: &Subscriber, like: impl Fn(&Value) -> bool) -> usize {
    follower.objects().iter().filter(|object| like(object)).count()
}

fn is_waiting(line: &Value) -> bool {
    line["event"] == "waiting"
}

fn is_pulled(line: &Value) -> bool {
    line["outcome"] == "pulled"
}

#[test]
fn every_new_version_arrives_at_three_followers_also_after_the_server_was_killed() {
    let (mut server, origin) = published();
    let clients = [(); 3].map(|()| Client::admin(&server));
    let mut followers = clients.each_ref().map(|client| follow(client, &[]));
    for follower in &mut followers {
        follower.wait_for_version(1);
    }
    for text in ["second", "third"] {
        let version = push_change(&origin, text);
        for (client, follower) in clients.iter().zip(&mut followers) {
            let said = follower.wait_for_version(version);
            assert_eq!((&said["outcome"], said["version"].as_u64()), (&"pulled".into(), Some(version)));
            assert_eq!(sample::note(&client.path("app.db"), 1), text);
        }
    }
    server.kill();
    for follower in &mut followers {
        follower.wait_for("the loss", is_waiting);
    }
    server.restart();
    let version = push_change(&origin, "after the restart");
    for (client, follower) in clients.iter().zip(&mut followers) {
        follower.wait_for_version(version);
        sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
        assert_eq!(follower.stop(), 0);
    }
}

#[test]
fn who_was_away_for_many_versions_fetches_one_difference() {
    let (server, origin) = published();
    let proxy = Proxy::start(server.address(), Plan::Clean);
    let client = Client::admin(&server);
    client.use_server(&proxy.url());
    let follower = follow(&client, &[]);
    follower.wait_for_version(1);
    proxy.refuse(true);
    proxy.break_all();
    follower.wait_for("the loss", is_waiting);
    let mut version = 1;
    for n in 0..20 {
        version = push_change(&origin, &format!("change {n}"));
    }
    proxy.refuse(false);
    follower.wait_for_version(version);
    assert_eq!(count(&follower, is_pulled), 2, "the first and the last: {:?}", follower.objects());
    sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
}

#[test]
fn who_was_stopped_for_a_hundred_versions_fetches_one_difference() {
    const VERSIONS: u64 = 100;
    let (server, origin) = published();
    let client = Client::admin(&server);
    let mut follower = follow(&client, &[]);
    follower.wait_for_version(1);
    assert_eq!(follower.stop(), 0);
    for n in 0..VERSIONS {
        push_change(&origin, &format!("change {n}"));
    }
    let follower = follow(&client, &[]);
    let pulled = follower.wait_for_version(1 + VERSIONS);
    assert_eq!(pulled["version"], 1 + VERSIONS);
    assert_eq!(count(&follower, is_pulled), 1, "one difference: {:?}", follower.objects());
    // The one row and its place in the index, whatever became of them on the way.
    let pages = pulled["pages_received"].as_u64().unwrap();
    assert!((1..10).contains(&pages), "{pulled}");
    sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
}

#[test]
fn a_connection_that_died_without_a_word_is_noticed_and_replaced() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    let proxy = Proxy::start(server.address(), Plan::Clean);
    client.use_server(&proxy.url());
    let follower = follow(&client, &["--timeout", "2s"]);
    follower.wait_for_version(1);
    proxy.kill_all();
    let lost = follower.wait_for("the loss", is_waiting);
    assert!(lost["error"].as_str().unwrap().contains("nothing was heard"), "{lost}");
    let version = push_change(&origin, "while the wire was dead");
    follower.wait_for_version(version);
    sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
}

#[test]
fn a_follower_that_slept_for_a_while_catches_up() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    let follower = follow(&client, &["--timeout", "2s"]);
    follower.wait_for_version(1);
    signal(&follower, libc::SIGSTOP);
    let slept = Instant::now();
    let version = push_change(&origin, "while it slept");
    // Longer than a server may be silent, so that it wakes up to a connection that it cannot trust.
    std::thread::sleep(Duration::from_secs(3).saturating_sub(slept.elapsed()));
    signal(&follower, libc::SIGCONT);
    follower.wait_for_version(version);
    let version = push_change(&origin, "when it was awake");
    follower.wait_for_version(version);
    sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let (server, _origin) = published();
    let proxy = Proxy::start(server.address(), Plan::Clean);
    proxy.refuse(true);
    let client = Client::admin(&server);
    client.use_server(&proxy.url());
    let follower = follow(&client, &[]);
    follower.wait_for("that nobody answers", is_waiting);
    wait_until("it tries again", || proxy.connections() >= 3);
    assert_eq!(count(&follower, is_waiting), 1, "said once: {:?}", follower.objects());
    proxy.refuse(false);
    follower.wait_for_version(1);
}

#[test]
fn what_waiting_does_not_mend_ends_it_at_the_start() {
    let (server, _origin) = published();
    let admin = Client::admin(&server);
    admin.run(&["team/unknown.db", "--subscribe"]).code(10);
    admin.run(&["team/app.db@1", "--subscribe"]).code(2);
    let guest = Client::guest(&server).with_env("SQLRSYNC_AUTH_TOKEN", "no-such-key");
    guest.run(&[REMOTE, "--subscribe"]).code(4);
    Client::guest(&server).run(&[REMOTE, "--subscribe"]).code(4);
    std::fs::write(admin.path("app.db"), "this is no database ".repeat(100)).unwrap();
    admin.run(&[REMOTE, "--subscribe"]).code(1);
    assert!(std::fs::read_to_string(admin.path("app.db")).unwrap().starts_with("this is no database"));
}

#[test]
fn a_replica_changed_locally_is_kept_and_that_is_said_once() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    let replica = client.path("app.db");
    let follower = follow(&client, &[]);
    follower.wait_for_version(1);
    sample::change(&replica, 2, "mine");
    push_change(&origin, "theirs");
    let kept = follower.wait_for("that it was changed", is_waiting);
    assert!(kept["error"].as_str().unwrap().contains("changes of its own"), "{kept}");
    let version = push_change(&origin, "theirs again");
    // A second follower says when that version is out.
    let witness = Client::admin(&server);
    follow(&witness, &[]).wait_for_version(version);
    assert_eq!(sample::note(&replica, 2), "mine");
    // The change is gone, and it goes on by itself.
    let lost = client.path("app.db");
    for name in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{name}", lost.display()));
    }
    follower.wait_for_version(version);
    assert_eq!(count(&follower, is_waiting), 1, "said once: {:?}", follower.objects());
    sample::assert_same(&origin.path("app.db"), &replica);
}

#[test]
fn with_force_a_replica_changed_locally_is_overwritten() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    let follower = follow(&client, &["--force"]);
    follower.wait_for_version(1);
    sample::change(&client.path("app.db"), 2, "mine");
    let version = push_change(&origin, "theirs");
    follower.wait_for_version(version);
    sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
    assert_eq!(count(&follower, is_waiting), 0);
}

#[test]
fn a_command_runs_after_each_version_with_its_number_in_the_environment() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    let command = "echo \"$SQLRSYNC_VERSION $SQLRSYNC_REPLICA $SQLRSYNC_DATABASE\" >> ran; exit $((SQLRSYNC_VERSION - 1))";
    let follower = follow(&client, &["--exec", command]);
    let ran = |version: u64| move |line: &Value| line["event"] == "exec" && line["version"] == version;
    assert_eq!(follower.wait_for("the first run", ran(1))["exit_code"], 0);
    let version = push_change(&origin, "second");
    assert_eq!(follower.wait_for("the second run", ran(version))["exit_code"], version - 1);
    let path = client.path("app.db").canonicalize().unwrap();
    let expected: String = (1..=version).map(|n| format!("{n} {REMOTE} {}\n", path.display())).collect();
    assert_eq!(std::fs::read_to_string(client.path("ran")).unwrap(), expected);
    // A failing command ends nothing.
    follower.wait_for_version(push_change(&origin, "third"));
}

#[test]
fn a_command_that_runs_is_waited_for_at_the_end_and_a_second_signal_ends_both() {
    let (server, _origin) = published();
    let client = Client::admin(&server);
    let mut follower = follow(&client, &["--exec", "touch begun; sleep 1; touch done"]);
    wait_until("the command runs", || client.path("begun").exists());
    assert_eq!(follower.stop(), 0);
    assert!(client.path("done").exists(), "it was waited for");

    let client = Client::admin(&server);
    // It would live to hear that it is to end, if it were given the time that the first one had.
    let lives = "trap 'touch told' TERM; echo $$ > new; mv new pid; sleep 1000 & wait; wait";
    let mut follower = follow(&client, &["--exec", lives]);
    wait_until("the command runs", || client.path("pid").exists());
    // Two signals that wait at the same time are one: it gets them until it is gone.
    wait_until("the second signal ends it", || {
        let running = follower.is_running();
        if running {
            signal(&follower, libc::SIGINT);
        }
        !running
    });
    assert_eq!(follower.ended(), 130);
    assert!(!client.path("told").exists(), "the command was killed at once");
    let pid = std::fs::read_to_string(client.path("pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    wait_until("the command is gone", || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_signal_ends_it_also_in_the_middle_of_a_pull_and_the_replica_is_whole() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    for (signal, code) in [(libc::SIGTERM, 0), (libc::SIGINT, 130)] {
        let mut follower = follow(&client, &[]);
        follower.wait_for("the first outcome", |line| line["outcome"].is_string());
        self::signal(&follower, signal);
        assert_eq!(follower.ended(), code);
    }
    // Each connection stands still after so many bytes: the one for notices never has as many.
    let stall = What::Stall(Duration::from_secs(3600));
    let when = When::Bytes(sqlrsync_tests::faults::Way::Down, 3_000);
    let proxy = Proxy::start(server.address(), Plan::Each(Fault { when, what: stall }));
    let before = sample::content(&client.path("app.db"));
    sample::execute(&origin.path("app.db"), "UPDATE notes SET text = hex(randomblob(100))");
    origin.run(&["app.db"]).ok();
    let mut follower = follow(&client, &["--server", &proxy.url()]);
    wait_until("the pull stands still", || proxy.faults() > 0);
    assert_eq!(follower.stop(), 0);
    assert!(sample::content(&client.path("app.db")) == before, "the replica is what it was");
    let follower = follow(&client, &[]);
    follower.wait_for_version(2);
    sample::assert_same(&origin.path("app.db"), &client.path("app.db"));
}

#[test]
fn a_revoked_key_ends_it_with_4() {
    let (server, _origin) = published();
    let made = server.create_key(&["--kind", "pull", "--replica", REMOTE, "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let client = Client::guest(&server).with_env("SQLRSYNC_AUTH_TOKEN", made["key"].as_str().unwrap());
    let mut follower = follow(&client, &[]);
    follower.wait_for_version(1);
    assert!(server.command(&["key", "revoke", made["id"].as_str().unwrap()]).status.success());
    assert_eq!(follower.ended(), 4);
}

#[test]
fn the_script_beside_a_replica_follows_with_its_own_key() {
    let (server, origin) = published();
    let client = Client::admin(&server);
    client.run(&[REMOTE]).ok();
    let guest = Client::stranger();
    for name in ["app.db", "app.db-sqlrsync"] {
        std::fs::copy(client.path(name), guest.path(name)).unwrap();
    }
    let script = guest.path("app.db-sqlrsync");
    let mut command = guest.command_of(&script, &["--subscribe", "--json"]);
    let programs = programs().client.parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path);
    let follower = Subscriber::start("the script", command);
    follower.wait_for_version(1);
    let version = push_change(&origin, "second");
    follower.wait_for_version(version);
    sample::assert_same(&origin.path("app.db"), &guest.path("app.db"));
}
