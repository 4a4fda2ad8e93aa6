//! What the tests share: databases, and an exchange between two of them in memory.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use rusqlite::Connection;
use sqlrsync_database::{
    Agreed, Error, FileReplica, FileReplicaOptions, LiveOrigin, LiveOriginOptions, Overwrite,
};
use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, Quiet, ReplicaOptions, Summary, Wire, run_origin, run_replica,
};
use sqlrsync_protocol::exchange::{Base, Form, Ground, OriginPages, ReplicaPages, Since, Wanted};
use sqlrsync_protocol::hash::Root;
use tempfile::TempDir;

/// One end of a pair of queues.
pub struct MemoryWire {
    send: Option<Sender<Bytes>>,
    receive: Receiver<Bytes>,
}

pub fn wires() -> (MemoryWire, MemoryWire) {
    let (to_replica, from_origin) = channel();
    let (to_origin, from_replica) = channel();
    (
        MemoryWire { send: Some(to_replica), receive: from_replica },
        MemoryWire { send: Some(to_origin), receive: from_origin },
    )
}

impl Wire for MemoryWire {
    type Error = Infallible;

    fn send(&mut self, bytes: Bytes) -> Result<(), Infallible> {
        // A peer that is gone takes nothing more, and says so by closing.
        let _ = self.send.as_ref().map(|send| send.send(bytes));
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Infallible> {
        Ok(self.receive.recv().ok())
    }
}

pub type Outcome = Result<Summary, ExchangeError<Error, Infallible>>;

/// Joins an origin and a replica, the origin on a thread of its own.
pub fn join<O: OriginPages<Error = Error> + Send, R: ReplicaPages<Error = Error>>(
    origin: &mut O,
    replica: &mut R,
    version: u8,
) -> (Outcome, Outcome) {
    let (mut origin_wire, mut replica_wire) = wires();
    std::thread::scope(|scope| {
        let origin = scope.spawn(move || {
            let options = OriginOptions { version_max: version, ..OriginOptions::default() };
            let outcome = run_origin(options, origin, &mut origin_wire, &mut Quiet);
            drop(origin_wire);
            outcome
        });
        let options = ReplicaOptions::default();
        let replica = run_replica(options, replica, &mut replica_wire, &mut Quiet);
        drop(replica_wire);
        (origin.join().unwrap(), replica)
    })
}

/// A folder with databases and what is remembered of them.
pub struct Bench {
    pub dir: TempDir,
}

/// What is remembered of a file between exchanges.
#[derive(Default, Clone)]
pub struct Memory {
    pub hashes: Option<PathBuf>,
    pub agreed: Option<Agreed>,
}

impl Memory {
    pub fn base(&self) -> Option<Base> {
        self.agreed.as_ref().map(|agreed| Base { version: None, root: agreed.root })
    }
}

impl Bench {
    pub fn new() -> Bench {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    /// On a file system in memory, where there is one: for large files.
    pub fn in_memory() -> Bench {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Bench { dir: dir.unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn memory(&self, name: &str) -> Memory {
        Memory { hashes: Some(self.path(name)), agreed: None }
    }

    pub fn origin(&self, path: &Path, memory: &Memory) -> Result<LiveOrigin, Error> {
        let options = LiveOriginOptions {
            hashes: memory.hashes.clone(),
            known: memory.agreed.clone(),
            base: memory.base(),
            push_id: None,
            scan: false,
            temp_dir: self.dir.path().to_path_buf(),
        };
        LiveOrigin::open(path, options)
    }

    pub fn replica(&self, path: &Path, memory: &Memory, overwrite: Overwrite) -> Result<FileReplica, Error> {
        let options = FileReplicaOptions {
            hashes: memory.hashes.clone(),
            known: memory.agreed.clone(),
            base: memory.base(),
            overwrite,
            temp_dir: None,
        };
        FileReplica::open(path, options)
    }

    /// A whole exchange that succeeds; both sides remember it where version 3 was spoken.
    pub fn sync(&self, from: &Path, to: &Path, version: u8, of: &mut Memory, at: &mut Memory) -> Summary {
        let mut origin = self.origin(from, of).unwrap();
        let overwrite = if version < 3 { Overwrite::Force } else { Overwrite::Never };
        let mut replica = self.replica(to, at, overwrite).unwrap();
        let (sent, taken) = join(&mut origin, &mut replica, version);
        taken.unwrap();
        let sent = sent.unwrap();
        if version >= 3 {
            of.agreed = Some(origin.agreed().unwrap());
            at.agreed = Some(replica.agreed().unwrap());
            assert_eq!(of.base(), at.base());
        }
        sent
    }

    /// An exchange without memory on either side that overwrites what there is.
    pub fn copy(&self, from: &Path, to: &Path, version: u8) -> Summary {
        let mut origin = self.origin(from, &Memory::default()).unwrap();
        let mut replica = self.replica(to, &Memory::default(), Overwrite::Force).unwrap();
        let (sent, taken) = join(&mut origin, &mut replica, version);
        taken.unwrap();
        sent.unwrap()
    }
}

/// Makes a database with some tables and rows.
pub fn create(path: &Path, pragmas: &str, rows: u32) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(pragmas).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
             CREATE INDEX t_name ON t (name);",
        )
        .unwrap();
    insert(&connection, rows);
    connection
}

pub fn insert(connection: &Connection, rows: u32) {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
               INSERT INTO t (name, data) SELECT 'name ' || i || ' ' || abs(random() % 100000), randomblob(i % 700) FROM n";
    if rows > 0 {
        connection.execute(sql, [rows]).unwrap();
    }
}

/// All of a database in words: schema and rows, as `.dump` would have them.
pub fn dump(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    connection
        .query_row("PRAGMA integrity_check", [], |row| {
            assert_eq!(row.get::<_, String>(0)?, "ok", "{}", path.display());
            Ok(())
        })
        .unwrap();
    dump_of(&connection)
}

pub fn dump_of(connection: &Connection) -> Vec<String> {
    let mut all =
        query(connection, "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY name");
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name";
    let tables = query(connection, sql);
    for table in tables {
        let table =
            table.trim_start_matches("Text(").trim_matches(|c| c == '"' || c == ')' || c == '[' || c == ']');
        let table = table.trim_start_matches("Text(\"");
        all.push(format!("table {table}"));
        all.extend(query(connection, &format!("SELECT * FROM \"{table}\"")));
    }
    all
}

pub fn query(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values: Vec<String> = (0..columns)
            .map(|column| format!("{:?}", row.get::<_, rusqlite::types::Value>(column).unwrap()))
            .collect();
        Ok(values.join("|"))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// What the committed content of a file hashes to, computed from all its pages.
pub fn root_of(path: &Path) -> Root {
    use sqlrsync_protocol::canonical::make_canonical;
    use sqlrsync_protocol::hash::PageHash;
    use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};
    use sqlrsync_protocol::tree::MemoryTree;
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage").unwrap();
    let pages: Vec<Vec<u8>> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let hashes: Vec<PageHash> = pages
        .iter()
        .enumerate()
        .map(|(index, page)| {
            let mut page = page.clone();
            if index == 0 {
                make_canonical(&mut page);
            }
            PageHash::of(&page)
        })
        .collect();
    let page_size = PageSize::from_bytes(pages[0].len() as u32).unwrap();
    let geometry = Geometry { page_size, page_count: PageCount(pages.len() as u32) };
    MemoryTree::new(geometry, &hashes).unwrap().root()
}

/// Takes an image of `from` as far as the end, which is left to the caller.
pub fn taken(bench: &Bench, from: &Path, to: &Path, overwrite: Overwrite) -> (LiveOrigin, FileReplica) {
    let mut origin = bench.origin(from, &Memory::default()).unwrap();
    let mut replica = bench.replica(to, &Memory::default(), overwrite).unwrap();
    replica.begin(origin.geometry().unwrap(), 3).unwrap();
    assert!(replica.accept(Ground::Nothing { recognised: false }, None).unwrap());
    origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks }).unwrap();
    while let Some(block) = origin.next_block().unwrap() {
        replica.take_block(block).unwrap();
    }
    (origin, replica)
}

/// The names of what is in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Tells threads to end when it is dropped, also by a test that fails: their scope waits for them.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
