//! Pushes of the public client, which says who it is and not what its file was made from. None of them takes a
//! row away from anybody in silence.

use serde_json::json;
use sqlrsync_protocol::memory::Content;
use sqlrsync_protocol::page::VersionNumber;

use crate::merges::settle;
use crate::public_client::{Ask, Done, Failed, pull, push, told};
use crate::support::{TestServer, changed, database, rows};

const NAME: &str = "team/app.db";

/// A file on a machine, and the public client there.
struct File<'s> {
    server: &'s TestServer,
    id: &'static str,
    host: &'static str,
    path: &'static str,
    content: Content,
}

impl<'s> File<'s> {
    fn new(server: &'s TestServer, id: &'static str, path: &'static str, content: Content) -> File<'s> {
        File { server, id, host: id, path, content }
    }

    fn ask(&self) -> Ask<'s> {
        Ask::new(&self.server.admin, 2)
            .header("x-clientid", self.id)
            .header("x-localhostname", self.host)
            .header("x-localabsolutepath", self.path)
    }

    fn sql(&mut self, sql: &str) -> &mut Self {
        self.content = changed(&self.content, sql);
        self
    }

    fn add(&mut self, id: u32) -> &mut Self {
        self.sql(&format!("INSERT INTO events (id, text) VALUES ({id}, 'new')"))
    }

    fn try_push(&self) -> Result<Done, Failed> {
        push(self.server, NAME, &self.ask(), &self.content)
    }

    /// The version that it became, or was merged as.
    fn push(&self) -> u64 {
        self.try_push().unwrap().config.committed_version.unwrap().get()
    }

    /// It is kept as a conflict, and says so.
    fn is_in_conflict(&self, number: u64) {
        let failed = self.try_push().unwrap_err();
        let text = told(&failed);
        assert!(text.contains(&format!("kept as conflict {number} of {NAME}")), "{text}");
        assert!(text.contains(&format!("sqlrsync resolve {NAME} {number}")), "{text}");
    }

    /// Pulls into this file.
    fn pull(&mut self, version: Option<u64>) -> &mut Self {
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        let ask = self.ask().header("x-replicaversion", &version);
        self.content = pull(self.server, NAME, &ask, Some(&self.content)).unwrap().0;
        self
    }
}

/// A server with a version 1, pushed from `a:/app.db`.
fn served() -> TestServer {
    TestServer::start()
}

fn ids(server: &TestServer) -> Vec<u32> {
    let content = pull(server, NAME, &Ask::new(&server.admin, 3), None).unwrap().0;
    rows(&content, "SELECT CAST(id AS TEXT) FROM events ORDER BY id")
        .iter()
        .map(|id| id.parse().unwrap())
        .collect()
}

#[test]
fn a_sole_pusher_pushes_one_version_after_the_other() {
    let server = served();
    let mut file = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    assert_eq!(file.push(), 1);
    assert_eq!(file.add(10).push(), 2);
    assert_eq!(file.push(), 2, "nothing changed");
    assert_eq!(file.sql("DELETE FROM events WHERE id = 10").push(), 3, "what it did itself it may undo");
    assert_eq!(file.add(11).push(), 4);
    assert_eq!(file.sql("DELETE FROM events").add(1).push(), 5);
    assert_eq!(ids(&server), [1]);
}

#[test]
fn clients_that_push_in_turns_and_never_pull_lose_nothing() {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 2, 1));
    a.push();
    let mut b = File::new(&server, "b", "/app.db", a.content.clone());
    b.pull(None);
    for round in 0..50 {
        a.add(1000 + round).push();
        b.add(2000 + round).push();
    }
    assert_eq!(ids(&server).len(), 102);
    a.pull(None);
    assert_eq!(a.add(3000).push(), 102);
    assert_eq!(ids(&server).len(), 103);
}

