//! Pushers that say nothing of their base, or whose base is not what it seems: nobody guesses. A guess would take
//! away what others wrote, in silence.
//!
//! What is shown is the same everywhere ([`Ledger`]): a row that was in the latest version stays in it, and
//! a row that was pushed is in the latest version unless its push was told of a conflict.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sqlrsync_tests::bridge::{Bridge, Ended};
use sqlrsync_tests::client::Client;
use sqlrsync_tests::programs::programs;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::team::{self, FILE, REMOTE, Team, assert_sound, pull, try_push};

/// So many times each of two pushes in turn.
const ROUNDS: u32 = 50;

/// The rows that must be in the latest version: nobody ever deletes one.
#[derive(Default)]
struct Ledger {
    rows: BTreeSet<String>,
    /// Pushes that were told that theirs is not published.
    told: u32,
}

impl Ledger {
    /// Takes in a push that had this row. `published` is what the pusher was told.
    #[track_caller]
    fn pushed(&mut self, server: &Server, row: &str, published: bool) {
        if published {
            self.rows.insert(row.to_owned());
        } else {
            self.told += 1;
        }
        self.assert_kept(server, row);
    }

    #[track_caller]
    fn assert_kept(&mut self, server: &Server, after: &str) {
        let client = Client::admin(server);
        client.run(&[REMOTE, "latest.db"]).ok();
        let found = rows(&client.path("latest.db"));
        let lost: Vec<&String> = self.rows.difference(&found).collect();
        assert!(lost.is_empty(), "the push of {after} took away {lost:?}");
        self.rows = found;
    }
}

