//! The audit log has one entry for what happened and none for what did not, wherever the server is stopped.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use sqlrsync_protocol::memory::Content;
use tempfile::TempDir;

use super::{Bench, name, one, with_sql};
use crate::backend::{ClientSays, Keep, Settlement};
use crate::catalog::{Actor, AuditEntry, Intent, KeyId, Pending, Policy, Rule, Subject};

/// What of an entry is the same, however it came into the log.
type Said = (String, Option<u64>, Option<u64>, bool, String);

/// A server that may be stopped after each step, before what it did is in the audit log.
struct Stoppable<'f> {
    folder: &'f Path,
    bench: Bench,
    stopped: bool,
}

impl Stoppable<'_> {
    fn step<T>(&self, step: impl FnOnce(&Bench) -> T) -> T {
        let catalog = Connection::open(self.folder.join("catalog.db")).unwrap();
        if self.stopped {
            // As at a start.
            self.bench.backend.conclude_pending(None).unwrap();
            let stop =
                "CREATE TRIGGER stopped BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'stopped'); END";
            catalog.execute_batch(stop).unwrap();
        }
        let done = step(&self.bench);
        catalog.execute_batch("DROP TRIGGER IF EXISTS stopped").unwrap();
        done
    }
}

fn changed(content: &Content, sql: &str) -> Content {
    with_sql(Some(content), sql)
}

/// Everything that a push or a settlement may come to; gives what the audit log says of it.
fn everything(folder: &TempDir, stopped: bool) -> Vec<Said> {
    let server = Stoppable { folder: folder.path(), bench: Bench::on(folder), stopped };
    let first =
        with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, by TEXT); INSERT INTO t VALUES (1, '')");
    let theirs = changed(&first, "UPDATE t SET by = 'a'");
    let mine = changed(&first, "UPDATE t SET by = 'b'");
    server.step(|bench| bench.push("first", &first, None));
    server.step(|bench| bench.push("a", &theirs, Some(&first)));
    let merges = changed(&first, "INSERT INTO t VALUES (2, 'm')");
    server.step(|bench| assert!(bench.push("m", &merges, Some(&first)).merged));
    server.step(|bench| assert_eq!(bench.push("b", &mine, Some(&first)).conflict, Some(one())));
    let more = changed(&mine, "INSERT INTO t VALUES (3, 'b')");
    server.step(|bench| assert_eq!(bench.push("b", &more, Some(&mine)).conflict, Some(one())));
    server.step(|bench| {
        let wanted = Settlement { keep: Some(Keep::Mine), ..Settlement::default() };
        bench.backend.settle(&bench.caller(), &name(), one(), &wanted, None, &Arc::default()).unwrap();
    });
    // A conflict that its pusher ends: what overlapped is taken back.
    let other = changed(&first, "UPDATE t SET by = 'c'");
    server.step(|bench| assert!(bench.push("c", &other, Some(&first)).conflict.is_some()));
    let gone = changed(&other, "UPDATE t SET by = ''; INSERT INTO t VALUES (4, 'c')");
    server.step(|bench| assert!(bench.push("c", &gone, Some(&other)).merged));
    let forced = ClientSays { client_id: "f".to_owned(), force: true, ..ClientSays::default() };
    let over = changed(&first, "DELETE FROM t");
    server.step(|bench| assert!(bench.push_saying(forced, &over, Some(&first)).unwrap().overtook));
    let rule = |rule| {
        server.bench.backend.conclude_pending(None).unwrap();
        let policy = Policy { rule, ..Policy::default() };
        server.bench.backend.catalog.set_policy("team", "app.db", policy, &Actor::operator()).unwrap();
    };
    rule(Rule::LatestWins);
    let wins = changed(&first, "INSERT INTO t VALUES (5, 'l')");
    server.step(|bench| assert!(bench.push("l", &wins, Some(&first)).overtook));
    rule(Rule::Reject);
    let late = ClientSays { client_id: "r".to_owned(), ..ClientSays::default() };
    server.bench.push_saying(late, &changed(&first, "DROP TABLE t"), Some(&first)).unwrap_err();
    // It starts again, twice.
    drop(server);
    for _ in 0..2 {
        Bench::on(folder).backend.conclude_pending(None).unwrap();
    }
    entries(folder).into_iter().map(said).collect()
}

