//! Pushes and pulls, by versions 1, 2 and 3.

use std::sync::Arc;

use bytes::Bytes;
use sqlrsync_protocol::conversation::{ExchangeError, OriginOptions, Quiet, Wire, run_origin};
use sqlrsync_protocol::exchange::{Base, PushId, Refusal};
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::memory::MemoryOrigin;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::text::KeyType;

use crate::public_client::{Ask, Broken, Socket, pull, push, push_from, told};
use crate::support::{TestServer, database, with_a_row_changed};

#[test]
fn what_is_pushed_is_pulled_in_every_version_of_the_protocol() {
    let server = TestServer::start();
    for protocol in 1..=3 {
        let name = format!("team/v{protocol}/app.db");
        let ask = Ask { message: "first ✓", ..Ask::new(&server.admin, protocol) };
        let first = database(4096, 5000, 1);
        let done = push(&server, &name, &ask, &first).unwrap();
        assert_eq!(done.config.committed_version, VersionNumber::new(1));
        assert_eq!(done.config.replica_path.unwrap().to_string(), name);
        assert_eq!(done.config.key_type, Some(KeyType::Push));
        assert_eq!(done.config.new_push_key, None, "nobody asked for keys");
        assert_eq!(done.messages, [format!("version 1 of {name}")]);

        let second = with_a_row_changed(&first, 2);
        let done = push(&server, &name, &Ask::new(&server.admin, protocol), &second).unwrap();
        assert_eq!(done.config.committed_version, VersionNumber::new(2));
        assert!(done.summary.pages_sent < 5, "{:?}", done.summary);

        for puller in 1..=3 {
            let ask = Ask::new(&server.admin, puller);
            let (content, done) = pull(&server, &name, &ask, None).unwrap();
            assert!(content == second, "pushed by {protocol}, pulled by {puller}");
            assert_eq!(done.config.committed_version, VersionNumber::new(2));
            let (content, done) = pull(&server, &name, &ask, Some(&first)).unwrap();
            assert!(content == second, "pushed by {protocol}, pulled by {puller}");
            assert!(done.summary.pages_received < 5);
            let old = Ask::new(&server.admin, puller).header("x-replicaversion", "1");
            assert!(pull(&server, &name, &old, None).unwrap().0 == first);
            let old = Ask::new(&server.admin, puller).header("x-replicaversion", "-1");
            assert!(pull(&server, &name, &old, Some(&second)).unwrap().0 == first);
        }
    }
}

#[test]
fn every_page_size_goes_both_ways() {
    let server = TestServer::start();
    for page_size in [512, 1024, 8192, 65_536] {
        let content = database(page_size, 3000, page_size);
        for protocol in [2, 3] {
            let name = format!("team/{protocol}/{page_size}.db");
            let ask = Ask::new(&server.admin, protocol);
            push(&server, &name, &ask, &content).unwrap();
            assert!(pull(&server, &name, &ask, None).unwrap().0 == content, "{name}");
        }
    }
}

#[test]
fn an_unchanged_database_makes_no_version() {
    let server = TestServer::start();
    let content = database(4096, 100, 1);
    for protocol in 1..=3 {
        let ask = Ask::new(&server.admin, protocol);
        let done = push(&server, "team/app.db", &ask, &content).unwrap();
        assert_eq!(done.config.committed_version, VersionNumber::new(1), "{protocol}");
    }
}

