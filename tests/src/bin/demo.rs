//! The README's first command: the main job, start to end, on a sample database, with the programs as
//! they are built from this clone. Nothing to set up, nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a demo that cannot run stops and says where")]

use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::events::{self, Events};
use sqlrsync_tests::programs::release_programs;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;

const SAMPLE: Events = Events { name: "sample", bytes: 100_000_000, seed: 1 };
const REMOTE: &str = "team/app.db";

fn main() {
    say("Building the programs (the first time takes a few minutes)");
    let programs = release_programs();
    say("Starting a server");
    let server = Server::start_with(programs, None, &[]);
    println!("  sqlrsync-server serve → listening on {}", server.url());
    let key = server.admin_key();
    let machine = || {
        let client = Client::new_in(programs, None);
        client.use_server(server.url());
        client.with_env("SQLRSYNC_ADMIN_KEY", &key)
    };
    let (here, elsewhere) = (machine(), machine());

    say("Making a sample database: a table of events with two indexes, in WAL mode");
    let app = here.path("app.db");
    let begin = Instant::now();
    SAMPLE.create(&app).expect("a database can be made");
    println!("  app.db: {} rows, {} in {:.1} s", SAMPLE.rows(), size(&app), begin.elapsed().as_secs_f64());
    let first = here.path("first.db");
    std::fs::copy(&app, &first).expect("it can be copied");

    say("Pushing it, changing one row in a hundred thousand, and pushing again");
    run(&here, &["app.db", REMOTE, "-m", "first"]);
    events::change_rows(&app, &mut Random::new(2), SAMPLE.rows() / 100_000 + 1).expect("rows can be changed");
    run(&here, &["app.db"]);
    run(&here, &["app.db"]);

    say("Pulling both versions on another machine");
    run(&elsewhere, &["team/app.db@1", "old.db"]);
    run(&elsewhere, &[REMOTE]);
    sample::assert_same(&first, &elsewhere.path("old.db"));
    sample::assert_same(&app, &elsewhere.path("app.db"));
    println!("  both are whole, and the same as the originals, page by page");

    say("The versions on the server");
    let log = here.run(&["log", REMOTE]).ok();
    log.stdout.lines().for_each(|line| println!("  {line}"));
    let proved = server.check();
    println!("  sqlrsync-server check → {}", if proved { "every version is proved" } else { "DAMAGED" });
    assert!(proved, "a demo's repository is whole");
}

/// Runs the client and says what it moved and how long it took.
fn run(client: &Client, arguments: &[&str]) {
    let run = client.measure(arguments);
    assert!(run.status.success(), "sqlrsync {}: {}", arguments.join(" "), run.stderr);
    let line = run.stdout.lines().last().unwrap_or_default();
    let said: Value = serde_json::from_str(line).expect("its last line is JSON");
    let number = |name: &str| said[name].as_u64().unwrap_or(0);
    println!(
        "  {:<36} {:<9} version {}  {:>6} pages, {:>9} on the wire, {:>7.3} s",
        format!("sqlrsync {}", arguments.join(" ")),
        said["outcome"].as_str().unwrap_or_default(),
        number("version"),
        number("pages_sent") + number("pages_received"),
        bytes(number("bytes_sent") + number("bytes_received")),
        run.time.as_secs_f64(),
    );
}

fn say(what: &str) {
    println!("\n{what}");
}

fn size(path: &Path) -> String {
    bytes(std::fs::metadata(path).map_or(0, |meta| meta.len()))
}

fn bytes(count: u64) -> String {
    match count as f64 {
        c if c < 1e3 => format!("{c} B"),
        c if c < 1e6 => format!("{:.1} KB", c / 1e3),
        c => format!("{:.1} MB", c / 1e6),
    }
}
