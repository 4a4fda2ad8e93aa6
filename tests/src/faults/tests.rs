//! The proxy does what it says: without that, the tests that use it show nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;
use crate::subscriber::{PATIENCE, wait_until};

/// A server that sends back what it is sent.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut copy);
                let _ = copy.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends that many bytes and reads what comes back, to the end or the error.
fn sent_and_read(proxy: &Proxy, bytes: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = connect(proxy);
    let mut writer = stream.try_clone().unwrap();
    let sent: Vec<u8> = pattern(bytes);
    let writing = std::thread::spawn(move || {
        let _ = writer.write_all(&sent);
        let _ = writer.shutdown(Shutdown::Write);
    });
    let mut back = Vec::new();
    let error = stream.read_to_end(&mut back).err().map(|error| error.kind());
    writing.join().unwrap();
    (back, error)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

#[test]
fn a_clean_proxy_carries_everything_both_ways() {
    let proxy = Proxy::start(echo(), Plan::Clean);
    let (back, error) = sent_and_read(&proxy, 1_000_000);
    assert!(back == pattern(1_000_000) && error.is_none(), "{} bytes, {error:?}", back.len());
    assert_eq!(proxy.carried(), (1_000_000, 1_000_000));
}

#[test]
fn a_cut_comes_after_exactly_so_many_bytes() {
    for bytes in [0, 1, 777, 40_000] {
        let fault = Fault::cut(Way::Down, bytes);
        let proxy = Proxy::start(echo(), Plan::Each(fault));
        let (back, error) = sent_and_read(&proxy, 100_000);
        assert_eq!((back.len() as u64, error), (bytes, None), "an end in good order");
        assert_eq!((proxy.carried().1, proxy.faults()), (bytes, 1));
    }
}

#[test]
fn a_reset_is_one() {
    let fault = Fault { when: When::Bytes(Way::Down, 5_000), what: What::Reset };
    let proxy = Proxy::start(echo(), Plan::Each(fault));
    let (back, error) = sent_and_read(&proxy, 100_000);
    // What had arrived and was not read yet may be gone with it.
    assert!(back.len() <= 5_000 && error == Some(ErrorKind::ConnectionReset), "{error:?}");
}

#[test]
fn a_stalled_connection_is_silent_for_that_long_and_loses_nothing() {
    let (stall, bytes) = (Duration::from_millis(300), 50_000);
    let fault = Fault { when: When::Bytes(Way::Up, 1_000), what: What::Stall(stall) };
    let proxy = Proxy::start(echo(), Plan::Each(fault));
    let began = Instant::now();
    let (back, error) = sent_and_read(&proxy, bytes);
    assert!(back == pattern(bytes) && error.is_none());
    assert!(began.elapsed() >= stall, "{:?}", began.elapsed());
}

#[test]
fn a_slow_connection_loses_nothing() {
    let fault = Fault { when: When::After(Duration::ZERO), what: What::Slow(Duration::from_millis(200)) };
    let proxy = Proxy::start(echo(), Plan::Each(fault));
    let (back, error) = sent_and_read(&proxy, 50_000);
    assert!(back == pattern(50_000) && error.is_none());
}

#[test]
fn one_half_is_closed_and_the_other_goes_on() {
    let fault = Fault { when: When::Bytes(Way::Up, 1_000), what: What::HalfClose(Way::Up) };
    let proxy = Proxy::start(echo(), Plan::Each(fault));
    let (back, error) = sent_and_read(&proxy, 50_000);
    assert!(back == pattern(1_000) && error.is_none(), "{} bytes, {error:?}", back.len());
}

#[test]
fn a_healed_proxy_ends_a_stall_and_all_that_was_to_come() {
    let fault = Fault { when: When::Bytes(Way::Up, 10), what: What::Stall(Duration::from_secs(3600)) };
    let proxy = Proxy::start(echo(), Plan::Each(fault));
    let mut stream = connect(&proxy);
    stream.write_all(&pattern(1_000)).unwrap();
    wait_until("the stall", || proxy.faults() > 0);
    proxy.heal();
    let mut back = vec![0; 1_000];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, pattern(1_000));
}

#[test]
fn connections_are_turned_away_broken_and_taken_again() {
    let proxy = Proxy::start(echo(), Plan::Clean);
    let mut held = connect(&proxy);
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    proxy.refuse(true);
    // Accepted by the system, and reset before a byte of it is carried.
    assert!(sent_and_read(&proxy, 10).0.is_empty());
    proxy.break_all();
    assert!(matches!(held.read(&mut [0]), Ok(0) | Err(_)), "it was broken");
    proxy.refuse(false);
    assert_eq!(sent_and_read(&proxy, 10).0, pattern(10));
    assert_eq!(proxy.connections(), 3);
}

#[test]
fn connections_that_died_are_silent_and_open_and_new_ones_are_carried() {
    let proxy = Proxy::start(echo(), Plan::Clean);
    let mut held = connect(&proxy);
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    proxy.kill_all();
    // It says nothing to either side: what is written goes nowhere, and nothing comes.
    wait_until("it died", || {
        held.write_all(b"x").unwrap();
        held.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        held.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    assert_eq!(sent_and_read(&proxy, 10).0, pattern(10));
}

#[test]
fn one_seed_gives_one_schedule_and_each_connection_its_own() {
    let first = |seed, number| Plan::Seeded(seed).faults(number).take(20).collect::<Vec<_>>();
    assert_eq!(first(7, 3), first(7, 3));
    assert_ne!(first(7, 3), first(7, 4));
    assert_ne!(first(7, 3), first(8, 3));
    let refused = (0..1_000).filter(|number| Plan::Seeded(7).refusal(*number).is_some()).count();
    assert!((50..200).contains(&refused), "{refused} of 1000");
}

#[test]
fn through_any_storm_what_arrives_is_a_beginning_of_what_was_sent() {
    let proxy = Proxy::start(echo(), Plan::Seeded(42));
    let sent = pattern(30_000);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert!(sent.starts_with(&sent_and_read(&proxy, sent.len()).0)));
        }
    });
    assert!(proxy.faults() > 0);
    proxy.heal();
    assert_eq!(sent_and_read(&proxy, sent.len()).0, sent);
}
