//! Pushes that were not made from the latest version: merged, kept as conflicts, refused, or on top.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};
use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::{Base, Committed, Refusal};
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::memory::{Content, MemoryOrigin};
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};
use sqlrsync_server::settings::Settings;

use crate::public_client::{Ask, Done, Failed, pull, push_from};
use crate::support::{TestServer, changed, database, rows, settings};

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

/// Asks the API: status and JSON, or the text of a refusal.
fn api(server: &TestServer, key: &str, method: &str, what: &str, body: &str) -> (u16, Value) {
    let path = format!("/api/v1/replicas/{NAME}/{what}");
    let len = body.len().to_string();
    let headers = [("Authorization", key), ("Content-Length", len.as_str())];
    let headers = if body.is_empty() { &headers[..1] } else { &headers[..] };
    let (status, head, body) = server.ask(method, &path, headers, body);
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// A body that came in pieces.
fn unchunked(body: &str) -> String {
    let (mut rest, mut whole) = (body, String::new());
    while let Some((len, after)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap();
        whole.push_str(&after[..len]);
        rest = &after[len + 2..];
        if len == 0 {
            break;
        }
    }
    whole
}

fn get(server: &TestServer, what: &str) -> Value {
    let (status, found) = api(server, &server.admin, "GET", what, "");
    assert_eq!(status, 200, "{what}: {found}");
    found
}

/// Settles a conflict as the admin.
pub fn settle(server: &TestServer, number: u64, body: &Value) -> (u16, Value) {
    let what = format!("conflicts/{number}/settle");
    api(server, &server.admin, "POST", &what, &body.to_string())
}

fn conflict(number: u64) -> Option<ConflictNumber> {
    ConflictNumber::new(number)
}

/// Two clients that have changed row 1 both, and one more row each; the second is in conflict 1.
fn overlapping(server: &TestServer) -> (Own<'_>, Own<'_>) {
    let mut a = Own::first(server, "a", database(4096, 5, 1));
    a.push();
    let mut b = a.second("b");
    a.sql("UPDATE events SET text = 'by a' WHERE id IN (1, 2)").push();
    let committed = b.sql("UPDATE events SET text = 'by b' WHERE id IN (1, 3)").push();
    assert_eq!((committed.version, committed.conflict), (None, conflict(1)));
    (a, b)
}

#[test]
fn overlapping_pushes_are_kept_as_a_conflict_that_is_listed_and_settled_row_by_row() {
    let server = TestServer::start();
    let (_a, mut b) = overlapping(&server);
    assert_eq!(texts(&latest(&server))[..3], ["1=by a", "2=by a", "3=row 3 of 1"], "nothing was published");
    let page = get(&server, "conflicts");
    let one = &page["conflicts"][0];
    assert_eq!((&one["id"], &one["state"], &one["by"]), (&1.into(), &"open".into(), &"admin".into()));
    assert_eq!((&one["tables"], &one["rows"]), (&json!(["events"]), &1.into()));
    assert_eq!((&one["host"], &one["base"], &one["theirs"]), (&"b".into(), &1.into(), &2.into()));
    let rows = get(&server, "conflicts/1/rows");
    assert_eq!(rows["rows"].as_array().unwrap().len(), 1);
    let row = &rows["rows"][0];
    assert_eq!((&row["table"], &row["key"]), (&"events".into(), &json!({"id": 1})));
    assert_eq!(row["base"]["text"], "row 1 of 1");
    assert_eq!((&row["theirs"]["text"], &row["mine"]["text"]), (&"by a".into(), &"by b".into()));
    assert_eq!(row["differs"], json!(["text"]));

    // A later push of the same client adds to it, and does not lose what others did.
    let committed = b.sql("UPDATE events SET text = 'by b' WHERE id = 4").push();
    assert_eq!(committed.conflict, conflict(1));
    assert_eq!(get(&server, "conflicts")["conflicts"].as_array().unwrap().len(), 1);

    let chosen = json!({"rows": [{"table": "events", "key": {"id": 1}, "keep": "mine"}], "latest": 2});
    assert_eq!(settle(&server, 1, &chosen), (200, json!({"conflict": 1, "version": 3})));
    assert_eq!(texts(&latest(&server)), ["1=by b", "2=by a", "3=by b", "4=by b", "5=row 5 of 1"]);
    assert_eq!(get(&server, "conflicts")["conflicts"], json!([]));
    let over = &get(&server, "conflicts?all=true")["conflicts"][0];
    assert_eq!(
        (&over["state"], &over["version"], &over["ended_by"]),
        (&"settled".into(), &3.into(), &"admin".into())
    );
    assert_eq!(settle(&server, 1, &chosen).0, 409, "it is over");
    let log = get(&server, "audit");
    let actions: Vec<_> = log["entries"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    let (kept, opened) = ("candidate-kept", "conflict-opened");
    assert_eq!(actions, ["conflict-settled", "conflict-replaced", kept, opened, kept]);

    // What b pushes next is a difference to what it sent.
    let committed = b.sql("UPDATE events SET text = 'b again' WHERE id = 5").push();
    assert_eq!((committed.version, committed.merged), (version(4), true));
    assert_eq!(texts(&latest(&server)), ["1=by b", "2=by a", "3=by b", "4=by b", "5=b again"]);
}

#[test]
fn all_rows_are_settled_for_one_side_and_the_rest_is_merged() {
    for (keep, first) in [("theirs", "1=by a"), ("mine", "1=by b")] {
        let server = TestServer::start();
        overlapping(&server);
        assert_eq!(settle(&server, 1, &json!({"keep": keep})).0, 200, "{keep}");
        assert_eq!(texts(&latest(&server))[..3], [first, "2=by a", "3=by b"]);
    }
}

#[test]
fn rows_that_a_choice_for_all_would_take_are_in_the_conflict_from_the_start() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 5, 1));
    a.sql("CREATE TABLE notes (event INTEGER REFERENCES events(id), n INTEGER, PRIMARY KEY (event, n))")
        .push();
    let mut b = a.second("b");
    a.sql("DELETE FROM events WHERE id = 5").sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
    b.sql("INSERT INTO notes VALUES (5, 7)").sql("UPDATE events SET text = 'by b' WHERE id = 1").push();
    let rows = get(&server, "conflicts/1/rows");
    let rows: Vec<_> =
        rows["rows"].as_array().unwrap().iter().map(|row| (&row["table"], row["why"].is_string())).collect();
    assert_eq!(rows, [(&"events".into(), false), (&"events".into(), true), (&"notes".into(), true)]);
    let chosen = json!([{"table": "events", "key": {"id": 1}, "keep": "mine"}]);
    let (status, text) = settle(&server, 1, &json!({"rows": chosen}));
    let text = text.to_string();
    assert!(status == 409 && text.contains("events:5") && text.contains("notes:5,7"), "{status} {text}");
    assert_eq!(settle(&server, 1, &json!({"rows": chosen, "keep": "theirs"})).0, 200);
    assert_eq!(texts(&latest(&server)), ["1=by b", "2=row 2 of 1", "3=row 3 of 1", "4=row 4 of 1"]);
}

