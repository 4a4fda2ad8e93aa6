//! End to end tests: the real programs, on real databases, over real sockets. One binary.
//!
//! | what is shown | in |
//! |---|---|
//! | what a user does, line by line as the README has it | `story` |
//! | any version pulled; `log`; a dry run; nothing changed | `versions` |
//! | what scripts rely on: `--json`, exit codes, quiet outputs, files and flags | `scripts` |
//! | keys: kinds, scopes, revoked, foreign; names that cannot be | `keys` |
//! | servers that are not there, not ours, or break off | `servers` |
//! | a server beside a hostile client | `hostile_client` |
//! | a client beside a hostile server | `hostile_server` |
//! | processes killed at any moment, connections cut at any byte | `crash` |
//! | a server whose power fails | `power` |
//! | a client's machine whose power fails | `power_client` |
//! | a version's manifest that is lost, or not copied back yet | `lost` |
//! | writers and readers that go on during a push and a pull | `live` |
//! | a database that is pushed by itself | `subscribe_push` |
//! | two clients at once, replicas changed locally | `together` |
//! | several people write: what merges, and by which policy | `merge` |
//! | what overlaps waits, and is settled | `merge_conflicts` |
//! | who pushes after a merge without having pulled it | `merge_trap` |
//! | what must not be taken for a pusher's base | `merge_bases` |
//! | a machine and its clone | `merge_clones` |
//! | a server killed during merges and settlements | `merge_faults` |
//! | rows of stored versions: `diff`, `query`, `log --stat` | `merge_rows` |
//! | page sizes, encodings, journal modes, odd files; copies without a server | `formats` |
//! | ssh, and `sqlite3_rsync` on the other side | `peers` |
//! | hundreds of subscribers on one server | `subscribers` |
//! | the public client's protocol over the WebSocket | `public_client` |
//! | a replica that follows | `subscribe_pull` |
//! | what a service manager is told; the units for systemd | `services` |
//! | what clients announced and reported, and what `status` says of it | `status` |
//! | TLS | `tls` |
//! | disks that fill up | `disk` |
//! | subscriptions: killed servers, bad networks, a second publisher | `subscribe_faults` |
//! | a publisher whose file is replaced, deleted, vacuumed, away | `subscribe_files` |
//! | a wall clock that jumps under all three programs | `subscribe_clock` |
//!
//! A test that needs a program that may be missing (`sqlite3_rsync`, `sshd`, `systemd-analyze`, `mkfs.ext4`) or a right
//! that it may not have (root) passes without it and says loudly what it did not show, so that the tests
//! pass on any machine with Rust and a C compiler. Where [`REQUIRE_ALL`] is set, as `.ci/run` does, what
//! can be installed must be there: then such a test fails. See [`not_shown`] and [`needs`].

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test, with its place")]

mod crash;
mod disk;
mod formats;
mod hostile_client;
mod hostile_server;
mod keys;
mod live;
mod lost;
mod merge;
mod merge_bases;
mod merge_clones;
mod merge_conflicts;
mod merge_faults;
mod merge_rows;
mod merge_trap;
mod peers;
mod power;
mod power_client;
mod public_client;
mod scripts;
mod servers;
mod services;
mod status;
mod story;
mod subscribe_clock;
mod subscribe_faults;
mod subscribe_files;
mod subscribe_pull;
mod subscribe_push;
mod subscribers;
mod tls;
mod together;
mod versions;

/// The replica that most tests push to.
const REMOTE: &str = "team/app.db";

/// The environment variable that makes a missing program a failure.
const REQUIRE_ALL: &str = "SQLRSYNC_TESTS_REQUIRE_ALL";

/// Says that a test could not show what it is for.
fn not_shown(what: &str, because: &str) {
    eprintln!("\n*** NOT SHOWN: {what}, because {because} ***\n");
}

/// What a test needs, if it is there. Where it is not, the test is to end: that is said, and it is a
/// failure where all tests are required. `package` has it, in Debian.
fn needs<T>(found: Option<T>, program: &str, package: &str, what: &str) -> Option<T> {
    if found.is_none() {
        let because = format!("there is no {program}: install {package}");
        assert!(std::env::var_os(REQUIRE_ALL).is_none(), "{what} must be shown, and {because}");
        not_shown(what, &because);
    }
    found
}
