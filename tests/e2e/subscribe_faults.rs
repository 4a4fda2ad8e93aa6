//! Subscriptions through everything that can go wrong on the way: a server killed at any moment, a
//! network that cuts, resets and stalls, a second publisher of one file.
//!
//! What is shown in the end is always the same ([`History::assert_whole`], [`assert_follower`]): every
//! follower is equal to the origin, every version is one committed state of it, in order, and none is
//! lost or doubled.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlrsync_tests::chain;
use sqlrsync_tests::client::{Client, outcome_of};
use sqlrsync_tests::faults::{Plan, Proxy, seed};
use sqlrsync_tests::history::{History, assert_push_ids_differ};
use sqlrsync_tests::random::Random;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::stop::StopOnDrop;
use sqlrsync_tests::subscriber::{PATIENCE, Subscriber, wait_until};

use crate::REMOTE;

/// Seconds that the storm lasts, in place of [`STORM`]: two minutes before a release.
const STORM_ENV: &str = "SQLRSYNC_TEST_STORM_SECONDS";

/// Long enough for a dozen faults on each connection that there is.
const STORM: Duration = Duration::from_secs(15);

/// A follower's waits double up to this; it may be as far away when the network is well again.
const RECONNECTS_WITHIN: Duration = Duration::from_secs(330);

/// Short enough that a connection which says nothing any more is given up within the test.
const SILENCE: [&str; 2] = ["--timeout", "5s"];

/// How often the server is killed in each part of the test: once for every kind of moment.
const MOMENTS: u32 = 3;

/// A client that is to follow `REMOTE` into `app.db`.
fn follow(name: &str, client: &Client, server: &str) -> Subscriber {
    let command = client.command(&[REMOTE, "app.db", "--subscribe", "--json", "-s", server]);
    Subscriber::start(name, command)
}

/// What a follower has said and done: each version at most once, in order; in the end the origin.
#[track_caller]
fn assert_follower(follower: &mut Subscriber, copy: &Path, origin: &Path, latest: u64) {
    let pulled: Vec<u64> = follower
        .objects()
        .iter()
        .filter(|object| object["outcome"] == "pulled")
        .filter_map(|object| object["version"].as_u64())
        .collect();
    assert!(pulled.is_sorted_by(|one, next| one < next), "{pulled:?}\n{}", follower.report());
    assert_eq!(follower.version(), Some(latest), "{}", follower.report());
    assert!(follower.is_running(), "{}", follower.report());
    assert!([0, 130].contains(&follower.stop()), "{}", follower.report());
    sample::assert_same(origin, copy);
}

/// A publisher that pushes every ten seconds at the latest, while writes go on.
fn publish(name: &str, client: &Client, local: &str, remote: &str, server: &str) -> Subscriber {
    let mut command = client.command(&[local, remote, "--subscribe", "--json", "-s", server]);
    command.args(SILENCE).args(["--maxInterval", "10s", "--minInterval", "1s"]);
    Subscriber::start(name, command)
}

/// Pushes until it succeeds.
fn push(client: &Client, app: &Path, server: &str, history: &mut History) -> u64 {
    let state = chain::state(app);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = client.run(&["app.db", REMOTE, "--json", "-s", server]);
        if outcome.code == 0 {
            let said = outcome.json();
            history.pushed(&said, state);
            return said["version"].as_u64().unwrap();
        }
        assert!([1, 5].contains(&outcome.code), "{} {}", outcome.code, outcome.stderr);
        assert!(Instant::now() < deadline, "no push goes through: {}", outcome.stderr);
    }
}

