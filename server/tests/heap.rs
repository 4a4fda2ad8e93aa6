//! What SQLite may have in memory is set for a whole process. The program runs in this one, so that it can be asked
//! afterwards, and so does a server; the test is alone in it.

#![allow(clippy::unwrap_used, reason = "a failing test is what a panic is for here")]
#![allow(clippy::expect_used, clippy::panic, dead_code, reason = "what the tests in `it` share")]

use std::ffi::OsString;
use std::process::ExitCode;

use rusqlite::Connection;
use serde_json::json;

#[path = "it/public_client.rs"]
mod public_client;
#[path = "it/support.rs"]
mod support;

use public_client::{Ask, push};
use support::{TestServer, database};

/// What `docs/versions-as-databases.md` says of the server, in bytes.
const LIMIT: i64 = 2 << 30;

/// Less, so that no test takes gigabytes. SQLite lets anybody lower it.
const LOWERED: i64 = 64 << 20;

/// What SQLite may have, in bytes; 0 for as much as there is.
fn limit(connection: &Connection) -> i64 {
    connection.query_row("PRAGMA hard_heap_limit", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_query_that_takes_too_much_memory_is_refused_and_the_server_lives() {
    let connection = Connection::open_in_memory().unwrap();
    assert_eq!(limit(&connection), 0);
    let words = ["sqlrsync-server", "completions", "bash"].map(OsString::from);
    let exit_code = sqlrsync_server::cli::run(words);
    assert_eq!(format!("{exit_code:?}"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(limit(&connection), LIMIT);
    connection.query_row(&format!("PRAGMA hard_heap_limit = {LOWERED}"), [], |_| Ok(())).unwrap();

    let server = TestServer::start();
    push(&server, "team/app.db", &Ask::new(&server.admin, 3), &database(4096, 10, 1)).unwrap();
    let ask = |sql: &str| {
        let body = json!({ "sql": sql }).to_string();
        server.post("/api/v1/replicas/team/app.db/query", &[("Authorization", &server.admin)], &body)
    };
    // A hundred values of two megabytes at a time, each of them shorter than a value may be.
    let values = vec!["hex(zeroblob(1000000))"; 100].join(", ");
    let (status, _, said) = ask(&format!("SELECT {values}"));
    assert!((400..=503).contains(&status) && status != 500, "{status}: {said}");
    assert!(said.contains("memory"), "{said}");
    let (status, _, said) = ask("SELECT 40 + 2");
    assert!(status == 200 && said.contains("42"), "{status}: {said}");
}
