//! Two servers on one repository, and pushes for one version number: one is first, and the other merges on top.

use std::sync::{Arc, Barrier};

use sqlrsync_protocol::conversation::{OriginOptions, Quiet, ReplicaOptions, run_origin, run_replica};
use sqlrsync_protocol::exchange::{Base, Committed};
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::memory::{Content, MemoryOrigin, wires};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::Repository;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::backend::{Activity, Backend, ClientSays};
use crate::catalog::{ActivityTable, Catalog};
use crate::new_key::{self, Wish};
use crate::settings::Settings;

/// A server without sockets; several can share a folder.
struct Bench {
    runtime: Runtime,
    backend: Arc<Backend>,
    key: sqlrsync_protocol::key::Key,
}

impl Bench {
    fn on(folder: &TempDir) -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let path = folder.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        catalog.create_namespace("team").unwrap();
        let wish =
            Wish { kind: Kind::AccountAdmin, namespace: "team", replica: None, label: "admin", parent: None };
        let (_, key) = new_key::create(&catalog, &wish).unwrap();
        let repository = Repository::local(folder.path(), runtime.handle().clone()).unwrap();
        let activity = Activity::new(ActivityTable::open(&path).unwrap());
        let backend = Backend::new(catalog, repository, activity, Arc::default(), &Settings::default());
        Bench { runtime, backend: Arc::new(backend), key }
    }

    fn push(&self, client: &str, content: &Content, base: Option<(Base, Content)>) -> Committed {
        let caller = self.backend.authenticate(Some(&self.key)).unwrap();
        let says = ClientSays { client_id: client.to_owned(), ..ClientSays::default() };
        let plan = self.backend.plan_push(caller, Some("team/app.db".parse().unwrap()), says).unwrap();
        let wait = std::time::Duration::from_secs(60);
        let turn = self.runtime.block_on(self.backend.begin_push(&plan, None, wait));
        let mut pages = self.backend.push_pages(&plan, String::new(), turn);
        let mut origin = MemoryOrigin::new(content.clone());
        if let Some((base, content)) = base {
            origin = origin.with_base(base, content);
        }
        let (mut near, mut far) = wires(64 << 10, 1 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| run_origin(OriginOptions::default(), &mut origin, &mut near, &mut Quiet).unwrap());
            run_replica(ReplicaOptions::default(), &mut pages, &mut far, &mut Quiet).unwrap().committed
        })
    }
}

fn with_sql(content: Option<&Content>, sql: &str) -> Content {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.db");
    if let Some(content) = content {
        let bytes: Vec<u8> = content.numbers().flat_map(|number| content.page(number).into_owned()).collect();
        std::fs::write(&path, bytes).unwrap();
    }
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    drop(connection);
    Content::from_file(PageSize::from_bytes(4096).unwrap(), &std::fs::read(path).unwrap())
}

#[test]
fn of_two_servers_that_push_for_one_number_one_is_first_and_the_other_merges_on_top() {
    const ROUNDS: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let servers = [Bench::on(&folder), Bench::on(&folder)];
    let first =
        with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, by TEXT); INSERT INTO t VALUES (0, '')");
    servers[0].push("first", &first, None);
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        for (number, server) in servers.iter().enumerate() {
            let (together, first) = (&together, &first);
            scope.spawn(move || {
                let mut held = first.clone();
                for round in 0..ROUNDS {
                    let id = 10 * round + number as u64 + 1;
                    let next = with_sql(Some(&held), &format!("INSERT INTO t VALUES ({id}, '{number}')"));
                    let base = Base { version: None, root: held.root() };
                    together.wait();
                    let committed = server.push(&number.to_string(), &next, Some((base, held.clone())));
                    assert_eq!(committed.conflict, None);
                    held = next;
                }
            });
        }
    });
    let record = servers[0].backend.catalog.replica("team", "app.db").unwrap().unwrap();
    let replica = servers[0].backend.repository_replica(&record).unwrap();
    let latest = replica.latest().unwrap().unwrap();
    assert_eq!(latest.number.get(), 1 + 2 * ROUNDS, "each push made one version");
    let opened = super::Versions::new(&replica, &servers[0].backend.maps, super::versions::MERGE_TIME)
        .open(&latest)
        .unwrap();
    let count = "SELECT count(*) FROM t";
    let rows: i64 = opened.database.connection().query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(rows.unsigned_abs(), 1 + 2 * ROUNDS, "no row was lost");
}