#[test]
fn a_choice_for_all_takes_no_row_that_the_conflict_does_not_show() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 5, 1));
    a.sql("CREATE TABLE notes (event INTEGER REFERENCES events(id), n INTEGER, PRIMARY KEY (event, n))")
        .push();
    let mut b = a.second("b");
    a.sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
    b.sql("INSERT INTO events (id, text) VALUES (50, 'new'); INSERT INTO notes VALUES (50, 7)");
    b.sql("UPDATE events SET text = 'by b' WHERE id = 1").push();
    assert_eq!(get(&server, "conflicts/1/rows")["all"], 1, "either side can be kept without another row");
    // Whoever takes back the event takes back its note, and is to know.
    let mut rows = vec![json!({"table": "events", "key": {"id": 50}, "keep": "theirs"})];
    let (status, text) = settle(&server, 1, &json!({"rows": rows, "keep": "theirs"}));
    assert!(status == 409 && text.to_string().contains("notes:50,7"), "{status} {text}");
    assert_eq!(texts(&latest(&server)).len(), 5, "nothing was published");
    rows.push(json!({"table": "notes", "key": {"event": 50, "n": 7}, "keep": "theirs"}));
    assert_eq!(settle(&server, 1, &json!({"rows": rows, "keep": "theirs"})).0, 200);
    assert_eq!(texts(&latest(&server))[..2], ["1=by a", "2=row 2 of 1"]);
}