#[test]
fn who_pulls_edits_and_pushes_is_merged_with_what_others_did_meanwhile() {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    let mut b = File::new(&server, "b", "/app.db", database(4096, 1, 9));
    b.pull(None).add(20);
    a.add(10).push();
    assert_eq!(b.push(), 3);
    assert_eq!(ids(&server), [1, 2, 3, 10, 20]);
    // Pulled and made from the latest: as it is, with what was deleted.
    b.pull(None);
    assert_eq!(b.add(21).push(), 4);
    assert_eq!(ids(&server), [1, 2, 3, 10, 20, 21]);
}

/// Conflict 1 is with a backup that has row 11 and does not have rows 10 and 20.
fn with_a_restored_backup() -> TestServer {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    let backup = a.content.clone();
    let mut b = File::new(&server, "b", "/app.db", a.content.clone());
    b.pull(None).add(20).push();
    a.pull(None);
    assert_eq!(a.add(10).push(), 3);
    a.content = backup;
    a.add(11).is_in_conflict(1);
    server
}

#[test]
fn a_restored_backup_is_a_conflict() {
    let server = with_a_restored_backup();
    assert_eq!(ids(&server), [1, 2, 3, 10, 20], "nothing was taken away");
}

#[test]
fn a_conflict_with_what_came_from_nowhere_is_settled_for_the_side_that_was_chosen() {
    let row = |id: u32, keep: &str| json!({"table": "events", "key": {"id": id}, "keep": keep});
    let of_both = [1, 2, 3, 10, 11, 20];
    let choices = [
        (json!({"keep": "theirs"}), &[1, 2, 3, 10, 20][..]),
        (json!({"keep": "mine"}), &[1, 2, 3, 11]),
        (json!({"rows": [row(10, "theirs"), row(11, "mine"), row(20, "theirs")]}), &of_both),
        (json!({"rows": [row(10, "theirs"), row(11, "theirs"), row(20, "theirs")]}), &[1, 2, 3, 10, 20]),
        (json!({"keep": "mine", "rows": [row(10, "theirs"), row(20, "theirs")]}), &of_both),
        (json!({"keep": "theirs", "rows": [row(11, "mine")]}), &of_both),
    ];
    for (chosen, left) in choices {
        let server = with_a_restored_backup();
        assert_eq!(settle(&server, 1, &chosen), (200, json!({"conflict": 1, "version": 4})), "{chosen}");
        assert_eq!(ids(&server), left, "{chosen}");
    }
}

#[test]
fn a_cloned_home_folder_is_a_conflict() {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    let mut clone = File::new(&server, "a", "/app.db", a.content.clone());
    let mut moved = File { host: "another", ..File::new(&server, "a", "/app.db", a.content.clone()) };
    a.add(10).push();
    clone.add(11).is_in_conflict(1);
    moved.add(12).is_in_conflict(2);
    assert_eq!(ids(&server), [1, 2, 3, 10]);
    // The clone has taken its name, and what the clone has pushed is not thrown away for it.
    a.add(13).is_in_conflict(3);
}

#[test]
fn a_second_copy_on_one_machine_is_a_conflict_unless_it_was_pulled() {
    let server = served();
    let mut first = File::new(&server, "a", "/first.db", database(4096, 3, 1));
    first.push();
    let mut copied = File::new(&server, "a", "/copied.db", first.content.clone());
    first.add(10).push();
    copied.add(11).is_in_conflict(1);
    assert_eq!(ids(&server), [1, 2, 3, 10]);

    let server = served();
    let mut first = File::new(&server, "a", "/first.db", database(4096, 3, 1));
    first.push();
    let mut pulled = File::new(&server, "a", "/pulled.db", database(4096, 1, 9));
    pulled.pull(None).add(11);
    first.add(10).push();
    assert_eq!(pulled.push(), 3);
    assert_eq!(ids(&server), [1, 2, 3, 10, 11]);
}

