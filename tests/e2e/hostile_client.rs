//! A server beside clients that send what no client may: it says so, closes, and is as it was.

use sqlrsync_protocol::conversation::{ExchangeError, OriginOptions, Quiet, run_origin};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_tests::client::Client;
use sqlrsync_tests::random::Random;
use sqlrsync_tests::raw::RawSocket;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::subscriber::{PATIENCE, wait_until};
use sqlrsync_tests::synthetic::{Lie, Synthetic};
use sqlrsync_tests::trace::{self, Trace};
use sqlrsync_tests::{measure, sample};

use crate::REMOTE;

const ORIGIN_BEGIN: u8 = 0x41;
const ORIGIN_END: u8 = 0x42;
const ORIGIN_ERROR: u8 = 0x43;
const ORIGIN_PAGE: u8 = 0x44;
const ORIGIN_TXN: u8 = 0x45;
const ORIGIN_DETAIL: u8 = 0x47;
const ORIGIN_READY: u8 = 0x48;
const REPLICA_ERROR: u8 = 0x62;

/// A server with one version, and what its repository looks like.
struct Target {
    server: Server,
    key: String,
    before: Trace,
}

impl Target {
    fn new() -> Target {
        // Hundreds of connections, each cut off while the server still works on it.
        let server =
            Server::with_flags(&["--connections-max", "4000", "--connections-per-address-max", "4000"]);
        let client = Client::admin(&server);
        sample::create(&client.path("app.db"));
        client.run(&["app.db", REMOTE]).ok();
        let key = server.admin_key();
        let before = trace::of_repository(&server.data());
        Target { server, key, before }
    }

    fn connect(&self, what: &str) -> RawSocket {
        let path = format!("{what}/{REMOTE}");
        RawSocket::connect(self.server.url(), &path, &self.key).expect("the key is right")
    }

    /// Sends these messages on a push and gives the server's answer.
    fn push(&self, messages: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let mut socket = self.connect("push");
        messages.iter().take_while(|message| socket.send(message)).for_each(drop);
        socket.receive_all()
    }

    /// The server runs, serves, and holds what it held.
    fn assert_untouched(&mut self, after: &str) {
        assert!(self.server.is_running(), "the server is gone after {after}");
        let now = trace::of_repository(&self.server.data());
        let names: Vec<_> = now.keys().filter(|path| !self.before.contains_key(*path)).collect();
        assert!(now == self.before, "the repository changed after {after}: new {names:?}");
    }
}

fn begin(version: u8, log2: u8, pages: u32) -> Vec<u8> {
    [&[ORIGIN_BEGIN, version, log2][..], &pages.to_be_bytes()].concat()
}

fn with_length(kind: u8, length: u32, text: &[u8]) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes(), text].concat()
}

#[test]
fn random_bytes_change_nothing() {
    let mut target = Target::new();
    let mut random = Random::new(1);
    for round in 0..60 {
        let mut socket = target.connect(if round % 3 == 0 { "pull" } else { "push" });
        let mut bytes = vec![0; 1 + usize::try_from(random.below(3000)).unwrap()];
        random.fill(&mut bytes);
        if round % 2 == 0 {
            // Past the first look.
            socket.send(&begin(3, 12, 100));
        }
        socket.send(&bytes);
        socket.send(&bytes);
        drop(socket);
    }
    target.assert_untouched("random bytes");
}

#[test]
fn messages_in_a_wrong_order_are_named_and_end_the_push() {
    let mut target = Target::new();
    let page = [&[ORIGIN_PAGE][..], &1_u32.to_be_bytes(), &[0; 4096]].concat();
    let detail = [&[ORIGIN_DETAIL][..], &1_u32.to_be_bytes(), &5_u32.to_be_bytes()].concat();
    let txn = [&[ORIGIN_TXN][..], &1_u32.to_be_bytes()].concat();
    let opening = begin(2, 12, 10);
    let streams: [(&str, Vec<&[u8]>); 7] = [
        ("a page first", vec![&page]),
        ("an end first", vec![&[ORIGIN_END]]),
        ("a commit first", vec![&txn]),
        ("ready first", vec![&[ORIGIN_READY]]),
        ("two openings", vec![&opening, &opening]),
        ("a replica's message", vec![&opening, &[0x65]]),
        (
            "detail of version 2 in version 1",
            vec![&[ORIGIN_BEGIN, 1, 12, 0, 0, 0, 10], &detail, &[ORIGIN_READY]],
        ),
    ];
    for (name, messages) in &streams {
        let (answer, _) = target.push(messages);
        assert!(answer.contains(&REPLICA_ERROR), "{name}: the server says what is wrong, not {answer:?}");
        target.assert_untouched(name);
    }
}

#[test]
fn impossible_openings_are_refused() {
    let mut target = Target::new();
    for opening in [begin(2, 8, 10), begin(2, 17, 10), begin(2, 255, 10), begin(0, 12, 10)] {
        let (answer, _) = target.push(&[&opening, &[ORIGIN_READY]]);
        assert!(answer.contains(&REPLICA_ERROR), "{opening:?}");
        target.assert_untouched("an impossible opening");
    }
}

