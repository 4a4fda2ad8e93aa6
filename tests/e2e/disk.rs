//! Disks that fill up: a small tmpfs, where this runs as root.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use sqlrsync_tests::client::{Client, outcome_of};
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::wait_until;
use sqlrsync_tests::team::{self, Team};
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
        let mut mount = Command::new("mount");
        let mounted = outcome_of(mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()));
        if mounted.code == 0 {
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
    client.run(&["big.db", "team/big.db"]).code(5);
    assert!(server.is_running());
    // Who runs the server hears of it, whatever is filtered from its log but warnings.
    let said =
        |line: &str| line.contains(" WARN ") && line.contains("push failed") && line.contains("no room");
    // The client hears of it a moment earlier.
    wait_until("the warning", || server.log().lines().any(said));
    client.run(&[REMOTE, "pulled.db"]).ok();
    sample::assert_same(&app, &client.path("pulled.db"));
    assert!(server.check());
}

/// Takes all the room that is left, but for so much.
fn fill(disk: &SmallDisk, but_for: u64) {
    let filler = disk.path().join("filler");
    let _ = std::fs::remove_file(&filler);
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(but_for)).unwrap();
}

#[test]
fn a_push_that_finds_the_disk_full_at_whatever_point_merges_when_there_is_room() {
    let Some(disk) = SmallDisk::new(24_000_000, "a merge on a disk that fills up") else { return };
    let team = Team::on(Server::start_with(programs(), Some(disk.path()), &[]), 2);
    let [a, b] = &team.machines[..] else { panic!("two machines") };
    team::write(a, "UPDATE customers SET name = 'by a' WHERE id = 1");
    team::push(a, "pushed");
    team::write(b, "UPDATE customers SET name = 'by b' WHERE id = 2");
    team::write(b, "INSERT INTO notes VALUES ('large', hex(randomblob(400000)))");
    let mut failed = 0;
    for room in (0..).step_by(128 << 10) {
        fill(&disk, room);
        let outcome = b.run(&[team::FILE, REMOTE, "--json"]);
        match outcome.code {
            0 => {
                assert_eq!(outcome.json()["outcome"], "merged", "with {room} bytes: {outcome:?}");
                break;
            }
            5 => failed += 1,
            _ => panic!("with {room} bytes: {outcome:?}\n{}", team.server.log()),
        }
        assert!(room < 20_000_000, "it never merges");
    }
    assert!(failed > 2, "the disk was full {failed} times");
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    let latest = team.latest();
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 1"), "by a");
    assert_eq!(latest.text("SELECT name FROM customers WHERE id = 2"), "by b");
    latest.assert_sound();
    assert_eq!((team.conflicts().len(), team.versions()), (0, 3));
    assert!(team.server.check());
}
