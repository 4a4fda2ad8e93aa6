//! A TCP connection that breaks: stands between client and server and hangs up after so many bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which way the bytes are counted that a connection may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// From the client to the server.
    Up(u64),
    /// From the server to the client.
    Down(u64),
    /// Never.
    No,
}

/// A listener that carries every connection to a server, and cuts it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts one. Its thread ends with the process.
    pub fn start(server: SocketAddr, cut: Cut) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("it has an address");
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&up), Arc::clone(&down));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (up_max, down_max) = match cut {
                    Cut::Up(max) => (max, u64::MAX),
                    Cut::Down(max) => (u64::MAX, max),
                    Cut::No => (u64::MAX, u64::MAX),
                };
                carry(&client, &server, up_max, &counters.0);
                carry(&server, &client, down_max, &counters.1);
            }
        });
        Proxy { address, up, down }
    }

    /// The address that clients are to use.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that went to the server and to the client, over all connections.
    pub fn carried(&self) -> (u64, u64) {
        (self.up.load(Ordering::SeqCst), self.down.load(Ordering::SeqCst))
    }
}

/// Carries `max` bytes one way, then hangs up both ways.
fn carry(from: &TcpStream, to: &TcpStream, max: u64, counter: &Arc<AtomicU64>) {
    let (mut from, mut to) = (from.try_clone().expect("cloned"), to.try_clone().expect("cloned"));
    let counter = Arc::clone(counter);
    std::thread::spawn(move || {
        let mut left = max;
        let mut buffer = [0; 16 * 1024];
        loop {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = if room == 0 { 0 } else { from.read(&mut buffer[..room]).unwrap_or(0) };
            if n == 0 || to.write_all(&buffer[..n]).is_err() {
                break;
            }
            left -= n as u64;
            counter.fetch_add(n as u64, Ordering::SeqCst);
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
