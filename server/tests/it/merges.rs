//! Pushes that were not made from the latest version: merged, kept as conflicts, refused, or on top.

use serde_json::{Value, json};
use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::{Base, Committed, Refusal};
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::memory::{Content, MemoryOrigin};
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::public_client::{Ask, Done, Failed, pull, push_from};
use crate::support::{TestServer, changed, database, rows};

const NAME: &str = "team/app.db";

fn version(number: u64) -> Option<VersionNumber> {
    VersionNumber::new(number)
}

/// A client of our own, which knows what it last agreed on.
struct Own<'s> {
    server: &'s TestServer,
    key: String,
    name: &'static str,
    base: Option<(Base, Content)>,
    content: Content,
    force: bool,
}

impl<'s> Own<'s> {
    fn first(server: &'s TestServer, name: &'static str, content: Content) -> Own<'s> {
        Own { server, key: server.admin.clone(), name, base: None, content, force: false }
    }

    /// Another client that has pulled what this one has pushed.
    fn second(&self, name: &'static str) -> Own<'s> {
        let (base, content, key) = (self.base.clone(), self.content.clone(), self.key.clone());
        Own { server: self.server, key, name, base, content, force: false }
    }

    fn sql(&mut self, sql: &str) -> &mut Self {
        self.content = changed(&self.content, sql);
        self
    }

    fn try_push(&mut self) -> Result<Done, Failed> {
        let ask = Ask::new(&self.key, 3)
            .header("x-clientid", self.name)
            .header("x-localhostname", self.name)
            .header("x-localabsolutepath", "/app.db")
            .header("x-force", if self.force { "1" } else { "0" });
        let mut origin = MemoryOrigin::new(self.content.clone());
        if let Some((base, content)) = self.base.clone() {
            origin = origin.with_base(base, content);
        }
        let done = push_from(self.server, NAME, &ask, origin)?;
        let Committed { version, merged, conflict, .. } = done.summary.committed;
        // After a merge or a conflict it is what was sent, and never the merge.
        let as_sent = !merged && conflict.is_none();
        let base = Base { version: version.filter(|_| as_sent), root: self.content.root() };
        self.base = Some((base, self.content.clone()));
        Ok(done)
    }

    fn push(&mut self) -> Committed {
        self.try_push().unwrap().summary.committed
    }

    fn pull(&mut self) {
        let (content, done) = pull(self.server, NAME, &Ask::new(&self.key, 3), None).unwrap();
        let base = Base { version: done.config.committed_version, root: content.root() };
        self.base = Some((base, content.clone()));
        self.content = content;
    }
}

fn latest(server: &TestServer) -> Content {
    pull(server, NAME, &Ask::new(&server.admin, 3), None).unwrap().0
}

fn texts(content: &Content) -> Vec<String> {
    rows(content, "SELECT id || '=' || text FROM events ORDER BY id")
}

#[test]
fn two_pushes_that_do_not_overlap_become_one_merged_version() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 3, 1));
    assert_eq!(a.push().version, version(1));
    let mut b = a.second("b");
    a.sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
    let done = b.sql("UPDATE events SET text = 'by b' WHERE id = 3").try_push().unwrap();
    let committed = done.summary.committed;
    assert_eq!((committed.version, committed.merged, committed.conflict), (version(3), true, None));
    assert_eq!(done.messages, ["merged as version 3 of team/app.db, with what others pushed meanwhile"]);
    assert_eq!(texts(&latest(&server)), ["1=by a", "2=row 2 of 1", "3=by b"]);
}