#[test]
fn keys_that_were_asked_for_open_the_replica_and_no_other() {
    let server = TestServer::start();
    let content = database(4096, 100, 1);
    for protocol in [2, 3] {
        let name = format!("team/{protocol}.db");
        let ask = Ask { request_keys: true, message: "m", ..Ask::new(&server.admin, protocol) };
        let done = push(&server, &name, &ask, &content).unwrap();
        let (push_key, pull_key) = (done.config.new_push_key.unwrap(), done.config.new_pull_key.unwrap());
        let own = Ask::new(push_key.secret(), protocol);
        push(&server, &name, &own, &with_a_row_changed(&content, 2)).unwrap();
        let own = Ask { request_keys: true, ..Ask::new(pull_key.secret(), protocol) };
        let (_, done) = pull(&server, &name, &own, None).unwrap();
        let third = done.config.new_pull_key.expect("a key for who asks on a pull");
        assert_eq!(done.config.new_push_key, None);
        pull(&server, &name, &Ask::new(third.secret(), 2), None).unwrap();
        let other = format!("/sapi/pull/team/{}.db", 5 - protocol);
        let refused = Socket::open(&server, &other, &Ask::new(third.secret(), 2)).map(drop);
        assert_eq!(refused.unwrap_err().0, 403);
    }
}

#[test]
fn a_push_without_a_name_is_named_by_host_and_file() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    let ask = |client: &str, path: &str| {
        Ask { key: &server.admin, protocol: 2, ..Ask::default() }
            .header("x-clientid", client)
            .header("x-localhostname", "lap top;$(x)")
            .header("x-localabsolutepath", path)
    };
    let name =
        |ask: &Ask<'_>| push(&server, "", ask, &content).unwrap().config.replica_path.unwrap().to_string();
    assert_eq!(name(&ask("one", "/home/app.db")), "team/lap top-$(x)/app.db".replace('$', "-"));
    assert_eq!(name(&ask("two", "/srv/app.db")), "team/lap top--(x)/app.db-2", "another database");
    assert_eq!(name(&ask("one", "/home/app.db")), "team/lap top--(x)/app.db", "the same one again");
    let key = server.replica_key(Kind::ReplicaPush, "mine.db");
    let own = Ask::new(&key, 2);
    assert_eq!(name(&own), "team/mine.db", "the replica that the key is for");
}

#[test]
fn a_pull_key_is_told_so_and_pushes_nothing() {
    let server = TestServer::start();
    let content = database(4096, 10, 1);
    push(&server, "team/app.db", &Ask::new(&server.admin, 2), &content).unwrap();
    let keys = [server.key(Kind::AccountPull, "team"), server.replica_key(Kind::ReplicaPull, "app.db")];
    for key in &keys {
        let mut socket = Socket::open(&server, "/sapi/push/team/app.db", &Ask::new(key, 2)).unwrap();
        assert_eq!(socket.greeted().unwrap(), KeyType::Pull);
        for protocol in 1..=3 {
            let failed = push(&server, "team/app.db", &Ask::new(key, protocol), &content).unwrap_err();
            assert!(told(&failed).contains("PULL key"), "{failed:?}");
            if protocol == 3 {
                assert!(matches!(failed, ExchangeError::Peer { refusal: Refusal::NotAllowed, .. }));
            }
        }
        let own = Ask::new(key, 3).header("x-clientversion", "sqlrsync 0.1.0");
        assert_eq!(Socket::open(&server, "/sapi/push/team/app.db", &own).err().unwrap().0, 403);
    }
    let (_, done) = pull(&server, "team/app.db", &Ask::new(&keys[0], 2), None).unwrap();
    assert_eq!(done.config.committed_version, VersionNumber::new(1));
}

#[test]
fn a_push_repeated_under_its_push_id_makes_no_second_version() {
    let server = TestServer::start();
    let ask = Ask::new(&server.admin, 3);
    let (first, second) = (database(4096, 100, 1), database(4096, 100, 2));
    let push_id = PushId([7; 16]);
    for _ in 0..2 {
        let origin = MemoryOrigin::new(first.clone()).with_push_id(push_id);
        let done = push_from(&server, "team/app.db", &ask, origin).unwrap();
        assert_eq!(done.config.committed_version, VersionNumber::new(1));
    }
    push(&server, "team/app.db", &ask, &second).unwrap();
    let base = Base { version: VersionNumber::new(1), root: first.root() };
    let third = with_a_row_changed(&first, 3);
    let origin = MemoryOrigin::new(third.clone()).with_base(base, first.clone());
    let forced = ask.clone().header("x-force", "1");
    let done = push_from(&server, "team/app.db", &forced, origin).unwrap();
    assert_eq!(done.config.committed_version, VersionNumber::new(3));
    assert!(done.summary.committed.overtook);
    assert!(done.messages[0].contains("what others pushed meanwhile"), "{:?}", done.messages);
    assert!(pull(&server, "team/app.db", &ask, None).unwrap().0 == third);
}

