//! A machine and its clone, with our own client: the same client id, the same host name, the same path, and each with
//! the state of its own. What one of them pushes is not what the other one's file was made from, whatever
//! happened to that file.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sqlrsync_tests::client::{Client, Outcome, outcome_of};
use sqlrsync_tests::sample;
use sqlrsync_tests::team::{FILE, REMOTE, Team, assert_sound};

/// The journal modes that a file is tried in.
const MODES: [&str; 2] = ["delete", "wal"];

/// A machine that made version 1, and its clone.
struct Clones {
    team: Team,
    clone: Client,
}

/// Which of the two.
#[derive(Clone, Copy)]
enum Which {
    Original,
    Cloned,
}

use Which::{Cloned, Original};

impl Clones {
    /// Cloned right after version 1, with home, state and file.
    fn new(mode: &str) -> Clones {
        let team = Team::of(1);
        let original = &team.machines[0];
        sample::text(&original.path(FILE), &format!("PRAGMA journal_mode = {mode}"));
        original.run(&[FILE, REMOTE]).ok();
        let clone = Client::admin(&team.server);
        for folder in ["home", "work"] {
            let to = clone.work().with_file_name(folder);
            fs::remove_dir_all(&to).unwrap();
            let from = original.work().with_file_name(folder);
            outcome_of(Command::new("cp").arg("-a").args([&from, &to])).ok();
        }
        Clones { team, clone }
    }

    fn machine(&self, which: Which) -> &Client {
        match which {
            Original => &self.team.machines[0],
            Cloned => &self.clone,
        }
    }

    fn insert(&self, which: Which, key: &str) {
        let file = self.machine(which).path(FILE);
        sample::execute(&file, &format!("INSERT INTO notes VALUES('{key}', 'text of {key}')"));
    }

    /// Runs the client where the path of the file is the original's on both.
    fn run(&self, which: Which, arguments: &[&str]) -> Outcome {
        let machine = self.machine(which);
        let (place, parked) = (self.machine(Original).work(), self.clone.work().with_file_name("parked"));
        if let Cloned = which {
            fs::rename(&place, &parked).unwrap();
            fs::rename(machine.work(), &place).unwrap();
        }
        let outcome = outcome_of(machine.command(arguments).current_dir(&place));
        if let Cloned = which {
            fs::rename(&place, machine.work()).unwrap();
            fs::rename(&parked, &place).unwrap();
        }
        outcome
    }

    /// Pushes, and says what it came to.
    #[track_caller]
    fn push(&self, which: Which) -> String {
        let outcome = self.run(which, &[FILE, REMOTE, "--json"]);
        assert!([0, 3].contains(&outcome.code), "{} {}", outcome.stdout, outcome.stderr);
        let said: Value = outcome.json();
        said["outcome"].as_str().unwrap().to_owned()
    }

    /// The rows of these keys that the latest version has.
    fn kept(&self, keys: &[&str]) -> Vec<bool> {
        let latest = self.team.latest();
        latest.assert_sound();
        let count = |key: &&str| latest.number(&format!("SELECT count(*) FROM notes WHERE key = '{key}'"));
        keys.iter().map(|key| count(key) == 1).collect()
    }

    /// What was pushed waits in the one conflict that there is.
    fn is_told(&self, what_came: &str) {
        assert_eq!(what_came, "conflict");
        let conflicts = self.team.conflicts();
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    }
}

/// A copy takes the file's place: the same content in another inode.
fn replace_by_copy(file: &Path) {
    let copy = file.with_extension("copy");
    fs::copy(file, &copy).unwrap();
    fs::rename(&copy, file).unwrap();
}

#[test]
fn what_the_machine_pushed_is_not_taken_back_by_a_clone_whose_file_was_copied() {
    for mode in MODES {
        let clones = Clones::new(mode);
        clones.insert(Original, "of the original");
        assert_eq!(clones.push(Original), "pushed", "{mode}");
        replace_by_copy(&clones.clone.path(FILE));
        clones.insert(Cloned, "of the clone");
        clones.is_told(&clones.push(Cloned));
        assert_eq!(clones.kept(&["of the original", "of the clone"]), [true, false], "{mode}");

        // From then on each has a base of its own again.
        let settled = clones.run(Cloned, &["resolve", REMOTE, "1", "--keep", "mine"]);
        assert_eq!(settled.code, 0, "{settled:?}");
        clones.insert(Original, "more of the original");
        assert_eq!(clones.push(Original), "merged", "{mode}");
        clones.insert(Cloned, "more of the clone");
        assert_eq!(clones.push(Cloned), "merged", "{mode}");
        let more = ["more of the original", "more of the clone", "of the clone"];
        assert_eq!(clones.kept(&more), [true; 3], "{mode}");
        assert!(clones.team.server.check());
    }
}

