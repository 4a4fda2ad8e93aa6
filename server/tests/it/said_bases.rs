//! Pushes of our own client where it does not dare to say the base of its file, and says what it last agreed on for
//! that path (`X-Possible-Base`): that is one more possible base and no more.

use sqlrsync_protocol::exchange::{Base, Committed, PushId};
use sqlrsync_protocol::memory::{Content, MemoryOrigin};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::possible_base::PossibleBase;

use crate::public_client::{Ask, pull, push_from};
use crate::support::{TestServer, changed, database, rows};

const NAME: &str = "team/app.db";

/// A server with a version 1, and that one.
fn served() -> (TestServer, Content) {
    let server = TestServer::start();
    let first = database(4096, 3, 1);
    assert_eq!(push(&server, NAME, &first, 1, &PossibleBase::default()).version, number(1));
    (server, first)
}

/// A push of this id from the one file `/app.db` of the one client.
fn push(server: &TestServer, name: &str, content: &Content, id: u8, said: &PossibleBase) -> Committed {
    let ask = Ask::new(&server.admin, 3)
        .header("x-localhostname", "here")
        .header("x-localabsolutepath", "/app.db")
        .header("x-possible-base", &said.to_string());
    let origin = MemoryOrigin::new(content.clone()).with_push_id(PushId([id; 16]));
    push_from(server, name, &ask, origin).unwrap().summary.committed
}

fn number(number: u64) -> Option<VersionNumber> {
    VersionNumber::new(number)
}

/// What was agreed on as that version; 0 where it was none.
fn agreed(content: &Content, version: u64) -> PossibleBase {
    let base = Base { version: number(version), root: content.root() };
    PossibleBase { agreed: Some(base), ..PossibleBase::default() }
}

/// With these rows, each in a commit of its own.
fn with_rows(content: &Content, ids: &[u32]) -> Content {
    let insert = |id: &u32| format!("INSERT INTO events (id, text) VALUES ({id}, 'new'); ");
    changed(content, &ids.iter().map(insert).collect::<String>())
}

fn ids(server: &TestServer) -> Vec<u32> {
    let content = pull(server, NAME, &Ask::new(&server.admin, 3), None).unwrap().0;
    let found = rows(&content, "SELECT CAST(id AS TEXT) FROM events ORDER BY id");
    found.iter().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn what_a_clone_last_agreed_on_keeps_it_from_taking_back_what_the_other_pushed() {
    for version in [1, 0] {
        let (server, first) = served();
        let second = with_rows(&first, &[10]);
        assert_eq!(push(&server, NAME, &second, 2, &agreed(&first, 1)).version, number(2));
        // Its change counter is beyond that of the other.
        let clone = with_rows(&first, &[11, 12, 13]);
        let came_to = push(&server, NAME, &clone, 3, &agreed(&first, version));
        assert!(came_to.conflict.is_some(), "{came_to:?}");
        assert_eq!(ids(&server), [1, 2, 3, 10]);
    }
}

#[test]
fn a_clone_that_has_what_the_other_pushed_is_merged_whichever_it_was_made_from() {
    let (server, first) = served();
    let second = with_rows(&first, &[10]);
    push(&server, NAME, &second, 2, &agreed(&first, 1));
    let clone = with_rows(&first, &[10, 11]);
    assert_eq!(push(&server, NAME, &clone, 3, &agreed(&first, 1)).version, number(3));
    assert_eq!(ids(&server), [1, 2, 3, 10, 11]);
    // As it is, with nothing new.
    assert!(push(&server, NAME, &first, 4, &agreed(&first, 1)).unchanged);
    assert_eq!(ids(&server), [1, 2, 3, 10, 11]);
}

#[test]
fn who_pushed_last_may_undo_what_it_did() {
    let (server, first) = served();
    let second = with_rows(&first, &[10]);
    push(&server, NAME, &second, 2, &agreed(&first, 1));
    let undone = changed(&second, "DELETE FROM events WHERE id = 10");
    assert_eq!(push(&server, NAME, &undone, 3, &agreed(&second, 2)).version, number(3));
    assert_eq!(ids(&server), [1, 2, 3]);
}

#[test]
fn a_push_whose_answer_was_lost_is_later_than_what_was_agreed_on() {
    for (pushes, is_conflict) in [(&[9, 2][..], false), (&[9], true), (&[], true)] {
        let (server, first) = served();
        let second = with_rows(&first, &[10]);
        push(&server, NAME, &second, 2, &agreed(&first, 1));
        let undone = changed(&second, "DELETE FROM events WHERE id = 10; UPDATE events SET text = 'x'");
        let pushes = pushes.iter().map(|id| PushId([*id; 16])).collect();
        let came_to = push(&server, NAME, &undone, 3, &PossibleBase { pushes, ..agreed(&first, 1) });
        assert_eq!(came_to.conflict.is_some(), is_conflict, "{came_to:?}");
    }
}

#[test]
fn what_this_replica_does_not_have_is_no_base_whether_another_has_it_or_not() {
    let foreign = database(4096, 5, 2);
    for (said, what) in [
        (agreed(&foreign, 1), "another replica's version"),
        (agreed(&foreign, 0), "another replica's content"),
        (agreed(&database(4096, 6, 3), 1), "nobody's"),
        (agreed(&database(4096, 6, 3), u64::MAX), "nobody's, of a number that is none"),
    ] {
        let (server, first) = served();
        assert_eq!(push(&server, "team/other.db", &foreign, 7, &agreed(&foreign, 1)).version, number(1));
        let came_to = push(&server, NAME, &with_rows(&first, &[10]), 2, &said);
        assert!(came_to.conflict.is_some(), "{what}: it is not known what it was made from: {came_to:?}");
        assert_eq!(ids(&server), [1, 2, 3], "{what}");
    }
}
