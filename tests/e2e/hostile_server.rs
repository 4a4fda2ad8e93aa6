//! A client beside servers that send what no server may: it says so, ends in time, and the database is
//! as it was.

use sqlrsync_tests::client::Client;
use sqlrsync_tests::fake::FakeServer;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::{measure, sample, trace};

use crate::REMOTE;

fn begin(version: u8, log2: u8, pages: u32) -> Vec<u8> {
    [&[0x41, version, log2][..], &pages.to_be_bytes()].concat()
}

fn page(number: u32, fill: u8) -> Vec<u8> {
    [&[0x44][..], &number.to_be_bytes(), &[fill; 4096]].concat()
}

/// What a pull from such a server did: into a file that is there, and into none.
fn pull_changes_nothing(name: &str, messages: &[Vec<u8>]) {
    let server = FakeServer::sending(messages.to_vec());
    let client = Client::stranger().with_env("SQLRSYNC_AUTH_TOKEN", "a-key");
    client.use_server(&server.url());
    sample::create(&client.path("there.db"));
    let before = trace::of_folder(&client.work(), |_| false);
    for file in ["there.db", "new.db"] {
        let mut command = client.command(&[REMOTE, file, "--force"]);
        let run = measure::run(&mut command).unwrap();
        let code = run.status.code();
        assert!(code.is_some_and(|code| [1, 5, 12].contains(&code)), "{name}: {code:?} {}", run.stderr);
        assert!(run.memory_bytes_max < 128_000_000, "{name}: {} bytes of memory", run.memory_bytes_max);
        assert!(!run.stderr.is_empty(), "{name}: says what is wrong");
    }
    let after = trace::of_folder(&client.work(), |_| false);
    let names: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(after == before, "{name}: something changed; new: {names:?}");
}

#[test]
fn a_stream_that_no_server_may_send_changes_nothing() {
    let mut random = Random::new(3);
    let mut noise = vec![0; 2000];
    random.fill(&mut noise);
    let txn = |pages: u32| [&[0x45][..], &pages.to_be_bytes()].concat();
    let bad_first_page = vec![begin(2, 12, 2), page(1, 0x55), page(2, 0x55), txn(2), vec![0x42]];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("nothing", vec![]),
        ("noise", vec![noise.clone()]),
        ("an opening and noise", vec![begin(3, 12, 3), noise]),
        ("a page before the opening", vec![page(1, 0)]),
        ("an end before the opening", vec![vec![0x42]]),
        ("an opening, then nothing", vec![begin(2, 12, 3)]),
        ("an opening of version 9", vec![begin(9, 12, 3)]),
        ("no page size", vec![begin(2, 30, 3)]),
        ("a page past the end", vec![begin(2, 12, 2), page(9, 1), txn(2), vec![0x42]]),
        ("page zero", vec![begin(2, 12, 2), page(0, 1), txn(2), vec![0x42]]),
        ("fewer pages than there are", vec![begin(2, 12, 3), page(1, 1), txn(3), vec![0x42]]),
        ("pages that are no database", bad_first_page),
        ("another number of pages", vec![begin(2, 12, 2), page(1, 1), page(2, 1), txn(u32::MAX), vec![0x42]]),
        ("an error of 4 GiB", vec![begin(2, 12, 2), [&[0x43][..], &[0xff; 100]].concat()]),
        ("a message of 4 GiB", vec![[&[0x46][..], &[0xff; 100]].concat()]),
        ("cut in the middle of a page", vec![begin(2, 12, 2), page(1, 1)[..100].to_vec()]),
    ];
    for (name, messages) in &cases {
        pull_changes_nothing(name, messages);
    }
}

#[test]
fn an_error_of_the_server_is_shown_without_its_control_characters() {
    let text = b"no such thing \x1b[31m\x07 here";
    let error = [&[0x43][..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    let server = FakeServer::sending(vec![error]);
    let client = Client::stranger().with_env("SQLRSYNC_AUTH_TOKEN", "a-key");
    client.use_server(&server.url());
    let outcome = client.run(&[REMOTE, "new.db"]).says("no such thing");
    assert_ne!(outcome.code, 0);
    assert!(!outcome.stderr.contains(['\u{1b}', '\u{7}']), "{:?}", outcome.stderr);
    assert!(!client.path("new.db").exists());
}

#[test]
fn a_push_to_such_a_server_fails_and_leaves_the_database_alone() {
    let mut random = Random::new(4);
    let mut noise = vec![0; 500];
    random.fill(&mut noise);
    for messages in [vec![noise], vec![vec![0x62, 0, 0, 0, 2, b'n', b'o']], vec![vec![0x63]], vec![]] {
        let server = FakeServer::sending(messages);
        let client = Client::stranger().with_env("SQLRSYNC_AUTH_TOKEN", "a-key");
        client.use_server(&server.url());
        sample::create(&client.path("app.db"));
        let before = std::fs::read(client.path("app.db")).unwrap();
        let outcome = client.run(&["app.db", REMOTE]);
        assert!([1, 5].contains(&outcome.code), "{} {}", outcome.code, outcome.stderr);
        assert!(std::fs::read(client.path("app.db")).unwrap() == before);
    }
}