fn entries(folder: &TempDir) -> Vec<AuditEntry> {
    let bench = Bench::on(folder);
    let mut entries = bench.backend.catalog.audit_of(&bench.record().unwrap().id, None, 100).unwrap();
    entries.reverse();
    entries
}

fn said(entry: AuditEntry) -> Said {
    (entry.action, entry.version, entry.conflict, entry.key.is_some(), entry.client_id)
}

#[test]
fn a_server_that_is_stopped_before_it_wrote_an_entry_writes_it_once_and_the_same() {
    let (calm, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = everything(&calm, false);
    let actions: Vec<_> = expected.iter().map(|said| said.0.as_str()).collect();
    assert_eq!(
        actions,
        [
            "candidate-kept",
            "merged",
            "candidate-kept",
            "conflict-opened",
            "candidate-kept",
            "conflict-replaced",
            "conflict-settled",
            "candidate-kept",
            "conflict-opened",
            "candidate-kept",
            "merged",
            "overtook",
            "policy-changed",
            "overtook",
            "policy-changed",
            "push-rejected",
        ]
    );
    assert_eq!(everything(&cut, true), expected);
}

#[test]
fn what_was_announced_and_not_done_gets_no_entry() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    bench.conflict();
    let before = entries(&folder);
    let record = bench.record().unwrap();
    for (what, candidate) in [
        (Intent::Merge, Some([7; 16])),
        (Intent::Merge, None),
        (Intent::Overtake, None),
        (Intent::Settle, Some(bench.replica().conflict(one()).unwrap().unwrap().overlap.candidate.0)),
    ] {
        let pending = Pending {
            what,
            actor: Actor { key: Some(KeyId(1)), ..Actor::default() },
            subject: Subject::replica(&record).conflict(1),
            latest: 0,
            candidate,
            kept: false,
            // A content that is there, and was pushed at another time.
            root: bench.latest().root.to_string(),
            pushed: "2026-01-01T00:00:00Z".to_owned(),
            details: serde_json::json!({}),
        };
        bench.backend.catalog.announce(&pending).unwrap();
    }
    bench.backend.conclude_pending(None).unwrap();
    assert_eq!(entries(&folder), before);
    assert_eq!(bench.backend.catalog.next_pending(None, None).unwrap(), None);
}

#[test]
fn nothing_is_done_that_cannot_be_announced() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    let [theirs, mine] = bench.conflict();
    let catalog = Connection::open(folder.path().join("catalog.db")).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON audit_pending BEGIN SELECT RAISE(ABORT, 'full'); END";
    catalog.execute_batch(full).unwrap();
    let before = (bench.latest().number, bench.replica().candidates().unwrap());
    let wanted = Settlement { keep: Some(Keep::Mine), ..Settlement::default() };
    bench.backend.settle(&bench.caller(), &name(), one(), &wanted, None, &Arc::default()).unwrap_err();
    let more = changed(&mine, "INSERT INTO t VALUES (7, '')");
    bench.push_saying(ClientSays::default(), &more, Some(&mine)).unwrap_err();
    let forced = ClientSays { force: true, ..ClientSays::default() };
    bench.push_saying(forced, &more, Some(&mine)).unwrap_err();
    assert_eq!((bench.latest().number, bench.replica().candidates().unwrap()), before);
    // A push that is made from the latest version is in no need of an entry.
    bench.push("a", &changed(&theirs, "INSERT INTO t VALUES (8, '')"), Some(&theirs));
}
