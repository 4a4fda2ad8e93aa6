//! Disks that fill up: a small tmpfs, where this runs as root.

use std::path::Path;
use std::process::Command;

use sqlrsync_tests::client::Client;
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::{events, sample, trace};
use tempfile::TempDir;

use crate::{REMOTE, not_shown};

const DATABASE: events::Events = events::Events { name: "disk", bytes: 6_000_000, seed: 9 };

/// A file system of a few megabytes, unmounted with this value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: u64, what: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(folder));
        }
        not_shown(what, "a tmpfs cannot be mounted here (this needs root)");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_pull_onto_a_full_disk_leaves_what_was_there() {
    let Some(disk) = SmallDisk::new(3_000_000, "a pull onto a disk that fills up") else { return };
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::Sample { rows: 500, ..sample::Sample::default() }.create(&app);
    client.run(&["app.db", REMOTE]).ok();
    let replica = disk.path().join("replica.db");
    let replica_name = replica.to_str().unwrap();
    client.run(&[REMOTE, replica_name]).ok();
    let before = sample::content(&replica);
    // Now it no longer fits.
    sample::execute(&app, "INSERT INTO notes(text) SELECT hex(randomblob(4000)) FROM notes");
    client.run(&["app.db"]).ok();
    client.run(&[REMOTE, replica_name]).code(1);
    assert!(sample::content(&replica) == before, "the old version is still there, whole");
    let new = disk.path().join("new.db");
    client.run(&[REMOTE, new.to_str().unwrap()]).code(1);
    assert!(!new.exists());
    let left: Vec<_> = trace::of_folder(disk.path(), |_| false).into_keys().collect();
    let expected =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("replica.db"));
    assert!(left.iter().all(|path| expected(path)), "left behind: {left:?}");
}

#[test]
fn a_server_whose_disk_is_full_refuses_the_push_and_serves_what_it_has() {
    let Some(disk) = SmallDisk::new(3_000_000, "a push to a server whose disk fills up") else { return };
    let mut server = Server::start_with(programs(), Some(disk.path()), &[]);
    let client = Client::admin(&server);
    let app = client.path("app.db");
    sample::create(&app);
    client.run(&["app.db", REMOTE]).ok();
    DATABASE.create(&client.path("big.db")).unwrap();
    events::change_rows(&client.path("big.db"), &mut Random::new(1), 10).unwrap();
    let outcome = client.run(&["big.db", "team/big.db"]);
    assert!([1, 5].contains(&outcome.code), "{} {}", outcome.code, outcome.stderr);
    assert!(server.is_running());
    client.run(&[REMOTE, "pulled.db"]).ok();
    sample::assert_same(&app, &client.path("pulled.db"));
    assert!(server.check());
}