#[test]
fn a_settlement_is_not_done_where_there_is_something_new_to_choose() {
    let server = TestServer::start();
    let (mut a, _b) = overlapping(&server);
    // Nothing to choose: it is merged with the rest.
    a.sql("UPDATE events SET text = 'a again' WHERE id = 5").push();
    // Row 3 is in the candidate too.
    a.sql("UPDATE events SET text = 'a as well' WHERE id = 3").push();
    let (status, text) = settle(&server, 1, &json!({"keep": "mine", "latest": 2}));
    assert_eq!(status, 409, "{text}");
    assert!(text.as_str().unwrap().contains("version 4 came meanwhile"), "{text}");
    let rows = get(&server, "conflicts/1/rows");
    assert_eq!((&rows["all"], &rows["theirs"]), (&2.into(), &4.into()));
    assert_eq!(get(&server, "conflicts/1")["theirs"], 4);
    assert_eq!(settle(&server, 1, &json!({"keep": "mine", "latest": 4})).0, 200);
    assert_eq!(texts(&latest(&server)), ["1=by b", "2=by a", "3=by b", "4=row 4 of 1", "5=a again"]);
}

#[test]
fn a_pull_key_sees_conflicts_and_settles_none() {
    let server = TestServer::start();
    overlapping(&server);
    let pull = server.key(Kind::AccountPull, "team");
    let foreign = server.key(Kind::AccountAdmin, "other");
    for what in ["conflicts", "conflicts/1", "conflicts/1/rows", "diff?from=1&to=2"] {
        assert_eq!(api(&server, &pull, "GET", what, "").0, 200, "{what}");
        assert_eq!(api(&server, &foreign, "GET", what, "").0, 403, "{what}");
    }
    let body = json!({"keep": "mine"}).to_string();
    for key in [&pull, &foreign] {
        assert_eq!(api(&server, key, "POST", "conflicts/1/settle", &body).0, 403);
    }
    let push = server.replica_key(Kind::ReplicaPush, "app.db");
    assert_eq!(api(&server, &push, "POST", "conflicts/1/settle", "{}").0, 400);
    assert_eq!(api(&server, &push, "POST", "conflicts/1/settle", &body).0, 200);
    assert_eq!(api(&server, &pull, "GET", "conflicts/2", "").0, 404);
}

#[test]
fn two_clients_that_push_in_turns_and_never_pull_lose_nothing() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 2, 1));
    a.push();
    let mut b = a.second("b");
    for round in 0..50 {
        for (client, name) in [(&mut a, "a"), (&mut b, "b")] {
            let id = 1000 + 2 * round + i64::from(name == "b");
            client.sql(&format!("INSERT INTO events (id, text) VALUES ({id}, '{name} {round}')"));
            assert_eq!(client.push().conflict, None, "{name} {round}");
        }
    }
    let found = texts(&latest(&server));
    assert_eq!(found.len(), 102, "{found:?}");
    a.pull();
    assert_eq!(texts(&a.content), found);
}

