//! Pushes of the public client, which says who it is and not what its file was made from. None of them takes a
//! row away from anybody in silence.

use bytes::Bytes;
use serde_json::json;
use sqlrsync_protocol::conversation::{Quiet, ReplicaOptions, Wire, run_replica};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::memory::{Content, MemoryReplica};
use sqlrsync_protocol::message::{Side, error_bytes};
use sqlrsync_protocol::page::VersionNumber;

use crate::merges::settle;
use crate::public_client::{Ask, Broken, Done, Failed, Socket, pull, push, told};
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

fn text_of(server: &TestServer, id: u32) -> String {
    let content = pull(server, NAME, &Ask::new(&server.admin, 3), None).unwrap().0;
    rows(&content, &format!("SELECT text FROM events WHERE id = {id}")).concat()
}

/// The wire of a pull that has all of a version, and says something else than that it has.
struct Denies {
    socket: Socket,
    says: Option<Refusal>,
}

impl Wire for Denies {
    type Error = Broken;

    fn send(&mut self, bytes: Bytes) -> Result<(), Broken> {
        const REPLICA_DONE: u8 = 0x6c;
        if bytes.first() != Some(&REPLICA_DONE) {
            return self.socket.send(bytes);
        }
        if let Some(refusal) = self.says {
            self.socket.send(error_bytes(Side::Replica, Some(refusal), "no"))?;
            // Read until the server has taken note of it.
            while let Ok(Some(_)) = self.socket.receive() {}
        }
        Err(Broken("that is all it says".to_owned()))
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Broken> {
        self.socket.receive()
    }

    fn agreed(&mut self, version: u8) {
        self.socket.agreed(version);
    }
}

#[test]
fn a_pull_that_was_not_wanted_is_no_possible_base_and_one_that_was_cut_is() {
    const PUBLIC: &str = "0.0.6";
    for (says, client, arrived) in [
        (Some(Refusal::NotWanted), PUBLIC, false),
        (Some(Refusal::NotWanted), "sqlrsync 1.0", false),
        (Some(Refusal::Failed), PUBLIC, true),
        (None, PUBLIC, true),
    ] {
        let server = served();
        let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
        a.push();
        let mut b = File::new(&server, "b", "/app.db", a.content.clone());
        b.pull(None).add(20).push();
        let ask = a.ask().header("x-clientversion", client);
        let socket = Socket::open(&server, &format!("/sapi/pull/{NAME}"), &ask).unwrap();
        let mut replica = MemoryReplica::of(Some(a.content.clone()));
        let mut wire = Denies { socket, says };
        run_replica(ReplicaOptions::default(), &mut replica, &mut wire, &mut Quiet).unwrap_err();
        // Where version 2 may be in the file, row 20 may have been deleted from it.
        a.add(10);
        if arrived {
            a.is_in_conflict(1);
        } else {
            assert_eq!(a.push(), 3, "merged");
            assert_eq!(ids(&server), [1, 2, 3, 10, 20]);
        }
    }
}

#[test]
fn a_pull_that_is_cut_before_it_brings_anything_is_no_possible_base() {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    File::new(&server, "b", "/app.db", a.content.clone()).pull(None).add(20).push();
    drop(Socket::open(&server, &format!("/sapi/pull/{NAME}"), &a.ask()).unwrap());
    assert_eq!(a.add(10).push(), 3, "merged");
    assert_eq!(ids(&server), [1, 2, 3, 10, 20]);
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
fn a_copy_of_a_file_that_was_pushed_does_not_bring_back_what_was_undone_since() {
    let server = served();
    let a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    let mut b = File::new(&server, "b", "/app.db", a.content.clone());
    b.pull(None).add(10).sql("UPDATE events SET text = 'b' WHERE id = 1").push();
    let before = text_of(&server, 2);
    let mut copy = File::new(&server, "b", "/copy.db", b.content.clone());
    b.sql("DELETE FROM events WHERE id = 10").sql("UPDATE events SET text = 'later' WHERE id = 1").push();
    // All that is known of the copy is that its client has pulled version 1: row 10 seems to be its own.
    copy.sql("UPDATE events SET text = 'later' WHERE id = 1").add(11).is_in_conflict(1);
    assert_eq!(
        (ids(&server), text_of(&server, 1), text_of(&server, 2)),
        (vec![1, 2, 3], "later".into(), before)
    );
    // What is the same in the latest version undoes nothing.
    let mut other = File::new(&server, "b", "/other.db", b.content.clone());
    assert_eq!(other.add(12).push(), 4);
    assert_eq!(ids(&server), [1, 2, 3, 12]);
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

#[test]
fn who_sets_a_value_and_sets_it_back_publishes_both() {
    let server = served();
    let mut file = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    file.push();
    assert_eq!(file.sql("UPDATE events SET text = '99' WHERE id = 1").push(), 2);
    assert_eq!(file.sql("UPDATE events SET text = 'row 1 of 1' WHERE id = 1").push(), 3);
    assert_eq!(text_of(&server, 1), "row 1 of 1");
}

#[test]
fn who_sets_back_what_is_in_conflict_has_nothing_in_conflict_any_more() {
    let server = served();
    let mut a = File::new(&server, "a", "/app.db", database(4096, 3, 1));
    a.push();
    let mut b = File::new(&server, "b", "/app.db", a.content.clone());
    b.pull(None).sql("UPDATE events SET text = 'by b' WHERE id = 1");
    a.sql("UPDATE events SET text = 'by a' WHERE id = 1").push();
    b.is_in_conflict(1);
    b.sql("UPDATE events SET text = 'row 1 of 1' WHERE id = 1").try_push().unwrap();
    assert_eq!(text_of(&server, 1), "by a");
    let asked = [("Authorization", server.admin.as_str())];
    let (_, _, found) = server.ask("GET", &format!("/api/v1/replicas/{NAME}/conflicts"), &asked, "");
    assert!(!found.contains(r#""open""#), "{found}");
}

/// A version 1 that `a` has a backup of; then a version 2 in which `b` did this, and a version 3.
fn backed_up<'s>(server: &'s TestServer, rows: u32, by_b: &str) -> (File<'s>, Content) {
    let mut a = File::new(server, "a", "/app.db", database(4096, rows, 1));
    a.push();
    let backup = a.content.clone();
    let mut b = File::new(server, "b", "/app.db", a.content.clone());
    b.pull(None).sql(by_b).push();
    a.pull(None);
    assert_eq!(a.sql("UPDATE events SET text = 'of version 3' WHERE id = 2").push(), 3);
    (a, backup)
}

/// So many writes that the change counter says nothing of a restored backup.
fn written_often(to: &str) -> String {
    "PRAGMA synchronous = OFF; ".to_owned()
        + &(0..200)
            .map(|number| format!("UPDATE events SET text = '{number}' WHERE id = 2; "))
            .collect::<String>()
        + to
}

#[test]
fn a_restored_backup_is_found_out_among_many_new_rows() {
    let server = served();
    let (mut a, backup) = backed_up(&server, 3, "INSERT INTO events (id, text) VALUES (2000, 'by b')");
    a.content = backup;
    a.sql(&written_often(
        "WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) \
         INSERT INTO events (id, text) SELECT i, 'new' FROM n",
    ));
    a.is_in_conflict(1);
}

#[test]
fn a_restored_backup_is_found_out_by_a_long_row() {
    let server = served();
    let (mut a, backup) =
        backed_up(&server, 3, "INSERT INTO events (id, text) VALUES (20, hex(zeroblob(50000)))");
    a.content = backup;
    a.sql(&written_often("")).is_in_conflict(1);
}

#[test]
fn a_push_of_more_changes_than_are_looked_into_is_a_conflict_where_others_write() {
    let many = "UPDATE events SET text = 'many ' || id WHERE id <= 1200";
    let server = served();
    let (mut a, backup) = backed_up(&server, 1300, "UPDATE events SET text = 'by b' WHERE id = 1300");
    a.content = backup;
    a.sql(&written_often(many)).is_in_conflict(1);
    // Nobody else's can be taken back.
    let server = served();
    let mut alone = File::new(&server, "a", "/app.db", database(4096, 1300, 1));
    alone.push();
    assert_eq!(alone.sql(many).push(), 2);
}

#[test]
fn a_restored_backup_is_found_out_however_many_versions_it_is_behind() {
    let server = served();
    let (mut a, backup) = backed_up(&server, 3, "INSERT INTO events (id, text) VALUES (20, 'by b')");
    for number in 0..70 {
        a.sql(&format!("UPDATE events SET text = '{number}' WHERE id = 3")).push();
    }
    // What it did itself, as long ago, it may undo.
    a.add(30).push();
    for number in 0..70 {
        a.sql(&format!("UPDATE events SET text = '{number}' WHERE id = 3")).push();
    }
    let version = a.sql("DELETE FROM events WHERE id = 30").push();
    assert_eq!(version, 145);
    a.content = backup;
    a.sql(&written_often("UPDATE events SET text = 'mine' WHERE id = 3")).is_in_conflict(1);
}

#[test]
fn a_restored_backup_without_a_table_of_others_is_a_conflict() {
    let server = served();
    let (mut a, backup) = backed_up(&server, 3, "CREATE TABLE theirs (id INTEGER PRIMARY KEY)");
    a.content = backup;
    a.sql(&written_often("")).is_in_conflict(1);
}