#[test]
fn a_server_killed_during_a_push_a_pull_and_between_loses_and_doubles_nothing() {
    let mut server = Server::start();
    let url = server.url().to_owned();
    let pusher = Client::admin(&server);
    let app = pusher.path("app.db");
    chain::create(&app, "wal");
    let mut history = History::default();
    let began = Instant::now();
    push(&pusher, &app, &url, &mut history);
    let time = began.elapsed();
    // It goes on all the time and pushes in between; what is pushed by hand hits the moments.
    let mut publisher = publish("publisher", &pusher, "app.db", REMOTE, &url);
    publisher.wait_for("its watch", |object| object["event"] == "watching");
    let clients: Vec<Client> = (0..3).map(|_| Client::admin(&server)).collect();
    let mut random = Random::new(31);
    // Two parts, since a follower that is cut off again and again waits longer each time: between them
    // the followers are stopped and started, as machines are.
    for part in 0..2 {
        let mut followers: Vec<_> = clients.iter().map(|client| follow("follower", client, &url)).collect();
        followers.iter().for_each(|follower| drop(follower.wait_for_version(1)));
        for moment in 0..MOMENTS {
            let state = chain::step(&app);
            match moment {
                0 => kill_during_push(&mut server, &pusher, state, some_of(time, &mut random), &mut history),
                1 => {
                    push(&pusher, &app, &url, &mut history);
                    std::thread::sleep(some_of(time / 2, &mut random));
                    server.kill();
                }
                _ => {
                    let version = push(&pusher, &app, &url, &mut history);
                    followers.iter().for_each(|follower| drop(follower.wait_for_version(version)));
                    server.kill();
                    chain::step(&app);
                    pusher.run(&["app.db", REMOTE]).code(5);
                }
            }
            server.restart();
            // Half of the time the very push that was cut is repeated, else one of a newer state.
            if random.below(2) == 0 {
                chain::step(&app);
            }
            let version = push(&pusher, &app, &url, &mut history);
            followers.iter().for_each(|follower| drop(follower.wait_for_version(version)));
        }
        if part == 1 {
            let latest = history.latest();
            kill_when_due(&mut server, &publisher, &app, latest);
            followers.iter().for_each(|follower| drop(follower.wait_for_version(latest + 1)));
        }
        let latest = history.assert_whole(&server, REMOTE, chain::state(&app));
        for (follower, client) in followers.iter_mut().zip(&clients) {
            assert_follower(follower, &client.path("app.db"), &app, latest);
        }
    }
    assert!([0, 130].contains(&publisher.stop()), "{}", publisher.report());
    assert_push_ids_differ(&server);
}

/// A write that nobody but the publisher pushes, and the server is away when the time for it comes: the
/// push is tried again until it is back.
fn kill_when_due(server: &mut Server, publisher: &Subscriber, app: &Path, latest: u64) {
    let failures = || publisher.objects().iter().filter(|object| object["event"] == "failed").count();
    let before = failures();
    chain::step(app);
    server.kill();
    wait_until("the publisher's push fails", || failures() > before);
    server.restart();
    publisher.wait_for_version(latest + 1);
}

fn some_of(time: Duration, random: &mut Random) -> Duration {
    Duration::from_micros(random.below(u64::try_from(time.as_micros()).unwrap().max(1)))
}

/// Kills the server so long after a push has begun.
fn kill_during_push(
    server: &mut Server,
    client: &Client,
    state: u32,
    after: Duration,
    history: &mut History,
) {
    let push = client.start(&["app.db", REMOTE, "--json"]);
    std::thread::sleep(after);
    server.kill();
    let output = push.output();
    if output.status.success() {
        history.pushed(&serde_json::from_slice(output.stdout.trim_ascii()).unwrap(), state);
    }
}

