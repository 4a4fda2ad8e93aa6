//! Many subscribers on one server. How many there can be, and how soon they know, is for the benchmark
//! `live`; here is what must hold on any machine.

use sqlrsync_tests::client::Client;
use sqlrsync_tests::crowd::{Crowd, Members};
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::PATIENCE;
use sqlrsync_tests::{measure, programs};

use crate::REMOTE;

const SUBSCRIBERS: usize = 500;

/// What one may take of the memory of a server that was built without optimisation, in bytes. One with a
/// buffer for pages takes more.
const MEMORY_MAX: u64 = 40_000;

#[test]
fn hundreds_are_held_in_little_memory_and_each_is_told_while_one_does_not_read() {
    let server = Server::start();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).ok();
    let key = server.create_key(&["--kind", "pull", "--replica", REMOTE]);
    let open = |reading, stalled| {
        Crowd::open(server.address(), REMOTE, &key, Members { reading, stalled }, PATIENCE).unwrap()
    };
    drop(open(10, 0));
    let before = measure::memory_now(server.pid()).unwrap();
    let crowd = open(SUBSCRIBERS, 1);
    let each = measure::memory_now(server.pid()).unwrap().saturating_sub(before) / SUBSCRIBERS as u64;
    assert!(each < MEMORY_MAX, "{each} bytes each ({:?})", programs::programs().server);
    for version in 2..5 {
        crowd.expect(version);
        sample::execute(&client.path("app.db"), "UPDATE notes SET at = at + 1 WHERE id = 1");
        client.run(&["app.db", REMOTE]).ok();
        assert!(crowd.told(SUBSCRIBERS, PATIENCE).is_some(), "version {version} was told to all that read");
    }
    assert_eq!(crowd.lost(), 0);
}