/// The keys of the notes in a database.
fn rows(file: &Path) -> BTreeSet<String> {
    let database = rusqlite::Connection::open(file).unwrap();
    let mut statement = database.prepare("SELECT key FROM notes").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn insert(file: &Path, key: &str) {
    sample::execute(file, &format!("INSERT INTO notes VALUES('{key}', 'text of {key}')"));
}

/// People with the public client, who say nothing of their base.
struct Public {
    server: Server,
    key: String,
    folder: tempfile::TempDir,
}

impl Public {
    fn new() -> Public {
        let server = Server::start();
        let key = server.admin_key();
        Public { server, key, folder: tempfile::tempdir().unwrap() }
    }

    /// A database of that name, and version 1 by this client.
    fn first(&self, client: &str, name: &str) -> PathBuf {
        let file = self.file(name);
        team::create(&file);
        assert!(self.push(client, &file), "the first push");
        file
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bridge<'a>(&'a self, client: &'a str) -> Bridge<'a> {
        let program = &programs().client;
        Bridge { server: self.server.url(), key: &self.key, program, client_id: client }
    }

    /// Whether it was published; otherwise the client was told.
    #[track_caller]
    fn push(&self, client: &str, file: &Path) -> bool {
        let ended = self.bridge(client).push(file, REMOTE).unwrap();
        let published = ended.config("committedVersionID").is_some() && !was_told(&ended);
        assert!(published || was_told(&ended), "published or told: {ended:?}");
        published
    }

    fn pull(&self, client: &str, version: &str, file: &Path) {
        let ended = self.bridge(client).pull(REMOTE, version, file).unwrap();
        assert_eq!(ended.close_code, Some(1000), "{ended:?}");
    }
}

/// Whether the program printed an error, as the public client does and then exits with 1.
fn was_told(ended: &Ended) -> bool {
    ended.stderr.to_lowercase().contains("error") || ended.stderr.contains("conflict")
}

#[test]
fn two_public_clients_who_push_in_turns_and_never_pull_lose_nothing() {
    let public = Public::new();
    let one = public.first("one", "one.db");
    let two = public.file("two.db");
    public.pull("two", "", &two);
    for round in 0..ROUNDS {
        for (who, file) in [("one", &one), ("two", &two)] {
            insert(file, &format!("{who} {round}"));
            assert!(public.push(who, file), "{who} {round}");
        }
    }
    for (who, file) in [("one", &one), ("two", &two)] {
        public.pull(who, "", file);
        let found = rows(file);
        assert_eq!(found.len() as u32, team::CUSTOMERS + 2 * ROUNDS, "{who}");
        assert_sound(file);
    }
    assert!(public.server.check());
}

#[test]
fn a_cloned_machine_with_the_same_client_id_takes_no_row_away() {
    let public = Public::new();
    let original = public.first("same", "app.db");
    let clone = public.file("clone.db");
    std::fs::copy(&original, &clone).unwrap();
    let mut ledger = Ledger::default();
    ledger.assert_kept(&public.server, "the start");
    for round in 0..6 {
        for file in [&original, &clone] {
            // Both under one name, as a machine and its clone have it.
            let row = format!("{} {round}", file.file_stem().unwrap().to_str().unwrap());
            insert(file, &row);
            let published = with_name(file, &public.file("home.db"), |path| public.push("same", path));
            ledger.pushed(&public.server, &row, published);
        }
    }
    assert!(ledger.told > 0 || ledger.rows.len() as u32 == team::CUSTOMERS + 12, "{}", ledger.told);
    assert!(public.server.check());
}

/// Does something while a file has another name.
fn with_name<T>(file: &Path, name: &Path, work: impl FnOnce(&Path) -> T) -> T {
    let done = {
        std::fs::rename(file, name).unwrap();
        work(name)
    };
    std::fs::rename(name, file).unwrap();
    done
}

#[test]
fn two_copies_of_a_file_on_one_machine_take_no_row_away() {
    let public = Public::new();
    let one = public.first("same", "one.db");
    let two = public.file("two.db");
    std::fs::copy(&one, &two).unwrap();
    let mut ledger = Ledger::default();
    ledger.assert_kept(&public.server, "the start");
    for round in 0..6 {
        for (name, file) in [("one", &one), ("two", &two)] {
            let row = format!("{name} {round}");
            insert(file, &row);
            let published = public.push("same", file);
            ledger.pushed(&public.server, &row, published);
        }
    }
}

#[test]
fn an_old_version_pulled_into_another_file_takes_no_row_away() {
    let public = Public::new();
    let app = public.first("same", "app.db");
    let mut ledger = Ledger::default();
    for version in 2..=4 {
        let row = format!("version {version}");
        insert(&app, &row);
        let published = public.push("same", &app);
        assert!(published);
        ledger.pushed(&public.server, &row, published);
    }
    let old = public.file("old.db");
    public.pull("same", "2", &old);
    insert(&old, "into the old one");
    let published = public.push("same", &old);
    ledger.pushed(&public.server, "into the old one", published);
    // And the newest is pulled by the same client before the old one is pushed again.
    public.pull("same", "", &public.file("new.db"));
    insert(&old, "again into the old one");
    let published = public.push("same", &old);
    ledger.pushed(&public.server, "again into the old one", published);
}

#[test]
fn a_restored_backup_takes_no_row_away() {
    let public = Public::new();
    let app = public.first("one", "app.db");
    let backup = public.file("backup.db");
    std::fs::copy(&app, &backup).unwrap();
    let other = public.file("other.db");
    public.pull("two", "", &other);
    let mut ledger = Ledger::default();
    for (who, file) in [("one", &app), ("two", &other), ("one", &app)] {
        let row = format!("of {who} {}", ledger.rows.len());
        insert(file, &row);
        let published = public.push(who, file);
        ledger.pushed(&public.server, &row, published);
    }
    // What the first one has pulled is in its possible bases, and gone with the backup.
    public.pull("one", "", &app);
    std::fs::rename(&backup, &app).unwrap();
    insert(&app, "after the backup");
    let published = public.push("one", &app);
    ledger.pushed(&public.server, "after the backup", published);
}

#[test]
fn with_our_client_copies_old_versions_and_backups_take_no_row_away() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    let backup = a.path("backup.db");
    std::fs::copy(a.path(FILE), &backup).unwrap();
    let mut ledger = Ledger::default();
    ledger.assert_kept(&team.server, "the start");
    let mut step = |client: &Client, file: &str, row: &str| {
        insert(&client.path(file), row);
        let outcome = client.run(&[file, REMOTE, "--json"]);
        assert!([0, 3].contains(&outcome.code), "{row}: {outcome:?}");
        ledger.pushed(&team.server, row, outcome.code == 0);
    };
    step(a, FILE, "a 1");
    step(b, FILE, "b 1");
    pull(a);
    step(a, FILE, "a 2");
    // A copy of the file on the same machine, which has no state.
    std::fs::copy(a.path(FILE), a.path("copy.db")).unwrap();
    step(b, FILE, "b 2");
    step(a, "copy.db", "of the copy");
    step(a, FILE, "a 3");
    step(a, "copy.db", "of the copy again");
    // An old version in a file of its own.
    a.run(&["team/app.db@1", "old.db"]).ok();
    step(a, "old.db", "of the old one");
    step(b, FILE, "b 3");
    step(a, "old.db", "of the old one again");
    // A backup in the file's place.
    std::fs::rename(&backup, a.path(FILE)).unwrap();
    step(a, FILE, "after the backup");
    step(b, FILE, "b 4");
    assert!(team.server.check());
}

#[test]
fn with_our_client_a_backup_copied_over_the_file_takes_no_row_away_however_often_it_is_written_to() {
    for mode in ["delete", "wal"] {
        for commits in 0..4 {
            let team = Team::of(2);
            let [a, b] = [&team.machines[0], &team.machines[1]];
            sample::text(&a.path(FILE), &format!("PRAGMA journal_mode = {mode}"));
            let mut ledger = Ledger::default();
            ledger.assert_kept(&team.server, "the start");
            let backup = a.path("backup.db");
            std::fs::copy(a.path(FILE), &backup).unwrap();
            insert(&b.path(FILE), "of b");
            team::push(b, "pushed");
            ledger.pushed(&team.server, "of b", true);
            pull(a);
            std::fs::copy(&backup, a.path(FILE)).unwrap();
            for commit in 0..commits {
                insert(&a.path(FILE), &format!("after the backup {commit}"));
            }
            let (code, said) = try_push(a, &[]);
            assert!([0, 3].contains(&code), "{said}");
            let rows: Vec<String> = (0..commits).map(|commit| format!("after the backup {commit}")).collect();
            for row in rows {
                ledger.pushed(&team.server, &row, code == 0);
            }
            ledger.assert_kept(&team.server, "the backup");
        }
    }
}

#[test]
fn with_our_client_a_backup_of_a_file_that_was_deleted_and_pulled_anew_takes_no_row_away() {
    for commits in 0..3 {
        let team = Team::of(2);
        let [a, b] = [&team.machines[0], &team.machines[1]];
        let mut ledger = Ledger::default();
        ledger.assert_kept(&team.server, "the start");
        for row in ["of b", "of b again"] {
            insert(&b.path(FILE), row);
            team::push(b, "pushed");
            ledger.pushed(&team.server, row, true);
            if row == "of b" {
                pull(a);
                std::fs::copy(a.path(FILE), a.path("backup.db")).unwrap();
            }
        }
        std::fs::remove_file(a.path(FILE)).unwrap();
        pull(a);
        std::fs::copy(a.path("backup.db"), a.path(FILE)).unwrap();
        let rows: Vec<String> = (0..commits).map(|commit| format!("after the backup {commit}")).collect();
        rows.iter().for_each(|row| insert(&a.path(FILE), row));
        let (code, said) = try_push(a, &[]);
        assert!([0, 3].contains(&code), "{said}");
        rows.iter().for_each(|row| ledger.pushed(&team.server, row, code == 0));
        ledger.assert_kept(&team.server, "the backup");
    }
}

#[test]
fn a_client_that_lost_its_state_takes_no_row_away() {
    let team = Team::of(2);
    let [a, b] = [&team.machines[0], &team.machines[1]];
    let mut ledger = Ledger::default();
    ledger.assert_kept(&team.server, "the start");
    for round in 0..6 {
        for (who, machine) in [("a", a), ("b", b)] {
            let row = format!("{who} {round}");
            insert(&machine.path(FILE), &row);
            let (code, said) = try_push(machine, &[]);
            assert!([0, 3].contains(&code), "{row}: {said}");
            ledger.pushed(&team.server, &row, code == 0);
            if round % 2 == 1 {
                let _ = std::fs::remove_dir_all(machine.home().join(".local/state/sqlrsync/files"));
            }
        }
    }
}
