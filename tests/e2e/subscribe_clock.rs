//! A wall clock that jumps by an hour while publisher, follower and server run: what was to come in ten
//! seconds comes in ten seconds, and nothing comes that was not to.

use std::time::{Duration, Instant};

use sqlrsync_tests::client::Client;
use sqlrsync_tests::faults::{Plan, Proxy};
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::Subscriber;
use sqlrsync_tests::wall_clock::WallClock;

use crate::REMOTE;

/// The shortest wait that there is.
const WAIT_IDLE: Duration = Duration::from_secs(10);

/// How long to look for a storm: one that turns round at once is seen in less.
const LOOK: Duration = Duration::from_secs(2);

/// What one change needs: a push or a pull, and a second look at it.
const CONNECTIONS_EACH: u64 = 2;

fn by(clock: &WallClock, client: Client) -> Client {
    clock.environment().iter().fold(client, |client, (name, value)| client.with_env(name, value))
}

#[test]
fn a_clock_that_jumps_by_an_hour_makes_no_storm_and_no_silence() {
    let clock = WallClock::new();
    let mut server = Server::start();
    server.restart_with_env(&clock.environment());
    let (to_publisher, to_follower) =
        (Proxy::start(server.address(), Plan::Clean), Proxy::start(server.address(), Plan::Clean));
    let client = by(&clock, Client::admin(&server));
    let app = client.path("app.db");
    sample::create(&app);
    // Both intervals are there to be upset: by the clock, the hour would be over at once, or never.
    let flags = ["--maxInterval", "1h", "--minInterval", "10s", "--subscribe", "--json", "-s"];
    let mut words = vec!["app.db", REMOTE];
    words.extend(flags);
    let (publisher_url, follower_url) = (to_publisher.url(), to_follower.url());
    let mut publisher =
        Subscriber::start("publisher", client.command(&[&words[..], &[&publisher_url]].concat()));
    publisher.wait_for_version(1);
    let other = by(&clock, Client::admin(&server));
    let follow = other.command(&[REMOTE, "app.db", "--subscribe", "--json", "-s", &follower_url]);
    let mut follower = Subscriber::start("follower", follow);
    follower.wait_for_version(1);

    for (version, jump) in [(2, 3600), (3, -3600)] {
        let before = (to_publisher.connections(), to_follower.connections());
        let wrote = Instant::now();
        sample::change(&app, 7, &format!("before the jump to {jump}"));
        // In the middle of the session: its timer runs.
        clock.set(jump);
        let said = publisher.wait_for_version(version);
        let waited = wrote.elapsed();
        assert!(waited >= WAIT_IDLE - Duration::from_secs(1), "after {waited:?} at {jump}: {said}");
        follower.wait_for_version(version);
        std::thread::sleep(LOOK);
        let versions = (publisher.version(), follower.version());
        assert_eq!(versions, (Some(version), Some(version)), "one change is one version, at {jump}");
        let made = (to_publisher.connections() - before.0, to_follower.connections() - before.1);
        assert!(made.0 <= CONNECTIONS_EACH && made.1 <= CONNECTIONS_EACH, "{made:?} connections at {jump}");
        assert!(publisher.is_running() && follower.is_running());
    }

    // What was noted of the file by one clock holds by another: it is known to be pushed, and a change
    // after that is seen.
    assert!([0, 130].contains(&publisher.stop()), "{}", publisher.report());
    assert_eq!(client.json(&["app.db"])["outcome"], "unchanged");
    clock.set(3600);
    assert_eq!(client.json(&["app.db"])["outcome"], "unchanged");
    sample::change(&app, 8, "by hand");
    assert_eq!(client.json(&["app.db"])["version"], 4);
    follower.wait_for_version(4);
    assert!([0, 130].contains(&follower.stop()), "{}", follower.report());
    sample::assert_same(&app, &other.path("app.db"));
}