#[test]
fn pushes_to_one_replica_take_turns_and_all_of_them_count() {
    let server = Arc::new(TestServer::start());
    let pushes: Vec<_> = (0..6)
        .map(|seed| {
            let server = server.clone();
            std::thread::spawn(move || {
                let content = database(4096, 2000, seed);
                // Each is a database of its own, with which nothing can be merged.
                let ask = Ask::new(&server.admin, 2 + (seed % 2) as u8).header("x-force", "1");
                push(&server, "team/app.db", &ask, &content).unwrap().config.committed_version.unwrap().get()
            })
        })
        .collect();
    let mut versions: Vec<u64> = pushes.into_iter().map(|push| push.join().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_first_push_that_was_cut_goes_on_where_it_was() {
    let server = TestServer::start();
    let content = database(4096, 60_000, 1);
    let ask = Ask::new(&server.admin, 3);
    let mut origin = MemoryOrigin::new(content.clone());
    let socket = Socket::open(&server, "/sapi/push/team/app.db", &ask).unwrap();
    let mut cut = CutAfter { socket, left: 300_000 };
    cut.socket.greeted().unwrap();
    run_origin(OriginOptions::default(), &mut origin, &mut cut, &mut Quiet).unwrap_err();
    drop(cut);
    let done = push(&server, "team/app.db", &ask, &content).unwrap();
    assert_eq!(done.config.committed_version, VersionNumber::new(1));
    let all = content.geometry().page_count.get().into();
    assert!(done.summary.pages_sent < all, "{} of {all} pages sent again", done.summary.pages_sent);
    assert!(pull(&server, "team/app.db", &ask, None).unwrap().0 == content);
}

/// A wire that breaks after so many bytes were sent.
struct CutAfter {
    socket: Socket,
    left: usize,
}

impl Wire for CutAfter {
    type Error = Broken;

    fn send(&mut self, bytes: Bytes) -> Result<(), Broken> {
        self.left = self.left.saturating_sub(bytes.len());
        if self.left == 0 { Err(Broken("cut".to_owned())) } else { self.socket.send(bytes) }
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.left == 0 { Err(Broken("cut".to_owned())) } else { self.socket.receive() }
    }

    fn agreed(&mut self, version: u8) {
        self.socket.agreed(version);
    }
}

#[test]
fn a_lost_catalog_loses_no_version() {
    let server = TestServer::start();
    let content = database(4096, 100, 1);
    let ask = Ask::new(&server.admin, 2).header("x-visibility", "2");
    push(&server, "team/deep/app.db", &ask, &content).unwrap();
    // A thread of this process may still have the old catalog open, and takes its WAL away when it closes it: all but
    // the catalog goes to another folder.
    let (old, folder) = (server.into_folder(), tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for entry in std::fs::read_dir(old.path().join("data")).unwrap() {
        let name = entry.unwrap().file_name();
        if !name.to_str().unwrap().starts_with("catalog.db") {
            std::fs::rename(old.path().join("data").join(&name), data.join(&name)).unwrap();
        }
    }
    let server = TestServer::on(folder, crate::support::settings());
    let key = server.key(Kind::AccountPull, "team");
    assert!(pull(&server, "team/deep/app.db", &Ask::new(&key, 2), None).unwrap().0 == content);
    assert_eq!(server.get_upgrade("/sapi/pull/team/deep/app.db", "").0, 401, "private until told otherwise");
}
