//! The program between files: copies, ssh (with a shell in its place) and stdin/stdout. Each test runs
//! the real program in a home folder of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

mod ended;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::Value;

use ended::{ended, ended_with};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sqlrsync");

/// A machine: a home, a folder to work in, and a program that takes the place of ssh.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        // As sshd does: one line for a shell, with the program on its path.
        machine.script(
            "fake-ssh",
            "while [ $# -gt 0 ]; do case \"$1\" in -e|-p) shift 2;; *) break;; esac; done; shift; exec /bin/sh -c \"$*\"",
        );
        std::fs::create_dir(machine.path("bin")).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Puts the program on the path under this name.
    fn install(&self, name: &str) {
        std::os::unix::fs::symlink(PROGRAM, self.path("bin").join(name)).unwrap();
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("HOME", self.path("home"));
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("SQLRSYNC_SSH", self.path("fake-ssh"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        ended(&mut self.command(arguments))
    }

    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    fn database(&self, name: &str) -> Connection {
        let database = Connection::open(self.path(name)).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 INSERT OR IGNORE INTO t SELECT i, hex(randomblob(40)) FROM n;",
            )
            .unwrap();
        database
    }

    fn change(&self, name: &str, id: i64, text: &str) {
        let database = Connection::open(self.path(name)).unwrap();
        database.execute("UPDATE t SET text = ?2 WHERE id = ?1", (id, text)).unwrap();
    }

    #[track_caller]
    fn assert_same(&self, one: &str, other: &str) {
        assert!(content(&self.path(one)) == content(&self.path(other)), "{one} and {other} differ");
    }
}

fn content(path: &Path) -> Vec<(i64, String)> {
    let database = Connection::open(path).unwrap();
    let mut rows = database.prepare("SELECT id, text FROM t ORDER BY id").unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_copy_moves_what_changed_and_says_so() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    assert_eq!(machine.json(&["a.db", "b.db"])["outcome"], "copied");
    machine.assert_same("a.db", "b.db");
    let said = machine.json(&["a.db", "b.db"]);
    assert_eq!((said["outcome"].as_str(), said["pages_sent"].as_u64()), (Some("unchanged"), Some(0)));
    machine.change("a.db", 7, "changed");
    let said = machine.json(&["a.db", "b.db"]);
    assert_eq!((said["outcome"].as_str(), said["pages_sent"].as_u64()), (Some("copied"), Some(1)));
    machine.assert_same("a.db", "b.db");
}

#[test]
fn a_file_that_was_changed_here_is_kept_until_force() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    machine.json(&["a.db", "b.db"]);
    machine.change("a.db", 1, "theirs");
    machine.change("b.db", 2, "mine");
    let before = content(&machine.path("b.db"));
    assert!(machine.fails(1, &["a.db", "b.db"]).contains("--force"));
    assert!(machine.fails(1, &["a.db", "b.db", "--dry"]).contains("--force"));
    assert!(content(&machine.path("b.db")) == before);
    machine.json(&["a.db", "b.db", "--force"]);
    machine.assert_same("a.db", "b.db");
    // And from here on it is known again.
    machine.change("a.db", 3, "more");
    machine.json(&["a.db", "b.db"]);
    machine.assert_same("a.db", "b.db");
}

#[test]
fn a_copy_is_cut_where_its_origin_shrank() {
    for mode in ["DELETE", "WAL"] {
        for encoding in ["UTF-8", "UTF-16le"] {
            let machine = Machine::new();
            drop(machine.database("a.db"));
            machine.json(&["a.db", "b.db"]);
            let replica = Connection::open(machine.path("b.db")).unwrap();
            let set = format!("PRAGMA journal_mode = {mode}");
            replica.query_row(&set, [], |_| Ok(())).unwrap();
            drop(replica);
            // Another encoding is another schema to the connection that applies.
            std::fs::remove_file(machine.path("a.db")).unwrap();
            let small = Connection::open(machine.path("a.db")).unwrap();
            let sql =
                format!("PRAGMA encoding = '{encoding}'; CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);");
            small
                .execute_batch(&(sql + "INSERT INTO t VALUES (1, 'alone'); CREATE INDEX i ON t(text);"))
                .unwrap();
            drop(small);
            machine.json(&["a.db", "b.db", "--force"]);
            machine.assert_same("a.db", "b.db");
            assert!(content(&machine.path("b.db")).len() == 1);
            let replica = Connection::open(machine.path("b.db")).unwrap();
            let check: String = replica.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok", "{mode} {encoding}");
            drop(replica);
            let len = |name: &str| std::fs::metadata(machine.path(name)).unwrap().len();
            assert_eq!(len("b.db"), len("a.db"), "{mode} {encoding}");
        }
    }
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    let said = machine.json(&["a.db", "b.db", "--dry"]);
    assert!(said["dry"] == true && said["pages_sent"].as_u64() > Some(10), "{said}");
    assert!(!machine.path("b.db").exists());
    machine.json(&["a.db", "b.db"]);
    machine.change("a.db", 7, "changed");
    assert_eq!(machine.json(&["a.db", "b.db", "--dry"])["pages_sent"], 1);
    assert_ne!(content(&machine.path("a.db")), content(&machine.path("b.db")));
}

