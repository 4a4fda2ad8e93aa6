//! What `diff` writes for other programs is taken for the whole only where it is: a script that breaks off changes nothing,
//! and a changeset is there when it is complete. The real program, on files.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;

/// A folder with two databases that differ in every second row and in their schemas, `old.db` and `new.db`.
struct Folder(tempfile::TempDir);

/// How many rows each database has.
const ROWS: u32 = 1500;

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let fill = format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);
             CREATE TABLE u(k TEXT PRIMARY KEY, v UNIQUE);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO t SELECT i, hex(zeroblob(50)) FROM n;
             INSERT INTO u VALUES('a', 1), ('b', 2);
             CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM u; END"
        );
        // What would end a transaction, were it taken for SQL.
        let change = "UPDATE t SET text = text || ';' || char(10) || 'COMMIT;' || char(10) WHERE id % 2;
             UPDATE u SET v = v + 2; ALTER TABLE u ADD COLUMN w DEFAULT 7; CREATE TABLE x(y);
             PRAGMA user_version = 9";
        for (name, sql) in [("old.db", fill.clone()), ("new.db", format!("{fill};{change}"))] {
            Connection::open(folder.path(name)).unwrap().execute_batch(&sql).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn diff(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sqlrsync"));
        command.args(["diff", "old.db", "new.db"]).args(more).current_dir(self.0.path());
        command.env_clear().env("HOME", self.path("home")).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Spoils a page of the newer database, far behind the rows that come first.
    fn damage(&self) {
        let mut bytes = std::fs::read(self.path("new.db")).unwrap();
        let at = bytes.len() / 2 / 4096 * 4096;
        bytes[at..at + 100].fill(0xee);
        std::fs::write(self.path("new.db"), bytes).unwrap();
    }

    /// All that is in the folder but for the two databases and the home.
    fn others(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !["old.db", "new.db", "home"].contains(&name.as_str())).collect()
    }

    /// Feeds a script to the program `sqlite3` for a copy of the older database. Gives its exit code and whether the
    /// database is another.
    fn sqlite3(&self, flags: &[&str], script: &[u8]) -> (i32, bool) {
        std::fs::copy(self.path("old.db"), self.path("copy.db")).unwrap();
        let mut command = Command::new("sqlite3");
        command.args(flags).arg(self.path("copy.db"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // It does not read on where it fails.
        let _ = child.stdin.take().unwrap().write_all(script);
        let code = child.wait().unwrap().code().unwrap();
        // Were there a journal left, it would be rolled back here.
        let all = |name| {
            let database = Connection::open(self.path(name)).unwrap();
            let one = |sql| database.query_row(sql, [], |row| row.get::<_, Option<String>>(0)).unwrap();
            [
                one("SELECT group_concat(id || text) FROM t"),
                one("SELECT group_concat(k || v) FROM u"),
                one("SELECT group_concat(sql) FROM sqlite_schema"),
                one("SELECT user_version || '' FROM pragma_user_version"),
            ]
        };
        (code, all("copy.db") != all("old.db"))
    }
}

/// Whether the program `sqlite3` is there.
fn has_sqlite3() -> bool {
    let found = Command::new("sqlite3").arg("-version").output().is_ok();
    if !found {
        let because = "there is no sqlite3: install it";
        assert!(std::env::var_os("SQLRSYNC_TESTS_REQUIRE_ALL").is_none(), "{because}");
        eprintln!("\n*** NOT SHOWN: that a script that is cut changes nothing, because {because} ***\n");
    }
    found
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_script_cut_anywhere_changes_nothing_in_sqlite3() {
    if !has_sqlite3() {
        return;
    }
    let folder = Folder::new();
    let script = folder.diff(&["--sql"]).stdout;
    for flags in [&["-bail"][..], &[]] {
        assert_eq!(folder.sqlite3(flags, &script), (0, true));
        let len = script.len();
        // The beginning and the end, where the statements are, and here and there in the rows.
        let cuts =
            (0..12).map(|n| n * 61).chain((1..8).map(|n| n * len / 8)).chain((len - 50..len - 8).step_by(5));
        for cut in cuts {
            let (_, changed) = folder.sqlite3(flags, &script[..cut]);
            assert!(!changed, "cut after {cut} of {len} bytes, {flags:?}");
        }
    }
}

#[test]
fn what_meets_damage_in_the_middle_ends_no_script_and_leaves_no_changeset() {
    let folder = Folder::new();
    folder.damage();
    let script = folder.diff(&["--sql"]);
    assert_eq!(script.status.code(), Some(1), "{}", stderr(&script));
    let text = String::from_utf8(script.stdout.clone()).unwrap();
    assert!(text.contains("BEGIN IMMEDIATE;\n") && text.contains("UPDATE main.\"t\""), "it had begun");
    assert!(!text.ends_with("COMMIT;\n"));
    let said = stderr(&script);
    assert!(said.contains("old.db and new.db is damaged") && said.contains("integrity_check"), "{said}");
    if has_sqlite3() {
        assert!(!folder.sqlite3(&["-bail"], &script.stdout).1);
        let _ = std::fs::remove_file(folder.path("copy.db"));
    }

    let set = folder.diff(&["--changeset", "set.bin"]);
    assert_eq!(set.status.code(), Some(1), "{}", stderr(&set));
    assert_eq!(folder.others(), [""; 0]);
    std::fs::write(folder.path("set.bin"), "what was there").unwrap();
    assert_eq!(folder.diff(&["--changeset", "set.bin", "--exit-code"]).status.code(), Some(2));
    assert_eq!(std::fs::read(folder.path("set.bin")).unwrap(), b"what was there");
    assert_eq!(folder.others(), ["set.bin"]);
}

#[test]
fn a_changeset_takes_the_place_that_is_named_and_no_other() {
    let folder = Folder::new();
    assert!(folder.diff(&["--changeset", "set.bin"]).status.success());
    let set = std::fs::read(folder.path("set.bin")).unwrap();
    assert!(!set.is_empty());
    let mode = |name| std::fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("set.bin") & 0o600, 0o600);

    // A link stays one, and what it leads to keeps its rights.
    std::fs::write(folder.path("real.bin"), "old").unwrap();
    std::fs::set_permissions(folder.path("real.bin"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real.bin", folder.path("link.bin")).unwrap();
    assert!(folder.diff(&["--changeset", "link.bin"]).status.success());
    assert!(folder.path("link.bin").is_symlink());
    assert_eq!((std::fs::read(folder.path("real.bin")).unwrap(), mode("real.bin")), (set.clone(), 0o640));

    // What can only be written into is.
    std::os::unix::fs::symlink("/dev/stdout", folder.path("out.bin")).unwrap();
    let output = folder.diff(&["--changeset", "out.bin"]);
    assert!(output.status.success() && output.stdout == set, "{}", stderr(&output));
    assert!(folder.path("out.bin").is_symlink());
    // Also where that is a file, which nothing else may take the place of.
    let mut open = std::fs::File::create(folder.path("redirected")).unwrap();
    open.write_all(b"before").unwrap();
    let mut command = folder.command(&["--changeset", "out.bin"]);
    assert!(command.stdout(open.try_clone().unwrap()).status().unwrap().success());
    let mut all = Vec::new();
    std::fs::File::open(folder.path("redirected")).unwrap().read_to_end(&mut all).unwrap();
    assert_eq!((&all[..6], &all[6..]), (&b"before"[..], &set[..]));
    assert_eq!(open.metadata().unwrap().len(), all.len() as u64, "it is the file that was open");

    // And a folder is no file.
    std::fs::create_dir(folder.path("folder")).unwrap();
    for place in ["folder", "none/set.bin"] {
        let output = folder.diff(&["--changeset", place]);
        assert!(!output.status.success() && output.stdout.is_empty());
        let said = stderr(&output);
        assert!(!said.contains("warning") && !said.contains(".sqlrsync-"), "nothing was compared: {said}");
    }
}