#[test]
fn a_network_that_cuts_resets_and_stalls_at_random_loses_and_doubles_nothing() {
    let seed = seed(20_261_121);
    let server = Server::start();
    let storm = std::env::var(STORM_ENV).ok().and_then(|text| text.parse().ok());
    let storm = storm.map_or(STORM, Duration::from_secs);
    let proxy = |number| Proxy::start(server.address(), Plan::Seeded(seed + number));

    // One replica is pushed to by hand all the time, with three followers.
    let pusher = Client::admin(&server);
    let app = pusher.path("app.db");
    chain::create(&app, "wal");
    let history = Mutex::new(History::default());
    push(&pusher, &app, server.url(), &mut history.lock().unwrap());
    let proxies: Vec<Proxy> = (0..5).map(proxy).collect();
    let clients: Vec<Client> = (0..3).map(|_| Client::admin(&server)).collect();
    let mut followers: Vec<_> = clients
        .iter()
        .zip(&proxies)
        .enumerate()
        .map(|(index, (client, proxy))| follow_in_storm(&format!("follower {index}"), client, REMOTE, proxy))
        .collect();

    // Another has a publisher that does it by itself.
    let publisher = Client::admin(&server);
    let own = publisher.path("own.db");
    chain::create(&own, "wal");
    let url = proxies[3].url();
    let mut publishing = publish("publisher", &publisher, "own.db", "team/own.db", &url);

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _pushing = StopOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                try_push(&pusher, &app, &proxies[4].url(), &history);
            }
        });
        let began = Instant::now();
        // A machine that has much else to do may need longer until each connection has met with something.
        let calm = || proxies.iter().any(|proxy| proxy.faults() == 0);
        while began.elapsed() < storm || (calm() && began.elapsed() < storm + PATIENCE) {
            chain::step(&own);
            std::thread::sleep(Duration::from_millis(700));
        }
    });
    proxies.iter().for_each(Proxy::heal);
    for (number, proxy) in proxies.iter().enumerate() {
        assert!(proxy.faults() > 0, "nothing happened to connection {number}: seed {seed}");
    }

    // The sun is out: both replicas come to equal their origins.
    let state = chain::step(&app);
    let mut history = history.into_inner().unwrap();
    let latest = push(&pusher, &app, &proxies[4].url(), &mut history);
    assert_eq!(history.assert_whole(&server, REMOTE, state), latest);
    for (follower, client) in followers.iter_mut().zip(&clients) {
        wait_long(&format!("a follower has version {latest}"), follower, |follower| {
            follower.version() == Some(latest)
        });
        assert_follower(follower, &client.path("app.db"), &app, latest);
    }
    let state = chain::step(&own);
    let reader = Client::admin(&server);
    wait_long("the publisher has pushed its last state", &mut publishing, |_| {
        let pulled = reader.run(&["team/own.db", "own.db"]);
        pulled.code == 0 && chain::state(&reader.path("own.db")) == state
    });
    History::default().assert_whole(&server, "team/own.db", state);
    assert!([0, 130].contains(&publishing.stop()), "{}", publishing.report());
    assert_push_ids_differ(&server);
}

fn follow_in_storm(name: &str, client: &Client, remote: &str, proxy: &Proxy) -> Subscriber {
    let url = proxy.url();
    let mut command = client.command(&[remote, "app.db", "--subscribe", "--json", "-s", &url]);
    command.args(SILENCE);
    Subscriber::start(name, command)
}

/// One more state and one try to push it.
fn try_push(client: &Client, app: &Path, server: &str, history: &Mutex<History>) {
    let state = chain::step(app);
    let mut command = client.command(&["app.db", REMOTE, "--json", "-s", server]);
    let outcome = outcome_of(command.args(SILENCE));
    match outcome.code {
        0 => history.lock().unwrap().pushed(&outcome.json(), state),
        1 | 5 => {}
        code => panic!("{code}: {}", outcome.stderr),
    }
}

/// Waits as long as a client's longest pause between two tries.
#[track_caller]
fn wait_long(what: &str, who: &mut Subscriber, mut condition: impl FnMut(&Subscriber) -> bool) {
    let deadline = Instant::now() + RECONNECTS_WITHIN;
    while !condition(who) {
        assert!(who.is_running(), "it ended before {what}\n{}", who.report());
        assert!(Instant::now() < deadline, "it did not come to this: {what}\n{}", who.report());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_second_publisher_of_one_file_is_told_and_the_first_goes_on() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    let flags = ["--subscribe", "--json"];
    let publish = |name: &str, remote: &str| client.command(&[&[name, remote][..], &flags].concat());
    let mut first = Subscriber::start("the first", publish("app.db", REMOTE));
    first.wait_for_version(1);
    std::os::unix::fs::symlink(&app, client.path("link.db")).unwrap();
    // Under its own name, under another, and to another replica: it is the file that counts.
    for (name, remote) in [("app.db", REMOTE), ("link.db", REMOTE), ("app.db", "team/other.db")] {
        let mut second = Subscriber::start("the second", publish(name, remote));
        assert_eq!(second.ended(), 1, "{}", second.report());
        let said = second.stderr();
        assert!(said.contains("another") && said.contains("app.db"), "{said}");
    }
    // It is no matter of the name: a copy is another database.
    std::fs::copy(&app, client.path("copy.db")).unwrap();
    let copy = Subscriber::start("of a copy", publish("copy.db", "team/copy.db"));
    copy.wait_for_version(1);
    assert!(first.is_running());
    // A killed one leaves nothing behind that would keep the next from starting.
    drop(first);
    let again = Subscriber::start("after a kill", publish("app.db", REMOTE));
    wait_until("it publishes", || again.version() == Some(1));
}
