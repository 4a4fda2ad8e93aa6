//! A server in this process, keys for it, databases, and plain HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::memory::Content;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_server::catalog::{Catalog, NewReplica, Visibility};
use sqlrsync_server::new_key::{self, Wish};
use sqlrsync_server::server::{Config, Server};
use sqlrsync_server::settings::Settings;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A server that serves a folder of its own.
pub struct TestServer {
    pub folder: TempDir,
    pub address: SocketAddr,
    pub admin: String,
    server: Option<Server>,
    runtime: Option<Runtime>,
}

/// How long anything that must happen may take. It is no measure of speed: on the slowest machine only what hangs
/// takes as long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The settings of tests: any free port.
pub fn settings() -> Settings {
    Settings { listen: "127.0.0.1:0".to_owned(), ..Settings::default() }
}

impl TestServer {
    pub fn start() -> TestServer {
        TestServer::with(settings())
    }

    pub fn with(settings: Settings) -> TestServer {
        TestServer::on(tempfile::tempdir().unwrap(), settings)
    }

    /// On a folder that may have been served before; then there is no admin key.
    pub fn on(folder: TempDir, settings: Settings) -> TestServer {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let config = Config { data: folder.path().join("data"), settings };
        let mut server = runtime.block_on(Server::start(config)).unwrap();
        let admin = server.take_first_key().map(|first| first.key.secret()).unwrap_or_default();
        TestServer { folder, address: server.address(), admin, server: Some(server), runtime: Some(runtime) }
    }

    /// What the server does without HTTP.
    pub fn backend(&self) -> &sqlrsync_server::backend::Backend {
        self.server.as_ref().unwrap().backend()
    }

    /// Stops the server in good order, and says how long that took.
    pub fn stop(&mut self) -> Duration {
        let started = Instant::now();
        let server = self.server.take().unwrap();
        let stopped = async { tokio::time::timeout(PATIENCE, server.shutdown()).await };
        self.runtime.as_ref().unwrap().block_on(stopped).expect("the server stops");
        started.elapsed()
    }

    /// Stops it and hands back its folder.
    pub fn into_folder(mut self) -> TempDir {
        self.stop();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// A second connection to the catalog, as `key create` has one.
    pub fn catalog(&self) -> Catalog {
        Catalog::open(&self.folder.path().join("data/catalog.db")).unwrap()
    }

    /// A key for a namespace.
    pub fn key(&self, kind: Kind, namespace: &str) -> String {
        let catalog = self.catalog();
        catalog.create_namespace(namespace).unwrap();
        let wish = Wish { kind, namespace, replica: None, label: "test", parent: None };
        new_key::create(&catalog, &wish).unwrap().1.secret()
    }

    /// A key for a replica of the namespace `team`, which is registered where it is not there.
    pub fn replica_key(&self, kind: Kind, path: &str) -> String {
        let catalog = self.catalog();
        let id = sqlrsync_repository::ReplicaId::random().unwrap().to_string();
        let new = NewReplica {
            id: &id,
            namespace: "team",
            path,
            visibility: Visibility::Private,
            client_id: "",
            host: "",
            local_path: "",
        };
        let record = catalog.create_replica(&new).unwrap().into_record();
        let wish = Wish { kind, namespace: "team", replica: Some(&record.id), label: "test", parent: None };
        new_key::create(&catalog, &wish).unwrap().1.secret()
    }

    /// Revokes a key by its text.
    pub fn revoke(&self, key: &str) {
        let catalog = self.catalog();
        let key: sqlrsync_protocol::key::Key = key.parse().unwrap();
        let record = catalog.key_by_hash(&key.hash()).unwrap().unwrap();
        catalog.revoke_key(record.id, false).unwrap();
    }

    /// `GET path`, with these headers: status, head and body.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        self.ask("GET", path, headers, "")
    }

    /// `POST path` with a body: status, head and body.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        let len = body.len().to_string();
        self.ask("POST", path, &[headers, &[("Content-Length", &len)]].concat(), body)
    }

    /// A request, as it is said: status, head and body of the answer.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = self.connect();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // A server that refuses before it has read the body may have closed.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    /// As [`TestServer::get`], with what a WebSocket asks with.
    pub fn get_upgrade(&self, path: &str, key: &str) -> (u16, String, String) {
        let mut headers = vec![
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        if !key.is_empty() {
            headers.push(("Authorization", key));
        }
        let mut stream = self.connect();
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut chunk).unwrap() {
                0 => break,
                len => answer.extend_from_slice(&chunk[..len]),
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    /// A raw connection whose reads and writes give up in the end.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.server.is_some() && !std::thread::panicking() {
            self.stop();
        }
        drop(self.server.take());
        // Without a limit it would wait for what the server has begun, also where that hangs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

/// A database of rows, made by SQLite; `seed` makes its content differ.
pub fn database(page_size: u32, rows: u32, seed: u32) -> Content {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "page_size", page_size).unwrap();
    connection.execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY, text TEXT, value BLOB)").unwrap();
    connection
        .execute(
            "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO events SELECT i, printf('row %d of %d', i, ?2), zeroblob(i % 200) FROM n",
            [rows, seed],
        )
        .unwrap();
    drop(connection);
    Content::from_file(PageSize::from_bytes(page_size).unwrap(), &std::fs::read(path).unwrap())
}

/// The same database with one row changed.
pub fn with_a_row_changed(content: &Content, seed: u32) -> Content {
    changed(content, &format!("UPDATE events SET text = 'seed {seed}' WHERE id = 1"))
}

/// The same database after some SQL.
pub fn changed(content: &Content, sql: &str) -> Content {
    opened(content, |connection| connection.execute_batch(sql).unwrap())
}

/// What a query of one text column gives.
pub fn rows(content: &Content, sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    opened(content, |connection| {
        let mut statement = connection.prepare(sql).unwrap();
        found = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    });
    found
}

/// Opens a content as a file, and gives back what it is then.
fn opened(content: &Content, use_it: impl FnOnce(&rusqlite::Connection)) -> Content {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("opened.db");
    let bytes: Vec<u8> = content.numbers().flat_map(|number| content.page(number).into_owned()).collect();
    std::fs::write(&path, bytes).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    use_it(&connection);
    drop(connection);
    Content::from_file(content.geometry().page_size, &std::fs::read(path).unwrap())
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