#[test]
fn an_old_version_pulled_into_another_file_is_a_conflict_where_that_matters() {
    let server = served();
    let mut first = File::new(&server, "a", "/first.db", database(4096, 3, 1));
    first.push();
    first.add(10).push();
    let mut other = File::new(&server, "a", "/other.db", database(4096, 1, 9));
    other.pull(None);
    other.pull(Some(1)).add(11).is_in_conflict(1);
    assert_eq!(ids(&server), [1, 2, 3, 10]);
    // The same content again is nothing to publish.
    other.pull(Some(1));
    assert_eq!(other.push(), 2);
}

#[test]
fn who_says_nothing_of_itself_is_in_conflict_and_the_first_push_is_not() {
    let server = served();
    let mut nobody = File::new(&server, "", "", database(4096, 3, 1));
    assert_eq!(nobody.push(), 1);
    assert_eq!(nobody.push(), 1);
    nobody.add(10).is_in_conflict(1);
    assert_eq!(ids(&server), [1, 2, 3]);
    let number = VersionNumber::new(1);
    let done = pull(&server, NAME, &Ask::new(&server.admin, 2), None).unwrap().1;
    assert_eq!(done.config.committed_version, number);
}

#[test]
fn a_push_that_is_refused_tells_the_latest_version_to_clients_that_know_it() {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    let mut b = File::new(&server, "b", "/app.db", a.content.clone());
    b.pull(None).add(20);
    a.add(10).push();
    let body = r#"{"policy":"reject"}"#;
    let len = body.len().to_string();
    let headers = [("Authorization", server.admin.as_str()), ("Content-Length", &len)];
    assert_eq!(server.ask("PUT", &format!("/api/v1/replicas/{NAME}/policy"), &headers, body).0, 200);
    let failed = b.try_push().unwrap_err();
    let text = told(&failed);
    assert!(text.contains("not made from version 2, the latest"), "{text}");
    assert!(text.ends_with("[ABORT=VERSION_CONFLICT:2]"), "{text}");
    b.pull(None);
    assert_eq!(b.add(20).push(), 3);
    assert_eq!(ids(&server), [1, 2, 3, 10, 20]);
}

#[test]
fn where_the_base_is_not_known_every_row_that_differs_is_somebodys_to_choose() {
    for (body, expected) in [
        (r#"{"keep":"theirs"}"#, &[1, 2, 3, 10][..]),
        (r#"{"keep":"mine"}"#, &[1, 2, 3, 11]),
        (
            r#"{"keep":"theirs","rows":[{"table":"events","key":{"id":11},"keep":"mine"}]}"#,
            &[1, 2, 3, 10, 11],
        ),
        (
            r#"{"keep":"mine","rows":[{"table":"events","key":{"id":10},"keep":"theirs"}]}"#,
            &[1, 2, 3, 10, 11],
        ),
    ] {
        let server = served();
        let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
        a.push();
        let mut stranger = File::new(&server, "b", "/app.db", a.content.clone());
        a.add(10).push();
        let failed = stranger.add(11).try_push().unwrap_err();
        assert!(told(&failed).contains("not known which version"), "{failed:?}");
        let key = ("Authorization", server.admin.as_str());
        let conflict = format!("/api/v1/replicas/{NAME}/conflicts/1");
        let listed: serde_json::Value =
            serde_json::from_str(&server.get(&format!("{conflict}/rows"), &[key]).2).unwrap();
        assert_eq!(listed["all"], 2, "{listed}");
        assert_eq!(
            (&listed["rows"][0]["key"]["id"], &listed["rows"][1]["key"]["id"]),
            (&10.into(), &11.into())
        );
        let len = body.len().to_string();
        let settled =
            server.ask("POST", &format!("{conflict}/settle"), &[key, ("Content-Length", &len)], body);
        assert_eq!(settled.0, 200, "{body}: {}", settled.2);
        assert_eq!(ids(&server), expected, "{body}");
        assert_eq!(stranger.add(12).push(), 4, "it goes on from what it sent");
    }
}