#[test]
fn a_length_of_four_gigabytes_takes_no_memory() {
    let mut target = Target::new();
    measure::forget_memory_peak(target.server.pid());
    let before = measure::memory_peak(target.server.pid()).unwrap_or(0);
    let mut streams =
        vec![with_length(ORIGIN_ERROR, u32::MAX, b"text"), with_length(0x46, u32::MAX, b"text")];
    // Every type of message, known or not, in every version, with a length of 4 GiB behind it.
    for version in 1..=3 {
        for kind in 0..=255 {
            streams.push([begin(version, 12, 10), with_length(kind, u32::MAX, &[0xff; 64])].concat());
        }
    }
    for stream in streams {
        let mut socket = target.connect("push");
        socket.send(&stream);
        drop(socket);
    }
    target.assert_untouched("lengths of 4 GiB");
    let peak = measure::memory_peak(target.server.pid()).unwrap_or(0);
    assert!(peak < before + 64_000_000, "memory went from {before} to {peak}");
}

/// Pushes what a synthetic origin has; gives the error that the server answered with.
fn push_synthetic(target: &Target, lie: Lie) -> Option<(Refusal, String)> {
    let path = "push/team/synthetic.db";
    let mut socket = RawSocket::connect(target.server.url(), path, &target.key).unwrap();
    let mut origin = Synthetic::new(300);
    origin.lie = lie;
    match run_origin(OriginOptions::default(), &mut origin, &mut socket, &mut Quiet) {
        Ok(_) => None,
        Err(ExchangeError::Peer { refusal, text }) => Some((refusal, text)),
        Err(other) => panic!("not the server's own words: {other:?}"),
    }
}

#[test]
fn a_push_that_claims_one_root_and_sends_another_is_an_integrity_error() {
    let mut target = Target::new();
    for lie in [Lie::Root, Lie::PageCount] {
        let (refusal, text) = push_synthetic(&target, lie.clone()).expect("it is refused");
        assert!([Refusal::Integrity, Refusal::Invalid].contains(&refusal), "{lie:?}: {refusal:?} {text}");
        assert!(trace::staged(&target.server.data()).is_empty(), "a liar's pages are not kept");
        target.assert_untouched("a wrong root");
    }
    assert!(push_synthetic(&target, Lie::None).is_none(), "without a lie it goes through");
}

#[test]
fn a_decompression_bomb_is_refused_and_takes_no_memory() {
    let mut target = Target::new();
    measure::forget_memory_peak(target.server.pid());
    let before = measure::memory_peak(target.server.pid()).unwrap_or(0);
    // 4 GB of zeros in one zstd frame, under the name of 64 pages.
    let mut bomb = zstd::stream::Encoder::new(Vec::new(), 19).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..4000).for_each(|_| std::io::Write::write_all(&mut bomb, &zeros).unwrap());
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 300_000, "{} bytes are too many for a block", bomb.len());
    // Codec zstd, one run: page 1, 64 pages.
    let rest = [&[1, 0, 1, 0, 0, 0, 1, 0, 64][..], &bomb].concat();
    let check = blake3::hash(&rest);
    let block = [&check.as_bytes()[..16], &rest].concat();
    let (refusal, text) = push_synthetic(&target, Lie::Block(block.into())).expect("it is refused");
    assert!([Refusal::Integrity, Refusal::Invalid].contains(&refusal), "{refusal:?} {text}");
    target.assert_untouched("a decompression bomb");
    let peak = measure::memory_peak(target.server.pid()).unwrap_or(0);
    assert!(peak < before + 64_000_000, "memory went from {before} to {peak}");
}

#[test]
fn more_pages_than_may_be_are_refused_before_they_are_sent() {
    let server = Server::with_flags(&["--database-bytes-max", "1000000"]);
    let client = Client::admin(&server);
    sample::Sample { rows: 20_000, ..sample::Sample::default() }.create(&client.path("big.db"));
    let outcome = client.run(&["big.db", "team/big.db"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    client.run(&["log", "team/big.db"]).code(10);
}

#[test]
fn a_client_that_stops_talking_is_cut_off() {
    let server = Server::with_flags(&["--idle-timeout", "1s", "--header-timeout", "1s"]);
    let key = server.admin_key();
    let mut socket = RawSocket::connect(server.url(), "push/team/slow.db", &key).unwrap();
    socket.send(&begin(3, 12, 1000));
    // Waits until the server closes, which without the flag it would do after a minute.
    let begun = std::time::Instant::now();
    socket.receive_all();
    assert!(begun.elapsed() < std::time::Duration::from_secs(50), "{:?}", begun.elapsed());

    // A header that never ends.
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).expect("the server hangs up");
}

#[test]
fn too_many_connections_from_one_address_are_told_to_come_back() {
    let server = Server::with_flags(&["--connections-per-address-max", "3"]);
    let key = server.admin_key();
    let path = "push/team/many.db";
    let held: Vec<_> = (0..3).map(|_| RawSocket::connect(server.url(), path, &key).unwrap()).collect();
    let client = Client::guest(&server).with_env("SQLRSYNC_ADMIN_KEY", &key);
    sample::create(&client.path("app.db"));
    client.run(&["app.db", REMOTE]).code(5);
    drop(held);
    wait_until("there is room again", || client.run(&["app.db", REMOTE]).code == 0);
}