#[test]
fn the_policy_decides_and_force_overtakes() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 3, 1));
    a.push();
    let mut b = a.second("b");
    let policy = |rule: &str| {
        let body = json!({"policy": rule}).to_string();
        assert_eq!(api(&server, &server.admin, "PUT", "policy", &body).0, 200);
    };
    a.sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
    policy("reject");
    let failed = b.sql("UPDATE events SET text = 'by b' WHERE id = 3").try_push().unwrap_err();
    let ExchangeError::Peer { refusal, text } = &failed else { panic!("{failed:?}") };
    assert_eq!(*refusal, Refusal::Conflict);
    assert!(text.contains("version 2, the latest"), "{text}");
    b.key = server.replica_key(Kind::ReplicaPush, "app.db");
    b.force = true;
    b.try_push().unwrap_err();
    b.force = false;
    policy("latest-wins");
    let committed = b.push();
    assert_eq!((committed.version, committed.overtook), (version(3), true));
    assert_eq!(texts(&latest(&server)), ["1=row 1 of 1", "2=row 2 of 1", "3=by b"]);
    policy("merge");
    a.force = true;
    let committed = a.sql("UPDATE events SET text = 'a forces' WHERE id = 3").push();
    assert_eq!((committed.version, committed.overtook), (version(4), true));
    assert_eq!(texts(&latest(&server)), ["1=by a", "2=row 2 of 1", "3=a forces"]);
    let log = get(&server, "audit");
    let mut entries: Vec<_> =
        log["entries"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    entries.retain(|action| [&"overtook".into(), &"push-rejected".into()].contains(action));
    assert_eq!(entries, ["overtook", "overtook", "push-rejected", "push-rejected"]);
}

#[test]
fn differences_and_queries_of_versions_are_answered() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 5, 1));
    a.push();
    a.sql("UPDATE events SET text = 'x' WHERE id = 2; DELETE FROM events WHERE id = 3").push();
    let text = match get(&server, "diff?from=1&to=2") {
        Value::String(lines) => lines,
        other => panic!("{other}"),
    };
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((&lines[0]["op"], &lines[0]["key"]), (&"update".into(), &json!({"id": 2})));
    assert_eq!(
        (&lines[0]["before"]["text"], &lines[0]["after"]["text"]),
        (&"row 2 of 1".into(), &"x".into())
    );
    assert_eq!((&lines[1]["op"], &lines[1]["after"]), (&"delete".into(), &Value::Null));
    let stat = get(&server, "diff?from=1&to=2&stat=1");
    assert_eq!(stat["rows"]["events"], json!({"insert": 0, "update": 1, "delete": 1}));
    let counted = get(&server, "versions?stat=true");
    let found: Vec<_> = counted["versions"].as_array().unwrap().iter().collect();
    assert_eq!((&found[0]["version"], &found[0]["rows"]), (&2.into(), &stat["rows"]), "{counted}");
    assert_eq!((&found[1]["version"], &found[1]["rows"]), (&1.into(), &Value::Null));
    assert_eq!((&found[0]["message"], &counted["next_before"]), (&"".into(), &Value::Null));
    assert_eq!(get(&server, "versions")["versions"][0].get("rows"), None);
    assert_ne!(api(&server, "", "GET", "versions?stat=true", "").0, 200, "rows are for keys of the replica");
    let sql = get(&server, "diff?from=1&to=2&format=sql");
    assert!(sql.as_str().unwrap().contains("UPDATE"), "{sql}");
    assert_eq!(api(&server, &server.admin, "GET", "diff?from=1&to=3", "").0, 404);
    assert_eq!(api(&server, &server.admin, "GET", "diff?from=0&to=1", "").0, 400);

    let ask = |body: Value| api(&server, &server.admin, "POST", "query", &body.to_string());
    let (status, found) =
        ask(json!({"version": 1, "sql": "SELECT id, text FROM events ORDER BY id", "limit": 2}));
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["columns"], json!(["id", "text"]));
    assert_eq!(
        (&found["rows"], &found["more"]),
        (&json!([[1, "row 1 of 1"], [2, "row 2 of 1"]]), &true.into())
    );
    assert_eq!(ask(json!({"sql": "SELECT count(*) FROM events"})).1["rows"], json!([[4]]));
    for wrong in ["DELETE FROM events", "SELECT", "SELECT 1; SELECT 2", "ATTACH 'x' AS y"] {
        assert_eq!(ask(json!({"sql": wrong})).0, 400, "{wrong}");
    }
}