#[test]
fn one_file_under_two_names_is_no_copy() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    std::os::unix::fs::symlink("a.db", machine.path("link.db")).unwrap();
    std::fs::hard_link(machine.path("a.db"), machine.path("hard.db")).unwrap();
    for name in ["./a.db", "link.db", "hard.db"] {
        assert!(machine.fails(2, &["a.db", name]).contains("same file"), "{name}");
    }
}

#[test]
fn a_file_that_is_not_there_or_no_database_is_named() {
    let machine = Machine::new();
    std::fs::write(machine.path("text.db"), "no database at all, but some text. ".repeat(100)).unwrap();
    assert!(machine.fails(10, &["none.db", "b.db"]).contains("none.db"));
    assert!(machine.fails(1, &["text.db", "b.db"]).contains("text.db"));
    assert!(!machine.path("b.db").exists());
}

#[test]
fn two_sqlrsyncs_speak_over_ssh_both_ways() {
    let machine = Machine::new();
    machine.install("sqlrsync");
    drop(machine.database("a.db"));
    // A name that a shell would take apart.
    let far = machine.path("far 'and' $away.db");
    let there = format!("me@host:{}", far.display());
    assert_eq!(machine.json(&["a.db", &there])["outcome"], "copied");
    machine.change("a.db", 9, "changed");
    let said = machine.json(&["a.db", &there]);
    assert_eq!(said["pages_sent"], 1);
    assert!(said["bytes_sent"].as_u64() < Some(20_000), "a known base needs no hashes: {said}");
    assert_eq!(machine.json(&["a.db", &there])["outcome"], "unchanged");
    assert!(machine.json(&[&there, "b.db"])["pages_received"].as_u64() > Some(10));
    machine.assert_same("a.db", "b.db");
    machine.change("a.db", 10, "again");
    machine.json(&["a.db", &there]);
    assert_eq!(machine.json(&[&there, "b.db", "--dry"])["pages_received"], 1);
    assert_eq!(machine.json(&[&there, "b.db"])["pages_received"], 1);
    machine.assert_same("a.db", "b.db");
}

#[test]
fn a_replica_behind_ssh_that_was_changed_is_kept_until_force() {
    let machine = Machine::new();
    machine.install("sqlrsync");
    drop(machine.database("a.db"));
    let there = format!("me@host:{}", machine.path("far.db").display());
    machine.json(&["a.db", &there]);
    machine.change("far.db", 1, "mine");
    machine.change("a.db", 2, "theirs");
    machine.fails(1, &["a.db", &there]);
    machine.json(&["a.db", &there, "--force"]);
    machine.assert_same("a.db", "far.db");
    machine.change("a.db", 3, "more");
    machine.json(&["a.db", &there]);
    machine.assert_same("a.db", "far.db");
}

#[test]
fn a_machine_with_sqlite3_rsync_only_is_spoken_to_as_that() {
    // What is installed there speaks version 2 at most and knows no flags of ours.
    let machine = Machine::new();
    let text = format!(
        "for word in \"$@\"; do case \"$word\" in --remember|--force) echo \"unknown option $word\" >&2; exit 1;; esac; done
         exec {PROGRAM} \"$@\""
    );
    machine.script("bin/sqlite3_rsync", &text);
    drop(machine.database("a.db"));
    let there = format!("me@host:{}", machine.path("far.db").display());
    machine.json(&["a.db", &there]);
    machine.change("a.db", 5, "changed");
    assert_eq!(machine.json(&["a.db", &there])["pages_sent"], 1);
    machine.assert_same("a.db", "far.db");
    machine.json(&[&there, "b.db"]);
    machine.change("far.db", 6, "changed");
    assert_eq!(machine.json(&[&there, "b.db"])["pages_received"], 1);
    machine.assert_same("b.db", "far.db");
}

