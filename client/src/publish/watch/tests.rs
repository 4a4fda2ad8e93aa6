//! A watch on a real folder, with SQLite writing.

use rusqlite::Connection;

use super::*;

/// How long a report of the system may take; it takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than the tick of the file system's clock, so that a fingerprint proves something.
const TICKED: Duration = Duration::from_millis(30);

/// When no hint comes for so long, none is on its way any more.
const QUIET: Duration = Duration::from_millis(200);

struct Fixture {
    folder: tempfile::TempDir,
    watch: Watch,
}

fn database(path: &Path, mode: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", mode).unwrap();
    connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    connection
}

fn watched(mode: &str) -> (Fixture, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("app.db");
    let connection = database(&path, mode);
    let mut fixture = Fixture { folder, watch: Watch::new(&path) };
    fixture.calm();
    (fixture, connection)
}

impl Fixture {
    /// Lets all that has happened so far be seen.
    fn calm(&mut self) {
        std::thread::sleep(TICKED);
        self.watch.look();
        assert_eq!(self.watch.look(), Look::Same);
        self.drain();
    }

    fn drain(&self) {
        block_on(async { while tokio::time::timeout(QUIET, self.watch.hint()).await.is_ok() {} });
    }

    /// Waits for a hint, and looks. A late one, of what was seen before, is none.
    fn hinted(&mut self) -> Look {
        loop {
            let hint = block_on(async { tokio::time::timeout(DEADLINE, self.watch.hint()).await });
            assert!(hint.is_ok(), "no hint came");
            match self.watch.look() {
                Look::Same => {}
                other => return other,
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.watch.path.clone()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_write_in_any_journal_mode_is_hinted_at_and_found() {
    for mode in ["wal", "delete", "truncate", "persist"] {
        let (mut fixture, connection) = watched(mode);
        connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
        assert_eq!(fixture.hinted(), Look::Changed, "{mode}");
        std::thread::sleep(TICKED);
        fixture.watch.look();
        assert_eq!(fixture.watch.look(), Look::Same, "{mode}");
    }
}

#[test]
fn reading_gives_no_hint() {
    let (fixture, connection) = watched("delete");
    let rows: u32 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    std::fs::write(fixture.folder.path().join("other.db"), "of no concern").unwrap();
    let hint = block_on(async { tokio::time::timeout(QUIET, fixture.watch.hint()).await });
    assert!(hint.is_err());
}

#[test]
fn a_file_renamed_into_its_place_deleted_and_made_anew_is_seen() {
    let (mut fixture, connection) = watched("delete");
    drop(connection);
    let path = fixture.path();
    let other = path.with_file_name("new.db");
    drop(database(&other, "delete"));
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(fixture.hinted(), Look::Changed, "renamed into place");
    fixture.calm();

    std::fs::remove_file(&path).unwrap();
    assert_eq!(fixture.hinted(), Look::Missing);
    fixture.drain();
    drop(database(&path, "wal"));
    assert_eq!(fixture.hinted(), Look::Changed, "made anew");
}

#[test]
fn a_folder_that_goes_away_and_comes_back_is_watched_again() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().canonicalize().unwrap().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("app.db");
    drop(database(&path, "delete"));
    let mut fixture = Fixture { folder: outer, watch: Watch::new(&path) };
    fixture.calm();

    // As a disk that is unmounted: what is there afterwards is another folder.
    std::fs::rename(&folder, folder.with_file_name("away")).unwrap();
    assert_eq!(fixture.watch.look(), Look::Missing);
    assert_eq!(fixture.watch.look_every(), LOOK_OFTEN, "nothing is watched: look more often");
    std::fs::create_dir(&folder).unwrap();
    drop(database(&path, "delete"));
    assert_eq!(fixture.watch.look(), Look::Changed);
    fixture.calm();
    let connection = Connection::open(&path).unwrap();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    assert_eq!(fixture.hinted(), Look::Changed, "by the new watch");
}

#[test]
fn what_a_push_has_is_no_news_and_what_came_after_it_is() {
    let (mut fixture, connection) = watched("wal");
    connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
    std::thread::sleep(TICKED);
    let pushed = fixture.watch.fingerprint();
    assert_eq!(fixture.watch.look_after(pushed.clone()), Look::Same);
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    assert_eq!(fixture.watch.look_after(pushed), Look::Changed);
}

/// What was seen as one sees it whose clock was set back behind the file's times.
fn clock_set_back(watch: &mut Watch) {
    let seen = watch.seen.as_mut().unwrap();
    let mut json = serde_json::to_value(&seen.fingerprint).unwrap();
    json["recorded_at_ns"] = 0.into();
    seen.fingerprint = serde_json::from_value(json).unwrap();
}

#[test]
fn a_clock_that_was_set_back_does_not_make_every_look_a_write() {
    let (mut fixture, connection) = watched("delete");
    let watch = &mut fixture.watch;
    clock_set_back(watch);
    assert!(watch.look_every() < LOOK_EVERY, "it is looked at again soon");
    // For the first time just now: what came in the same tick does not show.
    watch.seen.as_mut().unwrap().since = clock::now();
    assert_eq!(watch.look(), Look::Changed);
    // It was so for long.
    clock_set_back(watch);
    watch.seen.as_mut().unwrap().since = clock::now().saturating_sub(2 * SHOWS_AFTER);
    let before = watch.seen.as_ref().unwrap().fingerprint.clone();
    assert_eq!(watch.look_every(), LOOK_EVERY);
    assert_eq!(watch.look_after([before.clone()]), Look::Same);
    connection.execute("INSERT INTO t VALUES (2)", []).unwrap();
    assert_eq!(watch.look_after([before]), Look::Changed);
}