#[test]
fn what_is_no_database_is_a_conflict_and_taken_whole_or_not_at_all() {
    for (keep, version) in [("theirs", 3), ("mine", 3)] {
        let server = TestServer::start();
        let mut a = Own::first(&server, "a", database(4096, 500, 1));
        a.push();
        let mut b = a.second("b");
        a.sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
        // Every page but the first becomes nonsense.
        for number in b.content.numbers().skip(1).collect::<Vec<_>>() {
            b.content.set(number, &vec![0xa5; 4096]);
        }
        let sent = b.content.clone();
        assert_eq!(b.push().conflict, conflict(1));
        let one = get(&server, "conflicts/1");
        assert!(!one["problem"].as_str().unwrap().is_empty(), "{one}");
        let (status, text) = settle(&server, 1, &json!({"keep": keep}));
        assert_eq!((status, &text["version"]), (200, &version.into()), "{text}");
        let expected = if keep == "mine" { &sent } else { &a.content };
        assert!(latest(&server) == *expected, "{keep}");
    }
}

#[test]
fn a_push_repeated_after_a_lost_answer_is_answered_the_same() {
    let server = TestServer::start();
    let mut a = Own::first(&server, "a", database(4096, 3, 1));
    a.push();
    let b = a.second("b");
    a.sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
    for (number, sql, expected) in [
        (7, "UPDATE events SET text = 'by b' WHERE id = 3", (version(3), true, None)),
        (8, "UPDATE events SET text = 'by b' WHERE id = 1", (None, false, conflict(1))),
    ] {
        let content = changed(&b.content, sql);
        for _ in 0..2 {
            let (base, before) = b.base.clone().unwrap();
            let push_id = sqlrsync_protocol::exchange::PushId([number; 16]);
            let origin = MemoryOrigin::new(content.clone()).with_base(base, before).with_push_id(push_id);
            let ask = Ask::new(&server.admin, 3).header("x-clientid", "b");
            let done = push_from(&server, NAME, &ask, origin).unwrap().summary.committed;
            assert_eq!((done.version, done.merged, done.conflict), expected);
        }
    }
    assert_eq!(get(&server, "versions")["versions"].as_array().unwrap().len(), 3);
    assert_eq!(get(&server, "conflicts")["conflicts"].as_array().unwrap().len(), 1);
}

/// A query that never ends.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// A server that gives the least time there is.
fn hurried() -> TestServer {
    let second = "1s".parse().unwrap();
    let server = TestServer::with(Settings { query_timeout: second, diff_timeout: second, ..settings() });
    Own::first(&server, "a", database(4096, 500, 1)).push();
    server
}

#[test]
fn a_query_over_its_time_is_refused_for_good_and_says_which_limit_it_was() {
    let server = hurried();
    let (status, said) = api(&server, &server.admin, "POST", "query", &json!({"sql": ENDLESS}).to_string());
    let said = said.to_string();
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("1s") && said.contains("--query-timeout") && said.contains("narrow"), "{said}");
    assert!(!said.contains("later"), "{said}");
}

#[test]
fn a_comparison_over_its_time_ends_with_the_limit_that_it_was() {
    let server = hurried();
    let mut a = Own::first(&server, "a", database(4096, 500, 1));
    a.push();
    // More than sockets take while nobody reads.
    a.sql(
        "CREATE TABLE large (id INTEGER PRIMARY KEY, x);
         WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 400)
         INSERT INTO large SELECT n, zeroblob(50000) FROM n",
    )
    .push();
    let mut socket = server.connect();
    let head = format!(
        "GET /api/v1/replicas/{NAME}/diff?from=1&to=2 HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
         Connection: close\r\n\r\n",
        server.admin
    );
    socket.write_all(head.as_bytes()).unwrap();
    // It has begun.
    socket.peek(&mut [0]).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = String::from_utf8_lossy(&answer[answer.len().saturating_sub(500)..]).into_owned();
    assert!(end.contains("error") && end.contains("1s") && end.contains("--diff-timeout"), "{end}");
}