#[test]
fn a_machine_without_the_program_and_one_that_cannot_be_reached() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    let there = format!("me@host:{}", machine.path("far.db").display());
    let text = machine.fails(1, &["a.db", &there, "--exe", "/no/such/program"]);
    assert!(text.contains("there is no /no/such/program on me@host"), "{text}");
    machine.fails(1, &[&there, "b.db", "--exe", "/no/such/program"]);
    let refusing = machine.script("refusing-ssh", "echo 'no route' >&2; exit 255");
    let text = machine.fails(5, &["a.db", &there, "--ssh", refusing.to_str().unwrap()]);
    assert!(text.contains("no route"), "{text}");
    assert!(!machine.path("b.db").exists() && !machine.path("far.db").exists());
}

#[test]
fn every_version_of_the_protocol_gives_the_same_copy() {
    let machine = Machine::new();
    machine.install("sqlrsync");
    drop(machine.database("a.db"));
    for version in ["1", "2", "3"] {
        let name = format!("far{version}.db");
        let there = format!("me@host:{}", machine.path(&name).display());
        for round in 0..3 {
            machine.change("a.db", round, version);
            machine.json(&["a.db", &there, "--protocol", version]);
            machine.assert_same("a.db", &name);
        }
    }
}

/// Starts the program as sqlite3_rsync does, sends it bytes, and returns what it said and how it ended.
fn speak(machine: &Machine, arguments: &[&str], bytes: &[u8]) -> (Vec<u8>, Output) {
    let mut output = ended_with(&mut machine.command(arguments), bytes);
    (std::mem::take(&mut output.stdout), output)
}

#[test]
fn nothing_but_the_protocol_is_written_to_stdout() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    let (said, output) = speak(&machine, &["--origin", "--protocol", "2", "-vv", "a.db", "b.db"], b"");
    assert_eq!(&said[..3], [0x41, 2, 12], "ORIGIN_BEGIN of version 2 and pages of 4,096 bytes");
    assert_eq!(said.len(), 7);
    assert!(!output.status.success());
}

#[test]
fn a_peer_hears_what_is_wrong_in_the_protocol() {
    let machine = Machine::new();
    let (said, output) = speak(&machine, &["--origin", "none.db", "b.db"], b"");
    assert_eq!(said.first(), Some(&0x43), "ORIGIN_ERROR");
    assert!(
        !String::from_utf8_lossy(&said).contains(machine.folder.path().to_str().unwrap()),
        "and no path of ours"
    );
    assert_eq!(output.status.code(), Some(10));
    std::fs::write(machine.path("text.db"), "no database at all, but some text. ".repeat(100)).unwrap();
    let begin = [&[0x41, 2, 12][..], &1u32.to_be_bytes()].concat();
    let (said, _) = speak(&machine, &["--replica", "a.db", "text.db"], &begin);
    assert_eq!(said.first(), Some(&0x62), "REPLICA_ERROR");
}

#[test]
fn a_replica_of_another_page_size_is_refused_in_sqlite3_rsyncs_words_and_stays() {
    let machine = Machine::new();
    for mode in ["DELETE", "WAL"] {
        let replica = machine.database(&format!("{mode}.db"));
        replica.execute_batch(&format!("PRAGMA journal_mode = {mode}")).unwrap();
        let before = content(&machine.path(&format!("{mode}.db")));
        for version in [1, 2] {
            // 31 pages of 1,024 bytes, as in the recording of sqlite3_rsync.
            let begin = [&[0x41, version, 10][..], &31u32.to_be_bytes()].concat();
            let (said, output) = speak(&machine, &["--replica", "a.db", &format!("{mode}.db")], &begin);
            let words = "page size mismatch; origin is 1024 bytes and replica is 4096 bytes";
            let expected = [&[0x62][..], &(words.len() as u32).to_be_bytes(), words.as_bytes()].concat();
            assert!(said == expected, "{mode}, {version}: {}", String::from_utf8_lossy(&said));
            assert_eq!(output.status.code(), Some(1));
        }
        assert!(content(&machine.path(&format!("{mode}.db"))) == before, "{mode}");
    }
}

