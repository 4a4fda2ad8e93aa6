//! What may happen to a database file under a running publisher: the watch goes on, and every push is
//! what the file holds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlrsync_tests::chain;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::history::History;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{PATIENCE, Subscriber};

/// How long a disk is away that comes back before anything was to be pushed.
const AWAY: Duration = Duration::from_secs(2);

/// What happens to a database; returns the state that it has then.
type Happens = fn(&Path) -> u32;

/// A file, its publisher and what happens.
struct Case {
    name: &'static str,
    happens: Happens,
    file: PathBuf,
    publisher: Subscriber,
}

const CASES: [(&str, Happens); 7] = [
    ("replaced-by-rename", replaced_by_rename),
    ("deleted-and-made-anew", deleted_and_made_anew),
    ("vacuumed", vacuumed),
    ("journal-switched", journal_switched),
    ("moved-away", moved_away),
    ("away-when-due", away_when_due),
    ("truncated-wal", truncated_wal),
];

/// As programs that save a whole file do it.
fn replaced_by_rename(file: &Path) -> u32 {
    let new = file.with_extension("new");
    std::fs::copy(file, &new).unwrap();
    let state = chain::step(&new);
    std::fs::rename(&new, file).unwrap();
    state
}

fn deleted_and_made_anew(file: &Path) -> u32 {
    let before = chain::state(file);
    std::fs::remove_file(file).unwrap();
    std::thread::sleep(AWAY);
    chain::create(file, "delete");
    // Further than it ever was: a state of its own.
    std::iter::repeat_with(|| chain::step(file)).find(|state| *state > before).unwrap()
}

fn vacuumed(file: &Path) -> u32 {
    sample::execute(file, "CREATE TABLE filler(bytes); INSERT INTO filler VALUES(zeroblob(300000))");
    let state = chain::step(file);
    sample::execute(file, "DROP TABLE filler; VACUUM");
    state
}

fn journal_switched(file: &Path) -> u32 {
    sample::execute(file, "PRAGMA journal_mode = DELETE");
    chain::step(file);
    sample::execute(file, "PRAGMA journal_mode = WAL");
    let state = chain::step(file);
    sample::execute(file, "PRAGMA journal_mode = TRUNCATE");
    state
}

/// An unmounted disk, as the programs see it: the folder is not there for a while.
fn moved_away(file: &Path) -> u32 {
    let (folder, away) = (file.parent().unwrap(), file.parent().unwrap().with_extension("away"));
    std::fs::rename(folder, &away).unwrap();
    std::thread::sleep(AWAY);
    std::fs::rename(&away, folder).unwrap();
    chain::step(file)
}

/// The same, in the moment that the push was to begin.
fn away_when_due(file: &Path) -> u32 {
    let (folder, away) = (file.parent().unwrap(), file.parent().unwrap().with_extension("away"));
    let state = chain::step(file);
    std::thread::sleep(AWAY);
    std::fs::rename(folder, &away).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    std::fs::rename(&away, folder).unwrap();
    state
}

/// Another program holds the database open and begins its WAL anew.
fn truncated_wal(file: &Path) -> u32 {
    let held = rusqlite::Connection::open(file).unwrap();
    held.query_row("SELECT count(*) FROM tip", [], |_| Ok(())).unwrap();
    chain::step(file);
    held.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let state = chain::step(file);
    held.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    state
}

impl Case {
    fn start(client: &Client, name: &'static str, happens: Happens) -> Case {
        std::fs::create_dir(client.path(name)).unwrap();
        let file = client.path(name).join("app.db");
        chain::create(&file, "wal");
        let local = format!("./{name}/app.db");
        let command = client.command(&[&*local, &remote(name), "--subscribe", "--json"]);
        Case { name, happens, file, publisher: Subscriber::start(name, command) }
    }

    /// Waits until the newest version is this state.
    fn wait_for(&mut self, reader: &Client, state: u32) {
        let copy = format!("{}.db", self.name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = self.publisher.version();
            reader.run(&[&*remote(self.name), &copy]).ok();
            if chain::state(&reader.path(&copy)) == state {
                return;
            }
            while self.publisher.version() == known {
                let alive = self.publisher.is_running() && Instant::now() < deadline;
                assert!(alive, "{}: state {state} was not pushed\n{}", self.name, self.publisher.report());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The file meets with what it is to meet with, and then with an ordinary write.
    fn run(&mut self, server: &Server) {
        let reader = Client::admin(server);
        let state = (self.happens)(&self.file);
        self.wait_for(&reader, state);
        let state = chain::step(&self.file);
        self.wait_for(&reader, state);
        sample::assert_same(&self.file, &reader.path(&format!("{}.db", self.name)));
        assert!([0, 130].contains(&self.publisher.stop()), "{}", self.publisher.report());
        History::default().assert_whole(server, &remote(self.name), state);
    }
}

fn remote(name: &str) -> String {
    format!("team/{name}.db")
}

/// All of them at the same time, each with a publisher of its own: the ten seconds that a publisher
/// waits for further writes then count once.
#[test]
fn whatever_happens_to_the_file_the_watch_goes_on_and_the_next_push_is_right() {
    let server = Server::start();
    let client = Client::admin(&server);
    let cases: Vec<Case> =
        CASES.into_iter().map(|(name, happens)| Case::start(&client, name, happens)).collect();
    for case in &cases {
        case.publisher.wait_for_version(1);
    }
    std::thread::scope(|scope| {
        for mut case in cases {
            let server = &server;
            scope.spawn(move || case.run(server));
        }
    });
}
