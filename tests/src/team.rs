//! Several people with a copy of one database each, and a server between them: what they write, what they
//! push, and what became of it.
//!
//! The database has a table with a rowid of its own (`customers`), one by a composite key without a rowid
//! (`orders`), and one by a text (`notes`), whose rowid is nobody's.

use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use crate::client::{Client, Outcome};
use crate::sample;
use crate::server::Server;

/// The replica of all of them.
pub const REMOTE: &str = "team/app.db";

/// Their database, on every machine.
pub const FILE: &str = "app.db";

/// Customers that there are from the start, numbered from 1.
pub const CUSTOMERS: u32 = 200;

/// Makes the database as all of them begin with it.
pub fn create(path: &Path) {
    let database = Connection::open(path).expect("a database can be made");
    database
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
             CREATE INDEX customers_by_city ON customers(city, name);
             CREATE TABLE orders(customer INTEGER REFERENCES customers(id), number INTEGER, item TEXT,
                                 PRIMARY KEY(customer, number)) WITHOUT ROWID;
             CREATE TABLE notes(key TEXT PRIMARY KEY, text TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CUSTOMERS})
             INSERT INTO customers SELECT i, 'customer ' || i, 'city ' || (i % 7) FROM n;
             INSERT INTO orders SELECT id, 1, 'item of ' || id FROM customers;
             INSERT INTO notes SELECT 'note ' || id, 'text ' || id FROM customers;"
        ))
        .expect("a schema can be made");
}

/// A server, and people on machines of their own.
#[derive(Debug)]
pub struct Team {
    /// The server.
    pub server: Server,
    /// The machines; the first one has made version 1 and the others have pulled it.
    pub machines: Vec<Client>,
}

impl Team {
    /// So many machines with version 1.
    pub fn of(count: usize) -> Team {
        Team::on(Server::start(), count)
    }

    /// The same on this server.
    pub fn on(server: Server, count: usize) -> Team {
        let machines: Vec<Client> = (0..count).map(|_| Client::admin(&server)).collect();
        create(&machines[0].path(FILE));
        machines[0].run(&[FILE, REMOTE]).ok();
        for machine in &machines[1..] {
            machine.run(&[REMOTE]).ok();
        }
        Team { server, machines }
    }

    /// One more machine, with an admin key and nothing on it.
    pub fn stranger(&self) -> Client {
        Client::admin(&self.server)
    }

    /// The latest version, in a file of its own on a machine of its own.
    pub fn latest(&self) -> Copy {
        let client = self.stranger();
        client.run(&[REMOTE, "latest.db"]).ok();
        Copy { client, name: "latest.db" }
    }

    /// How many versions there are; they are numbered without a gap.
    pub fn versions(&self) -> u64 {
        let log = self.stranger().run(&["log", REMOTE, "--json"]).ok();
        let line = |line: &str| serde_json::from_str::<Value>(line).expect("an object")["version"].as_u64();
        let numbers: Vec<u64> = log.stdout.lines().filter_map(line).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).rev().collect::<Vec<_>>(), "no gap");
        numbers.len() as u64
    }

    /// The conflicts that wait.
    pub fn conflicts(&self) -> Vec<Value> {
        objects(&self.stranger().run(&["conflicts", REMOTE, "--json"]).ok())
    }

    /// Sets the policy of the replica: `["latest-wins"]`, `["merge", "--cells"]`.
    pub fn policy(&self, words: &[&str]) {
        let output = self.server.command(&[&["replica", "policy", REMOTE], words].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A file with a version in it.
#[derive(Debug)]
pub struct Copy {
    client: Client,
    name: &'static str,
}

impl Copy {
    /// One text from it.
    #[track_caller]
    pub fn text(&self, sql: &str) -> String {
        sample::text(&self.client.path(self.name), sql)
    }

    /// One number from it.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        sample::number(&self.client.path(self.name), sql)
    }

    /// Rows, index and constraints are sound.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert_sound(&self.client.path(self.name));
    }
}

/// What SQLite's own checks say of a database.
#[track_caller]
pub fn assert_sound(path: &Path) {
    assert_eq!(sample::text(path, "PRAGMA integrity_check"), "ok", "{}", path.display());
    let violations = sample::number(path, "SELECT count(*) FROM pragma_foreign_key_check");
    assert_eq!(violations, 0, "{}", path.display());
}

/// Changes the database on a machine.
#[track_caller]
pub fn write(client: &Client, sql: &str) {
    sample::execute(&client.path(FILE), sql);
}

/// Pushes, and gives the exit code and what was said.
pub fn try_push(client: &Client, flags: &[&str]) -> (i32, Value) {
    let outcome = client.run(&[&[FILE, REMOTE, "--json"], flags].concat());
    let said = if outcome.stdout.is_empty() { Value::Null } else { outcome.json() };
    (outcome.code, said)
}

/// Pushes and must come to this.
#[track_caller]
pub fn push(client: &Client, wanted: &str) -> Value {
    push_with(client, &[], wanted)
}

/// The same with more flags.
#[track_caller]
pub fn push_with(client: &Client, flags: &[&str], wanted: &str) -> Value {
    let outcome = client.run(&[&[FILE, REMOTE, "--json"], flags].concat());
    let code = if wanted == "conflict" { 3 } else { 0 };
    assert_eq!(outcome.code, code, "{} {}", outcome.stdout, outcome.stderr);
    let said = outcome.json();
    assert_eq!(said["outcome"], wanted, "{said}");
    said
}

/// Pulls the latest version into the database.
#[track_caller]
pub fn pull(client: &Client) {
    client.run(&[REMOTE]).ok();
}

/// The objects of a command with `--json`, one a line.
#[track_caller]
pub fn objects(outcome: &Outcome) -> Vec<Value> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    outcome.stdout.lines().map(object).collect()
}

/// The name of a customer on a machine.
#[track_caller]
pub fn name(client: &Client, id: u32) -> String {
    sample::text(&client.path(FILE), &format!("SELECT name FROM customers WHERE id = {id}"))
}
