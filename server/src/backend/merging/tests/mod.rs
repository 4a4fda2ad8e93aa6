//! Servers without sockets, and what merging does when it is cut, cancelled, or raced.

mod audited;
mod cancelled;
mod counted;
mod races;
mod too_long;
mod too_much;

use std::sync::Arc;

use sqlrsync_protocol::conversation::{OriginOptions, Quiet, ReplicaOptions, run_origin, run_replica};
use sqlrsync_protocol::exchange::{Base, Committed};
use sqlrsync_protocol::memory::{Content, MemoryOrigin, wires};
use sqlrsync_protocol::page::{ConflictNumber, PageSize};
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{Manifest, Replica};

use crate::backend::bench::Bench;
use crate::backend::{ClientSays, ConflictInfo, Keep, Settlement};
use crate::refused::Refused;

impl Bench {
    fn replica(&self) -> Replica {
        self.backend.repository_replica(&self.record().unwrap()).unwrap()
    }

    /// Settles conflict 1 for one side, `seen` being the version that was looked at. Returns the version made.
    fn settle(&self, keep: Keep, seen: Option<u64>) -> Result<u64, Refused> {
        let wanted = Settlement { keep: Some(keep), latest: seen, ..Settlement::default() };
        let settled = self.backend.settle(&self.caller(), &name(), one(), &wanted, None, &Arc::default());
        settled.map(|version| version.get())
    }

    /// Conflict 1 as it is shown.
    fn shown(&self) -> ConflictInfo {
        self.backend.conflict(&self.caller(), &name(), one(), &Arc::default()).unwrap()
    }

    /// Pushes; `base`: what it was made from.
    fn push(&self, client: &str, content: &Content, base: Option<&Content>) -> Committed {
        let says = ClientSays { client_id: client.to_owned(), ..ClientSays::default() };
        self.push_saying(says, content, base).unwrap()
    }

    fn push_saying(
        &self,
        says: ClientSays,
        content: &Content,
        base: Option<&Content>,
    ) -> Result<Committed, String> {
        let plan = self.backend.plan_push(self.caller(), Some(name()), says).unwrap();
        let wait = std::time::Duration::from_secs(60);
        let turn = self.runtime.block_on(self.backend.begin_push(&plan, None, wait));
        let mut pages = self.backend.push_pages(&plan, String::new(), turn);
        let mut origin = MemoryOrigin::new(content.clone());
        if let Some(base) = base {
            origin = origin.with_base(Base { version: None, root: base.root() }, base.clone());
        }
        let (mut near, far) = wires(64 << 10, 1 << 20);
        std::thread::scope(move |scope| {
            // Each end goes with its side, also where that panics: the other one waits for it.
            let mut far = far;
            scope.spawn(move || run_origin(OriginOptions::default(), &mut origin, &mut near, &mut Quiet));
            let pushed = run_replica(ReplicaOptions::default(), &mut pages, &mut far, &mut Quiet);
            pushed.map(|done| done.committed).map_err(|error| error.to_string())
        })
    }

    /// Opens conflict 1 with two contents of row 1, made from version 1. The latest version is theirs.
    fn conflict(&self) -> [Content; 2] {
        let first =
            with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, by TEXT); INSERT INTO t VALUES (1, '')");
        self.push("first", &first, None);
        let changed = |sql| with_sql(Some(&first), sql);
        let theirs = changed("UPDATE t SET by = 'a'; INSERT INTO t VALUES (2, 'a')");
        self.push("a", &theirs, Some(&first));
        let mine = changed("UPDATE t SET by = 'b'; INSERT INTO t VALUES (3, 'b')");
        assert_eq!(self.push("b", &mine, Some(&first)).conflict, Some(one()));
        [theirs, mine]
    }

    fn latest(&self) -> Manifest {
        self.replica().latest().unwrap().unwrap()
    }
}

fn name() -> RemoteName {
    "team/app.db".parse().unwrap()
}

fn one() -> ConflictNumber {
    ConflictNumber::new(1).unwrap()
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