#[test]
fn a_clone_that_has_changed_nothing_takes_nothing_back() {
    for mode in MODES {
        let clones = Clones::new(mode);
        clones.insert(Original, "of the original");
        assert_eq!(clones.push(Original), "pushed", "{mode}");
        assert_eq!(clones.push(Cloned), "unchanged", "{mode}");
        assert_eq!(clones.kept(&["of the original"]), [true], "{mode}");
    }
}

#[test]
fn what_the_machine_pushed_is_not_taken_back_by_a_clone_whose_file_was_put_back() {
    for mode in MODES {
        let clones = Clones::new(mode);
        let file = clones.clone.path(FILE);
        let write = |from: u32, to: u32| {
            (from..to).for_each(|number| clones.insert(Cloned, &format!("{number} of the clone")));
        };
        write(0, 4);
        fs::copy(&file, file.with_extension("backup")).unwrap();
        write(4, 8);
        sample::execute(&file, "CREATE TABLE later(id)");
        assert_eq!(clones.push(Cloned), "pushed", "{mode}");
        clones.insert(Original, "of the original");
        assert_eq!(clones.push(Original), "merged", "{mode}");
        // Into the same inode.
        fs::copy(file.with_extension("backup"), &file).unwrap();
        clones.insert(Cloned, "after the backup");
        let pushed = clones.push(Cloned);
        let kept = clones.kept(&["of the original", "7 of the clone", "after the backup"]);
        clones.is_told(&pushed);
        assert_eq!(kept, [true, true, false], "{mode}");
    }
}

#[test]
fn a_file_that_was_copied_and_that_pushed_last_itself_goes_on_without_a_conflict() {
    for mode in MODES {
        let team = Team::of(2);
        let [a, b] = [&team.machines[0], &team.machines[1]];
        let file = a.path(FILE);
        sample::text(&file, &format!("PRAGMA journal_mode = {mode}"));
        let push = |sql: &str| {
            replace_by_copy(&file);
            sample::execute(&file, sql);
            a.json(&[FILE, REMOTE])["outcome"].as_str().unwrap().to_owned()
        };
        assert_eq!(push("INSERT INTO notes VALUES('flag', 'off')"), "pushed", "{mode}");
        assert_eq!(push("UPDATE notes SET text = 'on' WHERE key = 'flag'"), "pushed", "{mode}");
        assert_eq!(push("UPDATE notes SET text = 'off' WHERE key = 'flag'"), "pushed", "{mode}");
        assert_eq!(push("DELETE FROM notes WHERE key = 'flag'"), "pushed", "{mode}");
        // What others pushed meanwhile is merged, and the next push is made from what was sent.
        sample::execute(&b.path(FILE), "INSERT INTO notes VALUES('of b', 'b')");
        b.run(&[FILE, REMOTE]).ok();
        assert_eq!(push("INSERT INTO notes VALUES('of a', 'a')"), "merged", "{mode}");
        assert_eq!(push("DELETE FROM notes WHERE key = 'of a'"), "merged", "{mode}");
        // And after a pull, which is the newest that the file had.
        a.run(&[REMOTE]).ok();
        assert_eq!(push("INSERT INTO notes VALUES('after the pull', 'a')"), "pushed", "{mode}");
        let latest = team.latest();
        latest.assert_sound();
        let keys =
            "SELECT group_concat(key) FROM (SELECT key FROM notes WHERE key NOT LIKE 'note %' ORDER BY key)";
        assert_eq!(latest.text(keys), "after the pull,of b", "{mode}");
        assert_eq!(team.conflicts(), Vec::<Value>::new(), "{mode}");
        assert_sound(&file);
    }
}