#[test]
fn wal_only_refuses_a_database_with_a_rollback_journal() {
    let machine = Machine::new();
    machine.database("a.db").execute_batch("PRAGMA journal_mode = DELETE").unwrap();
    let (said, output) = speak(&machine, &["--origin", "--wal-only", "a.db", "b.db"], b"");
    assert_eq!(said.first(), Some(&0x43));
    assert!(String::from_utf8_lossy(&output.stderr).contains("WAL"));
}

#[test]
fn noise_from_a_peer_leaves_no_file_behind() {
    let machine = Machine::new();
    for noise in
        [&b""[..], b"A", b"\xff\xff\xff\xff", &[0x41, 3, 12, 0, 0, 0, 9, 0x7f, 0xff, 0xff, 0xff, 0xff]]
    {
        let (_, output) = speak(&machine, &["--replica", "a.db", "new.db"], noise);
        assert!(!output.status.success());
        assert!(!machine.path("new.db").exists());
    }
}

#[test]
fn the_version_and_the_manual_are_there() {
    let machine = Machine::new();
    let version = machine.run(&["-v"]);
    assert_eq!(version.stdout, format!("sqlrsync {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    assert!(machine.run(&["man", "pages"]).status.success());
    for page in ["sqlrsync.1", "sqlrsync-log.1", "sqlrsync-config.1"] {
        assert!(machine.path("pages").join(page).exists(), "{page}");
    }
    let completions = machine.run(&["completions", "bash"]);
    assert!(String::from_utf8_lossy(&completions.stdout).contains("--pullKey"));
}

#[test]
fn config_show_says_what_counts_and_where_it_came_from_and_no_key() {
    let machine = Machine::new();
    let mut command = machine.command(&["config", "show", "--json", "--server", "wss://example.org"]);
    let output = ended(command.env("SQLRSYNC_AUTH_TOKEN", "topsecret").env("SQLRSYNC_PORT", "2222"));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |name: &str| rows.iter().find(|row| row["setting"] == name).unwrap();
    assert_eq!(
        (&row("server")["value"], &row("server")["source"]),
        (&"wss://example.org".into(), &"flag".into())
    );
    assert_eq!((&row("port")["value"], &row("port")["source"]), (&"2222".into(), &"SQLRSYNC_PORT".into()));
    assert_eq!(row("protocol")["source"], "default");
    assert_eq!(row("SQLRSYNC_AUTH_TOKEN")["value"], "set");
    assert!(!text.contains("topsecret"));
}

#[test]
fn config_show_shows_all_that_counts_beside_what_cannot_be_used() {
    let machine = Machine::new();
    let mut command = machine.command(&["config", "show", "--timeout", "soon"]);
    let output = ended(command.env("SQLRSYNC_PORT", "much").env("SQLRSYNC_EXE", "there"));
    assert_eq!(output.status.code(), Some(2));
    let shown = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str, part: &str| {
        assert!(shown.lines().any(|line| line.starts_with(name) && line.contains(part)), "{name}\n{shown}");
    };
    line("exe", "there");
    line("timeout", "default");
    line("timeout", "soon ");
    line("port", "SQLRSYNC_PORT  cannot be used: a port is a number");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot be used"), "{said}");
    // Everything else ends with it, before it does anything.
    machine.fails(2, &["a.db", "b.db", "--protocol", "9"]);
}

#[test]
fn without_a_key_and_a_terminal_the_error_says_what_to_set() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    let text = machine.fails(4, &["a.db", "team/a.db"]);
    assert!(text.contains("SQLRSYNC_AUTH_TOKEN") && text.contains("SQLRSYNC_ADMIN_KEY"), "{text}");
}

#[test]
fn a_server_that_is_not_there_means_try_later() {
    let machine = Machine::new();
    drop(machine.database("a.db"));
    let mut command = machine.command(&["a.db", "team/a.db", "--server", "ws://127.0.0.1:1"]);
    let output = ended(command.env("SQLRSYNC_ADMIN_KEY", "k"));
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    machine.fails(5, &["log", "team/a.db", "--server", "ws://127.0.0.1:1"]);
}
